//! Orders without a task.

use std::collections::{BTreeMap, BTreeSet};

use freehold_api::Goal;
use freehold_chain::view::Health;
use freehold_core::B256;
use freehold_core::order::OrderState;

use super::world::*;
use crate::task::sweep::{Floor, Sweep, foreign, sweep};

const ORIGIN: B256 = B256::repeat_byte(9);

static UNWANTED: BTreeSet<B256> = BTreeSet::new();

fn look(world: &World, tasks: &[&str], origin: B256, missing: &mut BTreeMap<B256, u64>) -> Vec<Sweep> {
    let floor = Floor {
        stored: &world.stored,
        view: &world.view(),
        origin,
        failed: &BTreeSet::new(),
        unwanted: &UNWANTED,
        tasks: &tasks.iter().map(|t| (*t).to_owned()).collect(),
        patience: 600,
        keep: 86_400,
        now: u64::try_from(world.now).expect("positive"),
    };
    sweep(&floor, missing)
}

fn running() -> World {
    let mut world = World::new();
    world.up_to_running();
    world
}

#[test]
fn an_order_whose_task_is_gone_is_ended_after_ten_minutes() {
    let mut world = running();
    let mut missing = BTreeMap::new();
    assert!(look(&world, &["uid-1"], ORIGIN, &mut missing).is_empty());
    assert!(look(&world, &[], ORIGIN, &mut missing).is_empty(), "it may come back");
    world.now += 599;
    assert!(look(&world, &[], ORIGIN, &mut missing).is_empty());
    world.now += 1;
    let order_id = format!("{:#x}", world.id(0)).into();
    assert_eq!(look(&world, &[], ORIGIN, &mut missing), [Sweep::End(Goal::CloseOrder { order_id })]);
    world.health = Health::Stale { head: 1 };
    assert!(look(&world, &[], ORIGIN, &mut missing).is_empty(), "not while blind");
}

#[test]
fn an_order_without_a_task_that_waits_for_a_verdict_is_accepted_when_the_window_is_over() {
    let mut world = running();
    assert!(world.deliver());
    world.blocks(4);
    let mut missing = BTreeMap::new();
    look(&world, &[], ORIGIN, &mut missing);
    world.blocks(280);
    assert!(look(&world, &[], ORIGIN, &mut missing).is_empty(), "the provider's result may still be judged");
    world.blocks(30);
    let order_id = format!("{:#x}", world.id(0)).into();
    let result_hash = format!("{RESULT:#x}").into();
    assert_eq!(look(&world, &[], ORIGIN, &mut missing), [Sweep::End(Goal::AcceptResult { order_id, result_hash })]);
}

#[test]
fn a_missed_start_without_a_task_is_a_no_show() {
    let mut world = World::new();
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    world.bid(400_000);
    world.until("Awaiting", |w| w.state() == Some(OrderState::Awaiting));
    let mut missing = BTreeMap::new();
    look(&world, &[], ORIGIN, &mut missing);
    world.blocks(301);
    let order_id = format!("{:#x}", world.id(0)).into();
    assert_eq!(look(&world, &[], ORIGIN, &mut missing), [Sweep::End(Goal::NoShow { order_id })]);
}

#[test]
fn a_task_that_is_seen_again_starts_the_wait_anew() {
    let mut world = running();
    let mut missing = BTreeMap::new();
    look(&world, &[], ORIGIN, &mut missing);
    world.now += 500;
    look(&world, &["uid-1"], ORIGIN, &mut missing);
    world.now += 500;
    assert!(look(&world, &[], ORIGIN, &mut missing).is_empty());
}

#[test]
fn orders_of_other_clusters_are_left_alone() {
    let mut world = running();
    world.stored.clear();
    let mut missing = BTreeMap::new();
    look(&world, &[], B256::repeat_byte(8), &mut missing);
    world.now += 3_600;
    assert!(look(&world, &[], B256::repeat_byte(8), &mut missing).is_empty());
    look(&world, &[], ORIGIN, &mut missing);
    world.now += 3_600;
    assert_eq!(look(&world, &[], ORIGIN, &mut missing).len(), 1, "our own, whose record was lost");
}

#[test]
fn records_go_when_no_budget_counts_them_any_more() {
    let mut world = running();
    world.provider_closes();
    world.blocks(4);
    assert_eq!(world.state(), Some(OrderState::Closed));
    let mut missing = BTreeMap::new();
    assert!(look(&world, &[], ORIGIN, &mut missing).is_empty());
    world.now += 90_000;
    assert_eq!(look(&world, &[], ORIGIN, &mut missing), [Sweep::Forget(world.stored[0].name.clone())]);
    assert!(
        look(&world, &["uid-1"], ORIGIN, &mut missing).is_empty(),
        "attempts of a task are counted by their records"
    );
}

#[test]
fn orders_from_elsewhere_are_told_and_ended_only_where_the_admin_says_so() {
    let mut world = running();
    world.stored.clear();
    let id = world.id(0);
    let elsewhere = B256::repeat_byte(8);
    let look = |unwanted: &BTreeSet<B256>, stored: &[crate::task::stored::StoredOrder], tasks: &[&str]| {
        let floor = Floor {
            stored,
            view: &world.view(),
            origin: elsewhere,
            failed: &BTreeSet::new(),
            tasks: &tasks.iter().map(|t| (*t).to_owned()).collect(),
            unwanted,
            patience: 600,
            keep: 86_400,
            now: u64::try_from(world.now).expect("positive"),
        };
        (foreign(&floor), sweep(&floor, &mut BTreeMap::new()))
    };
    assert_eq!(look(&UNWANTED, &[], &[]), (vec![(id, OrderState::Running)], vec![]));
    let close = Sweep::End(Goal::CloseOrder { order_id: format!("{id:#x}").into() });
    assert_eq!(look(&[id].into(), &[], &[]).1, [close], "at once");
    // A task took it over: it is that task's.
    let adopted = running().stored;
    assert_eq!(look(&UNWANTED, &adopted, &["uid-1"]), (vec![], vec![]));
    assert_eq!(look(&[id].into(), &adopted, &["uid-1"]).1, []);
}
