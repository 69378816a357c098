//! Questions with one part forged: each must be refused.

use alloy_primitives::{B256, Bytes};

use super::cases::Dice;
use super::evm::LeafCourt::Opening;
use super::evm::Question;

/// One part of the question is another, whichever the question has.
pub(super) fn forged(question: &Question, dice: &mut Dice) -> (&'static str, Question) {
    loop {
        let mut forged = question.clone();
        if let Some(what) = forge(&mut forged, dice) {
            return (what, forged);
        }
    }
}

fn forge(question: &mut Question, dice: &mut Dice) -> Option<&'static str> {
    let case = &mut question.c;
    let some = dice.below(case.openings.len());
    let root = dice.below(case.roots.len());
    match dice.below(14) {
        0 => flip(&mut case.openings.get_mut(some)?.chunk, dice).map(|()| "byte of a chunk"),
        1 => longer(&mut case.openings.get_mut(some)?.chunk).map(|()| "longer chunk"),
        2 => path(&mut case.openings.get_mut(some)?.path, dice),
        3 => flip(&mut question.claim.chunk, dice).map(|()| "byte of the claim"),
        4 => path(&mut question.claim.path, dice),
        5 => another(&mut question.root, dice).map(|()| "root of the claim"),
        // Of an operand that the rule does not read, a root is no more than a word.
        6 if case.openings.len() < case.roots.len() => None,
        6 => another(case.roots.get_mut(root)?, dice).map(|()| "root of an operand"),
        7 => flip(&mut case.node.descriptor, dice).map(|()| "byte of the descriptor"),
        8 => path(&mut case.node.path, dice),
        9 => another(&mut case.node.header, dice).map(|()| "header"),
        10 => another(&mut case.programId, dice).map(|()| "program"),
        11 => {
            case.node.counts[dice.below(3)] += 1;
            Some("count of operators")
        }
        12 => {
            case.openings.push(Opening { chunk: Bytes::new(), path: vec![] });
            Some("opening too many")
        }
        _ => case.openings.pop().map(|_| "opening too few"),
    }
}

fn flip(bytes: &mut Bytes, dice: &mut Dice) -> Option<()> {
    let mut changed = bytes.to_vec();
    let at = dice.below(changed.len());
    *changed.get_mut(at)? ^= 1 << dice.below(8);
    *bytes = changed.into();
    Some(())
}

fn longer(bytes: &mut Bytes) -> Option<()> {
    *bytes = [bytes.as_ref(), &[0]].concat().into();
    Some(())
}

fn another(hash: &mut B256, dice: &mut Dice) -> Option<()> {
    hash.0[dice.below(32)] ^= 1 << dice.below(8);
    Some(())
}

fn path(path: &mut Vec<B256>, dice: &mut Dice) -> Option<&'static str> {
    match dice.below(3) {
        0 => path.push(B256::ZERO),
        1 => path.pop().map(|_| ())?,
        _ => {
            let at = dice.below(path.len());
            another(path.get_mut(at)?, dice)?;
        }
    }
    Some("path")
}
