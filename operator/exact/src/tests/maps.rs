//! Index maps against their definition by coordinates.

use proptest::prelude::*;

use super::*;
use crate::op::Window;
use crate::tensor::count;

/// All coordinates of a shape, in row-major order.
fn coordinates(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |all, side| {
        all.iter().flat_map(|one| (0..*side).map(|at| [one.clone(), vec![at]].concat())).collect()
    })
}

fn counting(shape: &[usize]) -> Tensor {
    tensor(shape, &(1..=count(shape) as i64).collect::<Vec<_>>())
}

fn at(tensor: &Tensor, index: &[usize]) -> i64 {
    let place = index.iter().zip(tensor.shape()).fold(0, |place, (at, side)| place * side + at);
    tensor.values()[place]
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..5_usize, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn transpose_moves_dimensions(shape in shapes(), turns in 0..24_usize) {
        let mut order: Vec<usize> = (0..shape.len()).collect();
        order.rotate_left(turns % shape.len());
        if turns % 2 == 1 { order.reverse(); }
        let result: Vec<usize> = order.iter().map(|from| shape[*from]).collect();
        let input = counting(&shape);
        let moved = compute(Op::Transpose { order: order.clone() }, std::slice::from_ref(&input), &result).unwrap();
        for index in coordinates(&result) {
            let mut from = vec![0; shape.len()];
            order.iter().zip(&index).for_each(|(dimension, at)| from[*dimension] = *at);
            prop_assert_eq!(at(&moved, &index), at(&input, &from));
        }
    }

    #[test]
    fn broadcast_repeats(shape in shapes(), ones in 0..16_usize, front in prop::collection::vec(1..3_usize, 0..2)) {
        let from: Vec<usize> = shape.iter().enumerate().map(|(at, side)| if ones >> at & 1 == 1 { 1 } else { *side }).collect();
        let to = [front.clone(), shape].concat();
        let input = counting(&from);
        let repeated = compute(Op::Broadcast, std::slice::from_ref(&input), &to).unwrap();
        for index in coordinates(&to) {
            let source: Vec<usize> = index[front.len()..].iter().zip(&from).map(|(at, side)| at % side).collect();
            prop_assert_eq!(at(&repeated, &index), at(&input, &source));
        }
    }

    #[test]
    fn pad_puts_a_slice_back_between_zeros(shape in shapes(), dimension in 0..4_usize, start in 0..4_usize, length in 1..5_usize) {
        let dimension = dimension % shape.len();
        let start = start % shape[dimension];
        let length = length.min(shape[dimension] - start);
        let mut part = shape.clone();
        part[dimension] = length;
        let whole = counting(&shape);
        let slice = compute(Op::Slice { dimension, start }, std::slice::from_ref(&whole), &part).unwrap();
        for index in coordinates(&part) {
            let mut from = index.clone();
            from[dimension] += start;
            prop_assert_eq!(at(&slice, &index), at(&whole, &from));
        }
        let back = compute(Op::Pad { dimension, before: start }, &[slice], &shape).unwrap();
        for index in coordinates(&shape) {
            let kept = (start..start + length).contains(&index[dimension]);
            prop_assert_eq!(at(&back, &index), if kept { at(&whole, &index) } else { 0 });
        }
    }

    #[test]
    fn im2col_shows_what_is_under_the_window(
        image in (1..3_usize, 1..3_usize, 2..6_usize, 2..6_usize),
        kernel in (1..4_usize, 1..4_usize), stride in 1..3_usize, padding in 0..2_usize,
    ) {
        let (batch, channels, height, width) = image;
        let window = Window { kernel: [kernel.0, kernel.1], stride, padding };
        let (Some(down), Some(across)) = (window.places(height, kernel.0), window.places(width, kernel.1)) else {
            return Ok(());
        };
        let input = counting(&[batch, channels, height, width]);
        let shape = [batch, down * across, channels * kernel.0 * kernel.1];
        let columns = compute(Op::Im2col(window), std::slice::from_ref(&input), &shape).unwrap();
        for index in coordinates(&[batch, down, across, channels, kernel.0, kernel.1]) {
            let [b, row, column, channel, y, x] = index[..] else { unreachable!() };
            let inside = |at: usize, side: usize| at.checked_sub(padding).filter(|at| *at < side);
            let pixel = inside(row * stride + y, height).zip(inside(column * stride + x, width));
            let expected = pixel.map_or(0, |(y, x)| at(&input, &[b, channel, y, x]));
            let found = at(&columns, &[b, row * across + column, (channel * kernel.0 + y) * kernel.1 + x]);
            prop_assert_eq!(found, expected);
        }
        // The transposed map: what two tensors have in common is the same on either side.
        let other = counting(&shape);
        let back = compute(Op::Col2im(window), std::slice::from_ref(&other), input.shape()).unwrap();
        let inner = |x: &Tensor, y: &Tensor| x.values().iter().zip(y.values()).map(|(x, y)| x * y).sum::<i64>();
        prop_assert_eq!(inner(&columns, &other), inner(&input, &back));
    }
}
