//! Integer tensors, the widths that they are stored in, and intervals of values.

use serde::Serialize;

/// Every value of a program, and every sum and product on the way to one, is below this in magnitude, so that a machine
/// that computes in 64-bit floats computes it exactly.
pub const LIMIT: i64 = 1 << 52;

/// How a tensor's elements are written where they are committed to: little-endian two's complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "u8")]
pub enum Width {
    W8,
    W16,
    W32,
    W64,
}

impl Width {
    pub const ALL: [Self; 4] = [Self::W8, Self::W16, Self::W32, Self::W64];

    pub fn bits(self) -> u8 {
        match self {
            Self::W8 => 8,
            Self::W16 => 16,
            Self::W32 => 32,
            Self::W64 => 64,
        }
    }

    pub fn bytes(self) -> usize {
        usize::from(self.bits() / 8)
    }

    /// The narrowest that holds all of these.
    pub fn of(interval: Interval) -> Self {
        let holds = |width: &Self| width.interval().contains(interval);
        Self::ALL.into_iter().find(holds).unwrap_or(Self::W64)
    }

    pub fn interval(self) -> Interval {
        let top = 1_i128 << (self.bits() - 1);
        Interval { low: -top, high: top - 1 }
    }
}

impl From<Width> for u8 {
    fn from(width: Width) -> Self {
        width.bits()
    }
}

/// All values from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub low: i128,
    pub high: i128,
}

impl Interval {
    pub fn new(low: i64, high: i64) -> Self {
        Self { low: low.into(), high: high.into() }
    }

    /// Of these values; the first is there so that there is one.
    pub fn hull(first: i128, others: impl IntoIterator<Item = i128>) -> Self {
        let one = Self { low: first, high: first };
        others.into_iter().fold(one, |all, value| Self { low: all.low.min(value), high: all.high.max(value) })
    }

    pub fn join(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    pub fn contains(self, other: Self) -> bool {
        self.low <= other.low && other.high <= self.high
    }

    pub fn magnitude(self) -> i128 {
        self.low.abs().max(self.high.abs())
    }

    /// Bits that the magnitude takes.
    pub fn bits(self) -> u32 {
        bit_length(self.magnitude())
    }
}

pub fn bit_length(value: i128) -> u32 {
    i128::BITS - value.leading_zeros()
}

/// Row-major. The last dimension is a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Vec<i64>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{values} values do not make a tensor of shape {shape:?}, which has {expected}")]
pub struct ShapeError {
    shape: Vec<usize>,
    values: usize,
    expected: usize,
}

impl Tensor {
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<i64>) -> Result<Self, ShapeError> {
        let shape = shape.into();
        let expected = count(&shape);
        if values.len() == expected {
            Ok(Self { shape, values })
        } else {
            Err(ShapeError { shape, values: values.len(), expected })
        }
    }

    pub fn scalar(value: i64) -> Self {
        Self { shape: Vec::new(), values: vec![value] }
    }

    /// One dimension.
    pub fn row(values: Vec<i64>) -> Self {
        Self { shape: vec![values.len()], values }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn values(&self) -> &[i64] {
        &self.values
    }

    pub fn into_values(self) -> Vec<i64> {
        self.values
    }

    pub fn interval(&self) -> Option<Interval> {
        let mut values = self.values.iter().map(|value| i128::from(*value));
        values.next().map(|first| Interval::hull(first, values))
    }
}

/// Elements of a tensor of this shape.
pub fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Elements of a row: a scalar is a row of one.
pub fn row_length(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1)
}
