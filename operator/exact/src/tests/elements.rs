//! The rule of each operator, on numbers that can be checked by hand.

use rstest::rstest;

use super::*;
use crate::element::{self, Read, element};
use crate::tensor::LIMIT;

const TOP: i64 = LIMIT - 1;

#[rstest]
#[case::add(Op::Add, &[3, -4], &[2, 9], &[5, 5])]
#[case::sub(Op::Sub, &[3, -4], &[2, 9], &[1, -13])]
#[case::mul(Op::Mul, &[3, -4], &[2, 9], &[6, -36])]
#[case::less(Op::Less, &[1, 2], &[2, 2], &[1, 0])]
#[case::equal(Op::Equal, &[1, 2], &[2, 2], &[0, 1])]
#[case::shift_by(Op::ShiftBy, &[5, 5], &[1, -2], &[3, 20])]
#[case::halves_go_up(Op::Div, &[7, -7], &[2, 2], &[4, -3])]
#[case::thirds_go_to_the_nearest(Op::Div, &[4, -4], &[3, 3], &[1, -1])]
fn of_two(#[case] op: Op, #[case] x: &[i64], #[case] y: &[i64], #[case] expected: &[i64]) {
    let result = compute(op, &[tensor(&[2], x), tensor(&[2], y)], &[2]).unwrap();
    assert_eq!(result.values(), expected);
}

#[rstest]
#[case::clamp(Op::Clamp { low: -2, high: 4 }, &[-3, 0, 9], &[-2, 0, 4])]
#[case::relu(Op::Relu, &[-3, 0, 9], &[0, 0, 9])]
#[case::sign(Op::Sign, &[-3, 0, 9], &[-1, 0, 1])]
#[case::shift_rounds_halves_up(Op::Shift { by: 1 }, &[3, -3, -4], &[2, -1, -2])]
#[case::shift_by_more_than_there_is(Op::Shift { by: 60 }, &[TOP, -TOP, 0], &[0, 0, 0])]
#[case::shift_to_the_left(Op::Shift { by: -3 }, &[3, -3, 0], &[24, -24, 0])]
#[case::no_shift(Op::Shift { by: 0 }, &[3, -3, 0], &[3, -3, 0])]
fn of_one(#[case] op: Op, #[case] x: &[i64], #[case] expected: &[i64]) {
    assert_eq!(compute(op, &[tensor(&[3], x)], &[3]).unwrap().values(), expected);
}

#[rstest]
#[case::max(Op::Max, &[9, 7])]
#[case::sum(Op::Sum, &[8, 8])]
#[case::the_first_of_the_largest(Op::Argmax, &[1, 0])]
#[case::exponent_of_the_row(Op::Rowexp, &[0, 0])]
fn of_a_row(#[case] op: Op, #[case] expected: &[i64]) {
    let rows = tensor(&[2, 3], &[-10, 9, 9, 7, -6, 7]);
    assert_eq!(compute(op, &[rows], &[2, 1]).unwrap().values(), expected);
}

#[rstest]
#[case(127, 0)]
#[case(-127, 0)]
#[case(128, 1)]
#[case(255, 1)]
#[case(256, 2)]
#[case(-(1 << 20), 14)]
fn an_exponent_brings_the_largest_to_seven_bits(#[case] largest: i64, #[case] exponent: i64) {
    let row = tensor(&[1, 2], &[1, largest]);
    let found = compute(Op::Rowexp, std::slice::from_ref(&row), &[1, 1]).unwrap();
    assert_eq!(found.values(), [exponent]);
    let quantised = compute(Op::Quant, &[row, found], &[1, 2]).unwrap();
    let magnitude = quantised.values()[1].abs();
    assert!((64..=127).contains(&magnitude), "{magnitude}");
}

#[test]
fn rounding_up_to_eight_bits_is_clamped() {
    let (row, exponent) = (tensor(&[1, 2], &[255, -255]), tensor(&[1, 1], &[1]));
    assert_eq!(compute(Op::Quant, &[row, exponent], &[1, 2]).unwrap().values(), [127, -127]);
}

#[test]
fn roots_are_rounded_down() {
    let squares = [0, 1, 3, 4, 15, 16, TOP];
    let roots = compute(Op::Isqrt, &[tensor(&[7], &squares)], &[7]).unwrap();
    assert_eq!(roots.values(), [0, 1, 1, 2, 3, 4, 67_108_863]);
    for (square, root) in squares.iter().zip(roots.values()) {
        assert!(root * root <= *square && *square < (root + 1) * (root + 1));
    }
}

#[test]
fn select_takes_the_second_where_the_first_is_not_zero() {
    let operands = [tensor(&[3], &[1, 0, -1]), tensor(&[3], &[10, 20, 30]), tensor(&[3], &[1, 2, 3])];
    assert_eq!(compute(Op::Select, &operands, &[3]).unwrap().values(), [10, 2, 30]);
}

#[test]
fn tables_and_rows_are_taken_by_index() {
    let index = tensor(&[2, 2], &[2, 0, 1, 2]);
    let table = tensor(&[3], &[10, 20, 30]);
    assert_eq!(compute(Op::Table, &[table, index.clone()], &[2, 2]).unwrap().values(), [30, 10, 20, 30]);
    let rows = tensor(&[3, 2], &[1, 2, 3, 4, 5, 6]);
    let gathered = compute(Op::Gather, &[rows, index], &[2, 2, 2]).unwrap();
    assert_eq!(gathered.values(), [5, 6, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_product_is_of_rows_batch_by_batch() {
    let left = tensor(&[2, 1, 2], &[1, 2, 3, 4]);
    let right = tensor(&[2, 3, 2], &[1, 0, 0, 1, 1, 1, 2, 0, 0, 2, -1, -1]);
    let product = compute(Op::Matmul, &[left, right], &[2, 1, 3]).unwrap();
    assert_eq!(product.values(), [1, 2, 3, 6, 8, -7]);
}

#[test]
fn step_and_draws_come_from_the_context() {
    assert_eq!(compute(Op::Step, &[], &[]).unwrap().values(), [3]);
    let drawn = compute(Op::Random { stream: 2, bits: 9 }, &[], &[5]).unwrap();
    let expected: Vec<i64> = (0..5).map(|at| crate::draw::uniform(&context().seed, 2, 3, at, 9)).collect();
    assert_eq!(drawn.values(), expected);
    let rows = compute(Op::Sample { rows: 100 }, &[], &[5]).unwrap();
    let expected: Vec<i64> = (0..5).map(|j| crate::draw::row(&context().seed, 3, j, 100)).collect();
    assert_eq!(rows.values(), expected);
}

struct Given(Vec<i64>);

impl Read for Given {
    fn at(&mut self, operand: usize, _: usize) -> i64 {
        self.0[operand]
    }
}

#[rstest]
#[case(Op::Add, &[TOP, 1], element::Error::Overflow { bits: 53 })]
#[case(Op::Sub, &[-TOP, 1], element::Error::Overflow { bits: 53 })]
#[case(Op::Mul, &[1 << 26, 1 << 26], element::Error::Overflow { bits: 53 })]
#[case(Op::Shift { by: -52 }, &[1], element::Error::Overflow { bits: 53 })]
#[case(Op::ShiftBy, &[1, 63], element::Error::Shift(63))]
#[case(Op::Div, &[1, 0], element::Error::Divisor(0))]
#[case(Op::Div, &[TOP, 1], element::Error::Overflow { bits: 53 })]
#[case(Op::Isqrt, &[-1], element::Error::Root(-1))]
#[case(Op::Table, &[7, 1], element::Error::Index { index: 1, length: 1 })]
#[case(Op::Gather, &[7, -1], element::Error::Index { index: -1, length: 1 })]
fn what_has_no_value_is_an_error(#[case] op: Op, #[case] given: &[i64], #[case] expected: element::Error) {
    let shapes: Vec<&[usize]> = vec![&[1]; given.len()];
    let found = element(&op, &shapes, &[1], 0, &context(), &mut Given(given.to_vec()));
    assert_eq!(found, Err(expected));
}
