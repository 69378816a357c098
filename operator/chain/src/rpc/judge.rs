//! Which of several endpoints is believed, from what each of them showed. Pure.
//!
//! An endpoint is believed if the block it calls confirmed is also, by hash,
//! the block of so many others; among those that are, and that are not far
//! behind, the first of the list is used. A head of its own proves nothing: an
//! endpoint alone with the highest one is behind nobody, and believed by nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use alloy::primitives::B256;

use super::Header;
use crate::view::Block;

/// Blocks that an endpoint may be behind the best of those that are believed.
const LAG: u64 = 5;

/// What the endpoints are held against.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub chain_id: u64,
    /// Endpoints that must name the same confirmed block, the one that is used among them.
    pub quorum: usize,
    /// Longest time for a head to stand still.
    pub patience: Duration,
}

/// What one endpoint showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub chain_id: u64,
    pub head: Header,
    /// The block that it calls confirmed.
    pub confirmed: Block,
    /// For how long its head has stood.
    pub stood: Duration,
    /// Its block hashes at the heights that others call confirmed.
    pub hashes: BTreeMap<u64, B256>,
}

/// Why there is no sighting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Not asked yet, or the first answer is on its way.
    Unasked,
    Unreachable(String),
    /// It asked for a pause (HTTP 429 or 503, or the JSON-RPC limit).
    Limited,
}

/// What is thought of an endpoint. No numbers that change with each block: this becomes a condition's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Could be used.
    Good,
    Unasked,
    Unreachable(String),
    Limited,
    WrongChain(u64),
    Stale,
    Lagging,
    /// Others name another confirmed block.
    Diverged,
    /// Too few others know the block that it calls confirmed.
    Unwitnessed,
}

impl Verdict {
    /// Label of metrics: one of a fixed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unasked => "unasked",
            Self::Unreachable(_) => "unreachable",
            Self::Limited => "limited",
            Self::WrongChain(_) => "wrong_chain",
            Self::Stale => "stale",
            Self::Lagging => "lagging",
            Self::Diverged => "diverged",
            Self::Unwitnessed => "unwitnessed",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("could be used"),
            Self::Unasked => f.write_str("was not asked yet"),
            Self::Unreachable(reason) => write!(f, "does not answer ({reason})"),
            Self::Limited => f.write_str("asked for a pause"),
            Self::WrongChain(found) => write!(f, "serves chain {found}"),
            Self::Stale => f.write_str("has a head that stands still"),
            Self::Lagging => f.write_str("is behind the others"),
            Self::Diverged => f.write_str("names another confirmed block than the others"),
            Self::Unwitnessed => f.write_str("names a confirmed block that too few others know"),
        }
    }
}

/// Verdicts in the order of the endpoints, and the one to use.
pub fn judge(sightings: &[Result<Sighting, Silence>], rules: &Rules) -> (Vec<Verdict>, Option<usize>) {
    let alone: Vec<Verdict> = sightings.iter().map(|sighting| by_itself(sighting, rules)).collect();
    let candidates: Vec<(usize, &Sighting)> = sightings
        .iter()
        .enumerate()
        .filter(|(at, _)| alone[*at] == Verdict::Good)
        .filter_map(|(at, sighting)| Some((at, sighting.as_ref().ok()?)))
        .collect();
    let mut verdicts = alone;
    for (at, sighting) in &candidates {
        let others = candidates.iter().filter(|(other, _)| other != at).map(|(_, other)| *other);
        verdicts[*at] = among(sighting, others, rules.quorum);
    }
    let best = candidates.iter().filter(|(at, _)| verdicts[*at] == Verdict::Good).map(|(_, s)| height(s)).max();
    for (at, sighting) in &candidates {
        let behind = best.is_some_and(|best| best.saturating_sub(height(sighting)) > LAG);
        if verdicts[*at] == Verdict::Good && behind {
            verdicts[*at] = Verdict::Lagging;
        }
    }
    let used = verdicts.iter().position(|verdict| *verdict == Verdict::Good);
    (verdicts, used)
}

fn height(sighting: &Sighting) -> u64 {
    sighting.head.block.number
}

fn by_itself(sighting: &Result<Sighting, Silence>, rules: &Rules) -> Verdict {
    match sighting {
        Err(Silence::Unasked) => Verdict::Unasked,
        Err(Silence::Unreachable(reason)) => Verdict::Unreachable(reason.clone()),
        Err(Silence::Limited) => Verdict::Limited,
        Ok(seen) if seen.chain_id != rules.chain_id => Verdict::WrongChain(seen.chain_id),
        Ok(seen) if seen.stood > rules.patience => Verdict::Stale,
        Ok(_) => Verdict::Good,
    }
}

/// Whether enough others have the block that `sighting` calls confirmed, and fewer have another there.
fn among<'a>(sighting: &Sighting, others: impl Iterator<Item = &'a Sighting>, quorum: usize) -> Verdict {
    let Block { number, hash, .. } = sighting.confirmed;
    let (mut agree, mut differ) = (1, 0);
    for found in others.filter_map(|other| other.hashes.get(&number)) {
        if *found == hash { agree += 1 } else { differ += 1 }
    }
    match () {
        () if differ >= agree => Verdict::Diverged,
        () if agree < quorum && differ > 0 => Verdict::Diverged,
        () if agree < quorum => Verdict::Unwitnessed,
        () => Verdict::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: Rules = Rules { chain_id: 1, quorum: 2, patience: Duration::from_secs(10) };

    fn hash(chain: u8, number: u64) -> B256 {
        let mut bytes = [chain; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        B256::from(bytes)
    }

    fn block(chain: u8, number: u64) -> Block {
        Block { number, hash: hash(chain, number), timestamp: number }
    }

    /// An endpoint at `head` that follows the chain named by `chain` and knows `heights` of it.
    fn sighting(chain: u8, head: u64, heights: &[u64]) -> Sighting {
        Sighting {
            chain_id: 1,
            head: Header { block: block(chain, head), parent: hash(chain, head.saturating_sub(1)), base_fee: 0 },
            confirmed: block(chain, head.saturating_sub(3)),
            stood: Duration::ZERO,
            hashes: heights.iter().filter(|at| **at <= head).map(|at| (*at, hash(chain, *at))).collect(),
        }
    }

    /// Endpoints that answered each other's heights.
    fn survey(chains: &[(u8, u64)]) -> Vec<Result<Sighting, Silence>> {
        let heights: Vec<u64> = chains.iter().map(|(_, head)| head.saturating_sub(3)).collect();
        chains.iter().map(|(chain, head)| Ok(sighting(*chain, *head, &heights))).collect()
    }

    #[test]
    fn the_first_of_those_that_agree_is_used() {
        let (verdicts, used) = judge(&survey(&[(1, 100), (1, 101)]), &RULES);
        assert_eq!((verdicts, used), (vec![Verdict::Good, Verdict::Good], Some(0)));
    }

    #[test]
    fn a_dead_one_is_passed_over_and_two_that_agree_are_enough() {
        let mut all = survey(&[(1, 100), (1, 100), (1, 100)]);
        all[0] = Err(Silence::Unreachable("refused".into()));
        assert_eq!(judge(&all, &RULES).1, Some(1));
    }

    #[test]
    fn one_alone_is_not_believed_where_two_must_agree() {
        let mut all = survey(&[(1, 100), (1, 100)]);
        all[0] = Err(Silence::Limited);
        let (verdicts, used) = judge(&all, &RULES);
        assert_eq!((verdicts, used), (vec![Verdict::Limited, Verdict::Unwitnessed], None));
        assert_eq!(judge(&all, &Rules { quorum: 1, ..RULES }).1, Some(1));
    }

    #[test]
    fn two_that_contradict_each_other_are_both_refused() {
        for quorum in [1, 2] {
            let (verdicts, used) = judge(&survey(&[(1, 100), (2, 100)]), &Rules { quorum, ..RULES });
            assert_eq!((verdicts, used), (vec![Verdict::Diverged, Verdict::Diverged], None));
        }
    }

    #[test]
    fn the_odd_one_out_of_three_is_refused_wherever_it_stands() {
        for odd in 0..3 {
            let chains: Vec<(u8, u64)> = (0..3).map(|at| (if at == odd { 2 } else { 1 }, 100)).collect();
            let (verdicts, used) = judge(&survey(&chains), &RULES);
            assert_eq!(verdicts[odd], Verdict::Diverged);
            assert_eq!(used, Some(if odd == 0 { 1 } else { 0 }));
        }
    }

    #[test]
    fn a_head_that_nobody_else_has_makes_nobody_late() {
        // The first invents a head far ahead; what it says of older blocks is true.
        let mut all = survey(&[(1, 1_000_000), (1, 100), (1, 100)]);
        if let Ok(liar) = &mut all[0] {
            liar.hashes = [(97, hash(1, 97))].into();
        }
        let (verdicts, used) = judge(&all, &RULES);
        assert_eq!((verdicts[0].clone(), used), (Verdict::Unwitnessed, Some(1)));
    }

    #[test]
    fn behind_stale_and_foreign_ones_are_not_used() {
        let (verdicts, used) = judge(&survey(&[(1, 50), (1, 100), (1, 100)]), &RULES);
        assert_eq!((verdicts[0].clone(), used), (Verdict::Lagging, Some(1)));
        let mut all = survey(&[(1, 100), (1, 100), (1, 100), (1, 100)]);
        if let Ok(first) = &mut all[0] {
            first.stood = Duration::from_secs(11);
        }
        if let Ok(second) = &mut all[1] {
            second.chain_id = 5;
        }
        let (verdicts, used) = judge(&all, &RULES);
        assert_eq!((&verdicts[..2], used), (&[Verdict::Stale, Verdict::WrongChain(5)][..], Some(2)));
    }

    proptest! {
        /// Fewer than a quorum of liars that all tell one story are never used while enough honest ones answer,
        /// and never ever believed.
        #[test]
        fn liars_below_the_quorum_are_never_believed(
            honest in proptest::collection::vec((95u64..105, any::<bool>()), 0..5),
            liars in proptest::collection::vec(0u64..2_000, 0..2),
            order in any::<u64>(),
        ) {
            let mut chains: Vec<(u8, u64)> = honest.iter().map(|(head, _)| (1, *head)).collect();
            chains.extend(liars.iter().map(|head| (2, *head)));
            if !chains.is_empty() {
                let turn = usize::try_from(order).unwrap_or(0) % chains.len();
                chains.rotate_left(turn);
            }
            let (verdicts, used) = judge(&survey(&chains), &RULES);
            if let Some(used) = used {
                prop_assert_eq!(chains[used].0, 1, "a liar was believed: {:?}", verdicts);
            }
            if honest.len() >= 3 {
                prop_assert!(used.is_some(), "enough honest ones, and none was used: {:?}", verdicts);
            }
        }
    }
}
