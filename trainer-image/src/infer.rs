//! Batch inference: a model file and an input in, predictions out. The model
//! file tells all that is needed of the network, the columns and the classes.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::Serialize;
use tch::{Device, Kind, Tensor, no_grad};

use crate::artifact::Artifact;
use crate::data::{self, Guard, Wanted, write_records};
use crate::error::{Error, Result};
use crate::evaluate::Network;
use crate::progress::{Line, Progress, REPORT_EVERY};
use crate::recipe::Model;
use crate::summary::InferenceSummary;
use crate::task::{OutputFormat, Paths, Task};
use crate::train::Env;
use crate::{device, files, memory};

const BATCH: usize = 1024;
/// Bytes after which a continued line ends.
const LONGEST_LINE: usize = 256;

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Prediction {
    /// From 1, as messages count.
    row: u64,
    prediction: String,
    probability: f64,
}

pub fn infer(task: &Task, paths: &Paths, env: &mut Env) -> Result<InferenceSummary> {
    let started = (env.now)();
    let format = task.output.clone().unwrap_or_default().format;
    let guard = Guard { stop: env.stop, limit: memory::limit(task.resources) };
    let artifact = read_model(&paths.input("model")?, guard, env)?;
    let mut progress = Progress::open(&paths.progress)?;
    let predictions = match artifact.description.model {
        Model::Transformer { context, .. } => {
            if format == OutputFormat::Npy {
                return Err(Error::Usage("output.format is npy, which holds no text: choose csv or jsonl".into()));
            }
            continue_lines(&artifact, context as usize, paths, guard, env, &mut progress)?
        }
        Model::Mlp { .. } | Model::Cnn { .. } => classify(&artifact, paths, guard, env, &mut progress)?,
    };
    files::create_folder(&paths.outputs)?;
    let path = paths.outputs.join(format.file_name());
    files::write_stream(&path, |out| match format {
        OutputFormat::Csv => write_csv(out, &predictions),
        OutputFormat::Jsonl => write_jsonl(out, &predictions),
        OutputFormat::Npy => write_npy(out, &predictions),
    })?;
    let summary = InferenceSummary {
        rows: predictions.len(),
        file: format.file_name().into(),
        sha256: files::measure(&path)?.1,
        device: device::name(env.device).into(),
        threads: tch::get_num_threads(),
        wall_seconds: (env.now)().duration_since(started).as_secs_f64(),
    };
    summary.write(&paths.outputs.join("metrics.json"))?;
    Ok(summary)
}

fn read_model(path: &Path, guard: Guard, env: &Env) -> Result<Artifact> {
    let size = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    // The file's bytes, and the tensors out of it.
    memory::require("the model", memory::RUNTIME + 2 * size, guard.limit, "the model's size")?;
    Artifact::read(path, env.device)
}

/// `held` is what the input occupies, `at_once` what a batch does while it is computed.
fn require_memory(artifact: &Artifact, held: usize, at_once: u64, guard: Guard, env: &Env) -> Result<()> {
    let parameters: usize = artifact.parameters.iter().map(|tensor| tensor.numel() * 4).sum();
    // As in training, a GPU's own memory is not checked.
    let computing = if env.device.is_cuda() { 0 } else { parameters as u64 + at_once };
    let bytes = memory::RUNTIME + held as u64 + computing;
    memory::require("inference", bytes, guard.limit, "the model's size or the number of rows in the input")
}

/// Calls `predict` on ranges of rows, with progress between them; SIGTERM ends it.
fn in_batches(
    rows: usize,
    batch: usize,
    env: &Env,
    progress: &mut Progress,
    mut predict: impl FnMut(&Env, std::ops::Range<usize>) -> Result<Vec<Prediction>>,
) -> Result<Vec<Prediction>> {
    let mut predictions = Vec::with_capacity(rows);
    let mut reported = None;
    while predictions.len() < rows {
        if env.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted(format!("stopped by SIGTERM at row {} of {rows}", predictions.len())));
        }
        let start = predictions.len();
        predictions.extend(no_grad(|| predict(env, start..rows.min(start + batch)))?);
        let at = (env.now)();
        let due = reported.is_none_or(|last| at.duration_since(last) >= REPORT_EVERY);
        if due || predictions.len() == rows {
            progress.write(&Line { step: predictions.len() as u64, steps: rows as u64, at, ..Line::default() })?;
            reported = Some(at);
        }
    }
    Ok(predictions)
}

fn network<'a>(artifact: &'a Artifact, env: &Env) -> Network<'a> {
    let description = &artifact.description;
    Network {
        model: &description.model,
        parameters: &artifact.parameters,
        precision: description.precision,
        device: env.device,
    }
}

fn classify(
    artifact: &Artifact,
    paths: &Paths,
    guard: Guard,
    env: &Env,
    progress: &mut Progress,
) -> Result<Vec<Prediction>> {
    let description = &artifact.description;
    let width = description.model.features().unwrap_or(0);
    let wanted = Wanted { label: None, features: description.features.as_deref(), width, width_from: "the model" };
    let mut table = data::read_table(&paths.input("input")?, &wanted, guard)?;
    if let Some(normalization) = &artifact.normalization {
        normalization.apply(&mut table.values);
    }
    let at_once = memory::inference(&description.model, 0) * BATCH.min(table.rows) as u64;
    require_memory(artifact, table.values.len() * 4, at_once, guard, env)?;
    in_batches(table.rows, BATCH, env, progress, |env, rows| {
        let values = &table.values[rows.start * width..rows.end * width];
        let input = Tensor::f_from_slice(values)?.f_reshape([rows.len() as i64, width as i64])?;
        let logits = network(artifact, env).logits(&input.f_to_device(env.device)?)?;
        let logits = logits.f_to_device(Device::Cpu)?;
        let (probabilities, classes) = logits.f_softmax(-1, None)?.f_max_dim(-1, false)?;
        let probabilities = Vec::<f64>::try_from(probabilities.f_to_kind(Kind::Double)?)?;
        let classes = Vec::<i64>::try_from(classes)?;
        Ok(rows
            .zip(classes.iter().zip(probabilities))
            .map(|(row, (class, probability))| Prediction {
                row: row as u64 + 1,
                prediction: description.classes[*class as usize].clone(),
                probability,
            })
            .collect())
    })
}

fn continue_lines(
    artifact: &Artifact,
    context: usize,
    paths: &Paths,
    guard: Guard,
    env: &Env,
    progress: &mut Progress,
) -> Result<Vec<Prediction>> {
    let text = data::read_bytes(&paths.input("input")?, guard)?;
    let prompts: Vec<&[u8]> = text.trim_ascii_end().split(|byte| *byte == b'\n').collect();
    let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or_default() + LONGEST_LINE;
    let at_once = memory::inference(&artifact.description.model, longest.min(context));
    require_memory(artifact, text.len(), at_once, guard, env)?;
    in_batches(prompts.len(), 1, env, progress, |env, rows| {
        let prompt = prompts[rows.start].trim_ascii_end();
        Ok(vec![continue_line(artifact, prompt, context, rows.start, env)?])
    })
}

/// Continues a line byte by byte, each time with the likeliest one, to its end.
fn continue_line(artifact: &Artifact, prompt: &[u8], context: usize, row: usize, env: &Env) -> Result<Prediction> {
    // An empty line begins, like each line, after a line's end.
    let mut text = if prompt.is_empty() { b"\n".to_vec() } else { prompt.to_vec() };
    let start = text.len();
    let mut probability = 1.0;
    while text.len() < start + LONGEST_LINE {
        let seen: Vec<i64> = text[text.len().saturating_sub(context)..].iter().map(|byte| i64::from(*byte)).collect();
        let input = Tensor::f_from_slice(&seen)?.f_reshape([1, -1])?.f_to_device(env.device)?;
        let logits = network(artifact, env).logits(&input)?.f_get(0)?.f_get(-1)?;
        let (likeliest, byte) = logits.f_softmax(-1, None)?.f_max_dim(-1, false)?;
        probability *= likeliest.f_double_value(&[])?;
        match byte.f_int64_value(&[])? as u8 {
            b'\n' => break,
            byte => text.push(byte),
        }
    }
    let prediction = String::from_utf8_lossy(&text[start..]).into_owned();
    Ok(Prediction { row: row as u64 + 1, prediction, probability })
}

fn write_csv(out: &mut dyn Write, predictions: &[Prediction]) -> std::io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(["row", "prediction", "probability"])?;
    for Prediction { row, prediction, probability } in predictions {
        writer.write_record([&row.to_string(), prediction, &format!("{probability:.6}")])?;
    }
    writer.flush()
}

fn write_jsonl(out: &mut dyn Write, predictions: &[Prediction]) -> std::io::Result<()> {
    for prediction in predictions {
        serde_json::to_writer(&mut *out, prediction)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// A structured array with the fields row, prediction and probability; the
/// prediction is a number where every one is, else text.
fn write_npy(out: &mut dyn Write, predictions: &[Prediction]) -> std::io::Result<()> {
    let numbers: Option<Vec<i64>> = predictions.iter().map(|p| p.prediction.parse().ok()).collect();
    let longest = predictions.iter().map(|p| p.prediction.chars().count()).max().unwrap_or(0).max(1);
    let kind = if numbers.is_some() { "<i8".to_owned() } else { format!("<U{longest}") };
    let mut records = Vec::new();
    for (index, Prediction { row, prediction, probability }) in predictions.iter().enumerate() {
        records.extend(row.to_le_bytes());
        match &numbers {
            Some(numbers) => records.extend(numbers[index].to_le_bytes()),
            None => {
                let letters = prediction.chars().map(u32::from).chain(std::iter::repeat(0)).take(longest);
                records.extend(letters.flat_map(u32::to_le_bytes));
            }
        }
        records.extend(probability.to_le_bytes());
    }
    let descr = format!("[('row', '<u8'), ('prediction', '{kind}'), ('probability', '<f8')]");
    write_records(out, &descr, predictions.len(), &records)
}
