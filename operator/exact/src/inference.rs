//! A program that evaluates and does nothing else: a model that was trained elsewhere, on rows whose labels are known.

use crate::build::{Builder, declare};
use crate::compile::{Error, FEATURE_BITS};
use crate::model::{self, ACTIVATION};
use crate::net::{Format, Net};
use crate::optim::{PARAMETER, bound};
use crate::program::{List, Program};
use crate::recipe::{Loss, Model};
use crate::tensor::Tensor;

/// Of a model of rows (an MLP or a CNN) with these weights, which are constants of the program and so part of its identity:
/// how many of `rows` are put into their class, and the sum of the cross-entropies in nats with 12 fractional bits. Weights
/// have 20 fractional bits and may be as large as the range analysis lets them; features have 8, and are below 8.
pub fn compile(model: &Model, format: Format, rows: usize, weights: Vec<Tensor>) -> Result<Program, Error> {
    let (features, classes) = match model {
        Model::Mlp { widths } => (widths.first().copied().unwrap_or(0), widths.last().copied().unwrap_or(0)),
        Model::Cnn { image, classes, .. } => (image.iter().product(), *classes),
        Model::Transformer { .. } => {
            let remedy = "give an MLP or a CNN; a model of text is evaluated by the program that trains it".into();
            return Err(Error::Recipe { field: "model", value: "a transformer".into(), remedy });
        }
    };
    let high = bound(FEATURE_BITS);
    let data = vec![
        declare("features", &[rows, features], -high, high),
        declare("labels", &[rows], 0, classes.saturating_sub(1) as i64),
    ];
    let program = Program { steps: 1, data, metrics: vec!["correct".into(), "loss".into()], ..Program::default() };
    let mut net = Net::new(Builder::new(program, List::Evaluate), format);
    let named = model::parameters(model).into_iter().zip(weights);
    let weights = named.map(|(parameter, weight)| net.constant(&parameter.name, weight, PARAMETER));
    let weights = weights.collect::<Result<Vec<_>, _>>()?;
    let (input, labels) = (net.data(0, ACTIVATION)?, net.data(1, 0)?);
    let logits = model::forward(&mut net, model, &weights, input)?;
    let results = net.judge(logits, labels, Loss::CrossEntropy)?;
    let program = net.finish(&results);
    program.check()?;
    Ok(program)
}
