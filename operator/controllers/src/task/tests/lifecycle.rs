//! The story of a task, and each way in which it can go wrong.

use freehold_api::Goal;
use freehold_api::conditions::{self, types};
use freehold_api::task::DeletionPolicy;
use freehold_chain::view::Health;
use freehold_core::money::Amount;
use freehold_core::order::OrderState;
use freehold_core::wire::{CheckpointNote, LeaseReport};
use rstest::rstest;

use super::world::*;
use crate::task::observed::{Delivery, Report};
use crate::task::plan::Effect;
use crate::task::validate::Found;

fn is_true(world: &World, type_: &str) -> bool {
    conditions::is_true(&world.status.conditions, type_)
}

fn note(step: u64) -> CheckpointNote {
    CheckpointNote { step, sha256: "ef".repeat(32), size: 10, file_name: format!("step-{step:06}.safetensors") }
}

#[test]
fn from_manifest_to_settled() {
    let mut world = World::new();
    let first = world.pass();
    assert_eq!(
        first.effects,
        [Effect::AddFinalizer, Effect::Fund { attempt: 0 }],
        "the finalizer stands before the order"
    );
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.pass();
    assert_eq!(world.shows(), "Funded");
    assert_eq!(world.reason(types::LEASED), ("False".into(), "WaitingForBids".into()));
    world.up_to_running();
    assert_eq!(world.shows(), "Running");
    assert_eq!(world.status.rate_per_hour.as_ref().map(|r| r.as_str()), Some("0.4"));
    assert!(world.status.funded_until.is_some());
    world.blocks(5);
    assert!(world.deliver());
    world.block();
    let unconfirmed = world.pass();
    assert!(!unconfirmed.effects.iter().any(|e| matches!(e, Effect::Collect { .. })), "results wait for confirmations");
    world.blocks(3);
    let collecting = world.pass();
    assert!(collecting.effects.contains(&Effect::Collect { result_hash: RESULT }));
    world.delivery = good();
    world.pass();
    assert_eq!(world.shows(), "ResultSubmitted");
    world.until("Complete", |w| is_true(w, types::COMPLETE));
    assert_eq!(world.shows(), "Complete");
    assert!(is_true(&world, types::VERIFIED) && is_true(&world, types::SETTLED));
    assert_eq!(world.status.artifacts.len(), 1);
    assert_eq!(world.status.metrics.get("accuracy").map(String::as_str), Some("0.97"));
    assert!(world.status.completion_time.is_some());
    assert!(!world.held, "nothing can accrue: the task may be deleted even while the operator is away");
    let goals: Vec<&str> = world.goals.iter().map(|f| f.goal.name()).collect();
    assert_eq!(goals, ["placeOrder", "acceptBid", "acceptResult"], "one of each, and nothing else");
}

#[test]
fn nobody_bids_and_the_order_is_repeated_ever_more_slowly() {
    let mut world = World::new();
    world.until("a second attempt", |w| w.stored.len() == 2);
    assert_eq!(world.reason(types::LEASED).1, "NoBids");
    world.until("a fourth attempt", |w| w.stored.len() == 4);
    let gaps: Vec<i64> = world.stored.windows(2).map(|w| w[1].created.as_second() - w[0].created.as_second()).collect();
    assert!(gaps.windows(2).all(|w| w[0] < w[1]), "{gaps:?}");
    assert!(world.orders.values().filter(|o| !o.slot.state.is_settled()).count() <= 1);
}

#[test]
fn too_high_a_price_is_said_and_not_taken() {
    let mut world = World::new();
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.bid(600_000);
    world.until("given up", |w| w.reason(types::LEASED).1 == "PriceTooHigh");
    let leased = conditions::find(&world.status.conditions, types::LEASED).expect("said");
    assert!(leased.message.contains("0.6") && leased.message.contains("0.5"), "{}", leased.message);
    world.until("another attempt", |w| w.stored.len() == 2);
    assert!(!world.goals.iter().any(|f| matches!(f.goal, Goal::AcceptBid { .. })));
}

#[test]
fn inputs_are_handed_over_as_the_gateway_asks() {
    let mut world = World::new();
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.bid(400_000);
    world.until("Awaiting", |w| w.state() == Some(OrderState::Awaiting));
    world.report = Report::NotServed;
    world.pass();
    assert_eq!(world.reason(types::RUNNING).1, "HandingOver", "the provider has not made the lease yet");
    world.report = Report::Unreachable("connection refused".into());
    world.pass();
    assert_eq!(world.reason(types::RUNNING).1, "ProviderUnreachable");
    world.report =
        Report::Says(Box::new(LeaseReport { missing_inputs: vec!["dataset".into()], ..LeaseReport::default() }));
    let plan = world.pass();
    assert!(plan.effects.contains(&Effect::HandOver { manifest: true, inputs: vec!["dataset".into()] }));
    world.report =
        Report::Says(Box::new(LeaseReport { manifest_held: true, phase: "Starting".into(), ..LeaseReport::default() }));
    assert!(world.pass().effects.is_empty());
    assert_eq!(world.reason(types::RUNNING).1, "Starting");
}

#[test]
fn a_provider_that_does_not_start_is_recorded_and_replaced() {
    let mut world = World::new();
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.bid(400_000);
    world.until("NoShow", |w| w.state() == Some(OrderState::NoShow));
    world.until("another attempt", |w| w.stored.len() == 2);
    assert_eq!(world.status.attempts[0].state.as_str(), "NoShow");
    assert_eq!(world.status.attempts[0].paid.as_ref().map(|p| p.as_str()), Some("0"));
}

#[test]
fn a_lost_lease_is_replaced_at_once_from_the_newest_checkpoint() {
    let mut world = World::new();
    world.up_to_running();
    world.report = Report::Says(Box::new(LeaseReport {
        phase: "Running".into(),
        manifest_held: true,
        checkpoints: vec![note(40)],
        ..LeaseReport::default()
    }));
    assert!(world.pass().effects.contains(&Effect::SaveCheckpoint(note(40))));
    assert!(!world.pass().effects.iter().any(|e| matches!(e, Effect::SaveCheckpoint(_))), "held by now");
    world.blocks(100);
    world.provider_closes();
    world.report = exited(1, "DeviceLost", false, 0);
    let lost_at = world.now;
    world.until("another attempt", |w| w.stored.len() == 2);
    assert!(world.now - lost_at <= 10 * BLOCK as i64, "no back-off after a lease that ran");
    assert_eq!(world.status.checkpoint.as_ref().map(|c| c.step), Some(40));
    let (first, second) = (&world.stored[0].terms, &world.stored[1].terms);
    assert!(second.maxPrice < first.maxPrice, "less time is left, and less money");
}

#[test]
fn bad_data_fails_the_task_and_the_provider_is_given_time_to_close() {
    let mut world = World::new();
    world.up_to_running();
    world.report = exited(65, "BadData", true, 1);
    world.pass();
    assert_eq!(world.shows(), "Failed");
    assert_eq!(world.reason(types::FAILED), ("True".into(), "BadData".into()));
    let message = world.status.message.clone().expect("said").0;
    assert!(message.contains("65") && message.contains("row 7") && message.contains("Correct the data"), "{message}");
    world.pass();
    assert!(!world.goals.iter().any(|f| matches!(f.goal, Goal::CloseOrder { .. })));
    world.until("closed by the tenant", |w| w.state() == Some(OrderState::Closed));
    world.blocks(10);
    for _ in 0..50 {
        world.pass();
        world.block();
    }
    assert_eq!(world.stored.len(), 1, "not tried again");
    assert!(is_true(&world, types::SETTLED));
}

#[test]
fn crashes_add_up_over_attempts() {
    let mut world = World::of(with("/spec/backoffLimit", 3.into()));
    world.up_to_running();
    world.provider_closes();
    world.report = exited(139, "Crashed", false, 2);
    world.until("another attempt", |w| w.stored.len() == 2);
    assert_eq!(world.stored[1].failures, 2, "the next order knows of the failures before it");
    world.report = Report::NotAsked;
    world.up_to_running();
    world.report = exited(139, "Crashed", false, 2);
    world.until("Failed", |w| w.shows() == "Failed");
    assert_eq!(world.reason(types::FAILED).1, "BackoffLimitExceeded");
    assert_eq!(world.status.failures, Some(4));
}

#[test]
fn a_bad_result_is_rejected_and_its_provider_not_taken_again() {
    let mut world = World::new();
    world.up_to_running();
    world.deliver();
    world.blocks(4);
    world.delivery = Delivery::Bad("`model.safetensors` is too short for a safetensors file".into());
    world.until("Rejected", |w| w.state() == Some(OrderState::Rejected));
    assert!(!world.goals.iter().any(|f| matches!(f.goal, Goal::AcceptResult { .. })));
    world.delivery = Delivery::None;
    world.report = Report::NotAsked;
    world.until("another order", |w| w.state() == Some(OrderState::Open));
    world.bid(400_000);
    world.until("given up", |w| w.reason(types::LEASED).1 == "NoMatchingProvider");
}

#[test]
fn a_result_that_is_never_served_is_rejected_at_three_quarters_of_the_window() {
    let mut world = World::new();
    world.up_to_running();
    world.deliver();
    let delivered = world.now;
    world.report = Report::Unreachable("timeout".into());
    world.until("Rejected", |w| w.state() == Some(OrderState::Rejected));
    let waited = world.now - delivered;
    assert!((450..=460).contains(&waited), "waited {waited} of 600 s");
}

#[test]
fn five_minutes_without_gateway_change_nothing_and_ten_close_the_lease() {
    let mut world = World::new();
    world.up_to_running();
    world.report = Report::Unreachable("timeout".into());
    for _ in 0..150 {
        world.pass();
        world.block();
    }
    assert_eq!(world.state(), Some(OrderState::Running));
    world.until("closed", |w| w.state() == Some(OrderState::Closed));
}

#[test]
fn the_deadline_closes_the_lease_and_fails_the_task() {
    let mut world = World::of(with("/spec/activeDeadline", "10m".into()));
    world.up_to_running();
    world.until("Closed", |w| w.state() == Some(OrderState::Closed));
    assert!(world.now - START <= 620);
    assert_eq!(world.reason(types::FAILED).1, "DeadlineExceeded");
}

#[test]
fn an_exhausted_escrow_ends_the_task_with_the_money_spent() {
    let mut world = World::of(with("/spec/market/budget", "0.05".into()));
    world.up_to_running();
    world.until("Failed", |w| w.shows() == "Failed");
    assert_eq!(world.reason(types::FAILED).1, "EscrowExhausted");
    assert_eq!(world.status.spent.as_ref().map(|s| s.as_str()), Some("0.05"));
}

#[rstest]
#[case(OrderState::Open)]
#[case(OrderState::Awaiting)]
#[case(OrderState::Running)]
fn deletion_ends_the_order_before_the_task_goes(#[case] at: OrderState) {
    let mut world = World::new();
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    if at >= OrderState::Awaiting {
        world.bid(400_000);
        world.until("Awaiting", |w| w.state() == Some(OrderState::Awaiting));
    }
    if at == OrderState::Running {
        world.start();
        world.block();
    }
    world.deleting = Some(world.time());
    world.pass();
    assert!(world.held && world.shows() == "Deleting");
    let asked = world.now;
    world.until("gone", |w| {
        assert!(!w.gone || w.orders.values().all(|o| o.slot.state.is_settled()), "never before the order is settled");
        w.gone
    });
    let limit = if at == OrderState::Running { 60 + 20 } else { 20 };
    assert!(world.now - asked <= limit, "took {} s", world.now - asked);
    assert_eq!(world.stored.len(), 1);
}

#[test]
fn deletion_while_the_operator_was_away_closes_at_once() {
    let mut world = World::new();
    world.up_to_running();
    world.deleting = Some(world.time());
    world.blocks(60);
    world.pass();
    world.block();
    assert_eq!(world.state(), Some(OrderState::Closed));
}

#[test]
fn deletion_policy_finish_waits_for_the_lease() {
    let mut world = World::of(with("/spec/deletionPolicy", "Finish".into()));
    assert_eq!(world.spec.deletion_policy, DeletionPolicy::Finish);
    world.up_to_running();
    world.deleting = Some(world.time());
    for _ in 0..100 {
        world.pass();
        world.block();
    }
    assert_eq!(world.state(), Some(OrderState::Running));
    world.deliver();
    world.until("gone", |w| w.gone);
}

#[test]
fn deletion_before_any_order_is_immediate_and_an_order_not_sent_is_taken_back() {
    let mut world = World::new();
    world.deleting = Some(world.time());
    assert!(world.pass().effects.is_empty(), "without a finalizer there is nothing to do");
    let mut world = World::new();
    world.pass();
    assert_eq!(world.stored.len(), 1);
    world.deleting = Some(world.time());
    world.pass();
    assert!(world.stored.is_empty() && world.goals.is_empty());
    world.pass();
    assert!(world.gone);
}

#[test]
fn suspension_places_no_order_and_closes_a_running_lease() {
    let mut world = World::of(with("/spec/suspend", true.into()));
    world.pass();
    assert_eq!((world.shows(), world.stored.len()), ("Suspended", 0));
    world.spec.suspend = false;
    world.up_to_running();
    world.spec.suspend = true;
    world.pass();
    assert_eq!(world.reason(types::SUSPENDED).1, "Suspending");
    let asked = world.now;
    world.until("closed", |w| w.state() == Some(OrderState::Closed));
    assert!((58..=66).contains(&(world.now - asked)), "a checkpoint is waited for: {} s", world.now - asked);
    world.until("Suspended", |w| w.reason(types::SUSPENDED).1 == "Suspended");
    world.spec.suspend = false;
    world.until("another attempt", |w| w.stored.len() == 2);
    assert!(!is_true(&world, types::SUSPENDED));
}

#[rstest]
#[case(Health::Stale { head: 7 })]
#[case(Health::Unreachable { error: "refused".into() })]
#[case(Health::WrongChain { expected: 1, found: 2 })]
fn a_blind_operator_does_nothing_and_says_so(#[case] health: Health) {
    let mut world = World::new();
    world.health = health.clone();
    assert!(world.pass().effects.is_empty());
    assert_eq!(world.reason(types::FUNDED).1, health.explain().0);
    let mut world = World::new();
    world.up_to_running();
    world.health = health.clone();
    world.deleting = Some(world.time());
    world.blocks(100);
    assert!(world.pass().effects.is_empty());
    assert_eq!(world.reason(types::DELETING).1, "ChainUnreachable");
    assert_eq!(world.reason(types::STALLED).1, health.explain().0);
}

#[test]
fn an_unreachable_input_fails_the_task_after_half_of_the_start_window() {
    let mut world = World::new();
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.bid(400_000);
    world.until("Awaiting", |w| w.state() == Some(OrderState::Awaiting));
    let errors = [("dataset".to_owned(), "https://example.com/x answers 404".to_owned())].into();
    world.report =
        Report::Says(Box::new(LeaseReport { manifest_held: true, input_errors: errors, ..LeaseReport::default() }));
    world.pass();
    assert_eq!(world.reason(types::RUNNING).1, "InputUnavailable");
    world.until("cancelled", |w| w.state() == Some(OrderState::Cancelled));
    assert_eq!(world.reason(types::FAILED).1, "InputUnavailable");
    world.blocks(20);
    world.pass();
    assert_eq!(world.stored.len(), 1);
}

#[test]
fn user_errors_wait_without_an_effect() {
    let mut world = World::of(with("/spec/dataset/sha256", "00".repeat(32).into()));
    let plan = world.pass();
    assert!(plan.effects.is_empty());
    assert_eq!(world.reason(types::VALID), ("False".into(), "DigestMismatch".into()));
    let message = world.status.message.clone().expect("said").0;
    assert!(message.contains(&"00".repeat(32)) && message.contains(&"ab".repeat(32)), "{message}");
    let mut world = World::new();
    world.data =
        Found::Missing("ConfigMap `digits` does not exist in namespace `demo`. Create it, or correct the name.".into());
    world.pass();
    assert_eq!((world.shows(), world.reason(types::VALID).1.as_str()), ("Pending", "InputNotFound"));
    let mut world = World::new();
    world.budgets.clear();
    assert!(world.pass().effects.is_empty());
    assert_eq!(world.reason(types::FUNDED).1, "NoBudget");
    world.budgets = vec![("team".into(), budget("10"))];
    assert!(world.pass().effects.contains(&Effect::Fund { attempt: 0 }), "a budget releases the task");
}

#[test]
fn a_failed_placement_is_told_and_repeated() {
    let mut world = World::new();
    world.pass();
    world.now += 35;
    world.block();
    world.pass();
    assert_eq!(world.reason(types::LEASED).1, "OrderFailed");
    world.until("another order", |w| w.state() == Some(OrderState::Open));
    assert_eq!(world.stored.len(), 2);
}

#[test]
fn a_finished_task_goes_after_its_ttl() {
    let mut world = World::of(with("/spec/ttlAfterFinished", "1m".into()));
    world.up_to_running();
    world.deliver();
    world.delivery = good();
    world.until("Complete", |w| is_true(w, types::COMPLETE));
    let finished = world.now;
    world.until("deleted", |w| w.deleting.is_some());
    assert!((60..=66).contains(&(world.now - finished)));
    world.until("gone", |w| w.gone);
}

#[test]
fn refunds_that_are_still_in_the_market_are_not_called_settled() {
    let mut world = World::new();
    world.up_to_running();
    world.deliver();
    world.delivery = good();
    world.balances.free = Amount(5);
    world.until("Complete", |w| is_true(w, types::COMPLETE));
    assert_eq!(world.reason(types::SETTLED).1, "RefundPending");
    // What other orders of the account leave there is no news of this task: each would be a write of every task.
    let before = world.status.clone();
    world.balances.free = Amount(6);
    world.pass();
    assert_eq!(world.status, before);
    world.balances.free = Amount::ZERO;
    world.pass();
    assert!(is_true(&world, types::SETTLED));
}
