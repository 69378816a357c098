//! What people see: status at each stage, and which changes are worth a write or an event.

use freehold_api::conditions::types;
use freehold_api::task::TaskStatus;
use freehold_core::B256;
use freehold_core::order::OrderState;
use freehold_core::progress::{Commitments, ProgressLine};
use freehold_core::wire::LeaseReport;

use super::world::*;
use crate::task::events;
use crate::task::observed::Report;
use crate::task::status::{is_due, time};

fn lines(world: &World) -> String {
    let status = &world.status;
    let text =
        |field: &Option<freehold_api::scalars::Text>| field.as_ref().map(|t| t.0.clone()).unwrap_or_else(|| "-".into());
    let mut out = format!(
        "state {} · progress {} · rate {} · spent {} · fundedUntil {}\n{}\n",
        text(&status.state),
        text(&status.progress_text),
        text(&status.rate_per_hour),
        text(&status.spent),
        text(&status.funded_until),
        text(&status.message)
    );
    for condition in &status.conditions {
        out.push_str(&format!(
            "{}={} {}: {}\n",
            condition.type_, condition.status, condition.reason, condition.message
        ));
    }
    for attempt in &status.attempts {
        out.push_str(&format!(
            "attempt {} {} paid {} refunded {}\n",
            attempt.number,
            attempt.state,
            text(&attempt.paid),
            text(&attempt.refunded)
        ));
    }
    out
}

#[test]
fn the_story_in_status() {
    let mut world = World::new();
    let mut story = String::new();
    let mut tell = |title: &str, world: &World| story.push_str(&format!("## {title}\n{}\n", lines(world)));
    world.pass();
    tell("applied", &world);
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.pass();
    tell("open", &world);
    world.up_to_running();
    let line = ProgressLine {
        step: 40,
        steps: 100,
        loss: Some(0.125),
        metrics: [("accuracy".to_owned(), 0.9)].into(),
        exact: Some(Commitments { state_root: B256::repeat_byte(7), segments: 3, ..Commitments::default() }),
        at: None,
    };
    world.report = Report::Says(Box::new(LeaseReport {
        phase: "Running".into(),
        manifest_held: true,
        progress: Some(line),
        ..LeaseReport::default()
    }));
    world.blocks(10);
    world.pass();
    tell("running", &world);
    let exact = world.status.exact.clone().unwrap();
    assert_eq!((exact.segments, exact.state_root.0.as_str()), (3, &*format!("0x{}", "07".repeat(32))));
    world.deliver();
    world.blocks(4);
    world.delivery = good();
    world.pass();
    tell("delivered", &world);
    world.until("Complete", |w| w.shows() == "Complete");
    tell("complete", &world);
    insta::assert_snapshot!(story);
}

#[test]
fn progress_and_cost_are_written_seldom_and_all_else_at_once() {
    let old = TaskStatus { progress_text: Some("1/9".into()), spent: Some("1".into()), ..TaskStatus::default() };
    let progress = freehold_api::task::Progress { step: 2, steps: 9, ..Default::default() };
    let moved = TaskStatus { progress: Some(progress), progress_text: Some("2/9".into()), ..old.clone() };
    assert!(!is_due(&old, &moved, 9) && is_due(&old, &moved, 10));
    let cost = TaskStatus { spent: Some("2".into()), ..old.clone() };
    assert!(!is_due(&old, &cost, 59) && is_due(&old, &cost, 60));
    let state = TaskStatus { state: Some("Running".into()), ..old.clone() };
    assert!(is_due(&old, &state, 0) && !is_due(&old, &old, i64::MAX));
}

#[test]
fn a_new_block_alone_writes_nothing() {
    let mut world = World::new();
    world.budgets.clear();
    world.pass();
    let before = world.status.clone();
    world.blocks(50);
    world.pass();
    assert!(!is_due(&before, &world.status, i64::MAX), "{:?}", world.status);
}

#[test]
fn events_tell_states_and_troubles_once() {
    let mut world = World::new();
    let before = world.status.clone();
    world.budgets.clear();
    world.pass();
    let news = events::news(&before, &world.status);
    assert_eq!(
        news.iter().map(|n| (n.reason.as_str(), n.warning)).collect::<Vec<_>>(),
        [("Pending", false), ("NoBudget", true)]
    );
    let before = world.status.clone();
    world.pass();
    assert!(events::news(&before, &world.status).is_empty());
    world.budgets = vec![("team".into(), budget("10"))];
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    let before = world.status.clone();
    world.pass();
    let news = events::news(&before, &world.status);
    assert_eq!(news.iter().map(|n| n.reason.as_str()).collect::<Vec<_>>(), ["Funded"]);
    assert_eq!(world.reason(types::LEASED).1, "WaitingForBids");
}

#[test]
fn events_tell_the_whole_story_in_sentences() {
    let mut world = World::new();
    let mut story = Vec::new();
    let mut tell = |before: &TaskStatus, world: &World| {
        story.extend(
            events::news(before, &world.status).into_iter().map(|news| format!("{}: {}", news.reason, news.note)),
        );
        world.status.clone()
    };
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.pass();
    let seen = tell(&TaskStatus::default(), &world);
    world.up_to_running();
    world.report = running_report();
    world.pass();
    let seen = tell(&seen, &world);
    world.deliver();
    world.blocks(4);
    world.delivery = good();
    world.until("Complete", |w| w.shows() == "Complete");
    world.until("Settled", |w| w.reason(types::SETTLED).0 == "True");
    tell(&seen, &world);
    let id = world.id(0);
    let told = |begins: String| assert!(story.iter().any(|line| line.starts_with(&begins)), "{begins}: {story:#?}");
    told(format!("Funded: Order {id:#x} was placed (attempt 0): 1 are in escrow."));
    told("Leased: Leased from 0x".into());
    told("Running: The provider works".into());
    told("ResultSubmitted: ".into());
    told("Verified: The result was accepted".into());
    told("Complete: ".into());
    told("Settled: The order is settled".into());
    assert!(story.iter().any(|line| line.ends_with(&format!("of order {id:#x} came back."))), "{story:#?}");
}

#[test]
fn a_lost_attempt_is_told_with_its_reason() {
    let mut world = World::new();
    world.up_to_running();
    world.pass();
    let before = world.status.clone();
    world.provider_closes();
    world.until("lost", |w| w.reason(types::LEASED).1 == "ProviderClosed");
    let news = events::news(&before, &world.status);
    let lost = news.iter().find(|news| news.reason == "ProviderClosed").expect("an event");
    assert!(
        lost.warning && lost.note.starts_with(&format!("Attempt 0 (order {:#x}): The lease", world.id(0))),
        "{lost:?}"
    );
}

#[test]
fn times_are_rfc_3339() {
    assert_eq!(time(1_800_000_000), "2027-01-15T08:00:00Z");
}

#[test]
fn a_verdict_that_is_given_up_is_warned_of_although_the_task_is_gone() {
    let mut world = World::new();
    world.up_to_running();
    world.deliver();
    world.blocks(4);
    world.pass();
    let before = world.status.clone();
    world.deleting = Some(world.time());
    world.pass();
    assert!(world.gone);
    let told = events::news(&before, &world.status);
    let warning = told.iter().find(|news| news.warning).expect("a warning");
    assert_eq!(warning.reason, "VerdictWaived");
    assert!(warning.note.contains("counts as accepted"), "{}", warning.note);
    assert!(!events::news(&world.status, &world.status).iter().any(|news| news.warning), "once");
}
