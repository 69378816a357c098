//! The rules of the outbox (design: cluster, section 2), as a pure function
//! from what is stored and what the chain says to what to do next. Whoever
//! carries the effects out may die between any two of them, or inside one:
//! the next plan goes on from what was stored.
//!
//! ```text
//! Pending ── Allocate (nonce, compare-and-swap) ── Send (sign, store the hash, broadcast)
//!    ▲                                                │  again, or replaced at a higher fee
//!    │ reverted, may be tried again                   ▼
//!    └─────────────── Mined ◀─── reorganisation ─── Submitted
//!                       │ at confirmed depth
//!                       ▼
//!               Confirmed or Failed ── Release
//! ```
//!
//! A nonce belongs to one goal for ever, save one that nothing was ever signed
//! for: that, and a nonce whose goal is lost, is filled by a `void`. A goal that
//! the signer refuses waits without a nonce until the signer is asked again.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::B256;
use freehold_api::Goal;
use freehold_api::transaction::TransactionState as State;
use freehold_core::money::Amount;

use crate::goal::Standing;
use crate::rpc::Receipt;

mod health;
mod purse;

pub use health::{NonceHealth, nonce_health};
use purse::Purse;

/// Transactions of an account that may wait for a block at once: nodes promise no more room than that.
pub const MAX_IN_FLIGHT: usize = 16;
/// Nonces that may be stored at once, with those that wait for confirmations.
pub const MAX_SLOTS: usize = 64;
/// Signatures for one nonce.
pub const MAX_HASHES: usize = 16;
/// Reason of a goal that the signer's policy does not allow.
const SIGNER_REFUSED: &str = "SignerRefused";
/// A goal that reverted on the chain although it seemed possible is tried so often again.
const MAX_REVERTS: u32 = 3;

/// A nonce that is allocated: `ComputeAccount.status.inFlight`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub nonce: u64,
    pub goal: String,
    pub hashes: Vec<B256>,
}

/// What the account's status stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub slots: Vec<Slot>,
    pub next_nonce: Option<u64>,
}

impl Ledger {
    fn slot_of(&self, goal: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.goal == goal)
    }

    /// How many more nonces may be allocated.
    fn room(&self, facts: &Facts) -> usize {
        let waiting = self.slots.iter().filter(|slot| slot.nonce >= facts.nonce_latest).count();
        MAX_IN_FLIGHT.saturating_sub(waiting).min(MAX_SLOTS.saturating_sub(self.slots.len()))
    }
}

/// A ChainTransaction, as far as the rules need it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    /// The nonce that a `void` fills.
    pub fills: Option<u64>,
    pub rank: u8,
    /// Unix seconds.
    pub created: i64,
    pub state: State,
    /// As its own status stores it.
    pub nonce: Option<u64>,
    pub hashes: Vec<B256>,
    pub max_fee: Option<u128>,
    /// Unix seconds of the newest signature.
    pub signed_at: Option<u64>,
    /// Unix seconds of the last broadcast by this process.
    pub sent_at: Option<u64>,
    pub reverts: u32,
    /// Why the signer refuses it, as long as it is not to be asked again.
    pub refused: Option<String>,
    /// What the chain says of the goal.
    pub standing: Standing,
    /// Its calldata can be made from what is known.
    pub buildable: bool,
    pub cost: Amount,
    pub gas: u64,
}

/// What the chain says of the account.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub nonce_latest: u64,
    pub nonce_confirmed: u64,
    /// Number of the confirmed block.
    pub confirmed: u64,
    /// Receipts of stored hashes, as far as there are any.
    pub receipts: BTreeMap<B256, Receipt>,
    /// Fee a unit of gas to offer now, in wei.
    pub fee: u128,
    /// Wei.
    pub gas: u128,
    pub free: Amount,
    pub wallet: Amount,
    pub allowance: Amount,
}

#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Seconds after which a silent transaction is broadcast again.
    pub resend_after: u64,
    /// Seconds after which it is replaced by one at a higher fee.
    pub replace_after: u64,
    /// Wei that may be spent on fees now, if capped.
    pub fees_left: Option<u128>,
    /// Tokens that may be spent now, if capped.
    pub tokens_left: Option<Amount>,
    /// Decimals of the token, for messages.
    pub decimals: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Store the nonce as the goal's.
    Allocate {
        goal: String,
        nonce: u64,
    },
    /// Store a nonce again that the account's status has lost.
    Adopt {
        goal: String,
        nonce: u64,
        hashes: Vec<B256>,
    },
    /// Sign, store the hash where it is new, then broadcast.
    Send {
        goal: String,
        nonce: u64,
        fee: u128,
    },
    /// Give the nonce to a `void`, made for it.
    Void {
        nonce: u64,
    },
    /// The nonce is used at confirmed depth: it need not be stored any longer.
    Release {
        nonce: u64,
    },
    Mark(Mark),
}

/// A new status of a goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub goal: String,
    pub state: State,
    pub reason: &'static str,
    pub message: String,
    /// The transaction and what became of it.
    pub mined: Option<(B256, Receipt)>,
    /// The nonce is given up; the goal is to be tried again.
    pub reverted: bool,
}

impl Mark {
    fn new(goal: &str, state: State, reason: &'static str, message: impl Into<String>) -> Self {
        Self { goal: goal.to_owned(), state, reason, message: message.into(), mined: None, reverted: false }
    }

    fn mined(mut self, mined: (B256, Receipt)) -> Self {
        self.mined = Some(mined);
        self
    }
}

/// Order in which goals get their nonces: what frees or saves money first.
pub fn rank(goal: &Goal) -> u8 {
    match goal {
        Goal::Void { .. } | Goal::Approve { .. } => 0,
        Goal::AcceptBid { .. }
        | Goal::CancelOrder { .. }
        | Goal::CloseOrder { .. }
        | Goal::AcceptResult { .. }
        | Goal::RejectResult { .. }
        | Goal::NoShow { .. }
        | Goal::TopUp { .. }
        | Goal::Start { .. }
        | Goal::Decline { .. }
        | Goal::Deliver { .. } => 1,
        Goal::PlaceOrder { .. } | Goal::Bid { .. } | Goal::Unbid { .. } => 2,
        Goal::Reclaim { .. } | Goal::Settle { .. } | Goal::Withdraw { .. } | Goal::Register { .. } => 3,
    }
}

/// What to do next.
pub fn plan(ledger: &Ledger, entries: &[Entry], facts: &Facts, policy: &Policy, now: u64) -> Vec<Effect> {
    let by_name: BTreeMap<&str, &Entry> = entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let lost = || entries.iter().filter(|entry| !entry.state.is_final() && ledger.slot_of(&entry.name).is_none());
    let voids: BTreeSet<u64> = lost().filter_map(|entry| entry.fills).collect();
    let mut effects = Vec::new();
    for slot in &ledger.slots {
        let entry = by_name.get(slot.goal.as_str()).copied();
        if voids.contains(&slot.nonce) && slot.hashes.is_empty() {
            // A void was made for the nonce, and then something came between.
            effects.push(Effect::Void { nonce: slot.nonce });
        } else {
            effects.extend(of_slot(slot, entry, facts, policy, now));
        }
    }
    for entry in lost() {
        effects.extend(of_lost_nonce(ledger, &by_name, entry, facts));
    }
    effects.extend(entries.iter().filter_map(|entry| undone(ledger, entry, facts)));
    effects.extend(gaps(ledger, entries, facts));
    // New nonces only on top of a ledger in which every nonce has its goal.
    if effects.iter().all(|effect| !matches!(effect, Effect::Adopt { .. } | Effect::Void { .. })) {
        effects.extend(queue(ledger, entries, facts, policy));
    }
    effects
}

fn of_slot(slot: &Slot, entry: Option<&Entry>, facts: &Facts, policy: &Policy, now: u64) -> Vec<Effect> {
    let used = facts.nonce_confirmed > slot.nonce;
    let open = facts.nonce_latest <= slot.nonce;
    match entry {
        Some(entry) if !entry.state.is_final() => {
            let claim = Claim::new(slot.nonce, &slot.hashes, entry);
            of_claim(&claim, entry, true, facts, policy, now)
        }
        // A void that was over, and whose nonce is open all the same: its transaction, or that of the goal that had the
        // nonce before, is no longer in the chain.
        Some(entry) if open && entry.fills == Some(slot.nonce) => {
            let message = format!("Nonce {} is open again; it is filled.", slot.nonce);
            vec![Effect::Mark(Mark::new(&entry.name, State::Pending, "Reopened", message))]
        }
        // The goal is over or gone: all that matters is that the nonce does not stay open.
        _ if used => vec![Effect::Release { nonce: slot.nonce }],
        _ if open => vec![Effect::Void { nonce: slot.nonce }],
        _ => vec![],
    }
}

/// A goal whose own status names a nonce that the account's status does not.
fn of_lost_nonce(ledger: &Ledger, by_name: &BTreeMap<&str, &Entry>, entry: &Entry, facts: &Facts) -> Vec<Effect> {
    let Some(nonce) = entry.nonce.or(entry.fills) else { return vec![] };
    if let Some(holder) = ledger.slots.iter().find(|slot| slot.nonce == nonce) {
        // A holder that is over leaves its nonce to whatever fills it.
        let lives = by_name.get(holder.goal.as_str()).is_some_and(|holder| !holder.state.is_final());
        let needless = !holder.hashes.is_empty() && (lives || facts.nonce_latest > nonce);
        let mark =
            Mark::new(&entry.name, State::Obsolete, "NonceHeld", format!("Nonce {nonce} belongs to {}.", holder.goal));
        return needless.then_some(Effect::Mark(mark)).into_iter().collect();
    }
    let claim = Claim::new(nonce, &[], entry);
    if facts.nonce_confirmed > nonce {
        return ended(&claim, entry, false, facts);
    }
    vec![Effect::Adopt { goal: entry.name.clone(), nonce, hashes: claim.hashes }]
}

/// A goal that was over, until a reorganisation went deeper than the confirmed depth. Once another transaction has its
/// nonce there, its own can never come back.
fn undone(ledger: &Ledger, entry: &Entry, facts: &Facts) -> Option<Effect> {
    let over = entry.state == State::Confirmed && ledger.slot_of(&entry.name).is_none();
    let taken = entry.nonce.is_some_and(|nonce| facts.nonce_confirmed > nonce);
    let mined = entry.hashes.iter().any(|hash| facts.receipts.contains_key(hash));
    (over && taken && !mined && entry.standing == Standing::Possible).then(|| {
        let message = "A reorganisation deeper than the confirmed depth undid it; the goal is tried again.";
        Effect::Mark(Mark { reverted: true, ..Mark::new(&entry.name, State::Pending, "Undone", message) })
    })
}

/// A nonce and every transaction that was signed for it.
struct Claim {
    nonce: u64,
    hashes: Vec<B256>,
}

impl Claim {
    fn new(nonce: u64, stored: &[B256], entry: &Entry) -> Self {
        let mut hashes = stored.to_vec();
        hashes.extend(entry.hashes.iter().filter(|hash| !stored.contains(hash)));
        Self { nonce, hashes }
    }

    fn receipt(&self, facts: &Facts) -> Option<(B256, Receipt)> {
        self.hashes.iter().find_map(|hash| facts.receipts.get(hash).map(|receipt| (*hash, *receipt)))
    }
}

fn of_claim(claim: &Claim, entry: &Entry, stored: bool, facts: &Facts, policy: &Policy, now: u64) -> Vec<Effect> {
    match claim.receipt(facts) {
        Some((_, receipt)) if receipt.block <= facts.confirmed => ended(claim, entry, stored, facts),
        Some(mined) => seen(entry, mined),
        None if facts.nonce_confirmed > claim.nonce => ended(claim, entry, stored, facts),
        // In a block, but not by a transaction of ours, or the receipt comes later.
        None if facts.nonce_latest > claim.nonce => vec![],
        None => underway(claim, entry, facts, policy, now),
    }
}

fn seen(entry: &Entry, mined: (B256, Receipt)) -> Vec<Effect> {
    if entry.state == State::Mined {
        return vec![];
    }
    let message = format!("In block {}; waits for confirmations.", mined.1.block);
    vec![Effect::Mark(Mark::new(&entry.name, State::Mined, "Mined", message).mined(mined))]
}

/// The nonce is used at confirmed depth, by us or by another.
fn ended(claim: &Claim, entry: &Entry, stored: bool, facts: &Facts) -> Vec<Effect> {
    let name = &entry.name;
    let mined = claim.receipt(facts);
    if let Some(mined) = mined.filter(|(_, receipt)| receipt.success) {
        let message = format!("In block {}, at confirmed depth.", mined.1.block);
        return vec![Effect::Mark(Mark::new(name, State::Confirmed, "Confirmed", message).mined(mined))];
    }
    let what = match mined {
        Some((hash, _)) => format!("transaction {hash} reverted"),
        None => format!("nonce {} was used by a transaction that is not of this operator", claim.nonce),
    };
    let mark = |state, reason, message: String| {
        let mut mark = Mark::new(name, state, reason, message);
        mark.mined = mined;
        mark
    };
    let last = match &entry.standing {
        // The nonce of a void is used: by whom does not matter.
        _ if entry.fills.is_some() => mark(State::Obsolete, "NonceUsed", "The nonce is used.".into()),
        Standing::Reached(why) => mark(State::Obsolete, "AlreadyReached", format!("{what}, but {why}.")),
        Standing::Impossible(why) => mark(State::Failed, "Reverted", format!("{what}: {why}.")),
        _ if entry.reverts >= MAX_REVERTS => {
            mark(State::Failed, "Reverted", format!("{what}, {} times in all.", entry.reverts + 1))
        }
        Standing::Possible | Standing::NotYet(_) => {
            let mut again = mark(State::Pending, "Reverted", format!("{what}; the goal is tried again."));
            again.reverted = true;
            // The nonce goes first: without it and with the goal's own memory of it, the plan is this one again.
            let release = stored.then_some(Effect::Release { nonce: claim.nonce });
            return release.into_iter().chain([Effect::Mark(again)]).collect();
        }
    };
    vec![Effect::Mark(last)]
}

/// The nonce is the goal's and no block has it.
fn underway(claim: &Claim, entry: &Entry, facts: &Facts, policy: &Policy, now: u64) -> Vec<Effect> {
    if claim.hashes.is_empty() {
        return unsigned(claim, entry, facts);
    }
    let due = entry.sent_at.is_none_or(|at| now.saturating_sub(at) >= policy.resend_after);
    if let Some(reason) = &entry.refused {
        return refused(claim, entry, reason, due);
    }
    let mut effects = Vec::new();
    if entry.state == State::Mined {
        let mark = Mark::new(
            &entry.name,
            State::Submitted,
            "Reorganised",
            "A reorganisation took the transaction out of its block; it is sent again.",
        );
        effects.push(Effect::Mark(mark));
    }
    let fee = entry.max_fee.unwrap_or(facts.fee);
    let waited = entry.signed_at.map_or(0, |at| now.saturating_sub(at));
    let patient = waited < policy.replace_after;
    let send = |fee| Effect::Send { goal: entry.name.clone(), nonce: claim.nonce, fee };
    if !entry.buildable {
        // What it was about has left the chain: nothing can be signed for it, so a void takes the nonce.
        if !patient {
            let message = "What the goal is about has left the chain.";
            effects.push(Effect::Mark(Mark::new(&entry.name, State::Failed, "Impossible", message)));
        }
        return effects;
    }
    if !patient && claim.hashes.len() < MAX_HASHES && fee < ceiling(facts) {
        effects.push(send(raised(fee)));
    } else if due {
        effects.push(send(fee));
    }
    effects
}

/// No more is signed, but what was signed before may still find a block: if the fee that is remembered is that of this nonce.
fn refused(claim: &Claim, entry: &Entry, reason: &str, due: bool) -> Vec<Effect> {
    let mark = Mark::new(&entry.name, State::Submitted, SIGNER_REFUSED, sentence(reason));
    let again = entry.max_fee.filter(|_| due && entry.buildable && entry.nonce == Some(claim.nonce));
    let send = again.map(|fee| Effect::Send { goal: entry.name.clone(), nonce: claim.nonce, fee });
    [Effect::Mark(mark)].into_iter().chain(send).collect()
}

/// Nothing was ever signed for the nonce: it may still go to a void.
fn unsigned(claim: &Claim, entry: &Entry, facts: &Facts) -> Vec<Effect> {
    let void = Effect::Void { nonce: claim.nonce };
    match &entry.refused {
        // Nothing is left to fill the nonce with.
        Some(reason) if entry.fills.is_some() => {
            let message = format!(
                "Nonce {} stays open, and what comes after it waits: {}.",
                claim.nonce,
                reason.trim_end_matches('.')
            );
            return vec![Effect::Mark(Mark::new(&entry.name, entry.state, SIGNER_REFUSED, message))];
        }
        Some(_) => return vec![void],
        None => {}
    }
    if entry.fills.is_some() || (entry.standing == Standing::Possible && entry.buildable) {
        return vec![Effect::Send { goal: entry.name.clone(), nonce: claim.nonce, fee: facts.fee }];
    }
    match end_of(entry) {
        Some(mark) => vec![Effect::Mark(mark), void],
        None => vec![void],
    }
}

/// Nodes take a replacement that offers at least 10 % more.
fn raised(fee: u128) -> u128 {
    fee.saturating_add(fee / 4).saturating_add(1)
}

/// No replacement offers more than ten times what would be offered now.
fn ceiling(facts: &Facts) -> u128 {
    facts.fee.saturating_mul(10)
}

/// Nonces below the next one that nobody has any more.
fn gaps(ledger: &Ledger, entries: &[Entry], facts: &Facts) -> Vec<Effect> {
    let Some(next) = ledger.next_nonce else { return vec![] };
    let mut held: BTreeSet<u64> = ledger.slots.iter().map(|slot| slot.nonce).collect();
    held.extend(entries.iter().filter(|entry| !entry.state.is_final()).filter_map(|entry| entry.nonce.or(entry.fills)));
    let room = MAX_SLOTS.saturating_sub(ledger.slots.len());
    (facts.nonce_latest..next)
        .filter(|nonce| !held.contains(nonce))
        .take(room)
        .map(|nonce| Effect::Void { nonce })
        .collect()
}

/// Goals without a nonce: those that are over, those that must wait, and those that get one.
fn queue(ledger: &Ledger, entries: &[Entry], facts: &Facts, policy: &Policy) -> Vec<Effect> {
    let waiting = |entry: &&Entry| {
        !entry.state.is_final()
            && entry.nonce.is_none()
            && entry.fills.is_none()
            && ledger.slot_of(&entry.name).is_none()
    };
    let mut waiting: Vec<&Entry> = entries.iter().filter(waiting).collect();
    waiting.sort_by(|a, b| (a.rank, a.created, &a.name).cmp(&(b.rank, b.created, &b.name)));
    let mut purse = Purse::new(ledger, entries, facts, policy);
    let mut next = ledger.next_nonce.unwrap_or(0).max(facts.nonce_latest);
    let mut room = ledger.room(facts);
    let mut effects = Vec::new();
    for entry in waiting {
        let wait = |reason, message: String| Effect::Mark(Mark::new(&entry.name, State::Pending, reason, message));
        let effect = match (&entry.standing, room) {
            (Standing::Reached(_) | Standing::Impossible(_), _) => end_of(entry).map(Effect::Mark),
            (Standing::NotYet(why), _) => Some(wait("Waiting", sentence(why))),
            (Standing::Possible, _) if entry.refused.is_some() => {
                entry.refused.as_ref().map(|reason| wait(SIGNER_REFUSED, sentence(reason)))
            }
            (Standing::Possible, 0) => Some(wait("Queued", "Enough transactions of the account are under way.".into())),
            (Standing::Possible, _) => match purse.take(entry) {
                Err((reason, message)) => Some(wait(reason, message)),
                Ok(()) => {
                    let effect = Effect::Allocate { goal: entry.name.clone(), nonce: next };
                    (next, room) = (next + 1, room - 1);
                    Some(effect)
                }
            },
        };
        effects.extend(effect);
    }
    effects
}

fn end_of(entry: &Entry) -> Option<Mark> {
    match &entry.standing {
        Standing::Reached(why) => {
            Some(Mark::new(&entry.name, State::Obsolete, "AlreadyReached", format!("Nothing had to be sent: {why}.")))
        }
        Standing::Impossible(why) => Some(Mark::new(&entry.name, State::Failed, "Impossible", sentence(why))),
        Standing::Possible | Standing::NotYet(_) => None,
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}

#[cfg(test)]
mod tests;
