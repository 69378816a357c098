//! Reader, goals and outbox against a real EVM node.

#![allow(clippy::panic)] // a test may

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy::consensus::TxEip1559;
use alloy::primitives::{Address, B256, TxKind};
use alloy::sol_types::SolEvent;
use freehold_api::Goal;
use freehold_api::transaction::TransactionState;
use freehold_chain::audit::Auditor;
use freehold_chain::bindings::Market;
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
    let view = tenant.reach(Goal::Withdraw { amount: "1".into(), block: 0, orders: vec![] }, None).await;
    assert_eq!(view.balances.wallet.0, 10 * TOKENS - TOKENS + split.to_tenant.0);
}

/// A lease of the provider that runs, as the n-th order of the tenant.
async fn leased(anvil: &Anvil, tenant: &mut Party, provider: &mut Party, attempt: u32) -> B256 {
    let view = tenant.view.borrow().clone();
    let stored = stored(anvil, &view, attempt);
    let id = id_of(&view, &stored);
    let by_id = || id.to_string().into();
    tenant.reach(place(id), Some(&stored)).await;
    let rate = Rate::per_hour(Amount(2 * TOKENS)).0.to_string();
    let valid_until = u32::try_from(view.latest.block.timestamp + 50).expect("time");
    provider.reach(Goal::Bid { order_id: by_id(), price: rate.clone(), valid_until }, None).await;
    let provider_address = ACCOUNTS[2].0.to_string().into();
    let accept = Goal::AcceptBid { order_id: by_id(), provider: provider_address, price: rate, valid_until };
    tenant.reach(accept, None).await;
    provider.reach(Goal::Start { order_id: by_id() }, None).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_settles_several_leases_and_withdraws_and_one_that_is_over_does_not_sink_it() {
    let anvil = market().await;
    let (mut tenant, mut provider) = (Party::new(&anvil, 1), Party::new(&anvil, 2));
    tenant.reach(approve(), None).await;
    provider.reach(approve(), None).await;
    let mut ids = Vec::new();
    for attempt in 0..3 {
        ids.push(leased(&anvil, &mut tenant, &mut provider, attempt).await);
    }
    anvil.skip(100).await.expect("time passes");
    let earned = |view: &ChainView| {
        ids.iter().all(|id| view.order(id).is_some_and(|order| order.accrued(view.latest.block.timestamp).0 > 50_000))
    };
    let seen = provider.until("time has passed", |view| earned(view)).await;
    let goal = Goal::Withdraw {
        amount: "0.1".into(),
        block: seen.latest.block.number,
        orders: ids.iter().map(|id| id.to_string().into()).collect(),
    };
    // The tenant closes one of them; who decided before the block would have a batch that reverts.
    tenant.reach(Goal::CloseOrder { order_id: ids[1].to_string().into() }, None).await;
    let stale = call_of(&goal, &seen, None).expect("call");
    let refused = provider.rpc.estimate_gas(seen.account, stale.to, stale.value, &stale.data).await;
    assert!(refused.as_ref().is_err_and(|error| error.is_refusal()), "{refused:?}");

    let mut desk = Desk::default();
    desk.ask("withdraw", goal, None);
    provider.until("the close is seen", |view| state(view, &ids[1]) == Some(OrderState::Closed)).await;
    desk.finish(&mut provider).await;
    let done = &desk.goals["withdraw"];
    assert_eq!((done.state, done.hashes.len()), (TransactionState::Confirmed, 1));

    // The chain alone tells which lease was settled by which transaction, and the books of each balance.
    let logs =
        provider.rpc.logs_between(0, provider.view.borrow().latest.block.number, &[anvil.contracts.market]).await;
    let settled: Vec<(B256, B256)> = logs
        .expect("logs")
        .iter()
        .filter_map(|log| {
            let event = Market::Settled::decode_log(&log.inner).ok()?;
            Some((event.id, log.transaction_hash?))
        })
        .collect();
    assert_eq!(settled.len(), 2, "{settled:?}");
    assert!(settled.iter().all(|(id, transaction)| [ids[0], ids[2]].contains(id) && *transaction == done.hashes[0]));
    let view = provider
        .until("paid", |view| {
            [ids[0], ids[2]].iter().all(|id| view.order(id).is_some_and(|order| order.slot.paid.0 > 0))
        })
        .await;
    assert_eq!(view.balances.free, Amount::ZERO, "what the closed one paid went along");
    let paid: u128 = ids.iter().filter_map(|id| view.order(id)).map(|order| order.slot.paid.0).sum();
    assert_eq!(view.balances.wallet.0, 10 * TOKENS - 2 * 100_000 + paid, "two bonds are still held");
    let receipt = provider.rpc.receipt(done.hashes[0]).await.expect("receipt").expect("mined");
    assert!(receipt.gas_used < 150_000 + 2 * 80_000, "{}", receipt.gas_used);
    let mut auditor = Auditor::new(provider.rpc.clone(), anvil.contracts.market, 0).await.expect("auditor");
    for (id, times) in [(ids[0], 1), (ids[1], 0), (ids[2], 1)] {
        let report = auditor.order(id).await.expect("report");
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let steps: Vec<_> = report.transitions.iter().filter(|step| step.event == "Settled").collect();
        assert_eq!(steps.len(), times, "{id}");
        assert!(steps.iter().all(|step| step.transaction == done.hashes[0].to_string()));
    }
    // Sent again it says that nothing is left, or only what has accrued since.
    let orders = [ids[1]].iter().map(|id| id.to_string().into()).collect();
    let over = Goal::Withdraw { amount: "0.1".into(), block: 0, orders };
    assert!(matches!(status_of(&over, &view, None).expect("goal").latest, Standing::Reached(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_moves_the_end_as_predicted_and_the_same_need_is_met_once() {
    let anvil = market().await;
    let (mut tenant, mut provider) = (Party::new(&anvil, 1), Party::new(&anvil, 2));
    tenant.reach(approve(), None).await;
    provider.reach(approve(), None).await;
    let id = leased(&anvil, &mut tenant, &mut provider, 0).await;
    let view = tenant.until("it runs", |view| state(view, &id) == Some(OrderState::Running)).await;
    let order = view.order(&id).expect("order");
    assert_eq!(order.metered().end(), order.slot.end_at, "as the contract says");
    // A token at two an hour; the rate is rounded down, so the last second is only begun.
    assert_eq!(order.slot.end_at - order.slot.started_at, 1_801);
    let expected = order.metered().end_with(Amount(TOKENS + 250_001));
    let top_up = |amount: &str| Goal::TopUp {
        order_id: id.to_string().into(),
        amount: amount.into(),
        escrow: TOKENS.to_string(),
    };

    let mut desk = Desk::default();
    desk.ask("top-up", top_up("0.250001"), None);
    while !desk.pass(&tenant, Crash::AfterBroadcast).await {}
    desk.finish(&mut tenant).await;
    // Asked for once more from the same escrow, by whoever does not know of it yet.
    desk.ask("again", top_up("0.3"), None);
    desk.finish(&mut tenant).await;
    let states: Vec<TransactionState> = desk.goals.values().map(|goal| goal.state).collect();
    assert_eq!(states, [TransactionState::Obsolete, TransactionState::Confirmed]);
    let view = tenant.view.borrow().clone();
    let order = view.order(&id).expect("order");
    assert_eq!(order.escrow(), Amount(TOKENS + 250_001));
    assert_eq!(order.slot.end_at, expected, "to the second");
    let mut auditor = Auditor::new(tenant.rpc.clone(), anvil.contracts.market, 0).await.expect("auditor");
    let report = auditor.order(id).await.expect("report");
    assert_eq!((report.totals.funded.as_str(), report.findings.len()), ("1250001", 0));
    // Never past the order's own time.
    assert_eq!(order.metered().last(), order.slot.started_at + 3_600);
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
