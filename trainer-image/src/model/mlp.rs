//! Multilayer perceptron: dense layers with ReLU between them.

use tch::Tensor;

use super::{Spec, layer};
use crate::error::Result;

pub(super) fn parameters(widths: &[u32]) -> Vec<Spec> {
    let pairs = widths.windows(2).enumerate();
    pairs.flat_map(|(index, pair)| layer(&format!("layers.{index}"), &[pair[1], pair[0]])).collect()
}

pub(super) fn forward(parameters: &[Tensor], input: &Tensor) -> Result<Tensor> {
    let mut x = input.shallow_clone();
    for (index, layer) in parameters.chunks_exact(2).enumerate() {
        if index > 0 {
            x = x.f_relu()?;
        }
        x = x.f_linear(&layer[0], Some(&layer[1]))?;
    }
    Ok(x)
}
