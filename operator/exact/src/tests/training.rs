//! Recipes become programs that learn.

use rstest::rstest;

use super::*;
use crate::compile::{Error, compile};
use crate::draw;
use crate::net::Format;
use crate::recipe::{Decimal, Loss, Model, Optimizer, Recipe, Schedule, Shape};

const SGD: Optimizer = Optimizer::Sgd { momentum: Decimal { units: 9, of: 10 }, decay: Decimal::ZERO };
const ADAM: Optimizer = Optimizer::AdamW {
    beta1: Decimal { units: 9, of: 10 },
    beta2: Decimal { units: 99, of: 100 },
    decay: Decimal { units: 1, of: 100 },
};

fn mlp(optimizer: Optimizer, rate: Decimal, format: Format) -> Recipe {
    Recipe {
        model: Model::Mlp { widths: vec![8, 16, 4] },
        loss: Loss::CrossEntropy,
        dropout: Decimal::ZERO,
        optimizer,
        rate,
        schedule: Schedule { warmup: 2, shape: Shape::Cosine { floor: Decimal::ZERO } },
        format,
        steps: 60,
        batch: 16,
        accumulation: 1,
        rows: 64,
        held_out: 32,
    }
}

/// Rows around a centre for each class, and their labels.
fn clusters(rows: usize, features: usize, classes: usize, seed: u32) -> (Tensor, Tensor) {
    let draw = |stream: u32, at: usize, below: u64| draw::row(&B256::repeat_byte(4), stream, at as u64, below);
    let labels: Vec<i64> = (0..rows).map(|row| draw(seed, row, classes as u64)).collect();
    let value = |place: usize| {
        let (row, feature) = (place / features, place % features);
        let centre = draw(1_000 + labels[row] as u32, feature, 1_025) - 512;
        centre + draw(seed + 1, place, 257) - 128
    };
    let values: Vec<i64> = (0..rows * features).map(value).collect();
    (tensor(&[rows, features], &values), tensor(&[rows], &labels))
}

struct Run {
    program: Program,
    data: Vec<Arc<Tensor>>,
    state: Vec<Arc<Tensor>>,
}

impl Run {
    fn new(recipe: &Recipe, data: Vec<Tensor>) -> Self {
        let program = compile(recipe).unwrap();
        let data: Vec<Arc<Tensor>> = data.into_iter().map(Arc::new).collect();
        let inputs = Inputs { state: &[], data: &data, context: Context { step: 0, ..context() } };
        let state = interpret::run(&program, List::Init, &inputs).unwrap();
        Self { program, data, state }
    }

    fn train(&mut self, steps: std::ops::Range<u32>) {
        for step in steps {
            let inputs = Inputs { state: &self.state, data: &self.data, context: Context { step, ..context() } };
            self.state = interpret::run(&self.program, List::Step, &inputs).unwrap();
        }
    }

    /// How many are right, and the sum of the losses in nats.
    fn evaluate(&self) -> (i64, f64) {
        let inputs = Inputs { state: &self.state, data: &self.data, context: context() };
        let results = interpret::run(&self.program, List::Evaluate, &inputs).unwrap();
        (results[0].values()[0], results[1].values()[0] as f64 / 4_096.0)
    }
}

fn on_clusters(recipe: &Recipe, features: usize) -> Run {
    let (rows, labels) = clusters(recipe.rows, features, 4, 10);
    let (held_out, held_out_labels) = clusters(recipe.held_out, features, 4, 20);
    Run::new(recipe, vec![rows, labels, held_out, held_out_labels])
}

#[rstest]
#[case(SGD, Decimal::new(1, 10), Format::Wide)]
#[case(SGD, Decimal::new(1, 10), Format::I8)]
#[case(ADAM, Decimal::new(1, 100), Format::Wide)]
#[case(ADAM, Decimal::new(1, 100), Format::I8)]
fn an_mlp_learns(#[case] optimizer: Optimizer, #[case] rate: Decimal, #[case] format: Format) {
    let recipe = mlp(optimizer, rate, format);
    let mut run = on_clusters(&recipe, 8);
    let (_, before) = run.evaluate();
    assert!((1.0..2.5).contains(&(before / 32.0)), "an untrained net knows nothing: {before}");
    run.train(0..recipe.steps);
    let (correct, after) = run.evaluate();
    assert!(correct >= 30 && after < before / 4.0, "{correct} of 32, loss {before} → {after}");
}

/// Sums over the rows are folded, whatever number of them there is: 1,031 is a prime.
#[test]
fn any_number_of_rows_is_evaluated() {
    let of = |held_out| Recipe { held_out, ..mlp(SGD, Decimal::new(1, 10), Format::Wide) };
    let whole = on_clusters(&of(1_031), 8);
    let part = |from: usize, to: usize| {
        let cut = |of: &Tensor, row: &[usize]| {
            let each: usize = row.iter().product();
            let shape: Vec<usize> = std::iter::once(to - from).chain(row.iter().copied()).collect();
            tensor(&shape, &of.values()[from * each..to * each])
        };
        let data = whole.data.iter().enumerate().map(|(at, all)| match at {
            0 | 1 => all.as_ref().clone(),
            _ => cut(all, &all.shape()[1..]),
        });
        Run::new(&of(to - from), data.collect()).evaluate()
    };
    let (first, second) = (part(0, 1_000), part(1_000, 1_031));
    assert_eq!(whole.evaluate(), (first.0 + second.0, first.1 + second.1));
}

#[rstest]
#[case(SGD, Format::Wide)]
#[case(ADAM, Format::I8)]
fn squares_are_learned_too(#[case] optimizer: Optimizer, #[case] format: Format) {
    let recipe = Recipe { loss: Loss::SquaredError, ..mlp(optimizer, Decimal::new(2, 100), format) };
    let mut run = on_clusters(&recipe, 8);
    let (_, before) = run.evaluate();
    run.train(0..recipe.steps);
    let (correct, after) = run.evaluate();
    assert!(correct >= 28 && after < before / 2.0, "{correct} of 32, loss {before} → {after}");
}

#[rstest]
#[case(Format::Wide)]
#[case(Format::I8)]
fn a_net_learns_with_a_part_left_out(#[case] format: Format) {
    let whole = mlp(ADAM, Decimal::new(1, 100), format);
    let recipe = Recipe { dropout: Decimal::new(25, 100), ..whole.clone() };
    let (mut run, mut other) = (on_clusters(&recipe, 8), on_clusters(&whole, 8));
    assert_eq!(run.state, other.state, "first values are drawn from streams of their own");
    let (_, before) = run.evaluate();
    run.train(0..recipe.steps);
    other.train(0..recipe.steps);
    assert_ne!(run.state, other.state);
    let (correct, after) = run.evaluate();
    assert!(correct >= 28 && after < before / 2.0, "{correct} of 32, loss {before} → {after}");
}

#[test]
fn every_part_of_a_batch_leaves_out_others() {
    let recipe = Recipe {
        model: Model::Transformer { width: 16, heads: 2, layers: 2, context: 8, tied: false },
        dropout: Decimal::new(1, 10),
        accumulation: 2,
        rows: 200,
        held_out: 41,
        ..mlp(ADAM, Decimal::new(2, 100), Format::Wide)
    };
    let program = compile(&recipe).unwrap();
    let streams = |graph: &crate::program::Graph| -> Vec<u32> {
        let stream = |node: &crate::program::Node| match node.op {
            Op::Random { stream, .. } => Some(stream),
            _ => None,
        };
        graph.nodes.iter().filter_map(stream).collect()
    };
    let (first, of_step) = (streams(&program.init), streams(&program.step));
    assert_eq!(of_step.len(), 2 * 2 * 2, "twice a block, in each part");
    let all = [first, of_step].concat();
    let distinct: std::collections::BTreeSet<&u32> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
    assert!(streams(&program.evaluate).is_empty(), "an evaluation leaves out nothing");
}

#[test]
fn a_batch_in_parts_is_the_same_batch() {
    let whole = Recipe { steps: 3, ..mlp(SGD, Decimal::new(1, 10), Format::Wide) };
    let parts = Recipe { accumulation: 4, ..whole.clone() };
    let (mut whole, mut parts) = (on_clusters(&whole, 8), on_clusters(&parts, 8));
    assert_ne!(whole.program.id(), parts.program.id());
    whole.train(0..3);
    parts.train(0..3);
    for (one, other) in whole.state.iter().zip(&parts.state) {
        let off = one.values().iter().zip(other.values()).map(|(x, y)| (x - y).abs()).max().unwrap();
        assert!(off <= 64, "parts are rounded each for itself, by some units of 2^−20, not by {off}");
    }
}

#[rstest]
#[case(Format::Wide)]
#[case(Format::I8)]
fn a_convolution_learns(#[case] format: Format) {
    let recipe = Recipe {
        model: Model::Cnn { image: [1, 4, 4], channels: vec![4, 4], kernel: 3, hidden: 8, classes: 4 },
        steps: 40,
        ..mlp(ADAM, Decimal::new(2, 100), format)
    };
    let mut run = on_clusters(&recipe, 16);
    let (_, before) = run.evaluate();
    run.train(0..recipe.steps);
    let (correct, after) = run.evaluate();
    assert!(correct >= 20 && after < before * 0.7, "{correct} of 32, loss {before} → {after}");
}

#[rstest]
#[case(Format::Wide, true)]
#[case(Format::I8, false)]
fn a_transformer_learns(#[case] format: Format, #[case] tied: bool) {
    let text: Vec<i64> = b"abcdefgh".iter().cycle().take(200).map(|byte| i64::from(*byte)).collect();
    let recipe = Recipe {
        model: Model::Transformer { width: 16, heads: 2, layers: 1, context: 8, tied },
        steps: 20,
        batch: 4,
        rows: 200,
        held_out: 41,
        ..mlp(ADAM, Decimal::new(2, 100), format)
    };
    let mut run = Run::new(&recipe, vec![tensor(&[200], &text), tensor(&[41], &text[..41])]);
    let (_, before) = run.evaluate();
    run.train(0..recipe.steps);
    let (correct, after) = run.evaluate();
    assert!(after < before / 2.0, "{correct} of 40, loss {before} → {after}");
}

#[rstest]
#[case(|r: &mut Recipe| r.steps = 0, "recipe.steps is 0: give at least 1")]
#[case(|r: &mut Recipe| r.batch = 5_000, "recipe.batchSize is 5000: give at most 4096")]
#[case(|r: &mut Recipe| r.accumulation = 3, "recipe.gradientAccumulation is 3: give a divisor of batchSize, 16")]
#[case(|r: &mut Recipe| r.dropout = Decimal::ONE, "recipe.dropout is 1 / 1: give at least 0 and less than 1")]
#[case(|r: &mut Recipe| r.model = Model::Mlp { widths: vec![8] }, "recipe.model.mlp.layers is [8]: name at least the features and the classes")]
#[case(|r: &mut Recipe| r.model = Model::Transformer { width: 10, heads: 3, layers: 1, context: 4, tied: true },
    "recipe.model.transformer.heads is 3: give a divisor of the width, 10")]
#[case(|r: &mut Recipe| r.model = Model::Transformer { width: 8, heads: 2, layers: 1, context: 64, tied: true },
    "recipe.data.text is 64 bytes long: give at least 65, context + 1")]
#[case(|r: &mut Recipe| r.rate = Decimal::new(999, 10), "recipe.optimizer.learningRate is 99.9: give at most 32")]
#[case(|r: &mut Recipe| r.optimizer = Optimizer::Sgd { momentum: Decimal::ZERO, decay: Decimal::new(12_005, 10_000) },
    "recipe.optimizer.weightDecay is 1.2005: give at most 1")]
#[case(|r: &mut Recipe| r.schedule.shape = Shape::Step { every: 1, factor: Decimal::new(3, 2) },
    "recipe.schedule.step.factor is 3/2: give at most 1")]
fn a_recipe_is_refused_with_the_field_the_value_and_the_remedy(
    #[case] spoil: impl Fn(&mut Recipe),
    #[case] cause: &str,
) {
    let mut recipe = mlp(SGD, Decimal::new(1, 10), Format::Wide);
    spoil(&mut recipe);
    let error = compile(&recipe).unwrap_err();
    assert!(matches!(error, Error::Recipe { .. }));
    assert_eq!(error.to_string(), cause);
}
