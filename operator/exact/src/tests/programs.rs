//! What makes a program whole, and what it is refused for.

use rstest::rstest;

use super::*;
use crate::build::declare;
use crate::op::Window;
use crate::program::{Declared, Refusal};
use crate::tensor::Width;

/// One weight matrix that moves against the product of data and itself.
fn toy() -> Program {
    let program = Program {
        steps: 4,
        state: vec![declare("weights", &[2, 3], -(1 << 20), 1 << 20)],
        data: vec![declare("rows", &[5, 3], -128, 127)],
        metrics: vec!["largest".into()],
        ..Program::default()
    };
    let mut init = Builder::new(program, List::Init);
    let drawn = init.push_as(Op::Random { stream: 0, bits: 10 }, &[], &[2, 3]).unwrap();
    let middle = init.constant("middle", tensor(&[2, 3], &[512; 6])).unwrap();
    let centred = init.push(Op::Sub, &[drawn, middle]).unwrap();
    let first = init.push(Op::Clamp { low: -(1 << 20), high: 1 << 20 }, &[centred]).unwrap();
    let program = init.finish(&[first]);

    let mut step = Builder::new(program, List::Step);
    let (weights, rows) = (step.state(0).unwrap(), step.data(0).unwrap());
    let index = step.push_as(Op::Sample { rows: 5 }, &[], &[2]).unwrap();
    let batch = step.push(Op::Gather, &[rows, index]).unwrap();
    let product = step.push(Op::Matmul, &[batch, weights]).unwrap();
    let small = step.push(Op::Shift { by: 6 }, &[product]).unwrap();
    let turned = step.push(Op::Transpose { order: vec![1, 0] }, &[small]).unwrap();
    let across = step.push(Op::Transpose { order: vec![1, 0] }, &[batch]).unwrap();
    let gradient = step.push(Op::Matmul, &[turned, across]).unwrap();
    let gradient = step.push(Op::Shift { by: 3 }, &[gradient]).unwrap();
    let moved = step.push(Op::Sub, &[weights, gradient]).unwrap();
    let next = step.push(Op::Clamp { low: -(1 << 20), high: 1 << 20 }, &[moved]).unwrap();
    let program = step.finish(&[next]);

    let mut evaluate = Builder::new(program, List::Evaluate);
    let weights = evaluate.state(0).unwrap();
    let largest = evaluate.push(Op::Max, &[weights]).unwrap();
    evaluate.finish(&[largest])
}

#[test]
fn a_program_is_run_from_its_first_state() {
    let program = toy();
    let ranges = program.check().unwrap();
    assert_eq!(ranges.step.len(), program.step.nodes.len());
    let data = [Arc::new(tensor(&[5, 3], &(-7..8).map(|value| 16 * value).collect::<Vec<_>>()))];
    let at = |step| Context { step, ..context() };
    let mut state = interpret::run(&program, List::Init, &Inputs { state: &[], data: &data, context: at(0) }).unwrap();
    let mut seen = vec![state[0].clone()];
    for step in 0..program.steps {
        let inputs = Inputs { state: &state, data: &data, context: at(step) };
        state = interpret::run(&program, List::Step, &inputs).unwrap();
        assert!(!seen.contains(&state[0]), "the step changed nothing");
        seen.push(state[0].clone());
    }
    let again = Inputs { state: &seen[3..4], data: &data, context: at(3) };
    assert_eq!(interpret::run(&program, List::Step, &again).unwrap(), state, "a step depends on its state alone");
}

#[test]
fn the_identity_is_of_all_that_is_computed() {
    let id = |change: &dyn Fn(&mut Program)| {
        let mut program = toy();
        change(&mut program);
        program.id()
    };
    let ids = [
        id(&|_| {}),
        id(&|p| p.steps += 1),
        id(&|p| p.constants[0].values = tensor(&[2, 3], &[511; 6])),
        id(&|p| p.step.nodes[5].op = Op::Shift { by: 7 }),
        id(&|p| p.state[0].high -= 1),
        id(&|p| p.data[0].low -= 1),
        id(&|p| p.metrics[0].push('s')),
        id(&|p| p.evaluate.results = vec![0]),
        id(&|p| p.constants[0].name.push('s')),
        id(&|p| p.step.nodes.swap(5, 6)),
        id(&|p| p.step.nodes[5].of = vec![3]),
        id(&|p| p.step.nodes[5].width = Width::W64),
        id(&|p| std::mem::swap(&mut p.init, &mut p.step)),
    ];
    assert!((0..ids.len()).all(|i| (0..i).all(|j| ids[i] != ids[j])), "{ids:?}");
    assert_eq!(ids[0], toy().id());
}

fn spoiled(change: impl Fn(&mut Program)) -> String {
    let mut program = toy();
    change(&mut program);
    program.check().unwrap_err().to_string()
}

#[rstest]
#[case::a_later_operand(|p: &mut Program| p.step.nodes[4].of[0] = 9, "does not come before it")]
#[case::a_shape(|p: &mut Program| p.step.nodes[4].shape = vec![2, 9], "declared is [2, 9]")]
#[case::a_width(|p: &mut Program| p.step.nodes[4].width = Width::W64, "64 are declared")]
#[case::a_state_that_is_not_there(|p: &mut Program| p.step.nodes[0].op = Op::State { index: 4 }, "there is no state 4")]
#[case::a_state_before_the_first(|p: &mut Program| p.init.nodes[0].op = Op::State { index: 0 }, "there is no state yet")]
#[case::a_state_that_leaves_its_range(|p: &mut Program| { let last = p.step.nodes.len() - 2; p.step.results = vec![last]; }, "clamp it")]
#[case::too_few_results(|p: &mut Program| p.step.results.clear(), "the state has 1")]
#[case::metrics(|p: &mut Program| p.metrics.push("more".into()), "names 2 metrics")]
#[case::a_declared_range(|p: &mut Program| p.data[0].low = 200, "low 200 is above high 127")]
#[case::no_elements(|p: &mut Program| p.data[0].shape = vec![0, 3], "has no elements")]
#[case::too_many_elements(|p: &mut Program| p.data[0].shape = vec![1 << 20, 1 << 20], "more than")]
#[case::too_many_dimensions(|p: &mut Program| p.data[0].shape = vec![1; 7], "has 7 dimensions")]
#[case::a_declared_width(|p: &mut Program| p.data[0].high = 300, "do not fit into 8 bits: declare 16")]
fn a_broken_program_is_refused_with_the_cause(#[case] change: impl Fn(&mut Program), #[case] cause: &str) {
    let error = spoiled(change);
    assert!(error.contains(cause), "{error}");
}

fn of(shape: &[usize], low: i64, high: i64) -> Declared {
    declare("x", shape, low, high)
}

/// Builds one operator on operands of these shapes and ranges.
fn refusal(op: Op, operands: &[Declared], shape: Option<Vec<usize>>) -> String {
    let data = operands.to_vec();
    let mut builder = Builder::new(Program { steps: 10, data, ..Program::default() }, List::Evaluate);
    let ids: Vec<Id> = (0..operands.len()).map(|index| builder.data(index).unwrap()).collect();
    let made = match shape {
        Some(shape) => builder.push_as(op, &ids, &shape),
        None => builder.push(op, &ids),
    };
    let Refusal::Node { op, why, .. } = made.unwrap_err() else { panic!("another refusal") };
    format!("{op}: {why}")
}

const BIG: i64 = 1 << 50;

#[rstest]
#[case(Op::Matmul, &[of(&[2, 1_024], -BIG, BIG), of(&[2, 1_024], 0, 1)], None, "matmul: rows of 1024 elements of 8 bytes are too long: split them into parts of at most 512")]
#[case(Op::Matmul, &[of(&[2, 2_000], 0, 1), of(&[2, 2_000], 0, 1)], None, "matmul: rows of 2000 elements of 1 bytes are too long: split them into parts of at most 1024")]
#[case(Op::Matmul, &[of(&[2, 512], 0, 1 << 22), of(&[2, 512], 0, 1 << 22)], None, "matmul: sums of 512 products of 45 bits take 54 bits, more than 52: 255 would fit")]
#[case(Op::Matmul, &[of(&[2, 5], 0, 1), of(&[2, 6], 0, 1)], None, "matmul: rows of [2, 5] and [2, 6] differ in length")]
#[case(Op::Sum, &[of(&[512], 0, BIG)], None, "sum: sums of 512 elements of 51 bits take 60 bits, more than 52: 3 would fit")]
#[case(Op::Mul, &[of(&[1], 0, 1 << 26), of(&[1], 0, 1 << 26)], None, "mul: values take 53 bits; they have to be below 2^52")]
#[case(Op::Add, &[of(&[2], 0, 1), of(&[3], 0, 1)], None, "add: operands have the shapes [2] and [3]")]
#[case(Op::Shift { by: -3 }, &[of(&[1], 0, BIG)], None, "shift: values of 51 bits, shifted by -3, take 54 bits, more than 52")]
#[case(Op::ShiftBy, &[of(&[1], 0, 1), of(&[1], 0, 100)], None, "shiftBy: shifts by 0 to 100 places, more than 62 either way")]
#[case(Op::Div, &[of(&[1], 0, 1), of(&[1], 0, 9)], None, "div: divides by values down to 0: clamp them to 1 or above")]
#[case(Op::Div, &[of(&[1], 0, 1 << 51), of(&[1], 1, 9)], None, "div: twice the dividend and the divisor take 53 bits together, more than 52")]
#[case(Op::Isqrt, &[of(&[1], -1, 9)], None, "isqrt: takes roots of values down to -1: clamp them to 0 or above")]
#[case(Op::Table, &[of(&[4], 0, 9), of(&[2], 0, 4)], None, "table: indices from 0 to 4 reach out of the 4 values of the table: clamp them")]
#[case(Op::Gather, &[of(&[4, 2], 0, 9), of(&[2], -1, 3)], None, "gather: indices from -1 to 3 reach out of the 4 rows: clamp them")]
#[case(Op::Broadcast, &[of(&[2], 0, 1)], Some(vec![3]), "broadcast: [2] does not repeat to [3]")]
#[case(Op::Reshape, &[of(&[2], 0, 1)], Some(vec![3]), "reshape: [2] has 2 elements, [3] has 3")]
#[case(Op::Slice { dimension: 0, start: 1 }, &[of(&[2], 0, 1)], Some(vec![2]), "slice: from 1, [2] reaches out of [2] along dimension 0")]
#[case(Op::Col2im(Window { kernel: [7, 7], stride: 1, padding: 0 }), &[of(&[1, 9, 49], 0, 1)], Some(vec![1, 1, 9, 9]), "col2im: a kernel of 7 × 7 covers a pixel 49 times with rows of 49; at most 9 times with rows of 32 can be summed: sum its rows one by one")]
#[case(Op::Im2col(Window { kernel: [5, 5], stride: 1, padding: 0 }), &[of(&[1, 1, 3, 9], 0, 1)], None, "im2col: a kernel of [5, 5] does not fit into 3 × 9")]
#[case(Op::Random { stream: 0, bits: 33 }, &[], Some(vec![2]), "random: draws 33 bits; it has 1 to 32")]
fn an_operator_is_refused_with_the_figure_and_what_fits(
    #[case] op: Op,
    #[case] operands: &[Declared],
    #[case] shape: Option<Vec<usize>>,
    #[case] cause: &str,
) {
    assert_eq!(refusal(op, operands, shape), cause);
}

#[test]
fn inputs_of_another_program_are_refused() {
    let program = toy();
    let state = [Arc::new(tensor(&[2, 3], &[0; 6]))];
    let run = |data: Tensor| {
        let data = [Arc::new(data)];
        interpret::run(&program, List::Step, &Inputs { state: &state, data: &data, context: context() })
    };
    let shape = run(tensor(&[3, 5], &[0; 15])).unwrap_err().to_string();
    assert_eq!(shape, "data `rows` has shape [5, 3], [3, 5] is given");
    let value = run(tensor(&[5, 3], &[128; 15])).unwrap_err().to_string();
    assert_eq!(value, "data `rows` holds 128; it is from -128 to 127");
    let none = Inputs { state: &[], data: &[], context: context() };
    assert!(interpret::run(&program, List::Step, &none).unwrap_err().to_string().contains("state `weights`"));
}
