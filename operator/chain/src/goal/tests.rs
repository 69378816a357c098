use std::sync::Arc;

use alloy::primitives::Uint;
use freehold_core::order::{Bid, OrderSlot, Terms};

use super::*;
use crate::view::Block;

const TENANT: Address = Address::repeat_byte(1);
const PROVIDER: Address = Address::repeat_byte(2);
const ID: B256 = B256::repeat_byte(9);
const NOW: u64 = 1_000;

fn terms(bid_by: u64) -> Terms {
    Terms {
        token: Address::ZERO,
        maxPrice: 100,
        auditReserve: 0,
        bond: 10,
        noShowPenalty: 2,
        bidBy: Uint::from(bid_by),
        startWindow: Uint::from(300u64),
        duration: Uint::from(3600u64),
        window: Uint::from(600u64),
        holdbackBps: 2000,
        class: 0,
        specHash: B256::ZERO,
        rulesHash: B256::ZERO,
        origin: B256::ZERO,
    }
}

fn order(state: OrderState, deadline: u64) -> Order {
    let slot = OrderSlot { state, tenant: TENANT, deadline, ..OrderSlot::default() };
    Order {
        id: ID,
        salt: B256::ZERO,
        terms: terms(deadline),
        spec: vec![],
        slot,
        bids: vec![],
        result_hash: None,
        split: None,
    }
}

fn leased(state: OrderState, deadline: u64) -> Order {
    let mut order = order(state, deadline);
    order.slot.provider = PROVIDER;
    order.slot.started_at = if state > OrderState::Awaiting { 900 } else { 0 };
    order
}

fn view_of(account: Address, order: Option<Order>) -> ChainView {
    let block = Block { number: 50, hash: B256::repeat_byte(5), timestamp: NOW };
    let orders = order.into_iter().map(|order| (order.id, Arc::new(order))).collect();
    let snapshot = Snapshot { block, orders };
    ChainView { account, decimals: 6, latest: snapshot.clone(), confirmed: snapshot, ..ChainView::default() }
}

fn id() -> freehold_api::scalars::Bytes32 {
    ID.to_string().into()
}

fn verdict(goal: &Goal, account: Address, order: Option<Order>) -> Standing {
    let stored = StoredOrder { terms: terms(2_000), salt: B256::ZERO, spec: vec![] };
    status_of(goal, &view_of(account, order), Some(&stored)).expect("well-formed goal").verdict()
}

fn is_reached(standing: &Standing) -> bool {
    matches!(standing, Reached(_))
}

fn is_never(standing: &Standing) -> bool {
    matches!(standing, Impossible(_))
}

fn waits(standing: &Standing) -> bool {
    matches!(standing, NotYet(_))
}

#[test]
fn an_order_is_placed_once() {
    let goal = Goal::PlaceOrder { order_id: id(), order: "order-9".into() };
    assert_eq!(verdict(&goal, TENANT, None), Possible);
    assert!(is_reached(&verdict(&goal, TENANT, Some(order(OrderState::Open, 2_000)))));
    let mut other = order(OrderState::Open, 2_000);
    other.terms.maxPrice = 5;
    assert!(is_never(&verdict(&goal, TENANT, Some(other))));
}

#[test]
fn an_order_whose_time_for_bids_is_over_is_not_placed() {
    let goal = Goal::PlaceOrder { order_id: id(), order: "order-9".into() };
    let stored = StoredOrder { terms: terms(NOW), salt: B256::ZERO, spec: vec![] };
    let status = status_of(&goal, &view_of(TENANT, None), Some(&stored)).expect("well-formed");
    assert!(is_never(&status.verdict()));
}

#[test]
fn a_bid_is_accepted_as_it_was_seen_or_not_at_all() {
    let goal = Goal::AcceptBid {
        order_id: id(),
        provider: PROVIDER.to_string().into(),
        price: "7".into(),
        valid_until: 1_500,
    };
    let with = |price, valid_until| {
        let mut order = order(OrderState::Open, 2_000);
        order.bids.push(Bid { provider: PROVIDER, price, bond: Amount(10), valid_until });
        Some(order)
    };
    assert_eq!(verdict(&goal, TENANT, with(7, 1_500)), Possible);
    assert!(is_never(&verdict(&goal, TENANT, with(8, 1_500))));
    assert!(is_reached(&verdict(&goal, TENANT, Some(leased(OrderState::Running, 2_000)))));
    assert!(is_never(&verdict(&goal, TENANT, Some(order(OrderState::Cancelled, 0)))));
    assert!(waits(&verdict(&goal, TENANT, None)));
}

#[test]
fn a_no_show_needs_the_deadline() {
    let goal = Goal::NoShow { order_id: id() };
    assert!(waits(&verdict(&goal, TENANT, Some(leased(OrderState::Awaiting, NOW)))));
    assert_eq!(verdict(&goal, TENANT, Some(leased(OrderState::Awaiting, NOW - 1))), Possible);
    assert!(is_never(&verdict(&goal, TENANT, Some(leased(OrderState::Running, 2_000)))));
}

#[test]
fn only_the_provider_starts_and_in_time() {
    let goal = Goal::Start { order_id: id() };
    assert_eq!(verdict(&goal, PROVIDER, Some(leased(OrderState::Awaiting, NOW))), Possible);
    assert!(is_never(&verdict(&goal, PROVIDER, Some(leased(OrderState::Awaiting, NOW - 1)))));
    assert!(is_never(&verdict(&goal, TENANT, Some(leased(OrderState::Awaiting, NOW)))));
    assert!(is_reached(&verdict(&goal, PROVIDER, Some(leased(OrderState::Running, 2_000)))));
}

#[test]
fn a_result_is_judged_as_delivered() {
    let hash = B256::repeat_byte(3);
    let accept = Goal::AcceptResult { order_id: id(), result_hash: hash.to_string().into() };
    let reject = Goal::RejectResult { order_id: id(), result_hash: hash.to_string().into() };
    let delivered = |result, deadline| {
        let mut order = leased(OrderState::Delivered, deadline);
        order.result_hash = Some(result);
        Some(order)
    };
    assert_eq!(verdict(&accept, TENANT, delivered(hash, 2_000)), Possible);
    assert!(waits(&verdict(&accept, PROVIDER, delivered(hash, 2_000))));
    assert_eq!(verdict(&accept, PROVIDER, delivered(hash, NOW - 1)), Possible);
    assert!(is_never(&verdict(&accept, TENANT, delivered(B256::ZERO, 2_000))));
    assert!(is_never(&verdict(&reject, TENANT, delivered(hash, NOW - 1))));
    assert!(waits(&verdict(&accept, TENANT, Some(leased(OrderState::Running, 2_000)))));
}

#[test]
fn a_bond_comes_back_once_the_bid_cannot_win() {
    let goal = Goal::Reclaim { order_id: id() };
    let with = |state, provider, valid_until| {
        let mut order = order(state, 2_000);
        order.slot.provider = provider;
        order.bids.push(Bid { provider: PROVIDER, price: 7, bond: Amount(10), valid_until });
        Some(order)
    };
    assert!(waits(&verdict(&goal, PROVIDER, with(OrderState::Open, Address::ZERO, NOW))));
    assert_eq!(verdict(&goal, PROVIDER, with(OrderState::Open, Address::ZERO, NOW - 1)), Possible);
    assert_eq!(verdict(&goal, PROVIDER, with(OrderState::Running, TENANT, 1_500)), Possible);
    assert!(is_never(&verdict(&goal, PROVIDER, with(OrderState::Running, PROVIDER, 1_500))));
    assert!(is_reached(&verdict(&goal, PROVIDER, None)));
}

#[test]
fn what_only_the_latest_block_says_waits_for_confirmations() {
    let goal = Goal::CancelOrder { order_id: id() };
    let mut view = view_of(TENANT, Some(order(OrderState::Cancelled, 0)));
    view.confirmed = view_of(TENANT, Some(order(OrderState::Open, 2_000))).latest;
    let verdict = status_of(&goal, &view, None).expect("well-formed").verdict();
    assert!(waits(&verdict), "{verdict:?}");
}

#[test]
fn a_bid_on_an_order_that_others_ended_is_given_up() {
    let bid = Goal::Bid { order_id: id(), price: "7".into(), valid_until: 1_500 };
    assert_eq!(verdict(&bid, PROVIDER, Some(order(OrderState::Open, 2_000))), Possible);
    assert!(is_never(&verdict(&bid, PROVIDER, None)));
    assert!(is_reached(&verdict(&Goal::Unbid { order_id: id() }, PROVIDER, None)));
}

#[test]
fn a_bid_costs_its_bond_once() {
    let goal = Goal::Bid { order_id: id(), price: "7".into(), valid_until: 1_500 };
    let mut open = order(OrderState::Open, 2_000);
    let cost = |order: &Order| cost_of(&goal, &view_of(PROVIDER, Some(order.clone())), None).expect("well-formed");
    assert_eq!(cost(&open), Amount(10));
    open.bids.push(Bid { provider: PROVIDER, price: 9, bond: Amount(10), valid_until: 1_500 });
    assert_eq!(cost(&open), Amount::ZERO);
}

/// A lease that earns ten units a second, of which a fifth is held back, and holds a thousand.
fn earning(id: u8, state: OrderState, paid: u128) -> Order {
    let mut order = leased(state, 2_000);
    order.id = B256::repeat_byte(id);
    order.slot.price = 10 * freehold_core::money::RATE_SCALE;
    order.slot.end_at = 1_000;
    (order.slot.funds, order.slot.paid) = (Amount(1_000 - paid), Amount(paid));
    order
}

fn withdraw(orders: &[u8]) -> Goal {
    let orders = orders.iter().map(|id| B256::repeat_byte(*id).to_string().into()).collect();
    Goal::Withdraw { amount: "1".into(), block: 0, orders }
}

#[test]
fn a_withdrawal_settles_what_can_be_settled_and_leaves_out_what_is_over() {
    use crate::bindings::Market;
    use alloy::sol_types::SolCall;
    let orders =
        [earning(1, OrderState::Running, 0), earning(2, OrderState::Closed, 0), earning(3, OrderState::Delivered, 0)];
    let mut view = view_of(PROVIDER, None);
    view.latest.orders = orders.into_iter().map(|order| (order.id, Arc::new(order))).collect();
    let calls_of = |goal: &Goal, view: &ChainView| {
        let data = crate::calldata::call_of(goal, view, None).expect("call").data;
        Market::multicallCall::abi_decode(&data).map(|batch| batch.calls)
    };
    let calls = calls_of(&withdraw(&[3, 2, 1, 1, 7]), &view).expect("a batch");
    let settled: Vec<B256> =
        calls[..2].iter().map(|call| Market::settleCall::abi_decode(call).expect("settle").id).collect();
    assert_eq!(settled, [B256::repeat_byte(1), B256::repeat_byte(3)], "each once, in one order whenever it is made");
    let last = Market::withdrawCall::abi_decode(&calls[2]).expect("withdraw");
    assert_eq!((calls.len(), last.to, last.amount), (3, PROVIDER, u128::MAX));
    assert!(calls_of(&withdraw(&[2]), &view).is_err(), "a withdrawal alone");
    assert!(calls_of(&withdraw(&[]), &view).is_err(), "as before");
    let stands = |goal: &Goal| status_of(goal, &view, None).expect("goal").latest;
    assert_eq!(stands(&withdraw(&[1])), Possible);
    assert!(is_reached(&stands(&withdraw(&[2]))) && is_reached(&stands(&withdraw(&[]))));
}

#[test]
fn what_is_paid_already_is_not_settled_again() {
    let unpaid = |paid| earning(1, OrderState::Running, paid).unpaid(NOW);
    assert_eq!((unpaid(0), unpaid(300), unpaid(800)), (Amount(800), Amount(500), Amount::ZERO));
    assert_eq!(earning(1, OrderState::Closed, 0).unpaid(NOW), Amount::ZERO);
    assert_eq!(earning(1, OrderState::Running, 0).unpaid(950), Amount(400), "half of it is earned at half the time");
}

#[test]
fn a_top_up_is_for_the_escrow_that_it_was_asked_from() {
    let goal = |escrow: u128| Goal::TopUp { order_id: id(), amount: "0.00001".into(), escrow: escrow.to_string() };
    let running = |deadline| {
        let mut order = leased(OrderState::Running, deadline);
        (order.slot.funds, order.slot.paid) = (Amount(60), Amount(40));
        Some(order)
    };
    assert_eq!(verdict(&goal(100), TENANT, running(2_000)), Possible);
    assert!(is_reached(&verdict(&goal(99), TENANT, running(2_000))), "it was raised meanwhile");
    assert!(is_never(&verdict(&goal(101), TENANT, running(2_000))), "what it was on top of is gone");
    assert!(is_never(&verdict(&goal(100), TENANT, running(999))), "too late");
    assert!(is_never(&verdict(&goal(100), TENANT, Some(leased(OrderState::Closed, 0)))));
    assert!(waits(&verdict(&goal(100), TENANT, Some(leased(OrderState::Awaiting, 2_000)))));
    assert!(
        status_of(
            &Goal::TopUp { order_id: id(), amount: "1".into(), escrow: "much".into() },
            &view_of(TENANT, running(2_000)),
            None
        )
        .is_err()
    );
}
