//! A task, its orders on a chain, an outbox and a provider, as values that
//! tests move by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freehold_api::account::ComputeBudgetSpec;
use freehold_api::conditions;
use freehold_api::task::TaskStatus;
use freehold_api::transaction::TransactionState;
use freehold_api::{Goal, TrainingTask};
use freehold_chain::view::{Balances, Block, ChainView, Health, ProviderRecord, Snapshot};
use freehold_core::money::{Amount, Rate};
use freehold_core::order::{Bid, Order, OrderSlot, OrderState, Split};
use freehold_core::progress::ProgressLine;
use freehold_core::result::{OutputFile, ResultFile};
use freehold_core::wire::{CheckpointNote, ExitReport, LeaseReport};
use freehold_core::{Address, B256, order as chain_order};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::goals::TaskRef;
use crate::task::kind::{TaskFacts, TaskKind, TaskSpecView};
use crate::task::ledger;
use crate::task::observed::{Account, Delivery, GoalFact, Observed, Report, attempts};
use crate::task::plan::{Effect, Plan, plan};
use crate::task::stored::{Draft, StoredOrder, id_of};
use crate::task::validate::{self, ChainFacts, Found};
use crate::task::{adoption, caches, order, status, top_up};

pub const START: i64 = 1_800_000_000;
pub const PROVIDER: Address = Address::repeat_byte(0xbb);
pub const RESULT: B256 = B256::repeat_byte(0x77);
pub const DECIMALS: u8 = 6;
/// Blocks of two seconds, three to confirm.
pub const BLOCK: u64 = 2;
const DEPTH: usize = 3;

pub fn manifest() -> Value {
    json!({
        "apiVersion": "freehold.dev/v1alpha1",
        "kind": "TrainingTask",
        "metadata": { "name": "digits", "namespace": "demo", "uid": "uid-1", "generation": 1 },
        "spec": {
            "trainer": { "recipe": {
                "model": { "mlp": { "layers": [64, 32, 10] } },
                "optimizer": { "adamw": { "learningRate": "0.003" } },
                "batchSize": 32,
                "steps": 100
            } },
            "dataset": { "configMapRef": { "name": "digits", "key": "train.csv.gz" } },
            "resources": { "gpu": { "count": 1 }, "cpu": "2", "memory": "4Gi", "disk": "10Gi" },
            "market": { "account": "team-a", "maxRatePerHour": "0.50", "budget": "2.00" },
            "activeDeadline": "2h"
        }
    })
}

/// The manifest with one value replaced (by JSON pointer).
pub fn with(pointer: &str, value: Value) -> TaskSpecView {
    let mut manifest = manifest();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    manifest.pointer_mut(parent).expect("the parent")[key] = value;
    spec_of(manifest)
}

pub fn spec_of(manifest: Value) -> TaskSpecView {
    serde_json::from_value::<TrainingTask>(manifest).expect("a task").spec()
}

pub fn chain_facts() -> ChainFacts {
    ChainFacts { decimals: DECIMALS, bid_window: 20, start_window: 300, review_window: 600, allows_http: false }
}

pub fn held() -> Found {
    Found::Held { sha256: "ab".repeat(32), size: 1000 }
}

pub fn budget(limit: &str) -> ComputeBudgetSpec {
    serde_json::from_value(json!({ "accountRef": { "name": "team-a" }, "limit": limit })).expect("a budget")
}

#[derive(Clone)]
pub struct World {
    /// A restored task has another.
    pub uid: String,
    pub ordered_as: Option<String>,
    pub adopts: Option<String>,
    pub spec: TaskSpecView,
    pub status: TaskStatus,
    pub held: bool,
    pub deleting: Option<Timestamp>,
    /// The object is gone.
    pub gone: bool,
    pub now: i64,
    pub orders: BTreeMap<B256, Order>,
    /// Snapshots of the last blocks, newest last.
    past: Vec<BTreeMap<B256, Arc<Order>>>,
    pub stored: Vec<StoredOrder>,
    /// Spec bytes of the orders, as their events carry them.
    specs: BTreeMap<B256, Vec<u8>>,
    pub goals: Vec<GoalFact>,
    pub report: Report,
    pub delivery: Delivery,
    pub checkpoint: Option<CheckpointNote>,
    pub budgets: Vec<(String, ComputeBudgetSpec)>,
    pub data: Found,
    pub health: Health,
    pub balances: Balances,
    pub last: Option<Plan>,
}

impl World {
    pub fn new() -> Self {
        Self::of(spec_of(manifest()))
    }

    pub fn of(spec: TaskSpecView) -> Self {
        Self {
            uid: "uid-1".into(),
            ordered_as: None,
            adopts: None,
            spec,
            status: TaskStatus::default(),
            held: false,
            deleting: None,
            gone: false,
            now: START,
            orders: BTreeMap::new(),
            past: vec![BTreeMap::new(); DEPTH + 1],
            stored: Vec::new(),
            specs: BTreeMap::new(),
            goals: Vec::new(),
            report: Report::NotAsked,
            delivery: Delivery::None,
            checkpoint: None,
            budgets: vec![("team".into(), budget("10"))],
            data: held(),
            health: Health::Fresh,
            balances: Balances { wallet: Amount(100_000_000), gas: 10u128.pow(18), ..Balances::default() },
            last: None,
        }
    }

    pub fn time(&self) -> Timestamp {
        Timestamp::from_second(self.now).expect("a time")
    }

    fn snapshot(&self, back: usize) -> Snapshot {
        let seconds = u64::try_from(self.now).expect("positive") - back as u64 * BLOCK;
        let block = Block {
            number: seconds / BLOCK,
            hash: B256::from(alloy::primitives::U256::from(seconds)),
            timestamp: seconds,
        };
        Snapshot { block, orders: self.past[self.past.len() - 1 - back].clone() }
    }

    pub fn view(&self) -> ChainView {
        let record = ProviderRecord {
            gateway: "https://gateway.example".into(),
            attributes: BTreeMap::from([("region".into(), "eu-west".into())]),
            attested_by: BTreeSet::new(),
        };
        ChainView {
            health: self.health.clone(),
            chain_id: 31337,
            market: Address::repeat_byte(1),
            registry: Address::repeat_byte(4),
            token: Address::repeat_byte(2),
            account: Address::repeat_byte(3),
            decimals: DECIMALS,
            latest: self.snapshot(0),
            confirmed: self.snapshot(DEPTH),
            balances: self.balances,
            providers: BTreeMap::from([(PROVIDER, record)]),
            endpoints: vec![],
            records: BTreeMap::new(),
            block_time: BLOCK,
        }
    }

    pub fn observe(&self) -> Observed {
        let view = Arc::new(self.view());
        let failed = caches::failed_placements(self.goals.iter());
        let raised = caches::raised(self.goals.iter(), DECIMALS);
        let limits = validate::limits(&self.spec, &chain_facts());
        let own: Vec<StoredOrder> = self.stored.iter().filter(|s| s.task.uid == self.uid).cloned().collect();
        let task = TaskFacts {
            kind: "TrainingTask",
            uid: self.uid.clone(),
            namespace: "demo".into(),
            name: "digits".into(),
            generation: Some(1),
            deleting: self.deleting,
            held: self.held,
            ordered_as: self.ordered_as.clone(),
            adopts: self.adopts.clone(),
            status: self.status.clone(),
        };
        Observed {
            spec: self.spec.clone(),
            now: self.time(),
            account: Ok(Account {
                name: "team-a".into(),
                caps: None,
                chain: chain_facts(),
                origin: B256::repeat_byte(9),
                silence: 600,
            }),
            limits: Some(limits),
            attempts: attempts(&self.uid, &own, &view, &failed, &raised),
            goals: self.goals.clone(),
            report: self.report.clone(),
            delivery: self.delivery.clone(),
            checkpoint: self.checkpoint.clone(),
            work: Some(validate::work(&self.spec, &chain_facts(), "trainer@sha256:00", &self.data, None)),
            budgets: self.budgets.clone(),
            entries: self
                .stored
                .iter()
                .flat_map(|s| [ledger::entry(s, &view, &failed), ledger::raise(s, &view, &raised)])
                .flatten()
                .collect(),
            others: adoption::others(&task, "team-a", &self.stored, &view),
            task,
            view: Some(view),
        }
    }

    /// One pass: plan, effects, status.
    pub fn pass(&mut self) -> Plan {
        let observed = self.observe();
        let plan = plan(&observed);
        for effect in &plan.effects {
            self.apply(&observed, effect);
        }
        self.status = status::status(&observed, &plan, &[]);
        self.last = Some(plan.clone());
        plan
    }

    fn apply(&mut self, o: &Observed, effect: &Effect) {
        match effect {
            Effect::AddFinalizer => {
                self.held = true;
                self.ordered_as = Some(adoption::ordered_as(&o.task));
            }
            Effect::Adopt { order, attempt } => {
                let draft = adoption::record(&self.orders[order], *attempt);
                self.store(draft, true);
            }
            Effect::RemoveFinalizer => {
                self.held = false;
                self.gone |= self.deleting.is_some();
            }
            Effect::Fund { attempt } => self.fund(o, *attempt),
            Effect::Ensure(goal) => self.ensure(goal),
            Effect::TopUp { order, amount, escrow } => {
                self.ensure(&top_up::goal(order, *amount, *escrow, DECIMALS));
            }
            Effect::Revoke { order } => {
                let place = |fact: &GoalFact| matches!(&fact.goal, Goal::PlaceOrder { order_id, .. } if order_id.as_str() == format!("{order:#x}"));
                if self.goals.iter().any(|f| place(f) && f.state == TransactionState::Pending) {
                    self.goals.retain(|f| !place(f));
                    self.stored.retain(|s| s.id != *order);
                }
            }
            Effect::SaveCheckpoint(note) => self.checkpoint = Some(note.clone()),
            Effect::HandOver { .. } | Effect::Collect { .. } => {}
            Effect::DeleteTask => self.delete(),
        }
    }

    /// From a backup: another UID, no status; the annotations come back, records of the release perhaps.
    pub fn restore(&mut self, uid: &str, keeps_records: bool) {
        self.uid = uid.into();
        self.status = TaskStatus::default();
        self.goals.clear();
        if !keeps_records {
            self.stored.clear();
        }
    }

    /// As the API server does it: without finalizers the object is gone at once.
    pub fn delete(&mut self) {
        self.deleting = self.deleting.or(Some(self.time()));
        self.gone |= !self.held;
    }

    fn ensure(&mut self, goal: &Goal) {
        if !self.goals.iter().any(|fact| fact.goal == *goal) {
            self.goals.push(GoalFact { goal: goal.clone(), state: TransactionState::Pending, trouble: None });
        }
    }

    fn fund(&mut self, o: &Observed, attempt: u32) {
        let view = self.view();
        let site = order::Site {
            chain_id: view.chain_id,
            market: view.market,
            token: view.token,
            account: view.account,
            origin: B256::repeat_byte(9),
            now: view.latest.block.timestamp,
            block_time: BLOCK,
        };
        let job = order::Job {
            kind: "TrainingTask",
            uid: &o.task.uid,
            namespace: "demo",
            name: "digits",
            attempt,
            backoff_limit: o.spec.backoff_limit,
            failures: o.failures(),
            duration: o.seconds_left(),
            cap: o.next_cap(),
            resume: o.checkpoint.as_ref(),
        };
        let work = o.work.as_ref().expect("work").as_ref().expect("valid work");
        let draft = order::build(&site, o.limits().expect("limits"), work, &job).expect("builds");
        let name = crate::task::stored::name_of(&draft.id);
        let goal = Goal::PlaceOrder { order_id: format!("{:#x}", draft.id).into(), order: name.into() };
        self.specs.insert(draft.id, draft.spec.clone());
        self.store(draft, false);
        self.ensure(&goal);
    }

    fn store(&mut self, draft: Draft, adopted: bool) {
        // A record that is there keeps its data.
        let kept = self.stored.iter().find(|known| known.id == draft.id).is_some_and(|known| known.has_manifest);
        let stored = StoredOrder {
            id: draft.id,
            name: crate::task::stored::name_of(&draft.id),
            account: "team-a".into(),
            task: TaskRef { uid: self.uid.clone(), namespace: "demo".into(), name: "digits".into() },
            attempt: draft.attempt,
            failures: draft.failures,
            terms: draft.terms,
            resumed: self.checkpoint.as_ref().filter(|_| !adopted).map_or(0, |note| note.step),
            adopted,
            has_manifest: kept || !adopted,
            created: self.time(),
        };
        self.stored.retain(|known| known.id != stored.id);
        self.stored.push(stored);
    }

    /// Moves on by a block: the outbox's goals are carried out where the contract lets them be.
    pub fn block(&mut self) {
        self.now += BLOCK as i64;
        let now = u64::try_from(self.now).expect("positive");
        let mut goals = std::mem::take(&mut self.goals);
        for fact in goals.iter_mut().filter(|f| !f.state.is_final()) {
            fact.state =
                if self.carry_out(&fact.goal, now) { TransactionState::Confirmed } else { TransactionState::Failed };
            if fact.state == TransactionState::Failed {
                fact.trouble = Some(("Reverted".into(), "the contract refused".into()));
            }
        }
        self.goals = goals;
        self.past.push(self.orders.iter().map(|(id, order)| (*id, Arc::new(order.clone()))).collect());
        self.past.remove(0);
    }

    pub fn blocks(&mut self, count: usize) {
        for _ in 0..count {
            self.block();
        }
    }

    /// What the contract would do; false if it would revert.
    fn carry_out(&mut self, goal: &Goal, now: u64) -> bool {
        let Some(id) = goal.order_id().and_then(|id| id.as_str().parse::<B256>().ok()) else { return false };
        if let Goal::PlaceOrder { .. } = goal {
            return self.place(&id, now);
        }
        let Some(order) = self.orders.get_mut(&id) else { return false };
        let cap = order.terms.cap();
        match (goal, order.slot.state) {
            (Goal::AcceptBid { provider, price, .. }, OrderState::Open) if now <= order.slot.deadline => {
                order.slot.provider = provider.as_str().parse().expect("an address");
                order.slot.price = price.parse().expect("a price");
                order.slot.state = OrderState::Awaiting;
                order.slot.deadline = now + order.terms.startWindow.to::<u64>();
                true
            }
            (Goal::CancelOrder { .. }, OrderState::Open) => settle(order, OrderState::Cancelled, Amount::ZERO),
            (Goal::CancelOrder { .. }, OrderState::Awaiting) => {
                let penalty = Amount(order.terms.noShowPenalty).min(cap);
                settle(order, OrderState::Cancelled, penalty)
            }
            (Goal::NoShow { .. }, OrderState::Awaiting) if now > order.slot.deadline => {
                settle(order, OrderState::NoShow, Amount::ZERO)
            }
            (Goal::TopUp { amount, escrow, .. }, OrderState::Running) if now <= order.slot.end_at => {
                assert_eq!(escrow.parse(), Ok(order.escrow().0), "raised from what the chain holds");
                let amount = Amount::parse(amount.as_str(), DECIMALS).expect("an amount");
                order.slot.funds = order.slot.funds.saturating_add(amount);
                order.slot.end_at = order.metered().end();
                order.slot.deadline = order.slot.end_at;
                true
            }
            (Goal::CloseOrder { .. }, OrderState::Running) => {
                let accrued = order.accrued(now);
                settle(order, OrderState::Closed, accrued)
            }
            (Goal::AcceptResult { .. }, OrderState::Delivered) => {
                let accrued = order.accrued(now);
                settle(order, OrderState::Accepted, accrued)
            }
            (Goal::RejectResult { .. }, OrderState::Delivered) if now <= order.slot.deadline => {
                let accrued = order.accrued(now);
                settle(order, OrderState::Rejected, accrued)
            }
            _ => false,
        }
    }

    fn place(&mut self, id: &B256, now: u64) -> bool {
        let Some(stored) = self.stored.iter().find(|s| s.id == *id) else { return false };
        // Half of the bid window must be left, as the development profile's contract wants.
        if self.orders.contains_key(id) || stored.bid_by() < now + 10 {
            return false;
        }
        let slot = OrderSlot {
            state: OrderState::Open,
            tenant: Address::repeat_byte(3),
            deadline: stored.bid_by(),
            funds: stored.terms.cap(),
            ..OrderSlot::default()
        };
        let order = Order {
            id: *id,
            salt: chain_order::salt(&stored.task.uid, stored.attempt),
            terms: stored.terms.clone(),
            spec: self.specs.get(id).cloned().unwrap_or_default(),
            slot,
            bids: Vec::new(),
            result_hash: None,
            split: None,
        };
        self.orders.insert(*id, order);
        true
    }

    pub fn id(&self, attempt: u32) -> B256 {
        id_of(31337, Address::repeat_byte(1), Address::repeat_byte(3), &self.uid, attempt)
    }

    /// The newest order on the chain.
    pub fn order(&mut self) -> Option<&mut Order> {
        let adopted = self.stored.iter().find(|s| s.adopted && s.task.uid == self.uid).map(|s| s.id);
        let former = self.orders.values().find(|order| !order.slot.state.is_settled()).map(|order| order.id);
        let newest = (0..64).map(|n| self.id(n)).rfind(|id| self.orders.contains_key(id)).or(adopted).or(former)?;
        self.orders.get_mut(&newest)
    }

    pub fn state(&mut self) -> Option<OrderState> {
        self.order().map(|o| o.slot.state)
    }

    pub fn bid(&mut self, hourly: u128) -> bool {
        let now = u64::try_from(self.now).expect("positive");
        let Some(order) = self.order().filter(|o| o.slot.state == OrderState::Open) else { return false };
        let bid = Bid {
            provider: PROVIDER,
            price: Rate::per_hour(Amount(hourly)).0,
            bond: Amount(order.terms.bond),
            valid_until: now + 300,
        };
        order.bids.retain(|b| b.provider != PROVIDER);
        order.bids.push(bid);
        true
    }

    pub fn start(&mut self) -> bool {
        let now = u64::try_from(self.now).expect("positive");
        let Some(order) = self.order().filter(|o| o.slot.state == OrderState::Awaiting && now <= o.slot.deadline)
        else {
            return false;
        };
        order.slot.state = OrderState::Running;
        order.slot.started_at = now;
        order.slot.end_at = order.metered().end();
        order.slot.deadline = order.slot.end_at;
        self.report = running_report();
        true
    }

    pub fn deliver(&mut self) -> bool {
        let now = u64::try_from(self.now).expect("positive");
        let Some(order) = self.order().filter(|o| o.slot.state == OrderState::Running && now <= o.slot.end_at) else {
            return false;
        };
        order.slot.state = OrderState::Delivered;
        order.slot.end_at = now;
        order.slot.deadline = now + order.terms.window.to::<u64>();
        order.result_hash = Some(RESULT);
        self.delivery = Delivery::Missing;
        true
    }

    /// The provider gives up.
    pub fn provider_closes(&mut self) -> bool {
        let now = u64::try_from(self.now).expect("positive");
        let Some(order) = self.order().filter(|o| o.slot.state == OrderState::Running) else { return false };
        let released = order.accrued(now).bps(8000);
        settle(order, OrderState::Closed, released)
    }

    /// Drives passes and blocks until the test's question holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        for _ in 0..5000 {
            if holds(self) {
                return;
            }
            self.pass();
            self.block();
        }
        panic!("never: {what}; state {:?}, message {:?}", self.status.state, self.status.message);
    }

    pub fn up_to_running(&mut self) {
        self.until("Open", |w| w.state() == Some(OrderState::Open));
        self.bid(400_000);
        self.until("Awaiting", |w| w.state() == Some(OrderState::Awaiting));
        self.report = Report::Says(Box::new(LeaseReport {
            phase: "Starting".into(),
            manifest_held: true,
            ..LeaseReport::default()
        }));
        self.start();
        self.block();
        self.pass();
    }

    pub fn reason(&self, type_: &str) -> (String, String) {
        let found = conditions::find(&self.status.conditions, type_);
        found.map(|c| (c.status.clone(), c.reason.clone())).unwrap_or_default()
    }

    pub fn shows(&self) -> &str {
        self.status.state.as_ref().map(|s| s.as_str()).unwrap_or_default()
    }
}

fn settle(order: &mut Order, state: OrderState, to_provider: Amount) -> bool {
    let to_tenant = order.escrow().saturating_sub(to_provider);
    order.slot.state = state;
    order.slot.deadline = 0;
    order.slot.funds = Amount::ZERO;
    order.slot.paid = to_provider;
    order.split = Some(Split { to_provider, to_tenant, burned: Amount::ZERO });
    true
}

pub fn running_report() -> Report {
    Report::Says(Box::new(LeaseReport { phase: "Running".into(), manifest_held: true, ..LeaseReport::default() }))
}

/// A report of so many steps of all.
pub fn progressed(step: u64, steps: u64) -> Report {
    let progress = Some(ProgressLine { step, steps, ..ProgressLine::default() });
    let report = LeaseReport { phase: "Running".into(), manifest_held: true, progress, ..LeaseReport::default() };
    Report::Says(Box::new(report))
}

pub fn exited(code: i32, reason: &str, terminal: bool, failures: u32) -> Report {
    let exit = ExitReport { code, reason: reason.into(), message: Some("row 7 has a NaN".into()), failures, terminal };
    Report::Says(Box::new(LeaseReport {
        phase: "Failed".into(),
        manifest_held: true,
        exit: Some(exit),
        ..LeaseReport::default()
    }))
}

pub fn good() -> Delivery {
    let file = OutputFile { name: "model.safetensors".into(), sha256: "cd".repeat(32), size: 9 };
    Delivery::Good(ResultFile { outputs: vec![file], metrics: BTreeMap::from([("accuracy".into(), "0.97".into())]) })
}
