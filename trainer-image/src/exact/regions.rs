//! Operators that work row by row are computed together, some rows after the others: what lies between them then stays in
//! the processor's cache, and blocks of rows go to all threads. Each operator does what it does alone.

use std::collections::BTreeMap;
use std::ops::Range;

use freehold_exact::op::Op;
use freehold_exact::program::Node;
use freehold_exact::tensor::row_length;
use tch::{Kind, Tensor};

use super::kernels::{Kernels, lost, side, sides};
use crate::error::{Error, Result};

/// Elements of a block: some of them at once fit into a core's cache.
const BLOCK: usize = 1 << 14;
/// Elements, over all operators, from which on another thread is worth its start.
const SHARED: usize = 1 << 19;

/// Operators on the same rows.
#[derive(Debug)]
pub struct Region {
    frame: Frame,
    members: Vec<Member>,
    /// Nodes from elsewhere, by number. A block's values are in slots: those of the inputs, then the members'.
    pub inputs: Vec<usize>,
    /// Nodes that are taken elsewhere.
    pub outputs: Vec<usize>,
    /// All that are computed.
    pub nodes: Vec<usize>,
}

/// An operator of a region, before what it takes is found.
#[derive(Debug)]
pub struct Member {
    pub at: usize,
    pub op: Op,
    /// Nodes; in a region, slots.
    pub of: Vec<usize>,
    pub shape: Vec<usize>,
    pub kinds: [Kind; 2],
    /// Length of the operand's rows, where they are looked at as a whole.
    pub row: usize,
    pub outer: Option<i64>,
    /// Slots that nobody takes after it.
    pub frees: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub rows: usize,
    pub columns: usize,
}

impl Frame {
    pub fn of(shape: &[usize]) -> Self {
        let columns = row_length(shape);
        Self { rows: shape.iter().product::<usize>() / columns.max(1), columns }
    }

    /// The frame that both have a place in: one may have a single element a row.
    fn join(self, other: Self) -> Option<Self> {
        let fits =
            self.rows == other.rows && (self.columns == other.columns || self.columns == 1 || other.columns == 1);
        fits.then(|| Self { rows: self.rows, columns: self.columns.max(other.columns) })
    }

    /// Whether a tensor of this frame is there for every row: its own part, one row for all, or one element for all.
    fn takes(self, other: Self) -> bool {
        let one = other.rows == 1 && (other.columns == self.columns || other.columns == 1);
        one || (other.rows == self.rows && (other.columns == self.columns || other.columns == 1))
    }
}

/// The frame that an operator works in, if it works row by row. `shape` is a node's.
pub fn frame<'a>(node: &Node, of: &[usize], shape: impl Fn(usize) -> &'a [usize]) -> Option<Frame> {
    let result = Frame::of(&node.shape);
    let shape = &shape;
    let operands = || of.iter().map(move |of| Frame::of(shape(*of)));
    match node.op {
        Op::Add | Op::Sub | Op::Mul | Op::Less | Op::Equal | Op::Select | Op::Div => Some(result),
        Op::Clamp { .. } | Op::Relu | Op::Sign | Op::Shift { .. } | Op::Isqrt | Op::Table => Some(result),
        Op::Max | Op::Sum | Op::Argmax | Op::Rowexp => operands().next(),
        Op::ShiftBy | Op::Quant | Op::Broadcast => operands().all(|operand| result.takes(operand)).then_some(result),
        Op::Reshape => operands().all(|operand| operand == result).then_some(result),
        _ => None,
    }
}

/// Gathers operators into regions, in an order in which each comes after what it takes.
#[derive(Default)]
pub struct Gatherer {
    open: Vec<(Frame, Vec<usize>)>,
    order: Vec<Group>,
}

pub enum Group {
    One(usize),
    Many(Frame, Vec<usize>),
}

impl Group {
    pub fn members(&self) -> &[usize] {
        match self {
            Self::One(at) => std::slice::from_ref(at),
            Self::Many(_, members) => members,
        }
    }
}

impl Gatherer {
    /// The next operator, what it takes, and its frame if it has one.
    pub fn add(&mut self, at: usize, of: &[usize], frame: Option<Frame>) {
        let takes = |members: &[usize]| of.iter().any(|of| members.contains(of));
        // With those that it takes something of, if it can be; else with any that it fits.
        let home = frame.and_then(|frame| {
            let mut fits: Vec<usize> =
                (0..self.open.len()).filter(|index| self.open[*index].0.join(frame).is_some()).collect();
            fits.sort_by_key(|index| !takes(&self.open[*index].1));
            fits.first().copied()
        });
        let needed: Vec<usize> =
            (0..self.open.len()).filter(|index| Some(*index) != home && takes(&self.open[*index].1)).collect();
        let members = home.map(|home| self.open[home].1[0]);
        for index in needed.into_iter().rev() {
            self.close(index);
        }
        match (frame, members) {
            (Some(frame), Some(first)) => {
                if let Some((joined, members)) = self.open.iter_mut().find(|(_, members)| members[0] == first) {
                    *joined = joined.join(frame).unwrap_or(*joined);
                    members.push(at);
                }
            }
            (Some(frame), None) => self.open.push((frame, vec![at])),
            (None, _) => self.order.push(Group::One(at)),
        }
    }

    fn close(&mut self, index: usize) {
        let (frame, members) = self.open.remove(index);
        self.order.push(if members.len() == 1 { Group::One(members[0]) } else { Group::Many(frame, members) });
    }

    pub fn finish(mut self) -> Vec<Group> {
        while !self.open.is_empty() {
            self.close(0);
        }
        self.order
    }
}

/// An input as it is given to blocks.
enum Input {
    /// `[rows, …]`: each block has its part.
    Rows(Tensor),
    Whole(Tensor),
}

impl Input {
    fn shared(&self) -> Self {
        match self {
            Self::Rows(tensor) => Self::Rows(tensor.shallow_clone()),
            Self::Whole(tensor) => Self::Whole(tensor.shallow_clone()),
        }
    }

    fn part(&self, rows: &Range<usize>) -> Result<Tensor> {
        match self {
            Self::Rows(tensor) => Ok(tensor.f_narrow(0, side(rows.start), side(rows.len()))?),
            Self::Whole(tensor) => Ok(tensor.shallow_clone()),
        }
    }
}

impl Region {
    /// `taken`: whether a node is taken outside of the region.
    pub fn new(frame: Frame, mut members: Vec<Member>, taken: impl Fn(usize) -> bool) -> Self {
        let own: BTreeMap<usize, usize> = members.iter().enumerate().map(|(index, one)| (one.at, index)).collect();
        let mut inputs: Vec<usize> = Vec::new();
        for of in members.iter().flat_map(|member| &member.of) {
            if !own.contains_key(of) && !inputs.contains(of) {
                inputs.push(*of);
            }
        }
        let outputs: Vec<usize> = own.keys().copied().filter(|at| taken(*at)).collect();
        let slot = |of: usize| match own.get(&of) {
            Some(index) => inputs.len() + index,
            None => inputs.iter().position(|input| *input == of).unwrap_or(0),
        };
        let mut last: Vec<bool> = (0..inputs.len() + members.len()).map(|_| false).collect();
        outputs.iter().for_each(|at| last[slot(*at)] = true);
        for member in members.iter_mut().rev() {
            member.of = member.of.iter().map(|of| slot(*of)).collect();
            member.frees = member.of.iter().copied().filter(|of| !std::mem::replace(&mut last[*of], true)).collect();
        }
        let nodes = own.into_keys().collect();
        Self { frame, members, inputs, outputs, nodes }
    }

    /// Values of the outputs, in their order.
    pub fn run<'a>(
        &self,
        kernels: &Kernels,
        given: impl Fn(usize) -> Option<&'a Tensor>,
        threads: usize,
    ) -> Result<Vec<Tensor>> {
        let mut inputs: Vec<Input> = Vec::with_capacity(self.inputs.len());
        for (slot, at) in self.inputs.iter().enumerate() {
            let tensor = given(*at).ok_or_else(lost)?;
            let table = self.members.iter().any(|member| member.op == Op::Table && member.of[0] == slot);
            inputs.push(if table { Input::Whole(tensor.shallow_clone()) } else { input(tensor)? });
        }
        let Frame { rows, columns } = self.frame;
        let length = (BLOCK / columns.max(1)).clamp(1, rows);
        let first = self.block(kernels, &inputs, 0..length)?;
        if length == rows {
            return self.outputs.iter().zip(&first).map(|(at, value)| self.shaped(*at, value)).collect();
        }
        let mut all = Vec::new();
        for value in &first {
            let mut size = value.size();
            if size.len() == 2 {
                size[0] = side(rows);
            }
            all.push(Tensor::f_empty(size, (value.kind(), value.device()))?);
        }
        put(&mut all, &first, &(0..length))?;
        let blocks: Vec<Range<usize>> =
            (length..rows).step_by(length).map(|start| start..rows.min(start + length)).collect();
        let work = |kernels: &Kernels, inputs: &[Input], all: &mut [Tensor], blocks: &[Range<usize>]| -> Result<()> {
            let _no_grad = tch::no_grad_guard();
            blocks.iter().try_for_each(|rows| put(all, &self.block(kernels, inputs, rows.clone())?, rows))
        };
        let threads = if rows * columns * self.members.len() < SHARED { 1 } else { threads.clamp(1, blocks.len()) };
        let mut shares = blocks.chunks(blocks.len().div_ceil(threads));
        let own = shares.next().unwrap_or_default();
        std::thread::scope(|scope| {
            let helpers: Vec<_> = shares
                .map(|share| {
                    let kernels = kernels.shared();
                    let inputs: Vec<Input> = inputs.iter().map(Input::shared).collect();
                    let mut all: Vec<Tensor> = all.iter().map(Tensor::shallow_clone).collect();
                    let work = &work;
                    scope.spawn(move || work(&kernels, &inputs, &mut all, share))
                })
                .collect();
            let done = work(kernels, &inputs, &mut all, own);
            helpers.into_iter().try_for_each(|helper| helper.join().unwrap_or_else(|_| Err(stopped())))?;
            done
        })?;
        self.outputs.iter().zip(&all).map(|(at, value)| self.shaped(*at, value)).collect()
    }

    /// Values of the outputs for these rows: `[rows, …]`, or less where it is the same for all.
    fn block(&self, kernels: &Kernels, inputs: &[Input], rows: Range<usize>) -> Result<Vec<Tensor>> {
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(inputs.len() + self.members.len());
        for input in inputs {
            values.push(Some(input.part(&rows)?));
        }
        for member in &self.members {
            let operand = |of: &usize| values[*of].as_ref().ok_or_else(lost);
            let value = match member.op {
                Op::Broadcast | Op::Reshape => operand(&member.of[0])?.shallow_clone(),
                _ => {
                    member.compute(kernels, &member.of.iter().map(operand).collect::<Result<Vec<_>>>()?, rows.len())?
                }
            };
            values.push(Some(value));
            member.frees.iter().for_each(|of| values[*of] = None);
        }
        let place = |at: &usize| self.members.iter().position(|member| member.at == *at).unwrap_or(0);
        self.outputs.iter().map(|at| values[inputs.len() + place(at)].take().ok_or_else(lost)).collect()
    }

    /// Repeated to the shape that the node has.
    fn shaped(&self, at: usize, value: &Tensor) -> Result<Tensor> {
        let member = self.members.iter().find(|member| member.at == at).ok_or_else(lost)?;
        let frame = Frame::of(&member.shape);
        let wide = value.f_expand([side(frame.rows), side(frame.columns)], false)?;
        Ok(wide.f_reshape(sides(&member.shape))?)
    }
}

/// What repeats is taken as it was before it was repeated.
fn input(tensor: &Tensor) -> Result<Input> {
    let (size, strides) = (tensor.size(), tensor.stride());
    let repeats = |at: usize| strides[at] == 0 || size[at] == 1;
    let Some(last) = size.len().checked_sub(1) else { return Ok(Input::Whole(tensor.shallow_clone())) };
    let columns = if repeats(last) { 1 } else { size[last] };
    let tensor = tensor.f_narrow(-1, 0, columns)?;
    if !(0..last).all(repeats) {
        return Ok(Input::Rows(tensor.f_reshape([-1, columns])?));
    }
    let mut tensor = tensor;
    for _ in 0..last {
        tensor = tensor.f_select(0, 0)?;
    }
    Ok(Input::Whole(if columns == 1 { tensor.f_select(0, 0)? } else { tensor }))
}

impl Member {
    fn compute(&self, kernels: &Kernels, operands: &[&Tensor], rows: usize) -> Result<Tensor> {
        let [kind, kept] = self.kinds;
        let mut of: Vec<Tensor> =
            operands.iter().map(|operand| operand.f_to_kind(kind)).collect::<std::result::Result<_, _>>()?;
        if matches!(self.op, Op::Max | Op::Sum | Op::Argmax | Op::Rowexp) {
            of[0] = of[0].f_expand([side(rows), side(self.row)], false)?;
        }
        let result = match self.outer {
            Some(by) => kernels.shift_outer(&of[0], &of[1], &of[2], by)?,
            None => kernels.apply(&self.op, &[], &of.iter().collect::<Vec<_>>())?,
        };
        Ok(if kind == kept { result } else { result.f_to_kind(kept)? })
    }
}

fn put(all: &mut [Tensor], parts: &[Tensor], rows: &Range<usize>) -> Result<()> {
    for (whole, part) in all.iter_mut().zip(parts) {
        let mut place = match part.size().len() {
            2 => whole.f_narrow(0, side(rows.start), side(rows.len()))?,
            _ if rows.start == 0 => whole.shallow_clone(),
            _ => continue,
        };
        place.f_copy_(part)?;
    }
    Ok(())
}

fn stopped() -> Error {
    Error::Unavailable("a thread of the program's computation stopped".into())
}
