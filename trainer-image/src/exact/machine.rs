//! A program's lists on libtorch: whole numbers in floats, which hold them exactly: in 32 bits where the range analysis has
//! proven that nothing takes more than 23, else in 64. Products by the fastest unit that is exact for what it proved.

use freehold_exact::draw;
use freehold_exact::element::Context;
use freehold_exact::op::Op;
use freehold_exact::program::{Graph, List, Node, Program, Ranges};
use freehold_exact::range::Range;
use freehold_exact::tensor::row_length;
use tch::{Device, Kind, Tensor};

use super::kernels::{Kernels, lost, sides};
use super::regions::{Gatherer, Group, Member, Region, frame};
use super::units::{Unit, Units};
use crate::error::{Error, Result};

/// What a 32-bit float may have: one bit less than it holds, for the half that rounding adds.
const FLOAT_BITS: u32 = 23;

/// A program on a device.
pub struct Machine {
    program: Program,
    device: Device,
    kernels: Kernels,
    lists: [Plan; 3],
}

/// How a list is computed.
#[derive(Default)]
struct Plan {
    /// By node.
    steps: Vec<Step>,
    /// In the order in which they are computed.
    work: Vec<Work>,
}

/// One operator as it is computed.
struct Step {
    /// Of what depends on constants alone.
    fixed: Option<Tensor>,
    unit: Unit,
    /// What it is computed in, and what its result is kept in.
    kinds: [Kind; 2],
    /// Nodes that it takes.
    of: Vec<usize>,
    /// A shift by what a row and a column say, which is never made into a matrix: `by` less both.
    outer: Option<i64>,
}

struct Work {
    what: What,
    /// Nodes that nobody takes after it.
    frees: Vec<usize>,
}

enum What {
    One(usize),
    Many(Region),
}

impl What {
    fn takes<'a>(&'a self, steps: &'a [Step]) -> &'a [usize] {
        match self {
            Self::One(at) => &steps[*at].of,
            Self::Many(region) => &region.inputs,
        }
    }
}

impl Machine {
    pub fn new(program: Program, ranges: &Ranges, units: &Units, device: Device) -> Result<Self> {
        let mut machine = Self { program, device, kernels: Kernels::new(device)?, lists: Default::default() };
        for (at, list) in List::ALL.into_iter().enumerate() {
            let steps = machine.steps(list, ranges.of(list), units)?;
            machine.lists[at] = machine.plan(list, steps);
        }
        Ok(machine)
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Products of a list by the unit that computes them.
    pub fn products(&self, list: List) -> Vec<(usize, Unit)> {
        let nodes = self.program.list(list).nodes.iter().zip(&self.lists[list as usize].steps).enumerate();
        nodes.filter(|(_, (node, _))| node.op == Op::Matmul).map(|(at, (_, step))| (at, step.unit)).collect()
    }

    fn steps(&self, list: List, ranges: &[Range], units: &Units) -> Result<Vec<Step>> {
        let graph = self.program.list(list);
        let mut steps: Vec<Step> = Vec::with_capacity(graph.nodes.len());
        for (at, node) in graph.nodes.iter().enumerate() {
            let bits = node.of.iter().map(|of| ranges[*of].values.bits()).max().unwrap_or(0).max(ranges[at].inner_bits);
            let kind = |bits| if bits <= FLOAT_BITS { Kind::Float } else { Kind::Double };
            let unit = match node.op {
                Op::Matmul => {
                    let (left, right) = (ranges[node.of[0]].values, ranges[node.of[1]].values);
                    units.choose(left, right, ranges[at], node.shape.len()).ok_or_else(|| no_unit(node, at))?
                }
                _ => Unit::F64,
            };
            let (of, outer) = match outer(&self.program, graph, node) {
                Some((down, across, by)) => (vec![node.of[0], down, across], Some(by)),
                None => (node.of.clone(), None),
            };
            let kept = if unit == Unit::Int8 { Kind::Int } else { kind(ranges[at].values.bits()) };
            steps.push(Step { fixed: None, unit, kinds: [kind(bits), kept], of, outer });
            steps[at].fixed = self.fixed(node, &steps, at)?;
        }
        // What only 8-bit products take is kept in 8 bits.
        let mut small = vec![true; steps.len()];
        graph.results.iter().for_each(|result| small[*result] = false);
        for (step, node) in steps.iter().zip(&graph.nodes) {
            if node.op != Op::Matmul || step.unit != Unit::Int8 {
                step.of.iter().for_each(|of| small[*of] = false);
            }
        }
        let quantised = graph.nodes.iter().enumerate().filter(|(at, node)| node.op == Op::Quant && small[*at]);
        quantised.for_each(|(at, _)| steps[at].kinds[1] = Kind::Int8);
        Ok(steps)
    }

    /// What is computed when, and together with what.
    fn plan(&self, list: List, steps: Vec<Step>) -> Plan {
        let graph = self.program.list(list);
        let mut needed = vec![false; steps.len()];
        graph.results.iter().for_each(|result| needed[*result] = true);
        for at in (0..steps.len()).rev() {
            if needed[at] && steps[at].fixed.is_none() {
                steps[at].of.iter().for_each(|of| needed[*of] = true);
            }
        }
        let mut gatherer = Gatherer::default();
        for (at, (node, step)) in graph.nodes.iter().zip(&steps).enumerate() {
            if needed[at] && step.fixed.is_none() {
                let table = node.op == Op::Table && steps[step.of[0]].fixed.is_none();
                let rows = (self.device == Device::Cpu && !table)
                    .then(|| frame(node, &step.of, |of| graph.nodes[of].shape.as_slice()));
                gatherer.add(at, &step.of, rows.flatten());
            }
        }
        let groups = gatherer.finish();
        // Which group takes a node last, and whether any but its own does.
        let mut group_of = vec![usize::MAX; steps.len()];
        for (index, group) in groups.iter().enumerate() {
            group.members().iter().for_each(|at| group_of[*at] = index);
        }
        let mut taken = vec![false; steps.len()];
        graph.results.iter().for_each(|result| taken[*result] = true);
        for (at, step) in steps.iter().enumerate().filter(|(at, _)| group_of[*at] != usize::MAX) {
            step.of.iter().filter(|of| group_of[**of] != group_of[at]).for_each(|of| taken[*of] = true);
        }
        let member = |at: &usize| {
            let (node, step) = (&graph.nodes[*at], &steps[*at]);
            let row = node.of.first().map_or(1, |of| row_length(&graph.nodes[*of].shape));
            let (op, of, shape) = (node.op.clone(), step.of.clone(), node.shape.clone());
            Member { at: *at, op, of, shape, kinds: step.kinds, row, outer: step.outer, frees: vec![] }
        };
        let what = groups.into_iter().map(|group| match group {
            Group::One(at) => What::One(at),
            Group::Many(frame, members) => {
                What::Many(Region::new(frame, members.iter().map(member).collect(), |at| taken[at]))
            }
        });
        let mut work: Vec<Work> = what.map(|what| Work { what, frees: vec![] }).collect();
        let mut later = vec![false; steps.len()];
        graph.results.iter().for_each(|result| later[*result] = true);
        for Work { what, frees } in work.iter_mut().rev() {
            let last = what.takes(&steps).iter().copied().filter(|of| !std::mem::replace(&mut later[*of], true));
            *frees = last.collect();
        }
        Plan { steps, work }
    }

    /// The value of what depends on constants alone.
    fn fixed(&self, node: &Node, before: &[Step], at: usize) -> Result<Option<Tensor>> {
        if let Op::Constant { index } = node.op {
            return self.load(&self.program.constants[index].values).map(Some);
        }
        if matches!(node.op, Op::State { .. } | Op::Data { .. } | Op::Step | Op::Sample { .. } | Op::Random { .. }) {
            return Ok(None);
        }
        let operands: Option<Vec<&Tensor>> = before[at].of.iter().map(|of| before[*of].fixed.as_ref()).collect();
        let Some(operands) = operands else { return Ok(None) };
        let value = self.compute(node, &before[at], &operands)?;
        // What is repeated as a whole stays one row, or one element.
        let (size, strides) = (value.size(), value.stride());
        let once = |at: usize| strides[at] == 0 || size[at] == 1;
        let leading = (0..size.len().saturating_sub(1)).all(once);
        Ok(Some(if leading { value } else { value.f_contiguous()? }))
    }

    /// Onto the device.
    pub fn load(&self, tensor: &freehold_exact::tensor::Tensor) -> Result<Tensor> {
        let values = Tensor::f_from_slice(tensor.values())?.f_to_device(self.device)?.f_to_kind(Kind::Double)?;
        Ok(values.f_reshape(sides(tensor.shape()))?)
    }

    /// Back from it.
    pub fn store(&self, tensor: &Tensor) -> Result<freehold_exact::tensor::Tensor> {
        let shape: Vec<usize> = tensor.size().iter().map(|side| side.unsigned_abs() as usize).collect();
        let flat = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Int64)?.f_reshape([-1])?;
        freehold_exact::tensor::Tensor::new(shape, Vec::<i64>::try_from(flat)?)
            .map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// The list's results.
    pub fn run(&self, list: List, state: &[Tensor], data: &[Tensor], context: &Context) -> Result<Vec<Tensor>> {
        self.watched(list, state, data, context, &mut |_| {})
    }

    /// The same; `seen` is told the numbers of operators once they are computed.
    pub fn watched(
        &self,
        list: List,
        state: &[Tensor],
        data: &[Tensor],
        context: &Context,
        seen: &mut dyn FnMut(&[usize]),
    ) -> Result<Vec<Tensor>> {
        let _no_grad = tch::no_grad_guard();
        let (graph, plan) = (self.program.list(list), &self.lists[list as usize]);
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        let mut values: Vec<Option<Tensor>> = (0..plan.steps.len()).map(|_| None).collect();
        for Work { what, frees } in &plan.work {
            let value = |at: usize| values[at].as_ref().or(plan.steps[at].fixed.as_ref());
            match what {
                What::One(at) => {
                    let (node, step) = (&graph.nodes[*at], &plan.steps[*at]);
                    let made = match node.op {
                        Op::State { index } => state[index].shallow_clone(),
                        Op::Data { index } => data[index].shallow_clone(),
                        _ => {
                            let operands = step.of.iter().map(|of| value(*of).ok_or_else(lost));
                            self.one(node, step, &operands.collect::<Result<Vec<_>>>()?, context)?
                        }
                    };
                    values[*at] = Some(made);
                    seen(&[*at]);
                }
                What::Many(region) => {
                    let made = region.run(&self.kernels, value, threads)?;
                    region.outputs.iter().zip(made).for_each(|(at, made)| values[*at] = Some(made));
                    seen(&region.nodes);
                }
            }
            frees.iter().for_each(|of| values[*of] = None);
        }
        let result = |at: &usize| {
            let value = values[*at].as_ref().or(plan.steps[*at].fixed.as_ref());
            Ok(value.ok_or_else(lost)?.f_to_kind(Kind::Double)?)
        };
        graph.results.iter().map(result).collect()
    }

    /// One operator of a list by itself, from the values of the nodes that it takes; none of what is given from outside.
    pub fn operator(
        &self,
        list: List,
        at: usize,
        value: &dyn Fn(usize) -> Result<Tensor>,
        context: &Context,
    ) -> Result<Option<Tensor>> {
        let (node, step) = (&self.program.list(list).nodes[at], &self.lists[list as usize].steps[at]);
        if matches!(node.op, Op::State { .. } | Op::Data { .. } | Op::Constant { .. }) {
            return Ok(None);
        }
        let operands: Vec<Tensor> = step.of.iter().map(|of| value(*of)).collect::<Result<_>>()?;
        self.one(node, step, &operands.iter().collect::<Vec<_>>(), context).map(Some)
    }

    fn one(&self, node: &Node, step: &Step, operands: &[&Tensor], context: &Context) -> Result<Tensor> {
        match self.drawn(&node.op, &node.shape, context)? {
            Some(drawn) => Ok(drawn),
            None => self.compute(node, step, operands),
        }
    }

    /// What comes from seed and step.
    fn drawn(&self, op: &Op, shape: &[usize], context: &Context) -> Result<Option<Tensor>> {
        let count: usize = shape.iter().product();
        let values: Vec<i64> = match op {
            Op::Step => vec![context.step.into()],
            Op::Sample { rows } => {
                (0..count).map(|j| draw::row(&context.seed, context.step, j as u64, *rows)).collect()
            }
            Op::Random { stream, bits } => {
                (0..count).map(|at| draw::uniform(&context.seed, *stream, context.step, at as u64, *bits)).collect()
            }
            _ => return Ok(None),
        };
        let values = Tensor::f_from_slice(&values)?.f_to_device(self.device)?.f_to_kind(Kind::Double)?;
        Ok(Some(values.f_reshape(sides(shape))?))
    }

    fn compute(&self, node: &Node, step: &Step, operands: &[&Tensor]) -> Result<Tensor> {
        let [kind, kept] = step.kinds;
        if node.op == Op::Matmul {
            return step.unit.product(operands[0], operands[1], kept);
        }
        let of: Vec<Tensor> =
            operands.iter().map(|operand| operand.f_to_kind(kind)).collect::<std::result::Result<_, _>>()?;
        let result = match step.outer {
            Some(by) => self.kernels.shift_outer(&of[0], &of[1], &of[2], by)?,
            None => self.kernels.apply(&node.op, &node.shape, &of.iter().collect::<Vec<_>>())?,
        };
        // A scalar with a row's exponent becomes a row of one.
        let result = if result.dim() == node.shape.len() { result } else { result.f_reshape(sides(&node.shape))? };
        Ok(if kind == kept { result } else { result.f_to_kind(kept)? })
    }
}

/// Of a shift: what a row and a column say, and the places that both are taken from.
fn outer(program: &Program, graph: &Graph, node: &Node) -> Option<(usize, usize, i64)> {
    let behind = |at: usize| match graph.nodes[at].op {
        Op::Broadcast => Some(graph.nodes[at].of[0]),
        _ => None,
    };
    let pair = |at: usize, op: &Op| (graph.nodes[at].op == *op).then(|| (graph.nodes[at].of[0], graph.nodes[at].of[1]));
    if node.op != Op::ShiftBy {
        return None;
    }
    let (all, both) = pair(node.of[1], &Op::Sub)?;
    let (down, across) = pair(both, &Op::Add)?;
    let (down, across) = (behind(down)?, behind(across)?);
    let Op::Constant { index } = graph.nodes[behind(all)?].op else { return None };
    let by = *program.constants[index].values.values().first()?;
    // Each power by itself has to be in the table, too.
    (by.abs() <= 30).then_some((down, across, by))
}

fn no_unit(node: &Node, at: usize) -> Error {
    Error::Unavailable(format!(
        "operator {at} (`{}`, shape {:?}): no arithmetic unit of this device has shown that it computes such products \
         exactly; use another device",
        node.op.name(),
        node.shape
    ))
}
