//! From a recipe to a program: the first state, a step with its backward pass and its update, an evaluation.

use crate::build::{Builder, declare};
use crate::fixed;
use crate::grad::PARAMETER_BITS as GRADIENT_SUM_BITS;
use crate::model::{self, ACTIVATION, BYTES, FINE, Parameter};
use crate::net::{GRADIENT, Net, Value};
use crate::op::Op;
use crate::optim::{self, PARAMETER, PARAMETER_BITS, bound};
use crate::program::{Declared, List, Program, Refusal};
use crate::recipe::{Decimal, Loss, Model, Optimizer, Recipe, Shape};
use crate::tensor::{Tensor, count};

/// Values of a feature: ±8 with 8 fractional bits.
pub const FEATURE_BITS: u32 = 11;
pub const MAX_STEPS: u32 = 1_000_000;
/// Rows of a step, over all its parts.
pub const MAX_BATCH: usize = 4_096;
const MAX_RATE: i64 = 32;
const MAX_WIDTH: usize = 4_096;
/// Windows of a text that an evaluation looks at.
const MAX_WINDOWS: usize = 64;
/// Places of the data: what is trained on, its labels, what is evaluated on, its labels. A text is its own label.
const ROWS: usize = 0;
const LABELS: usize = 1;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("recipe.{field} is {value}: {remedy}")]
    Recipe { field: &'static str, value: String, remedy: String },
    #[error("the recipe cannot be computed exactly: {0}; use smaller layers, or `exact-i8`")]
    Refused(#[from] Refusal),
}

pub fn compile(recipe: &Recipe) -> Result<Program, Error> {
    check(recipe)?;
    let parameters = model::parameters(&recipe.model);
    let program = Program {
        steps: recipe.steps,
        state: state(recipe, &parameters),
        data: data(recipe),
        metrics: vec!["correct".into(), "loss".into()],
        ..Program::default()
    };
    let program = init(recipe, &parameters, program)?;
    let program = step(recipe, &parameters, program)?;
    let program = evaluate(recipe, &parameters, program)?;
    program.check()?;
    Ok(program)
}

fn check(recipe: &Recipe) -> Result<(), Error> {
    let wrong = |field, value: String, remedy: String| Err(Error::Recipe { field, value, remedy });
    let at_most = |field, value: usize, most: usize| match value {
        0 => Err(Error::Recipe { field, value: "0".into(), remedy: "give at least 1".into() }),
        value if value > most => {
            Err(Error::Recipe { field, value: value.to_string(), remedy: format!("give at most {most}") })
        }
        _ => Ok(()),
    };
    at_most("steps", recipe.steps as usize, MAX_STEPS as usize)?;
    at_most("batchSize", recipe.batch, MAX_BATCH)?;
    at_most("gradientAccumulation", recipe.accumulation, recipe.batch)?;
    if !recipe.batch.is_multiple_of(recipe.accumulation) {
        let remedy = format!("give a divisor of batchSize, {}", recipe.batch);
        return wrong("gradientAccumulation", recipe.accumulation.to_string(), remedy);
    }
    numbers(recipe)?;
    if !(0..fixed::ONE).contains(&recipe.dropout.fixed()) {
        let given = format!("{} / {}", recipe.dropout.units, recipe.dropout.of);
        return wrong("dropout", given, "give at least 0 and less than 1".into());
    }
    match &recipe.model {
        Model::Mlp { widths } if widths.len() < 2 => {
            wrong("model.mlp.layers", format!("{widths:?}"), "name at least the features and the classes".into())
        }
        Model::Mlp { widths } => widths.iter().try_for_each(|width| at_most("model.mlp.layers", *width, MAX_WIDTH)),
        Model::Cnn { channels, kernel, hidden, .. } => {
            channels.iter().try_for_each(|depth| at_most("model.cnn.channels", *depth, MAX_WIDTH))?;
            at_most("model.cnn.kernel", *kernel, 5)?;
            at_most("model.cnn.hidden", *hidden, MAX_WIDTH)
        }
        Model::Transformer { width, heads, context, .. } => {
            at_most("model.transformer.width", *width, MAX_WIDTH)?;
            at_most("model.transformer.context", *context, 1_024)?;
            at_most("model.transformer.heads", *heads, *width)?;
            if !width.is_multiple_of(*heads) {
                let remedy = format!("give a divisor of the width, {width}");
                return wrong("model.transformer.heads", heads.to_string(), remedy);
            }
            let least = context + 1;
            for (field, bytes) in [("data.text", recipe.rows), ("data.heldOut", recipe.held_out)] {
                if bytes < least {
                    return wrong(field, format!("{bytes} bytes long"), format!("give at least {least}, context + 1"));
                }
            }
            Ok(())
        }
    }
}

/// Products of two of these fit into 128 bits with 120 fractional ones.
fn numbers(recipe: &Recipe) -> Result<(), Error> {
    let at_most = |field, number: Decimal, most: i64| match number.units {
        units if units < 0 => Err((field, number, "give at least 0".to_owned())),
        _ if number.fixed() > i128::from(most) * fixed::ONE => Err((field, number, format!("give at most {most}"))),
        _ => Ok(()),
    };
    let optimizer = match recipe.optimizer {
        Optimizer::Sgd { momentum, decay } => {
            [("optimizer.momentum", momentum), ("optimizer.weightDecay", decay)].to_vec()
        }
        Optimizer::AdamW { beta1, beta2, decay } => {
            [("optimizer.beta1", beta1), ("optimizer.beta2", beta2), ("optimizer.weightDecay", decay)].to_vec()
        }
    };
    let schedule = match recipe.schedule.shape {
        Shape::Constant => None,
        Shape::Linear { floor } => Some(("schedule.linear.floor", floor)),
        Shape::Cosine { floor } => Some(("schedule.cosine.floor", floor)),
        Shape::Step { factor, .. } => Some(("schedule.step.factor", factor)),
    };
    at_most("optimizer.learningRate", recipe.rate, MAX_RATE)
        .and_then(|()| optimizer.into_iter().chain(schedule).try_for_each(|(field, number)| at_most(field, number, 1)))
        .map_err(|(field, number, remedy)| Error::Recipe { field, value: number.to_string(), remedy })
}

/// Each parameter, followed by what the optimizer remembers of it.
fn state(recipe: &Recipe, parameters: &[Parameter]) -> Vec<Declared> {
    let remembered = optim::remembered(&recipe.optimizer);
    let high = bound(PARAMETER_BITS);
    let of = |parameter: &Parameter| {
        let own = declare(&parameter.name, &parameter.shape, -high, high);
        let more = remembered
            .iter()
            .map(|(name, _, low, high)| declare(&format!("{}.{name}", parameter.name), &parameter.shape, *low, *high));
        [vec![own], more.collect()].concat()
    };
    parameters.iter().flat_map(of).collect()
}

fn classes(model: &Model) -> usize {
    match model {
        Model::Mlp { widths } => widths.last().copied().unwrap_or(1),
        Model::Cnn { classes, .. } => *classes,
        Model::Transformer { .. } => BYTES,
    }
}

fn data(recipe: &Recipe) -> Vec<Declared> {
    let high = bound(FEATURE_BITS);
    let features = match &recipe.model {
        Model::Mlp { widths } => widths[0],
        Model::Cnn { image, .. } => image.iter().product(),
        Model::Transformer { .. } => {
            let text = |name: &str, length| declare(name, &[length], 0, BYTES as i64 - 1);
            return vec![text("text", recipe.rows), text("heldOut", recipe.held_out)];
        }
    };
    let last = classes(&recipe.model) as i64 - 1;
    let rows = |name: &str, rows| declare(name, &[rows, features], -high, high);
    let labels = |name: &str, rows| declare(name, &[rows], 0, last);
    vec![
        rows("features", recipe.rows),
        labels("labels", recipe.rows),
        rows("heldOutFeatures", recipe.held_out),
        labels("heldOutLabels", recipe.held_out),
    ]
}

fn init(recipe: &Recipe, parameters: &[Parameter], program: Program) -> Result<Program, Error> {
    let mut net = Net::new(Builder::new(program, List::Init), recipe.format);
    let mut results = Vec::new();
    for (stream, parameter) in parameters.iter().enumerate() {
        results.push(model::first(&mut net, parameter, stream as u32)?);
        for (_, fraction, ..) in optim::remembered(&recipe.optimizer) {
            results.push(net.filled(0, &parameter.shape, fraction)?);
        }
    }
    Ok(net.finish(&results))
}

/// What the state holds: parameters, and by parameter what is remembered.
fn take_state(net: &mut Net, recipe: &Recipe, count: usize) -> Result<(Vec<Value>, Vec<Vec<Value>>), Refusal> {
    let remembered = optim::remembered(&recipe.optimizer);
    let each = 1 + remembered.len();
    let (mut parameters, mut memories) = (Vec::new(), Vec::new());
    for index in 0..count {
        parameters.push(net.state(index * each, PARAMETER)?);
        let more = remembered.iter().enumerate().map(|(at, (_, fraction, ..))| (index * each + 1 + at, *fraction));
        memories.push(more.map(|(at, fraction)| net.state(at, fraction)).collect::<Result<Vec<_>, _>>()?);
    }
    Ok((parameters, memories))
}

fn step(recipe: &Recipe, parameters: &[Parameter], program: Program) -> Result<Program, Error> {
    let mut net = Net::new(Builder::new(program, List::Step), recipe.format).with_dropout(recipe.dropout.fixed());
    let (weights, memories) = take_state(&mut net, recipe, parameters.len())?;
    let rows = match recipe.model {
        Model::Transformer { context, .. } => recipe.rows - context,
        _ => recipe.rows,
    };
    let drawn = net.source(Op::Sample { rows: rows as u64 }, &[recipe.batch], 0)?;
    let part = recipe.batch / recipe.accumulation;
    let mut sums: Vec<Option<Value>> = vec![None; weights.len()];
    let mut labels_in_all = 0;
    for at in 0..recipe.accumulation {
        let index = net.slice(drawn, 0, at * part, part)?;
        let (input, labels) = batch(&mut net, recipe, index)?;
        labels_in_all += count(&net.shape(labels));
        let logits = model::forward(&mut net, &recipe.model, &weights, input)?;
        let gradient = match recipe.loss {
            Loss::CrossEntropy => {
                let probabilities = net.softmax(logits, None)?;
                net.cross_entropy_gradient(probabilities, labels)?
            }
            Loss::SquaredError => net.aside(|net| net.off(logits, labels))?,
        };
        let gradients = net.logit_gradients(logits, gradient, &weights)?;
        for (sum, gradient) in sums.iter_mut().zip(gradients) {
            *sum = match (*sum, gradient) {
                (Some(before), Some(new)) => Some(net.add_aside(before, new)?),
                (before, new) => before.or(new),
            };
        }
        net.forget();
    }
    // A mean over the next power of two: that is a shift, and the rate makes up for the rest.
    let halvings = labels_in_all.next_power_of_two().trailing_zeros();
    let parts = (fixed::ONE << halvings) / labels_in_all as i128;
    let at = net.source(Op::Step, &[], 0)?;
    let rates = optim::rates(&mut net, recipe, at, parts)?;
    let mut results = Vec::new();
    for ((weight, sum), memory) in weights.iter().zip(sums).zip(&memories) {
        let gradient = match sum {
            Some(sum) => {
                let mean = net.scale(sum, halvings.cast_signed());
                net.round(mean, GRADIENT)?
            }
            None => net.filled(0, &net.shape(*weight), GRADIENT)?,
        };
        results.extend(optim::step(&mut net, &recipe.optimizer, &rates, *weight, gradient, memory)?);
    }
    Ok(net.finish(&results))
}

/// Inputs of the model and a label for each row of logits.
fn batch(net: &mut Net, recipe: &Recipe, index: Value) -> Result<(Value, Value), Refusal> {
    let Model::Transformer { context, .. } = recipe.model else {
        let (rows, labels) = (net.data(ROWS, ACTIVATION)?, net.data(LABELS, 0)?);
        return Ok((net.gather(rows, index)?, net.gather(labels, index)?));
    };
    let text = net.data(ROWS, 0)?;
    let windows = net.shape(index)[0];
    let begin = net.reshape(index, &[windows, 1])?;
    let begin = net.broadcast(begin, &[windows, context + 1])?;
    let places = net.constant("places", Tensor::row((0..=context as i64).collect()), 0)?;
    let places = net.broadcast(places, &[windows, context + 1])?;
    let places = net.add(begin, places)?;
    windows_of(net, text, places, context)
}

/// The bytes at these places: all but the last of a window, and all but the first.
fn windows_of(net: &mut Net, text: Value, places: Value, context: usize) -> Result<(Value, Value), Refusal> {
    let windows = net.shape(places)[0];
    let places = net.clamp(places, 0, net.shape(text)[0] as i64 - 1)?;
    let bytes = net.gather(text, places)?;
    let input = net.slice(bytes, 1, 0, context)?;
    let next = net.slice(bytes, 1, 1, context)?;
    Ok((input, net.reshape(next, &[windows * context])?))
}

/// Labels that an evaluation counts.
pub fn evaluated(recipe: &Recipe) -> usize {
    match recipe.model {
        Model::Transformer { context, .. } => (recipe.held_out.saturating_sub(1) / context).min(MAX_WINDOWS) * context,
        _ => recipe.held_out,
    }
}

/// How many labels are the likeliest class, and the sum of the losses (cross-entropies in nats) with 12 fractional bits.
fn evaluate(recipe: &Recipe, parameters: &[Parameter], program: Program) -> Result<Program, Error> {
    let mut net = Net::new(Builder::new(program, List::Evaluate), recipe.format);
    let (weights, _) = take_state(&mut net, recipe, parameters.len())?;
    let (input, labels) = match recipe.model {
        Model::Transformer { context, .. } => {
            let text = net.data(1, 0)?;
            let windows = evaluated(recipe) / context;
            let places = (0..windows).flat_map(|window| (0..=context).map(move |at| (window * context + at) as i64));
            let places = Tensor::new([windows, context + 1], places.collect());
            let places = places.map_err(|error| Refusal::Program(error.to_string()))?;
            let places = net.constant("windows", places, 0)?;
            windows_of(&mut net, text, places, context)?
        }
        _ => (net.data(2, ACTIVATION)?, net.data(3, 0)?),
    };
    let logits = model::forward(&mut net, &recipe.model, &weights, input)?;
    let results = net.judge(logits, labels, recipe.loss)?;
    Ok(net.finish(&results))
}

impl Net {
    /// How many labels are the likeliest class, and the sum of the losses.
    pub(crate) fn judge(&mut self, logits: Value, labels: Value, loss: Loss) -> Result<[Value; 2], Refusal> {
        let rows = count(&self.shape(labels));
        let best = self.argmax(logits)?;
        let best = self.reshape(best, &[rows])?;
        let right = self.equal(best, labels)?;
        let correct = self.sum(right)?;
        let losses = match loss {
            Loss::CrossEntropy => self.cross_entropy(logits, labels)?,
            Loss::SquaredError => self.squared_error(logits, labels)?,
        };
        let losses = self.reshape(losses, &[rows])?;
        let loss = self.sum(losses)?;
        Ok([correct, loss])
    }

    /// ln Σ e^(x − largest) + largest − x of the label, for each row: `[N, classes]` and `[N]` → `[N, 1]`.
    pub fn cross_entropy(&mut self, logits: Value, labels: Value) -> Result<Value, Refusal> {
        let shape = self.shape(logits);
        let largest = self.max(logits)?;
        let spread = self.broadcast(largest, &shape)?;
        let powers = self.exponentials(spread, logits, None)?;
        let sum = self.sum(powers)?;
        let all = self.round(sum, LN_STEPS)?;
        let entries = (shape[1] << LN_STEPS) as i64;
        let all = self.clamp(all, 1 << LN_STEPS, entries)?;
        let entry = |j: i64| match j {
            0 => 0,
            j => fixed::rounded(fixed::ln(fixed::ratio(j, 1 << LN_STEPS)), FINE.unsigned_abs()),
        };
        let table = self.constant("ln", Tensor::row((0..=entries).map(entry).collect()), FINE)?;
        let logarithm = self.look_up(table, all)?;
        let wanted = self.one_hot(labels, shape[1])?;
        let own = self.mul(wanted, logits)?;
        let own = self.sum(own)?;
        let below = self.sub(largest, own)?;
        self.add(logarithm, below)
    }

    /// Logits less 1 for the label's class: `[N, classes]` and `[N]`. So is the gradient of half the squares' sum.
    pub fn off(&mut self, logits: Value, labels: Value) -> Result<Value, Refusal> {
        let classes = self.shape(logits)[1];
        let wanted = self.one_hot(labels, classes)?;
        let wanted = self.round(wanted, self.fraction(logits))?;
        let off = self.sub(logits, wanted)?;
        // Squares have twice the bits, and a row of them is added up: below 2^51.
        let row = classes.next_power_of_two().trailing_zeros();
        self.keep(off, (50 - row) / 2)
    }

    /// Half the sum of the squares of what a row is off: `[N, classes]` and `[N]` → `[N, 1]`.
    pub fn squared_error(&mut self, logits: Value, labels: Value) -> Result<Value, Refusal> {
        let off = self.off(logits, labels)?;
        let squares = self.mul(off, off)?;
        let sum = self.sum(squares)?;
        let half = self.scale(sum, 1);
        self.round(half, FINE)
    }

    /// Gradients of parameters, from that of the logits.
    fn logit_gradients(
        &mut self,
        logits: Value,
        gradient: Value,
        weights: &[Value],
    ) -> Result<Vec<Option<Value>>, Refusal> {
        self.gradients(&[(logits, gradient)], weights)
    }

    fn add_aside(&mut self, x: Value, y: Value) -> Result<Value, Refusal> {
        let both = self.add(x, y)?;
        self.keep(both, GRADIENT_SUM_BITS)
    }
}

/// Fractional bits of what a logarithm is looked up for.
const LN_STEPS: i32 = 6;
