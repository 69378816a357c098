//! The backward pass against finite differences of the same net in real numbers, without any rounding; and every rule, made
//! wrong, is found out.

use std::collections::BTreeMap;

use rstest::rstest;

use super::*;
use crate::build::declare;
use crate::draw;
use crate::interpret::trace;
use crate::net::{Entry, Format, GRADIENT, Net, Rule, Value};
use crate::op::Window;
use crate::tensor::{count, row_length};

/// What a mutant's rule gives: the first operand's part twice.
pub(crate) fn spoiled(net: &mut Net, entry: &Entry, mut parts: Vec<(Value, Value)>) -> Vec<(Value, Value)> {
    if net.mutant == Some(entry.rule.name()) {
        parts[0].1 = net.scale(parts[0].1, -1);
    }
    parts
}

type Reals = BTreeMap<Value, Vec<f64>>;

/// Where each element of an index map's result comes from, and where none does.
fn map(op: Op, from: &[usize], to: &[usize]) -> Vec<Option<usize>> {
    let places = tensor(from, &(1..=count(from) as i64).collect::<Vec<_>>());
    let moved = compute(op, &[places], to).unwrap();
    moved.values().iter().map(|place| usize::try_from(place - 1).ok()).collect()
}

fn taken(map: &[Option<usize>], values: &[f64]) -> Vec<f64> {
    map.iter().map(|place| place.map_or(0.0, |place| values[place])).collect()
}

/// A result in real numbers. `exp` stands for the only table there is.
fn forward(net: &Net, entry: &Entry, known: &Reals) -> Vec<f64> {
    let of = |which: usize| &known[&entry.of[which]];
    let shape = |which: usize| net.shape(entry.of[which]);
    let result = net.shape(entry.result);
    let each = |f: &dyn Fn(f64) -> f64| of(0).iter().map(|x| f(*x)).collect();
    let both = |f: &dyn Fn(f64, f64) -> f64| of(0).iter().zip(of(1)).map(|(x, y)| f(*x, *y)).collect();
    let unit = f64::from(net.fraction(entry.of[0])).exp2();
    match &entry.rule {
        Rule::Product => {
            let (a, b) = (shape(0), shape(1));
            let (m, n, k) = (a[a.len() - 2], b[b.len() - 2], row_length(&a));
            let dot = |place: usize| {
                let (batch, row, column) = (place / (m * n), place / n, place % n);
                (0..k).map(|at| of(0)[row * k + at] * of(1)[(batch * n + column) * k + at]).sum()
            };
            (0..count(&result)).map(dot).collect()
        }
        Rule::Transpose { order } => taken(&map(Op::Transpose { order: order.clone() }, &shape(0), &result), of(0)),
        Rule::Reshape { scale } => each(&|x| x * f64::from(-scale).exp2()),
        Rule::Broadcast => taken(&map(Op::Broadcast, &shape(0), &result), of(0)),
        Rule::Slice { dimension, start } => {
            taken(&map(Op::Slice { dimension: *dimension, start: *start }, &shape(0), &result), of(0))
        }
        Rule::Im2col(window) => taken(&map(Op::Im2col(*window), &shape(0), &result), of(0)),
        Rule::Gather => {
            let row = count(&shape(0)[1..]);
            of(1).iter().flat_map(|index| of(0)[*index as usize * row..][..row].to_vec()).collect()
        }
        Rule::Add => both(&|x, y| x + y),
        Rule::Sub => both(&|x, y| x - y),
        Rule::Mul => both(&|x, y| x * y),
        Rule::Div => both(&|x, y| x / y),
        Rule::Clamp { low, high } => each(&|x| x.clamp(*low as f64 / unit, *high as f64 / unit)),
        Rule::Select => {
            of(0).iter().zip(of(1).iter().zip(of(2))).map(|(c, (x, y))| if *c != 0.0 { *x } else { *y }).collect()
        }
        Rule::Relu => each(&|x| x.max(0.0)),
        Rule::Round => of(0).clone(),
        Rule::Root => each(&f64::sqrt),
        Rule::Max => {
            of(0).chunks(row_length(&shape(0))).map(|row| row.iter().copied().fold(f64::MIN, f64::max)).collect()
        }
        Rule::Sum => of(0).chunks(row_length(&shape(0))).map(|row| row.iter().sum()).collect(),
        Rule::Table => of(1).iter().map(|x| (-x).exp()).collect(),
        Rule::Softmax => {
            let rows = of(0).chunks(row_length(&shape(0))).flat_map(|row| {
                let powers: Vec<f64> = row.iter().map(|x| x.exp()).collect();
                let all: f64 = powers.iter().sum();
                powers.into_iter().map(move |power| power / all)
            });
            rows.collect()
        }
    }
}

/// A net on leaves with these shapes, fractions and ranges.
struct Case {
    leaves: Vec<(&'static [usize], i32, i64, i64)>,
    make: fn(&mut Net, &[Value]) -> Value,
    tolerance: f64,
}

/// Largest difference between the gradients by the program and by finite differences, as a part of the largest of them
/// where that is above 1, in units of the tolerance.
fn error(case: &Case, format: Format, seed: u8, mutant: Option<&'static str>) -> f64 {
    let data = case.leaves.iter().map(|(shape, _, low, high)| declare("x", shape, *low, *high)).collect();
    let mut net = Net::new(Builder::new(Program { data, ..Program::default() }, List::Evaluate), format);
    net.mutant = mutant;
    let leaves: Vec<Value> =
        case.leaves.iter().enumerate().map(|(index, (_, fraction, ..))| net.data(index, *fraction).unwrap()).collect();
    let result = (case.make)(&mut net, &leaves);
    let shape = net.shape(result);
    let drawn = |at: usize, stream: u64, low: i64, high: i64| {
        low + draw::row(&B256::repeat_byte(seed), stream as u32, at as u64, high.abs_diff(low) + 1)
    };
    // The loss is the sum of the results, each times a weight between −1 and 1.
    let weights: Vec<i64> = (0..count(&shape)).map(|at| drawn(at, 99, -(1 << GRADIENT), 1 << GRADIENT)).collect();
    let given = net.constant("weights", tensor(&shape, &weights), GRADIENT).unwrap();
    let gradients = net.gradients(&[(result, given)], &leaves).unwrap();

    let values: Vec<Arc<Tensor>> = case
        .leaves
        .iter()
        .enumerate()
        .map(|(index, (shape, _, low, high))| {
            Arc::new(tensor(
                shape,
                &(0..count(shape)).map(|at| drawn(at, index as u64, *low, *high)).collect::<Vec<_>>(),
            ))
        })
        .collect();
    let tape = net.tape.clone();
    let ids: Vec<usize> = net.values.iter().map(|held| held.id.0).collect();
    let fractions: Vec<i32> = net.values.iter().map(|held| held.fraction).collect();
    let results: Vec<Value> = gradients.iter().flatten().copied().collect();
    let shapes: Vec<Vec<usize>> = leaves.iter().map(|leaf| net.shape(*leaf)).collect();
    let real = |known: &Reals, net: &Net| {
        let mut known = known.clone();
        for entry in &tape {
            let value = forward(net, entry, &known);
            known.insert(entry.result, value);
        }
        known[&result].iter().zip(&weights).map(|(y, w)| y * *w as f64 / f64::from(GRADIENT).exp2()).sum::<f64>()
    };
    // Everything that the tape does not make stands for what it is.
    let program = net.program(&results);
    program.check().unwrap();
    let traced = trace(&program, List::Evaluate, &Inputs { state: &[], data: &values, context: context() }).unwrap();
    let as_real = |value: usize| -> Vec<f64> {
        traced[ids[value]].values().iter().map(|i| *i as f64 / f64::from(fractions[value]).exp2()).collect()
    };
    let made: Vec<Value> = tape.iter().map(|entry| entry.result).collect();
    let known: Reals = (0..ids.len())
        .map(Value)
        .filter(|value| !made.contains(value))
        .map(|value| (value, as_real(value.0)))
        .collect();

    let (mut worst, mut largest) = (0.0_f64, 1.0_f64);
    for ((leaf, gradient), shape) in leaves.iter().zip(&gradients).zip(&shapes) {
        if fractions[leaf.0] == 0 {
            continue; // an index, or a condition
        }
        let found = gradient.map(|value| as_real(value.0));
        for at in 0..count(shape) {
            let h = 1e-5;
            let moved = |by: f64| {
                let mut known = known.clone();
                known.get_mut(leaf).unwrap()[at] += by;
                real(&known, &net)
            };
            let expected = (moved(h) - moved(-h)) / (2.0 * h);
            let found = found.as_ref().map_or(0.0, |found| found[at]);
            worst = worst.max((found - expected).abs());
            largest = largest.max(expected.abs());
        }
    }
    worst / largest / case.tolerance
}

fn case(leaves: &[(&'static [usize], i32, i64, i64)], tolerance: f64, make: fn(&mut Net, &[Value]) -> Value) -> Case {
    Case { leaves: leaves.to_vec(), make, tolerance }
}

/// From −4 to 4 with 12 fractional bits; positive: from ½ to 4.
const ANY: (i32, i64, i64) = (12, -(4 << 12), 4 << 12);

fn any(shape: &'static [usize]) -> (&'static [usize], i32, i64, i64) {
    (shape, ANY.0, ANY.1, ANY.2)
}

fn positive(shape: &'static [usize]) -> (&'static [usize], i32, i64, i64) {
    (shape, 12, 1 << 11, 4 << 12)
}

fn index(shape: &'static [usize], below: i64) -> (&'static [usize], i32, i64, i64) {
    (shape, 0, 0, below - 1)
}

fn exp(net: &mut Net, sign: i64) -> Value {
    let entry = |j| sign * crate::fixed::rounded(crate::fixed::exp_neg(crate::fixed::ratio(j, 1 << 12)), 20);
    net.constant("exp", Tensor::row((0..20_000).map(entry).collect()), 20).unwrap()
}

/// One case a rule. Tolerances: what rounding to 2^−12 and 2^−20 on the way can come to.
fn cases() -> Vec<(&'static str, Case)> {
    const SMALL: f64 = 1e-4;
    vec![
        ("product", case(&[any(&[2, 3, 5]), any(&[2, 4, 5])], SMALL, |n, x| n.product(x[0], x[1], 16).unwrap())),
        ("transpose", case(&[any(&[2, 3, 4])], SMALL, |n, x| n.transpose(x[0], &[2, 0, 1]).unwrap())),
        (
            "reshape",
            case(&[any(&[2, 3])], SMALL, |n, x| {
                let half = n.scale(x[0], 1);
                n.reshape(half, &[3, 2]).unwrap()
            }),
        ),
        ("broadcast", case(&[any(&[3, 1])], SMALL, |n, x| n.broadcast(x[0], &[2, 3, 4]).unwrap())),
        ("slice", case(&[any(&[4, 3])], SMALL, |n, x| n.slice(x[0], 0, 1, 2).unwrap())),
        (
            "im2col",
            case(&[any(&[1, 2, 4, 4])], SMALL, |n, x| {
                n.im2col(x[0], Window { kernel: [3, 3], stride: 1, padding: 1 }).unwrap()
            }),
        ),
        ("gather", case(&[any(&[4, 3]), index(&[5], 4)], SMALL, |n, x| n.gather(x[0], x[1]).unwrap())),
        ("add", case(&[any(&[4]), any(&[4])], SMALL, |n, x| n.add(x[0], x[1]).unwrap())),
        ("sub", case(&[any(&[4]), any(&[4])], SMALL, |n, x| n.sub(x[0], x[1]).unwrap())),
        ("mul", case(&[any(&[4]), any(&[4])], SMALL, |n, x| n.mul(x[0], x[1]).unwrap())),
        ("mul", case(&[any(&[4])], SMALL, |n, x| n.mul(x[0], x[0]).unwrap())),
        ("clamp", case(&[any(&[16])], SMALL, |n, x| n.clamp(x[0], -5_000, 7_000).unwrap())),
        ("select", case(&[index(&[8], 2), any(&[8]), any(&[8])], SMALL, |n, x| n.select(x[0], x[1], x[2]).unwrap())),
        ("relu", case(&[any(&[8])], SMALL, |n, x| n.relu(x[0]).unwrap())),
        ("round", case(&[any(&[8])], SMALL, |n, x| n.round(x[0], 7).unwrap())),
        (
            "div",
            case(&[any(&[8]), positive(&[8])], 2e-2, |n, x| {
                let fine = n.round(x[0], 22).unwrap();
                n.div(fine, x[1]).unwrap()
            }),
        ),
        ("root", case(&[positive(&[8])], 2e-2, |n, x| n.root(x[0]).unwrap())),
        ("sum", case(&[any(&[2, 7])], SMALL, |n, x| n.sum(x[0]).unwrap())),
        ("max", case(&[any(&[3, 5])], SMALL, |n, x| n.max(x[0]).unwrap())),
        (
            "table",
            case(&[(&[6], 12, 0, 4 << 12)], SMALL, |n, x| {
                let (values, slopes) = (exp(n, 1), exp(n, -1));
                n.table(values, slopes, x[0]).unwrap()
            }),
        ),
        (
            "mul",
            case(&[(&[3, 4], 12, -(2 << 12), 2 << 12), index(&[3], 4)], 1e-3, |n, x| {
                n.squared_error(x[0], x[1]).unwrap()
            }),
        ),
        (
            "mul",
            case(&[any(&[8])], 1e-3, |n, x| {
                n.dropout = 1 << 14;
                n.dropped(x[0]).unwrap()
            }),
        ),
        ("softmax", case(&[any(&[2, 5])], 2e-2, |n, x| n.softmax(x[0], None).unwrap())),
    ]
}

#[test]
fn every_rule_has_a_case_is_right_and_is_found_out_when_wrong() {
    let mut seen = std::collections::BTreeSet::new();
    for (name, case) in cases() {
        seen.insert(name);
        for seed in 1..5 {
            let right = error(&case, Format::Wide, seed, None);
            assert!(right < 1.0, "{name}: {right} times the tolerance");
            let wrong = error(&case, Format::Wide, seed, Some(name));
            assert!(wrong > 1.0, "{name}: the mutant is within the tolerance");
        }
    }
    assert_eq!(seen.len(), 20, "the rules of `Rule`");
}

/// The two ways to the same gradient: by the rules from the loss, and written down.
#[test]
fn what_logits_are_off_is_the_gradient_of_the_squares() {
    let data = vec![declare("x", &[3, 4], -(4 << 12), 4 << 12), declare("labels", &[3], 0, 3)];
    let mut net = Net::new(Builder::new(Program { data, ..Program::default() }, List::Evaluate), Format::Wide);
    let (x, labels) = (net.data(0, 12).unwrap(), net.data(1, 0).unwrap());
    let loss = net.squared_error(x, labels).unwrap();
    let one = net.filled(1 << GRADIENT, &[3, 1], GRADIENT).unwrap();
    let derived = net.gradients(&[(loss, one)], &[x]).unwrap()[0].unwrap();
    let written = net.aside(|net| net.off(x, labels)).unwrap();
    let written = net.round(written, GRADIENT).unwrap();
    let program = net.program(&[derived, written]);
    let values = [tensor(&[3, 4], &[0, 5, -9, 8_192, 4_096, 1, 2, 3, -8_192, 7, 7, 7]), tensor(&[3], &[0, 3, 1])];
    let inputs = Inputs { state: &[], data: &values.map(Arc::new), context: context() };
    let results = interpret::run(&program, List::Evaluate, &inputs).unwrap();
    assert_eq!(results[0], results[1]);
    assert_eq!(results[1].values()[0], -(1 << GRADIENT));
}

#[test]
fn a_fourth_is_left_out_and_the_mean_stays() {
    let mut net = Net::new(Builder::new(Program { steps: 10, ..Program::default() }, List::Evaluate), Format::Wide);
    net = net.with_dropout(crate::fixed::ONE / 4);
    let x = net.filled(3 << 12, &[2_000], 12).unwrap();
    let (first, second) = (net.dropped(x).unwrap(), net.dropped(x).unwrap());
    let program = net.program(&[first, second]);
    let results =
        interpret::run(&program, List::Evaluate, &Inputs { state: &[], data: &[], context: context() }).unwrap();
    let draw = |stream, at| crate::draw::uniform(&context().seed, stream, context().step, at, 16) >= 1 << 14;
    for (stream, result) in results.iter().enumerate() {
        let expected = (0..2_000).map(|at| if draw((1 << 16) + stream as u32, at) { 16_383 } else { 0 });
        assert!(result.values().iter().copied().eq(expected), "3 times 4/3, with 12 bits, where it is kept");
        let left_out = result.values().iter().filter(|value| **value == 0).count();
        assert!((430..570).contains(&left_out), "{left_out} of 2000");
    }
    assert_ne!(results[0], results[1]);
}

/// Layers on layers: a normalisation, a product, a softmax; the rules together.
#[rstest]
#[case(Format::Wide, 2e-3)]
#[case(Format::I8, 6e-3)]
fn a_deep_net_is_differentiated(#[case] format: Format, #[case] tolerance: f64) {
    let deep = case(&[any(&[3, 8]), (&[4, 8], 20, -(1 << 19), 1 << 19)], tolerance, |n, x| {
        let squares = n.mul(x[0], x[0]).unwrap();
        let mean = n.sum(squares).unwrap();
        let mean = n.scale(mean, 3);
        let root = n.root(mean).unwrap();
        let root = n.broadcast(root, &[3, 8]).unwrap();
        let fine = n.round(x[0], 24).unwrap();
        let normal = n.div(fine, root).unwrap();
        let hidden = n.product(normal, x[1], 12).unwrap();
        let hidden = n.relu(hidden).unwrap();
        n.softmax(hidden, None).unwrap()
    });
    for seed in 1..6 {
        let found = error(&deep, format, seed, None);
        assert!(found < 1.0, "{found} times the tolerance");
    }
    assert!(error(&deep, format, 1, Some("product")) > 1.0);
}
