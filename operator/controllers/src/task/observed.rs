//! Everything one pass knows of a task: spec, chain, provider, store. Plain
//! values; the plan is a function of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freehold_api::account::{Caps, ComputeBudgetSpec};
use freehold_api::conditions::Claim;
use freehold_api::transaction::{Goal, TransactionState};
use freehold_chain::view::ChainView;
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderState};
use freehold_core::result::ResultFile;
use freehold_core::wire::{CheckpointNote, LeaseReport, MAX_FAILURES};
use freehold_core::{Address, B256};
use jiff::Timestamp;

use super::adoption::Others;
use super::kind::{TaskFacts, TaskSpecView};
use super::ledger::{self, Entry, Raised, Stage};
use super::stored::StoredOrder;
use super::validate::{ChainFacts, Limits, Work};

/// One order of the task.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub number: u32,
    pub id: B256,
    pub stage: Stage,
    pub stored: Option<StoredOrder>,
    /// As of the latest block.
    pub order: Option<Arc<Order>>,
    /// At confirmed depth.
    pub confirmed: Option<Arc<Order>>,
    /// What top-ups that were asked for bring its escrow to.
    pub raised: Amount,
}

impl Attempt {
    /// The provider, once a bid was accepted.
    pub fn provider(&self) -> Option<Address> {
        self.order.as_ref().map(|o| o.slot.provider).filter(|p| *p != Address::ZERO)
    }

    /// Its manifest can be handed over.
    pub fn has_manifest(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.has_manifest)
    }

    pub fn confirmed_state(&self) -> OrderState {
        self.confirmed.as_ref().map(|o| o.slot.state).unwrap_or_default()
    }

    /// What it costs, or may still cost.
    pub fn cost(&self) -> Amount {
        match (self.stage, &self.order, &self.stored) {
            (Stage::Lapsed, ..) => Amount::ZERO,
            (Stage::Settled(_) | Stage::Settling(_), Some(order), _) => order.cost(),
            (_, Some(order), _) => order.escrow().max(self.raised),
            (_, None, stored) => stored.as_ref().map(|s| s.terms.cap()).unwrap_or_default(),
        }
    }
}

/// The attempts of a task, found by probing ids from 0 on.
pub fn attempts(
    uid: &str,
    stored: &[StoredOrder],
    view: &ChainView,
    failed: &BTreeSet<B256>,
    raised: &Raised,
) -> Vec<Attempt> {
    let by_id: BTreeMap<B256, &StoredOrder> = stored.iter().map(|s| (s.id, s)).collect();
    let adopted = |number: u32| stored.iter().find(|s| s.adopted && s.attempt == number).map(|s| s.id);
    let probe = |number: u32| {
        let own = || super::stored::id_of(view.chain_id, view.market, view.account, uid, number);
        let id = adopted(number).unwrap_or_else(own);
        let found = by_id.get(&id).map(|s| (*s).clone());
        let order = view.order(&id).filter(|o| o.slot.state != OrderState::None).cloned();
        let confirmed = view.confirmed_order(&id).filter(|o| o.slot.state != OrderState::None).cloned();
        let known = found.is_some() || order.is_some() || confirmed.is_some();
        let stage = ledger::stage(found.as_ref(), &id, view, failed);
        let raised = raised.get(&id).copied().unwrap_or_default();
        known.then_some(Attempt { number, id, stage, stored: found, order, confirmed, raised })
    };
    (0..).map_while(probe).collect()
}

/// A goal of the task in the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct GoalFact {
    pub goal: Goal,
    pub state: TransactionState,
    /// Why it failed, or waits.
    pub trouble: Option<(String, String)>,
}

/// What the provider's gateway says of the newest lease.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Report {
    #[default]
    NotAsked,
    /// It answers, and does not know the lease (yet).
    NotServed,
    Unreachable(String),
    Says(Box<LeaseReport>),
}

impl Report {
    pub fn says(&self) -> Option<&LeaseReport> {
        match self {
            Self::Says(report) => Some(report),
            Self::NotAsked | Self::NotServed | Self::Unreachable(_) => None,
        }
    }
}

/// The delivered result in the tenant's store.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Delivery {
    #[default]
    None,
    /// Not, or not all, in the store yet.
    Missing,
    /// Held and not what was asked for.
    Bad(String),
    Good(ResultFile),
}

/// The account that pays.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    pub name: String,
    pub caps: Option<Caps>,
    pub chain: ChainFacts,
    /// Marks the orders of this cluster.
    pub origin: B256,
    /// Seconds after which a gateway that does not answer is taken for gone.
    pub silence: u64,
}

#[derive(Clone, Debug)]
pub struct Observed {
    pub task: TaskFacts,
    pub spec: TaskSpecView,
    pub now: Timestamp,
    /// Or why there is none: a claim about `Valid`.
    pub account: Result<Account, Claim>,
    pub view: Option<Arc<ChainView>>,
    /// Absent while the chain has not been read: decimals are not known.
    pub limits: Option<Result<Limits, Claim>>,
    pub attempts: Vec<Attempt>,
    pub goals: Vec<GoalFact>,
    pub report: Report,
    pub delivery: Delivery,
    /// Newest checkpoint in the tenant's store.
    pub checkpoint: Option<CheckpointNote>,
    /// Looked up only where an order may be placed.
    pub work: Option<Result<Work, Claim>>,
    pub budgets: Vec<(String, ComputeBudgetSpec)>,
    /// All orders of the account.
    pub entries: Vec<Entry>,
    /// Looked up only where an order may be placed.
    pub others: Others,
}

impl Observed {
    pub fn newest(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    pub fn stage(&self) -> Option<Stage> {
        self.newest().map(|a| a.stage)
    }

    /// Timestamp of the latest block.
    pub fn chain_now(&self) -> u64 {
        self.view.as_ref().map(|v| v.latest.block.timestamp).unwrap_or_default()
    }

    pub fn unix_now(&self) -> u64 {
        u64::try_from(self.now.as_second()).unwrap_or_default()
    }

    /// Seconds after which a gateway that does not answer is taken for gone. Without an account nothing is.
    pub fn silence(&self) -> i64 {
        let known = self.account.as_ref().ok().and_then(|account| i64::try_from(account.silence).ok());
        known.unwrap_or(i64::MAX)
    }

    pub fn limits(&self) -> Option<&Limits> {
        self.limits.as_ref().and_then(|l| l.as_ref().ok())
    }

    /// Seconds until `activeDeadline`, which runs from the first order on.
    pub fn seconds_left(&self) -> u64 {
        let Some(limits) = self.limits() else { return 0 };
        let Some(first) = self.attempts.iter().find_map(|a| a.stored.as_ref()) else { return limits.active_deadline };
        let passed = u64::try_from(self.now.as_second() - first.created.as_second()).unwrap_or_default();
        limits.active_deadline.saturating_sub(passed)
    }

    pub fn budget_left(&self) -> Amount {
        let spent: Amount = self.attempts.iter().map(Attempt::cost).sum();
        self.limits().map(|l| l.budget.saturating_sub(spent)).unwrap_or_default()
    }

    /// What the next order would hold.
    pub fn next_cap(&self) -> Amount {
        self.limits().map(|l| super::order::cap(l, self.budget_left(), self.seconds_left())).unwrap_or_default()
    }

    /// Runs that failed so far. The report of an earlier attempt is gone, so each order carries the count before it.
    pub fn failures(&self) -> u32 {
        let before = self.newest().and_then(|a| a.stored.as_ref()).map(|s| s.failures).unwrap_or_default();
        let here = self.report.says().and_then(|r| r.exit.as_ref()).map(|e| e.failures).unwrap_or_default();
        let same = self.task.status.attempt == self.newest().map(|a| a.number);
        let known = if same { self.task.status.failures.unwrap_or_default() } else { 0 };
        before.saturating_add(here).min(MAX_FAILURES).max(known)
    }

    pub fn goal(&self, wanted: impl Fn(&Goal) -> bool) -> Option<&GoalFact> {
        self.goals.iter().find(|fact| wanted(&fact.goal))
    }

    pub fn format(&self, amount: Amount) -> String {
        amount.format(self.view.as_ref().map(|v| v.decimals).unwrap_or_default())
    }
}
