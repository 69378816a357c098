//! Random programs, for tests here and of what computes or judges programs elsewhere.

use std::sync::Arc;

use crate::build::{Builder, Id, declare};
use crate::op::{Op, Window};
use crate::program::{List, Program, Refusal};
use crate::tensor::Tensor;

/// Choices that a program is made of, drawn one after another.
pub struct Choices {
    pub left: Vec<u32>,
}

impl Choices {
    fn next(&mut self, below: usize) -> usize {
        self.left.pop().unwrap_or(0) as usize % below.max(1)
    }
}

/// An operator on nodes that are there, and its shape where it has to be given. May well be refused.
fn choose(choices: &mut Choices, builder: &Builder, nodes: &[Id]) -> (Op, Vec<Id>, Option<Vec<usize>>) {
    let any = |choices: &mut Choices| nodes[choices.next(nodes.len())];
    let x = any(choices);
    let alike: Vec<Id> = nodes.iter().copied().filter(|id| builder.shape(*id) == builder.shape(x)).collect();
    let y = alike[choices.next(alike.len())];
    let c = alike[choices.next(alike.len())];
    let shape = builder.shape(x).to_vec();
    let rank = shape.len();
    let signed = |choices: &mut Choices| choices.next(128) as i64 - 64;
    let window = Window {
        kernel: [1 + choices.next(3), 1 + choices.next(3)],
        stride: 1 + choices.next(2),
        padding: choices.next(2),
    };
    match choices.next(33) {
        0 => (Op::Add, vec![x, y], None),
        1 => (Op::Sub, vec![x, y], None),
        2 => (Op::Mul, vec![x, y], None),
        3 => (Op::Mul, vec![x, x], None),
        4 => (Op::Less, vec![x, y], None),
        5 => (Op::Equal, vec![x, y], None),
        6 => (Op::Select, vec![c, x, y], None),
        7 => (Op::Relu, vec![x], None),
        8 => (Op::Sign, vec![x], None),
        9 => (Op::Shift { by: signed(choices) }, vec![x], None),
        10 => (Op::Shift { by: choices.next(20) as i64 }, vec![x], None),
        11 => (Op::ShiftBy, vec![x, y], None),
        12 => (Op::Div, vec![x, y], None),
        13 => (Op::Isqrt, vec![x], None),
        14 => (Op::Max, vec![x], None),
        15 => (Op::Sum, vec![x], None),
        16 => (Op::Argmax, vec![x], None),
        17 => (Op::Rowexp, vec![x], None),
        18 => (Op::Quant, vec![x, any(choices)], None),
        19 => (Op::Table, vec![any(choices), x], None),
        20 => (Op::Gather, vec![any(choices), x], None),
        21 => (Op::Matmul, vec![x, any(choices)], None),
        22 => (Op::Matmul, vec![x, x], None),
        23 => (Op::Transpose { order: (0..rank).rev().collect() }, vec![x], None),
        24 => (Op::Reshape, vec![x], Some(vec![shape.iter().product()])),
        25 => (Op::Broadcast, vec![x], Some([vec![2], shape].concat())),
        26 => {
            let (low, high) = (signed(choices) << choices.next(30), signed(choices) << choices.next(30));
            (Op::Clamp { low: low.min(high), high: low.max(high) }, vec![x], None)
        }
        27 if rank > 0 => {
            let (dimension, start) = (choices.next(rank), choices.next(2));
            let mut part = shape;
            part[dimension] = part[dimension].saturating_sub(start);
            (Op::Slice { dimension, start }, vec![x], Some(part))
        }
        28 if rank > 0 => {
            let dimension = choices.next(rank);
            let mut more = shape;
            more[dimension] += 2;
            (Op::Pad { dimension, before: 1 }, vec![x], Some(more))
        }
        29 => (Op::Im2col(window), vec![x], None),
        30 => {
            let columns = Op::Im2col(window).shape(&[&[1, 1, 3, 3]]).ok().flatten();
            let fits = nodes.iter().rev().find(|id| columns.as_deref() == Some(builder.shape(**id)));
            (Op::Col2im(window), vec![*fits.unwrap_or(&x)], Some(vec![1, 1, 3, 3]))
        }
        31 => (Op::Sample { rows: 1 + choices.next(1 << 20) as u64 }, vec![], Some(vec![1 + choices.next(4)])),
        _ => (Op::Random { stream: 1, bits: 1 + choices.next(32) as u8 }, vec![], Some(vec![1 + choices.next(4)])),
    }
}

/// A program of what was not refused, and the refusals.
pub fn program(mut choices: Choices) -> (Program, Vec<Refusal>) {
    let widths = [(-128, 127), (0, 255), (-(1 << 20), 1 << 20), (1, 1 << 40), (-(1 << 51), 1 << 51)];
    let shapes: [&[usize]; 5] = [&[4], &[2, 3], &[3, 3], &[1, 1, 3, 3], &[]];
    let declared = shapes.iter().map(|shape| {
        let (low, high) = widths[choices.next(widths.len())];
        declare("x", shape, low, high)
    });
    let data: Vec<_> = declared.collect();
    let mut builder = Builder::new(Program { steps: 9, data, ..Program::default() }, List::Evaluate);
    let mut nodes: Vec<Id> = (0..shapes.len()).map(|index| builder.data(index).expect("declared")).collect();
    nodes.push(builder.constant("table", tensor(&[6], &[-9, 0, 5, 1 << 30, 3, 7])).expect("a constant"));
    nodes.push(builder.push(Op::Step, &[]).expect("a step"));
    let mut refused = vec![];
    while !choices.left.is_empty() {
        let (op, of, shape) = choose(&mut choices, &builder, &nodes);
        let made = match &shape {
            Some(shape) => builder.push_as(op, &of, shape),
            None => builder.push(op, &of),
        };
        match made {
            Ok(id) if builder.shape(id).iter().product::<usize>() <= 256 => nodes.push(id),
            Ok(_) => {} // computed, but not grown any further
            Err(refusal) => refused.push(refusal),
        }
    }
    (builder.finish(&[]), refused)
}

/// Data at the ends of its range, where overflows are, or anywhere in it.
pub fn data(program: &Program, draws: &[u64]) -> Vec<Arc<Tensor>> {
    let mut draws = draws.iter().copied().cycle();
    let mut value = |low: i64, high: i64| match draws.next().unwrap_or(0) {
        draw if draw % 3 == 0 => low,
        draw if draw % 3 == 1 => high,
        draw => low + (draw % (high.abs_diff(low) + 1)) as i64,
    };
    let filled = program.data.iter().map(|one| {
        let values: Vec<i64> = (0..one.shape.iter().product()).map(|_| value(one.low, one.high)).collect();
        Arc::new(tensor(&one.shape, &values))
    });
    filled.collect()
}

fn tensor(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::new(shape, values.to_vec()).expect("as many values as the shape has")
}
