//! Decoder transformer over bytes, with the norm before each half of a block.

use tch::{Kind, Tensor};

use super::{Init, Spec};
use crate::error::Result;

const BYTES: u32 = 256;
/// Parameters of a block.
const BLOCK: usize = 12;
const NORM_EPSILON: f64 = 1e-5;

pub(super) fn parameters(width: u32, layers: u32, context: u32) -> Vec<Spec> {
    let normal = Init::Normal(0.02);
    // Each block adds twice to the residual stream, which must not grow with depth.
    let residual = Init::Normal(0.02 / f64::from(2 * layers).sqrt());
    let mut specs = vec![
        Spec::new("embedding.weight", &[BYTES, width], normal),
        Spec::new("position.weight", &[context, width], normal),
    ];
    for index in 0..layers {
        let name = |part: &str| format!("blocks.{index}.{part}");
        specs.extend(norm(&name("norm1"), width));
        specs.extend(dense(&name("attention.qkv"), 3 * width, width, normal));
        specs.extend(dense(&name("attention.output"), width, width, residual));
        specs.extend(norm(&name("norm2"), width));
        specs.extend(dense(&name("mlp.up"), 4 * width, width, normal));
        specs.extend(dense(&name("mlp.down"), width, 4 * width, residual));
    }
    specs.extend(norm("norm", width));
    specs.push(Spec::new("head.weight", &[BYTES, width], normal));
    specs
}

fn norm(name: &str, width: u32) -> [Spec; 2] {
    [
        Spec::new(format!("{name}.weight"), &[width], Init::Constant(1.0)),
        Spec::new(format!("{name}.bias"), &[width], Init::Constant(0.0)),
    ]
}

fn dense(name: &str, to: u32, from: u32, init: Init) -> [Spec; 2] {
    [
        Spec::new(format!("{name}.weight"), &[to, from], init),
        Spec::new(format!("{name}.bias"), &[to], Init::Constant(0.0)),
    ]
}

/// `input` holds byte values, batch × positions.
pub(super) fn forward(heads: i64, parameters: &[Tensor], input: &Tensor) -> Result<Tensor> {
    let (embeddings, rest) = parameters.split_at(2);
    let (blocks, last) = rest.split_at(rest.len() - 3);
    let positions = input.size()[1];
    let mut x = Tensor::f_embedding(&embeddings[0], input, -1, false, false)?;
    x = x.f_add(&embeddings[1].f_narrow(0, 0, positions)?)?;
    let future = Tensor::f_ones([positions, positions], (Kind::Bool, input.device()))?.f_triu(1)?;
    for block in blocks.chunks_exact(BLOCK) {
        x = x.f_add(&attention(heads, &block[2..6], &layer_norm(&x, &block[0..2])?, &future)?)?;
        x = x.f_add(&mlp(&block[8..12], &layer_norm(&x, &block[6..8])?)?)?;
    }
    Ok(layer_norm(&x, &last[0..2])?.f_linear(&last[2], None::<Tensor>)?)
}

fn layer_norm(x: &Tensor, norm: &[Tensor]) -> Result<Tensor> {
    Ok(x.f_layer_norm(norm[0].size(), Some(&norm[0]), Some(&norm[1]), NORM_EPSILON, true)?)
}

/// Written out rather than libtorch's fused kernel, whose backward pass on
/// CUDA adds in no fixed order.
fn attention(heads: i64, layer: &[Tensor], x: &Tensor, future: &Tensor) -> Result<Tensor> {
    let [batch, positions, width] = x.size()[..] else { return Ok(x.shallow_clone()) };
    let size = width / heads;
    let qkv = x.f_linear(&layer[0], Some(&layer[1]))?;
    let qkv = qkv.f_reshape([batch, positions, 3, heads, size])?.f_permute([2, 0, 3, 1, 4])?;
    let (query, key, value) = (qkv.f_get(0)?, qkv.f_get(1)?, qkv.f_get(2)?);
    let scores = query.f_matmul(&key.f_transpose(-2, -1)?)?.f_mul_scalar(1.0 / (size as f64).sqrt())?;
    let weights = scores.f_masked_fill(future, f64::NEG_INFINITY)?.f_softmax(-1, None)?;
    let mixed = weights.f_matmul(&value)?.f_permute([0, 2, 1, 3])?.f_reshape([batch, positions, width])?;
    Ok(mixed.f_linear(&layer[2], Some(&layer[3]))?)
}

fn mlp(layer: &[Tensor], x: &Tensor) -> Result<Tensor> {
    let inner = x.f_linear(&layer[0], Some(&layer[1]))?.f_gelu("none")?;
    Ok(inner.f_linear(&layer[2], Some(&layer[3]))?)
}
