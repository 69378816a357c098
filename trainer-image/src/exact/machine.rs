//! A program's lists on libtorch: whole numbers in floats, which hold them exactly: in 32 bits where the range analysis has
//! proven that nothing takes more than 23, else in 64. Products by the fastest unit that is exact for what it proved.

use freehold_exact::draw;
use freehold_exact::element::Context;
use freehold_exact::op::Op;
use freehold_exact::program::{Graph, List, Node, Program, Ranges};
use freehold_exact::range::Range;
use tch::{Device, Kind, Tensor};

use super::units::{Unit, Units};
use crate::error::{Error, Result};

/// What a 32-bit float may have: one bit less than it holds, for the half that rounding adds.
const FLOAT_BITS: u32 = 23;

/// A program on a device.
pub struct Machine {
    program: Program,
    device: Device,
    lists: [Vec<Step>; 3],
    /// 2^−s by s + 62.
    powers: Tensor,
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
    /// Whether anything takes its result.
    needed: bool,
    /// Nodes that nobody takes after it.
    frees: Vec<usize>,
    /// A shift by what a row and a column say, which is never made into a matrix: `by` less both.
    outer: Option<i64>,
}

impl Machine {
    pub fn new(program: Program, ranges: &Ranges, units: &Units, device: Device) -> Result<Self> {
        let powers: Vec<f64> = (-62..=62).map(|s| f64::from(-s).exp2()).collect();
        let powers = Tensor::f_from_slice(&powers)?.f_to_device(device)?;
        let mut machine = Self { program, device, lists: Default::default(), powers };
        for (at, list) in List::ALL.into_iter().enumerate() {
            machine.lists[at] = machine.prepare(list, ranges.of(list), units)?;
        }
        Ok(machine)
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Products of a list by the unit that computes them.
    pub fn products(&self, list: List) -> Vec<(usize, Unit)> {
        let nodes = self.program.list(list).nodes.iter().zip(&self.lists[list as usize]).enumerate();
        nodes.filter(|(_, (node, _))| node.op == Op::Matmul).map(|(at, (_, step))| (at, step.unit)).collect()
    }

    fn prepare(&self, list: List, ranges: &[Range], units: &Units) -> Result<Vec<Step>> {
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
            let kinds = [kind(bits), kind(ranges[at].values.bits())];
            steps.push(Step { fixed: None, unit, kinds, of, needed: false, frees: vec![], outer });
            steps[at].fixed = self.fixed(node, &steps, at)?;
        }
        // From the results back: what is needed, and by whom last.
        let mut taken = vec![false; steps.len()];
        for result in &graph.results {
            (steps[*result].needed, taken[*result]) = (true, true);
        }
        for at in (0..steps.len()).rev().filter(|at| steps[*at].fixed.is_none()).collect::<Vec<_>>() {
            if !steps[at].needed {
                continue;
            }
            for of in steps[at].of.clone() {
                steps[of].needed = true;
                if !std::mem::replace(&mut taken[of], true) {
                    steps[at].frees.push(of);
                }
            }
        }
        Ok(steps)
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
        operands.map(|operands| self.compute(node, &before[at], &operands)).transpose()
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

    /// The same; `seen` is told the number of each operator once it is computed.
    pub fn watched(
        &self,
        list: List,
        state: &[Tensor],
        data: &[Tensor],
        context: &Context,
        seen: &mut dyn FnMut(usize),
    ) -> Result<Vec<Tensor>> {
        let _no_grad = tch::no_grad_guard();
        let graph = self.program.list(list);
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(graph.nodes.len());
        for (node, step) in graph.nodes.iter().zip(&self.lists[list as usize]) {
            let value = match (&step.fixed, &node.op) {
                _ if !step.needed => None,
                (Some(fixed), _) => Some(fixed.shallow_clone()),
                (None, Op::State { index }) => Some(state[*index].shallow_clone()),
                (None, Op::Data { index }) => Some(data[*index].shallow_clone()),
                (None, op) => match self.drawn(op, &node.shape, context)? {
                    Some(drawn) => Some(drawn),
                    None => {
                        let operand = |of: &usize| values[*of].as_ref().ok_or_else(lost);
                        let operands: Vec<&Tensor> = step.of.iter().map(operand).collect::<Result<_>>()?;
                        Some(self.compute(node, step, &operands)?)
                    }
                },
            };
            values.push(value);
            step.frees.iter().for_each(|of| values[*of] = None);
            seen(values.len() - 1);
        }
        let result = |at: &usize| Ok(values[*at].as_ref().ok_or_else(lost)?.f_to_kind(Kind::Double)?);
        graph.results.iter().map(result).collect()
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

    /// One operator. Every step of it is exact: why is said where it is not plain.
    fn compute(&self, node: &Node, step: &Step, operands: &[&Tensor]) -> Result<Tensor> {
        let [kind, kept] = step.kinds;
        if node.op == Op::Matmul {
            return step.unit.product(operands[0], operands[1], kept);
        }
        let of: Vec<Tensor> =
            operands.iter().map(|operand| operand.f_to_kind(kind)).collect::<std::result::Result<_, _>>()?;
        let result = match step.outer {
            Some(by) => self.shift_outer(&of[0], &of[1], &of[2], by)?,
            None => self.apply(node, &of.iter().collect::<Vec<_>>())?,
        };
        // A scalar with a row's exponent becomes a row of one.
        let result = if result.dim() == node.shape.len() { result } else { result.f_reshape(sides(&node.shape))? };
        Ok(if kind == kept { result } else { result.f_to_kind(kept)? })
    }

    fn apply(&self, node: &Node, of: &[&Tensor]) -> Result<Tensor> {
        let x = || of[0];
        let shape = sides(&node.shape);
        Ok(match &node.op {
            Op::Matmul => return Err(lost()),
            Op::Transpose { order } => x().f_permute(sides(order))?,
            Op::Reshape => x().f_reshape(shape)?,
            Op::Broadcast => x().f_expand(shape, false)?,
            Op::Slice { dimension, start } => x().f_narrow(side(*dimension), side(*start), shape[*dimension])?,
            Op::Pad { dimension, before } => {
                let after = shape[*dimension] - x().size()[*dimension] - side(*before);
                let mut pads = vec![0; 2 * (shape.len() - 1 - dimension)];
                pads.extend([side(*before), after]);
                x().f_constant_pad_nd(pads)?
            }
            Op::Im2col(window) => {
                let kernel = sides(&window.kernel);
                let (padding, stride) = ([side(window.padding); 2], [side(window.stride); 2]);
                x().f_im2col(kernel, [1, 1], padding, stride)?.f_transpose(1, 2)?
            }
            // Sums of at most 32 values, in whatever order: all partial sums are below 2^52.
            Op::Col2im(window) => {
                let (kernel, image) = (sides(&window.kernel), &shape[2..]);
                let (padding, stride) = ([side(window.padding); 2], [side(window.stride); 2]);
                x().f_transpose(1, 2)?.f_col2im(image, kernel, [1, 1], padding, stride)?
            }
            Op::Gather => {
                let index = of[1].f_to_kind(Kind::Int64)?.f_reshape([-1])?;
                x().f_index_select(0, &index)?.f_reshape(shape)?
            }
            Op::Add => x().f_add(of[1])?,
            Op::Sub => x().f_sub(of[1])?,
            Op::Mul => x().f_mul(of[1])?,
            Op::Clamp { low, high } => x().f_clamp(*low as f64, *high as f64)?,
            Op::Less => x().f_lt_tensor(of[1])?.f_to_kind(x().kind())?,
            Op::Equal => x().f_eq_tensor(of[1])?.f_to_kind(x().kind())?,
            Op::Select => of[1].f_where_self(&x().f_ne(0.0)?, of[2])?,
            Op::Relu => x().f_relu()?,
            Op::Sign => x().f_sign()?,
            Op::Shift { by } => shift(x(), *by)?,
            Op::ShiftBy => self.shift_by(x(), of[1])?,
            // Dividend and divisor are whole and below 2^53. A quotient that is not whole is at least 1 / divisor away from
            // the next whole number, which is more than it is rounded by.
            Op::Div => {
                let twice = of[1].f_mul_scalar(2.0)?;
                let mut quotient = x().f_mul_scalar(2.0)?;
                let _ = quotient.f_add_(of[1])?.f_div_(&twice)?.f_floor_()?;
                quotient
            }
            // Roots are correctly rounded, and that of n² − 1 is below n by more than that for n up to 2^26.
            Op::Isqrt => {
                let mut root = x().f_sqrt()?;
                let _ = root.f_floor_()?;
                root
            }
            Op::Max => x().f_amax([-1_i64].as_slice(), true)?,
            Op::Sum => x().f_sum_dim_intlist([-1_i64].as_slice(), true, x().kind())?,
            Op::Argmax => x().f_argmax(-1, true)?.f_to_kind(x().kind())?,
            // frexp's exponent of a whole number is its length in bits, and 0 of 0.
            Op::Rowexp => {
                let (_, bits) = x().f_abs()?.f_amax([-1_i64].as_slice(), true)?.f_frexp()?;
                bits.f_to_kind(x().kind())?.f_sub_scalar(7.0)?.f_clamp_min(0.0)?
            }
            Op::Quant => {
                let mut small = self.shift_by(x(), of[1])?;
                let _ = small.f_clamp_(-127.0, 127.0)?;
                small
            }
            Op::Table => x().f_take(&of[1].f_to_kind(Kind::Int64)?)?,
            Op::State { .. } | Op::Data { .. } | Op::Constant { .. } => return Err(lost()),
            Op::Step | Op::Sample { .. } | Op::Random { .. } => return Err(lost()),
        })
    }

    fn shift_by(&self, x: &Tensor, by: &Tensor) -> Result<Tensor> {
        let mut moved = x.f_mul(&self.power(by, 0)?.f_to_kind(x.kind())?)?;
        let _ = moved.f_add_scalar_(0.5)?.f_floor_()?;
        Ok(moved)
    }

    /// By `by` less what the row and the column say: two powers of two, one after the other, change the exponent alone.
    fn shift_outer(&self, x: &Tensor, down: &Tensor, across: &Tensor, by: i64) -> Result<Tensor> {
        let mut moved = x.f_mul(&self.power(&down.f_neg()?, by)?.f_to_kind(x.kind())?)?;
        let _ = moved.f_mul_(&self.power(&across.f_neg()?, 0)?.f_to_kind(x.kind())?)?;
        let _ = moved.f_add_scalar_(0.5)?.f_floor_()?;
        Ok(moved)
    }

    /// 2^−(s + more).
    fn power(&self, s: &Tensor, more: i64) -> Result<Tensor> {
        Ok(self.powers.f_take(&s.f_add_scalar(62 + more)?.f_to_kind(Kind::Int64)?)?)
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

/// ⌊x · 2^−by + ½⌋. A power of two changes the exponent alone, and a half fits beside what has a bit to spare.
fn shift(x: &Tensor, by: i64) -> Result<Tensor> {
    let mut moved = x.f_mul_scalar((-(by as f64)).exp2())?;
    if by > 0 {
        let _ = moved.f_add_scalar_(0.5)?.f_floor_()?;
    }
    Ok(moved)
}

fn side(side: usize) -> i64 {
    i64::try_from(side).unwrap_or(i64::MAX)
}

fn sides(shape: &[usize]) -> Vec<i64> {
    shape.iter().copied().map(side).collect()
}

fn no_unit(node: &Node, at: usize) -> Error {
    Error::Unavailable(format!(
        "operator {at} (`{}`, shape {:?}): no arithmetic unit of this device has shown that it computes such products \
         exactly; use another device",
        node.op.name(),
        node.shape
    ))
}

fn lost() -> Error {
    Error::Unavailable("an operand of the program has no value".into())
}
