//! NumPy's NPZ: a ZIP of arrays, one with the features and one with the labels.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use zip::ZipArchive;

use super::npy::{Array, read_array, read_shape};
use super::table::{Builder, check_width, refuse_label, some_of};
use super::{Guard, Table, Wanted, open};
use crate::error::{Error, Result};

type Archive = ZipArchive<BufReader<File>>;

pub(super) fn read(path: &Path, wanted: &Wanted, guard: Guard) -> Result<Table> {
    let mut archive = ZipArchive::new(open(path)?).map_err(explain)?;
    let names: Vec<String> =
        archive.file_names().map(|name| name.strip_suffix(".npy").unwrap_or(name).to_owned()).collect();
    let features = feature_array(&mut archive, &names, wanted)?;
    let features = read_named(&mut archive, &features, guard)?;
    let labels = match wanted.label {
        Some(name) if names.iter().any(|other| other == name) => Some(read_named(&mut archive, name, guard)?),
        Some(name) => {
            let remedy = "; name the label array in recipe.data.label";
            return Err(Error::Data(format!(
                "array `{name}` is not in the data, which has {}{remedy}",
                some_of(&names)
            )));
        }
        None => None,
    };
    build(features, labels, wanted, guard)
}

/// The array with the features: the one that the recipe names, or the only one
/// left, or, as inference does not know what the labels are called, the only
/// one whose rows are as wide as the model.
fn feature_array(archive: &mut Archive, names: &[String], wanted: &Wanted) -> Result<String> {
    if let Some(chosen) = wanted.features
        && let [name] = chosen
    {
        refuse_label(chosen, wanted)?;
        return Ok(name.clone());
    }
    let others = names.iter().filter(|name| Some(name.as_str()) != wanted.label && name.as_str() != "label");
    let others: Vec<&String> = others.collect();
    if let [name] = others[..] {
        return Ok(name.clone());
    }
    let mut fitting = Vec::new();
    for name in others {
        if width_of(archive, name)? == Some(wanted.width) {
            fitting.push(name);
        }
    }
    match (fitting[..].as_ref(), wanted.label) {
        ([name], _) => Ok((*name).clone()),
        (_, Some(_)) => Err(Error::Data(format!(
            "the data has {}: name the one array with the features in recipe.data.features",
            some_of(names)
        ))),
        (fitting, None) => Err(Error::Data(format!(
            "the data has {}, of which {} have {} numbers a row, as {} needs: keep just one",
            some_of(names),
            fitting.len(),
            wanted.width,
            wanted.width_from
        ))),
    }
}

/// How many numbers a row of an array has; none where it has no rows or too long ones.
fn width_of(archive: &mut Archive, name: &str) -> Result<Option<usize>> {
    let file = archive.by_name(&format!("{name}.npy")).map_err(explain)?;
    let shape = read_shape(file)?;
    let edges = shape.split_first().map(|(_, edges)| edges);
    Ok(edges.and_then(|edges| edges.iter().try_fold(1_usize, |product, edge| product.checked_mul(*edge))))
}

fn read_named(archive: &mut Archive, name: &str, guard: Guard) -> Result<Array> {
    let file = archive.by_name(&format!("{name}.npy")).map_err(explain)?;
    read_array(file, guard)
}

fn build(features: Array, labels: Option<Array>, wanted: &Wanted, guard: Guard) -> Result<Table> {
    let Some((rows, edges)) = features.shape.split_first() else {
        return Err(Error::Data("the feature array is a single number: give one entry a row".into()));
    };
    // A row may be an image: its edges are flattened in C order.
    let width = edges.iter().try_fold(1_usize, |product, edge| product.checked_mul(*edge));
    let width = width.ok_or_else(|| Error::Data(format!("the feature array's rows are too long: {edges:?}")))?;
    check_width(width, wanted)?;
    if let Some(labels) = &labels
        && labels.values.len() != *rows
    {
        return Err(Error::Data(format!("the arrays have {rows} rows, but {} labels", labels.values.len())));
    }
    let mut table = Builder::new(None, wanted, guard);
    for row in 0..*rows {
        for (column, value) in features.values[row * width..(row + 1) * width].iter().enumerate() {
            table.value(*value as f32, &column.to_string())?;
        }
        if let Some(labels) = &labels {
            table.numeric_label(labels.values[row])?;
        }
        table.end_row()?;
    }
    Ok(table.finish())
}

fn explain(error: zip::result::ZipError) -> Error {
    Error::Data(format!("the data cannot be read as NPZ: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn rows_that_are_too_long_to_count_are_refused() {
        let features = Array { shape: vec![0, 1 << 32, 1 << 32], values: vec![] };
        let wanted = Wanted { label: None, features: None, width: 2, width_from: "model.mlp.layers" };
        let stop = AtomicBool::new(false);
        let error = build(features, None, &wanted, Guard { stop: &stop, limit: None }).unwrap_err();
        assert!(error.exit_code() == 65 && error.to_string().contains("too long"), "{error}");
    }
}
