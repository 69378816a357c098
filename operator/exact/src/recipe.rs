//! What is trained, how, and on how much: all that a program follows from.

use std::fmt;

use crate::fixed;
use crate::net::Format;

/// A number as it was written: `0.05` is 5 / 100. No float is rounded on the way into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    pub units: i64,
    pub of: i64,
}

impl Decimal {
    pub const ONE: Self = Self { units: 1, of: 1 };
    pub const ZERO: Self = Self { units: 0, of: 1 };

    pub fn new(units: i64, of: i64) -> Self {
        Self { units, of }
    }

    /// With 60 fractional bits.
    pub fn fixed(self) -> i128 {
        fixed::ratio(self.units, self.of)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.of.checked_ilog10().unwrap_or(0);
        match (self.units % self.of.max(1), 10_i64.pow(digits) == self.of) {
            (0, _) => write!(f, "{}", self.units / self.of.max(1)),
            (rest, true) => write!(f, "{}.{rest:0>width$}", self.units / self.of, width = digits as usize),
            _ => write!(f, "{}/{}", self.units, self.of),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// Widths of the layers, the first of them the features' and the last the classes'.
    Mlp { widths: Vec<usize> },
    /// Convolutions that keep the size, each with ReLU and, while an image is left to halve, a 2 × 2 maximum; then two dense
    /// layers.
    Cnn { image: [usize; 3], channels: Vec<usize>, kernel: usize, hidden: usize, classes: usize },
    /// A decoder over bytes, with an RMS norm before each half of a block.
    Transformer { width: usize, heads: usize, layers: usize, context: usize, tied: bool },
}

/// What a step makes smaller, as a mean over the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    CrossEntropy,
    /// Half the sum of squares of what the logits are off from 1 for the label's class and 0 for the others.
    SquaredError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    Sgd { momentum: Decimal, decay: Decimal },
    AdamW { beta1: Decimal, beta2: Decimal, decay: Decimal },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Constant,
    /// Falls to `floor` of the rate at the last step.
    Linear {
        floor: Decimal,
    },
    Cosine {
        floor: Decimal,
    },
    /// Times `factor` after each so many steps.
    Step {
        every: u32,
        factor: Decimal,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub warmup: u32,
    pub shape: Shape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub model: Model,
    pub loss: Loss,
    /// The part of hidden activations, or of what a block adds to the stream, that a step leaves out.
    pub dropout: Decimal,
    pub optimizer: Optimizer,
    pub rate: Decimal,
    pub schedule: Schedule,
    pub format: Format,
    pub steps: u32,
    /// Rows (or windows of text) of a step, over all its parts.
    pub batch: usize,
    /// Parts that a step's gradient is added up from.
    pub accumulation: usize,
    /// Rows of the data set, or bytes of the text.
    pub rows: usize,
    /// Rows (or bytes) of the set that is evaluated on.
    pub held_out: usize,
}

impl Schedule {
    /// The rate of a step as a part of the whole, with 60 fractional bits.
    pub fn share(&self, step: u32, steps: u32) -> i128 {
        if step < self.warmup {
            return fixed::ratio(i64::from(step) + 1, i64::from(self.warmup));
        }
        // 0 at the first step after the warm-up, 1 at the last step.
        let fall = fixed::ratio((step - self.warmup).into(), i64::from(steps.saturating_sub(self.warmup + 1).max(1)));
        let from = |floor: Decimal, share: i128| floor.fixed() + fixed::times(fixed::ONE - floor.fixed(), share);
        match self.shape {
            Shape::Constant => fixed::ONE,
            Shape::Linear { floor } => from(floor, fixed::ONE - fall),
            Shape::Cosine { floor } => from(floor, (fixed::ONE + fixed::cos_pi(fall)) / 2),
            Shape::Step { every, factor } => fixed::power(factor.fixed(), (step / every.max(1)).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const HALF: Decimal = Decimal { units: 1, of: 2 };
    const TENTH: Decimal = Decimal { units: 10, of: 100 };

    #[rstest]
    #[case::constant(0, Shape::Constant, &[(0, 1.0), (99, 1.0)])]
    #[case::warmup(4, Shape::Constant, &[(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0)])]
    #[case::linear(0, Shape::Linear { floor: Decimal::ZERO }, &[(0, 1.0), (33, 2.0 / 3.0), (99, 0.0)])]
    #[case::linear_floor(10, Shape::Linear { floor: HALF }, &[(9, 1.0), (10, 1.0), (99, 0.5)])]
    #[case::cosine(0, Shape::Cosine { floor: TENTH }, &[(0, 1.0), (33, 0.775), (99, 0.1)])]
    #[case::step(0, Shape::Step { every: 10, factor: HALF }, &[(9, 1.0), (10, 0.5), (25, 0.25)])]
    #[case::warmup_beyond_end(200, Shape::Cosine { floor: Decimal::ZERO }, &[(99, 0.5)])]
    fn shares(#[case] warmup: u32, #[case] shape: Shape, #[case] expected: &[(u32, f64)]) {
        let schedule = Schedule { warmup, shape };
        for (step, expected) in expected {
            let share = schedule.share(*step, 100) as f64 / fixed::ONE as f64;
            assert!((share - expected).abs() < 1e-12, "step {step}: {share} is not {expected}");
        }
    }
}
