//! What live leases still have coming to them: capacity that was sold, and
//! that no pod or device shows yet. Pure.

use std::collections::BTreeMap;

use freehold_api::lease::LeasePhase;
use freehold_api::{ComputeLease, GpuNode};
use freehold_chain::view::ChainView;
use freehold_core::order::{Order, OrderState};
use freehold_core::spec::OrderSpec;
use k8s_openapi::api::core::v1::Pod;

use super::inventory::{Promise, Slot, is_over};
use super::plan::Lease;
use crate::compute_lease::names;

/// One entry a lease that the chain says is ours, with or without a ComputeLease.
pub fn leases(view: &ChainView, known: &[ComputeLease], gpu_nodes: &[GpuNode], pods: &[Pod]) -> Vec<Lease> {
    let phases: BTreeMap<&str, LeasePhase> =
        known.iter().map(|lease| (lease.spec.order_id.as_str(), phase(lease))).collect();
    let live = view.latest.orders.values();
    let live = live.filter(|order| order.slot.provider == view.account && order.slot.state.is_leased());
    live.map(|order| {
        let phase = phases.get(order.id.to_string().as_str()).copied().unwrap_or_default();
        Lease { order: order.id, promise: promise(order, phase, gpu_nodes, pods) }
    })
    .collect()
}

fn phase(lease: &ComputeLease) -> LeasePhase {
    lease.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
}

fn promise(order: &Order, phase: LeasePhase, gpu_nodes: &[GpuNode], pods: &[Pod]) -> Option<Promise> {
    let resources = OrderSpec::parse(&order.spec).ok()?.resources;
    let namespace = names::namespace(&order.id);
    match placed_on(&namespace, pods) {
        Some(node) => {
            let gpu = resources.gpu?;
            let count = gpu.count.saturating_sub(held(&namespace, gpu_nodes));
            let slot = Slot::of(gpu.mig_profile.as_deref());
            (count > 0).then_some(Promise::Devices { node, slot, count })
        }
        None if has_ended(order.slot.state, phase) => None,
        None => Some(Promise::Anywhere { order: order.id, resources }),
    }
}

fn has_ended(state: OrderState, phase: LeasePhase) -> bool {
    use LeasePhase::{AwaitingInputs, Closed, Delivered, Failed, Finished, Running, Starting};
    state == OrderState::Delivered
        || match phase {
            AwaitingInputs | Starting | Running => false,
            Finished | Delivered | Failed | Closed => true,
        }
}

fn placed_on(namespace: &str, pods: &[Pod]) -> Option<String> {
    let ours = pods.iter().filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace) && !is_over(pod));
    ours.filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).next()
}

fn held(namespace: &str, gpu_nodes: &[GpuNode]) -> u32 {
    let devices = gpu_nodes.iter().filter_map(|node| node.status.as_ref()).flat_map(|status| &status.devices);
    let held = devices.filter(|device| device.pod.as_ref().is_some_and(|pod| pod.namespace == namespace));
    u32::try_from(held.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "tests/promises.rs"]
mod tests;
