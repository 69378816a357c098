//! What a pass reads without a call: stored orders, goals, budgets and accounts
//! as their watches tell, and a wake-up when chain, budget or account change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use freehold_api::account::{ComputeAccountSpec, ComputeBudgetSpec, Role};
use freehold_api::conditions::{self, types};
use freehold_api::{ChainTransaction, ComputeAccount, ComputeBudget, Goal, labels};
use freehold_chain::view::Health;
use freehold_core::B256;
use freehold_core::money::Amount;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use super::index::Index;
use super::ledger::Raised;
use super::observed::GoalFact;
use super::stored::StoredOrder;
use crate::context::Context;
use crate::goals;

/// A look at the views costs a comparison in memory, so it may be often.
const LOOK: Duration = Duration::from_millis(250);

/// Reasons for which a goal waits on somebody.
const STUCK: [&str; 6] = ["GasLow", "FeeCap", "InsufficientBalance", "TokenCap", "SignerRefused", "Reverted"];

/// A ComputeBudget, as far as it counts.
#[derive(Clone, Debug)]
pub struct Budget {
    pub name: String,
    pub namespace: String,
    pub spec: ComputeBudgetSpec,
}

#[derive(Clone, Default)]
pub struct Caches {
    /// By UID of the task.
    pub orders: Arc<Index<StoredOrder>>,
    /// By UID of the task.
    pub goals: Arc<Index<GoalFact>>,
    /// By namespace.
    pub budgets: Arc<Index<Budget>>,
    /// All in one group.
    pub accounts: Arc<Index<ComputeAccountSpec>>,
}

impl Caches {
    /// Keeps all caches true for as long as it is polled; a watch that fails is repeated.
    pub async fn follow(&self, ctx: &Context) {
        let (client, namespace) = (&ctx.client, &ctx.settings.namespace);
        let marked = watcher::Config::default().labels(labels::ORDER);
        let maps = watcher::watcher(Api::<ConfigMap>::namespaced(client.clone(), namespace), marked);
        let outbox = watcher::watcher(
            Api::<ChainTransaction>::namespaced(client.clone(), namespace),
            watcher::Config::default(),
        );
        let budgets = watcher::watcher(Api::<ComputeBudget>::all(client.clone()), watcher::Config::default());
        let accounts = watcher::watcher(Api::<ComputeAccount>::all(client.clone()), watcher::Config::default());
        tokio::join!(
            self.orders.follow(maps.default_backoff(), read_order),
            self.goals.follow(outbox.default_backoff(), read_goal),
            self.budgets.follow(budgets.default_backoff(), read_budget),
            self.accounts.follow(accounts.default_backoff(), read_account),
        );
    }

    pub async fn ready(&self) {
        tokio::join!(self.orders.ready(), self.goals.ready(), self.budgets.ready(), self.accounts.ready());
    }

    /// Counts up when any view, budget or account has changed.
    pub async fn wake(&self, ctx: &Context, wake: &watch::Sender<u64>) {
        let mut seen: BTreeMap<String, (B256, Health)> = BTreeMap::new();
        let (mut budgets, mut accounts) = (self.budgets.changes(), self.accounts.changes());
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = budgets.changed() => wake.send_modify(|n| *n = n.wrapping_add(1)),
                _ = accounts.changed() => wake.send_modify(|n| *n = n.wrapping_add(1)),
            }
            let now: BTreeMap<String, (B256, Health)> = self
                .account_names()
                .into_iter()
                .filter_map(|name| {
                    ctx.views.get(&name).map(|view| (name, (view.latest.block.hash, view.health.clone())))
                })
                .collect();
            if now != seen {
                seen = now;
                wake.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
    }

    pub fn account_names(&self) -> Vec<String> {
        self.accounts.names()
    }

    /// Orders whose placement has failed for good, of all tasks.
    pub fn failed_placements(&self) -> BTreeSet<B256> {
        self.goals.filter_map(failed_placement).into_iter().collect()
    }

    /// Top-ups of all tasks.
    pub fn raised(&self, decimals: u8) -> Raised {
        raised(self.goals.filter_map(|fact| Some(fact.clone()).filter(is_top_up)).iter(), decimals)
    }

    pub fn budgets_of(&self, namespace: &str, account: &str) -> Vec<(String, ComputeBudgetSpec)> {
        let budgets = self.budgets.group(namespace).into_iter();
        budgets.filter(|b| b.spec.account_ref.name.as_str() == account).map(|b| (b.name, b.spec)).collect()
    }
}

pub(super) fn read_order(map: &ConfigMap) -> Option<(String, StoredOrder)> {
    StoredOrder::read(map).map(|order| (order.task.uid.clone(), order))
}

pub(super) fn read_goal(entry: &ChainTransaction) -> Option<(String, GoalFact)> {
    let uid = entry.labels().get(labels::TASK_UID)?.clone();
    let conditions = entry.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let failed = conditions::find(conditions, types::FAILED).filter(|c| c.status == "True");
    let stuck = conditions::find(conditions, types::CONFIRMED)
        .filter(|c| c.status == "False" && STUCK.contains(&c.reason.as_str()));
    let trouble = failed.or(stuck).map(|c| (c.reason.clone(), c.message.clone()));
    Some((uid, GoalFact { goal: entry.spec.goal.clone(), state: goals::state(entry), trouble }))
}

fn read_budget(budget: &ComputeBudget) -> Option<(String, Budget)> {
    let namespace = budget.namespace()?;
    Some((namespace.clone(), Budget { name: budget.name_any(), namespace, spec: budget.spec.clone() }))
}

fn read_account(account: &ComputeAccount) -> Option<(String, ComputeAccountSpec)> {
    Some((String::new(), account.spec.clone()))
}

/// Does this release pay from the account?
pub fn serves(spec: &ComputeAccountSpec, release: &str) -> bool {
    spec.role == Role::Tenant && spec.operator.as_str() == release
}

/// Orders whose placement has failed for good.
pub fn failed_placements<'a>(goals: impl Iterator<Item = &'a GoalFact>) -> BTreeSet<B256> {
    goals.filter_map(failed_placement).collect()
}

/// What top-ups bring escrows to. One at confirmed depth still counts: the view may be older than the goal.
pub fn raised<'a>(goals: impl Iterator<Item = &'a GoalFact>, decimals: u8) -> Raised {
    use freehold_api::transaction::TransactionState::{Failed, Obsolete};
    let level = |fact: &GoalFact| match &fact.goal {
        Goal::TopUp { order_id, amount, escrow } if !matches!(fact.state, Failed | Obsolete) => {
            let amount = Amount::parse(amount.as_str(), decimals).ok()?;
            Some((order_id.as_str().parse().ok()?, Amount(escrow.parse().ok()?).saturating_add(amount)))
        }
        _ => None,
    };
    goals.filter_map(level).fold(Raised::new(), |mut all, (id, level)| {
        let known: &mut Amount = all.entry(id).or_default();
        *known = level.max(*known);
        all
    })
}

fn is_top_up(fact: &GoalFact) -> bool {
    matches!(fact.goal, Goal::TopUp { .. })
}

fn failed_placement(fact: &GoalFact) -> Option<B256> {
    use freehold_api::transaction::TransactionState::Failed;
    match &fact.goal {
        Goal::PlaceOrder { order_id, .. } if fact.state == Failed => order_id.as_str().parse().ok(),
        _ => None,
    }
}
