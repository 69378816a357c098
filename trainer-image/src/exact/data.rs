//! What exact training computes on: a task's rows as integers, the same ones on every machine.
//!
//! A feature is read as a 32-bit float. It is brought to mean 0 and deviation 1 by figures of the training rows, which are
//! added up one row after another in 64-bit floats, and is then rounded to 1/256, halves up, and kept within ±8. Nothing
//! but sums, products, quotients and roots is taken on the way; IEEE 754 says of each of them what its last bit is. A text
//! is its bytes.

use std::path::Path;
use std::sync::Arc;

use freehold_exact::compile::FEATURE_BITS;
use freehold_exact::model::ACTIVATION;
use freehold_exact::tensor::Tensor;

use super::recipe::Sizes;
use crate::data::{self, Guard};
use crate::dataset::{self, Labelled, Normalization, Split};
use crate::description::Description;
use crate::error::{Error, Result};
use crate::recipe::{Model, Recipe};

pub struct Data {
    /// In the order in which a program declares them.
    pub tensors: Vec<Arc<Tensor>>,
    pub sizes: Sizes,
    /// Rows, or windows of a text, that are trained on and held out.
    pub trained: usize,
    pub held_out: usize,
    pub description: Description,
    pub normalization: Option<Normalization>,
}

impl Data {
    pub fn read(path: &Path, recipe: &Recipe, guard: Guard) -> Result<Self> {
        match recipe.model {
            Model::Transformer { context, .. } => Self::text(path, recipe, context as usize, guard),
            Model::Mlp { .. } | Model::Cnn { .. } => Self::table(path, recipe, guard),
        }
    }

    fn table(path: &Path, recipe: &Recipe, guard: Guard) -> Result<Self> {
        let Labelled { table, indices, classes, split, normalization } =
            Labelled::read(path, recipe, None, None, guard)?;
        let width = recipe.model.features().unwrap_or(1);
        let features = |rows: &[u32]| {
            let row = |row: &u32| &table.values[*row as usize * width..][..width];
            tensor(vec![rows.len(), width], rows.iter().flat_map(row).map(|value| integer(*value)).collect())
        };
        let labels = |rows: &[u32]| tensor(vec![rows.len()], rows.iter().map(|row| indices[*row as usize]).collect());
        let Split { train, held_out } = &split;
        Ok(Self {
            tensors: vec![features(train)?, labels(train)?, features(held_out)?, labels(held_out)?],
            sizes: Sizes { rows: train.len(), held_out: held_out.len() },
            trained: train.len(),
            held_out: held_out.len(),
            description: Description::new(recipe.model.clone(), recipe.precision, classes, table.features.clone()),
            normalization: Some(normalization),
        })
    }

    /// The windows at the end are held out. The byte where they begin is also the one that follows on those before.
    fn text(path: &Path, recipe: &Recipe, context: usize, guard: Guard) -> Result<Self> {
        let bytes = data::read_bytes(path, guard)?;
        let windows = dataset::windows(&bytes, context)?;
        let split = Split::of_text(windows, dataset::held_out_share(recipe))?;
        let (trained, held_out) = (split.train.len(), split.held_out.len());
        let border = trained * context;
        let part = |bytes: &[u8]| tensor(vec![bytes.len()], bytes.iter().map(|byte| i64::from(*byte)).collect());
        let (first, last) = (&bytes[..=border], &bytes[border..]);
        Ok(Self {
            tensors: vec![part(first)?, part(last)?],
            sizes: Sizes { rows: first.len(), held_out: last.len() },
            trained,
            held_out,
            description: Description::new(recipe.model.clone(), recipe.precision, Vec::new(), None),
            normalization: None,
        })
    }
}

fn tensor(shape: Vec<usize>, values: Vec<i64>) -> Result<Arc<Tensor>> {
    Tensor::new(shape, values).map(Arc::new).map_err(|error| Error::Data(error.to_string()))
}

/// In units of 1/256, halves up. A 32-bit float times 256 is one of 64 bits.
fn integer(value: f32) -> i64 {
    let high = ((1_i64 << FEATURE_BITS) - 1) as f64;
    (f64::from(value) * f64::from(1 << ACTIVATION) + 0.5).floor().clamp(-high, high) as i64
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0.0, 0)]
    #[case(1.0, 256)]
    #[case(0.5 / 256.0, 1)]
    #[case(-0.5 / 256.0, 0)]
    #[case(-0.75 / 256.0, -1)]
    #[case(f32::MIN_POSITIVE, 0)]
    #[case(-f32::MIN_POSITIVE, 0)]
    #[case(7.9999, 2_047)]
    #[case(-1e30, -2_047)]
    fn features_are_rounded_halves_up_and_kept_within_eight(#[case] value: f32, #[case] expected: i64) {
        assert_eq!(integer(value), expected);
    }
}
