//! Rows of finite numbers, and their labels as indices into a list of names.

use std::collections::HashMap;

use super::{Guard, Wanted};
use crate::error::{Error, Result};

/// Distinct labels above which a column surely holds no classes.
const MAX_CLASSES: usize = 65_536;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names of the feature columns; none where the format has no names.
    pub features: Option<Vec<String>>,
    pub rows: usize,
    /// `rows` × number of features.
    pub values: Vec<f32>,
    pub labels: Option<Labels>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    /// Distinct labels in order of appearance.
    pub names: Vec<String>,
    /// One index into `names` a row.
    pub of_row: Vec<u32>,
}

/// Where the wanted columns are in a file.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub features: Vec<usize>,
    pub label: Option<usize>,
}

impl Columns {
    /// Finds the wanted columns among those of the file.
    pub fn select(header: &[String], wanted: &Wanted) -> Result<Self> {
        let mut positions = HashMap::new();
        for (position, name) in header.iter().enumerate() {
            if positions.insert(name.as_str(), position).is_some() {
                return Err(Error::Data(format!("two columns are called `{name}`: rename one")));
            }
        }
        let find = |name: &str, remedy: &str| {
            positions.get(name).copied().ok_or_else(|| {
                Error::Data(format!("column `{name}` is not in the data, which has {}{remedy}", some_of(header)))
            })
        };
        let label = match wanted.label {
            Some(name) => Some(find(name, "; name the label column in recipe.data.label")?),
            None => None,
        };
        refuse_label(wanted.features.unwrap_or_default(), wanted)?;
        let features = match wanted.features {
            Some(names) => names.iter().map(|name| find(name, "")).collect::<Result<Vec<_>>>()?,
            None => (0..header.len()).filter(|position| Some(*position) != label).collect(),
        };
        check_width(features.len(), wanted)?;
        Ok(Self { features, label })
    }
}

/// A model that sees the label learns to repeat it, and fails where it is missing.
pub(super) fn refuse_label(features: &[String], wanted: &Wanted) -> Result<()> {
    match features.iter().find(|name| Some(name.as_str()) == wanted.label) {
        Some(name) => Err(Error::Usage(format!(
            "recipe.data.features lists `{name}`, which recipe.data.label says is the label: remove it from features"
        ))),
        None => Ok(()),
    }
}

pub(super) fn check_width(found: usize, wanted: &Wanted) -> Result<()> {
    if found == wanted.width {
        return Ok(());
    }
    Err(Error::Data(format!(
        "the data has {found} feature columns, but {} asks for {}: change one of them",
        wanted.width_from, wanted.width
    )))
}

/// A few column names for a message.
pub(super) fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    if text.is_empty() { "no columns".into() } else { text }
}

/// Takes values and labels row by row, and refuses what cannot be trained on.
pub(super) struct Builder<'a> {
    table: Table,
    width: usize,
    label_column: &'a str,
    index_of: HashMap<String, u32>,
    guard: Guard<'a>,
}

impl<'a> Builder<'a> {
    pub fn new(features: Option<Vec<String>>, wanted: &Wanted<'a>, guard: Guard<'a>) -> Self {
        let labels = wanted.label.map(|_| Labels::default());
        Self {
            table: Table { features, labels, ..Table::default() },
            width: wanted.width,
            label_column: wanted.label.unwrap_or_default(),
            index_of: HashMap::new(),
            guard,
        }
    }

    /// Number of the row being read, from 1, as messages and predictions count.
    pub fn row(&self) -> usize {
        self.table.rows + 1
    }

    pub fn value(&mut self, value: f32, column: &str) -> Result<()> {
        if !value.is_finite() {
            return Err(bad_cell(self.row(), column, &format!("is {value}, not a finite number")));
        }
        self.table.values.push(value);
        Ok(())
    }

    pub fn label(&mut self, label: &str) -> Result<()> {
        let row = self.row();
        if label.is_empty() {
            return Err(bad_cell(row, self.label_column, "is empty"));
        }
        let Some(labels) = &mut self.table.labels else { return Ok(()) };
        let index = match self.index_of.get(label) {
            Some(index) => *index,
            None => {
                if labels.names.len() == MAX_CLASSES {
                    let reason =
                        format!("is the {}th distinct label: this column does not hold classes", MAX_CLASSES + 1);
                    return Err(bad_cell(row, self.label_column, &reason));
                }
                let index = labels.names.len() as u32;
                labels.names.push(label.to_owned());
                self.index_of.insert(label.to_owned(), index);
                index
            }
        };
        labels.of_row.push(index);
        Ok(())
    }

    /// A label that the format holds as a number.
    pub fn numeric_label(&mut self, label: f64) -> Result<()> {
        if label.fract() != 0.0 || !label.is_finite() || label.abs() > 9e15 {
            return Err(bad_cell(self.row(), self.label_column, &format!("is {label}, which names no class")));
        }
        self.label(&(label as i64).to_string())
    }

    pub fn end_row(&mut self) -> Result<()> {
        debug_assert_eq!(self.table.values.len(), (self.table.rows + 1) * self.width);
        self.table.rows += 1;
        if self.table.rows.is_multiple_of(4096) {
            self.guard.check(self.table.values.len() as u64 * 4)?;
        }
        Ok(())
    }

    pub fn finish(self) -> Table {
        self.table
    }
}

pub(super) fn bad_cell(row: usize, column: &str, what: &str) -> Error {
    Error::Data(format!("row {row}, column `{column}` {what}"))
}
