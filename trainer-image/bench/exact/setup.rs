//! What is run: a recipe, a format, data; made into a program and what it is computed from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use freehold_exact::compile::compile;
use freehold_exact::element::Context;
use freehold_exact::net::Format;
use freehold_exact::program::{Program, Ranges};
use freehold_exact::tensor::{Tensor, Width};
use freehold_trainer::exact::recipe::{Sizes, exact};
use freehold_trainer::recipe::{Model, Recipe};
use serde::Deserialize;

use crate::Failure;

/// A file that the scripts write.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Setup {
    pub recipe: Recipe,
    pub format: Named,
    pub data: PathBuf,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Named {
    Wide,
    I8,
}

/// Whole numbers: rows one after another with 8 fractional bits and their labels, or the bytes of a text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Data {
    rows: Vec<i64>,
    #[serde(default)]
    labels: Vec<i64>,
    held_out: Vec<i64>,
    #[serde(default)]
    held_out_labels: Vec<i64>,
}

/// A program with its data.
pub struct Job {
    pub recipe: Recipe,
    pub program: Program,
    pub ranges: Ranges,
    pub data: Vec<Arc<Tensor>>,
    /// What is evaluated on: as many sets as the held-out text fills, each in place of the data's.
    pub held_out: Vec<Vec<Arc<Tensor>>>,
    pub seed: u64,
}

/// Windows that one evaluation of a text looks at.
const WINDOWS: usize = 64;

impl Job {
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let setup: Setup = serde_json::from_slice(&std::fs::read(path)?)?;
        let data: Data = serde_json::from_slice(&std::fs::read(&setup.data)?)?;
        let format = match setup.format {
            Named::Wide => Format::Wide,
            Named::I8 => Format::I8,
        };
        let tensor = |shape: &[usize], values: &[i64]| Tensor::new(shape, values.to_vec()).map(Arc::new);
        let (training, held_out) = match &setup.recipe.model {
            Model::Transformer { context, .. } => {
                let length = (WINDOWS * *context as usize + 1).min(data.held_out.len());
                let sets = data.held_out.chunks_exact(length).map(|set| Ok(vec![tensor(&[length], set)?]));
                (vec![tensor(&[data.rows.len()], &data.rows)?], sets.collect::<Result<Vec<_>, Failure>>()?)
            }
            _ => {
                let (rows, held_out) = (data.labels.len(), data.held_out_labels.len());
                let features = data.rows.len() / rows.max(1);
                let training = vec![tensor(&[rows, features], &data.rows)?, tensor(&[rows], &data.labels)?];
                let held_out =
                    vec![tensor(&[held_out, features], &data.held_out)?, tensor(&[held_out], &data.held_out_labels)?];
                (training, vec![held_out])
            }
        };
        let sizes = Sizes { rows: training[0].shape()[0], held_out: held_out[0][0].shape()[0] };
        let program = compile(&exact(&setup.recipe, format, sizes)?)?;
        let ranges = program.check()?;
        let data = [training, held_out[0].clone()].concat();
        Ok(Self { seed: setup.recipe.seed, recipe: setup.recipe, program, ranges, data, held_out })
    }

    pub fn context(&self, step: u32) -> Context {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        Context { seed: seed.into(), step }
    }

    /// Tensors of the training data; those of what is held out follow.
    pub fn trained_on(&self) -> usize {
        self.data.len() - self.held_out[0].len()
    }

    pub fn widths(&self) -> Vec<Width> {
        self.program.state.iter().map(|declared| declared.width).collect()
    }

    /// Of all parameters, without what the optimizer remembers.
    pub fn parameters(&self) -> usize {
        let each = self.each();
        self.program.state.iter().step_by(each).map(|declared| declared.shape.iter().product::<usize>()).sum()
    }

    /// Tensors of the state that each parameter has.
    pub fn each(&self) -> usize {
        match self.recipe.optimizer {
            freehold_trainer::recipe::Optimizer::Sgd { .. } => 2,
            _ => 3,
        }
    }
}
