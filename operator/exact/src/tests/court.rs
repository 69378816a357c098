//! The contract against the interpreter: on random elements of random programs `LeafCourt`, in an EVM of this process,
//! finds right what the interpreter computed and wrong what is off by one, and refuses what was forged.
//!
//! `FREEHOLD_COURT_CASES` cases (3,000), `FREEHOLD_COURT_SEED` for others. The contract's code is that of
//! `contracts/abi/LeafCourt.bin`, which `contracts/check-abi.sh` compares with its source.

mod cases;
mod evm;
mod forge;

use std::collections::BTreeMap;

use super::*;
use cases::{Case, Dice};
use evm::{Court, Verdict};

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |value| value.parse().expect("a number"))
}

/// What was asked about an operator, and the most gas that an answer took as a transaction.
#[derive(Default)]
struct Tally {
    right: u64,
    wrong: u64,
    refused: u64,
    gas: u64,
}

#[test]
fn the_court_agrees_with_the_interpreter() {
    let (cases, seed) = (number("FREEHOLD_COURT_CASES", 3_000), number("FREEHOLD_COURT_SEED", 1));
    let mut court = Court::new();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for number in 0..cases {
        let mut dice = Dice::new(seed, number);
        let case = Case::roll(&mut dice, number);
        let tally = tallies.entry(case.op()).or_default();
        let is_right = number % 3 != 0;
        let asked = case.question(is_right, &mut dice);
        let (found, gas) = court.judge(&asked);
        assert_eq!(found, Verdict::Found(is_right), "case {number} of seed {seed}: {case:?}");
        tally.gas = tally.gas.max(gas);
        if is_right {
            tally.right += 1
        } else {
            tally.wrong += 1
        }
        if dice.below(4) == 0 {
            let (what, forged) = forge::forged(&asked, &mut dice);
            let (found, _) = court.judge(&forged);
            assert!(matches!(found, Verdict::Refused(_)), "case {number} of seed {seed}, forged {what}: {found:?}");
            tally.refused += 1;
        }
    }
    println!("{:<10} {:>8} {:>8} {:>8} {:>10}", "operator", "right", "wrong", "refused", "most gas");
    for (op, tally) in &tallies {
        println!("{op:<10} {:>8} {:>8} {:>8} {:>10}", tally.right, tally.wrong, tally.refused, tally.gas);
    }
    assert_eq!(tallies.len(), cases::OPERATORS, "{:?}", tallies.keys());
    for (op, tally) in &tallies {
        assert!((tally.right + tally.wrong) * 100 >= cases, "{op} is below one in a hundred");
    }
}
