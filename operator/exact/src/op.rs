//! The operators: a closed list. What each means is one rule for one element (`element`), short enough for a contract.
//!
//! | operator | operands → result | element |
//! |---|---|---|
//! | `state`, `data`, `constant` | → as declared | what the state, the data set, the program holds |
//! | `step` | → scalar | number of the step, from 0 |
//! | `matmul` | A `[…, M, K]`, B `[…, N, K]` → `[…, M, N]` | Σₖ A[m, k] · B[n, k]; K ≤ 1,024, rows ≤ 4 KiB |
//! | `transpose` | by an order of dimensions | an index map |
//! | `reshape` | the same elements in the same order | an index map |
//! | `broadcast` | dimensions of 1, or missing in front, repeat | an index map |
//! | `slice` | along a dimension, from `start` | an index map |
//! | `pad` | along a dimension, `before` zeros in front | an index map, else 0 |
//! | `im2col` | `[B, C, H, W]` → `[B, H'·W', C·kh·kw]` | an index map, 0 outside |
//! | `col2im` | the transposed map of `im2col`, ≤ 9 terms, rows ≤ 32 | sum of those that `im2col` took from there |
//! | `gather` | rows `[V, …]`, index `[…]` → `[…, …]` | row of that index |
//! | `add`, `sub`, `mul` | two of a shape | x + y, x − y, x · y |
//! | `clamp` | – | min(max(x, low), high) |
//! | `less`, `equal` | two of a shape | 1 or 0 |
//! | `select` | c, x, y of a shape | x where c ≠ 0, else y |
//! | `relu`, `sign` | – | max(x, 0); −1, 0 or 1 |
//! | `shift` | – | ⌊x · 2^−by + ½⌋, exact for by ≤ 0 |
//! | `shiftBy` | x, s of a shape | the same by s |
//! | `div` | x, y of a shape, y > 0 | ⌊(2x + y) / 2y⌋ |
//! | `isqrt` | x ≥ 0 | ⌊√x⌋ |
//! | `max`, `sum`, `argmax` | `[…, K]` → `[…, 1]`, rows ≤ 4 KiB | of the row; the first of the largest |
//! | `rowexp` | `[…, K]` → `[…, 1]` | max(0, bits of the largest magnitude − 7) |
//! | `quant` | x `[…, K]`, e `[…, 1]` | shift by the row's e, clamped to ±127 |
//! | `table` | values `[N]`, index | the value of that index |
//! | `sample` | → `[…]` | row keccak(seed, step, j) mod `rows` |
//! | `random` | → `[…]` | Philox of (seed, stream, step, index), `bits` high bits |

use serde::Serialize;

use crate::tensor::{count, row_length};

/// Terms that a row's sum or product has at most.
pub const MAX_TERMS: usize = 1_024;
/// Bytes of a row that is opened as a whole.
pub const MAX_ROW_BYTES: usize = 4_096;
/// Elements that `col2im` adds up at most, each from a row that is opened for it alone.
pub const MAX_OVERLAP: usize = 9;
/// Length of those rows at most.
pub const MAX_COLUMN: usize = 32;
pub const MAX_RANK: usize = 6;
/// Elements of a tensor at most.
pub const MAX_ELEMENTS: usize = 1 << 28;
/// Places that a value is shifted by at most, either way.
pub const MAX_SHIFT: i64 = 62;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub enum Op {
    State { index: usize },
    Data { index: usize },
    Constant { index: usize },
    Step,
    Matmul,
    Transpose { order: Vec<usize> },
    Reshape,
    Broadcast,
    Slice { dimension: usize, start: usize },
    Pad { dimension: usize, before: usize },
    Im2col(Window),
    Col2im(Window),
    Gather,
    Add,
    Sub,
    Mul,
    Clamp { low: i64, high: i64 },
    Less,
    Equal,
    Select,
    Relu,
    Sign,
    Shift { by: i64 },
    ShiftBy,
    Div,
    Isqrt,
    Max,
    Sum,
    Argmax,
    Rowexp,
    Quant,
    Table,
    Sample { rows: u64 },
    Random { stream: u32, bits: u8 },
}

/// What a convolution looks through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: usize,
    pub padding: usize,
}

impl Window {
    /// Places that the window takes along a side of an image, and none if it does not fit.
    pub fn places(&self, side: usize, kernel: usize) -> Option<usize> {
        (side + 2 * self.padding).checked_sub(kernel).map(|left| left / self.stride.max(1) + 1)
    }

    /// Windows that one pixel is in at most.
    pub fn overlap(&self) -> usize {
        self.kernel.iter().map(|side| side.div_ceil(self.stride.max(1))).product()
    }
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Data { .. } => "data",
            Self::Constant { .. } => "constant",
            Self::Step => "step",
            Self::Matmul => "matmul",
            Self::Transpose { .. } => "transpose",
            Self::Reshape => "reshape",
            Self::Broadcast => "broadcast",
            Self::Slice { .. } => "slice",
            Self::Pad { .. } => "pad",
            Self::Im2col(_) => "im2col",
            Self::Col2im(_) => "col2im",
            Self::Gather => "gather",
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Clamp { .. } => "clamp",
            Self::Less => "less",
            Self::Equal => "equal",
            Self::Select => "select",
            Self::Relu => "relu",
            Self::Sign => "sign",
            Self::Shift { .. } => "shift",
            Self::ShiftBy => "shiftBy",
            Self::Div => "div",
            Self::Isqrt => "isqrt",
            Self::Max => "max",
            Self::Sum => "sum",
            Self::Argmax => "argmax",
            Self::Rowexp => "rowexp",
            Self::Quant => "quant",
            Self::Table => "table",
            Self::Sample { .. } => "sample",
            Self::Random { .. } => "random",
        }
    }

    pub fn operands(&self) -> usize {
        match self {
            Self::State { .. } | Self::Data { .. } | Self::Constant { .. } | Self::Step => 0,
            Self::Sample { .. } | Self::Random { .. } => 0,
            Self::Matmul | Self::Gather | Self::Add | Self::Sub | Self::Mul | Self::Less | Self::Equal => 2,
            Self::ShiftBy | Self::Div | Self::Quant | Self::Table => 2,
            Self::Select => 3,
            _ => 1,
        }
    }

    /// Whether the rows of these operands are opened whole: they are short.
    pub fn reads_rows(&self) -> bool {
        matches!(self, Self::Matmul | Self::Max | Self::Sum | Self::Argmax | Self::Rowexp)
    }

    /// The result's shape, where the operands' shapes and the operator determine it. Fails on what does not fit together.
    pub fn shape(&self, operands: &[&[usize]]) -> Result<Option<Vec<usize>>, String> {
        if operands.len() != self.operands() {
            return Err(format!("takes {} operands and has {}", self.operands(), operands.len()));
        }
        let first = operands.first().copied().unwrap_or(&[]);
        let like_first = |others: &[&[usize]]| same(others, first).map(|()| Some(first.to_vec()));
        match self {
            Self::State { .. } | Self::Data { .. } | Self::Constant { .. } => Ok(None),
            Self::Reshape | Self::Broadcast | Self::Slice { .. } | Self::Pad { .. } | Self::Col2im(_) => Ok(None),
            Self::Sample { rows: 0 } => Err("draws from no rows".into()),
            Self::Random { bits, .. } if !(1..=32).contains(bits) => Err(format!("draws {bits} bits; it has 1 to 32")),
            Self::Sample { .. } | Self::Random { .. } => Ok(None),
            Self::Step => Ok(Some(Vec::new())),
            Self::Matmul => matmul(first, operands[1]).map(Some),
            Self::Transpose { order } => transposed(first, order).map(Some),
            Self::Im2col(window) => im2col(first, window).map(Some),
            Self::Gather => {
                let row = first.get(1..).ok_or("has nothing to take rows of")?;
                Ok(Some([operands[1], row].concat()))
            }
            Self::Max | Self::Sum | Self::Argmax | Self::Rowexp => Ok(Some(with_row(first, 1))),
            Self::Quant => same(&operands[1..], &with_row(first, 1)).map(|()| Some(first.to_vec())),
            Self::Table if first.len() == 1 => Ok(Some(operands[1].to_vec())),
            Self::Table => Err(format!("values have shape {first:?}; a table has one dimension")),
            Self::Clamp { low, high } if low > high => Err(format!("low {low} is above high {high}")),
            Self::Shift { by } if by.abs() > MAX_SHIFT => Err(format!("shifts by {by}, more than {MAX_SHIFT} places")),
            _ => like_first(&operands[1..]),
        }
    }

    /// What is wrong with the operands' shapes, the result's, or what the operator was given. Sources are checked
    /// against what the program declares.
    pub fn check(&self, operands: &[&[usize]], result: &[usize]) -> Result<(), String> {
        match (self.shape(operands)?, self) {
            (Some(shape), _) if shape == result => Ok(()),
            (Some(shape), _) => Err(format!("gives {shape:?}, declared is {result:?}")),
            (None, Self::Reshape) if count(operands[0]) == count(result) => Ok(()),
            (None, Self::Reshape) => {
                let (from, to) = (operands[0], result);
                Err(format!("{from:?} has {} elements, {to:?} has {}", count(from), count(to)))
            }
            (None, Self::Broadcast) => broadcast(operands[0], result),
            (None, Self::Slice { dimension, start }) => slice(operands[0], result, *dimension, *start),
            (None, Self::Pad { dimension, before }) => slice(result, operands[0], *dimension, *before),
            (None, Self::Col2im(window)) => {
                let expected = im2col(result, window)?;
                let (overlap, column) = (window.overlap(), expected[2]);
                if overlap > MAX_OVERLAP || column > MAX_COLUMN {
                    let [high, wide] = window.kernel;
                    return Err(format!(
                        "a kernel of {high} × {wide} covers a pixel {overlap} times with rows of {column}; at most \
                         {MAX_OVERLAP} times with rows of {MAX_COLUMN} can be summed: sum its rows one by one"
                    ));
                }
                let given = operands[0];
                if given == expected { Ok(()) } else { Err(format!("takes {expected:?} and is given {given:?}")) }
            }
            (None, _) => Ok(()),
        }
    }
}

fn same(others: &[&[usize]], expected: &[usize]) -> Result<(), String> {
    match others.iter().find(|other| **other != expected) {
        Some(other) => Err(format!("operands have the shapes {expected:?} and {other:?}")),
        None => Ok(()),
    }
}

fn with_row(shape: &[usize], length: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    match shape.last_mut() {
        Some(last) => *last = length,
        None => shape.push(length),
    }
    shape
}

fn matmul(left: &[usize], right: &[usize]) -> Result<Vec<usize>, String> {
    let rank = left.len();
    if rank < 2 || right.len() != rank {
        return Err(format!("{left:?} and {right:?} are no matrices of one rank"));
    }
    if left[..rank - 2] != right[..rank - 2] {
        return Err(format!("{left:?} and {right:?} are not batched alike"));
    }
    if left[rank - 1] != right[rank - 1] {
        return Err(format!("rows of {left:?} and {right:?} differ in length"));
    }
    let mut shape = left.to_vec();
    shape[rank - 1] = right[rank - 2];
    Ok(shape)
}

fn transposed(shape: &[usize], order: &[usize]) -> Result<Vec<usize>, String> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if sorted.iter().copied().ne(0..shape.len()) {
        return Err(format!("{order:?} is no order of the {} dimensions", shape.len()));
    }
    Ok(order.iter().map(|from| shape[*from]).collect())
}

fn broadcast(from: &[usize], to: &[usize]) -> Result<(), String> {
    let fits = |(from, to): (&usize, &usize)| from == to || *from == 1;
    if from.len() <= to.len() && from.iter().rev().zip(to.iter().rev()).all(fits) {
        Ok(())
    } else {
        Err(format!("{from:?} does not repeat to {to:?}"))
    }
}

/// `part` is what of `whole` begins at `start` along one dimension.
fn slice(whole: &[usize], part: &[usize], dimension: usize, start: usize) -> Result<(), String> {
    let others = |shape: &[usize]| -> Vec<usize> {
        let of = |(at, side): (usize, &usize)| if at == dimension { 0 } else { *side };
        shape.iter().enumerate().map(of).collect()
    };
    if dimension >= whole.len() || whole.len() != part.len() || others(whole) != others(part) {
        return Err(format!("{part:?} is no part of {whole:?} along dimension {dimension}"));
    }
    match start.checked_add(part[dimension]) {
        Some(end) if end <= whole[dimension] => Ok(()),
        _ => Err(format!("from {start}, {part:?} reaches out of {whole:?} along dimension {dimension}")),
    }
}

fn im2col(image: &[usize], window: &Window) -> Result<Vec<usize>, String> {
    let [batch, channels, height, width] = image else {
        return Err(format!("an image has four dimensions (batch, channels, height, width), {image:?} has not"));
    };
    if window.stride == 0 || window.kernel.contains(&0) {
        return Err("kernel and stride are at least 1".into());
    }
    let rows = window.places(*height, window.kernel[0]);
    let columns = window.places(*width, window.kernel[1]);
    let (Some(rows), Some(columns)) = (rows, columns) else {
        return Err(format!("a kernel of {:?} does not fit into {height} × {width}", window.kernel));
    };
    Ok(vec![*batch, rows * columns, channels * window.kernel[0] * window.kernel[1]])
}

/// What is wrong with rows of this length and width.
pub fn check_row(shape: &[usize], bytes: usize) -> Result<(), String> {
    let length = row_length(shape);
    if length > MAX_TERMS || length * bytes > MAX_ROW_BYTES {
        let fits = MAX_TERMS.min(MAX_ROW_BYTES / bytes);
        return Err(format!(
            "rows of {length} elements of {bytes} bytes are too long: split them into parts of at most {fits}"
        ));
    }
    Ok(())
}
