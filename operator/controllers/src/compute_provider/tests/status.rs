use freehold_api::provider::ComputeProviderSpec;
use freehold_chain::view::Health;
use freehold_core::order::OrderState;
use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{self, H100, RELEASE, gpu_node, id, leased, view};
use crate::compute_provider::inventory::{self, Capacity};

fn object(change: impl FnOnce(&mut ComputeProviderSpec)) -> ComputeProvider {
    let mut spec = fixtures::provider();
    change(&mut spec);
    ComputeProvider::new("digits-and-co", spec)
}

fn capacity(free: bool) -> Capacity {
    let device = fixtures::device(0, H100);
    let device = if free { device } else { fixtures::held_by(device, "fh-lease-1") };
    inventory::capacity(&[gpu_node(vec![device])], &[fixtures::node(1)], &[], RELEASE, "nvidia.com/gpu")
}

fn said(provider: &ComputeProvider, view: &ChainView, left: Capacity) -> (String, String) {
    let plan = Plan { left, ..Plan::default() };
    let outcome = Outcome::Planned { view, plan: &plan, leases: 0 };
    let status = status(provider, &outcome, None, Timestamp::UNIX_EPOCH);
    let bidding = conditions::find(&status.conditions, types::BIDDING).unwrap();
    (bidding.status.clone(), bidding.reason.clone())
}

#[rstest]
#[case::ready(|_: &mut ChainView| (), |_: &mut ComputeProviderSpec| (), capacity(true), "True", "Ready")]
#[case::blind(|v: &mut ChainView| v.health = Health::Stale { head: 1 }, |_: &mut ComputeProviderSpec| (), capacity(true), "False", "Blind")]
#[case::cordoned(|_: &mut ChainView| (), |s: &mut ComputeProviderSpec| s.cordoned = true, capacity(true), "False", "Cordoned")]
#[case::unregistered(|v: &mut ChainView| v.providers.clear(), |_: &mut ComputeProviderSpec| (), capacity(true), "False", "NotRegistered")]
#[case::full(|_: &mut ChainView| (), |_: &mut ComputeProviderSpec| (), capacity(false), "False", "NoCapacity")]
#[case::no_gpus(|_: &mut ChainView| (), |_: &mut ComputeProviderSpec| (), Capacity::default(), "False", "NoCapacity")]
fn whether_it_bids(
    #[case] chain: fn(&mut ChainView),
    #[case] spec: fn(&mut ComputeProviderSpec),
    #[case] left: Capacity,
    #[case] status: &str,
    #[case] reason: &str,
) {
    let mut view = view(Vec::new());
    chain(&mut view);
    assert_eq!(said(&object(spec), &view, left), (status.to_owned(), reason.to_owned()));
}

#[test]
fn every_column_is_filled() {
    let mut paid = leased(1, 1, OrderState::Accepted);
    paid.slot.paid = Amount(1_250_000);
    let view = view(vec![paid, leased(2, 1, OrderState::Running)]);
    let plan = Plan { left: capacity(false), open_bids: 3, ..Plan::default() };
    let outcome = Outcome::Planned { view: &view, plan: &plan, leases: 1 };
    let out = status(&object(|_| ()), &outcome, Some(Err("refused".into())), Timestamp::UNIX_EPOCH);
    let text = |text: Option<freehold_api::scalars::Text>| text.unwrap().0;
    assert_eq!(out.address.unwrap().as_str(), view.account.to_string());
    assert_eq!((out.nodes, text(out.gpus), out.leases, out.open_bids), (Some(1), "0/1".into(), Some(1), Some(3)));
    assert_eq!((text(out.earned), text(out.unclaimed)), ("1.25".into(), "1".into()));
    let reachable = conditions::find(&out.conditions, types::GATEWAY_REACHABLE).unwrap();
    assert!(reachable.status == "False" && reachable.message.contains("refused"), "{}", reachable.message);
}

#[test]
fn what_is_passed_over_is_counted_by_reason() {
    let refusal = |reason| Refusal { reason, message: "no node has room".into() };
    let refused =
        BTreeMap::from([(id(1), refusal("NoCapacity")), (id(2), refusal("NoCapacity")), (id(3), refusal("TenantCap"))]);
    let message = ready(&refused);
    assert!(message.contains("2 NoCapacity, 1 TenantCap") && message.contains(&id(1).to_string()), "{message}");
}
