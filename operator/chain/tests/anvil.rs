//! Reader, goals and outbox against a real EVM node.

#![allow(clippy::panic)] // a test may

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy::consensus::TxEip1559;
use alloy::primitives::{Address, B256, TxKind};
use freehold_api::Goal;
use freehold_api::transaction::TransactionState;
use freehold_chain::calldata::{StoredOrder, call_of};
use freehold_chain::goal::{Standing, cost_of, status_of};
use freehold_chain::outbox::{self, Effect, Entry, Facts, Ledger, NonceHealth, Policy, Slot};
use freehold_chain::reader::{ReaderConfig, ReaderGuard, spawn};
use freehold_chain::rpc::{Depth, Rpc};
use freehold_chain::signer::{LocalSigner, SignRequest, Signed, Signer};
use freehold_chain::view::{ChainView, Health, ViewReceiver};
use freehold_core::money::{Amount, Rate};
use freehold_core::order::{OrderState, order_id, salt};
use freehold_testkit::chain::{ACCOUNTS, Anvil, CHAIN_ID, terms};

const PATIENCE: Duration = Duration::from_secs(30);
const TOKENS: u128 = 1_000_000;

/// One account: its key, its view, its way to the chain.
struct Party {
    signer: LocalSigner,
    rpc: Rpc,
    view: ViewReceiver,
    _reader: ReaderGuard,
}

fn config(anvil: &Anvil, account: Address) -> ReaderConfig {
    ReaderConfig {
        rpc: Rpc::new(std::slice::from_ref(&anvil.url), Duration::from_secs(10)).expect("rpc"),
        chain_id: CHAIN_ID,
        market: anvil.contracts.market,
        registry: anvil.contracts.provider_registry,
        token: anvil.contracts.token,
        account,
        depth: Depth::Blocks(2),
        block_time: Duration::from_secs(1),
        quorum: 1,
        seed: 1,
    }
}

impl Party {
    fn new(anvil: &Anvil, number: usize) -> Self {
        let (address, key) = ACCOUNTS[number];
        let config = config(anvil, address);
        let rpc = config.rpc.clone();
        let (view, reader) = spawn(config);
        Self { signer: LocalSigner::from_hex(key).expect("key"), rpc, view, _reader: reader }
    }

    async fn until(&mut self, what: &str, holds: impl FnMut(&Arc<ChainView>) -> bool) -> Arc<ChainView> {
        let found = tokio::time::timeout(PATIENCE, self.view.wait_for(holds)).await;
        if let Ok(view) = found {
            return view.expect("reader runs").clone();
        }
        drop(found);
        panic!("not within {PATIENCE:?}: {what}; {:?}", self.view.borrow());
    }

    async fn sign(&self, view: &ChainView, goal: &Goal, stored: Option<&StoredOrder>, nonce: u64) -> Signed {
        let call = call_of(goal, view, stored).expect("call");
        let transaction = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit: call.gas,
            max_fee_per_gas: 20_000_000_000,
            max_priority_fee_per_gas: 2_000_000_000,
            to: TxKind::Call(call.to),
            value: call.value,
            input: call.data,
            ..TxEip1559::default()
        };
        self.signer.sign_transaction(SignRequest { goal, stored, transaction }).await.expect("signs")
    }

    /// Waits until the goal is possible, sends it, and waits until it holds.
    async fn reach(&mut self, goal: Goal, stored: Option<&StoredOrder>) -> Arc<ChainView> {
        let latest = |view: &ChainView| status_of(&goal, view, stored).expect("goal").latest;
        let view = self
            .until(&format!("{goal:?} possible"), |view| {
                view.health == Health::Fresh && latest(view) == Standing::Possible
            })
            .await;
        let nonce = self.rpc.nonce(view.account, view.latest.block.hash).await.expect("nonce");
        let signed = self.sign(&view, &goal, stored, nonce).await;
        self.rpc.send_raw(&signed.raw).await.expect("sent");
        self.until(&format!("{goal:?} reached"), |view| matches!(latest(view), Standing::Reached(_))).await
    }
}

fn stored(anvil: &Anvil, view: &ChainView, attempt: u32) -> StoredOrder {
    let spec = b"{\"kind\":\"TrainingTask\"}".to_vec();
    let terms = terms(anvil.contracts.token, TOKENS, view.latest.block.timestamp + 60, &spec);
    StoredOrder { terms, salt: salt("uid", attempt), spec }
}

fn id_of(view: &ChainView, stored: &StoredOrder) -> B256 {
    order_id(view.chain_id, view.market, view.account, stored.salt)
}

fn place(id: B256) -> Goal {
    Goal::PlaceOrder { order_id: id.to_string().into(), order: "order".into() }
}

fn approve() -> Goal {
    Goal::Approve { amount: "100".into(), block: 0 }
}

/// A chain whose parties hold tokens, with a block a second.
async fn market() -> Anvil {
    let anvil = Anvil::start().await.expect("anvil");
    for (address, _) in &ACCOUNTS[1..3] {
        anvil.mint(*address, 10 * TOKENS).await.expect("mint");
    }
    anvil.automine(false).await.expect("automine off");
    anvil.mine_every(1).await.expect("a block a second");
    anvil
}

fn state(view: &ChainView, id: &B256) -> Option<OrderState> {
    view.order(id).map(|order| order.slot.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metered_lease_lives_its_whole_life_by_goals() {
    let anvil = market().await;
    let (mut tenant, mut provider) = (Party::new(&anvil, 1), Party::new(&anvil, 2));
    let attributes = "{\"region\":\"eu-west\"}";
    provider
        .reach(Goal::Register { gateway: "https://gpu.example.org".into(), attributes: attributes.into() }, None)
        .await;
    tenant.reach(approve(), None).await;
    let view = provider.reach(approve(), None).await;
    assert_eq!(view.decimals, 6);

    let view = tenant.view.borrow().clone();
    let stored = stored(&anvil, &view, 0);
    let id = id_of(&view, &stored);
    tenant.reach(place(id), Some(&stored)).await;

    let rate = Rate::per_hour(Amount(TOKENS)).0.to_string();
    let until = u32::try_from(view.latest.block.timestamp + 50).expect("time");
    provider.reach(Goal::Bid { order_id: id.to_string().into(), price: rate.clone(), valid_until: until }, None).await;
    let view = tenant.until("the bid is seen", |view| view.order(&id).is_some_and(|order| order.bids.len() == 1)).await;
    let seen = view.providers.get(&ACCOUNTS[2].0).expect("registered");
    assert_eq!(
        (seen.gateway.as_str(), seen.attributes.get("region").map(String::as_str)),
        ("https://gpu.example.org", Some("eu-west"))
    );

    let by_id = || id.to_string().into();
    tenant
        .reach(
            Goal::AcceptBid {
                order_id: by_id(),
                provider: ACCOUNTS[2].0.to_string().into(),
                price: rate,
                valid_until: until,
            },
            None,
        )
        .await;
    provider.reach(Goal::Start { order_id: by_id() }, None).await;
    anvil.skip(100).await.expect("time passes");
    let result = B256::repeat_byte(7).to_string();
    provider.reach(Goal::Deliver { order_id: by_id(), result_hash: result.clone().into() }, None).await;
    tenant.reach(Goal::AcceptResult { order_id: by_id(), result_hash: result.into() }, None).await;

    let view = tenant
        .until("acceptance is confirmed", |view| {
            view.confirmed_order(&id).is_some_and(|order| order.slot.state == OrderState::Accepted)
        })
        .await;
    let order = view.confirmed_order(&id).expect("order");
    let split = order.split.expect("split");
    assert_eq!(
        split.to_provider.0 + split.to_tenant.0 + split.burned.0,
        TOKENS + 100_000,
        "funds and bond are all there"
    );
    assert!(split.to_provider.0 > 100_000 + 100 * TOKENS / 3_600 - 10, "at least 100 s were paid: {split:?}");
    assert_eq!(view.balances.free, split.to_tenant);
    let view = tenant.reach(Goal::Withdraw { amount: "1".into(), block: 0 }, None).await;
    assert_eq!(view.balances.wallet.0, 10 * TOKENS - TOKENS + split.to_tenant.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_moves_the_view_back() {
    let anvil = market().await;
    let mut tenant = Party::new(&anvil, 1);
    let view = tenant.reach(approve(), None).await;
    let stored = stored(&anvil, &view, 0);
    let id = id_of(&view, &stored);
    anvil.mine_every(0).await.expect("no more blocks");
    anvil.automine(true).await.expect("automine");
    let view = tenant.reach(place(id), Some(&stored)).await;
    assert_eq!(state(&view, &id), Some(OrderState::Open));
    assert!(view.confirmed_order(&id).is_none(), "one block is not confirmed depth");

    anvil.reorganise(1).await.expect("reorg");
    let view = tenant.until("the order has vanished", |view| view.order(&id).is_none()).await;
    assert_eq!(view.health, Health::Fresh);
    assert_eq!(status_of(&place(id), &view, Some(&stored)).expect("goal").verdict(), Standing::Possible);

    tenant.reach(place(id), Some(&stored)).await;
    anvil.mine(2).await.expect("blocks");
    tenant.until("the order is confirmed", |view| view.confirmed_order(&id).is_some()).await;
    // A reader that starts now reads the same from nothing.
    let mut late = Party::new(&anvil, 1);
    let view = late.until("a first full read", |view| view.health == Health::Fresh).await;
    assert_eq!(state(&view, &id), Some(OrderState::Open));
    assert!(view.confirmed_order(&id).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_stands_still_or_is_another_one_is_not_acted_on() {
    let anvil = market().await;
    let mut tenant = Party::new(&anvil, 1);
    tenant.until("fresh", |view| view.health == Health::Fresh).await;
    anvil.mine_every(0).await.expect("no more blocks");
    let view = tenant.until("stale", |view| matches!(view.health, Health::Stale { .. })).await;
    assert!(!view.health.allows_action());
    anvil.mine(1).await.expect("block");
    tenant.until("fresh again", |view| view.health == Health::Fresh).await;

    let other_chain = ReaderConfig { chain_id: 1, ..config(&anvil, ACCOUNTS[1].0) };
    assert_eq!(first_health(other_chain).await, Health::WrongChain { expected: 1, found: CHAIN_ID });
    let other_market = ReaderConfig { market: anvil.contracts.token, ..config(&anvil, ACCOUNTS[1].0) };
    assert!(matches!(first_health(other_market).await, Health::WrongMarket { .. }));
    let no_market = ReaderConfig { market: Address::repeat_byte(9), ..config(&anvil, ACCOUNTS[1].0) };
    assert!(matches!(first_health(no_market).await, Health::WrongMarket { .. }));
    let other_token = ReaderConfig { token: anvil.contracts.market, ..config(&anvil, ACCOUNTS[1].0) };
    assert!(matches!(first_health(other_token).await, Health::WrongContract { field: "spec.token", .. }));
    let nobody = ReaderConfig {
        rpc: Rpc::new(&["http://127.0.0.1:9".into()], Duration::from_secs(2)).expect("rpc"),
        ..config(&anvil, ACCOUNTS[1].0)
    };
    assert!(matches!(first_health(nobody).await, Health::Unreachable { .. }));
}

async fn first_health(config: ReaderConfig) -> Health {
    let (mut view, _reader) = spawn(config);
    let found = tokio::time::timeout(PATIENCE, view.wait_for(|view| view.health != Health::Starting)).await;
    found.expect("in time").expect("reader runs").health.clone()
}

/// An outbox whose store is memory: what a crash leaves is what it holds.
#[derive(Clone, Default)]
struct Desk {
    ledger: Ledger,
    goals: BTreeMap<String, Stored>,
    sent: BTreeMap<String, u64>,
    now: u64,
}

#[derive(Clone)]
struct Stored {
    goal: Goal,
    order: Option<StoredOrder>,
    state: TransactionState,
    nonce: Option<u64>,
    hashes: Vec<B256>,
}

/// Where the process dies.
#[derive(Clone, Copy, PartialEq)]
enum Crash {
    Never,
    BeforeBroadcast,
    AfterBroadcast,
}

impl Desk {
    fn ask(&mut self, name: &str, goal: Goal, order: Option<StoredOrder>) {
        self.goals
            .insert(name.into(), Stored { goal, order, state: TransactionState::Pending, nonce: None, hashes: vec![] });
    }

    fn policy() -> Policy {
        Policy { resend_after: 5, replace_after: 600, fees_left: None, tokens_left: None, decimals: 6 }
    }

    fn entries(&self, view: &ChainView) -> Vec<Entry> {
        let entry = |(name, stored): (&String, &Stored)| Entry {
            name: name.clone(),
            fills: None,
            rank: outbox::rank(&stored.goal),
            created: 0,
            state: stored.state,
            nonce: stored.nonce,
            hashes: stored.hashes.clone(),
            max_fee: None,
            signed_at: stored.nonce.map(|_| self.now),
            sent_at: self.sent.get(name).copied(),
            reverts: 0,
            refused: None,
            standing: status_of(&stored.goal, view, stored.order.as_ref()).expect("goal").verdict(),
            buildable: true,
            cost: cost_of(&stored.goal, view, stored.order.as_ref()).expect("cost"),
            gas: 400_000,
        };
        self.goals.iter().map(entry).collect()
    }

    async fn facts(&self, party: &Party, view: &ChainView) -> Facts {
        let nonce = |hash| party.rpc.nonce(view.account, hash);
        let mut receipts = BTreeMap::new();
        for hash in self.ledger.slots.iter().flat_map(|slot| slot.hashes.iter()) {
            let receipt = party.rpc.receipt(*hash).await.expect("receipt");
            receipts.extend(
                receipt.filter(|receipt| receipt.block <= view.latest.block.number).map(|receipt| (*hash, receipt)),
            );
        }
        Facts {
            nonce_latest: nonce(view.latest.block.hash).await.expect("nonce"),
            nonce_confirmed: nonce(view.confirmed.block.hash).await.expect("nonce"),
            confirmed: view.confirmed.block.number,
            receipts,
            fee: 20_000_000_000,
            gas: view.balances.gas,
            free: view.balances.free,
            wallet: view.balances.wallet,
            allowance: view.balances.allowance,
        }
    }

    /// One pass; true if the process died in it.
    async fn pass(&mut self, party: &Party, crash: Crash) -> bool {
        let view = party.view.borrow().clone();
        self.now += 10;
        let facts = self.facts(party, &view).await;
        for effect in outbox::plan(&self.ledger, &self.entries(&view), &facts, &Self::policy(), self.now) {
            match effect {
                Effect::Allocate { goal, nonce } => {
                    self.ledger.slots.push(Slot { nonce, goal, hashes: vec![] });
                    self.ledger.next_nonce = Some(nonce + 1);
                }
                Effect::Send { goal, nonce, .. } => {
                    if self.send(party, &view, &goal, nonce, crash).await {
                        self.sent.clear();
                        return true;
                    }
                }
                Effect::Release { nonce } => self.ledger.slots.retain(|slot| slot.nonce != nonce),
                Effect::Mark(mark) => {
                    let stored = self.goals.get_mut(&mark.goal).expect("goal");
                    stored.state = mark.state;
                    if mark.reverted {
                        (stored.nonce, stored.hashes) = (None, vec![]);
                    }
                }
                Effect::Adopt { .. } | Effect::Void { .. } => panic!("{effect:?}"),
            }
        }
        false
    }

    async fn send(&mut self, party: &Party, view: &ChainView, goal: &str, nonce: u64, crash: Crash) -> bool {
        let stored = self.goals.get_mut(goal).expect("goal");
        let signed = party.sign(view, &stored.goal, stored.order.as_ref(), nonce).await;
        let slot = self.ledger.slots.iter_mut().find(|slot| slot.nonce == nonce).expect("slot");
        if !slot.hashes.contains(&signed.hash) {
            slot.hashes.push(signed.hash);
            stored.hashes.push(signed.hash);
        }
        (stored.nonce, stored.state) = (Some(nonce), TransactionState::Submitted);
        if crash == Crash::BeforeBroadcast {
            return true;
        }
        party.rpc.send_raw(&signed.raw).await.expect("sent");
        self.sent.insert(goal.into(), self.now);
        crash == Crash::AfterBroadcast
    }

    async fn finish(&mut self, party: &mut Party) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.goals.values().all(|stored| stored.state.is_final()) || !self.ledger.slots.is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "not finished: {:?}", self.ledger);
            self.pass(party, Crash::Never).await;
            party.view.mark_unchanged();
            party.view.changed().await.expect("reader runs");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_just_before_and_just_after_a_broadcast_places_one_order() {
    let anvil = market().await;
    let mut tenant = Party::new(&anvil, 1);
    let view = tenant.reach(approve(), None).await;
    let first_nonce = tenant.rpc.nonce(view.account, view.latest.block.hash).await.expect("nonce");
    let before = view.balances.wallet;
    let mut desk = Desk::default();
    for (attempt, crash) in [(0, Crash::BeforeBroadcast), (1, Crash::AfterBroadcast)] {
        let view = tenant.view.borrow().clone();
        let order = stored(&anvil, &view, attempt);
        desk.ask(&format!("order-{attempt}"), place(id_of(&view, &order)), Some(order));
        // The first pass allocates, the second one dies.
        while !desk.pass(&tenant, crash).await {}
        desk.finish(&mut tenant).await;
    }
    let view = tenant.view.borrow().clone();
    assert_eq!(view.latest.orders.len(), 2);
    assert_eq!(view.balances.wallet.0, before.0 - 2 * TOKENS, "each was funded once");
    assert!(desk.goals.values().all(|stored| stored.state == TransactionState::Confirmed));
    let nonce = tenant.rpc.nonce(view.account, view.latest.block.hash).await.expect("nonce");
    assert_eq!(nonce, first_nonce + 2, "one transaction each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_transaction_is_found_and_left_alone() {
    let anvil = market().await;
    let mut tenant = Party::new(&anvil, 1);
    let view = tenant.reach(approve(), None).await;
    let nonce = tenant.rpc.nonce(view.account, view.latest.block.hash).await.expect("nonce");
    let mut desk = Desk { ledger: Ledger { slots: vec![], next_nonce: Some(nonce) }, ..Desk::default() };
    anvil.send(view.account, view.account, vec![]).await.expect("foreign transaction");
    let rpc = tenant.rpc.clone();
    let mut facts = Facts::default();
    while facts.nonce_latest <= nonce {
        let view = tenant.view.borrow_and_update().clone();
        facts = Facts {
            nonce_latest: rpc.nonce(view.account, view.latest.block.hash).await.expect("nonce"),
            ..Facts::default()
        };
        tenant.view.changed().await.expect("reader runs");
    }
    assert_eq!(outbox::nonce_health(&desk.ledger, &[], &facts, &Desk::policy(), 0), NonceHealth::Foreign { nonce });
    let order = stored(&anvil, &view, 0);
    let id = id_of(&view, &order);
    desk.ask("order", place(id), Some(order));
    desk.finish(&mut tenant).await;
    assert_eq!(state(&tenant.view.borrow().clone(), &id), Some(OrderState::Open));
    assert_eq!(desk.ledger.next_nonce, Some(nonce + 2));
}
