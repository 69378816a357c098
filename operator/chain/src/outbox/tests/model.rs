//! The rules against a model: a chain, what survives a crash, and an operator that may die in the middle of any effect.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Blocks on top of one that is confirmed.
const DEPTH: u64 = 3;

/// A chain in three sentences: transactions wait, blocks take them in the order
/// of nonces, and a reorganisation gives blocks back.
#[derive(Clone, Debug, Default)]
struct Chain {
    blocks: Vec<Vec<Sent>>,
    pool: Vec<Sent>,
    /// How often the subject of a goal has changed, such as a lease of a batch that somebody closed.
    changes: BTreeMap<String, u32>,
    reverted: BTreeSet<B256>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    nonce: u64,
    goal: String,
    hash: B256,
    /// Which state of the goal's subject its calldata was made for; for another one it reverts.
    content: u32,
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
            let sent = self.pool.remove(at);
            match sent.content == self.content(&sent.goal) {
                true => self.reverted.remove(&sent.hash),
                false => self.reverted.insert(sent.hash),
            };
            block.push(sent);
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

    fn content(&self, goal: &str) -> u32 {
        self.changes.get(goal).copied().unwrap_or(0)
    }

    fn succeeded(&self, sent: &Sent) -> bool {
        !self.reverted.contains(&sent.hash)
    }

    fn mined(&self) -> impl Iterator<Item = (usize, &Sent)> {
        self.blocks.iter().enumerate().flat_map(|(number, block)| block.iter().map(move |sent| (number, sent)))
    }

    fn standing(&self, goal: &str) -> Standing {
        let done = |sent: &Sent| sent.goal == goal && self.succeeded(sent);
        let at = |limit: usize| self.mined().any(|(number, sent)| number < limit && done(sent));
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
        let of = |(number, sent): (usize, &Sent)| (sent.hash, receipt(number as u64, chain.succeeded(sent)));
        let receipts = chain.mined().map(of).collect();
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
        // Made anew from what the chain says now, each time.
        let content = self.chain.content(goal);
        let hash_of = |content| alloy::primitives::keccak256(format!("{goal} {nonce} {fee} {content}"));
        let hash = hash_of(content);
        let slot = self.ledger.slots.iter_mut().find(|slot| slot.nonce == nonce).expect("allocated");
        assert_eq!(slot.goal, goal, "a nonce belongs to one goal");
        let known = slot.hashes.contains(&hash);
        let remade = (0..content).any(|before| slot.hashes.contains(&hash_of(before)));
        let refused = self.refused.contains(goal);
        assert!(known || remade || !refused, "the signer is asked for nothing new before its time");
        if refused && !known {
            self.sent_at.insert(goal.into(), self.now);
            return true;
        }
        if !known {
            if slot.hashes.len() >= MAX_HASHES {
                self.sent_at.insert(goal.into(), self.now);
                return true;
            }
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
        self.chain.broadcast(Sent { nonce, goal: goal.into(), hash, content });
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
            let of = || self.chain.mined().filter(|(_, sent)| sent.goal == name);
            let (sent, done) = (of().count(), of().filter(|(_, sent)| self.chain.succeeded(sent)).count());
            let entry = &self.goals[&name];
            // What reverts again and again is given up, and asked for anew by whoever wanted it.
            let given_up = entry.state == State::Failed && entry.reverts >= MAX_REVERTS;
            assert_eq!(done, usize::from(!given_up), "{name} was done {done} times: {entry:?}");
            assert!(sent - done <= MAX_REVERTS as usize + 1, "{name} reverted {} times", sent - done);
        }
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
    /// What a goal is about changes: transactions that were made for the state before revert.
    Change {
        goal: usize,
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
        1 => (0usize..6).prop_map(|goal| Event::Change { goal }),
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
            Event::Change { goal } => *world.chain.changes.entry(format!("g{goal}")).or_default() += 1,
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

    /// Dying anywhere, any number of times, with reorganisations and changes of what goals are about in between:
    /// each is done once, what reverts takes no other with it, and there is no hole among the nonces.
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
