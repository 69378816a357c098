//! Random programs on random data: what the range analysis lets pass never overflows, and stays within what it proved.

use proptest::prelude::*;

use super::*;
use crate::interpret::trace;
use crate::program::Refusal;
use crate::testkit::{Choices, data, program};

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_let_pass_never_overflows(
        choices in prop::collection::vec(any::<u32>(), 60..300),
        draws in prop::collection::vec(any::<u64>(), 8..40),
    ) {
        let (program, refused) = program(Choices { left: choices });
        let ranges = program.check().expect("what was built passes").evaluate;
        let data = data(&program, &draws);
        let values = trace(&program, List::Evaluate, &Inputs { state: &[], data: &data, context: context() });
        let values = values.map_err(|error| TestCaseError::fail(error.to_string()))?;
        for ((node, range), tensor) in program.evaluate.nodes.iter().zip(&ranges).zip(&values) {
            let seen = tensor.interval().expect("a tensor has elements");
            prop_assert!(range.values.contains(seen), "{node:?} is proven to keep to {range:?} and has {seen:?}");
        }
        for refusal in refused {
            let Refusal::Node { op, why, .. } = &refusal else { panic!("{refusal}") };
            prop_assert!(!op.is_empty() && why.len() > 10, "{refusal}");
        }
    }
}

/// The random programs have every operator that takes something, and are refused for many reasons: else the test above
/// would show little.
#[test]
fn random_programs_reach_every_operator() {
    use std::collections::BTreeSet;
    let (mut reached, mut causes) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..600 {
        let left = (0..300).map(|at| crate::draw::row(&B256::repeat_byte(9), seed, at, 1 << 32) as u32).collect();
        let (program, refused) = program(Choices { left });
        reached.extend(program.evaluate.nodes.iter().map(|node| node.op.name()));
        causes.extend(refused.iter().map(|refusal| {
            refusal
                .to_string()
                .split(": ")
                .nth(1)
                .unwrap_or("")
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .take(24)
                .collect::<String>()
        }));
    }
    let all = "add argmax broadcast clamp col2im constant data div equal gather im2col isqrt less matmul max mul pad quant \
               random relu reshape rowexp sample select shift shiftBy sign slice step sub sum table transpose";
    assert_eq!(reached.into_iter().collect::<Vec<_>>().join(" "), all.split_whitespace().collect::<Vec<_>>().join(" "));
    assert!(causes.len() >= 15, "{causes:?}");
}
