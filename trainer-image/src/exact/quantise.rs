//! A model that was trained in floats as an exact program that evaluates it.
//!
//! Products, ReLU and maximum let a power of two through: with its weights and biases times 2^g a layer's results are 2^g
//! times as large, and nothing else changes. So what each layer reaches on sample rows (the calibration) decides the power
//! that brings it to where the program's integers are fine and yet not full.

use freehold_exact::inference;
use freehold_exact::model::ACTIVATION;
use freehold_exact::net::Format;
use freehold_exact::optim::PARAMETER;
use freehold_exact::program::Program;
use freehold_exact::tensor::Tensor as Integers;
use tch::{Kind, Tensor, no_grad};

use super::recipe;
use crate::error::{Error, Result};
use crate::model;
use crate::recipe::Model;

/// What the program keeps of features and of what layers pass on: below 8 and below 32.
const FEATURES: f64 = 8.0;
const PASSED_ON: f64 = 32.0;
/// Other rows may reach twice as far as those of the calibration.
const SPARE: f64 = 2.0;
/// Powers beyond are no model's, but a slip's.
const MOST: i32 = 24;

/// A program with its weights in it, and what rows are brought to integers by.
#[derive(Clone, Debug)]
pub struct Quantised {
    pub program: Program,
    /// Of the features: they are taken times 2^gain.
    pub gain: i32,
}

/// `parameters` as `model::parameters` names them; `sample` (rows × features) is what the model is calibrated with, `rows` how
/// many the program evaluates.
pub fn quantise(
    model: &Model,
    parameters: &[Tensor],
    sample: &Tensor,
    format: Format,
    rows: usize,
) -> Result<Quantised> {
    let parameters =
        parameters.iter().map(|one| one.f_to_kind(Kind::Double)).collect::<std::result::Result<Vec<_>, _>>()?;
    for (spec, parameter) in model::parameters(model).iter().zip(&parameters) {
        if parameter.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(Error::Data(format!("tensor `{}` has values that are no numbers: train it again", spec.name)));
        }
    }
    let sample = sample.f_to_kind(Kind::Double)?;
    let gain = power("the features", largest(&sample)?, FEATURES / SPARE)?;
    let mut gains = vec![gain];
    for (index, reach) in no_grad(|| reaches(model, &parameters, &sample))?.into_iter().enumerate() {
        gains.push(power(&format!("layer {index}"), reach, PASSED_ON / SPARE)?);
    }
    // Logits stay as they are: their differences are what the loss is made of.
    gains.push(0);
    let exact = recipe::model(model)?;
    let mut weights = Vec::new();
    for (layer, gains) in parameters.chunks_exact(2).zip(gains.windows(2)) {
        weights.push(integers(&layer[0], PARAMETER + gains[1] - gains[0])?);
        weights.push(integers(&layer[1], PARAMETER + gains[1])?);
    }
    let shapes = freehold_exact::model::parameters(&exact);
    let weights = shapes.into_iter().zip(weights).map(|(parameter, values)| Integers::new(parameter.shape, values));
    let weights =
        weights.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| Error::Data(error.to_string()))?;
    let program = inference::compile(&exact, format, rows, weights).map_err(|error| Error::Usage(error.to_string()))?;
    Ok(Quantised { program, gain })
}

impl Quantised {
    /// Rows of features as the program takes them: rounded to 8 fractional bits, and what is beyond its range at the end of it.
    pub fn features(&self, rows: &Tensor) -> Result<Integers> {
        let most = FEATURES * f64::from(ACTIVATION).exp2() - 1.0;
        let scaled = rows.f_to_kind(Kind::Double)?.f_mul_scalar(f64::from(ACTIVATION + self.gain).exp2())?;
        let values = rounded(&scaled.f_clamp(-most, most)?)?;
        let shape: Vec<usize> = rows.size().iter().map(|side| side.unsigned_abs() as usize).collect();
        Integers::new(shape, values).map_err(|error| Error::Data(error.to_string()))
    }
}

fn largest(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.f_abs()?.f_max()?.f_double_value(&[])?)
}

/// The power of two that brings `reach` to `end` or just below.
fn power(what: &str, reach: f64, end: f64) -> Result<i32> {
    if reach == 0.0 {
        return Ok(0);
    }
    let power = (end / reach).log2().floor();
    if !power.is_finite() || power.abs() > f64::from(MOST) {
        return Err(Error::Data(format!(
            "{what} reach {reach:e} on the rows of the calibration: scale the data, or train the model again"
        )));
    }
    Ok(power as i32)
}

/// Times 2^power, halves up.
fn integers(tensor: &Tensor, power: i32) -> Result<Vec<i64>> {
    rounded(&tensor.f_mul_scalar(f64::from(power).exp2())?)
}

fn rounded(tensor: &Tensor) -> Result<Vec<i64>> {
    Ok(Vec::<i64>::try_from(tensor.f_add_scalar(0.5)?.f_floor()?.f_to_kind(Kind::Int64)?.f_reshape([-1])?)?)
}

/// How far each layer's results reach, but the last one's.
fn reaches(model: &Model, parameters: &[Tensor], sample: &Tensor) -> Result<Vec<f64>> {
    let (convolutions, padding, mut x) = match model {
        Model::Cnn { input, channels, kernel, .. } => {
            let [depth, height, width] = input.map(i64::from);
            (channels.len(), i64::from(kernel / 2), sample.f_reshape([-1, depth, height, width])?)
        }
        _ => (0, 0, sample.shallow_clone()),
    };
    let mut reaches = Vec::new();
    for (index, layer) in parameters.chunks_exact(2).take(parameters.len() / 2 - 1).enumerate() {
        x = if index < convolutions {
            let y = x.f_conv2d(&layer[0], Some(&layer[1]), 1, padding, 1, 1)?.f_relu()?;
            if y.size()[2..].iter().all(|side| *side >= 2) { y.f_max_pool2d(2, 2, 0, 1, false)? } else { y }
        } else {
            x.f_flatten(1, -1)?.f_linear(&layer[0], Some(&layer[1]))?.f_relu()?
        };
        reaches.push(largest(&x)?);
    }
    Ok(reaches)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use freehold_exact::element::Context;
    use freehold_exact::interpret::{self, Inputs};
    use freehold_exact::program::List;
    use rstest::rstest;
    use tch::{Device, Reduction};

    use super::*;
    use crate::evaluate;
    use crate::recipe::Precision;

    const ROWS: usize = 200;

    fn mlp() -> Model {
        Model::Mlp { layers: vec![12, 30, 20, 5] }
    }

    fn cnn() -> Model {
        Model::Cnn { input: [2, 6, 6], channels: vec![4, 6], kernel: 3, hidden: 12, classes: 5 }
    }

    fn drawn(model: &Model, scale: f64, seed: i64) -> Tensor {
        tch::manual_seed(seed);
        let width = model.features().unwrap() as i64;
        (Tensor::rand([ROWS as i64, width], (Kind::Float, Device::Cpu)) - 0.5) * (2.0 * scale)
    }

    /// As a trained model: features of any size, logits that differ, classes that are as frequent as each other.
    fn trained(model: &Model, scale: f64) -> Vec<Tensor> {
        let parameters = model::initialise(&model::parameters(model), 3, Device::Cpu).unwrap();
        let larger = |(at, one): (usize, &Tensor)| if at == 0 { one * (3.0 / scale) } else { one * 3.0 };
        let mut parameters: Vec<Tensor> = parameters.iter().enumerate().map(larger).collect();
        let logits = model::forward(model, &parameters, &drawn(model, scale, 1), Precision::F32).unwrap();
        let last = parameters.len() - 1;
        parameters[last] -= logits.mean_dim([0_i64].as_slice(), false, Kind::Float);
        parameters
    }

    /// Rows whose features reach `scale`, and what the float model says of them as labels.
    fn rows(model: &Model, scale: f64, parameters: &[Tensor], seed: i64) -> (Tensor, Tensor, f64) {
        let rows = drawn(model, scale, seed);
        let logits = model::forward(model, parameters, &rows, Precision::F32).unwrap();
        let labels = logits.argmax(-1, false);
        let most = labels.bincount::<Tensor>(None, 5).max().int64_value(&[]);
        assert!(most < 150, "{most} of {ROWS} rows are of one class: whatever a program says would nearly do");
        let loss = evaluate::loss(&logits, &labels, Reduction::Mean).unwrap().double_value(&[]);
        (rows, labels, loss)
    }

    /// Right rows, and the mean loss.
    fn evaluated(quantised: &Quantised, rows: &Tensor, labels: &Tensor) -> (i64, f64) {
        let labels = Integers::new([ROWS], Vec::<i64>::try_from(labels).unwrap()).unwrap();
        let data = [Arc::new(quantised.features(rows).unwrap()), Arc::new(labels)];
        let inputs = Inputs { state: &[], data: &data, context: Context { seed: Default::default(), step: 0 } };
        let results = interpret::run(&quantised.program, List::Evaluate, &inputs).unwrap();
        let loss = results[1].values()[0] as f64 / 4_096.0 / ROWS as f64;
        (results[0].values()[0], loss)
    }

    #[rstest]
    fn a_float_model_says_the_same_in_integers(
        #[values(mlp(), cnn())] model: Model,
        #[values(Format::Wide, Format::I8)] format: Format,
        #[values(0.002, 1.0, 700.0)] scale: f64,
    ) {
        let parameters = trained(&model, scale);
        let (sample, ..) = rows(&model, scale, &parameters, 1);
        let (held_out, labels, loss) = rows(&model, scale, &parameters, 2);
        let quantised = quantise(&model, &parameters, &sample, format, ROWS).unwrap();
        let (right, found) = evaluated(&quantised, &held_out, &labels);
        let (least, near) = if format == Format::Wide { (198, 0.01) } else { (190, 0.05) };
        assert!(right >= least, "{right} of {ROWS} rows");
        assert!((found - loss).abs() < near, "a loss of {found} in integers, {loss} in floats");
    }

    #[test]
    fn without_its_calibration_a_model_is_another() {
        let parameters = trained(&mlp(), 700.0);
        let (held_out, labels, _) = rows(&mlp(), 700.0, &parameters, 2);
        let small = Tensor::ones([1, 12], (Kind::Float, Device::Cpu));
        let quantised = quantise(&mlp(), &parameters, &small, Format::Wide, ROWS).unwrap();
        assert!(evaluated(&quantised, &held_out, &labels).0 < 190);
    }

    #[test]
    fn what_cannot_be_quantised_is_refused_in_words() {
        let mut parameters = trained(&mlp(), 1.0);
        let (sample, ..) = rows(&mlp(), 1.0, &parameters, 1);
        let said = |parameters: &[Tensor], sample: &Tensor| {
            quantise(&mlp(), parameters, sample, Format::Wide, 1).unwrap_err().to_string()
        };
        assert!(said(&parameters, &(&sample * 1e30)).contains("the features reach"));
        parameters[2] = &parameters[2] * f64::NAN;
        assert!(said(&parameters, &sample).contains("`layers.1.weight`"), "{}", said(&parameters, &sample));
    }
}
