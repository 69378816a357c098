//! ComputeProvider: what is offered, and on which terms the operator bids.
//!
//! dereference → validate → plan → apply → status. Logs of the chain only say
//! "look sooner": each pass compares one view with what nodes and agents show.

mod dereference;
pub mod inventory;
pub mod plan;
pub mod policy;
pub mod pricing;
mod probe;
mod promises;
mod status;
mod validate;
mod wake;

use std::sync::Arc;
use std::time::{Duration, Instant};

use freehold_api::{ComputeLease, ComputeProvider, GpuNode, labels};
use freehold_chain::view::ChainView;
use futures::StreamExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};

pub use dereference::{Cluster, Error as DereferenceError, cluster, runtime_classes};

use self::dereference::Observed;
use self::plan::{Plan, Sight};
use self::probe::Probe;
use self::status::Outcome;
use crate::context::Context;
use crate::goals;
use crate::metrics;
use crate::rbac::{READ, Rule, Scope};

const GROUP: &str = freehold_api::GROUP;

pub const RULES: &[Rule] = &[
    Rule::new(GROUP, &["computeproviders"], &["get", "list", "watch", "patch"], Scope::Release),
    Rule::new(GROUP, &["computeproviders/status"], &["patch"], Scope::Release),
    Rule::new(GROUP, &["computeleases"], READ, Scope::Release),
    Rule::new(GROUP, &["chaintransactions"], &["get", "list", "create"], Scope::Release),
    Rule::new(GROUP, &["gpunodes"], READ, Scope::Cluster),
    Rule::new("", &["nodes", "pods"], &["list"], Scope::Cluster),
    Rule::new("node.k8s.io", &["runtimeclasses"], &["list"], Scope::Cluster),
];

/// A pass without a reason, so that a missed event costs little.
const RESYNC: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("dereference: {0}")]
    Dereference(#[from] dereference::Error),
    #[error("apply: {0}")]
    Goal(#[from] goals::Error),
    #[error("status: {0}")]
    Kube(Box<kube::Error>),
}

struct Shared {
    ctx: Context,
    probe: Probe,
}

/// Reconciles every ComputeProvider of the release until the task is dropped.
pub async fn run(ctx: Context) -> Result<(), reqwest::Error> {
    let api: Api<ComputeProvider> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let gpu_nodes: Api<GpuNode> = Api::all(ctx.client.clone());
    let leases: Api<ComputeLease> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let controller = Controller::new(api, watcher::Config::default());
    let store = controller.store();
    let all = move || store.state().iter().map(|provider| ObjectRef::from_obj(provider.as_ref())).collect::<Vec<_>>();
    let (of_node, of_lease) = (all.clone(), all);
    let blocks = wake::on_new_blocks(controller.store(), ctx.views.clone());
    let timed = ctx.metrics.timed(metrics::Controller::ComputeProvider, reconcile);
    let shared = Arc::new(Shared { probe: Probe::new()?, ctx });
    controller
        .watches(gpu_nodes, watcher::Config::default(), move |_| of_node())
        .watches(leases, watcher::Config::default(), move |_| of_lease())
        .reconcile_all_on(blocks)
        .run(timed, on_error, shared)
        .for_each(|done| async move {
            if let Err(error) = done {
                tracing::debug!(%error, "compute provider pass");
            }
        })
        .await;
    Ok(())
}

async fn reconcile(provider: Arc<ComputeProvider>, shared: Arc<Shared>) -> Result<Action, Error> {
    let ctx = &shared.ctx;
    let observed = dereference::dereference(ctx, &provider).await?;
    let gateway = shared.probe.ask(provider.spec.gateway_url.as_str(), Instant::now()).await;
    let Some(view) = observed.view.clone() else {
        report(ctx, &provider, &Outcome::NoView, gateway).await?;
        return Ok(Action::requeue(RESYNC));
    };
    let offer = match validate::validate(&provider.spec, view.decimals) {
        Ok(offer) => offer,
        Err(error) => {
            report(ctx, &provider, &Outcome::Invalid { view: &view, error: error.to_string() }, gateway).await?;
            return Ok(Action::requeue(RESYNC));
        }
    };
    let sight = look(ctx, &provider, &offer, &view, observed);
    let leases = sight.leases.len();
    let plan = plan::plan(sight);
    let applied = apply(ctx, &provider, &plan).await;
    let newest = report(ctx, &provider, &Outcome::Planned { view: &view, plan: &plan, leases }, gateway).await?;
    applied?;
    if view.health.allows_action() {
        hold(ctx, newest.as_ref().unwrap_or(&provider), leases > 0 || plan.open_bids > 0).await?;
    }
    Ok(Action::requeue(RESYNC))
}

fn look<'a>(
    ctx: &Context,
    provider: &'a ComputeProvider,
    offer: &'a validate::Offer,
    view: &'a ChainView,
    observed: Observed,
) -> Sight<'a> {
    let cluster = observed.cluster;
    Sight {
        provider: &provider.spec,
        limits: &offer.limits,
        prices: &offer.prices,
        view,
        capacity: cluster.capacity(&ctx.settings),
        leases: cluster.leases(view, &observed.leases),
        asked: observed.asked,
        runtime_classes: cluster.runtime_classes,
        leaving: provider.metadata.deletion_timestamp.is_some(),
    }
}

async fn apply(ctx: &Context, provider: &ComputeProvider, plan: &Plan) -> Result<(), Error> {
    for goal in &plan.goals {
        goals::ensure(ctx, provider.spec.account.as_str(), goal.clone(), None).await?;
    }
    Ok(())
}

/// Writes what changed, and returns the object as written.
async fn report(
    ctx: &Context,
    provider: &ComputeProvider,
    outcome: &Outcome<'_>,
    gateway: Result<(), String>,
) -> Result<Option<ComputeProvider>, Error> {
    let status = status::status(provider, outcome, Some(gateway), ctx.clock.now());
    if provider.status.as_ref() == Some(&status) {
        return Ok(None);
    }
    let api: Api<ComputeProvider> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let patch = serde_json::json!({ "status": status });
    let written = api.patch_status(&provider.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    written.map(Some).map_err(wrap)
}

/// While it has leases or bids, a deleted ComputeProvider waits for them; an
/// idle one goes at once, also together with its operator.
async fn hold(ctx: &Context, provider: &ComputeProvider, busy: bool) -> Result<(), Error> {
    let held = provider.finalizers().iter().any(|name| name == labels::LEASE_FINALIZER);
    let leaving = provider.meta().deletion_timestamp.is_some();
    if busy == held || (busy && leaving) {
        return Ok(());
    }
    let others = provider.finalizers().iter().filter(|name| *name != labels::LEASE_FINALIZER).cloned();
    let ours = busy.then(|| labels::LEASE_FINALIZER.to_owned());
    set_finalizers(ctx, provider, others.chain(ours).collect()).await
}

async fn set_finalizers(ctx: &Context, provider: &ComputeProvider, finalizers: Vec<String>) -> Result<(), Error> {
    let api: Api<ComputeProvider> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    // The version makes this a compare-and-swap: a list is replaced whole.
    let patch = serde_json::json!({
        "metadata": { "finalizers": finalizers, "resourceVersion": provider.resource_version() },
    });
    match api.patch(&provider.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        // The cache is behind: the next pass has the newer version.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(wrap(error)),
    }
}

fn wrap(error: kube::Error) -> Error {
    Error::Kube(Box::new(error))
}

fn on_error(provider: Arc<ComputeProvider>, error: &Error, _: Arc<Shared>) -> Action {
    tracing::warn!(provider = provider.name_any(), %error, "compute provider");
    Action::requeue(Duration::from_secs(5))
}

#[cfg(test)]
#[path = "tests/fixtures.rs"]
pub(crate) mod fixtures;
