//! Orders that somebody must bring to their end, and losses whose last word is waited for.

use freehold_api::Goal;
use freehold_api::conditions::{self, types};
use freehold_api::task::DeletionPolicy;
use freehold_api::transaction::TransactionState;
use freehold_chain::view::Health;
use freehold_core::order::OrderState;
use freehold_core::wire::{CheckpointNote, LeaseReport};

use super::world::*;
use crate::task::observed::{Delivery, Report};
use crate::task::plan::Effect;

fn note(step: u64) -> CheckpointNote {
    CheckpointNote { step, sha256: "ef".repeat(32), size: 10, file_name: format!("step-{step:06}.safetensors") }
}

fn blocks_of(seconds: u64) -> usize {
    usize::try_from(seconds / BLOCK + 1).expect("a small number")
}

fn awaiting() -> World {
    let mut world = World::new();
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.bid(400_000);
    world.until("Awaiting", |w| w.state() == Some(OrderState::Awaiting));
    world
}

#[test]
fn a_result_that_could_not_be_rejected_in_time_does_not_hold_the_escrow() {
    let mut world = World::new();
    world.up_to_running();
    assert!(world.deliver());
    world.delivery = Delivery::Bad("model.safetensors has another digest".into());
    world.health = Health::Stale { head: 7 };
    for _ in 0..blocks_of(700) {
        world.pass();
        world.block();
    }
    assert_eq!(world.state(), Some(OrderState::Delivered), "a blind operator does nothing");
    world.health = Health::Fresh;
    world.until("settled", |w| w.state() == Some(OrderState::Accepted));
}

#[test]
fn a_task_that_was_deleted_after_the_delivery_still_ends_its_order() {
    let mut world = World::new();
    world.up_to_running();
    assert!(world.deliver());
    world.delete();
    world.blocks(blocks_of(700));
    let plan = world.pass();
    let accepts = |e: &Effect| matches!(e, Effect::Ensure(Goal::AcceptResult { .. }));
    assert!(plan.effects.iter().any(accepts), "{:?}", plan.effects);
}

#[test]
fn finish_waits_for_the_work_and_not_for_a_provider_that_is_gone() {
    let mut world = World::new();
    world.spec.deletion_policy = DeletionPolicy::Finish;
    world.up_to_running();
    world.delete();
    for _ in 0..10 {
        let plan = world.pass();
        assert!(!plan.effects.iter().any(|e| matches!(e, Effect::Ensure(Goal::CloseOrder { .. }))), "it still works");
        world.block();
    }
    world.report = Report::Unreachable("connection refused".into());
    world.until("gone", |w| w.gone);
    assert_eq!(world.state(), Some(OrderState::Closed));
}

#[test]
fn a_checkpoint_that_appears_after_the_loss_is_fetched_before_the_next_order() {
    let mut world = World::new();
    world.up_to_running();
    world.provider_closes();
    world.blocks(4);
    world.report = Report::Says(Box::new(LeaseReport { phase: "Closed".into(), ..LeaseReport::default() }));
    let waiting = world.pass();
    assert!(!waiting.effects.iter().any(|e| matches!(e, Effect::Fund { .. })), "the last checkpoint may still come");
    let Report::Says(mut last) = exited(-1, "DeviceLost", false, 0) else { unreachable!("a report") };
    last.checkpoints = vec![note(80)];
    world.report = Report::Says(last);
    let fetching = world.pass();
    assert!(fetching.effects.contains(&Effect::SaveCheckpoint(note(80))));
    assert!(!fetching.effects.iter().any(|e| matches!(e, Effect::Fund { .. })), "fetched first");
    world.until("another attempt", |w| w.stored.len() == 2);
    assert_eq!(world.status.checkpoint.as_ref().map(|c| c.step), Some(80));
}

#[test]
fn bad_data_is_not_tried_again_because_the_gateway_was_silent() {
    let mut world = World::new();
    world.up_to_running();
    world.provider_closes();
    world.report = Report::Unreachable("connection refused".into());
    for _ in 0..blocks_of(120) {
        world.pass();
        world.block();
    }
    assert_eq!(world.stored.len(), 1, "how it ended is not known yet");
    world.report = exited(65, "BadData", true, 1);
    world.until("Failed", |w| conditions::is_true(&w.status.conditions, types::FAILED));
    assert_eq!((world.reason(types::FAILED).1.as_str(), world.stored.len()), ("BadData", 1));
}

#[test]
fn a_gateway_that_stays_silent_is_not_waited_for_for_ever() {
    let mut world = World::new();
    world.up_to_running();
    world.provider_closes();
    world.report = Report::Unreachable("connection refused".into());
    let lost_at = world.now;
    world.until("another attempt", |w| w.stored.len() == 2);
    assert!((600..700).contains(&(world.now - lost_at)), "{}", world.now - lost_at);
}

#[test]
fn what_an_acceptance_waits_for_is_said() {
    let mut world = World::new();
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.bid(400_000);
    let asked = |w: &World| w.goals.iter().any(|f| matches!(f.goal, Goal::AcceptBid { .. }));
    for _ in 0..30 {
        world.pass();
        if asked(&world) {
            break;
        }
        world.block();
    }
    let accept = world.goals.iter_mut().find(|f| matches!(f.goal, Goal::AcceptBid { .. })).expect("asked for");
    assert_eq!(accept.state, TransactionState::Pending);
    accept.trouble = Some(("GasLow".into(), "Send it some.".into()));
    world.pass();
    let stalled = conditions::find(&world.status.conditions, types::STALLED).expect("said");
    assert!(stalled.message.contains("GasLow") && stalled.message.contains("Send it some"), "{}", stalled.message);
    assert_eq!(world.goals.iter().filter(|f| matches!(f.goal, Goal::AcceptBid { .. })).count(), 1);
}

#[test]
fn a_missed_start_costs_the_provider_whatever_the_tenant_wants_by_then() {
    let suspend = |world: &mut World| world.spec.suspend = true;
    for change in [World::delete as fn(&mut World), suspend] {
        let mut world = awaiting();
        world.blocks(blocks_of(310));
        change(&mut world);
        let plan = world.pass();
        let goals = |wanted: fn(&Goal) -> bool| {
            plan.effects.iter().filter(|e| matches!(e, Effect::Ensure(goal) if wanted(goal))).count()
        };
        assert_eq!(goals(|g| matches!(g, Goal::NoShow { .. })), 1);
        assert_eq!(goals(|g| matches!(g, Goal::CancelOrder { .. })), 0);
    }
}
