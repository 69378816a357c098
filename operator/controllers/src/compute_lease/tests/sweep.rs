use freehold_api::conditions::{self, Claim};
use freehold_api::lease::{ComputeLeaseSpec, ComputeLeaseStatus};
use freehold_chain::view::Health;
use freehold_core::order::OrderState;
use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{id, leased, view};

fn namespace(order: &B256) -> Namespace {
    serde_json::from_value(serde_json::json!({ "metadata": {
        "name": names::namespace(order),
        "labels": { "freehold.dev/account": "provider" },
        "annotations": { "freehold.dev/order-id": order.to_string() },
    } }))
    .unwrap()
}

fn swept(view: ChainView, namespaces: &[Namespace], lease: Option<B256>) -> usize {
    let view = Arc::new(view);
    let of = |account: &str| (account == "provider").then(|| view.clone());
    orphans(namespaces, of, |name| lease.is_some_and(|order| names::lease(&order) == name)).len()
}

#[rstest]
#[case::live(OrderState::Running, 0)]
#[case::delivered(OrderState::Delivered, 0)]
#[case::over(OrderState::Closed, 1)]
fn what_is_over_is_swept(#[case] state: OrderState, #[case] expected: usize) {
    assert_eq!(swept(view(vec![leased(1, 1, state)]), &[namespace(&id(1))], None), expected);
}

#[test]
fn unknown_orders_are_swept_but_not_blindly_nor_under_a_lease() {
    let orphan = [namespace(&id(1))];
    assert_eq!(swept(view(vec![]), &orphan, None), 1);
    assert_eq!(swept(view(vec![]), &orphan, Some(id(1))), 0, "its ComputeLease looks after it");
    let mut blind = view(vec![]);
    blind.health = Health::Stale { head: 1 };
    assert_eq!(swept(blind, &orphan, None), 0);
    let mut confirmed_live = view(vec![leased(1, 1, OrderState::Running)]);
    confirmed_live.latest.orders.clear();
    assert_eq!(swept(confirmed_live, &orphan, None), 0, "not at confirmed depth");
}

#[test]
fn what_is_not_surely_ours_stays() {
    let mut foreign = namespace(&id(1));
    foreign.labels_mut().insert(labels::ACCOUNT.into(), "other".into());
    let mut nameless = namespace(&id(2));
    nameless.annotations_mut().clear();
    let mut elsewhere = namespace(&id(3));
    elsewhere.metadata.name = Some("kube-system".into());
    assert_eq!(swept(view(vec![]), &[foreign, nameless, elsewhere], None), 0);
}

fn done(name: &str, at: i64) -> Arc<ComputeLease> {
    let spec: ComputeLeaseSpec = serde_json::from_value(serde_json::json!({
        "orderId": "", "tenant": "", "provider": "p", "providerAddress": "", "chainId": 1, "market": "", "rate": "1",
        "spec": "", "manifestSha256": "", "namespace": "n",
    }))
    .unwrap();
    let mut lease = ComputeLease::new(name, spec);
    let mut status = ComputeLeaseStatus::default();
    let at = Timestamp::from_second(at).unwrap();
    conditions::set(&mut status.conditions, Claim::yes(types::CLEANED_UP, "Gone", ""), None, at);
    lease.status = Some(status);
    Arc::new(lease)
}

#[test]
fn ended_leases_are_kept_for_a_day_and_no_more_than_two_hundred() {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let day = KEPT_SECONDS;
    assert_eq!(expired(&[done("old", 1_000_000 - day - 1), done("young", 1_000_000 - day)], now), ["old"]);
    let many: Vec<_> = (0..202).map(|n| done(&format!("lease-{n:03}"), 999_000 + n)).collect();
    assert_eq!(expired(&many, now), ["lease-000", "lease-001"]);
}
