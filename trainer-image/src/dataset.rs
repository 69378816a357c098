//! From what was read to what a network takes: classes as indices, values of
//! mean zero and deviation one, some rows held out.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::data::{self, Guard, Labels, Table, Wanted};
use crate::error::{Error, Result};
use crate::recipe::{Evaluate, Model, Percent, Recipe};
use crate::rng::{Rng, Stream};

/// A table that is ready to be trained on: normalised values, a class for each row, some rows held out.
pub struct Labelled {
    pub table: Table,
    /// The class of each row.
    pub indices: Vec<i64>,
    pub classes: Vec<String>,
    pub split: Split,
    pub normalization: Normalization,
}

impl Labelled {
    /// With the classes and figures that are given, else with the data's own.
    pub fn read(
        path: &Path,
        recipe: &Recipe,
        classes: Option<Vec<String>>,
        normalization: Option<Normalization>,
        guard: Guard,
    ) -> Result<Self> {
        let width = recipe.model.features().unwrap_or(0);
        let wanted = Wanted {
            label: Some(recipe.label()),
            features: recipe.chosen_features(),
            width,
            width_from: "recipe.model",
        };
        let mut table = data::read_table(path, &wanted, guard)?;
        let labels = table.labels.take().unwrap_or_default();
        let classes = match classes.filter(|classes| !classes.is_empty()) {
            Some(classes) => classes,
            None => classes_of(&labels, recipe.model.classes(), recipe.label())?,
        };
        let indices = class_indices(&labels, &classes, recipe.label())?;
        let split = Split::by_lot(table.rows, held_out_share(recipe), recipe.seed)?;
        let normalization = normalization.unwrap_or_else(|| Normalization::fit(&table, &split.train, &recipe.model));
        normalization.apply(&mut table.values);
        Ok(Self { table, indices, classes, split, normalization })
    }
}

/// Rows from which batches are taken.
pub enum Rows {
    Table {
        values: Tensor,
        classes: Tensor,
    },
    /// Text in windows of `context` bytes; each byte's class is the next byte.
    Text {
        bytes: Vec<u8>,
        context: usize,
    },
}

impl Rows {
    pub fn table(table: &Table, classes: &[i64], width: usize) -> Result<Self> {
        let shape = [table.rows as i64, width as i64];
        let values = Tensor::f_from_slice(&table.values)?.f_reshape(shape)?;
        Ok(Self::Table { values, classes: Tensor::f_from_slice(classes)? })
    }

    pub fn text(bytes: Vec<u8>, context: usize) -> Result<Self> {
        windows(&bytes, context)?;
        Ok(Self::Text { bytes, context })
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Table { classes, .. } => classes.numel(),
            Self::Text { bytes, context } => (bytes.len() - 1) / context,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Inputs and classes of some rows.
    pub fn batch(&self, ids: &[i64], device: Device) -> Result<(Tensor, Tensor)> {
        match self {
            Self::Table { values, classes } => {
                let ids = Tensor::f_from_slice(ids)?;
                let values = values.f_index_select(0, &ids)?.f_to_device(device)?;
                Ok((values, classes.f_index_select(0, &ids)?.f_to_device(device)?))
            }
            Self::Text { bytes, context } => {
                let windows = |shift: usize| -> Result<Tensor> {
                    let of = |id: &i64| {
                        let start = *id as usize * context + shift;
                        bytes[start..start + context].iter().map(|byte| i64::from(*byte))
                    };
                    let flat: Vec<i64> = ids.iter().flat_map(of).collect();
                    let shape = [ids.len() as i64, *context as i64];
                    Ok(Tensor::f_from_slice(&flat)?.f_reshape(shape)?.f_to_device(device)?)
                };
                Ok((windows(0)?, windows(1)?))
            }
        }
    }
}

/// Of the rows, how many are held out.
pub fn held_out_share(recipe: &Recipe) -> Option<Percent> {
    recipe.evaluate.as_ref().map(Evaluate::split)
}

/// Windows of `context` bytes in a text, each followed by one more byte.
pub fn windows(text: &[u8], context: usize) -> Result<usize> {
    let least = 2 * context + 1;
    if text.len() < least {
        let has = text.len();
        return Err(Error::Data(format!("the text has {has} bytes: a context of {context} needs at least {least}")));
    }
    Ok((text.len() - 1) / context)
}

/// Which rows train and which are held out.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub train: Vec<u32>,
    pub held_out: Vec<u32>,
}

impl Split {
    /// Holds a share of `count` rows out by lot.
    pub fn by_lot(count: usize, share: Option<Percent>, seed: u64) -> Result<Self> {
        Self::cut(Rng::new(seed, Stream::Split).permutation(count), share)
    }

    /// Holds the end out: windows of a text that lie next to each other are alike.
    pub fn of_text(count: usize, share: Option<Percent>) -> Result<Self> {
        Self::cut((0..count as u32).rev().collect(), share)
    }

    fn cut(order: Vec<u32>, share: Option<Percent>) -> Result<Self> {
        let percent = share.map_or(0, |share| share.0);
        let held = (order.len() * percent as usize).div_ceil(100);
        if held >= order.len() {
            return Err(Error::Data(format!(
                "{} rows are too few to hold {percent}% out: add rows, or remove recipe.evaluate",
                order.len()
            )));
        }
        let (held_out, train) = order.split_at(held);
        Ok(Self { train: train.to_vec(), held_out: held_out.to_vec() })
    }
}

/// What is taken off each feature and what it is divided by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    pub mean: Vec<f32>,
    pub deviation: Vec<f32>,
}

impl Normalization {
    /// From the training rows alone. An image's pixels share their channel's
    /// figures; a feature that never varies is only shifted.
    pub fn fit(table: &Table, rows: &[u32], model: &Model) -> Self {
        let width = model.features().unwrap_or(0);
        let group = match model {
            Model::Cnn { input, .. } => (input[1] * input[2]) as usize,
            Model::Mlp { .. } | Model::Transformer { .. } => 1,
        };
        let row = |row: &u32| &table.values[*row as usize * width..][..width];
        // Sums around the first row's values: around zero, rounding would make a large constant seem to vary.
        let around: Vec<f64> =
            rows.first().map(row).unwrap_or_default().iter().step_by(group).map(|value| f64::from(*value)).collect();
        let mut sums = vec![(0.0_f64, 0.0_f64); around.len()];
        for (column, value) in rows.iter().flat_map(|id| row(id).iter().enumerate()) {
            let sum = &mut sums[column / group];
            let value = f64::from(*value) - around[column / group];
            sum.0 += value;
            sum.1 += value * value;
        }
        let count = (rows.len() * group) as f64;
        let figures = around.iter().zip(&sums).map(|(around, (sum, squares))| {
            let shift = sum / count;
            let deviation = (squares / count - shift * shift).max(0.0).sqrt();
            divisor(around + shift, deviation)
        });
        let (mean, deviation) = figures.flat_map(|figures| std::iter::repeat_n(figures, group)).unzip();
        Self { mean, deviation }
    }

    pub fn apply(&self, values: &mut [f32]) {
        for row in values.chunks_exact_mut(self.mean.len()) {
            for (value, (mean, deviation)) in row.iter_mut().zip(self.mean.iter().zip(&self.deviation)) {
                *value = (*value - mean) / deviation;
            }
        }
    }
}

/// Mean, and what to divide by: the deviation, or one where the values differ
/// by no more than f32 can tell apart at their size. A fixed bound instead would
/// leave features of a small scale as good as zero.
fn divisor(mean: f64, deviation: f64) -> (f32, f32) {
    let varies = deviation > mean.abs() * f64::from(f32::EPSILON) && deviation as f32 >= f32::MIN_POSITIVE;
    (mean as f32, if varies { deviation as f32 } else { 1.0 })
}

/// The name of each class, in the order of the model's outputs: the numbers
/// below `outputs` stand for themselves, other labels are sorted.
pub fn classes_of(labels: &Labels, outputs: usize, column: &str) -> Result<Vec<String>> {
    let numbers: Option<Vec<i64>> = labels.names.iter().map(|name| name.parse().ok()).collect();
    if let Some(numbers) = &numbers
        && numbers.iter().all(|number| (0..outputs as i64).contains(number))
    {
        return Ok((0..outputs).map(|class| class.to_string()).collect());
    }
    if labels.names.len() != outputs {
        let mut some = labels.names.clone();
        some.sort();
        some.truncate(5);
        return Err(Error::Data(format!(
            "column `{column}` has {} distinct labels (such as {}), but the model has {outputs} outputs: change one of them",
            labels.names.len(),
            some.join(", ")
        )));
    }
    let mut names = labels.names.clone();
    match numbers {
        Some(_) => names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default()),
        None => names.sort(),
    }
    Ok(names)
}

/// The class index of each row.
pub fn class_indices(labels: &Labels, classes: &[String], column: &str) -> Result<Vec<i64>> {
    let by_name: HashMap<String, i64> = classes.iter().map(|class| canonical(class)).zip(0..).collect();
    let indices: Vec<Option<i64>> = labels.names.iter().map(|name| by_name.get(&canonical(name)).copied()).collect();
    let rows = labels.of_row.iter().enumerate();
    rows.map(|(row, label)| {
        let label = *label as usize;
        indices[label].ok_or_else(|| {
            let name = &labels.names[label];
            Error::Data(format!("row {}, column `{column}` is `{name}`, which is no class of the model", row + 1))
        })
    })
    .collect()
}

/// `07` and `7` are one class.
fn canonical(label: &str) -> String {
    label.parse::<i64>().map_or_else(|_| label.to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Labels {
        Labels {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            of_row: (0..names.len() as u32).collect(),
        }
    }

    #[test]
    fn small_numbers_are_their_own_classes_and_names_are_sorted() {
        assert_eq!(classes_of(&labels(&["2", "0"]), 3, "label").unwrap(), ["0", "1", "2"]);
        assert_eq!(classes_of(&labels(&["20", "3"]), 2, "label").unwrap(), ["3", "20"]);
        let animals = labels(&["dog", "cat"]);
        let classes = classes_of(&animals, 2, "label").unwrap();
        assert_eq!(classes, ["cat", "dog"]);
        assert_eq!(class_indices(&animals, &classes, "label").unwrap(), [1, 0]);
    }

    #[test]
    fn too_many_labels_are_refused_with_both_numbers() {
        let error = classes_of(&labels(&["a", "b", "c"]), 2, "kind").unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains("`kind` has 3 distinct labels"), "{error}");
        assert!(error.to_string().contains("2 outputs"), "{error}");
    }

    #[test]
    fn normalised_rows_have_mean_zero_and_deviation_one() {
        let mut table = Table { rows: 2, values: vec![1.0, 5.0, 3.0, 5.0], ..Table::default() };
        let fit = Normalization::fit(&table, &[0, 1], &Model::Mlp { layers: vec![2, 2] });
        fit.apply(&mut table.values);
        assert_eq!(table.values, [-1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn small_features_are_normalised_and_constant_ones_only_shifted() {
        let third = 0.1_f32 * 3.0;
        // Deviation 1e-9; a constant that no binary fraction is; a large one that varies.
        let values = [[1e-9, third, 1e6], [3e-9, third, 1e6 + 4.0], [1e-9, third, 1e6], [3e-9, third, 1e6 + 4.0]];
        let mut table = Table { rows: 4, values: values.concat(), ..Table::default() };
        let fit = Normalization::fit(&table, &[0, 1, 2, 3], &Model::Mlp { layers: vec![3, 2] });
        fit.apply(&mut table.values);
        for (row, expected) in table.values.chunks_exact(3).zip([[-1.0, 0.0, -1.0], [1.0, 0.0, 1.0]].iter().cycle()) {
            assert!(row.iter().zip(expected).all(|(value, expected)| (value - expected).abs() < 1e-4), "{row:?}");
        }
    }

    #[test]
    fn a_split_is_seeded_and_complete() {
        let split = Split::by_lot(50, Some(Percent(10)), 7).unwrap();
        assert_eq!((split.train.len(), split.held_out.len()), (45, 5));
        assert_eq!(split, Split::by_lot(50, Some(Percent(10)), 7).unwrap());
        assert_ne!(split, Split::by_lot(50, Some(Percent(10)), 8).unwrap());
        let mut all = [split.train, split.held_out].concat();
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<u32>>());
    }
}
