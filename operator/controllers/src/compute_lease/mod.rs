//! ComputeLease: the provider's side of one lease, from the tenant's
//! acceptance to an empty cluster.
//!
//! dereference → plan → apply → status. What is remembered is on the chain, in
//! the objects' annotations and in the outbox; a pass starts from nothing.

mod adopt;
mod apply;
pub mod build;
mod dereference;
pub mod devices;
mod events;
pub mod exit;
pub mod facts;
pub mod gateway;
mod housekeeping;
mod logs;
pub mod names;
mod observe;
pub mod plan;
mod status;
mod sweep;
pub mod validate;
mod wake;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use freehold_api::conditions::{self, types};
use freehold_api::lease::LeasePhase;
use freehold_api::{ComputeLease, labels};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};

use self::dereference::Observed;
use self::gateway::{HttpWorkStore, WorkStore};
use self::plan::Next;
use crate::context::Context;
use crate::metrics;
use crate::rbac::{READ, Rule, Scope};

const GROUP: &str = freehold_api::GROUP;

pub const RULES: &[Rule] = &[
    Rule::new(GROUP, &["computeleases"], &["get", "list", "watch", "create", "patch", "delete"], Scope::Release),
    Rule::new(GROUP, &["computeleases/status"], &["patch"], Scope::Release),
    Rule::new(GROUP, &["computeproviders"], READ, Scope::Release),
    Rule::new(GROUP, &["chaintransactions"], &["get", "list", "create"], Scope::Release),
    Rule::new(GROUP, &["gpunodes"], &["list"], Scope::Cluster),
    Rule::new("", &["nodes"], &["get", "list"], Scope::Cluster),
    Rule::new("", &["pods"], READ, Scope::Cluster),
    Rule::new("node.k8s.io", &["runtimeclasses"], &["list"], Scope::Cluster),
    Rule::new("", &["namespaces"], &["get", "list", "create", "patch", "delete"], Scope::LeaseNamespaces),
    Rule::new("batch", &["jobs"], &["get", "list", "watch", "create", "patch"], Scope::LeaseNamespaces),
    Rule::new("", &["configmaps", "serviceaccounts", "resourcequotas"], &["create", "patch"], Scope::LeaseNamespaces),
    Rule::new("networking.k8s.io", &["networkpolicies"], &["create", "patch"], Scope::LeaseNamespaces),
    Rule::new("rbac.authorization.k8s.io", &["rolebindings"], &["create", "patch"], Scope::LeaseNamespaces),
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("dereference: {0}")]
    Dereference(#[from] dereference::Error),
    #[error("apply: {0}")]
    Apply(#[from] apply::Error),
    #[error("status: {0}")]
    Kube(Box<kube::Error>),
}

struct Shared {
    ctx: Context,
    store: Box<dyn WorkStore>,
}

/// Reconciles every ComputeLease of the release until the task is dropped.
pub async fn run(ctx: Context) -> Result<(), reqwest::Error> {
    let store = HttpWorkStore::new(&ctx.settings.gateway_internal_url, Path::new(gateway::TOKEN_FILE))?;
    run_with(ctx, Box::new(store)).await;
    Ok(())
}

/// The same, with another way to the gateway.
pub async fn run_with(ctx: Context, store: Box<dyn WorkStore>) {
    let api: Api<ComputeLease> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let ours = watcher::Config::default().labels(&format!("{}={}", labels::RELEASE, ctx.settings.release));
    let controller = Controller::new(api, watcher::Config::default());
    let leases = controller.store();
    let orders = wake::on_changed_orders(controller.store(), ctx.views.clone());
    let (of_job, of_pod) = (lease_ref(&ctx), lease_ref(&ctx));
    show(&ctx, leases.clone());
    let timed = ctx.metrics.timed(metrics::Controller::ComputeLease, reconcile);
    let shared = Arc::new(Shared { ctx: ctx.clone(), store });
    let reconciled = controller
        .watches(Api::<Job>::all(ctx.client.clone()), ours.clone(), move |job| of_job(job.labels()))
        .watches(Api::<Pod>::all(ctx.client.clone()), ours, move |pod| of_pod(pod.labels()))
        .reconcile_on(orders)
        .run(timed, on_error, shared)
        .for_each(|done| async move {
            if let Err(error) = done {
                tracing::debug!(%error, "a pass over a lease");
            }
        });
    tokio::select! {
        () = reconciled => {}
        () = housekeeping::run(&ctx, &leases) => {}
    }
}

/// Lets the leases be seen, and counted among what the release has to end before it goes.
fn show(ctx: &Context, leases: Store<ComputeLease>) {
    let counted = leases.clone();
    ctx.live.count(move || {
        counted.wait_until_ready().now_or_never()?.ok()?;
        Some(counted.state().iter().filter(|lease| !is_cleaned(lease)).count())
    });
    ctx.metrics.show(move |_| {
        let known = leases.state();
        let mut out = metrics::work::leases(&known.iter().map(|lease| phase(lease)).collect::<Vec<_>>());
        out.push(metrics::work::rebuilds(known.iter().map(|lease| lease.status.as_ref()?.rebuilds)));
        out
    });
}

fn is_cleaned(lease: &ComputeLease) -> bool {
    lease.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, types::CLEANED_UP))
}

fn phase(lease: &ComputeLease) -> LeasePhase {
    lease.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
}

type Labels = std::collections::BTreeMap<String, String>;

/// Jobs and pods name their order; the lease's name follows from it.
fn lease_ref(ctx: &Context) -> impl Fn(&Labels) -> Option<ObjectRef<ComputeLease>> + Send + Sync + 'static {
    let namespace = ctx.settings.namespace.clone();
    move |labels| {
        let name = names::lease_of_label(labels.get(labels::ORDER)?)?;
        Some(ObjectRef::new(&name).within(&namespace))
    }
}

async fn reconcile(lease: Arc<ComputeLease>, shared: Arc<Shared>) -> Result<Action, Error> {
    let ctx = &shared.ctx;
    if is_done(ctx, &lease) {
        // Nothing is left to hold it for: it can be deleted when no operator is there any more.
        if lease.finalizers().iter().any(|name| name == labels::LEASE_FINALIZER) {
            release(ctx, &lease).await?;
        }
        return Ok(Action::requeue(plan::DONE));
    }
    let observed = dereference::dereference(ctx, shared.store.as_ref(), &lease).await?;
    let next = plan::next(&observed.facts);
    // Status first: `Running` lets the trainer begin, and what ends the work shall be told before it is done.
    let told = report(ctx, &lease, &observed, &next).await;
    // What the chain asks for is done all the same: rent and bond do not wait for a status.
    apply::apply(ctx, shared.store.as_ref(), &lease, &observed, &next.effects).await?;
    told?;
    if lease.metadata.deletion_timestamp.is_some() && observed.facts.may_go() {
        release(ctx, &lease).await?;
        return Ok(Action::await_change());
    }
    Ok(Action::requeue(next.wake))
}

/// Over, cleaned up and said so: hundreds of these may lie about, so a pass over one asks nobody.
fn is_done(ctx: &Context, lease: &ComputeLease) -> bool {
    let over =
        wake::sight(&ctx.views, lease).is_some_and(|(_, latest, confirmed)| latest.is_over() && confirmed.is_over());
    is_cleaned(lease) && over && lease.metadata.deletion_timestamp.is_none()
}

async fn report(ctx: &Context, lease: &ComputeLease, observed: &Observed, next: &Next) -> Result<(), Error> {
    let status = status::status(lease, observed, next, ctx.clock.now());
    if lease.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<ComputeLease> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let known = serde_json::to_value(lease.status.clone().unwrap_or_default()).unwrap_or_default();
    let wanted = serde_json::to_value(&status).unwrap_or_default();
    let patch = serde_json::json!({ "status": status::merge_patch(&known, &wanted) });
    api.patch_status(&lease.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map_err(wrap)?;
    let news = events::news(&lease.status.clone().unwrap_or_default(), &status);
    crate::news::publish(ctx, &lease.object_ref(&()), news).await;
    Ok(())
}

async fn release(ctx: &Context, lease: &ComputeLease) -> Result<(), Error> {
    let kept: Vec<&String> = lease.finalizers().iter().filter(|name| *name != labels::LEASE_FINALIZER).collect();
    let api: Api<ComputeLease> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let patch = serde_json::json!({
        "metadata": { "finalizers": kept, "resourceVersion": lease.resource_version() },
    });
    match api.patch(&lease.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        // The cache is behind: the next pass has the newer version.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(wrap(error)),
    }
}

fn wrap(error: kube::Error) -> Error {
    Error::Kube(Box::new(error))
}

fn on_error(lease: Arc<ComputeLease>, error: &Error, _: Arc<Shared>) -> Action {
    tracing::warn!(lease = %lease.spec.order_id, %error, "a pass over a lease failed and is repeated");
    Action::requeue(Duration::from_secs(5))
}
