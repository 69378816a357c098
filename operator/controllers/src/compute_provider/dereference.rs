//! Everything that one pass looks at. The only file here that reads the cluster.

use std::sync::Arc;

use freehold_api::{ChainTransaction, ComputeLease, ComputeProvider, GpuNode, labels};
use freehold_chain::view::ChainView;
use freehold_core::B256;
use freehold_core::order::OrderState;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::inventory::{self, Capacity, Promise};
use super::plan::{Asked, Lease};
use super::promises;
use crate::context::{Context, Settings};
use crate::goals;

#[derive(Debug, thiserror::Error)]
#[error("cannot list {what}: {source}")]
pub struct Error {
    what: &'static str,
    source: Box<kube::Error>,
}

#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// None until the account's controller has read the chain for the first time.
    pub view: Option<Arc<ChainView>>,
    pub leases: Vec<ComputeLease>,
    pub asked: Vec<Asked>,
    pub cluster: Cluster,
}

/// What GPU nodes offer, and what runs on them.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub gpu_nodes: Vec<GpuNode>,
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
    pub runtime_classes: Vec<String>,
}

pub async fn dereference(ctx: &Context, provider: &ComputeProvider) -> Result<Observed, Error> {
    let client = || ctx.client.clone();
    let account = provider.spec.account.as_str();
    let namespace = &ctx.settings.namespace;
    let view = ctx.views.get(account);
    let of_account = ListParams::default().labels(&format!("{}={account}", labels::ACCOUNT));
    let transactions: Api<ChainTransaction> = Api::namespaced(client(), namespace);
    let leases: Api<ComputeLease> = Api::namespaced(client(), namespace);
    let name = provider.name_any();
    Ok(Observed {
        leases: list("ComputeLeases", &leases, &ListParams::default())
            .await?
            .into_iter()
            .filter(|lease| lease.spec.provider.as_str() == name)
            .collect(),
        asked: asked(list("ChainTransactions", &transactions, &of_account).await?),
        cluster: cluster(&ctx.client, view.as_deref().is_some_and(has_work)).await?,
        view,
    })
}

/// Something could be bid on, or runs already: only then are pods worth listing.
fn has_work(view: &ChainView) -> bool {
    view.latest.orders.values().any(|order| {
        let open = order.slot.state == OrderState::Open && order.slot.tenant != view.account;
        open || (order.slot.provider == view.account && order.slot.state.is_leased())
    })
}

fn asked(entries: Vec<ChainTransaction>) -> Vec<Asked> {
    entries.into_iter().map(|entry| Asked { state: goals::state(&entry), goal: entry.spec.goal }).collect()
}

/// GPU nodes always; their pods, and what classes there are, where `fully`.
pub async fn cluster(client: &Client, fully: bool) -> Result<Cluster, Error> {
    let all = ListParams::default();
    let gpu_nodes = list("GpuNodes", &Api::<GpuNode>::all(client.clone()), &all).await?;
    let nodes = list("Nodes", &Api::<Node>::all(client.clone()), &all).await?;
    if !fully {
        return Ok(Cluster { gpu_nodes, nodes, ..Cluster::default() });
    }
    let running = all.clone().fields("status.phase!=Succeeded,status.phase!=Failed,spec.nodeName!=");
    let pods = list("pods", &Api::<Pod>::all(client.clone()), &running).await?;
    Ok(Cluster { gpu_nodes, nodes, pods, runtime_classes: runtime_classes(client).await? })
}

pub async fn runtime_classes(client: &Client) -> Result<Vec<String>, Error> {
    let classes = list("RuntimeClasses", &Api::<RuntimeClass>::all(client.clone()), &ListParams::default()).await?;
    Ok(classes.iter().map(ResourceExt::name_any).collect())
}

impl Cluster {
    pub fn capacity(&self, settings: &Settings) -> Capacity {
        inventory::capacity(&self.gpu_nodes, &self.nodes, &self.pods, &settings.release, &settings.gpu_resource)
    }

    pub fn leases(&self, view: &ChainView, known: &[ComputeLease]) -> Vec<Lease> {
        promises::leases(view, known, &self.gpu_nodes, &self.pods)
    }

    /// What leases other than `order` still have coming to them.
    pub fn promises(&self, view: &ChainView, known: &[ComputeLease], order: &B256) -> Vec<Promise> {
        let others = self.leases(view, known).into_iter().filter(|lease| lease.order != *order);
        others.filter_map(|lease| lease.promise).collect()
    }
}

async fn list<K>(what: &'static str, api: &Api<K>, params: &ListParams) -> Result<Vec<K>, Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let listed = api.list(params).await.map_err(|source| Error { what, source: Box::new(source) })?;
    Ok(listed.items)
}
