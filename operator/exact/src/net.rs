//! Networks as lists of operators: values with a binary point, matrix products in either format, and a record of what was
//! done, from which `grad` derives the backward pass.
//!
//! A value's integers stand for x = i · 2^−fraction. Every product, sum and shift here keeps that true, up to rounding.

use crate::build::{Builder, Id};
use crate::op::{Op, Window};
use crate::program::Refusal;
use crate::tensor::{Tensor, Width};

/// Fractional bits of gradients.
pub const GRADIENT: i32 = 20;
/// Of probabilities.
pub const PROBABILITY: i32 = 15;
/// Bits that dropout draws for an element, and fractional bits of what it scales the others by.
const DROPOUT_BITS: u8 = 16;
const DROPOUT_SCALE: i32 = 12;
/// Streams of dropout begin here; those before are for first values.
const DROPOUT_STREAM: u32 = 1 << 16;

/// How matrix products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Of operands as they are, every partial sum below 2^52.
    Wide,
    /// Of operands that are brought to 8 bits first, with one power of two a row.
    I8,
}

/// A value of the net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub(crate) usize);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub id: Id,
    pub fraction: i32,
}

/// What a result was made of, as far as its derivative needs to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rule {
    Product,
    Transpose {
        order: Vec<usize>,
    },
    /// Times 2^−scale.
    Reshape {
        scale: i32,
    },
    Broadcast,
    Slice {
        dimension: usize,
        start: usize,
    },
    Im2col(Window),
    /// Rows, and which.
    Gather,
    Add,
    Sub,
    Mul,
    Clamp {
        low: i64,
        high: i64,
    },
    Select,
    Relu,
    /// To another fraction.
    Round,
    Div,
    Root,
    Sum,
    /// The gradient goes to the first of the largest.
    Max,
    /// Values, index, and the values' slopes.
    Table,
    Softmax,
}

impl Rule {
    #[cfg(test)]
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Transpose { .. } => "transpose",
            Self::Reshape { .. } => "reshape",
            Self::Broadcast => "broadcast",
            Self::Slice { .. } => "slice",
            Self::Im2col(_) => "im2col",
            Self::Gather => "gather",
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Clamp { .. } => "clamp",
            Self::Select => "select",
            Self::Relu => "relu",
            Self::Round => "round",
            Self::Div => "div",
            Self::Root => "root",
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Table => "table",
            Self::Softmax => "softmax",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub rule: Rule,
    pub of: Vec<Value>,
    pub result: Value,
}

#[derive(Debug)]
pub struct Net {
    pub(crate) builder: Builder,
    pub(crate) format: Format,
    pub(crate) values: Vec<Held>,
    pub(crate) tape: Vec<Entry>,
    /// What is done for the backward pass, or by way of a composite, is not differentiated.
    pub(crate) recording: bool,
    /// Of 2^16: how much is left out, and how often it was drawn.
    pub(crate) dropout: i64,
    pub(crate) drawn: u32,
    /// The rule whose derivative a test has made wrong.
    #[cfg(test)]
    pub(crate) mutant: Option<&'static str>,
}

impl Net {
    pub fn new(builder: Builder, format: Format) -> Self {
        Self {
            builder,
            format,
            values: Vec::new(),
            tape: Vec::new(),
            recording: true,
            dropout: 0,
            drawn: 0,
            #[cfg(test)]
            mutant: None,
        }
    }

    pub fn finish(self, results: &[Value]) -> crate::program::Program {
        let ids: Vec<Id> = results.iter().map(|value| self.values[value.0].id).collect();
        self.builder.finish(&ids)
    }

    /// The program as it is now.
    #[cfg(test)]
    pub(crate) fn program(&self, results: &[Value]) -> crate::program::Program {
        let mut program = self.builder.program().clone();
        program.evaluate.results = results.iter().map(|value| self.id(*value).0).collect();
        program.metrics = results.iter().map(|value| format!("result {}", value.0)).collect();
        program
    }

    pub fn shape(&self, value: Value) -> Vec<usize> {
        self.builder.shape(self.id(value)).to_vec()
    }

    pub fn fraction(&self, value: Value) -> i32 {
        self.values[value.0].fraction
    }

    pub(crate) fn id(&self, value: Value) -> Id {
        self.values[value.0].id
    }

    pub(crate) fn range_bits(&self, value: Value) -> u32 {
        self.builder.range(self.id(value)).values.bits()
    }

    pub(crate) fn width(&self, value: Value) -> Width {
        Width::of(self.builder.range(self.id(value)).values)
    }

    pub(crate) fn hold(&mut self, id: Id, fraction: i32) -> Value {
        self.values.push(Held { id, fraction });
        Value(self.values.len() - 1)
    }

    pub(crate) fn record(&mut self, rule: Rule, of: &[Value], id: Id, fraction: i32) -> Value {
        let result = self.hold(id, fraction);
        if self.recording {
            self.tape.push(Entry { rule, of: of.to_vec(), result });
        }
        result
    }

    /// What was done so far is not differentiated again.
    pub(crate) fn forget(&mut self) {
        self.tape.clear();
    }

    /// What follows is not differentiated.
    pub(crate) fn aside<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let before = std::mem::replace(&mut self.recording, false);
        let done = work(self);
        self.recording = before;
        done
    }

    /// What follows may leave out this part, of 2^60.
    pub fn with_dropout(mut self, part: i128) -> Self {
        self.dropout = crate::fixed::rounded(part, DROPOUT_BITS.into());
        self
    }

    /// A part of the elements becomes 0, drawn anew in each step; the others grow, so that the mean stays. A value of at most
    /// 36 bits.
    pub fn dropped(&mut self, value: Value) -> Result<Value, Refusal> {
        if self.dropout == 0 {
            return Ok(value);
        }
        let shape = self.shape(value);
        let stream = DROPOUT_STREAM + self.drawn;
        self.drawn += 1;
        let whole = 1_i64 << DROPOUT_BITS;
        let scale = ((whole << DROPOUT_SCALE) + (whole - self.dropout) / 2) / (whole - self.dropout);
        let factor = self.aside(|net| {
            let drawn = net.source(Op::Random { stream, bits: DROPOUT_BITS }, &shape, 0)?;
            let last = net.filled(net.dropout - 1, &shape, 0)?;
            let kept = net.less(last, drawn)?;
            let scale = net.filled(scale, &shape, DROPOUT_SCALE)?;
            net.mul(kept, scale)
        })?;
        let scaled = self.mul(value, factor)?;
        self.round(scaled, self.fraction(value))
    }

    // --- sources

    pub fn state(&mut self, index: usize, fraction: i32) -> Result<Value, Refusal> {
        let id = self.builder.state(index)?;
        Ok(self.hold(id, fraction))
    }

    pub fn data(&mut self, index: usize, fraction: i32) -> Result<Value, Refusal> {
        let id = self.builder.data(index)?;
        Ok(self.hold(id, fraction))
    }

    pub fn constant(&mut self, name: &str, values: Tensor, fraction: i32) -> Result<Value, Refusal> {
        let id = self.builder.constant(name, values)?;
        Ok(self.hold(id, fraction))
    }

    /// The same number everywhere.
    pub fn filled(&mut self, number: i64, shape: &[usize], fraction: i32) -> Result<Value, Refusal> {
        let one = self.builder.constant("number", Tensor::scalar(number))?;
        let id = self.builder.push_as(Op::Broadcast, &[one], shape)?;
        Ok(self.hold(id, fraction))
    }

    /// An operator without operands: the step, a draw.
    pub fn source(&mut self, op: Op, shape: &[usize], fraction: i32) -> Result<Value, Refusal> {
        let id = self.builder.push_as(op, &[], shape)?;
        Ok(self.hold(id, fraction))
    }

    // --- operators that move elements

    pub fn transpose(&mut self, value: Value, order: &[usize]) -> Result<Value, Refusal> {
        let op = Op::Transpose { order: order.to_vec() };
        let id = self.builder.push(op, &[self.id(value)])?;
        Ok(self.record(Rule::Transpose { order: order.to_vec() }, &[value], id, self.fraction(value)))
    }

    /// Swaps the last two dimensions.
    pub fn turned(&mut self, value: Value) -> Result<Value, Refusal> {
        let rank = self.shape(value).len();
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 2, rank - 1);
        self.transpose(value, &order)
    }

    pub fn reshape(&mut self, value: Value, shape: &[usize]) -> Result<Value, Refusal> {
        let id = self.builder.push_as(Op::Reshape, &[self.id(value)], shape)?;
        Ok(self.record(Rule::Reshape { scale: 0 }, &[value], id, self.fraction(value)))
    }

    /// Times 2^−by: the point moves, the integers stay.
    pub fn scale(&mut self, value: Value, by: i32) -> Value {
        let (id, fraction) = (self.id(value), self.fraction(value));
        self.record(Rule::Reshape { scale: by }, &[value], id, fraction + by)
    }

    pub fn broadcast(&mut self, value: Value, shape: &[usize]) -> Result<Value, Refusal> {
        if self.shape(value) == shape {
            return Ok(value);
        }
        let id = self.builder.push_as(Op::Broadcast, &[self.id(value)], shape)?;
        Ok(self.record(Rule::Broadcast, &[value], id, self.fraction(value)))
    }

    pub fn slice(&mut self, value: Value, dimension: usize, start: usize, length: usize) -> Result<Value, Refusal> {
        let mut shape = self.shape(value);
        shape[dimension] = length;
        let id = self.builder.push_as(Op::Slice { dimension, start }, &[self.id(value)], &shape)?;
        Ok(self.record(Rule::Slice { dimension, start }, &[value], id, self.fraction(value)))
    }

    pub(crate) fn pad(
        &mut self,
        value: Value,
        dimension: usize,
        before: usize,
        shape: &[usize],
    ) -> Result<Value, Refusal> {
        let id = self.builder.push_as(Op::Pad { dimension, before }, &[self.id(value)], shape)?;
        Ok(self.hold(id, self.fraction(value)))
    }

    pub fn im2col(&mut self, value: Value, window: Window) -> Result<Value, Refusal> {
        let id = self.builder.push(Op::Im2col(window), &[self.id(value)])?;
        Ok(self.record(Rule::Im2col(window), &[value], id, self.fraction(value)))
    }

    /// One row of the kernel after another, each channel for itself: a pixel's element has as few and as short rows opened
    /// for it as a court can read.
    pub(crate) fn col2im(&mut self, value: Value, window: Window, shape: &[usize]) -> Result<Value, Refusal> {
        let (padding, stride) = (window.padding, window.stride);
        let ([high, wide], [batch, channels, height, width]) =
            (window.kernel, [shape[0], shape[1], shape[2], shape[3]]);
        let (down, across) = (window.places(height, high).unwrap_or(0), window.places(width, wide).unwrap_or(0));
        let (planes, positions) = (batch * channels, down * across);
        let padded = [planes, 1, height + 2 * padding, width + 2 * padding];
        let band = [planes, 1, (down - 1) * stride + 1, padded[3]];
        let parts = self.reshape(value, &[batch, positions, channels, high, wide])?;
        let parts = self.transpose(parts, &[3, 0, 2, 1, 4])?;
        let mut image = None;
        for row in 0..high {
            let part = self.slice(parts, 0, row, 1)?;
            let part = self.reshape(part, &[planes, positions, wide])?;
            let window = Window { kernel: [1, wide], stride, padding: 0 };
            let id = self.builder.push_as(Op::Col2im(window), &[self.id(part)], &band)?;
            let band = self.hold(id, self.fraction(value));
            let part = self.pad(band, 2, row, &padded)?;
            image = Some(match image {
                Some(image) => self.add(image, part)?,
                None => part,
            });
        }
        let image = image.unwrap_or(value);
        let image = self.slice(image, 2, padding, height)?;
        let image = self.slice(image, 3, padding, width)?;
        self.reshape(image, shape)
    }

    pub fn gather(&mut self, rows: Value, index: Value) -> Result<Value, Refusal> {
        let id = self.builder.push(Op::Gather, &[self.id(rows), self.id(index)])?;
        Ok(self.record(Rule::Gather, &[rows, index], id, self.fraction(rows)))
    }

    // --- operators on one or two elements

    pub(crate) fn alike(&mut self, op: Op, x: Value, y: Value) -> Result<Id, Refusal> {
        self.builder.push(op, &[self.id(x), self.id(y)])
    }

    /// Of values with one fraction.
    pub fn add(&mut self, x: Value, y: Value) -> Result<Value, Refusal> {
        let id = self.alike(Op::Add, x, y)?;
        Ok(self.record(Rule::Add, &[x, y], id, self.fraction(x)))
    }

    /// Of values with one fraction.
    pub fn sub(&mut self, x: Value, y: Value) -> Result<Value, Refusal> {
        let id = self.alike(Op::Sub, x, y)?;
        Ok(self.record(Rule::Sub, &[x, y], id, self.fraction(x)))
    }

    /// Fractions add up.
    pub fn mul(&mut self, x: Value, y: Value) -> Result<Value, Refusal> {
        let id = self.alike(Op::Mul, x, y)?;
        Ok(self.record(Rule::Mul, &[x, y], id, self.fraction(x) + self.fraction(y)))
    }

    /// The dividend's fraction less the divisor's, which is above 0.
    pub fn div(&mut self, x: Value, y: Value) -> Result<Value, Refusal> {
        let id = self.alike(Op::Div, x, y)?;
        Ok(self.record(Rule::Div, &[x, y], id, self.fraction(x) - self.fraction(y)))
    }

    /// The root, at least one of its units; half the fraction.
    pub fn root(&mut self, value: Value) -> Result<Value, Refusal> {
        let fraction = self.fraction(value);
        let value = self.round(value, fraction + fraction.rem_euclid(2))?;
        let id = self.builder.push(Op::Isqrt, &[self.id(value)])?;
        let id = self.builder.push(Op::Clamp { low: 1, high: 1 << 26 }, &[id])?;
        Ok(self.record(Rule::Root, &[value], id, self.fraction(value) / 2))
    }

    /// Rounded, or widened, to this fraction.
    pub fn round(&mut self, value: Value, fraction: i32) -> Result<Value, Refusal> {
        let by = self.fraction(value) - fraction;
        if by == 0 {
            return Ok(value);
        }
        let id = self.builder.push(Op::Shift { by: by.into() }, &[self.id(value)])?;
        Ok(self.record(Rule::Round, &[value], id, fraction))
    }

    /// Kept to ±2^bits − 1 of its units.
    pub fn keep(&mut self, value: Value, bits: u32) -> Result<Value, Refusal> {
        let high = (1_i64 << bits) - 1;
        self.clamp(value, -high, high)
    }

    pub fn clamp(&mut self, value: Value, low: i64, high: i64) -> Result<Value, Refusal> {
        let range = self.builder.range(self.id(value)).values;
        if i128::from(low) <= range.low && range.high <= i128::from(high) {
            return Ok(value);
        }
        let id = self.builder.push(Op::Clamp { low, high }, &[self.id(value)])?;
        Ok(self.record(Rule::Clamp { low, high }, &[value], id, self.fraction(value)))
    }

    pub fn relu(&mut self, value: Value) -> Result<Value, Refusal> {
        let id = self.builder.push(Op::Relu, &[self.id(value)])?;
        Ok(self.record(Rule::Relu, &[value], id, self.fraction(value)))
    }

    /// 1 or 0, of values with one fraction.
    pub fn less(&mut self, x: Value, y: Value) -> Result<Value, Refusal> {
        let id = self.alike(Op::Less, x, y)?;
        Ok(self.hold(id, 0))
    }

    pub fn equal(&mut self, x: Value, y: Value) -> Result<Value, Refusal> {
        let id = self.alike(Op::Equal, x, y)?;
        Ok(self.hold(id, 0))
    }

    /// Of values with one fraction.
    pub fn select(&mut self, condition: Value, x: Value, y: Value) -> Result<Value, Refusal> {
        let id = self.builder.push(Op::Select, &[self.id(condition), self.id(x), self.id(y)])?;
        Ok(self.record(Rule::Select, &[condition, x, y], id, self.fraction(x)))
    }

    /// f of an index, from a table of f's values and one of its slopes, of the same length. The index is not rounded any
    /// further: its fraction says what an entry stands for.
    pub fn table(&mut self, values: Value, slopes: Value, index: Value) -> Result<Value, Refusal> {
        let id = self.alike(Op::Table, values, index)?;
        Ok(self.record(Rule::Table, &[values, index, slopes], id, self.fraction(values)))
    }

    /// The entry of an index, which is not differentiated.
    pub fn look_up(&mut self, values: Value, index: Value) -> Result<Value, Refusal> {
        let id = self.alike(Op::Table, values, index)?;
        Ok(self.hold(id, self.fraction(values)))
    }
}
