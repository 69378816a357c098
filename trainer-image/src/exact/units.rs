//! Which arithmetic units of this device compute products exactly. Nothing is believed of a kernel that it has not shown:
//! each is tried with the largest sums that it may be given before it is used.

use freehold_exact::op::MAX_TERMS;
use freehold_exact::range::Range;
use freehold_exact::tensor::Interval;
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// What a product can be computed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Exact while sums are below 2^53.
    F64,
    /// Exact while sums are below 2^24.
    F32,
    /// 8-bit operands, 32-bit sums.
    Int8,
}

impl Unit {
    pub const ALL: [Self; 3] = [Self::F64, Self::F32, Self::Int8];

    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
    }

    /// Whether a product of such operands and sums is exact on it.
    fn fits(self, left: Interval, right: Interval, product: Range) -> bool {
        let eight = Interval::new(-127, 127);
        match self {
            Self::F64 => true,
            Self::F32 => product.inner_bits <= 24,
            Self::Int8 => eight.contains(left) && eight.contains(right),
        }
    }

    /// A `[…, M, K]` by B `[…, N, K]`, of whole numbers in floats, and so the result.
    pub fn product(self, a: &Tensor, b: &Tensor, kept: Kind) -> Result<Tensor> {
        let within = match self {
            Self::F64 => Kind::Double,
            Self::F32 => Kind::Float,
            Self::Int8 => Kind::Int8,
        };
        let (a, b) = (a.f_to_kind(within)?, b.f_to_kind(within)?);
        let product = match self {
            Self::F64 | Self::F32 => a.f_matmul(&b.f_transpose(-2, -1)?)?,
            Self::Int8 => a.f_internal_int_mm(&b.f_transpose(0, 1)?)?,
        };
        Ok(product.f_to_kind(kept)?)
    }
}

/// Those that have passed, the fastest first.
#[derive(Clone, Debug)]
pub struct Units {
    admitted: Vec<Unit>,
}

impl Units {
    /// Tries each on the device.
    pub fn probed(device: Device) -> Self {
        let admitted = Unit::ALL.into_iter().rev().filter(|unit| probe(*unit, device).unwrap_or(false)).collect();
        Self { admitted }
    }

    /// Only these, where they were admitted: to compare them.
    #[must_use]
    pub fn only(&self, units: &[Unit]) -> Self {
        Self { admitted: self.admitted.iter().copied().filter(|unit| units.contains(unit)).collect() }
    }

    pub fn admitted(&self) -> &[Unit] {
        &self.admitted
    }

    /// The fastest that is exact here. Batches of matrices have no int8 kernel.
    pub fn choose(&self, left: Interval, right: Interval, product: Range, rank: usize) -> Option<Unit> {
        let takes = |unit: &Unit| (*unit != Unit::Int8 || rank == 2) && unit.fits(left, right, product);
        self.admitted.iter().copied().find(takes)
    }
}

/// Products whose sums are the largest that the unit may be given, of lengths that leave a rest in every vector width,
/// of both signs and with cancellation, against sums in i64.
fn probe(unit: Unit, device: Device) -> Result<bool> {
    let largest = match unit {
        Unit::F64 => 1_i64 << 21, // 2^21 · 2^21 · 1,024 = 2^52
        Unit::F32 | Unit::Int8 => 127,
    };
    for (m, n, k) in [(1, 1, 1), (17, 5, 3), (33, 64, 129), (8, 24, 1_023), (40, 40, MAX_TERMS)] {
        for signs in 0..4 {
            let value = |place: usize, side: u64| {
                let mixed = (place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 ^ side).rotate_left(23);
                match signs {
                    0 => largest,
                    1 => -largest + side as i64, // one side a little smaller: −127 by −126
                    2 if mixed.is_multiple_of(2) => largest,
                    2 => -largest,
                    _ => (mixed % (2 * largest.unsigned_abs() + 1)) as i64 - largest,
                }
            };
            let a: Vec<i64> = (0..m * k).map(|place| value(place, 0)).collect();
            let b: Vec<i64> = (0..n * k).map(|place| value(place, 1)).collect();
            let cell = |at: usize| {
                let (a, b) = (&a[at / n * k..][..k], &b[at % n * k..][..k]);
                a.iter().zip(b).map(|(x, y)| x * y).sum::<i64>()
            };
            let expected: Vec<i64> = (0..m * n).map(cell).collect();
            let side = |values: &[i64], rows: usize| -> Result<Tensor> {
                let shape = [rows as i64, k as i64];
                Ok(Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to_device(device)?.f_to_kind(Kind::Double)?)
            };
            let found = unit.product(&side(&a, m)?, &side(&b, n)?, Kind::Double)?;
            let found = found.f_to_device(Device::Cpu)?.f_to_kind(Kind::Int64)?.f_reshape([-1])?;
            if Vec::<i64>::try_from(found)? != expected {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inner_bits: u32) -> Range {
        Range { values: Interval::new(0, 0), inner_bits }
    }

    #[test]
    fn this_machine_has_exact_units() {
        let units = Units::probed(Device::Cpu);
        assert!(units.admitted().contains(&Unit::F64), "{units:?}");
    }

    #[test]
    fn the_fastest_that_is_exact_is_taken() {
        let units = Units { admitted: vec![Unit::Int8, Unit::F32, Unit::F64] };
        let (eight, more) = (Interval::new(-127, 127), Interval::new(-128, 127));
        assert_eq!(units.choose(eight, eight, range(24), 2), Some(Unit::Int8));
        assert_eq!(units.choose(eight, eight, range(24), 3), Some(Unit::F32));
        assert_eq!(units.choose(eight, more, range(24), 2), Some(Unit::F32));
        assert_eq!(units.choose(eight, more, range(25), 2), Some(Unit::F64));
        assert_eq!(units.only(&[Unit::F64]).choose(eight, eight, range(24), 2), Some(Unit::F64));
        assert_eq!(units.only(&[]).choose(eight, eight, range(24), 2), None);
    }

    /// A float that rounds does not pass: bfloat16 has 8 bits, and f32 is no f64.
    #[test]
    fn a_unit_that_rounds_would_be_refused() {
        let exact = Tensor::from_slice(&[((1_i64 << 24) + 1) as f64]);
        let rounded = exact.to_kind(Kind::Float).to_kind(Kind::Double);
        assert_ne!(exact, rounded);
    }
}
