//! A program's lists on libtorch: whole numbers in 64-bit floats, which hold all below 2^53 exactly, and products by the
//! fastest unit that is exact for what the range analysis proved of them.

use freehold_exact::draw;
use freehold_exact::element::Context;
use freehold_exact::op::Op;
use freehold_exact::program::{List, Node, Program, Ranges};
use tch::{Device, Kind, Tensor};

use super::units::{Unit, Units};
use crate::error::{Error, Result};

/// A program on a device.
pub struct Machine {
    program: Program,
    device: Device,
    lists: [Prepared; 3],
    /// 2^−s by s + 62.
    powers: Tensor,
}

/// What is known of a list before any step.
#[derive(Default)]
struct Prepared {
    /// Of nodes that depend on constants alone.
    fixed: Vec<Option<Tensor>>,
    units: Vec<Unit>,
    /// The last node that takes each one's result.
    last_use: Vec<usize>,
}

impl Machine {
    pub fn new(program: Program, ranges: &Ranges, units: &Units, device: Device) -> Result<Self> {
        let powers: Vec<f64> = (-62..=62).map(|s| f64::from(-s).exp2()).collect();
        let powers = Tensor::f_from_slice(&powers)?.f_to_device(device)?;
        let mut machine = Self { program, device, lists: Default::default(), powers };
        for (at, list) in List::ALL.into_iter().enumerate() {
            machine.lists[at] = machine.prepare(list, ranges, units)?;
        }
        Ok(machine)
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Products of a list by the unit that computes them.
    pub fn products(&self, list: List) -> Vec<(usize, Unit)> {
        let nodes = self.program.list(list).nodes.iter().zip(&self.lists[list as usize].units).enumerate();
        nodes.filter(|(_, (node, _))| node.op == Op::Matmul).map(|(at, (_, unit))| (at, *unit)).collect()
    }

    fn prepare(&self, list: List, ranges: &Ranges, units: &Units) -> Result<Prepared> {
        let graph = self.program.list(list);
        let ranges = ranges.of(list);
        let mut prepared = Prepared::default();
        for (at, node) in graph.nodes.iter().enumerate() {
            prepared.last_use.push(at);
            node.of.iter().for_each(|of| prepared.last_use[*of] = at);
            let unit = match node.op {
                Op::Matmul => {
                    let (left, right) = (ranges[node.of[0]].values, ranges[node.of[1]].values);
                    units.choose(left, right, ranges[at], node.shape.len()).ok_or_else(|| no_unit(node, at))?
                }
                _ => Unit::F64,
            };
            prepared.units.push(unit);
            let moves = matches!(
                node.op,
                Op::State { .. } | Op::Data { .. } | Op::Step | Op::Sample { .. } | Op::Random { .. }
            );
            let operands: Option<Vec<&Tensor>> = node.of.iter().map(|of| prepared.fixed[*of].as_ref()).collect();
            let value = match (operands, &node.op) {
                (_, Op::Constant { index }) => Some(self.load(&self.program.constants[*index].values)?),
                (Some(operands), _) if !moves => Some(self.compute(node, &operands, unit)?),
                _ => None,
            };
            prepared.fixed.push(value);
        }
        graph.results.iter().for_each(|result| prepared.last_use[*result] = usize::MAX);
        Ok(prepared)
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
        let _no_grad = tch::no_grad_guard();
        let graph = self.program.list(list);
        let prepared = &self.lists[list as usize];
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(graph.nodes.len());
        for (at, node) in graph.nodes.iter().enumerate() {
            let value = match (&prepared.fixed[at], &node.op) {
                (Some(fixed), _) => fixed.shallow_clone(),
                (None, Op::State { index }) => state[*index].shallow_clone(),
                (None, Op::Data { index }) => data[*index].shallow_clone(),
                (None, op) => match self.drawn(op, &node.shape, context)? {
                    Some(drawn) => drawn,
                    None => {
                        let operands: Option<Vec<&Tensor>> = node.of.iter().map(|of| values[*of].as_ref()).collect();
                        self.compute(node, &operands.unwrap_or_default(), prepared.units[at])?
                    }
                },
            };
            values.push(Some(value));
            for of in node.of.iter().filter(|of| prepared.last_use[**of] == at) {
                values[*of] = None;
            }
        }
        graph
            .results
            .iter()
            .map(|result| values[*result].as_ref().map(Tensor::shallow_clone).ok_or_else(lost))
            .collect()
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
    fn compute(&self, node: &Node, of: &[&Tensor], unit: Unit) -> Result<Tensor> {
        let x = || of[0];
        let shape = sides(&node.shape);
        Ok(match &node.op {
            Op::Matmul => unit.product(of[0], of[1])?,
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
            Op::Less => x().f_lt_tensor(of[1])?.f_to_kind(Kind::Double)?,
            Op::Equal => x().f_eq_tensor(of[1])?.f_to_kind(Kind::Double)?,
            Op::Select => of[1].f_where_self(&x().f_ne(0.0)?, of[2])?,
            Op::Relu => x().f_relu()?,
            Op::Sign => x().f_sign()?,
            Op::Shift { by } => shift(x(), *by)?,
            Op::ShiftBy => self.shift_by(x(), of[1])?,
            // Dividend and divisor are whole and below 2^53. A quotient that is not whole is at least 1 / divisor away from
            // the next whole number, which is more than it is rounded by.
            Op::Div => {
                let twice = of[1].f_mul_scalar(2.0)?;
                x().f_mul_scalar(2.0)?.f_add(of[1])?.f_div(&twice)?.f_floor()?
            }
            // Roots are correctly rounded, and that of n² − 1 is below n by more than that for n up to 2^26.
            Op::Isqrt => x().f_sqrt()?.f_floor()?,
            Op::Max => x().f_amax([-1_i64].as_slice(), true)?,
            Op::Sum => x().f_sum_dim_intlist([-1_i64].as_slice(), true, Kind::Double)?,
            Op::Argmax => x().f_argmax(-1, true)?.f_to_kind(Kind::Double)?,
            // frexp's exponent of a whole number is its length in bits, and 0 of 0.
            Op::Rowexp => {
                let (_, bits) = x().f_abs()?.f_amax([-1_i64].as_slice(), true)?.f_frexp()?;
                bits.f_to_kind(Kind::Double)?.f_sub_scalar(7.0)?.f_clamp_min(0.0)?
            }
            Op::Quant => self.shift_by(x(), of[1])?.f_clamp(-127.0, 127.0)?,
            Op::Table => x().f_take(&of[1].f_to_kind(Kind::Int64)?)?,
            Op::State { .. } | Op::Data { .. } | Op::Constant { .. } => return Err(lost()),
            Op::Step | Op::Sample { .. } | Op::Random { .. } => return Err(lost()),
        })
    }

    fn shift_by(&self, x: &Tensor, by: &Tensor) -> Result<Tensor> {
        let powers = self.powers.f_take(&by.f_add_scalar(62.0)?.f_to_kind(Kind::Int64)?)?;
        Ok(x.f_mul(&powers)?.f_add_scalar(0.5)?.f_floor()?)
    }
}

/// ⌊x · 2^−by + ½⌋. A power of two changes the exponent alone, and a half fits beside what is below 2^52.
fn shift(x: &Tensor, by: i64) -> Result<Tensor> {
    let moved = x.f_mul_scalar((-(by as f64)).exp2())?;
    Ok(if by > 0 { moved.f_add_scalar(0.5)?.f_floor()? } else { moved })
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
