//! Optimizers in integers: what a gradient does to a parameter and to what the optimizer remembers of it.
//!
//! | value | fractional bits | kept to |
//! |---|---|---|
//! | parameter | 20 | ±4 |
//! | mean gradient | 20 | ±1 (AdamW), ±16 (SGD) |
//! | velocity, first moment | 20, 24 | ±256, ±1 |
//! | second moment | 40 | 0 to 1 |
//! | update of AdamW | 12 | ±8 |

use crate::fixed;
use crate::net::{GRADIENT, Net, Value};
use crate::program::Refusal;
use crate::recipe::{Optimizer, Recipe};
use crate::tensor::Tensor;

pub const PARAMETER: i32 = 20;
pub const PARAMETER_BITS: u32 = 22;
const VELOCITY_BITS: u32 = 28;
const MOMENT: i32 = 24;
const SQUARES: i32 = 40;
const UPDATE: i32 = 12;
const UPDATE_BITS: u32 = 15;
/// Fractional bits of a learning rate.
const RATE: i32 = 24;
/// Of what is near one: momentum, corrections of the moments.
const FACTOR: i32 = 12;
/// Bits that a moment's share of what is new is given with.
const SHARE_BITS: u32 = 10;

/// What the optimizer remembers of a parameter: name, fraction, range.
pub fn remembered(optimizer: &Optimizer) -> Vec<(&'static str, i32, i64, i64)> {
    match optimizer {
        Optimizer::Sgd { .. } => vec![("velocity", GRADIENT, -bound(VELOCITY_BITS), bound(VELOCITY_BITS))],
        Optimizer::AdamW { .. } => {
            vec![("first", MOMENT, -bound(24), bound(24)), ("second", SQUARES, 0, 1 << SQUARES)]
        }
    }
}

pub fn bound(bits: u32) -> i64 {
    (1 << bits) - 1
}

/// Tables over the steps, looked up at this one.
pub struct Rates {
    rate: Value,
    /// Of AdamW: rate times decay, which is apart from the gradient.
    decay: Value,
    /// Of AdamW: how both moments are corrected for having begun at 0, together.
    correction: Value,
}

/// `parts`: by how much a gradient that is a mean over a power of two is smaller than one over the batch.
pub fn rates(net: &mut Net, recipe: &Recipe, step: Value, parts: i128) -> Result<Rates, Refusal> {
    let at = |step: u32| {
        let share = recipe.schedule.share(step, recipe.steps);
        fixed::times(recipe.rate.fixed(), share)
    };
    let decay = match recipe.optimizer {
        Optimizer::Sgd { .. } => 0,
        Optimizer::AdamW { decay, .. } => decay.fixed(),
    };
    // Only SGD's step is as long as the gradient is.
    let whole = match recipe.optimizer {
        Optimizer::Sgd { .. } => parts,
        Optimizer::AdamW { .. } => fixed::ONE,
    };
    let correction = |step: u32| match recipe.optimizer {
        Optimizer::Sgd { .. } => fixed::ONE,
        Optimizer::AdamW { beta1, beta2, .. } => {
            let left = |beta: i128| fixed::ONE - fixed::power(beta, u64::from(step) + 1);
            let (first, second) = (left(beta1.fixed()), left(beta2.fixed()));
            ((fixed::root(second)) << 60) / first.max(1)
        }
    };
    let mut table = |name: &str, fraction: i32, entry: &dyn Fn(u32) -> i128| {
        let values = (0..recipe.steps).map(|step| fixed::rounded(entry(step), fraction.unsigned_abs())).collect();
        let values = net.constant(name, Tensor::row(values), fraction)?;
        net.look_up(values, step)
    };
    Ok(Rates {
        rate: table("rate", RATE, &|step| fixed::times(at(step), whole))?,
        decay: table("decay", RATE, &|step| fixed::times(at(step), decay))?,
        correction: table("correction", FACTOR, &correction)?,
    })
}

/// The parameter after the step, then what is remembered. `gradient` is the mean.
pub fn step(
    net: &mut Net,
    optimizer: &Optimizer,
    rates: &Rates,
    parameter: Value,
    gradient: Value,
    before: &[Value],
) -> Result<Vec<Value>, Refusal> {
    let shape = net.shape(parameter);
    let mut spread = |value: Value| net.broadcast(value, &shape);
    let (rate, decay, correction) = (spread(rates.rate)?, spread(rates.decay)?, spread(rates.correction)?);
    let (update, after) = match optimizer {
        Optimizer::Sgd { momentum, decay } => {
            let decay = net.filled(fixed::rounded(decay.fixed(), GRADIENT.unsigned_abs()), &shape, GRADIENT)?;
            let pull = net.mul(parameter, decay)?;
            let pull = net.round(pull, GRADIENT)?;
            let gradient = net.add(gradient, pull)?;
            let gradient = net.keep(gradient, 24)?;
            let velocity = velocity(net, momentum.fixed(), before[0], gradient)?;
            (velocity, vec![velocity])
        }
        Optimizer::AdamW { beta1, beta2, .. } => {
            let gradient = net.keep(gradient, 20)?;
            let first = toward(net, before[0], gradient, fixed::ONE - beta1.fixed())?;
            let first = net.keep(first, 24)?;
            let square = net.mul(gradient, gradient)?;
            let second = toward(net, before[1], square, fixed::ONE - beta2.fixed())?;
            let second = net.clamp(second, 0, 1 << SQUARES)?;
            let corrected = net.mul(first, correction)?;
            let fine = net.round(corrected, UPDATE + SQUARES / 2)?;
            let root = net.root(second)?;
            let update = net.div(fine, root)?;
            (net.keep(update, UPDATE_BITS)?, vec![first, second])
        }
    };
    let moved = net.mul(update, rate)?;
    let moved = net.round(moved, PARAMETER)?;
    let decayed = net.mul(parameter, decay)?;
    let decayed = net.round(decayed, PARAMETER)?;
    let next = net.sub(parameter, moved)?;
    let next = net.sub(next, decayed)?;
    let next = net.keep(next, PARAMETER_BITS)?;
    Ok([vec![next], after].concat())
}

/// Momentum times what was, and the gradient.
fn velocity(net: &mut Net, momentum: i128, before: Value, gradient: Value) -> Result<Value, Refusal> {
    let factor = net.filled(fixed::rounded(momentum, FACTOR.unsigned_abs()), &net.shape(before), FACTOR)?;
    let kept = net.mul(before, factor)?;
    let kept = net.round(kept, GRADIENT)?;
    let both = net.add(kept, gradient)?;
    net.keep(both, VELOCITY_BITS)
}

/// A moving mean: a share of the way from what was to what is new.
fn toward(net: &mut Net, before: Value, new: Value, share: i128) -> Result<Value, Refusal> {
    let fits = |fraction: &i32| fixed::rounded(share, fraction.unsigned_abs()) < 1 << SHARE_BITS;
    let fraction = (0..=24).rev().find(fits).unwrap_or(0);
    let own = net.fraction(before);
    let new = net.round(new, own)?;
    let way = net.sub(new, before)?;
    let share = net.filled(fixed::rounded(share, fraction.unsigned_abs()), &net.shape(before), fraction)?;
    let part = net.mul(way, share)?;
    let part = net.round(part, own)?;
    net.add(before, part)
}
