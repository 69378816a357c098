use freehold_chain::view::Health;
use freehold_core::order::OrderSlot;
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{self, H100, NOW, OURS, RELEASE, gpu_node, id, leased, open, resources};
use crate::compute_provider::inventory;

fn limits() -> Limits {
    Limits {
        max_leases: 100,
        max_bids_per_tenant: 4,
        max_penalty: Amount(10_000_000),
        max_bond: Amount(100_000_000),
        validity: 60,
    }
}

fn two_h100() -> Capacity {
    let agent = gpu_node(vec![fixtures::device(0, H100), fixtures::device(1, H100)]);
    inventory::capacity(&[agent], &[fixtures::node(2)], &[], RELEASE, "nvidia.com/gpu")
}

/// A pass over `view` on two idle H100s, changed by `change`.
fn pass(view: &ChainView, change: impl FnOnce(&mut Sight<'_>)) -> Plan {
    pass_of(&fixtures::provider(), view, change)
}

fn pass_of(provider: &ComputeProviderSpec, view: &ChainView, change: impl FnOnce(&mut Sight<'_>)) -> Plan {
    let (limits, prices) = (limits(), PriceList::parse(&provider.pricing).unwrap());
    let mut sight = Sight {
        provider,
        limits: &limits,
        prices: &prices,
        view,
        capacity: two_h100(),
        leases: Vec::new(),
        asked: Vec::new(),
        runtime_classes: Vec::new(),
        leaving: false,
    };
    change(&mut sight);
    plan(sight)
}

fn names(plan: &Plan) -> Vec<(&'static str, B256)> {
    plan.goals.iter().map(|goal| (goal.name(), goal_order(goal).unwrap_or_default())).collect()
}

fn asked(goal: Goal, state: TransactionState) -> Asked {
    Asked { goal, state }
}

#[test]
fn two_devices_bid_on_two_of_three_orders() {
    let view = fixtures::view(vec![open(1, 1), open(2, 1), open(3, 1)]);
    let plan = pass(&view, |_| ());
    assert_eq!(names(&plan), [("bid", id(1)), ("bid", id(2))]);
    assert_eq!(plan.refused[&id(3)].reason, "NoCapacity");
    assert_eq!((plan.open_bids, plan.left.gpus()), (2, (0, 2)));
    let expected = Goal::Bid {
        order_id: id(1).to_string().into(),
        price: pricing::rate(412_400_000, 6).0.to_string(),
        valid_until: u32::try_from(NOW + 60).unwrap(),
    };
    assert_eq!(plan.goals[0], expected);
}

#[rstest]
#[case::pending(TransactionState::Pending)]
#[case::submitted(TransactionState::Submitted)]
#[case::mined(TransactionState::Mined)]
fn a_bid_on_its_way_holds_its_room_and_is_not_repeated(#[case] state: TransactionState) {
    let view = fixtures::view(vec![open(1, 1), open(2, 1), open(3, 1)]);
    let first = pass(&view, |_| ());
    let second = pass(&view, |sight| sight.asked = first.goals.iter().map(|g| asked(g.clone(), state)).collect());
    assert_eq!(second.goals, []);
    assert_eq!((second.open_bids, second.left.gpus()), (2, (0, 2)));
}

#[test]
fn a_bid_that_stands_holds_its_room() {
    let mut order = open(1, 2);
    order.bids.push(fixtures::bid(NOW + 60));
    let plan = pass(&fixtures::view(vec![order, open(2, 1)]), |_| ());
    assert_eq!(names(&plan), []);
    assert_eq!((plan.open_bids, plan.refused[&id(2)].reason), (1, "NoCapacity"));
}

#[test]
fn leases_hold_theirs_until_devices_show_it() {
    let view = fixtures::view(vec![leased(1, 1, OrderState::Awaiting), open(2, 2), open(3, 1)]);
    let promise = Promise::Anywhere { order: id(1), resources: resources(1) };
    let plan = pass(&view, |sight| sight.leases = vec![Lease { order: id(1), promise: Some(promise) }]);
    assert_eq!(names(&plan), [("bid", id(3))]);
    assert_eq!(plan.refused[&id(2)].reason, "NoCapacity");
}

#[test]
fn a_bid_without_room_is_taken_back_once() {
    let mut order = open(1, 1);
    order.bids.push(fixtures::bid(NOW + 60));
    let view = fixtures::view(vec![order]);
    let gone = |sight: &mut Sight<'_>| sight.capacity = Capacity::default();
    let plan = pass(&view, gone);
    assert_eq!(names(&plan), [("unbid", id(1))]);
    let again = pass(&view, |sight| {
        gone(sight);
        sight.asked = vec![asked(plan.goals[0].clone(), TransactionState::Pending)];
    });
    assert_eq!(names(&again), []);
}

#[rstest]
#[case::lapsed(OrderState::Open, B256::ZERO, NOW - 1, true)]
#[case::stands(OrderState::Open, B256::ZERO, NOW, false)]
#[case::lost(OrderState::Awaiting, B256::repeat_byte(9), NOW + 60, true)]
#[case::cancelled(OrderState::Cancelled, B256::ZERO, NOW + 60, true)]
#[case::won(OrderState::Awaiting, B256::repeat_byte(0xaa), NOW + 60, false)]
#[case::won_and_settled(OrderState::Accepted, B256::repeat_byte(0xaa), NOW - 60, false)]
fn bonds_of_lost_bids_come_home(
    #[case] state: OrderState,
    #[case] winner: B256,
    #[case] valid_until: u64,
    #[case] expected: bool,
) {
    let mut order = open(1, 1);
    order.slot = OrderSlot { state, provider: freehold_core::Address::from_word(winner), ..order.slot };
    order.bids.push(fixtures::bid(valid_until));
    // The bid's own goal is in the outbox, so the order is not bid on again.
    let bid = Goal::Bid { order_id: bytes32(&order.id), price: "1".into(), valid_until: 1 };
    let plan = pass(&fixtures::view(vec![order]), |sight| sight.asked = vec![asked(bid, TransactionState::Confirmed)]);
    let expected: &[_] = if expected { &[("reclaim", id(1))] } else { &[] };
    assert_eq!(names(&plan), expected);
}

#[test]
fn the_registry_follows_the_spec() {
    let mut moved = fixtures::provider();
    moved.attributes.insert("tier".into(), "gold".into());
    let plan = pass_of(&moved, &fixtures::view(vec![open(1, 1)]), |_| ());
    let register = Goal::Register {
        gateway: "https://gateway.example.org".into(),
        attributes: r#"{"region":"eu-west","tier":"gold"}"#.into(),
    };
    assert_eq!(plan.goals, [register]);
    assert_eq!(plan.refused[&id(1)].reason, "NotRegistered");
}

#[test]
fn a_provider_that_leaves_takes_its_bids_back() {
    let mut order = open(1, 1);
    order.bids.push(fixtures::bid(NOW + 60));
    let plan = pass(&fixtures::view(vec![order, open(2, 1)]), |sight| sight.leaving = true);
    assert_eq!(names(&plan), [("unbid", id(1))]);
}

#[test]
fn caps_hold_within_one_pass() {
    let orders = (1..=6).map(|byte| open(byte, 0)).collect();
    let plan = pass(&fixtures::view(orders), |_| ());
    assert_eq!(plan.goals.len(), 4, "maxBidsPerTenant");
    assert_eq!(plan.refused[&id(5)].reason, "TenantCap");
}

fn any_order() -> impl Strategy<Value = Order> {
    let state = prop_oneof![Just(OrderState::Open), Just(OrderState::Awaiting), Just(OrderState::Cancelled)];
    (1u8..40, 0u32..4, state, any::<bool>(), any::<bool>(), 0u64..120).prop_map(
        |(byte, gpus, state, ours, bid, until)| {
            let mut order = open(byte, gpus);
            order.slot.state = state;
            order.slot.provider = if ours { OURS } else { freehold_core::Address::ZERO };
            if bid {
                order.bids.push(fixtures::bid(NOW - 60 + until));
            }
            order
        },
    )
}

proptest! {
    #[test]
    fn asking_again_asks_for_nothing_new(orders in prop::collection::vec(any_order(), 0..12)) {
        let view = fixtures::view(orders);
        let first = pass(&view, |_| ());
        let second = pass(&view, |s| s.asked = first.goals.iter().map(|g| asked(g.clone(), TransactionState::Pending)).collect());
        prop_assert_eq!(second.goals, vec![]);
    }

    #[test]
    fn a_blind_operator_asks_for_nothing(orders in prop::collection::vec(any_order(), 0..12), leaving: bool) {
        let mut view = fixtures::view(orders);
        view.health = Health::Stale { head: 9 };
        view.providers.clear();
        let plan = pass(&view, |s| { s.leaving = leaving; s.capacity = Capacity::default(); });
        prop_assert_eq!(plan.goals, vec![]);
    }

    #[test]
    fn never_more_devices_than_there_are(orders in prop::collection::vec(any_order(), 0..12)) {
        let view = fixtures::view(orders);
        let plan = pass(&view, |_| ());
        let sold: u32 = plan.goals.iter().filter(|g| g.name() == "bid").map(|goal| {
            let order = view.order(&goal_order(goal).unwrap()).unwrap();
            OrderSpec::parse(&order.spec).unwrap().resources.gpu.map_or(0, |gpu| gpu.count)
        }).sum();
        prop_assert!(sold <= 2);
    }
}
