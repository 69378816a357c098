use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const DEPTH: u64 = 3;

fn policy() -> Policy {
    Policy { resend_after: 5, replace_after: 20, fees_left: None, tokens_left: None, decimals: 6 }
}

fn entry(name: &str) -> Entry {
    Entry {
        name: name.into(),
        fills: None,
        rank: 2,
        created: 0,
        state: State::Pending,
        nonce: None,
        hashes: vec![],
        max_fee: None,
        signed_at: None,
        sent_at: None,
        reverts: 0,
        refused: None,
        standing: Standing::Possible,
        buildable: true,
        cost: Amount::ZERO,
        gas: 100_000,
    }
}

fn submitted(name: &str, nonce: u64, hash: B256) -> Entry {
    Entry {
        state: State::Submitted,
        nonce: Some(nonce),
        hashes: vec![hash],
        max_fee: Some(100),
        signed_at: Some(0),
        sent_at: Some(0),
        ..entry(name)
    }
}

fn facts() -> Facts {
    Facts { fee: 100, gas: u128::from(u64::MAX), confirmed: 10, ..Facts::default() }
}

fn slot(nonce: u64, goal: &str, hashes: &[B256]) -> Slot {
    Slot { nonce, goal: goal.into(), hashes: hashes.to_vec() }
}

fn hash(n: u8) -> B256 {
    B256::repeat_byte(n)
}

fn receipt(block: u64, success: bool) -> Receipt {
    Receipt { block, block_hash: B256::ZERO, success, gas_used: 50_000, fee: 5 }
}

fn marks(effects: &[Effect]) -> Vec<(&str, State, &'static str)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Mark(mark) => Some((mark.goal.as_str(), mark.state, mark.reason)),
            _ => None,
        })
        .collect()
}

#[test]
fn goals_get_consecutive_nonces_by_rank_and_age() {
    let ledger = Ledger { slots: vec![], next_nonce: Some(4) };
    let entries = [
        Entry { created: 1, ..entry("old") },
        Entry { created: 2, rank: 0, ..entry("approve") },
        Entry { created: 0, rank: 3, ..entry("withdraw") },
    ];
    let effects = plan(&ledger, &entries, &Facts { nonce_latest: 4, ..facts() }, &policy(), 0);
    let expected = [("approve", 4), ("old", 5), ("withdraw", 6)]
        .map(|(goal, nonce)| Effect::Allocate { goal: goal.into(), nonce });
    assert_eq!(effects, expected);
}

#[test]
fn what_has_a_block_makes_room_until_the_list_is_full() {
    let waiting: Vec<Entry> = (0..20).map(|n| entry(&format!("new{n:02}"))).collect();
    let allocated = |slots: u64, mined: u64| {
        let ledger = Ledger {
            slots: (0..slots).map(|n| slot(n, &format!("g{n}"), &[hash(1)])).collect(),
            next_nonce: Some(slots),
        };
        let mut entries = waiting.clone();
        entries.extend((0..slots).map(|n| submitted(&format!("g{n}"), n, hash(1))));
        let effects = plan(&ledger, &entries, &Facts { nonce_latest: mined, ..facts() }, &policy(), 0);
        effects.iter().filter(|effect| matches!(effect, Effect::Allocate { .. })).count()
    };
    assert_eq!(allocated(16, 0), 0);
    assert_eq!(allocated(16, 10), 10);
    assert_eq!(allocated(60, 60), 4);
}

#[test]
fn at_most_sixteen_are_under_way() {
    let entries: Vec<Entry> = (0..20).map(|n| entry(&format!("g{n:02}"))).collect();
    let effects = plan(&Ledger::default(), &entries, &facts(), &policy(), 0);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Allocate { .. })).count(), MAX_IN_FLIGHT);
    assert_eq!(marks(&effects).len(), 4);
}

#[test]
fn what_is_over_costs_no_nonce() {
    let entries = [
        Entry { standing: Standing::Reached("the bid stands".into()), ..entry("a") },
        Entry { standing: Standing::Impossible("the order is Closed".into()), ..entry("b") },
        Entry { standing: Standing::NotYet("the lease has not started".into()), ..entry("c") },
    ];
    let effects = plan(&Ledger::default(), &entries, &facts(), &policy(), 0);
    let expected = vec![
        ("a", State::Obsolete, "AlreadyReached"),
        ("b", State::Failed, "Impossible"),
        ("c", State::Pending, "Waiting"),
    ];
    assert_eq!(marks(&effects), expected);
    assert_eq!(effects.len(), 3);
}

#[test]
fn nothing_is_sent_that_cannot_be_paid() {
    let dear = Entry { cost: Amount(2_000_000), ..entry("order") };
    let reason = |facts: Facts| {
        let effects = plan(&Ledger::default(), std::slice::from_ref(&dear), &facts, &policy(), 0);
        match effects.as_slice() {
            [Effect::Mark(mark)] => (mark.reason, mark.message.clone()),
            other => panic!("{other:?}"),
        }
    };
    let (why, message) = reason(Facts { wallet: Amount(1_500_000), allowance: Amount(1_500_000), ..facts() });
    assert_eq!(why, "InsufficientBalance");
    assert!(message.contains("holds 1.5 tokens") && message.contains("2 are needed"), "{message}");
    let (why, _) = reason(Facts { wallet: Amount(3_000_000), allowance: Amount(1), ..facts() });
    assert_eq!(why, "Waiting");
    let (why, _) = reason(Facts { gas: 1, wallet: Amount(3_000_000), allowance: Amount(3_000_000), ..facts() });
    assert_eq!(why, "GasLow");
}

#[test]
fn money_under_way_is_not_spent_twice() {
    let ledger = Ledger { slots: vec![slot(0, "first", &[hash(1)])], next_nonce: Some(1) };
    let entries =
        [Entry { cost: Amount(2), ..submitted("first", 0, hash(1)) }, Entry { cost: Amount(2), ..entry("second") }];
    let effects = plan(&ledger, &entries, &Facts { wallet: Amount(3), allowance: Amount(9), ..facts() }, &policy(), 0);
    assert_eq!(marks(&effects), vec![("second", State::Pending, "InsufficientBalance")]);
}

#[test]
fn success_is_a_receipt_at_confirmed_depth() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let with = |block, nonce_confirmed, state| {
        let facts = Facts {
            nonce_latest: 1,
            nonce_confirmed,
            receipts: BTreeMap::from([(hash(1), receipt(block, true))]),
            ..facts()
        };
        plan(&ledger, &[Entry { state, ..submitted("g", 0, hash(1)) }], &facts, &policy(), 0)
    };
    assert_eq!(marks(&with(11, 0, State::Submitted)), vec![("g", State::Mined, "Mined")]);
    assert_eq!(with(11, 0, State::Mined), vec![]);
    assert_eq!(marks(&with(10, 1, State::Mined)), vec![("g", State::Confirmed, "Confirmed")]);
    assert_eq!(with(10, 1, State::Confirmed), vec![Effect::Release { nonce: 0 }]);
}

#[test]
fn a_reorganisation_sends_again() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let entry = Entry { state: State::Mined, sent_at: None, ..submitted("g", 0, hash(1)) };
    let effects = plan(&ledger, &[entry], &facts(), &policy(), 1);
    assert_eq!(marks(&effects), vec![("g", State::Submitted, "Reorganised")]);
    assert!(effects.contains(&Effect::Send { goal: "g".into(), nonce: 0, fee: 100 }));
}

#[test]
fn silence_is_repeated_and_then_outbid() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let at = |now| plan(&ledger, &[submitted("g", 0, hash(1))], &facts(), &policy(), now);
    assert_eq!(at(4), vec![]);
    assert_eq!(at(5), vec![Effect::Send { goal: "g".into(), nonce: 0, fee: 100 }]);
    assert_eq!(at(20), vec![Effect::Send { goal: "g".into(), nonce: 0, fee: 126 }]);
    let dear = Entry { max_fee: Some(1_000), ..submitted("g", 0, hash(1)) };
    assert_eq!(
        plan(&ledger, &[dear], &facts(), &policy(), 20),
        vec![Effect::Send { goal: "g".into(), nonce: 0, fee: 1_000 }]
    );
}

#[test]
fn a_revert_is_tried_again_only_while_it_makes_sense() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let with = |standing, reverts| {
        let facts = Facts {
            nonce_latest: 1,
            nonce_confirmed: 1,
            receipts: BTreeMap::from([(hash(1), receipt(9, false))]),
            ..facts()
        };
        plan(&ledger, &[Entry { standing, reverts, ..submitted("g", 0, hash(1)) }], &facts, &policy(), 0)
    };
    assert_eq!(marks(&with(Standing::Reached("so it is".into()), 0)), vec![("g", State::Obsolete, "AlreadyReached")]);
    assert_eq!(marks(&with(Standing::Impossible("it is over".into()), 0)), vec![("g", State::Failed, "Reverted")]);
    assert_eq!(marks(&with(Standing::Possible, 3)), vec![("g", State::Failed, "Reverted")]);
    let again = with(Standing::Possible, 0);
    assert_eq!(again.first(), Some(&Effect::Release { nonce: 0 }));
    assert_eq!(marks(&again), vec![("g", State::Pending, "Reverted")]);
}

#[test]
fn a_nonce_that_nothing_was_signed_for_goes_to_a_void() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[])], next_nonce: Some(1) };
    let over = Entry { standing: Standing::Impossible("the order is Closed".into()), ..entry("g") };
    let effects = plan(&ledger, &[over], &facts(), &policy(), 0);
    assert_eq!(marks(&effects), vec![("g", State::Failed, "Impossible")]);
    assert!(effects.contains(&Effect::Void { nonce: 0 }));
    let effects = plan(&ledger, &[], &facts(), &policy(), 0);
    assert_eq!(effects, vec![Effect::Void { nonce: 0 }]);
}

fn refused(entry: Entry) -> Entry {
    Entry { refused: Some("the signer refused by its rule `spend`: 5; allowed: 4".into()), ..entry }
}

#[test]
fn what_the_signer_refuses_waits_without_a_nonce_and_others_go_on() {
    let entries = [refused(entry("dear")), entry("cheap")];
    let effects = plan(&Ledger::default(), &entries, &facts(), &policy(), 0);
    assert!(effects.contains(&Effect::Allocate { goal: "cheap".into(), nonce: 0 }), "{effects:?}");
    assert_eq!(marks(&effects), [("dear", State::Pending, "SignerRefused")]);
}

#[test]
fn the_nonce_of_a_refused_goal_goes_to_a_void() {
    let ledger = Ledger { slots: vec![slot(3, "dear", &[])], next_nonce: Some(4) };
    let at_three = Facts { nonce_latest: 3, ..facts() };
    let dear = refused(entry("dear"));
    assert_eq!(plan(&ledger, std::slice::from_ref(&dear), &at_three, &policy(), 0), [Effect::Void { nonce: 3 }]);

    let ledger = Ledger { slots: vec![slot(3, "void", &[])], next_nonce: Some(4) };
    let void = Entry { fills: Some(3), ..entry("void") };
    let effects = plan(&ledger, &[void.clone(), dear], &at_three, &policy(), 0);
    assert_eq!(effects[0], Effect::Send { goal: "void".into(), nonce: 3, fee: 100 });
    assert_eq!(marks(&effects), [("dear", State::Pending, "SignerRefused")]);

    let void = refused(void);
    let effects = plan(&ledger, std::slice::from_ref(&void), &at_three, &policy(), 0);
    let [Effect::Mark(mark)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((mark.state, mark.reason), (State::Pending, "SignerRefused"));
    assert!(mark.message.starts_with("Nonce 3 stays open") && mark.message.contains("`spend`"), "{}", mark.message);
    let health = nonce_health(&ledger, &[void], &at_three, &policy(), 0);
    assert!(matches!(health, NonceHealth::Refused { nonce: 3, .. }), "{health:?}");
}

#[test]
fn what_was_signed_before_a_refusal_keeps_its_nonce() {
    let ledger = Ledger { slots: vec![slot(3, "g", &[hash(1)])], next_nonce: Some(4) };
    let at_three = Facts { nonce_latest: 3, ..facts() };
    let goal = refused(submitted("g", 3, hash(1)));
    let effects = plan(&ledger, std::slice::from_ref(&goal), &at_three, &policy(), 4);
    assert_eq!(marks(&effects), [("g", State::Submitted, "SignerRefused")]);
    assert_eq!(effects.len(), 1);
    // Sent again as it is, however long it takes; no fee is raised.
    let effects = plan(&ledger, &[goal], &at_three, &policy(), 1_000);
    assert_eq!(effects[1..], [Effect::Send { goal: "g".into(), nonce: 3, fee: 100 }]);
}

#[test]
fn a_void_that_is_over_is_taken_up_again_where_its_nonce_is_open() {
    let ledger = Ledger { slots: vec![slot(3, "void", &[hash(1)])], next_nonce: Some(4) };
    let facts = Facts { nonce_latest: 3, nonce_confirmed: 3, ..facts() };
    let over = Entry { fills: Some(3), state: State::Obsolete, ..entry("void") };
    let effects = plan(&ledger, std::slice::from_ref(&over), &facts, &policy(), 1);
    assert_eq!(marks(&effects), vec![("void", State::Pending, "Reopened")]);
    let again = Entry { state: State::Pending, ..over };
    let effects = plan(&ledger, &[again], &facts, &policy(), 1);
    assert_eq!(effects, vec![Effect::Send { goal: "void".into(), nonce: 3, fee: 100 }]);
}

#[test]
fn a_signed_goal_keeps_its_nonce_even_when_it_is_over() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let over = Entry {
        standing: Standing::Impossible("the order is Closed".into()),
        sent_at: None,
        ..submitted("g", 0, hash(1))
    };
    assert_eq!(
        plan(&ledger, &[over], &facts(), &policy(), 1),
        vec![Effect::Send { goal: "g".into(), nonce: 0, fee: 100 }]
    );
}

#[test]
fn a_lost_account_status_is_made_again_from_the_goals() {
    let entries = [submitted("g", 3, hash(1)), entry("new")];
    let facts = Facts { nonce_latest: 3, nonce_confirmed: 3, ..facts() };
    let effects = plan(&Ledger::default(), &entries, &facts, &policy(), 1);
    assert_eq!(effects, vec![Effect::Adopt { goal: "g".into(), nonce: 3, hashes: vec![hash(1)] }]);
}

#[test]
fn a_foreign_transaction_is_noticed_and_its_nonce_left() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let facts = Facts { nonce_latest: 2, nonce_confirmed: 2, ..facts() };
    let entries = [submitted("g", 0, hash(1))];
    assert_eq!(nonce_health(&ledger, &entries, &facts, &policy(), 0), NonceHealth::Foreign { nonce: 1 });
    let effects = plan(&ledger, &entries, &facts, &policy(), 0);
    assert_eq!(effects.first(), Some(&Effect::Release { nonce: 0 }));
    assert_eq!(marks(&effects), vec![("g", State::Pending, "Reverted")]);
    let later = Ledger { slots: vec![], next_nonce: Some(1) };
    let effects = plan(&later, &[entry("g")], &facts, &policy(), 0);
    assert_eq!(effects, vec![Effect::Allocate { goal: "g".into(), nonce: 2 }]);
}

/// A chain in three sentences: transactions wait, blocks take them in the order
/// of nonces, and a reorganisation gives blocks back.
#[derive(Clone, Debug, Default)]
struct Chain {
    blocks: Vec<Vec<Sent>>,
    pool: Vec<Sent>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    nonce: u64,
    goal: String,
    hash: B256,
}

impl Chain {
    fn nonce_at(&self, blocks: usize) -> u64 {
        self.blocks[..blocks].iter().map(|block| block.len() as u64).sum()
    }

    fn confirmed(&self) -> usize {
        self.blocks.len().saturating_sub(DEPTH as usize)
    }

    fn broadcast(&mut self, sent: Sent) {
        if sent.nonce >= self.nonce_at(self.blocks.len()) && !self.pool.contains(&sent) {
            self.pool.push(sent);
        }
    }

    fn mine(&mut self) {
        let mut next = self.nonce_at(self.blocks.len());
        let mut block = Vec::new();
        while let Some(at) = self.pool.iter().rposition(|sent| sent.nonce == next) {
            block.push(self.pool.remove(at));
            self.pool.retain(|sent| sent.nonce != next);
            next += 1;
        }
        self.blocks.push(block);
    }

    fn reorganise(&mut self, blocks: usize, keep: bool) {
        let left = self.blocks.len().saturating_sub(blocks);
        let undone: Vec<Sent> = self.blocks.split_off(left).into_iter().flatten().collect();
        self.pool = if keep { undone } else { vec![] };
        // The other branch is longer, as it has to be to win.
        self.blocks.resize(left + blocks + 1, vec![]);
    }

    fn mined(&self) -> impl Iterator<Item = (usize, &Sent)> {
        self.blocks.iter().enumerate().flat_map(|(number, block)| block.iter().map(move |sent| (number, sent)))
    }

    fn standing(&self, goal: &str) -> Standing {
        let at = |limit: usize| self.mined().any(|(number, sent)| number < limit && sent.goal == goal);
        match (at(self.blocks.len()), at(self.confirmed())) {
            (true, true) => Standing::Reached("done".into()),
            (true, false) => Standing::NotYet("waits for confirmations".into()),
            (false, _) => Standing::Possible,
        }
    }
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
struct World {
    ledger: Ledger,
    goals: BTreeMap<String, Entry>,
    chain: Chain,
    now: u64,
    /// Broadcasts of this process; lost in a crash.
    sent_at: BTreeMap<String, u64>,
    /// What the signer refuses, for as long as it does.
    refused: BTreeSet<String>,
}

impl World {
    fn new(goals: usize) -> Self {
        let goals =
            (0..goals).map(|n| (format!("g{n}"), Entry { created: n as i64, ..entry(&format!("g{n}")) })).collect();
        Self { goals, ..Self::default() }
    }

    fn facts(&self) -> Facts {
        let chain = &self.chain;
        let receipts = chain.mined().map(|(number, sent)| (sent.hash, receipt(number as u64, true))).collect();
        Facts {
            nonce_latest: chain.nonce_at(chain.blocks.len()),
            nonce_confirmed: chain.nonce_at(chain.confirmed()),
            // Blocks count from 0 here: the last confirmed one is one less than their number.
            confirmed: (chain.confirmed() as u64).wrapping_sub(1).min(u64::MAX - 1),
            receipts: if chain.confirmed() == 0 { BTreeMap::new() } else { receipts },
            ..facts()
        }
    }

    fn plan(&self) -> Vec<Effect> {
        let entries: Vec<Entry> = self
            .goals
            .values()
            .map(|entry| Entry {
                standing: self.chain.standing(&entry.name),
                sent_at: self.sent_at.get(&entry.name).copied(),
                refused: self.refused.get(&entry.name).map(|_| "no".into()),
                ..entry.clone()
            })
            .collect();
        plan(&self.ledger, &entries, &self.facts(), &policy(), self.now)
    }

    /// Carries out one effect up to `step` of its durable steps; true if that was all of it.
    fn carry_out(&mut self, effect: &Effect, step: usize) -> bool {
        match effect {
            Effect::Allocate { goal, nonce } => self.hold(goal, *nonce, vec![]),
            Effect::Adopt { goal, nonce, hashes } => self.hold(goal, *nonce, hashes.clone()),
            Effect::Release { nonce } => self.ledger.slots.retain(|slot| slot.nonce != *nonce),
            Effect::Void { nonce } => return self.void(*nonce, step),
            Effect::Send { goal, nonce, fee } => return self.send(goal, *nonce, *fee, step),
            Effect::Mark(mark) => self.mark(mark),
        }
        true
    }

    fn hold(&mut self, goal: &str, nonce: u64, hashes: Vec<B256>) {
        assert!(self.ledger.slots.iter().all(|slot| slot.nonce != nonce), "nonce {nonce} has two goals");
        self.ledger.slots.push(Slot { nonce, goal: goal.into(), hashes });
        self.ledger.next_nonce = Some(self.ledger.next_nonce.unwrap_or(0).max(nonce + 1));
        assert!(self.ledger.slots.len() <= MAX_SLOTS);
    }

    fn void(&mut self, nonce: u64, step: usize) -> bool {
        let name = format!("void{nonce}");
        self.goals.entry(name.clone()).or_insert(Entry { fills: Some(nonce), ..entry(&name) });
        if step == 1 {
            return false;
        }
        match self.ledger.slots.iter_mut().find(|slot| slot.nonce == nonce) {
            Some(slot) => slot.goal = name,
            None => self.hold(&name, nonce, vec![]),
        }
        true
    }

    fn send(&mut self, goal: &str, nonce: u64, fee: u128, step: usize) -> bool {
        let hash = alloy::primitives::keccak256(format!("{goal} {nonce} {fee}"));
        let slot = self.ledger.slots.iter_mut().find(|slot| slot.nonce == nonce).expect("allocated");
        assert_eq!(slot.goal, goal, "a nonce belongs to one goal");
        let known = slot.hashes.contains(&hash);
        assert!(known || !self.refused.contains(goal), "the signer is asked for nothing new before its time");
        if !slot.hashes.contains(&hash) {
            slot.hashes.push(hash);
        }
        if step == 1 {
            return false;
        }
        let entry = self.goals.get_mut(goal).expect("goal");
        if !entry.hashes.contains(&hash) {
            entry.hashes.push(hash);
        }
        (entry.nonce, entry.state) = (Some(nonce), State::Submitted);
        (entry.max_fee, entry.signed_at) = (Some(fee), Some(self.now));
        if step == 2 {
            return false;
        }
        self.chain.broadcast(Sent { nonce, goal: goal.into(), hash });
        self.sent_at.insert(goal.into(), self.now);
        true
    }

    fn mark(&mut self, mark: &Mark) {
        let entry = self.goals.get_mut(&mark.goal).expect("goal");
        entry.state = mark.state;
        if mark.reverted {
            entry.nonce = None;
            entry.hashes.clear();
            entry.reverts += 1;
        }
    }

    fn crash(&mut self) {
        self.sent_at.clear();
    }

    fn done(&self) -> bool {
        self.ledger.slots.is_empty() && self.goals.values().all(|entry| entry.state.is_final())
    }

    /// Undisturbed, until nothing is left to do.
    fn settle(&mut self) {
        self.refused.clear();
        for _ in 0..200 {
            for effect in self.plan() {
                self.carry_out(&effect, usize::MAX);
            }
            if self.done() {
                return;
            }
            self.chain.mine();
            self.now += 2;
        }
        panic!("not settled: {self:#?}");
    }

    fn check(&self, goals: usize) {
        let nonces: Vec<u64> = self.chain.mined().map(|(_, sent)| sent.nonce).collect();
        assert_eq!(nonces, (0..nonces.len() as u64).collect::<Vec<_>>(), "nonces are contiguous");
        for n in 0..goals {
            let name = format!("g{n}");
            let times = self.chain.mined().filter(|(_, sent)| sent.goal == name).count();
            assert_eq!(times, 1, "{name} was mined {times} times");
        }
        let distinct: BTreeSet<&str> = self.chain.mined().map(|(_, sent)| sent.goal.as_str()).collect();
        assert_eq!(distinct.len(), nonces.len(), "no goal has two transactions");
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// Carry the plan out up to its n-th effect and the m-th step of that, then die.
    Crash {
        effects: usize,
        step: usize,
    },
    /// Carry all of the plan out.
    Pass,
    Mine,
    Reorganise {
        blocks: usize,
        keep: bool,
    },
    /// The signer's policy turns against a goal, or for it.
    Turn {
        goal: usize,
    },
}

/// Reorganisations give up to `depth` blocks back.
fn event(depth: u64) -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0usize..6, 1usize..3).prop_map(|(effects, step)| Event::Crash { effects, step }),
        2 => Just(Event::Pass),
        3 => Just(Event::Mine),
        1 => (1usize..=depth as usize, any::<bool>()).prop_map(|(blocks, keep)| Event::Reorganise { blocks, keep }),
        2 => (0usize..6).prop_map(|goal| Event::Turn { goal }),
    ]
}

fn run(goals: usize, events: &[Event]) -> World {
    let mut world = World::new(goals);
    for event in events {
        world.now += 2;
        match event {
            Event::Crash { effects, step } => {
                for (at, effect) in world.plan().iter().enumerate() {
                    if at > *effects || !world.carry_out(effect, if at == *effects { *step } else { usize::MAX }) {
                        break;
                    }
                }
                world.crash();
            }
            Event::Pass => {
                for effect in world.plan() {
                    world.carry_out(&effect, usize::MAX);
                }
            }
            Event::Mine => world.chain.mine(),
            Event::Reorganise { blocks, keep } => world.chain.reorganise(*blocks, *keep),
            Event::Turn { goal } => {
                let goal = format!("g{goal}");
                if !world.refused.remove(&goal) {
                    world.refused.insert(goal);
                }
            }
        }
    }
    world.settle();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Dying anywhere, any number of times, with reorganisations in between:
    /// one transaction a goal, and no hole among the nonces.
    #[test]
    fn whatever_happens_each_goal_is_reached_once(goals in 1usize..20, events in proptest::collection::vec(event(DEPTH), 0..40)) {
        run(goals, &events).check(goals);
    }

    /// Beyond the confirmed depth what was reached can be undone, and whoever asked for it asks again; the account goes
    /// on: no nonce stays open, and the next goal is reached once.
    #[test]
    fn no_reorganisation_stops_the_account(goals in 1usize..4, events in proptest::collection::vec(event(3 * DEPTH), 60..120)) {
        let mut world = run(goals, &events);
        world.goals.insert("late".into(), Entry { created: 1_000, ..entry("late") });
        world.settle();
        let mined: Vec<&Sent> = world.chain.mined().map(|(_, sent)| sent).collect();
        let nonces: Vec<u64> = mined.iter().map(|sent| sent.nonce).collect();
        prop_assert_eq!(&nonces, &(0..nonces.len() as u64).collect::<Vec<_>>());
        prop_assert_eq!(mined.iter().filter(|sent| sent.goal == "late").count(), 1);
    }
}

#[test]
fn dying_at_each_step_in_turn_places_one_order() {
    for effects in 0..3 {
        for step in 1..3 {
            for passes in 0..4 {
                let mut events: Vec<Event> = (0..passes).map(|_| Event::Pass).collect();
                events.push(Event::Crash { effects, step });
                run(1, &events).check(1);
            }
        }
    }
}
