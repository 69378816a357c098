//! The built-in networks: pure functions of their parameters, whose names and
//! shapes are PyTorch's, so that a model file loads there as a state dict.

mod cnn;
mod mlp;
mod transformer;

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::recipe::{Model, Precision};
use crate::rng::{Rng, Stream};
use crate::tensors::Named;

/// A parameter before it has values.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub name: String,
    pub shape: Vec<i64>,
    pub init: Init,
}

/// Distribution of the initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform within ± this bound.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    Constant(f64),
}

impl Spec {
    fn new(name: impl Into<String>, shape: &[u32], init: Init) -> Self {
        Self { name: name.into(), shape: shape.iter().map(|edge| i64::from(*edge)).collect(), init }
    }

    pub fn count(&self) -> u64 {
        self.shape.iter().map(|edge| *edge as u64).product()
    }
}

/// Weight and bias of a layer, as PyTorch initialises them: uniform within
/// ± 1/√(inputs of one output).
fn layer(name: &str, weight: &[u32]) -> [Spec; 2] {
    let fan_in: f64 = weight[1..].iter().map(|edge| f64::from(*edge)).product();
    let init = Init::Uniform(1.0 / fan_in.sqrt());
    [Spec::new(format!("{name}.weight"), weight, init), Spec::new(format!("{name}.bias"), &weight[..1], init)]
}

/// All parameters in the order in which `forward` takes them.
pub fn parameters(model: &Model) -> Vec<Spec> {
    match model {
        Model::Mlp { layers } => mlp::parameters(layers),
        Model::Cnn { input, channels, kernel, hidden, classes } => {
            cnn::parameters(*input, channels, *kernel, *hidden, *classes)
        }
        Model::Transformer { width, layers, context, .. } => transformer::parameters(*width, *layers, *context),
    }
}

/// Logits in f32: rows × classes, for a transformer batch × positions × 256.
pub fn forward(model: &Model, parameters: &[Tensor], input: &Tensor, precision: Precision) -> Result<Tensor> {
    if precision != Precision::Bf16 {
        return run(model, parameters, input);
    }
    // The parameters stay f32; gradients flow back through the conversion.
    let narrow = |tensor: &Tensor| Ok(tensor.f_to_kind(Kind::BFloat16)?);
    let parameters = parameters.iter().map(narrow).collect::<Result<Vec<_>>>()?;
    let input = if input.kind() == Kind::Float { narrow(input)? } else { input.shallow_clone() };
    Ok(run(model, &parameters, &input)?.f_to_kind(Kind::Float)?)
}

fn run(model: &Model, parameters: &[Tensor], input: &Tensor) -> Result<Tensor> {
    match model {
        Model::Mlp { .. } => mlp::forward(parameters, input),
        Model::Cnn { input: image, kernel, .. } => cnn::forward(*image, *kernel, parameters, input),
        Model::Transformer { heads, .. } => transformer::forward(i64::from(*heads), parameters, input),
    }
}

/// Seeded values, the same on every device.
pub fn initialise(specs: &[Spec], seed: u64, device: Device) -> Result<Vec<Tensor>> {
    specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            let mut rng = Rng::new(seed, Stream::Init(index as u64));
            let draw = |_| match spec.init {
                Init::Uniform(bound) => ((2.0 * rng.unit() - 1.0) * bound) as f32,
                Init::Normal(deviation) => (rng.normal() * deviation) as f32,
                Init::Constant(value) => value as f32,
            };
            let values: Vec<f32> = (0..spec.count()).map(draw).collect();
            Ok(Tensor::f_from_slice(&values)?.f_reshape(&spec.shape)?.f_to_device(device)?)
        })
        .collect()
}

/// Takes the parameters out of a file's tensors, whose names begin with `prefix`.
pub fn from_named(specs: &[Spec], named: &Named, prefix: &str, device: Device) -> Result<Vec<Tensor>> {
    specs
        .iter()
        .map(|spec| {
            let name = format!("{prefix}{}", spec.name);
            let stored = named.get(&name).ok_or_else(|| Error::Data(format!("tensor `{name}` is missing")))?;
            if !stored.shape.iter().map(|edge| *edge as i64).eq(spec.shape.iter().copied()) {
                return Err(Error::Data(format!(
                    "tensor `{name}` has shape {:?}, but the recipe's model needs {:?}",
                    stored.shape, spec.shape
                )));
            }
            stored.to_tensor(device)
        })
        .collect()
}
