//! A run before anything of it is computed: its program, its data, its seed, and where its segments end.

use alloy_primitives::{B256, keccak256};
use freehold_exact::commit;
use freehold_exact::compile::{compile, evaluated};
use freehold_exact::element::Context;
use freehold_exact::op::Op;
use freehold_exact::optim;
use freehold_exact::program::{Declared, List, Program, Ranges};
use freehold_exact::tensor::{Tensor, count, row_length};

use super::data::Data;
use super::recipe;
use crate::data::Guard;
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::Recipe;
use crate::summary::Commitments;
use crate::task::{Paths, Task};
use crate::train::Env;

/// How long a segment takes, about, on two cores of a CPU.
const SEGMENT_PICOSECONDS: u64 = 60_000_000_000_000;

pub struct Plan {
    pub program: Program,
    pub ranges: Ranges,
    pub data: Data,
    pub seed: B256,
    pub segment_steps: u32,
    pub program_id: B256,
    pub data_root: B256,
    /// Labels that an evaluation counts.
    pub evaluated: usize,
    /// Tensors of the state that follow on each parameter: what the optimizer remembers of it.
    pub remembered: usize,
}

impl Plan {
    pub fn new(task: &Task, recipe: &Recipe, paths: &Paths, env: &Env) -> Result<Self> {
        let format = recipe::check(recipe)?;
        let guard = Guard { stop: env.stop, limit: memory::limit(task.resources) };
        let data = Data::read(&paths.input("dataset")?, recipe, guard)?;
        let exact = recipe::exact(recipe, format, data.sizes)?;
        let program = compile(&exact).map_err(|error| Error::Usage(error.to_string()))?;
        let ranges = program.check().map_err(|refusal| Error::Usage(refusal.to_string()))?;
        let rows: usize = data.tensors.iter().map(|tensor| tensor.values().len()).sum();
        let held = List::ALL.into_iter().map(|list| held_at_once(&program, list)).max().unwrap_or(0);
        // Integers of 64 bits, and the same in floats on the device, which may be a CPU.
        let bytes = 8 * (2 * rows as u64 + if env.device.is_cuda() { 0 } else { held });
        let lower = "batchSize, the rows held out or the model's size";
        memory::require("exact training", memory::RUNTIME.saturating_add(bytes), guard.limit, lower)?;
        Ok(Self {
            segment_steps: recipe.segment_steps.unwrap_or_else(|| minute(&program)).clamp(1, program.steps),
            program_id: program.id(),
            data_root: commit::data_root(&roots(&program.data, data.tensors.iter().map(AsRef::as_ref))),
            seed: seed(recipe.seed),
            evaluated: evaluated(&exact),
            remembered: optim::remembered(&exact.optimizer).len(),
            program,
            ranges,
            data,
        })
    }

    pub fn context(&self, step: u32) -> Context {
        Context { seed: self.seed, step }
    }

    pub fn segments(&self) -> usize {
        self.program.steps.div_ceil(self.segment_steps) as usize
    }

    /// The step before which so many segments have ended.
    pub fn end_of(&self, segments: usize) -> u32 {
        u32::try_from(segments).map_or(u32::MAX, |n| n.saturating_mul(self.segment_steps)).min(self.program.steps)
    }

    /// Segments that have ended before a step.
    pub fn ended(&self, step: u32) -> usize {
        let whole =
            if step == self.program.steps { step.div_ceil(self.segment_steps) } else { step / self.segment_steps };
        whole as usize
    }

    /// Of the state before a step.
    pub fn state_root(&self, step: u32, state: &[Tensor]) -> B256 {
        commit::state_root(step, &roots(&self.program.state, state.iter()))
    }

    pub fn commitments(&self, states: &[B256]) -> Commitments {
        let root = |at: Option<&B256>| at.copied().unwrap_or_default().to_string();
        Commitments {
            program_id: self.program_id.to_string(),
            data_root: self.data_root.to_string(),
            seed: self.seed.to_string(),
            init_root: root(states.first()),
            state_root: root(states.last()),
            segments: states.len().saturating_sub(1),
            segment_steps: self.segment_steps,
        }
    }
}

fn roots<'a>(declared: &[Declared], tensors: impl Iterator<Item = &'a Tensor>) -> Vec<B256> {
    declared.iter().zip(tensors).map(|(declared, tensor)| commit::tensor_root(tensor, declared.width)).collect()
}

/// All 32 bytes depend on the recipe's seed: Philox's key is the first eight.
fn seed(number: u64) -> B256 {
    keccak256([b"freehold/seed/v1".as_slice(), &number.to_be_bytes()].concat())
}

/// Whether libtorch only looks at the same numbers in another way.
fn is_view(op: &Op) -> bool {
    matches!(
        op,
        Op::State { .. } | Op::Data { .. } | Op::Constant { .. } | Op::Broadcast | Op::Reshape | Op::Slice { .. }
    )
}

/// Steps that take about a minute. They follow from the program alone, by rough prices of a call, an element and a product
/// on two cores: a length that was measured would be another one on another machine, or when a run goes on.
fn minute(program: &Program) -> u32 {
    let price = program.step.nodes.iter().map(|node| {
        let elements = count(&node.shape) as u64;
        let products = match node.op {
            Op::Matmul => elements.saturating_mul(row_length(&program.step.nodes[node.of[0]].shape) as u64),
            _ => 0,
        };
        let moved = if is_view(&node.op) { 0 } else { elements };
        10_000_000 + 700 * moved + 30 * products
    });
    u32::try_from(SEGMENT_PICOSECONDS / price.sum::<u64>().max(1)).unwrap_or(u32::MAX).max(1)
}

/// Elements that a list holds at once, at most: each from where it is made to where it is taken last.
fn held_at_once(program: &Program, list: List) -> u64 {
    let graph = program.list(list);
    let owner = |at: usize, owners: &[usize]| match &graph.nodes[at] {
        node if is_view(&node.op) => node.of.first().map_or(at, |of| owners[*of]),
        _ => at,
    };
    let mut owners: Vec<usize> = Vec::with_capacity(graph.nodes.len());
    let mut last: Vec<usize> = (0..graph.nodes.len()).collect();
    for (at, node) in graph.nodes.iter().enumerate() {
        owners.push(owner(at, &owners));
        node.of.iter().for_each(|of| last[owners[*of]] = at);
    }
    graph.results.iter().for_each(|result| last[owners[*result]] = graph.nodes.len());
    let mut ends: Vec<u64> = vec![0; graph.nodes.len() + 1];
    let (mut held, mut most) = (0_u64, 0);
    for (at, node) in graph.nodes.iter().enumerate() {
        if owners[at] == at && !matches!(node.op, Op::Broadcast) {
            let elements = count(&node.shape) as u64;
            held += elements;
            ends[last[at]] += elements;
        }
        most = most.max(held);
        held -= ends[at];
    }
    most
}
