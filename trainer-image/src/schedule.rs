//! The learning rate as a function of the step alone.

use std::f64::consts::PI;

use crate::recipe::{Decimal, Schedule};

/// Rate of a step (from 0) of a run of `steps`.
pub fn rate(schedule: &Schedule, base: f64, step: u64, steps: u64) -> f64 {
    let warmup = u64::from(match schedule {
        Schedule::Constant { warmup }
        | Schedule::Linear { warmup, .. }
        | Schedule::Cosine { warmup, .. }
        | Schedule::Step { warmup, .. } => *warmup,
    });
    if step < warmup {
        return base * (step + 1) as f64 / warmup as f64;
    }
    // 0 at the first step after the warm-up, 1 at the last step.
    let fall = (step - warmup) as f64 / steps.saturating_sub(warmup + 1).max(1) as f64;
    match schedule {
        Schedule::Constant { .. } => base,
        Schedule::Linear { floor, .. } => base * lerp(floor.fraction(), 1.0 - fall),
        Schedule::Cosine { floor, .. } => base * lerp(floor.fraction(), 0.5 * (1.0 + (PI * fall).cos())),
        Schedule::Step { every, factor: Decimal(factor), .. } => {
            base * factor.powi(i32::try_from(step / u64::from(*every)).unwrap_or(i32::MAX))
        }
    }
}

/// From `floor` (at 0) to 1 (at 1).
fn lerp(floor: f64, share: f64) -> f64 {
    floor + (1.0 - floor) * share
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::recipe::Percent;

    #[rstest]
    #[case::constant(Schedule::Constant { warmup: 0 }, &[(0, 1.0), (99, 1.0)])]
    #[case::warmup(Schedule::Constant { warmup: 4 }, &[(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0)])]
    #[case::linear(Schedule::Linear { warmup: 0, floor: Percent(0) }, &[(0, 1.0), (33, 2.0 / 3.0), (99, 0.0)])]
    #[case::linear_floor(Schedule::Linear { warmup: 10, floor: Percent(50) }, &[(9, 1.0), (10, 1.0), (99, 0.5)])]
    #[case::cosine(Schedule::Cosine { warmup: 0, floor: Percent(10) }, &[(0, 1.0), (33, 0.775), (99, 0.1)])]
    #[case::step(Schedule::Step { warmup: 0, every: 10, factor: Decimal(0.5) }, &[(9, 1.0), (10, 0.5), (25, 0.25)])]
    #[case::warmup_beyond_end(Schedule::Cosine { warmup: 200, floor: Percent(0) }, &[(99, 0.5)])]
    fn rates(#[case] schedule: Schedule, #[case] expected: &[(u64, f64)]) {
        for (step, share) in expected {
            let rate = rate(&schedule, 0.3, *step, 100);
            assert!((rate - 0.3 * share).abs() < 1e-12, "step {step}: {rate} is not {share} of 0.3");
        }
    }
}
