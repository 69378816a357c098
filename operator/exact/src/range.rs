//! What values a node can have, from what its operands can: by intervals, so that what is proven holds for every state,
//! data and seed. Refuses where a value, or anything that is computed on the way to one, could leave its range.

use crate::element;
use crate::op::{MAX_SHIFT, Op};
use crate::program::{Graph, Program};
use crate::tensor::{Interval, LIMIT, bit_length, row_length};

/// What is proven of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub values: Interval,
    /// Bits of the largest magnitude on the way to a value: of partial sums, products, doubled dividends.
    pub inner_bits: u32,
}

/// Of the node at `at`, whose operands have the first of `ranges`. Shapes have passed their check.
pub fn of(program: &Program, graph: &Graph, at: usize, ranges: &[Range]) -> Result<Range, String> {
    let node = &graph.nodes[at];
    let operand = |which: usize| ranges[node.of[which]].values;
    let shape = |which: usize| graph.nodes[node.of[which]].shape.as_slice();
    let zero = Interval::new(0, 0);
    let values = match &node.op {
        Op::State { index } => program.state[*index].interval(),
        Op::Data { index } => program.data[*index].interval(),
        Op::Constant { index } => program.constants[*index].values.interval().unwrap_or(zero),
        Op::Step => Interval::new(0, i64::from(program.steps.saturating_sub(1))),
        Op::Matmul => {
            let terms = row_length(shape(0)) as i128;
            return sums(corners(operand(0), operand(1), |x, y| x * y), terms, "products");
        }
        Op::Sum => return sums(operand(0), row_length(shape(0)) as i128, "elements"),
        Op::Col2im(window) => return sums(operand(0).join(zero), window.overlap() as i128, "elements"),
        Op::Transpose { .. } | Op::Reshape | Op::Broadcast | Op::Slice { .. } | Op::Max => operand(0),
        Op::Pad { .. } | Op::Im2col(_) => operand(0).join(zero),
        Op::Gather => {
            index(operand(1), shape(0)[0], "rows")?;
            operand(0)
        }
        Op::Add => corners(operand(0), operand(1), |x, y| x + y),
        Op::Sub => corners(operand(0), operand(1), |x, y| x - y),
        // A square is not negative: what a root is taken of is a sum of squares.
        Op::Mul if node.of[0] == node.of[1] => {
            let x = operand(0);
            let least = if x.low <= 0 && x.high >= 0 { 0 } else { x.low.abs().min(x.high.abs()) };
            Interval { low: least * least, high: x.magnitude() * x.magnitude() }
        }
        Op::Mul => corners(operand(0), operand(1), |x, y| x * y),
        Op::Clamp { low, high } => {
            let (low, high) = (i128::from(*low), i128::from(*high));
            Interval { low: operand(0).low.clamp(low, high), high: operand(0).high.clamp(low, high) }
        }
        Op::Less | Op::Equal => Interval::new(0, 1),
        Op::Select => operand(1).join(operand(2)),
        Op::Relu => Interval { low: operand(0).low.max(0), high: operand(0).high.max(0) },
        Op::Sign => Interval { low: operand(0).low.signum(), high: operand(0).high.signum() },
        Op::Shift { by } => shifted(operand(0), Interval::new(*by, *by))?,
        Op::ShiftBy => shifted(operand(0), operand(1))?,
        Op::Div => return quotient(operand(0), operand(1)),
        Op::Isqrt if operand(0).low < 0 => {
            return Err(format!("takes roots of values down to {}: clamp them to 0 or above", operand(0).low));
        }
        Op::Isqrt => Interval { low: operand(0).low.isqrt(), high: operand(0).high.isqrt() },
        Op::Argmax => Interval { low: 0, high: row_length(shape(0)) as i128 - 1 },
        Op::Rowexp => Interval { low: 0, high: i128::from(operand(0).bits().saturating_sub(7)) },
        Op::Quant => {
            let all = shifted(operand(0), operand(1))?;
            Interval { low: all.low.clamp(-127, 127), high: all.high.clamp(-127, 127) }
        }
        Op::Table => {
            let (first, last) = index(operand(1), shape(0)[0], "values of the table")?;
            match graph.nodes[node.of[0]].op {
                Op::Constant { index } => {
                    let mut reached =
                        program.constants[index].values.values()[first..=last].iter().map(|v| i128::from(*v));
                    reached.next().map_or(zero, |one| Interval::hull(one, reached))
                }
                _ => operand(0),
            }
        }
        Op::Sample { rows } if *rows >= LIMIT.unsigned_abs() => return Err(format!("draws from {rows} rows")),
        Op::Sample { rows } => Interval { low: 0, high: i128::from(*rows) - 1 },
        Op::Random { bits, .. } => Interval { low: 0, high: (1 << *bits) - 1 },
    };
    Ok(Range { values, inner_bits: values.bits() })
}

fn corners(x: Interval, y: Interval, f: impl Fn(i128, i128) -> i128) -> Interval {
    Interval::hull(f(x.low, y.low), [f(x.low, y.high), f(x.high, y.low), f(x.high, y.high)])
}

/// Sums of `terms` of these; every partial sum counts, in whatever order a machine adds them up.
fn sums(term: Interval, terms: i128, of: &str) -> Result<Range, String> {
    let values = Interval { low: term.low * terms, high: term.high * terms };
    let partial = term.magnitude() * terms;
    if partial >= LIMIT.into() {
        let fits = (i128::from(LIMIT) - 1) / term.magnitude().max(1);
        let (bits, each) = (bit_length(partial), term.bits());
        return Err(format!("sums of {terms} {of} of {each} bits take {bits} bits, more than 52: {fits} would fit"));
    }
    Ok(Range { values, inner_bits: bit_length(partial) })
}

/// First and last that an index reaches, all of them there.
fn index(index: Interval, length: usize, what: &str) -> Result<(usize, usize), String> {
    let inside = |value: i128| usize::try_from(value).ok().filter(|value| *value < length);
    match (inside(index.low), inside(index.high)) {
        (Some(first), Some(last)) => Ok((first, last)),
        _ => Err(format!("indices from {} to {} reach out of the {length} {what}: clamp them", index.low, index.high)),
    }
}

fn shifted(x: Interval, by: Interval) -> Result<Interval, String> {
    if by.magnitude() > MAX_SHIFT.into() {
        return Err(format!("shifts by {} to {} places, more than {MAX_SHIFT} either way", by.low, by.high));
    }
    let mut ends = Vec::with_capacity(4);
    for value in [x.low, x.high] {
        for by in [by.low, by.high] {
            let end =
                i64::try_from(value).ok().zip(i64::try_from(by).ok()).and_then(|(v, b)| element::shift(v, b).ok());
            ends.push(end.ok_or_else(|| {
                let bits = i128::from(bit_length(value.abs())) - by;
                format!("values of {} bits, shifted by {by}, take {bits} bits, more than 52", bit_length(value.abs()))
            })?);
        }
    }
    Ok(Interval::hull(ends[0].into(), ends.into_iter().map(i128::from)))
}

fn quotient(x: Interval, y: Interval) -> Result<Range, String> {
    if y.low <= 0 {
        return Err(format!("divides by values down to {}: clamp them to 1 or above", y.low));
    }
    let doubled = 2 * x.magnitude() + y.high;
    if doubled >= LIMIT.into() {
        let bits = bit_length(doubled);
        return Err(format!("twice the dividend and the divisor take {bits} bits together, more than 52"));
    }
    let values = corners(x, y, |x, y| (2 * x + y).div_euclid(2 * y));
    Ok(Range { values, inner_bits: bit_length(doubled) })
}
