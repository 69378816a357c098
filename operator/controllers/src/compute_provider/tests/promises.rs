use freehold_api::lease::{ComputeLeaseSpec, ComputeLeaseStatus};
use freehold_core::B256;
use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{self, H100, gpu_node, held_by, id, leased, resources, view};

fn namespace() -> String {
    names::namespace(&id(1))
}

fn lease(order: B256, phase: LeasePhase) -> ComputeLease {
    let spec: ComputeLeaseSpec = serde_json::from_value(serde_json::json!({
        "orderId": order.to_string(), "tenant": "", "provider": "p", "providerAddress": "", "chainId": 1,
        "market": "", "rate": "1", "spec": "", "manifestSha256": "", "namespace": namespace(),
    }))
    .unwrap();
    let mut lease = ComputeLease::new("lease", spec);
    lease.status = Some(ComputeLeaseStatus { phase: Some(phase), ..ComputeLeaseStatus::default() });
    lease
}

fn promise_of(state: OrderState, phase: Option<LeasePhase>, gpu_nodes: &[GpuNode], pods: &[Pod]) -> Option<Promise> {
    let known: Vec<ComputeLease> = phase.map(|phase| lease(id(1), phase)).into_iter().collect();
    let mut leases = leases(&view(vec![leased(1, 1, state)]), &known, gpu_nodes, pods);
    assert_eq!(leases.len(), 1);
    leases.remove(0).promise
}

fn whole() -> Option<Promise> {
    Some(Promise::Anywhere { order: id(1), resources: resources(1) })
}

#[rstest]
#[case(OrderState::Awaiting, None, whole())]
#[case(OrderState::Awaiting, Some(LeasePhase::AwaitingInputs), whole())]
#[case(OrderState::Running, Some(LeasePhase::Running), whole())]
#[case(OrderState::Running, Some(LeasePhase::Finished), None)]
#[case(OrderState::Awaiting, Some(LeasePhase::Failed), None)]
#[case(OrderState::Delivered, Some(LeasePhase::Delivered), None)]
fn a_lease_without_a_pod_needs_all_of_it_until_its_work_ended(
    #[case] state: OrderState,
    #[case] phase: Option<LeasePhase>,
    #[case] expected: Option<Promise>,
) {
    assert_eq!(promise_of(state, phase, &[], &[]), expected);
}

#[test]
fn what_pod_and_devices_show_is_not_promised_twice() {
    let pods = [fixtures::pod(&namespace(), Some("node-a"), "1", 1)];
    let placed = promise_of(OrderState::Awaiting, Some(LeasePhase::Starting), &[], &pods);
    assert_eq!(placed, Some(Promise::Devices { node: "node-a".into(), slot: Slot::default(), count: 1 }));
    let agent = gpu_node(vec![held_by(fixtures::device(0, H100), &namespace())]);
    assert_eq!(promise_of(OrderState::Running, Some(LeasePhase::Running), &[agent], &pods), None);
    let unplaced = [fixtures::pod(&namespace(), None, "1", 1)];
    assert_eq!(promise_of(OrderState::Awaiting, Some(LeasePhase::Starting), &[], &unplaced), whole());
}

#[test]
fn leases_of_others_and_settled_ones_promise_nothing() {
    let mut other = leased(1, 1, OrderState::Running);
    other.slot.provider = fixtures::TENANT;
    let settled = leased(2, 1, OrderState::Closed);
    assert!(leases(&view(vec![other, settled, fixtures::open(3, 1)]), &[], &[], &[]).is_empty());
}
