//! Orders that no task stands for any more: a finalizer was forced off, or a
//! task was lost with its namespace. Those that can still accrue are ended;
//! records of those that are long over are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use freehold_api::{ComputeAccount, Goal, InferenceTask, TrainingTask, labels};
use freehold_chain::view::ChainView;
use freehold_core::B256;
use freehold_core::order::{Order, OrderState};
use freehold_core::{order, units};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};

use super::caches::serves;
use super::ending;
use super::ledger::{self, Stage};
use super::stored::StoredOrder;
use super::{Error, Shared};
use crate::goals;

const EVERY: Duration = Duration::from_secs(20);
/// Records are kept as long as a budget may count them, and at least this long.
const LEAST_KEEP: u64 = 30 * 86_400;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sweep {
    End(Goal),
    /// Name of the ConfigMap.
    Forget(String),
}

/// What is known of one account's orders.
#[derive(Clone, Debug)]
pub struct Floor<'a> {
    pub stored: &'a [StoredOrder],
    pub view: &'a ChainView,
    /// Marks the orders of this cluster: no others are touched.
    pub origin: B256,
    pub failed: &'a BTreeSet<B256>,
    /// UIDs of all tasks that exist.
    pub tasks: &'a BTreeSet<String>,
    /// Seconds after which a task that is missing is not coming back.
    pub patience: u64,
    /// Orders from elsewhere that the account's admin wants ended.
    pub unwanted: &'a BTreeSet<B256>,
    /// Seconds that records of settled orders are kept.
    pub keep: u64,
    /// Unix seconds.
    pub now: u64,
}

/// Pure. `missing` remembers since when an order has been without a task.
pub fn sweep(floor: &Floor<'_>, missing: &mut BTreeMap<B256, u64>) -> Vec<Sweep> {
    if !floor.view.health.allows_action() {
        return Vec::new();
    }
    let known: BTreeMap<B256, &StoredOrder> = floor.stored.iter().map(|s| (s.id, s)).collect();
    let homeless = |id: &B256| known.get(id).is_none_or(|stored| !floor.tasks.contains(&stored.task.uid));
    let chain = floor.view.latest.orders.values();
    let swept = |o: &Order| o.terms.origin == floor.origin || floor.unwanted.contains(&o.id);
    let own = chain.filter(|o| o.slot.tenant == floor.view.account && swept(o)).map(|o| o.id);
    let orphans: BTreeSet<B256> = own.chain(known.keys().copied()).filter(homeless).collect();
    missing.retain(|id, _| orphans.contains(id));
    orphans
        .iter()
        .filter_map(|id| act(floor, id, known.get(id).copied(), *missing.entry(*id).or_insert(floor.now)))
        .collect()
}

fn act(floor: &Floor<'_>, id: &B256, stored: Option<&StoredOrder>, since: u64) -> Option<Sweep> {
    let due = floor.now.saturating_sub(since) >= floor.patience || floor.unwanted.contains(id);
    match ledger::stage(stored, id, floor.view, floor.failed) {
        Stage::Live(_) if due => {
            // Deadlines are judged by the chain's clock, not by ours.
            let order = floor.view.order(id)?;
            ending::end(order, floor.view.latest.block.timestamp).map(Sweep::End)
        }
        Stage::Lapsed | Stage::Settled(_) => {
            let stored = stored.filter(|s| s.bid_by().saturating_add(floor.keep) < floor.now)?;
            Some(Sweep::Forget(stored.name.clone()))
        }
        Stage::Unplaced | Stage::Live(_) | Stage::Settling(_) => None,
    }
}

/// Live orders of the account that neither this cluster placed nor a task of it took over, and where they stand. They are
/// left alone, and told.
pub fn foreign(floor: &Floor<'_>) -> Vec<(B256, OrderState)> {
    let known: BTreeSet<B256> = floor.stored.iter().map(|stored| stored.id).collect();
    let placed = floor.view.latest.orders.values().filter(|order| order.slot.tenant == floor.view.account);
    placed
        .filter(|order| order.terms.origin != floor.origin && !known.contains(&order.id))
        .filter(|order| order.slot.state != OrderState::None && !order.slot.state.is_settled())
        .map(|order| (order.id, order.slot.state))
        .collect()
}

/// Orders that the account's admin named, by `kubectl freehold adopt --end`.
fn unwanted(account: &ComputeAccount) -> BTreeSet<B256> {
    let named = account.annotations().get(labels::END_ANNOTATION).map(String::as_str).unwrap_or_default();
    named.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Sweeps every account of this release, for as long as it is polled.
pub async fn run(shared: &Shared) {
    let mut missing = BTreeMap::new();
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = pass(shared, &mut missing).await {
            tracing::warn!(%error, "a sweep failed and is repeated");
        }
    }
}

async fn pass(shared: &Shared, missing: &mut BTreeMap<String, BTreeMap<B256, u64>>) -> Result<(), Error> {
    let tasks = tasks(shared).await?;
    let settings = &shared.ctx.settings;
    let failed = shared.caches.failed_placements();
    let mut orphans = 0;
    for account in shared.caches.account_names() {
        let spec = shared.caches.accounts.get(&account).filter(|spec| serves(spec, &settings.release));
        let (Some(spec), Some(view)) = (spec, shared.ctx.views.get(&account)) else { continue };
        let object = Api::<ComputeAccount>::all(shared.ctx.client.clone()).get_opt(&account).await;
        let unwanted = object.map_err(|e| Error::Sweep(Box::new(e)))?.as_ref().map(unwanted).unwrap_or_default();
        let stored = shared.caches.orders.filter_map(|s| (s.account == account).then(|| s.clone()));
        let floor = Floor {
            stored: &stored,
            view: &view,
            origin: order::origin(&settings.cluster_uid),
            failed: &failed,
            tasks: &tasks,
            patience: units::seconds(spec.chain.windows.orphans.as_str()).unwrap_or(u64::MAX),
            unwanted: &unwanted,
            keep: keep(shared, &account),
            now: u64::try_from(shared.ctx.clock.now().as_second()).unwrap_or_default(),
        };
        shared.ctx.foreign.found(&account, foreign(&floor));
        for found in sweep(&floor, missing.entry(account.clone()).or_default()) {
            carry_out(shared, &account, found).await?;
        }
        orphans += missing.get(&account).map_or(0, |missing| live(&view, missing.keys()));
    }
    shared.ctx.metrics.found(|found| found.orders = Some(orphans));
    Ok(())
}

/// How many of these orders can still cost something.
fn live<'a>(view: &ChainView, ids: impl Iterator<Item = &'a B256>) -> usize {
    ids.filter(|id| view.order(id).is_some_and(|order| !order.slot.state.is_settled())).count()
}

/// Names alone are asked for: a thousand tasks cost one small answer.
async fn tasks(shared: &Shared) -> Result<BTreeSet<String>, Error> {
    let client = &shared.ctx.client;
    let all = ListParams::default();
    let failed = |e| Error::Sweep(Box::new(e));
    let training = Api::<TrainingTask>::all(client.clone()).list_metadata(&all).await.map_err(failed)?;
    let inference = Api::<InferenceTask>::all(client.clone()).list_metadata(&all).await.map_err(failed)?;
    let uids = training.items.iter().map(ResourceExt::uid).chain(inference.items.iter().map(ResourceExt::uid));
    Ok(uids.flatten().collect())
}

fn keep(shared: &Shared, account: &str) -> u64 {
    let periods = shared.caches.budgets.filter_map(|b| {
        (b.spec.account_ref.name.as_str() == account).then(|| units::seconds(b.spec.period.as_str()))?
    });
    let caps = shared.caches.accounts.get(account).and_then(|a| units::seconds(a.caps.as_ref()?.period.as_str()));
    periods.into_iter().chain(caps).fold(LEAST_KEEP, u64::max)
}

async fn carry_out(shared: &Shared, account: &str, found: Sweep) -> Result<(), Error> {
    let namespace = &shared.ctx.settings.namespace;
    match found {
        Sweep::End(goal) => {
            tracing::warn!(
                account,
                goal = goal.name(),
                lease = goal.order_id().map(|id| id.as_str()),
                "an order without a task is ended"
            );
            goals::ensure(&shared.ctx, account, goal, None).await.map_err(super::apply::Error::from)?;
        }
        Sweep::Forget(name) => {
            let maps: Api<ConfigMap> = Api::namespaced(shared.ctx.client.clone(), namespace);
            match maps.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(answer)) if answer.is_not_found() => {}
                other => other.map(|_| ()).map_err(|e| Error::Sweep(Box::new(e)))?,
            }
            shared.caches.orders.remove(&format!("{namespace}/{name}"));
        }
    }
    Ok(())
}
