//! ComputeBudget: what a namespace's tasks have committed and spent of an
//! account. Computed from orders on the chain; what decides about money is the
//! same computation in [`crate::task::funding`], never this status.

use std::sync::Arc;
use std::time::Duration;

use freehold_api::account::{ComputeBudgetSpec, ComputeBudgetStatus};
use freehold_api::conditions::{self, Claim, types};
use freehold_api::{ComputeBudget, GROUP, VERSION};
use freehold_core::money::Amount;
use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::metrics;
use crate::rbac::{Rule, Scope};
use crate::task::ledger::{self, Entry, Totals};
use crate::task::{Shared, caches, dereference, funding};

const MANAGER: &str = "freehold-budget";
const RECHECK: Duration = Duration::from_secs(60);

/// What this controller watches and writes.
pub const RULES: &[Rule] = &[
    Rule::new("freehold.dev", &["computebudgets"], &["list", "watch"], Scope::Cluster),
    Rule::new("freehold.dev", &["computebudgets/status"], &["patch"], Scope::Cluster),
];

#[derive(Debug, thiserror::Error)]
#[error("the status cannot be written: {0}")]
pub struct Error(#[from] Box<kube::Error>);

/// Keeps the status of every budget of this release's accounts, for as long as it is polled.
pub async fn control(shared: Arc<Shared>, wake: watch::Receiver<u64>) {
    let timed = shared.ctx.metrics.timed(metrics::Controller::ComputeBudget, reconcile);
    show(&shared);
    Controller::new(Api::<ComputeBudget>::all(shared.ctx.client.clone()), watcher::Config::default())
        .reconcile_all_on(WatchStream::new(wake).map(|_| ()))
        .run(timed, |_, _, _| Action::requeue(Duration::from_secs(5)), shared)
        .for_each(|outcome| async move {
            match outcome {
                // Gone since the pass was asked for.
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(%error, "a pass over a budget failed and is repeated"),
            }
        })
        .await;
}

async fn reconcile(budget: Arc<ComputeBudget>, shared: Arc<Shared>) -> Result<Action, Error> {
    let account = budget.spec.account_ref.name.as_str();
    let now = shared.ctx.clock.now();
    let claim = match shared.caches.accounts.get(account) {
        Some(spec) if !caches::serves(&spec, &shared.ctx.settings.release) => return Ok(Action::await_change()),
        Some(_) => {
            Claim::yes(types::READY, "Ready", format!("Tasks of the namespace may spend of account `{account}`."))
        }
        None => Claim::no(
            types::READY,
            "AccountNotFound",
            format!("accountRef `{account}` names no ComputeAccount; create it."),
        ),
    };
    let view = shared.ctx.views.get(account);
    let entries =
        view.as_ref().map(|view| (dereference::account_entries(&shared.caches, account, view), view.decimals));
    let sums = entries.as_ref().map(|(entries, decimals)| (entries.as_slice(), *decimals));
    let namespace = budget.namespace().unwrap_or_default();
    let status = status(&budget, &namespace, claim, sums, now);
    if budget.status.as_ref() != Some(&status) {
        write(&shared, &budget, &namespace, &status).await?;
    }
    Ok(Action::requeue(RECHECK))
}

/// Pure: the status that a budget has now. Without a view, sums stay as they were.
pub fn status(
    budget: &ComputeBudget,
    namespace: &str,
    claim: Claim,
    known: Option<(&[Entry], u8)>,
    now: Timestamp,
) -> ComputeBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.observed_generation = budget.metadata.generation;
    conditions::set(&mut status.conditions, claim, budget.metadata.generation, now);
    let Some((entries, decimals)) = known else { return status };
    let ComputeBudgetSpec { limit, period, .. } = &budget.spec;
    let sums = sums(entries, namespace, period.as_str(), now);
    let limit = Amount::parse(limit.as_str(), decimals).unwrap_or_default();
    let left = limit.saturating_sub(sums.committed.saturating_add(sums.spent));
    status.committed = Some(sums.committed.format(decimals).into());
    status.spent = Some(sums.spent.format(decimals).into());
    status.left = Some(left.format(decimals).into());
    status
}

fn sums(entries: &[Entry], namespace: &str, period: &str, now: Timestamp) -> Totals {
    let unix = u64::try_from(now.as_second()).unwrap_or_default();
    let own = entries.iter().filter(|entry| entry.namespace == namespace);
    ledger::totals(own, funding::since(unix, period))
}

/// Lets the budgets of this release's accounts be seen.
fn show(shared: &Shared) {
    let (caches, ctx) = (shared.caches.clone(), &shared.ctx);
    let (views, release) = (ctx.views.clone(), ctx.settings.release.clone());
    ctx.metrics.show(move |now| {
        let mut used = Vec::new();
        for account in caches.account_names() {
            let serves = caches.accounts.get(&account).is_some_and(|spec| caches::serves(&spec, &release));
            let Some(view) = views.get(&account).filter(|_| serves) else { continue };
            let entries = dereference::account_entries(&caches, &account, &view);
            let budgets = caches.budgets.filter_map(|b| (b.spec.account_ref.name.0 == account).then(|| b.clone()));
            used.extend(budgets.iter().map(|budget| spent(budget, &entries, view.decimals, now)));
        }
        metrics::work::budgets(&used)
    });
}

fn spent(budget: &caches::Budget, entries: &[Entry], decimals: u8, now: Timestamp) -> metrics::work::Budget {
    let sums = sums(entries, &budget.namespace, budget.spec.period.as_str(), now);
    metrics::work::Budget {
        name: format!("{}/{}", budget.namespace, budget.name),
        limit: Amount::limit(budget.spec.limit.as_str(), decimals),
        used: sums.committed.saturating_add(sums.spent),
    }
}

async fn write(
    shared: &Shared,
    budget: &ComputeBudget,
    namespace: &str,
    status: &ComputeBudgetStatus,
) -> Result<(), Error> {
    let api: Api<ComputeBudget> = Api::namespaced(shared.ctx.client.clone(), namespace);
    let name = budget.name_any();
    let body = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "ComputeBudget",
        "metadata": { "name": name },
        "status": status,
    });
    match api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await {
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        other => other.map(|_| ()).map_err(|e| Error(Box::new(e))),
    }
}
