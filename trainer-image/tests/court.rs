//! The contract, the interpreter and libtorch against each other: on random elements of random programs `LeafCourt`, in an
//! EVM of this process, finds right what the interpreter computed and wrong what is off by one, and refuses what was
//! forged; libtorch, on every unit, makes the interpreter's whole tensor.
//!
//! `FREEHOLD_COURT_CASES` cases (3,000), `FREEHOLD_COURT_SEED` for others (`make court`: a million). The contract's code is that of
//! `contracts/abi/LeafCourt.bin`, which `contracts/check-abi.sh` compares with its source.

#![allow(clippy::panic)] // a test may

#[path = "court/cases.rs"]
mod cases;
#[path = "court/evm.rs"]
mod evm;
#[path = "court/forge.rs"]
mod forge;

use std::collections::BTreeMap;

use cases::{Case, Dice};
use evm::{Court, Verdict};
use freehold_exact::program::List;
use freehold_trainer::exact::machine::Machine;
use freehold_trainer::exact::units::{Unit, Units};
use tch::Device;

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

/// On libtorch, its products by these units.
fn computed(case: &Case, units: &Units) -> freehold_exact::tensor::Tensor {
    let (program, data) = case.alone();
    let ranges = program.check().expect("what was built passes");
    let machine = Machine::new(program, &ranges, units, Device::Cpu).expect("a machine");
    let data: Vec<tch::Tensor> = data.iter().map(|tensor| machine.load(tensor).expect("data")).collect();
    let results = machine.run(List::Evaluate, &[], &data, case.context()).expect("a run");
    machine.store(&results[0]).expect("a tensor")
}

/// The cases of one thread of several, each with a court of its own.
fn judged(seed: u64, cases: impl ExactSizeIterator<Item = u64>) -> BTreeMap<&'static str, Tally> {
    let mut court = Court::new();
    let all = Units::probed(Device::Cpu);
    let units = [all.only(&[Unit::F64]), all];
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let (count, started) = (cases.len(), std::time::Instant::now());
    for (done, number) in cases.enumerate() {
        let mut dice = Dice::new(seed, number);
        let case = Case::roll(&mut dice, number);
        let tally = tallies.entry(case.op()).or_default();
        let is_right = !number.is_multiple_of(3);
        let asked = case.question(is_right, &mut dice);
        let (found, gas) = court.judge(&asked);
        assert_eq!(found, Verdict::Found(is_right), "case {number} of seed {seed}: {case:?}");
        tally.gas = tally.gas.max(gas);
        for units in &units[..if case.op() == "matmul" { 2 } else { 1 }] {
            assert_eq!(&computed(&case, units), case.result(), "case {number} of seed {seed} on libtorch: {case:?}");
        }
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
        if (done + 1) % 25_000 == 0 {
            println!("{:>9} of {count} cases, {} s", done + 1, started.elapsed().as_secs());
        }
    }
    tallies
}

#[test]
fn court_interpreter_and_libtorch_agree() {
    let (cases, seed) = (number("FREEHOLD_COURT_CASES", 3_000), number("FREEHOLD_COURT_SEED", 1));
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    tch::set_num_threads(1);
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    std::thread::scope(|scope| {
        let part = |thread: u64| (thread * cases / threads..(thread + 1) * cases / threads).collect::<Vec<_>>();
        let parts: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || judged(seed, part(thread).into_iter()))).collect();
        for (op, tally) in parts.into_iter().flat_map(|part| part.join().expect("all of the part agree")) {
            let sum = tallies.entry(op).or_default();
            sum.right += tally.right;
            sum.wrong += tally.wrong;
            sum.refused += tally.refused;
            sum.gas = sum.gas.max(tally.gas);
        }
    });
    println!("{:<10} {:>8} {:>8} {:>8} {:>10}", "operator", "right", "wrong", "refused", "most gas");
    for (op, tally) in &tallies {
        println!("{op:<10} {:>8} {:>8} {:>8} {:>10}", tally.right, tally.wrong, tally.refused, tally.gas);
    }
    let sum = |of: fn(&Tally) -> u64| tallies.values().map(of).sum::<u64>();
    println!("{:<10} {:>8} {:>8} {:>8}", "all", sum(|t| t.right), sum(|t| t.wrong), sum(|t| t.refused));
    assert_eq!(tallies.len(), cases::OPERATORS, "{:?}", tallies.keys());
    for (op, tally) in &tallies {
        assert!((tally.right + tally.wrong) * 100 >= cases, "{op} is below one in a hundred");
    }
}
