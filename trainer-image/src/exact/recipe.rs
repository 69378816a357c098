//! A task's recipe as that of an exact program: what it asks for must be computable in integers, or it is refused by name.

use freehold_exact::compile::MAX_BATCH;
use freehold_exact::net::Format;
use freehold_exact::recipe as exact;

use crate::error::{Error, Result};
use crate::recipe::{Decimal, Model, Optimizer, Percent, Precision, Recipe, Schedule};

/// How much there is to train and to evaluate on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub rows: usize,
    pub held_out: usize,
}

/// The format that a recipe asks for, unless it also asks for something that no exact run does.
pub fn check(recipe: &Recipe) -> Result<Format> {
    let format = match recipe.precision {
        Precision::ExactI8 => Format::I8,
        Precision::ExactWide => Format::Wide,
        Precision::F32 | Precision::Bf16 => {
            return refused("precision", "not exact", "set exact-i8 or exact-wide");
        }
    };
    if recipe.evaluate.is_none() {
        return refused("evaluate", "missing", "an exact program has an evaluation; set evaluate.every");
    }
    if recipe.early_stopping.is_some() {
        return refused("earlyStopping", "set", "an exact run makes all its steps; remove it");
    }
    if recipe.init_from.is_some() {
        return refused("initFrom", "set", "an exact run starts from its seed; remove it");
    }
    if let Some(keep) = recipe.checkpoint.keep_best.filter(|keep| *keep > 0) {
        return refused("checkpoint.keepBest", &keep.to_string(), "an exact run delivers its last state; remove it");
    }
    if recipe.segment_steps == Some(0) {
        return refused("segmentSteps", "0", "give at least 1, or remove it");
    }
    let rows = u64::from(recipe.batch_size) * u64::from(recipe.gradient_accumulation);
    if rows > MAX_BATCH as u64 {
        let remedy = format!("give at most {MAX_BATCH}");
        return refused("batchSize times gradientAccumulation", &rows.to_string(), &remedy);
    }
    Ok(format)
}

fn refused<T>(field: &str, value: &str, remedy: &str) -> Result<T> {
    Err(Error::Usage(format!("recipe.{field} is {value}: {remedy}")))
}

/// `recipe` in the format, on data of these sizes.
pub fn exact(recipe: &Recipe, format: Format, sizes: Sizes) -> Result<exact::Recipe> {
    let accumulation = recipe.gradient_accumulation as usize;
    Ok(exact::Recipe {
        model: model(&recipe.model)?,
        loss: exact::Loss::CrossEntropy,
        dropout: exact::Decimal::ZERO,
        optimizer: optimizer(&recipe.optimizer)?,
        rate: decimal("optimizer.learningRate", rate(&recipe.optimizer))?,
        schedule: schedule(&recipe.schedule)?,
        format,
        steps: recipe.steps,
        batch: recipe.batch_size as usize * accumulation,
        accumulation,
        rows: sizes.rows,
        held_out: sizes.held_out,
    })
}

pub fn model(model: &Model) -> Result<exact::Model> {
    let wide = |values: &[u32]| values.iter().map(|value| *value as usize).collect();
    Ok(match model {
        Model::Mlp { layers } => exact::Model::Mlp { widths: wide(layers) },
        Model::Cnn { input, channels, kernel, hidden, classes } => exact::Model::Cnn {
            image: input.map(|side| side as usize),
            channels: wide(channels),
            kernel: *kernel as usize,
            hidden: *hidden as usize,
            classes: *classes as usize,
        },
        Model::Transformer { width, heads, layers, context } => exact::Model::Transformer {
            width: *width as usize,
            heads: *heads as usize,
            layers: *layers as usize,
            context: *context as usize,
            tied: false,
        },
    })
}

fn rate(optimizer: &Optimizer) -> Decimal {
    Decimal(optimizer.learning_rate())
}

fn optimizer(optimizer: &Optimizer) -> Result<exact::Optimizer> {
    let or = |field: &str, given: &Option<Decimal>, usual: exact::Decimal| match given {
        Some(given) => decimal(field, *given),
        None => Ok(usual),
    };
    let zero = exact::Decimal::ZERO;
    Ok(match optimizer {
        Optimizer::Sgd { momentum, weight_decay, .. } => exact::Optimizer::Sgd {
            momentum: or("optimizer.sgd.momentum", momentum, zero)?,
            decay: or("optimizer.sgd.weightDecay", weight_decay, zero)?,
        },
        Optimizer::Adam { weight_decay: Some(decay), .. } if decay.0 != 0.0 => {
            return Err(Error::Usage(format!(
                "optimizer.adam.weightDecay is {}: exact training has decay that is apart from the gradient alone; use adamw",
                decay.0
            )));
        }
        Optimizer::Adam { beta1, beta2, .. } | Optimizer::Adamw { beta1, beta2, .. } => exact::Optimizer::AdamW {
            beta1: or("optimizer.beta1", beta1, exact::Decimal::new(9, 10))?,
            beta2: or("optimizer.beta2", beta2, exact::Decimal::new(999, 1_000))?,
            decay: match optimizer {
                Optimizer::Adamw { weight_decay, .. } => {
                    or("optimizer.adamw.weightDecay", weight_decay, exact::Decimal::new(1, 100))?
                }
                _ => zero,
            },
        },
    })
}

fn schedule(schedule: &Schedule) -> Result<exact::Schedule> {
    let percent = |floor: &Percent| exact::Decimal::new(floor.0.into(), 100);
    let (warmup, shape) = match schedule {
        Schedule::Constant { warmup } => (warmup, exact::Shape::Constant),
        Schedule::Linear { warmup, floor } => (warmup, exact::Shape::Linear { floor: percent(floor) }),
        Schedule::Cosine { warmup, floor } => (warmup, exact::Shape::Cosine { floor: percent(floor) }),
        Schedule::Step { warmup, every, factor } => {
            let factor = decimal("schedule.step.factor", *factor)?;
            (warmup, exact::Shape::Step { every: *every, factor })
        }
    };
    Ok(exact::Schedule { warmup: *warmup, shape })
}

/// As it was written: the shortest form of a float that was read from at most 15 digits is what was read.
fn decimal(field: &str, number: Decimal) -> Result<exact::Decimal> {
    let text = number.0.to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let of = u32::try_from(part.len()).ok().and_then(|digits| 10_i64.checked_pow(digits));
    let units = format!("{whole}{part}").parse().ok();
    match (units, of) {
        (Some(units), Some(of)) if part.len() <= 15 && whole.len() <= 3 => Ok(exact::Decimal::new(units, of)),
        _ => Err(Error::Usage(format!(
            "{field} is {text}: exact training takes numbers below 1000 with at most 15 decimals"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0.05, (5, 100))]
    #[case(0.003, (3, 1_000))]
    #[case(1.0, (1, 1))]
    #[case(12.5, (125, 10))]
    #[case(0.000_000_1, (1, 10_000_000))]
    fn a_number_is_what_was_written(#[case] number: f64, #[case] (units, of): (i64, i64)) {
        assert_eq!(decimal("field", Decimal(number)).unwrap(), exact::Decimal::new(units, of));
    }

    #[rstest]
    #[case(1e-20)]
    #[case(12_345.0)]
    fn a_number_that_no_table_holds_is_refused_by_name(#[case] number: f64) {
        let error = decimal("optimizer.learningRate", Decimal(number)).unwrap_err().to_string();
        assert!(error.starts_with("optimizer.learningRate is "), "{error}");
    }

    fn recipe(text: &str) -> Recipe {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn a_recipe_says_the_same_in_integers() {
        let recipe = recipe(
            "model: { mlp: { layers: [64, 32, 10] } }\noptimizer: { adamw: { learningRate: '0.01' } }\n\
             schedule: { cosine: { warmup: 5, floor: 10% } }\nbatchSize: 16\ngradientAccumulation: 2\nsteps: 100\n",
        );
        let made = exact(&recipe, Format::I8, Sizes { rows: 200, held_out: 20 }).unwrap();
        let expected = exact::Recipe {
            model: exact::Model::Mlp { widths: vec![64, 32, 10] },
            loss: exact::Loss::CrossEntropy,
            dropout: exact::Decimal::ZERO,
            optimizer: exact::Optimizer::AdamW {
                beta1: exact::Decimal::new(9, 10),
                beta2: exact::Decimal::new(999, 1_000),
                decay: exact::Decimal::new(1, 100),
            },
            rate: exact::Decimal::new(1, 100),
            schedule: exact::Schedule {
                warmup: 5,
                shape: exact::Shape::Cosine { floor: exact::Decimal::new(10, 100) },
            },
            format: Format::I8,
            steps: 100,
            batch: 32,
            accumulation: 2,
            rows: 200,
            held_out: 20,
        };
        assert_eq!(made, expected);
        assert!(freehold_exact::compile::compile(&made).is_ok());
    }

    #[test]
    fn decay_within_the_gradient_is_refused() {
        let recipe = recipe(
            "model: { mlp: { layers: [4, 2] } }\noptimizer: { adam: { learningRate: '0.01', weightDecay: '0.1' } }\n\
             batchSize: 4\nsteps: 1\n",
        );
        let error = exact(&recipe, Format::Wide, Sizes { rows: 4, held_out: 4 }).unwrap_err().to_string();
        assert!(error.contains("optimizer.adam.weightDecay is 0.1") && error.contains("adamw"), "{error}");
    }
}
