//! What a net does along rows: sums, matrix products in either format, probabilities.

use crate::build::Id;
use crate::fixed;
use crate::net::{Format, Net, PROBABILITY, Rule, Value};
use crate::op::{MAX_ROW_BYTES, MAX_TERMS, Op};
use crate::program::Refusal;
use crate::tensor::{Tensor, Width, count};

/// The table of exponentials: of −j/64, for j below 1,024. Beyond is less than one part of 2^15.
const EXP_STEPS: i32 = 6;
const EXP_ENTRIES: i64 = 1_024;

impl Net {
    /// Along the last dimension, which stays as one. Long rows are folded.
    pub fn sum(&mut self, value: Value) -> Result<Value, Refusal> {
        let shape = self.shape(value);
        let Some((length, front)) = shape.split_last() else { return Ok(value) };
        let (mut id, mut length) = (self.id(value), *length);
        loop {
            let fits = self.fits(Width::of(self.builder.range(id).values));
            if length <= fits {
                break;
            }
            // In equal parts, as few as there can be; where none divide the row, zeros fill it up.
            let part = (1..=fits).rev().find(|part| length % part == 0 && length / part <= fits).unwrap_or(fits);
            let parts = length.div_ceil(part);
            if length % part != 0 {
                let filled = [front, &[parts * part]].concat();
                id = self.builder.push_as(Op::Pad { dimension: front.len(), before: 0 }, &[id], &filled)?;
            }
            let folded = self.builder.push_as(Op::Reshape, &[id], &[front, &[parts, part]].concat())?;
            let sums = self.builder.push(Op::Sum, &[folded])?;
            id = self.builder.push_as(Op::Reshape, &[sums], &[front, &[parts]].concat())?;
            length = parts;
        }
        let id = self.builder.push(Op::Sum, &[id])?;
        Ok(self.record(Rule::Sum, &[value], id, self.fraction(value)))
    }

    pub fn max(&mut self, value: Value) -> Result<Value, Refusal> {
        let id = self.builder.push(Op::Max, &[self.id(value)])?;
        Ok(self.record(Rule::Max, &[value], id, self.fraction(value)))
    }

    pub fn argmax(&mut self, value: Value) -> Result<Value, Refusal> {
        let id = self.builder.push(Op::Argmax, &[self.id(value)])?;
        Ok(self.hold(id, 0))
    }

    /// Elements of a row in this width.
    fn fits(&self, width: Width) -> usize {
        MAX_TERMS.min(MAX_ROW_BYTES / width.bytes())
    }

    /// A `[…, M, K]` and B `[…, N, K]`: A · Bᵀ with this fraction, in the net's format.
    pub fn product(&mut self, a: Value, b: Value, fraction: i32) -> Result<Value, Refusal> {
        let id = self.product_in(self.format, a, b, fraction)?;
        Ok(self.record(Rule::Product, &[a, b], id, fraction))
    }

    /// Rows that are longer than an operator takes are cut; the parts' products are added up.
    pub(crate) fn product_in(&mut self, format: Format, a: Value, b: Value, fraction: i32) -> Result<Id, Refusal> {
        let terms = self.shape(a).last().copied().unwrap_or(1);
        let fits = self.fits(self.width(a)).min(self.fits(self.width(b))).min(self.sums(format, a, b)).max(1);
        let mut sum: Option<Id> = None;
        for start in (0..terms).step_by(fits) {
            let length = fits.min(terms - start);
            let (a_part, b_part) = (self.part(a, start, length)?, self.part(b, start, length)?);
            let product = match format {
                Format::Wide => self.builder.push(Op::Matmul, &[a_part, b_part])?,
                Format::I8 => self.i8_product(a_part, b_part, self.fraction(a) + self.fraction(b) - fraction)?,
            };
            sum = Some(match sum {
                Some(before) => self.builder.push(Op::Add, &[before, product])?,
                None => product,
            });
        }
        let sum = sum.unwrap_or(self.id(a)); // a shape has no dimension of 0
        let by = self.fraction(a) + self.fraction(b) - fraction;
        match format {
            Format::Wide if by != 0 => self.builder.push(Op::Shift { by: by.into() }, &[sum]),
            _ => Ok(sum),
        }
    }

    /// Products that can be added up within 2^52.
    fn sums(&self, format: Format, a: Value, b: Value) -> usize {
        let each = self.range_bits(a) + self.range_bits(b);
        match format {
            Format::Wide if each < 52 => 1 << (52 - each).min(20),
            Format::Wide => 1,
            Format::I8 => MAX_TERMS,
        }
    }

    fn part(&mut self, value: Value, start: usize, length: usize) -> Result<Id, Refusal> {
        let (id, mut shape) = (self.id(value), self.shape(value));
        let last = shape.len() - 1;
        if shape[last] == length {
            return Ok(id);
        }
        shape[last] = length;
        self.builder.push_as(Op::Slice { dimension: last, start }, &[id], &shape)
    }

    /// Both operands at 8 bits, each row with its exponent; the product, shifted by `by` less the exponents.
    fn i8_product(&mut self, a: Id, b: Id, by: i32) -> Result<Id, Refusal> {
        let (a_exponent, b_exponent) = (self.builder.push(Op::Rowexp, &[a])?, self.builder.push(Op::Rowexp, &[b])?);
        let a = self.builder.push(Op::Quant, &[a, a_exponent])?;
        let b = self.builder.push(Op::Quant, &[b, b_exponent])?;
        let product = self.builder.push(Op::Matmul, &[a, b])?;
        let shape = self.builder.shape(product).to_vec();
        let rank = shape.len();
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 2, rank - 1);
        let across = self.builder.push(Op::Transpose { order }, &[b_exponent])?;
        let down = self.builder.push_as(Op::Broadcast, &[a_exponent], &shape)?;
        let across = self.builder.push_as(Op::Broadcast, &[across], &shape)?;
        let both = self.builder.push(Op::Add, &[down, across])?;
        let all = self.builder.constant("places", Tensor::scalar(by.into()))?;
        let all = self.builder.push_as(Op::Broadcast, &[all], &shape)?;
        let places = self.builder.push(Op::Sub, &[all, both])?;
        self.builder.push(Op::ShiftBy, &[product, places])
    }

    /// Probabilities along the last dimension: exponentials by table, over their sum. Where `mask` is 0, none.
    pub fn softmax(&mut self, value: Value, mask: Option<Value>) -> Result<Value, Refusal> {
        let p = self.aside(|net| net.probabilities(value, mask))?;
        Ok(self.record(Rule::Softmax, &[value], self.id(p), PROBABILITY))
    }

    fn probabilities(&mut self, value: Value, mask: Option<Value>) -> Result<Value, Refusal> {
        let shape = self.shape(value);
        let largest = match mask {
            None => self.max(value)?,
            Some(mask) => {
                let range = self.builder.range(self.id(value)).values;
                let lowest = self.filled(i64::try_from(range.low).unwrap_or(i64::MIN), &shape, self.fraction(value))?;
                let shown = self.select(mask, value, lowest)?;
                self.max(shown)?
            }
        };
        let largest = self.broadcast(largest, &shape)?;
        let powers = self.exponentials(largest, value, mask)?;
        let all = self.sum(powers)?;
        let all = self.clamp(all, 1, 1 << 30)?;
        let all = self.broadcast(all, &shape)?;
        let fine = self.round(powers, 2 * PROBABILITY)?;
        let shares = self.div(fine, all)?;
        // A part is no more than the whole, which intervals do not see.
        self.clamp(shares, 0, 1 << PROBABILITY)
    }

    /// e^(x − largest) by table, where `mask` is not 0.
    pub(crate) fn exponentials(&mut self, largest: Value, x: Value, mask: Option<Value>) -> Result<Value, Refusal> {
        let below = self.sub(largest, x)?;
        let steps = self.round(below, EXP_STEPS)?;
        let steps = self.clamp(steps, 0, EXP_ENTRIES - 1)?;
        let exp = self.constant("exp", exp_table(), PROBABILITY)?;
        let powers = self.look_up(exp, steps)?;
        let Some(mask) = mask else { return Ok(powers) };
        let none = self.filled(0, &self.shape(x), PROBABILITY)?;
        self.select(mask, powers, none)
    }

    /// Rows of 0 with a 1 at the index: `[N]` → `[N, classes]`.
    pub fn one_hot(&mut self, index: Value, classes: usize) -> Result<Value, Refusal> {
        let rows = count(&self.shape(index));
        let index = self.reshape(index, &[rows, 1])?;
        self.at_place(index, &[rows, classes])
    }

    /// 1 where the last dimension's place is the index `[…, 1]`, else 0.
    pub(crate) fn at_place(&mut self, index: Value, shape: &[usize]) -> Result<Value, Refusal> {
        let length = shape.last().copied().unwrap_or(1) as i64;
        let places = self.constant("places", Tensor::row((0..length).collect()), 0)?;
        let places = self.broadcast(places, shape)?;
        let index = self.broadcast(index, shape)?;
        self.equal(index, places)
    }
}

fn exp_table() -> Tensor {
    let entry = |j| fixed::rounded(fixed::exp_neg(fixed::ratio(j, 1 << EXP_STEPS)), PROBABILITY.unsigned_abs());
    Tensor::row((0..EXP_ENTRIES).map(entry).collect())
}
