//! What a program means: one rule an operator for one element of its result. The interpreter computes tensors with it, a
//! dispute is decided by it, and every other machine has to agree with it.

use alloy_primitives::B256;

use crate::draw;
use crate::op::{MAX_RANK, MAX_SHIFT, Op, Window};
use crate::tensor::{LIMIT, bit_length, row_length};

/// Elements of operands, by their place in row-major order.
pub trait Read {
    fn at(&mut self, operand: usize, place: usize) -> i64;
}

/// What a result depends on besides its operands.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub seed: B256,
    pub step: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a value takes {bits} bits; every value must be below 2^52")]
    Overflow { bits: u32 },
    #[error("the divisor is {0}; it must be above 0")]
    Divisor(i64),
    #[error("{0} has no root")]
    Root(i64),
    #[error("index {index} is outside of the {length} values")]
    Index { index: i64, length: usize },
    #[error("a shift by {0} places is none: at most 62 either way")]
    Shift(i64),
}

/// The element at `place` of the result of `op`, whose operands and result have these shapes. Shapes have passed
/// [`Op::check`]. A source's element is its only operand's.
pub fn element(
    op: &Op,
    operands: &[&[usize]],
    result: &[usize],
    place: usize,
    context: &Context,
    read: &mut impl Read,
) -> Result<i64, Error> {
    let value = match op {
        Op::State { .. } | Op::Data { .. } | Op::Constant { .. } | Op::Reshape => read.at(0, place),
        Op::Step => context.step.into(),
        Op::Matmul => return matmul(operands, result, place, read),
        Op::Transpose { order } => {
            let (mut from, mut strides) = (0, [1; MAX_RANK]);
            for at in (1..order.len()).rev() {
                strides[at - 1] = strides[at] * operands[0][at];
            }
            each_index(result, place, |at, index| from += index * strides[order[at]]);
            read.at(0, from)
        }
        Op::Broadcast => read.at(0, broadcast(operands[0], result, place)),
        Op::Slice { dimension, start } => {
            let (outer, along, inner) = around(result, *dimension, place);
            read.at(0, (outer * operands[0][*dimension] + along + start) * inner.0 + inner.1)
        }
        Op::Pad { dimension, before } => {
            let (outer, along, inner) = around(result, *dimension, place);
            let side = operands[0][*dimension];
            match along.checked_sub(*before).filter(|along| *along < side) {
                Some(along) => read.at(0, (outer * side + along) * inner.0 + inner.1),
                None => 0,
            }
        }
        Op::Im2col(window) => match pixel(window, operands[0], place) {
            Some(place) => read.at(0, place),
            None => 0,
        },
        Op::Col2im(window) => return col2im(window, operands[0], result, place, read),
        Op::Gather => {
            let row: usize = operands[0][1..].iter().product();
            let index = read.at(1, place / row.max(1));
            read.at(0, within(index, operands[0][0])? * row + place % row.max(1))
        }
        Op::Add => return fit(wide(read.at(0, place)) + wide(read.at(1, place))),
        Op::Sub => return fit(wide(read.at(0, place)) - wide(read.at(1, place))),
        Op::Mul => return fit(wide(read.at(0, place)) * wide(read.at(1, place))),
        Op::Clamp { low, high } => read.at(0, place).clamp(*low, *high),
        Op::Less => i64::from(read.at(0, place) < read.at(1, place)),
        Op::Equal => i64::from(read.at(0, place) == read.at(1, place)),
        Op::Select => {
            let chosen = if read.at(0, place) != 0 { 1 } else { 2 };
            read.at(chosen, place)
        }
        Op::Relu => read.at(0, place).max(0),
        Op::Sign => read.at(0, place).signum(),
        Op::Shift { by } => return shift(read.at(0, place), *by),
        Op::ShiftBy => return shift(read.at(0, place), read.at(1, place)),
        Op::Div => return div(read.at(0, place), read.at(1, place)),
        Op::Isqrt => match read.at(0, place) {
            negative if negative < 0 => return Err(Error::Root(negative)),
            value => value.isqrt(),
        },
        Op::Max => row(operands[0], place).map(|at| read.at(0, at)).max().unwrap_or(0),
        Op::Sum => return fit(row(operands[0], place).map(|at| wide(read.at(0, at))).sum()),
        Op::Argmax => {
            let mut best = (i64::MIN, 0);
            for (index, at) in row(operands[0], place).enumerate() {
                let value = read.at(0, at);
                if value > best.0 {
                    best = (value, index);
                }
            }
            best.1 as i64
        }
        Op::Rowexp => {
            let largest = row(operands[0], place).map(|at| wide(read.at(0, at)).abs()).max().unwrap_or(0);
            i64::from(bit_length(largest)).saturating_sub(7).max(0)
        }
        Op::Quant => {
            let exponent = read.at(1, place / row_length(operands[0]).max(1));
            shift(read.at(0, place), exponent)?.clamp(-127, 127)
        }
        Op::Table => {
            let index = read.at(1, place);
            read.at(0, within(index, operands[0][0])?)
        }
        Op::Sample { rows } => draw::row(&context.seed, context.step, place as u64, *rows),
        Op::Random { stream, bits } => draw::uniform(&context.seed, *stream, context.step, place as u64, *bits),
    };
    fit(value.into())
}

fn wide(value: i64) -> i128 {
    value.into()
}

fn fit(value: i128) -> Result<i64, Error> {
    match i64::try_from(value) {
        Ok(value) if value.unsigned_abs() < LIMIT.unsigned_abs() => Ok(value),
        _ => Err(Error::Overflow { bits: bit_length(value.abs()) }),
    }
}

fn within(index: i64, length: usize) -> Result<usize, Error> {
    usize::try_from(index).ok().filter(|index| *index < length).ok_or(Error::Index { index, length })
}

/// ⌊x · 2^−by + ½⌋: halves go up.
pub fn shift(value: i64, by: i64) -> Result<i64, Error> {
    if by.abs() > MAX_SHIFT {
        return Err(Error::Shift(by));
    }
    if by > 0 { fit((wide(value) + (1 << (by - 1))) >> by) } else { fit(wide(value) << -by) }
}

/// ⌊x / y + ½⌋. Twice the dividend and the divisor have to fit, too.
fn div(value: i64, by: i64) -> Result<i64, Error> {
    if by <= 0 {
        return Err(Error::Divisor(by));
    }
    let doubled = fit(2 * wide(value) + wide(by))?;
    fit(wide(doubled).div_euclid(2 * wide(by)))
}

fn matmul(operands: &[&[usize]], result: &[usize], place: usize, read: &mut impl Read) -> Result<i64, Error> {
    let terms = row_length(operands[0]);
    let (columns, rows) = (result[result.len() - 1], result[result.len() - 2]);
    let batch = place / (rows * columns);
    let left = (place / columns) * terms;
    let right = (batch * columns + place % columns) * terms;
    let mut sum = 0;
    for k in 0..terms {
        sum += wide(read.at(0, left + k)) * wide(read.at(1, right + k));
    }
    fit(sum)
}

/// Places of the row of which `index` is the number.
fn row(shape: &[usize], index: usize) -> std::ops::Range<usize> {
    let length = row_length(shape);
    index * length..(index + 1) * length
}

/// The index along each dimension, the last first.
fn each_index(shape: &[usize], mut place: usize, mut visit: impl FnMut(usize, usize)) {
    for (at, side) in shape.iter().enumerate().rev() {
        visit(at, place % side);
        place /= side;
    }
}

fn broadcast(from: &[usize], to: &[usize], place: usize) -> usize {
    let missing = to.len() - from.len();
    let (mut found, mut stride) = (0, 1);
    each_index(to, place, |at, index| {
        if let Some(side) = at.checked_sub(missing).map(|at| from[at]) {
            found += (index % side) * stride;
            stride *= side;
        }
    });
    found
}

/// What lies before a dimension, along it, and behind it: how many, and which.
fn around(shape: &[usize], dimension: usize, place: usize) -> (usize, usize, (usize, usize)) {
    let inner: usize = shape[dimension + 1..].iter().product();
    let side = shape[dimension];
    (place / (inner * side), place / inner % side, (inner, place % inner))
}

/// Where in the image `im2col` takes the element at `place` from, unless it is beyond the edge.
fn pixel(window: &Window, image: &[usize], place: usize) -> Option<usize> {
    let [channels, height, width] = [image[1], image[2], image[3]];
    let [high, wide] = window.kernel;
    let across = window.places(width, wide)?;
    let down = window.places(height, high)?;
    let terms = channels * high * wide;
    let (window_at, term) = (place / terms, place % terms);
    let (batch, position) = (window_at / (down * across), window_at % (down * across));
    let (channel, y, x) = (term / (high * wide), term / wide % high, term % wide);
    let y = (position / across * window.stride + y).checked_sub(window.padding).filter(|y| *y < height)?;
    let x = (position % across * window.stride + x).checked_sub(window.padding).filter(|x| *x < width)?;
    Some(((batch * channels + channel) * height + y) * width + x)
}

/// The sum of all elements that [`pixel`] takes from `place`, window after window.
fn col2im(
    window: &Window,
    columns: &[usize],
    image: &[usize],
    place: usize,
    read: &mut impl Read,
) -> Result<i64, Error> {
    let [channels, height, width] = [image[1], image[2], image[3]];
    let [high, wide_] = window.kernel;
    let (Some(down), Some(across)) = (window.places(height, high), window.places(width, wide_)) else { return Ok(0) };
    let (x, y) = (place % width, place / width % height);
    let (channel, batch) = (place / (width * height) % channels, place / (width * height * channels));
    // Along a side: windows that cover the pixel, and which of their places it is.
    let covering = |at: usize, places: usize, kernel: usize| {
        let at = at + window.padding;
        (0..places).filter_map(move |position| {
            let inside = at.checked_sub(position * window.stride)?;
            (inside < kernel).then_some((position, inside))
        })
    };
    let terms = columns[2];
    let mut sum = 0;
    for (row, inside_y) in covering(y, down, high) {
        for (column, inside_x) in covering(x, across, wide_) {
            let term = (channel * high + inside_y) * wide_ + inside_x;
            sum += wide(read.at(0, ((batch * down + row) * across + column) * terms + term));
        }
    }
    fit(sum)
}
