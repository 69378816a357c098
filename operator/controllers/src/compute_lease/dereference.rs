//! Everything that one pass over a lease looks at. Reads the cluster and the
//! gateway, writes nothing.

use std::sync::Arc;

use freehold_api::conditions::{self, types};
use freehold_api::{ChainTransaction, ComputeLease, ComputeProvider, GpuNode, labels};
use freehold_chain::view::ChainView;
use freehold_core::B256;
use freehold_core::spec::{OrderSpec, SpecGpu, SpecResources};
use freehold_core::wire::WorkReport;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::build::JOB;
use super::devices::{self, Devices};
use super::facts::{Chain, Facts, JobFact, PodFact};
use super::gateway::WorkStore;
use super::observe;
use super::validate::{self, Work};
use crate::compute_provider::{self, inventory::Placement};
use crate::context::Context;
use crate::goals;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {what}: {source}")]
    Kube { what: &'static str, source: Box<kube::Error> },
    #[error(transparent)]
    Cluster(#[from] compute_provider::DereferenceError),
    #[error("spec.orderId `{0}` is not an order's id; delete the ComputeLease")]
    OrderId(String),
    #[error("account {0} has not been read from the chain yet")]
    NoView(String),
    #[error("spec.spec: {0}")]
    Spec(#[from] freehold_core::spec::Error),
}

/// What the effects of a pass need beside the facts.
#[derive(Clone, Debug)]
pub struct Observed {
    pub facts: Facts,
    pub account: String,
    pub view: Arc<ChainView>,
    pub report: Option<WorkReport>,
    pub work: Option<Work>,
    pub room: Option<Room>,
    pub namespace: Option<Namespace>,
    pub pods: Vec<Pod>,
}

/// Where the work goes, and where it may go after a loss.
#[derive(Clone, Debug)]
pub struct Room {
    pub placement: Placement,
    pub nodes: Vec<String>,
}

pub async fn dereference(ctx: &Context, store: &dyn WorkStore, lease: &ComputeLease) -> Result<Observed, Error> {
    let order: B256 =
        lease.spec.order_id.as_str().parse().map_err(|_| Error::OrderId(lease.spec.order_id.0.clone()))?;
    let account = account(ctx, lease).await?;
    let view = ctx.views.get(&account).ok_or_else(|| Error::NoView(account.clone()))?;
    let resources = OrderSpec::parse(lease.spec.spec.as_bytes())?.resources;
    let latest = observe::chain(&view, &view.latest, &order);
    let cluster = Cluster::read(ctx, lease).await?;
    let gone = matches!(latest, Chain::NotOurs | Chain::Settled(_));
    let report =
        if gone { Err("the lease is over".to_owned()) } else { store.report(&order).await.map_err(|e| e.to_string()) };
    let (work, verdict) = match &report {
        Ok(report) if report.manifest_held && cluster.job.is_none() => manifest(ctx, store, lease, &order).await?,
        _ => (None, None),
    };
    let room = match &work {
        Some(_) => room(ctx, &view, &order, &resources).await?,
        None => None,
    };
    let seen = cluster.seen(ctx, lease, resources.gpu.as_ref());
    let facts = Facts {
        order,
        now: view.latest.block.timestamp,
        margin: observe::margin(&view),
        blind: (!view.health.allows_action()).then(|| view.health.explain().1),
        latest,
        confirmed: observe::chain(&view, &view.confirmed, &order),
        caught_up: observe::caught_up(&view, lease),
        handover: observe::handover(&report, verdict),
        has_room: room.is_some(),
        space: observe::space(cluster.namespace.as_ref()),
        job: seen.job,
        pod: seen.pod,
        pods_active: seen.pods_active,
        devices: seen.devices,
        result: report.as_ref().ok().and_then(result),
        asked: observe::asked(&asked(ctx, &order).await?),
        said_running: lease
            .status
            .as_ref()
            .is_some_and(|status| conditions::is_true(&status.conditions, types::RUNNING)),
        evicted: lease.annotations().contains_key(labels::EVICT_ANNOTATION),
        phase: lease.status.as_ref().and_then(|status| status.phase).unwrap_or_default(),
        exit: lease.status.as_ref().and_then(|status| status.exit.clone()),
    };
    Ok(Observed {
        facts,
        account,
        view,
        report: report.ok(),
        work,
        room,
        namespace: cluster.namespace,
        pods: cluster.pods,
    })
}

fn result(report: &WorkReport) -> Option<B256> {
    freehold_core::canonical::b256_of_hex(report.result.as_deref()?)
}

/// The label outlives the ComputeProvider.
async fn account(ctx: &Context, lease: &ComputeLease) -> Result<String, Error> {
    if let Some(account) = lease.labels().get(labels::ACCOUNT) {
        return Ok(account.clone());
    }
    let api: Api<ComputeProvider> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let provider = api.get(lease.spec.provider.as_str()).await.map_err(kube("the ComputeProvider"))?;
    Ok(provider.spec.account.0)
}

fn kube(what: &'static str) -> impl Fn(kube::Error) -> Error {
    move |source| Error::Kube { what, source: Box::new(source) }
}

async fn manifest(
    ctx: &Context,
    store: &dyn WorkStore,
    lease: &ComputeLease,
    order: &B256,
) -> Result<(Option<Work>, Option<Result<(), String>>), Error> {
    // Not reading it now is no verdict on it.
    let Ok(bytes) = store.manifest(order).await else { return Ok((None, None)) };
    let classes = compute_provider::runtime_classes(&ctx.client).await?;
    Ok(match validate::validate(&lease.spec, &bytes, &classes) {
        Ok(work) => (Some(work), Some(Ok(()))),
        Err(error) => (None, Some(Err(error.to_string()))),
    })
}

/// Room for this lease beside what others were promised.
async fn room(ctx: &Context, view: &ChainView, order: &B256, resources: &SpecResources) -> Result<Option<Room>, Error> {
    let api: Api<ComputeLease> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let leases = api.list(&ListParams::default()).await.map_err(kube("ComputeLeases"))?.items;
    let cluster = compute_provider::cluster(&ctx.client, true).await?;
    let mut capacity = cluster.capacity(&ctx.settings);
    capacity.keep(&cluster.promises(view, &leases, order));
    Ok(capacity.find(resources).map(|placement| Room { nodes: capacity.could_run(resources), placement }))
}

async fn asked(ctx: &Context, order: &B256) -> Result<Vec<ChainTransaction>, Error> {
    let api: Api<ChainTransaction> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let label = format!("{}={}", labels::ORDER, goals::order_label(&order.to_string()));
    Ok(api.list(&ListParams::default().labels(&label)).await.map_err(kube("ChainTransactions"))?.items)
}

/// The objects of one lease.
struct Cluster {
    namespace: Option<Namespace>,
    job: Option<Job>,
    pods: Vec<Pod>,
    node: Option<Node>,
    gpu_nodes: Vec<GpuNode>,
}

impl Cluster {
    async fn read(ctx: &Context, lease: &ComputeLease) -> Result<Self, Error> {
        let client = || ctx.client.clone();
        let name = lease.spec.namespace.as_str();
        let namespace = Api::<Namespace>::all(client()).get_opt(name).await.map_err(kube("the lease's namespace"))?;
        if namespace.is_none() {
            return Ok(Self { namespace, job: None, pods: Vec::new(), node: None, gpu_nodes: Vec::new() });
        }
        let job = Api::<Job>::namespaced(client(), name).get_opt(JOB).await.map_err(kube("the Job"))?;
        let all = ListParams::default();
        let pods = Api::<Pod>::namespaced(client(), name).list(&all).await.map_err(kube("the lease's pods"))?.items;
        let gpu_nodes = Api::<GpuNode>::all(client()).list(&all).await.map_err(kube("GpuNodes"))?.items;
        let placed = observe::newest(&pods, None).and_then(observe::node_of);
        let node = match placed {
            Some(node) => Api::<Node>::all(client()).get_opt(&node).await.map_err(kube("the pod's node"))?,
            None => None,
        };
        Ok(Self { namespace, job, pods, node, gpu_nodes })
    }

    fn seen(&self, ctx: &Context, lease: &ComputeLease, gpu: Option<&SpecGpu>) -> Seen {
        let job = self.job.as_ref().map(observe::job);
        let newest = observe::newest(&self.pods, job.as_ref());
        let known = lease.status.as_ref().map_or(&[][..], |status| &status.gpus);
        Seen {
            pod: newest.map(|pod| observe::pod(pod, self.node.as_ref(), ctx.clock.now())),
            job,
            pods_active: self.pods.iter().any(|pod| !compute_provider::inventory::is_over(pod)),
            devices: devices::judge(gpu, lease.spec.namespace.as_str(), known, &self.gpu_nodes),
        }
    }
}

/// What the objects say.
struct Seen {
    job: Option<JobFact>,
    pod: Option<PodFact>,
    pods_active: bool,
    devices: Devices,
}
