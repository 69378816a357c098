//! One operator on libtorch. Every step of it is exact: why is said where it is not plain.

use freehold_exact::op::Op;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// What operators are computed with besides their operands.
pub struct Kernels {
    /// 2^−s by s + 62.
    powers: Tensor,
}

impl Kernels {
    pub fn new(device: Device) -> Result<Self> {
        let powers: Vec<f64> = (-62..=62).map(|s| f64::from(-s).exp2()).collect();
        Ok(Self { powers: Tensor::f_from_slice(&powers)?.f_to_device(device)? })
    }

    /// For another thread.
    pub fn shared(&self) -> Self {
        Self { powers: self.powers.shallow_clone() }
    }

    /// Of operands in one kind of float, which holds all that is computed on the way.
    pub fn apply(&self, op: &Op, shape: &[usize], of: &[&Tensor]) -> Result<Tensor> {
        let x = || of[0];
        let shape = sides(shape);
        Ok(match op {
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
                let mut quotient = x().f_mul_scalar(2.0)?.f_add(of[1])?;
                let _ = quotient.f_div_(&twice)?.f_floor_()?;
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
            Op::State { .. } | Op::Data { .. } | Op::Constant { .. } | Op::Matmul => return Err(lost()),
            Op::Step | Op::Sample { .. } | Op::Random { .. } => return Err(lost()),
        })
    }

    fn shift_by(&self, x: &Tensor, by: &Tensor) -> Result<Tensor> {
        let mut moved = x.f_mul(&self.power(by, 0)?.f_to_kind(x.kind())?)?;
        let _ = moved.f_add_scalar_(0.5)?.f_floor_()?;
        Ok(moved)
    }

    /// By `by` less what the row and the column say: two powers of two, one after the other, change the exponent alone.
    pub fn shift_outer(&self, x: &Tensor, down: &Tensor, across: &Tensor, by: i64) -> Result<Tensor> {
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

/// ⌊x · 2^−by + ½⌋. A power of two changes the exponent alone, and a half fits beside what has a bit to spare.
fn shift(x: &Tensor, by: i64) -> Result<Tensor> {
    let mut moved = x.f_mul_scalar((-(by as f64)).exp2())?;
    if by > 0 {
        let _ = moved.f_add_scalar_(0.5)?.f_floor_()?;
    }
    Ok(moved)
}

pub fn side(side: usize) -> i64 {
    i64::try_from(side).unwrap_or(i64::MAX)
}

pub fn sides(shape: &[usize]) -> Vec<i64> {
    shape.iter().copied().map(side).collect()
}

pub fn lost() -> Error {
    Error::Unavailable("an operand of the program has no value".into())
}
