//! The same net in floats: from the same first state, on the same rows, with the same schedule and optimizer.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use freehold_exact::draw;
use freehold_exact::program::List;
use freehold_trainer::exact::machine::Machine;
use freehold_trainer::exact::units::Units;
use freehold_trainer::optim::State;
use freehold_trainer::recipe::{Model, Precision};
use freehold_trainer::{model, schedule};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Reduction, Tensor};

use crate::Failure;
use crate::setup::Job;

#[derive(Args)]
pub struct Options {
    setup: PathBuf,
}

/// Fractional bits of a parameter, and of a feature.
const PARAMETER: f64 = 1_048_576.0;
const FEATURE: f64 = 256.0;

pub struct Float<'a> {
    job: &'a Job,
    parameters: Vec<Tensor>,
    optimizer: State,
    /// Rows and labels, or a text.
    data: Vec<Tensor>,
    kind: Kind,
}

impl<'a> Float<'a> {
    pub fn new(job: &'a Job, kind: Kind) -> Result<Self, Failure> {
        let machine = Machine::new(job.program.clone(), &job.ranges, &Units::probed(Device::Cpu), Device::Cpu)?;
        let data = job.data.iter().map(|tensor| machine.load(tensor)).collect::<Result<Vec<_>, _>>()?;
        let first = machine.run(List::Init, &[], &data, &job.context(0))?;
        let mut parameters = Vec::new();
        for (tensor, declared) in first.iter().zip(&job.program.state).step_by(job.each()) {
            let mut values = tensor.f_div_scalar(PARAMETER)?;
            if let (Model::Cnn { kernel, .. }, true) = (&job.recipe.model, declared.name.starts_with("convolutions."))
                && let [to, from] = values.size()[..]
            {
                let side = i64::from(*kernel);
                values = values.f_reshape([to, from / (side * side), side, side])?;
            }
            parameters.push(values.f_to_kind(kind)?.set_requires_grad(true));
        }
        let optimizer = State::new(&job.recipe.optimizer, &parameters)?;
        let data = job.data[..job.trained_on()].iter().map(|one| input(job, one, kind)).collect::<Result<_, _>>()?;
        Ok(Self { job, parameters, optimizer, data, kind })
    }

    pub fn step(&mut self, step: u32) -> Result<(), Failure> {
        let (recipe, context) = (&self.job.recipe, self.job.context(step));
        let batch = recipe.batch_size as usize * recipe.gradient_accumulation as usize;
        let rows = match recipe.model {
            Model::Transformer { context, .. } => self.data[0].size()[0] - i64::from(context),
            _ => self.data[0].size()[0],
        };
        let drawn: Vec<i64> =
            (0..batch).map(|j| draw::row(&context.seed, step, j as u64, rows.unsigned_abs())).collect();
        let (rows, labels) = match recipe.model {
            Model::Transformer { context, .. } => {
                let context = i64::from(context);
                let places = Tensor::f_from_slice(&drawn)?
                    .f_unsqueeze(1)?
                    .f_add(&Tensor::f_arange(context + 1, (Kind::Int64, Device::Cpu))?)?;
                let bytes = self.data[0].f_take(&places)?;
                (bytes.f_narrow(1, 0, context)?, bytes.f_narrow(1, 1, context)?.f_reshape([-1])?)
            }
            _ => {
                let drawn = Tensor::f_from_slice(&drawn)?;
                (self.data[0].f_index_select(0, &drawn)?, self.data[1].f_index_select(0, &drawn)?)
            }
        };
        let loss = self.loss(&rows, &labels, Reduction::Mean)?;
        let gradients = Tensor::f_run_backward(&[&loss], &self.parameters, false, false)?;
        let steps = u64::from(recipe.steps);
        let rate = schedule::rate(&recipe.schedule, recipe.optimizer.learning_rate(), step.into(), steps);
        Ok(self.optimizer.update(&recipe.optimizer, &mut self.parameters, &gradients, rate, step.into())?)
    }

    fn logits(&self, rows: &Tensor) -> Result<Tensor, Failure> {
        match self.job.recipe.model {
            Model::Transformer { heads, layers, .. } => {
                transformer(&self.parameters, rows, i64::from(heads), layers as usize, self.kind)
            }
            _ => Ok(model::forward(&self.job.recipe.model, &self.parameters, rows, Precision::F32)?),
        }
    }

    fn loss(&self, rows: &Tensor, labels: &Tensor, reduction: Reduction) -> Result<Tensor, Failure> {
        let logits = self.logits(rows)?;
        let classes = logits.size().last().copied().unwrap_or(1);
        Ok(logits.f_reshape([-1, classes])?.f_cross_entropy_loss(labels, None::<Tensor>, reduction, -100, 0.0)?)
    }

    /// Of the parameters' bits.
    fn digest(&self) -> Result<String, Failure> {
        let mut hasher = Sha256::new();
        for parameter in &self.parameters {
            let values = Vec::<f32>::try_from(parameter.f_detach()?.f_reshape([-1])?)?;
            values.iter().for_each(|value| hasher.update(value.to_le_bytes()));
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// As the exact program's: how many are right, and the sum of the losses with 12 fractional bits.
    fn evaluate(&self) -> Result<Value, Failure> {
        let _no_grad = tch::no_grad_guard();
        let (mut correct, mut loss, mut of) = (0, 0.0, 0);
        for set in &self.job.held_out {
            let count = self.job.labels(set);
            let first = input(self.job, &set[0], self.kind)?;
            let (rows, labels) = match self.job.recipe.model {
                Model::Transformer { context, .. } => {
                    let shape = [-1, i64::from(context)];
                    let part = |from| first.f_narrow(0, from, count as i64);
                    (part(0)?.f_reshape(shape)?, part(1)?)
                }
                _ => (first, input(self.job, &set[1], self.kind)?),
            };
            let logits = self.logits(&rows)?;
            let classes = logits.size().last().copied().unwrap_or(1);
            let right = logits.f_reshape([-1, classes])?.f_argmax(-1, false)?.f_eq_tensor(&labels)?;
            correct += right.f_sum(Kind::Int64)?.f_int64_value(&[])?;
            loss += self.loss(&rows, &labels, Reduction::Sum)?.f_double_value(&[])? * 4_096.0;
            of += count;
        }
        Ok(json!({ "correct": correct, "loss": loss, "of": of }))
    }
}

/// Features as floats, labels and bytes as indices.
fn input(job: &Job, tensor: &freehold_exact::tensor::Tensor, kind: Kind) -> Result<Tensor, Failure> {
    let shape: Vec<i64> = tensor.shape().iter().map(|side| side.cast_signed() as i64).collect();
    let values = Tensor::f_from_slice(tensor.values())?.f_reshape(shape)?;
    match job.recipe.model {
        Model::Transformer { .. } => Ok(values),
        _ if tensor.shape().len() == 1 => Ok(values),
        _ => Ok(values.f_to_kind(kind)?.f_div_scalar(FEATURE)?),
    }
}

/// As the exact net is: RMS norms, no biases, ReLU.
fn transformer(
    parameters: &[Tensor],
    bytes: &Tensor,
    heads: i64,
    layers: usize,
    kind: Kind,
) -> Result<Tensor, Failure> {
    let [windows, positions] = bytes.size()[..] else { return Err("bytes are windows × positions".into()) };
    let mut x = Tensor::f_embedding(&parameters[0], bytes, -1, false, false)?.f_add(&parameters[1])?;
    let width = x.size()[2];
    let norm = |x: &Tensor, weight: &Tensor| -> Result<Tensor, Failure> {
        let mean = x.f_square()?.f_mean_dim([-1_i64].as_slice(), true, kind)?;
        Ok(x.f_mul(&mean.f_add_scalar(1e-6)?.f_rsqrt()?)?.f_mul(weight)?)
    };
    let future = Tensor::f_ones([positions, positions], (Kind::Bool, Device::Cpu))?.f_triu(1)?;
    let none = None::<Tensor>;
    for block in parameters[2..2 + 8 * layers].chunks_exact(8) {
        let y = norm(&x, &block[0])?;
        let part = |weight: &Tensor| -> Result<Tensor, Failure> {
            let y = y.f_linear(weight, none.as_ref())?.f_reshape([windows, positions, heads, width / heads])?;
            Ok(y.f_transpose(1, 2)?)
        };
        let (query, key, value) = (part(&block[1])?, part(&block[2])?, part(&block[3])?);
        let scores = query.f_matmul(&key.f_transpose(-2, -1)?)?;
        let scores = scores.f_div_scalar(((width / heads) as f64).sqrt())?;
        let weights = scores.f_masked_fill(&future, f64::NEG_INFINITY)?.f_softmax(-1, kind)?;
        let mixed = weights.f_matmul(&value)?.f_transpose(1, 2)?.f_reshape([windows, positions, width])?;
        x = x.f_add(&mixed.f_linear(&block[4], none.as_ref())?)?;
        let y = norm(&x, &block[5])?.f_linear(&block[6], none.as_ref())?.f_relu()?;
        x = x.f_add(&y.f_linear(&block[7], none.as_ref())?)?;
    }
    let last = 2 + 8 * layers;
    Ok(norm(&x, &parameters[last])?.f_linear(&parameters[last + 1], none.as_ref())?)
}

pub fn train(options: &Options) -> Result<Value, Failure> {
    let job = Job::read(&options.setup)?;
    let mut float = Float::new(&job, Kind::Float)?;
    let began = Instant::now();
    for step in 0..job.recipe.steps {
        float.step(step)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let (digest, evaluation) = (float.digest()?, float.evaluate()?);
    Ok(json!({ "parameters": job.parameters(), "evaluation": evaluation, "digest": digest, "seconds": seconds }))
}
