//! Programs on libtorch give the bits of the interpreter, whichever units compute their products and however many threads.

#![allow(clippy::unwrap_used)] // a test may

use std::sync::Arc;

use freehold_exact::build::{Builder, Id, declare};
use freehold_exact::compile::compile;
use freehold_exact::draw;
use freehold_exact::element::Context;
use freehold_exact::interpret::{self, Inputs};
use freehold_exact::net::Format;
use freehold_exact::op::Op;
use freehold_exact::program::{List, Program};
use freehold_exact::recipe::{Decimal, Loss, Model, Optimizer, Recipe, Schedule, Shape};
use freehold_exact::tensor::{Tensor, count};
use freehold_trainer::exact::machine::Machine;
use freehold_trainer::exact::units::{Unit, Units};
use rstest::rstest;
use tch::Device;

const SEED: [u8; 32] = [6; 32];
const STEPS: u32 = 8;

fn recipe(model: Model, format: Format, adam: bool) -> Recipe {
    let (nine, ninety_nine) = (Decimal::new(9, 10), Decimal::new(99, 100));
    let optimizer = if adam {
        Optimizer::AdamW { beta1: nine, beta2: ninety_nine, decay: Decimal::new(1, 100) }
    } else {
        Optimizer::Sgd { momentum: nine, decay: Decimal::new(1, 1_000) }
    };
    Recipe {
        model,
        loss: Loss::CrossEntropy,
        dropout: Decimal::ZERO,
        optimizer,
        rate: Decimal::new(2, 100),
        schedule: Schedule { warmup: 2, shape: Shape::Cosine { floor: Decimal::ZERO } },
        format,
        steps: STEPS,
        batch: 8,
        accumulation: 2,
        rows: 60,
        held_out: 30,
    }
}

fn mlp() -> Model {
    Model::Mlp { widths: vec![10, 24, 5] }
}

fn cnn() -> Model {
    Model::Cnn { image: [2, 6, 6], channels: vec![4, 6], kernel: 3, hidden: 10, classes: 5 }
}

fn transformer() -> Model {
    Model::Transformer { width: 16, heads: 2, layers: 2, context: 12, tied: false }
}

/// Any data of the declared ranges.
fn data(program: &Program) -> Vec<Arc<Tensor>> {
    let seed = SEED.into();
    let drawn = program.data.iter().enumerate().map(|(stream, declared)| {
        let span = declared.high.abs_diff(declared.low) + 1;
        let value = |at| declared.low + draw::row(&seed, stream as u32, at as u64, span);
        Tensor::new(declared.shape.clone(), (0..count(&declared.shape)).map(value).collect()).unwrap()
    });
    drawn.map(Arc::new).collect()
}

fn context(step: u32) -> Context {
    Context { seed: SEED.into(), step }
}

/// The states from the first to the last, and the evaluation of the last.
fn interpreted(program: &Program) -> Vec<Vec<Tensor>> {
    let data = data(program);
    let run = |list, state: &[Arc<Tensor>], step| {
        interpret::run(program, list, &Inputs { state, data: &data, context: context(step) }).unwrap()
    };
    let mut states = vec![run(List::Init, &[], 0)];
    for step in 0..STEPS {
        states.push(run(List::Step, &states[step as usize], step));
    }
    states.push(run(List::Evaluate, &states[STEPS as usize], 0));
    let owned = |tensors: Vec<Arc<Tensor>>| tensors.iter().map(|tensor| tensor.as_ref().clone()).collect();
    states.into_iter().map(owned).collect()
}

fn computed(program: &Program, units: &Units) -> (Vec<Vec<Tensor>>, Machine) {
    let ranges = program.check().unwrap();
    let machine = Machine::new(program.clone(), &ranges, units, Device::Cpu).unwrap();
    let data: Vec<tch::Tensor> = data(program).iter().map(|tensor| machine.load(tensor).unwrap()).collect();
    let run = |list, state: &[tch::Tensor], step| machine.run(list, state, &data, &context(step)).unwrap();
    let mut states = vec![run(List::Init, &[], 0)];
    for step in 0..STEPS {
        states.push(run(List::Step, &states[step as usize], step));
    }
    states.push(run(List::Evaluate, &states[STEPS as usize], 0));
    let stored = states.iter().map(|state| state.iter().map(|tensor| machine.store(tensor).unwrap()).collect());
    let stored = stored.collect();
    (stored, machine)
}

#[rstest]
#[case::mlp_wide(mlp(), Format::Wide, false)]
#[case::mlp_i8(mlp(), Format::I8, true)]
#[case::cnn_wide(cnn(), Format::Wide, true)]
#[case::cnn_i8(cnn(), Format::I8, false)]
#[case::transformer_wide(transformer(), Format::Wide, true)]
#[case::transformer_i8(transformer(), Format::I8, true)]
fn libtorch_gives_the_interpreters_bits(#[case] model: Model, #[case] format: Format, #[case] adam: bool) {
    let program = compile(&recipe(model, format, adam)).unwrap();
    let expected = interpreted(&program);
    assert_ne!(expected[1], expected[2], "the program learns nothing");
    let all = Units::probed(Device::Cpu);
    assert!(all.admitted().contains(&Unit::F64));
    let mut met = std::collections::BTreeSet::new();
    for (units, threads) in
        [(all.clone(), 2), (all.clone(), 1), (all.only(&[Unit::F64]), 2), (all.only(&[Unit::F64, Unit::F32]), 1)]
    {
        tch::set_num_threads(threads);
        let (found, machine) = computed(&program, &units);
        for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{units:?}, {threads} threads, after {step} steps");
        }
        met.extend(machine.products(List::Step).into_iter().map(|(_, unit)| unit));
    }
    // Where the device has them, the fast units were really used.
    if format == Format::I8 {
        assert!(all.admitted().iter().all(|unit| met.contains(unit)), "{met:?} of {:?}", all.admitted());
    }
}

/// More rows than one block has, and more work than one thread is given: with what repeats along rows, columns and both.
#[test]
fn rows_in_blocks_are_the_rows() {
    let shape: &[usize] = &[600, 100];
    let declared = vec![
        declare("x", shape, -(1 << 30), 1 << 30),
        declare("y", shape, -90, 90),
        declare("row", &[600, 1], 0, 20),
        declare("column", &[100], -5_000, 5_000),
    ];
    let empty = Program { steps: 1, data: declared, metrics: vec![String::new(); 9], ..Program::default() };
    let mut builder = Builder::new(empty, List::Evaluate);
    let given: Vec<Id> = (0..4).map(|index| builder.data(index).unwrap()).collect();
    let [x, y, row, column] = given[..] else { unreachable!() };
    let one = builder.constant("one", Tensor::scalar(7)).unwrap();
    let table = builder.constant("table", Tensor::row((0..181).map(|at| at * at).collect())).unwrap();
    let by = builder.push_as(Op::Broadcast, &[row], shape).unwrap();
    let across = builder.push_as(Op::Broadcast, &[column], shape).unwrap();
    let everywhere = builder.push_as(Op::Broadcast, &[one], shape).unwrap();
    let mut push = |op: Op, of: &[Id]| builder.push(op, of).unwrap();
    let shifted = push(Op::ShiftBy, &[x, by]);
    let sum = push(Op::Add, &[shifted, across]);
    let positive = push(Op::Less, &[across, sum]);
    let chosen = push(Op::Select, &[positive, sum, everywhere]);
    let magnitude = push(Op::Clamp { low: 1, high: 1 << 24 }, &[chosen]);
    let share = push(Op::Div, &[x, magnitude]);
    let root = push(Op::Isqrt, &[magnitude]);
    let place = push(Op::Add, &[y, everywhere]);
    let place = push(Op::Clamp { low: 0, high: 180 }, &[place]);
    let looked_up = push(Op::Table, &[table, place]);
    let largest = push(Op::Max, &[chosen]);
    let first = push(Op::Argmax, &[y]);
    let exponent = push(Op::Rowexp, &[share]);
    let small = push(Op::Quant, &[share, exponent]);
    let same = push(Op::Equal, &[small, y]);
    let rows = push(Op::Sum, &[root]);
    let seven = push(Op::Sum, &[everywhere]);
    let of_row = push(Op::Mul, &[largest, exponent]);
    let moved = builder.push_as(Op::Reshape, &[looked_up], &[6, 100, 100]).unwrap();
    let program = builder.finish(&[small, same, rows, seven, of_row, moved, first, by, across]);
    let ranges = program.check().unwrap();
    let data = data(&program);
    let inputs = Inputs { state: &[], data: &data, context: context(0) };
    let expected = interpret::run(&program, List::Evaluate, &inputs).unwrap();
    let machine = Machine::new(program.clone(), &ranges, &Units::probed(Device::Cpu), Device::Cpu).unwrap();
    let loaded: Vec<tch::Tensor> = data.iter().map(|tensor| machine.load(tensor).unwrap()).collect();
    for threads in [1, 2, 3] {
        tch::set_num_threads(threads);
        let mut done = Vec::new();
        let seen = &mut |numbers: &[usize]| done.push(numbers.len());
        let found = machine.watched(List::Evaluate, &[], &loaded, &context(0), seen).unwrap();
        for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(&machine.store(found).unwrap(), expected.as_ref(), "result {which}, {threads} threads");
        }
        assert!(done.iter().any(|together| *together > 15), "{done:?}");
    }
}
