//! The backward pass, one rule an operator: from the gradient of what an operator resulted in to those of its operands.
//! Gradients have [`GRADIENT`] fractional bits and are kept to a fixed number of bits, so that their range does not grow
//! with depth.

use std::collections::BTreeMap;

use crate::net::{Entry, Format, GRADIENT, Net, PROBABILITY, Rule, Value};
use crate::program::Refusal;
use crate::tensor::count;

/// Bits that a gradient is kept to within the net; a parameter's own may take more.
pub const GRADIENT_BITS: u32 = 22;
pub const PARAMETER_BITS: u32 = 34;

impl Net {
    /// Gradients of `wanted`, given those of some results. What has no influence has none.
    pub fn gradients(&mut self, given: &[(Value, Value)], wanted: &[Value]) -> Result<Vec<Option<Value>>, Refusal> {
        self.recording = false;
        let tape = std::mem::take(&mut self.tape);
        let mut gradients: BTreeMap<Value, Value> = BTreeMap::new();
        for (result, gradient) in given {
            self.collect(&mut gradients, *result, *gradient, GRADIENT_BITS)?;
        }
        for entry in tape.iter().rev() {
            let Some(gradient) = gradients.get(&entry.result).copied() else { continue };
            let parts = self.backward(entry, gradient)?;
            #[cfg(test)]
            let parts = crate::tests::spoiled(self, entry, parts);
            for (operand, part) in parts {
                let made = tape.iter().any(|other| other.result == operand);
                let bits = if made { GRADIENT_BITS } else { PARAMETER_BITS };
                self.collect(&mut gradients, operand, part, bits)?;
            }
        }
        self.tape = tape;
        self.recording = true;
        Ok(wanted.iter().map(|value| gradients.get(value).copied()).collect())
    }

    fn collect(
        &mut self,
        gradients: &mut BTreeMap<Value, Value>,
        of: Value,
        part: Value,
        bits: u32,
    ) -> Result<(), Refusal> {
        let part = self.round(part, GRADIENT)?;
        let part = self.keep(part, bits)?;
        let all = match gradients.get(&of).copied() {
            None => part,
            Some(before) => {
                let both = self.add(before, part)?;
                self.keep(both, bits)?
            }
        };
        gradients.insert(of, all);
        Ok(())
    }

    /// What each operand contributes.
    fn backward(&mut self, entry: &Entry, dy: Value) -> Result<Vec<(Value, Value)>, Refusal> {
        let (x, y) = (entry.of[0], entry.result);
        let shape = self.shape(x);
        let one = |dx| Ok(vec![(x, dx)]);
        match &entry.rule {
            Rule::Product => {
                let b = entry.of[1];
                let across = self.turned(b)?;
                let da = self.product(dy, across, GRADIENT)?;
                let (dy, across) = (self.turned(dy)?, self.turned(x)?);
                let db = self.product(dy, across, GRADIENT)?;
                Ok(vec![(x, da), (b, db)])
            }
            Rule::Transpose { order } => {
                let mut back = vec![0; order.len()];
                order.iter().enumerate().for_each(|(to, from)| back[*from] = to);
                one(self.transpose(dy, &back)?)
            }
            Rule::Reshape { scale } => {
                let dx = self.scale(dy, *scale);
                one(self.reshape(dx, &shape)?)
            }
            Rule::Broadcast => one(self.summed_to(dy, &shape)?),
            Rule::Slice { dimension, start } => one(self.pad(dy, *dimension, *start, &shape)?),
            Rule::Im2col(window) => one(self.col2im(dy, *window, &shape)?),
            Rule::Gather => one(self.scattered(entry.of[1], dy, &shape)?),
            Rule::Add => Ok(vec![(x, dy), (entry.of[1], dy)]),
            Rule::Sub => {
                let negative = self.negative(dy)?;
                Ok(vec![(x, dy), (entry.of[1], negative)])
            }
            Rule::Mul => {
                let other = entry.of[1];
                let (dx, d_other) = (self.mul(dy, other)?, self.mul(dy, x)?);
                Ok(vec![(x, dx), (other, d_other)])
            }
            // Through where nothing was cut off.
            Rule::Clamp { .. } => {
                let inside = self.equal(x, y)?;
                one(self.where_(inside, dy)?)
            }
            Rule::Select => {
                let nothing = self.filled(0, &shape, self.fraction(dy))?;
                let first = self.select(x, dy, nothing)?;
                let second = self.select(x, nothing, dy)?;
                Ok(vec![(entry.of[1], first), (entry.of[2], second)])
            }
            Rule::Relu => {
                let zero = self.filled(0, &shape, self.fraction(x))?;
                let positive = self.less(zero, x)?;
                one(self.where_(positive, dy)?)
            }
            Rule::Round => one(dy),
            Rule::Div => {
                let by = entry.of[1];
                let dx = self.over(dy, by)?;
                let share = self.mul(dx, y)?;
                let share = self.round(share, GRADIENT)?;
                let d_by = self.negative(share)?;
                Ok(vec![(x, dx), (by, d_by)])
            }
            // Half of it over the root.
            Rule::Root => {
                let half = self.scale(dy, 1);
                one(self.over(half, y)?)
            }
            Rule::Sum => one(self.broadcast(dy, &shape)?),
            Rule::Max => {
                let first = self.argmax(x)?;
                let largest = self.at_place(first, &shape)?;
                let dy = self.broadcast(dy, &shape)?;
                one(self.where_(largest, dy)?)
            }
            Rule::Table => {
                let (index, slopes) = (entry.of[1], entry.of[2]);
                let slope = self.look_up(slopes, index)?;
                let d_index = self.mul(dy, slope)?;
                Ok(vec![(index, d_index)])
            }
            // p · (dp − Σ p · dp)
            Rule::Softmax => {
                let each = self.mul(dy, y)?;
                let each = self.round(each, GRADIENT)?;
                let all = self.sum(each)?;
                let all = self.broadcast(all, &shape)?;
                let share = self.mul(all, y)?;
                let share = self.round(share, GRADIENT)?;
                one(self.sub(each, share)?)
            }
        }
    }

    fn negative(&mut self, value: Value) -> Result<Value, Refusal> {
        let zero = self.filled(0, &self.shape(value), self.fraction(value))?;
        self.sub(zero, value)
    }

    fn where_(&mut self, condition: Value, value: Value) -> Result<Value, Refusal> {
        let nothing = self.filled(0, &self.shape(value), self.fraction(value))?;
        self.select(condition, value, nothing)
    }

    /// A gradient over a divisor.
    fn over(&mut self, gradient: Value, by: Value) -> Result<Value, Refusal> {
        let gradient = self.round(gradient, GRADIENT)?;
        let fine = self.round(gradient, GRADIENT + self.fraction(by))?;
        let share = self.div(fine, by)?;
        self.keep(share, GRADIENT_BITS)
    }

    /// What was repeated adds up.
    fn summed_to(&mut self, value: Value, shape: &[usize]) -> Result<Value, Refusal> {
        let from = self.shape(value);
        let missing = from.len() - shape.len();
        let repeated = |at: &usize| *at < missing || (shape[at - missing] == 1 && from[*at] != 1);
        let (added, kept): (Vec<usize>, Vec<usize>) = (0..from.len()).partition(repeated);
        let order: Vec<usize> = kept.iter().chain(&added).copied().collect();
        let moved = self.transpose(value, &order)?;
        let rows: usize = kept.iter().map(|at| from[*at]).product();
        let flat = self.reshape(moved, &[rows, count(&from) / rows.max(1)])?;
        let sums = self.sum(flat)?;
        self.reshape(sums, shape)
    }

    /// Rows added up where they were taken from: a product with rows of 0 and 1, which needs no rounding.
    fn scattered(&mut self, index: Value, dy: Value, shape: &[usize]) -> Result<Value, Refusal> {
        let rows = count(&self.shape(index));
        let row = count(&shape[1..]);
        let chosen = self.one_hot(index, shape[0])?;
        let chosen = self.turned(chosen)?;
        let flat = self.reshape(dy, &[rows, row])?;
        let flat = self.turned(flat)?;
        let id = self.product_in(Format::Wide, chosen, flat, GRADIENT)?;
        let sums = self.hold(id, GRADIENT);
        self.reshape(sums, shape)
    }

    /// The gradient of the cross-entropy, summed over the rows: probabilities less what they should be. `[N, classes]`
    /// and `[N]`.
    pub fn cross_entropy_gradient(&mut self, probabilities: Value, labels: Value) -> Result<Value, Refusal> {
        let before = std::mem::replace(&mut self.recording, false);
        let classes = self.shape(probabilities)[1];
        let wanted = self.one_hot(labels, classes)?;
        let wanted = self.round(wanted, PROBABILITY)?;
        let off = self.sub(probabilities, wanted)?;
        let gradient = self.round(off, GRADIENT)?;
        self.recording = before;
        Ok(gradient)
    }
}
