//! Leases that the chain has and the cluster has not: a ComputeLease is made
//! for each, and made again if someone deletes it. Pure.

use std::collections::BTreeMap;

use freehold_api::lease::{ComputeLease, ComputeLeaseSpec, LeaseInput};
use freehold_api::{ComputeProvider, labels};
use freehold_chain::view::ChainView;
use freehold_core::order::Order;
use freehold_core::spec::OrderSpec;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::names;
use crate::goals;

/// Names of ComputeLeases that exist, deleted ones included.
pub fn missing(
    view: &ChainView,
    provider: &ComputeProvider,
    namespace: &str,
    release: &str,
    exists: impl Fn(&str) -> bool,
) -> Vec<ComputeLease> {
    if !view.health.allows_action() {
        return Vec::new();
    }
    let orders = view.latest.orders.values();
    let live = orders.filter(|order| order.slot.provider == view.account && order.slot.state.is_leased());
    let unknown = live.filter(|order| !exists(&names::lease(&order.id)));
    unknown.filter_map(|order| lease(view, provider, namespace, release, order)).collect()
}

/// None if the order's spec cannot be read: then no bid of ours was on it.
fn lease(
    view: &ChainView,
    provider: &ComputeProvider,
    namespace: &str,
    release: &str,
    order: &Order,
) -> Option<ComputeLease> {
    let spec = OrderSpec::parse(&order.spec).ok()?;
    let inputs = spec.inputs.into_iter().map(|input| LeaseInput {
        name: input.name,
        sha256: input.sha256.into(),
        size: input.size,
    });
    let id = order.id.to_string();
    let label = |name: &str, value: String| (name.to_owned(), value);
    Some(ComputeLease {
        metadata: ObjectMeta {
            name: Some(names::lease(&order.id)),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([
                label(labels::ORDER, goals::order_label(&id)),
                label(labels::ACCOUNT, provider.spec.account.0.clone()),
                label(labels::RELEASE, release.to_owned()),
            ])),
            annotations: Some(BTreeMap::from([label(labels::SEEN_ANNOTATION, view.latest.block.number.to_string())])),
            finalizers: Some(vec![labels::LEASE_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: ComputeLeaseSpec {
            order_id: id.into(),
            tenant: order.slot.tenant.to_string().into(),
            provider: provider.name_any().into(),
            provider_address: view.account.to_string().into(),
            chain_id: view.chain_id,
            market: view.market.to_string().into(),
            rate: order.slot.price.to_string(),
            spec: String::from_utf8(order.spec.clone()).ok()?,
            manifest_sha256: spec.manifest.into(),
            inputs: inputs.collect(),
            namespace: names::namespace(&order.id).into(),
        },
        status: None,
    })
}

#[cfg(test)]
#[path = "tests/adopt.rs"]
mod tests;
