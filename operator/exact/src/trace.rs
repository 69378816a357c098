//! The trace of a training: a leaf for the state after each segment, in a tree that a dispute descends sixteen ways at a time.
//!
//! A segment is a fixed number of steps. Leaf 0 is the state before the first of them. Every hash is keccak-256 of words of
//! 32 bytes, begins with a tag of its own, and is bound to one order, so that nothing of it can be shown in another dispute.

use alloy_primitives::{Address, B256, U256, keccak256};

/// Children of a node.
pub const ARITY: usize = 16;
/// Leaves of a trace at most: a dispute takes five rounds.
pub const MAX_LEAVES: usize = 1 << 20;

const LEAF: &str = "freehold/trace/leaf/v1";
const NODE: &str = "freehold/trace/node/v1";
const RESULT: &str = "freehold/trace/result/v1";

fn hash(tag: &str, words: &[B256]) -> B256 {
    let mut bytes = keccak256(tag).to_vec();
    words.iter().for_each(|word| bytes.extend_from_slice(word.as_slice()));
    keccak256(bytes)
}

fn word(number: usize) -> B256 {
    U256::from(number).into()
}

/// What a trace is for: an order, on the chain and before the arbiter where it is disputed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding(B256);

impl Binding {
    pub fn new(chain_id: u64, arbiter: Address, order: B256) -> Self {
        let words = [U256::from(chain_id).into(), arbiter.into_word(), order];
        Self(keccak256(words.concat()))
    }
}

/// All leaves, and the tree above them.
#[derive(Clone, Debug)]
pub struct Trace {
    binding: Binding,
    leaves: usize,
    /// The leaves' layer first, filled up with zeros to a power of 16; the root's last.
    layers: Vec<Vec<B256>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trace has 1 to {MAX_LEAVES} states, not {0}: choose longer segments")]
pub struct Length(usize);

impl Trace {
    /// `states`: their roots, from the one before the first step.
    pub fn new(binding: Binding, states: &[B256]) -> Result<Self, Length> {
        if states.is_empty() || states.len() > MAX_LEAVES {
            return Err(Length(states.len()));
        }
        let leaf = |(segment, root): (usize, &B256)| hash(LEAF, &[binding.0, word(segment), *root]);
        let mut layer: Vec<B256> = states.iter().enumerate().map(leaf).collect();
        let mut layers = Vec::new();
        let mut filled = ARITY;
        while filled < layer.len() {
            filled *= ARITY;
        }
        layer.resize(filled, B256::ZERO);
        while layer.len() > 1 {
            let above = layer.chunks(ARITY).map(|children| node(binding, children)).collect();
            layers.push(std::mem::replace(&mut layer, above));
        }
        layers.push(layer);
        Ok(Self { binding, leaves: states.len(), layers })
    }

    pub fn root(&self) -> B256 {
        self.layers.last().and_then(|layer| layer.first()).copied().unwrap_or_default()
    }

    pub fn last_leaf(&self) -> B256 {
        self.layers[0][self.leaves - 1]
    }

    /// What is delivered to the chain: root, number of leaves, last leaf.
    pub fn result(&self) -> B256 {
        hash(RESULT, &[self.binding.0, self.root(), word(self.leaves), self.last_leaf()])
    }

    /// Rounds from the root to a leaf.
    pub fn depth(&self) -> usize {
        self.layers.len() - 1
    }

    /// The children of the `index`-th node that is `round` rounds below the root.
    pub fn expand(&self, round: usize, index: usize) -> Option<&[B256]> {
        let layer = self.layers.get(self.depth().checked_sub(round + 1)?)?;
        layer.get(index * ARITY..(index + 1) * ARITY)
    }
}

/// Of sixteen children: whether they are those of a node is whether this is its hash.
pub fn node(binding: Binding, children: &[B256]) -> B256 {
    hash(NODE, &[&[binding.0], children].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn binding(order: u8) -> Binding {
        Binding::new(31_337, Address::repeat_byte(1), B256::repeat_byte(order))
    }

    fn states(count: usize) -> Vec<B256> {
        (0..count).map(|at| keccak256(at.to_be_bytes())).collect()
    }

    #[rstest]
    #[case(1, 1)]
    #[case(16, 1)]
    #[case(17, 2)]
    #[case(300, 3)]
    fn a_dispute_descends_to_the_first_wrong_state(#[case] count: usize, #[case] depth: usize) {
        let right = Trace::new(binding(2), &states(count)).unwrap();
        assert_eq!(right.depth(), depth);
        for wrong_from in [0, count / 2, count - 1] {
            let mut forged = states(count);
            forged[wrong_from..].iter_mut().for_each(|state| *state = keccak256(*state));
            let forged = Trace::new(binding(2), &forged).unwrap();
            let (mut at, mut above) = (0, forged.root());
            assert_ne!(above, right.root());
            for round in 0..depth {
                let claimed = forged.expand(round, at).unwrap();
                assert_eq!(node(binding(2), claimed), above, "the children are those of the node that was picked");
                let known = right.expand(round, at).unwrap();
                let first = claimed.iter().zip(known).position(|(claimed, known)| claimed != known).unwrap();
                above = claimed[first];
                at = at * ARITY + first;
            }
            assert_eq!(at, wrong_from);
        }
    }

    #[test]
    fn a_trace_is_of_its_order_its_length_and_its_end() {
        let result = |order, count| Trace::new(binding(order), &states(count)).unwrap().result();
        let results = [result(2, 20), result(3, 20), result(2, 21), result(2, 19)];
        assert!((0..4).all(|i| (0..i).all(|j| results[i] != results[j])));
        let padded = [states(20), vec![B256::ZERO]].concat();
        assert_ne!(
            Trace::new(binding(2), &padded).unwrap().root(),
            Trace::new(binding(2), &states(20)).unwrap().root()
        );
    }

    #[test]
    fn a_trace_has_a_first_state_and_an_end() {
        assert_eq!(Trace::new(binding(2), &[]).unwrap_err(), Length(0));
        assert!(Trace::new(binding(2), &states(1)).unwrap().expand(1, 0).is_none());
    }
}
