use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::commit::{CHUNK, data_root, open, opened, position, state_root, tensor_root};
use crate::tensor::Width;

fn sample(shape: &[usize], width: Width) -> Tensor {
    let top = width.interval().high.min(1 << 40);
    let value = |at: usize| (i128::from(crate::draw::row(&B256::ZERO, 0, at as u64, 1 << 50)) % (2 * top) - top) as i64;
    tensor(shape, &(0..shape.iter().product()).map(value).collect::<Vec<_>>())
}

#[rstest]
#[case(&[], Width::W64)]
#[case(&[7], Width::W8)]
#[case(&[3, 5], Width::W16)]
#[case(&[2, 1_500], Width::W32)]
#[case(&[3, 2, 513], Width::W64)]
fn each_element_is_opened_and_nothing_else_passes(#[case] shape: &[usize], #[case] width: Width) {
    let tensor = sample(shape, width);
    let root = tensor_root(&tensor, width);
    for place in 0..tensor.values().len() {
        if place % 97 != 0 && place + 1 != tensor.values().len() {
            continue;
        }
        let opening = open(&tensor, width, place);
        assert!(opening.chunk.len() <= CHUNK);
        assert_eq!(opened(root, shape, width, place, &opening), Some(tensor.values()[place]));
        let (_, at) = position(shape, width, place);
        let mut forged = opening.clone();
        forged.chunk[at * width.bytes()] ^= 1;
        assert_eq!(opened(root, shape, width, place, &forged), None, "another value");
        let mut forged = opening.clone();
        forged.path.push(B256::ZERO);
        assert_eq!(opened(root, shape, width, place, &forged), None, "a longer path");
        let mut forged = opening.clone();
        if forged.path.pop().is_some() {
            assert_eq!(opened(root, shape, width, place, &forged), None, "a shorter path");
        }
        assert_eq!(opened(B256::ZERO, shape, width, place, &opening), None, "another root");
        let longer = [shape, &[1]].concat();
        assert_eq!(opened(root, &longer, width, place, &opening), None, "another shape");
    }
}

#[test]
fn an_opening_is_of_its_place_alone() {
    let tensor = sample(&[4, 3], Width::W16);
    let root = tensor_root(&tensor, Width::W16);
    let opening = open(&tensor, Width::W16, 0);
    assert_eq!(opened(root, &[4, 3], Width::W16, 3, &opening), None);
}

#[test]
fn roots_bind_width_shape_step_and_order() {
    let one = tensor(&[2, 2], &[1, 2, 3, 4]);
    let roots = [
        tensor_root(&one, Width::W8),
        tensor_root(&one, Width::W16),
        tensor_root(&tensor(&[4], &[1, 2, 3, 4]), Width::W8),
        tensor_root(&tensor(&[2, 2], &[1, 2, 4, 3]), Width::W8),
    ];
    assert!((0..4).all(|i| (0..i).all(|j| roots[i] != roots[j])));
    let [a, b, ..] = roots;
    let made = [
        state_root(0, &[a, b]),
        state_root(1, &[a, b]),
        state_root(0, &[b, a]),
        state_root(0, &[a, b, B256::ZERO]),
        data_root(&[a, b]),
        data_root(&[b, a]),
        data_root(&[a, b, B256::ZERO]),
    ];
    assert!((0..7).all(|i| (0..i).all(|j| made[i] != made[j])));
}

/// SHA-256 over the written rows, computed apart from this code (Python's hashlib).
#[test]
fn known_roots() {
    let root = tensor_root(&tensor(&[2, 3], &[1, -2, 3, -4, 5, -6]), Width::W16);
    assert_eq!(root.to_string(), KNOWN_TENSOR);
    assert_eq!(state_root(7, &[root, root, root]).to_string(), KNOWN_STATE);
}

const KNOWN_TENSOR: &str = "0xac1f736f2f2f6312e8f36c2078bbe5589e9e08d78854a80311b233328fb9ee14";
const KNOWN_STATE: &str = "0xd2ade51c0bc616bb1c2ceb40c984c0addc311b3ebb030c1383b232b36bb626c2";

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_changed_changes_the_root(values in prop::collection::vec(-128..128_i64, 1..40), at in any::<prop::sample::Index>()) {
        let shape = [values.len()];
        let mut other = values.clone();
        other[at.index(values.len())] ^= 1;
        let root = |values: &[i64]| tensor_root(&tensor(&shape, values), Width::W8);
        prop_assert_ne!(root(&values), root(&other));
    }
}
