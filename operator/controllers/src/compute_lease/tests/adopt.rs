use freehold_chain::view::Health;
use freehold_core::order::OrderState;
use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{self, RELEASE, id, leased, view};

fn made(view: &ChainView, known: &str) -> Vec<ComputeLease> {
    let provider = ComputeProvider::new("digits-and-co", fixtures::provider());
    missing(view, &provider, "freehold-provider", RELEASE, |name| name == known)
}

#[test]
fn an_accepted_bid_becomes_a_lease() {
    let leases = made(&view(vec![leased(0xab, 1, OrderState::Awaiting)]), "");
    insta::assert_yaml_snapshot!("lease", leases);
}

#[rstest]
#[case(OrderState::Open, 0)]
#[case(OrderState::Awaiting, 1)]
#[case(OrderState::Running, 1)]
#[case(OrderState::Delivered, 1)]
#[case(OrderState::Closed, 0)]
fn only_live_orders_have_one(#[case] state: OrderState, #[case] count: usize) {
    assert_eq!(made(&view(vec![leased(1, 1, state)]), "").len(), count);
}

#[test]
fn known_leases_leases_of_others_and_blindness_make_none() {
    let ours = leased(1, 1, OrderState::Running);
    assert_eq!(made(&view(vec![ours.clone()]), &names::lease(&id(1))).len(), 0);
    let mut other = ours.clone();
    other.slot.provider = fixtures::TENANT;
    assert_eq!(made(&view(vec![other]), "").len(), 0);
    let mut blind = view(vec![ours]);
    blind.health = Health::Starting;
    assert_eq!(made(&blind, "").len(), 0);
}
