//! TrainingTask and InferenceTask: from a manifest to a settled lease with its
//! result in the tenant's store.
//!
//! ```text
//! dereference → validate → plan → apply → status
//!     caches, chain view,    pure    goals, ConfigMaps,   one write,
//!     gateway, store                 transfers            also on failure
//! ```
//!
//! No pass remembers anything: attempts are found on the chain and among the
//! stored orders, and status is never asked where money is concerned.

pub mod adoption;
pub mod apply;
pub mod caches;
pub mod choose;
pub mod collect;
pub mod dereference;
mod ending;
pub mod events;
pub mod funding;
pub mod gateways;
pub mod handover;
pub mod http;
pub mod index;
pub mod kind;
mod last_word;
mod leasing;
pub mod ledger;
pub mod memo;
pub mod observed;
pub mod order;
pub mod outcome;
pub mod plan;
pub mod reasons;
pub mod status;
pub mod store;
pub mod stored;
pub mod sweep;
pub mod top_up;
pub mod validate;
mod winding;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use freehold_api::conditions::{self, types};
use freehold_api::task::TaskStatus;
use freehold_api::{GROUP, InferenceTask, TrainingTask, VERSION};
use freehold_core::B256;
use futures::StreamExt;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::context::Context;
use crate::metrics;
use crate::rbac::{READ, Rule, Scope};
use kind::{TaskFacts, TaskKind};
use memo::Memo;
use observed::{Observed, Report};

const MANAGER: &str = "freehold-task";
/// Passes at a time: enough to keep many gateways busy, few enough to leave the API server alone.
const CONCURRENCY: u16 = 32;
const RETRY: Duration = Duration::from_secs(5);

/// What this controller watches and writes.
pub const RULES: &[Rule] = &[
    Rule::new(
        "freehold.dev",
        &["trainingtasks", "inferencetasks"],
        &["get", "list", "watch", "patch", "delete"],
        Scope::Cluster,
    ),
    Rule::new("freehold.dev", &["trainingtasks/status", "inferencetasks/status"], &["patch"], Scope::Cluster),
    Rule::new("freehold.dev", &["computebudgets"], &["list", "watch"], Scope::Cluster),
    Rule::new("freehold.dev", &["computeaccounts"], READ, Scope::Cluster),
    Rule::new(
        "freehold.dev",
        &["chaintransactions"],
        &["get", "list", "watch", "create", "patch", "delete"],
        Scope::Release,
    ),
    // Stored orders. ConfigMaps of tenants are granted by each namespace (examples/tenant.yaml).
    Rule::new("", &["configmaps"], &["get", "list", "watch", "create", "delete"], Scope::Release),
    Rule::new("events.k8s.io", &["events"], &["create", "patch"], Scope::Cluster),
    // The artifact endpoint asks the API server who may read a task.
    Rule::new("authentication.k8s.io", &["tokenreviews"], &["create"], Scope::Cluster),
    Rule::new("authorization.k8s.io", &["subjectaccessreviews"], &["create"], Scope::Cluster),
];

type FoundInputs = (validate::Found, Option<validate::Found>);

/// One lock an account: orders are decided one after the other.
#[derive(Default)]
pub struct Locks(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Locks {
    pub fn of(&self, account: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(account.to_owned()).or_default().clone()
    }
}

/// What all passes share.
pub struct Shared {
    pub ctx: Context,
    pub caches: caches::Caches,
    pub store: store::Store,
    pub gateways: Arc<dyn gateways::Gateways>,
    pub locks: Locks,
    pub reports: Memo<B256, Report>,
    pub inputs: Memo<(String, Option<i64>), FoundInputs>,
    /// When each task's status was last written.
    pub written: Memo<String, ()>,
}

impl Shared {
    pub fn new(ctx: Context, gateways: Arc<dyn gateways::Gateways>) -> Self {
        Self {
            caches: caches::Caches::default(),
            store: store::Store::new(ctx.settings.store.clone()),
            gateways,
            locks: Locks::default(),
            reports: Memo::default(),
            inputs: Memo::default(),
            written: Memo::default(),
            ctx,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("dereference: {0}")]
    Dereference(#[from] dereference::Error),
    #[error("apply: {0}")]
    Apply(#[from] apply::Error),
    #[error("status: {0}")]
    Status(Box<kube::Error>),
    #[error("sweep: {0}")]
    Sweep(Box<kube::Error>),
    #[error("gateways: {0}")]
    Gateways(#[from] gateways::Error),
}

/// Runs both kinds' controllers, and keeps ComputeBudgets' status, for as long as it is polled.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let gateways = Arc::new(gateways::Remote::new(ctx.clone())?);
    let shared = Arc::new(Shared::new(ctx, gateways));
    let wake = watch::Sender::new(0);
    let work = async {
        // A pass on half-known orders could order again what is ordered already.
        shared.caches.ready().await;
        tokio::join!(
            control::<TrainingTask>(shared.clone(), wake.subscribe()),
            control::<InferenceTask>(shared.clone(), wake.subscribe()),
            crate::compute_budget::control(shared.clone(), wake.subscribe()),
            sweep::run(&shared),
        );
    };
    tokio::join!(shared.caches.follow(&shared.ctx), shared.caches.wake(&shared.ctx, &wake), work);
    Ok(())
}

async fn control<K: TaskKind>(shared: Arc<Shared>, wake: watch::Receiver<u64>) {
    let api: Api<DeserializeGuard<K>> = Api::all(shared.ctx.client.clone());
    let controller = Controller::new(api, watcher::Config::default());
    let timed = shared.ctx.metrics.timed(K::CONTROLLER, reconcile::<K>);
    show(&shared.ctx, controller.store());
    controller
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_all_on(WatchStream::new(wake).map(|_| ()))
        .run(timed, retry, shared)
        .for_each(|outcome| async move {
            match outcome {
                // Gone since the pass was asked for.
                Ok(_) | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => tracing::warn!(%error, kind = K::KIND, "tasks cannot be followed; trying again"),
            }
        })
        .await;
}

/// Lets the tasks of one kind be seen.
fn show<K: TaskKind>(ctx: &Context, tasks: Store<DeserializeGuard<K>>) {
    ctx.metrics.show(move |now| {
        let seen: Vec<_> = tasks.state().iter().filter_map(|task| task.0.as_ref().ok().map(counted)).collect();
        metrics::work::tasks(K::KIND, &seen, now)
    });
}

fn counted<K: TaskKind>(task: &K) -> metrics::work::Task {
    metrics::work::Task {
        state: task.status().and_then(|status| status.state.as_ref()).map(|state| state.0.clone()),
        deleting: task.meta().deletion_timestamp.as_ref().map(|at| at.0),
    }
}

fn retry<K: TaskKind>(task: Arc<DeserializeGuard<K>>, error: &Error, _: Arc<Shared>) -> Action {
    let (name, lease) = match &task.0 {
        Ok(task) => (full_name(task.meta()), task.status().and_then(|status| status.order_id.as_ref())),
        Err(invalid) => (full_name(&invalid.metadata), None),
    };
    tracing::warn!(task = name, lease = lease.map(|id| id.as_str()), %error, kind = K::KIND, "a pass failed and is repeated");
    Action::requeue(RETRY)
}

fn full_name(meta: &ObjectMeta) -> String {
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// One pass over a task.
async fn reconcile<K: TaskKind>(task: Arc<DeserializeGuard<K>>, shared: Arc<Shared>) -> Result<Action, Error> {
    let task = match &task.0 {
        Ok(task) => task,
        Err(invalid) => {
            tracing::warn!(task = full_name(&invalid.metadata), error = %invalid, "a task does not fit its schema; waits for a change");
            return Ok(Action::await_change());
        }
    };
    let (facts, spec) = (TaskFacts::of(task), task.spec());
    if at_rest(&facts, &spec) {
        return Ok(Action::await_change());
    }
    // Reads the chain's view, caches, the store; asks gateway and API server where the stage needs it.
    let Some(observed) = dereference::dereference(&shared, facts, spec).await? else {
        return Ok(Action::await_change());
    };
    // Pure: what to say and what to do.
    let plan = plan::plan(&observed);
    if let Some(attempt) = observed.newest() {
        shared.ctx.kept_funded.note(attempt.id, top_up::keeps_up(&observed, &plan));
    }
    // Goals, ConfigMaps, finalizers, transfers.
    let applied = apply::apply::<K>(&shared, &observed, &plan.effects).await;
    // Said also when something failed.
    let overrides = applied.as_deref().unwrap_or_default();
    write::<K>(&shared, &observed, status::status(&observed, &plan, overrides)).await?;
    applied?;
    Ok(Action::requeue(plan.recheck))
}

/// Nothing is left to do for a task that is over and settled.
fn at_rest(task: &TaskFacts, spec: &kind::TaskSpecView) -> bool {
    let is_true = |type_| conditions::is_true(&task.status.conditions, type_);
    let over = is_true(types::COMPLETE) || is_true(types::FAILED);
    let settled = is_true(types::SETTLED) || task.status.order_id.is_none();
    let seen = task.status.observed_generation == task.generation;
    over && settled && seen && !task.held && task.deleting.is_none() && spec.ttl_after_finished.is_none()
}

/// The one write of a pass, if it is due.
async fn write<K: TaskKind>(shared: &Shared, o: &Observed, status: TaskStatus) -> Result<(), Error> {
    let since = shared
        .written
        .get(&o.task.uid, o.now, i64::MAX)
        .map_or(i64::MAX, |(at, ())| o.now.as_second() - at.as_second());
    if !status::is_due(&o.task.status, &status, since) {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(shared.ctx.client.clone(), &o.task.namespace);
    let body = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": K::KIND,
        "metadata": { "name": o.task.name, "uid": o.task.uid },
        "status": status,
    });
    match api.patch_status(&o.task.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await {
        // Gone, or replaced by another task of the name, while the pass ran: what a deletion came to is told all the same.
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => {
            if o.task.deleting.is_none() {
                return Ok(());
            }
        }
        other => drop(other.map_err(|e| Error::Status(Box::new(e)))?),
    };
    shared.written.put(o.task.uid.clone(), o.now, ());
    events::publish(&shared.ctx, &o.task, &status, events::news(&o.task.status, &status)).await;
    Ok(())
}

#[cfg(test)]
mod tests;
