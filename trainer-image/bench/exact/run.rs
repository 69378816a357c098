//! Exact training, by libtorch or by the interpreter; from the beginning or from a checkpoint; a root every so many steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use freehold_exact::commit::{state_root, tensor_root};
use freehold_exact::interpret::{self, Inputs};
use freehold_exact::program::List;
use freehold_exact::tensor::Tensor;
use freehold_trainer::exact::machine::Machine;
use freehold_trainer::exact::units::{Unit, Units};
use serde_json::{Value, json};
use tch::Device;

use crate::Failure;
use crate::setup::Job;

#[derive(Args)]
pub struct Options {
    pub setup: PathBuf,
    /// By the interpreter.
    #[arg(long)]
    interpret: bool,
    /// Units that products are computed by, where they are exact and admitted.
    #[arg(long, value_delimiter = ',')]
    units: Vec<String>,
    /// A checkpoint to go on from.
    #[arg(long)]
    resume: Option<PathBuf>,
    /// The step to stop before; the recipe's last without it.
    #[arg(long)]
    until: Option<u32>,
    /// A root, and a checkpoint where there is a folder, after so many steps each.
    #[arg(long, default_value_t = u32::MAX)]
    every: u32,
    /// One more after this step.
    #[arg(long)]
    also: Vec<u32>,
    #[arg(long)]
    checkpoints: Option<PathBuf>,
    /// Sets of what is held out that are evaluated on; all without it.
    #[arg(long)]
    sets: Option<usize>,
}

/// Either machine.
enum Runner {
    Torch(Box<Machine>, Vec<tch::Tensor>),
    Interpreter,
}

pub fn units(names: &[String]) -> Result<Units, Failure> {
    let all = Units::probed(Device::Cpu);
    if names.is_empty() {
        return Ok(all);
    }
    let named = |name: &String| {
        let known = Unit::ALL.into_iter().find(|unit| unit.name() == name);
        known.filter(|unit| all.admitted().contains(unit)).ok_or_else(|| format!("unit {name} is not admitted here"))
    };
    Ok(all.only(&names.iter().map(named).collect::<Result<Vec<_>, _>>()?))
}

pub fn train(options: &Options) -> Result<Value, Failure> {
    let job = Job::read(&options.setup)?;
    let mut by = BTreeMap::new();
    let runner = if options.interpret {
        Runner::Interpreter
    } else {
        let units = units(&options.units)?;
        let machine = Machine::new(job.program.clone(), &job.ranges, &units, Device::Cpu)?;
        machine.products(List::Step).iter().for_each(|(_, unit)| *by.entry(unit.name()).or_insert(0) += 1);
        let data = job.data.iter().map(|tensor| machine.load(tensor)).collect::<Result<_, _>>()?;
        Runner::Torch(Box::new(machine), data)
    };
    let (first, mut state) = match &options.resume {
        Some(path) => read_state(&job, path)?,
        None => (0, job.run(&runner, List::Init, &[], 0)?),
    };
    let until = options.until.unwrap_or(job.recipe.steps);
    let mut roots = BTreeMap::new();
    let mut kept = |step: u32, state: &[Arc<Tensor>]| -> Result<(), Failure> {
        roots.insert(step, root(&job, step, state));
        match &options.checkpoints {
            Some(folder) => write_state(&job, step, state, &folder.join(format!("{step}"))),
            None => Ok(()),
        }
    };
    kept(first, &state)?;
    let began = Instant::now();
    // States stay where they are computed between two roots.
    let mut at = first;
    while at < until {
        let next = (at + 1..until).find(|step| step % options.every == 0 || options.also.contains(step));
        let next = next.unwrap_or(until);
        state = job.steps(&runner, at..next, state)?;
        kept(next, &state)?;
        at = next;
    }
    let seconds = began.elapsed().as_secs_f64();
    let evaluation = job.evaluate(&runner, &state, options.sets.unwrap_or(usize::MAX))?;
    Ok(json!({
        "program": job.program.id(), "parameters": job.parameters(), "operators": job.program.step.nodes.len(),
        "products": by, "roots": roots, "evaluation": evaluation, "seconds": seconds, "steps": until - first,
    }))
}

impl Job {
    fn run(&self, by: &Runner, list: List, state: &[Arc<Tensor>], step: u32) -> Result<Vec<Arc<Tensor>>, Failure> {
        match by {
            Runner::Interpreter => {
                let inputs = Inputs { state, data: &self.data, context: self.context(step) };
                Ok(interpret::run(&self.program, list, &inputs)?)
            }
            Runner::Torch(machine, data) => {
                let state = state.iter().map(|tensor| machine.load(tensor)).collect::<Result<Vec<_>, _>>()?;
                let results = machine.run(list, &state, data, &self.context(step))?;
                stored(machine, &results)
            }
        }
    }

    fn steps(
        &self,
        by: &Runner,
        steps: std::ops::Range<u32>,
        mut state: Vec<Arc<Tensor>>,
    ) -> Result<Vec<Arc<Tensor>>, Failure> {
        let Runner::Torch(machine, data) = by else {
            for step in steps {
                state = self.run(by, List::Step, &state, step)?;
            }
            return Ok(state);
        };
        let mut state = state.iter().map(|tensor| machine.load(tensor)).collect::<Result<Vec<_>, _>>()?;
        for step in steps {
            state = machine.run(List::Step, &state, data, &self.context(step))?;
        }
        stored(machine, &state)
    }

    /// Over what is held out, or over some of its sets.
    fn evaluate(&self, by: &Runner, state: &[Arc<Tensor>], sets: usize) -> Result<Value, Failure> {
        let (mut correct, mut loss, mut of) = (0, 0, 0);
        for set in self.held_out.iter().take(sets) {
            let data = [&self.data[..self.trained_on()], &set[..]].concat();
            let results = match by {
                Runner::Interpreter => {
                    let inputs = Inputs { state, data: &data, context: self.context(0) };
                    interpret::run(&self.program, List::Evaluate, &inputs)?
                }
                Runner::Torch(machine, _) => {
                    let load =
                        |all: &[Arc<Tensor>]| all.iter().map(|one| machine.load(one)).collect::<Result<Vec<_>, _>>();
                    stored(machine, &machine.run(List::Evaluate, &load(state)?, &load(&data)?, &self.context(0))?)?
                }
            };
            correct += results[0].values()[0];
            loss += results[1].values()[0];
            of += self.labels(set);
        }
        Ok(json!({ "correct": correct, "loss": loss, "of": of }))
    }

    /// Labels of a set that is evaluated on: all but the first byte of its windows, or a row's each.
    pub fn labels(&self, set: &[Arc<Tensor>]) -> usize {
        let length = set[0].shape()[0];
        match self.recipe.model {
            freehold_trainer::recipe::Model::Transformer { context, .. } => {
                (length - 1) / context as usize * context as usize
            }
            _ => length,
        }
    }
}

fn stored(machine: &Machine, tensors: &[tch::Tensor]) -> Result<Vec<Arc<Tensor>>, Failure> {
    Ok(tensors.iter().map(|tensor| machine.store(tensor).map(Arc::new)).collect::<Result<_, _>>()?)
}

pub fn root(job: &Job, step: u32, state: &[Arc<Tensor>]) -> String {
    let roots: Vec<_> = state.iter().zip(job.widths()).map(|(tensor, width)| tensor_root(tensor, width)).collect();
    state_root(step, &roots).to_string()
}

/// The step, then the tensors in the program's order and widths, little-endian.
pub fn write_state(job: &Job, step: u32, state: &[Arc<Tensor>], path: &Path) -> Result<(), Failure> {
    let mut bytes = step.to_le_bytes().to_vec();
    for (tensor, width) in state.iter().zip(job.widths()) {
        bytes.extend(tensor.values().iter().flat_map(|value| value.to_le_bytes().into_iter().take(width.bytes())));
    }
    let mut file = std::fs::File::create(path)?;
    std::io::Write::write_all(&mut file, &bytes)?;
    Ok(file.sync_all()?)
}

pub fn read_state(job: &Job, path: &Path) -> Result<(u32, Vec<Arc<Tensor>>), Failure> {
    let bytes = std::fs::read(path)?;
    let (step, mut rest) = bytes.split_first_chunk::<4>().ok_or("the checkpoint is empty")?;
    let mut state = Vec::new();
    for declared in &job.program.state {
        let (width, count) = (declared.width.bytes(), declared.shape.iter().product::<usize>());
        let (own, others) = rest.split_at_checked(width * count).ok_or("the checkpoint is too short")?;
        let value = |bytes: &[u8]| {
            let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xFF } else { 0 };
            let mut word = [fill; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            i64::from_le_bytes(word)
        };
        state.push(Arc::new(Tensor::new(declared.shape.clone(), own.chunks(width).map(value).collect())?));
        rest = others;
    }
    Ok((u32::from_le_bytes(*step), state))
}
