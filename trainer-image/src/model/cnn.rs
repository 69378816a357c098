//! Convolutional network: convolutions that keep the size, each with ReLU and,
//! while an image is left to halve, a 2 × 2 maximum; then two dense layers.

use tch::Tensor;

use super::{Spec, layer};
use crate::error::Result;

pub(super) fn parameters(input: [u32; 3], channels: &[u32], kernel: u32, hidden: u32, classes: u32) -> Vec<Spec> {
    let [mut from, mut height, mut width] = input;
    let mut specs = Vec::new();
    for (index, to) in channels.iter().enumerate() {
        specs.extend(layer(&format!("convolutions.{index}"), &[*to, from, kernel, kernel]));
        from = *to;
        if halves(height, width) {
            (height, width) = (height / 2, width / 2);
        }
    }
    specs.extend(layer("hidden", &[hidden, from * height * width]));
    specs.extend(layer("output", &[classes, hidden]));
    specs
}

fn halves(height: u32, width: u32) -> bool {
    height >= 2 && width >= 2
}

pub(super) fn forward(image: [u32; 3], kernel: u32, parameters: &[Tensor], input: &Tensor) -> Result<Tensor> {
    let [channels, mut height, mut width] = image;
    let padding = i64::from(kernel / 2);
    let mut x = input.f_reshape([-1, i64::from(channels), i64::from(height), i64::from(width)])?;
    let (convolutions, dense) = parameters.split_at(parameters.len() - 4);
    for layer in convolutions.chunks_exact(2) {
        x = x.f_conv2d(&layer[0], Some(&layer[1]), 1, padding, 1, 1)?.f_relu()?;
        if halves(height, width) {
            x = x.f_max_pool2d(2, 2, 0, 1, false)?;
            (height, width) = (height / 2, width / 2);
        }
    }
    let x = x.f_flatten(1, -1)?.f_linear(&dense[0], Some(&dense[1]))?.f_relu()?;
    Ok(x.f_linear(&dense[2], Some(&dense[3]))?)
}
