//! When a lease is given more escrow, how much, and when it is not.

use freehold_api::Goal;
use freehold_api::conditions::types;
use freehold_api::transaction::TransactionState;
use freehold_core::money::{Amount, Rate};
use freehold_core::order::{Metered, OrderState};
use freehold_core::progress::ProgressLine;
use proptest::prelude::*;
use serde_json::json;

use super::world::*;
use crate::task::events;
use crate::task::top_up::{Choice, Means, choose, lead, work_left};

const HOUR: u64 = 3_600;

/// A token an hour, funded for an hour of ten.
fn lease() -> Metered {
    Metered {
        started_at: 1_000,
        duration: 10 * HOUR,
        rate: Rate::per_hour(Amount(3_600_000)),
        escrow: Amount(3_600_000),
    }
}

fn means() -> Means {
    Means { slice: HOUR, lead: 120, left: Amount(100_000_000), unit: 1 }
}

const END: u64 = 1_000 + HOUR;

#[test]
fn a_look_is_due_shortly_before_the_predicted_end_and_not_earlier() {
    let at = |now| choose(&lease(), &means(), None, now);
    assert_eq!(lease().end(), END);
    assert_eq!(at(1_000), Choice::Enough { look_in: Some(HOUR - 120) });
    assert_eq!(at(END - 121), Choice::Enough { look_in: Some(1) });
    assert_eq!(at(END - 120), Choice::Add(Amount(3_600_000)));
}

#[test]
fn a_slice_is_added_or_less_where_progress_or_the_orders_own_time_says_so() {
    let due = END - 100;
    let with = |left| choose(&lease(), &means(), Some(left), due);
    assert_eq!(with(100_000), Choice::Add(Amount(3_600_000)), "never more than a slice");
    // 1,200 s and a quarter, and the wrapping up, from now on: 1,700 s past the end.
    assert_eq!(with(1_200), Choice::Add(Amount(1_700_000)));
    assert_eq!(with(0), Choice::Add(Amount(200_000)), "what follows the last step is paid for too");
    let nearly = Metered { duration: HOUR + 30, ..lease() };
    assert_eq!(choose(&nearly, &means(), None, due), Choice::Add(Amount(30_000)));
    let whole = Metered { duration: HOUR, ..lease() };
    assert_eq!(choose(&whole, &means(), None, due), Choice::Enough { look_in: None }, "time ends it, not money");
}

#[test]
fn work_that_is_done_before_the_end_gets_nothing() {
    let long = Means { lead: 1_000, ..means() };
    assert_eq!(choose(&lease(), &long, Some(300), END - 900), Choice::Enough { look_in: None });
    assert!(matches!(choose(&lease(), &long, Some(600), END - 900), Choice::Add(_)));
}

#[test]
fn a_budget_that_is_used_up_is_not_exceeded() {
    let due = END - 100;
    let with = |left| choose(&lease(), &Means { left: Amount(left), ..means() }, None, due);
    assert_eq!(with(500_000), Choice::Add(Amount(500_000)), "what is left");
    assert_eq!(with(59_000), Choice::Spent, "not worth a transaction");
    assert_eq!(with(0), Choice::Spent);
    let coarse = Means { unit: 1_000_000, left: Amount(2_999_999), ..means() };
    assert_eq!(choose(&lease(), &coarse, None, due), Choice::Add(Amount(2_000_000)), "as a goal can tell it");
}

#[test]
fn progress_is_counted_from_the_checkpoint_that_the_work_goes_on_from() {
    let line = |step, steps| ProgressLine { step, steps, ..ProgressLine::default() };
    assert_eq!(work_left(600, 0, &line(50, 100)), Some(600));
    assert_eq!(work_left(60, 900, &line(905, 1_000)), Some(60 * 95 / 5));
    assert_eq!(work_left(600, 0, &line(0, 100)), None);
    assert_eq!(work_left(600, 60, &line(50, 100)), None, "not past its own checkpoint yet");
    assert_eq!(work_left(600, 0, &line(200, 100)), Some(0));
    assert_eq!(work_left(u64::MAX, 0, &line(1, u64::MAX)), Some(u64::MAX));
}

/// One run: a lease whose work takes `work` seconds, looked at each block; what is asked for lands `delay` seconds later.
fn run(lease: Metered, means: Means, work: u64, delay: u64, predicts: bool) -> (Metered, u64, Amount) {
    let (mut lease, mut means, mut added) = (lease, means, Amount::ZERO);
    let mut under_way: Option<(u64, Amount)> = None;
    let mut now = lease.started_at;
    while now < lease.started_at + work && now <= lease.end() {
        if let Some((_, amount)) = under_way.filter(|(at, _)| *at <= now) {
            lease.escrow = lease.escrow.saturating_add(amount);
            under_way = None;
        }
        let left = predicts.then(|| lease.started_at + work - now);
        if let (None, Choice::Add(amount)) = (under_way, choose(&lease, &means, left, now)) {
            assert!(amount > Amount::ZERO && amount <= means.left && amount.0 % means.unit == 0, "{amount}");
            assert!(lease.end_with(lease.escrow.saturating_add(amount)) > lease.end(), "it buys time");
            means.left = means.left.saturating_sub(amount);
            added = added.saturating_add(amount);
            under_way = Some((now + delay, amount));
        }
        now += 2;
    }
    (lease, now, added)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What is put in never exceeds the budget, and never what the lease can use.
    #[test]
    fn all_that_is_added_stays_within_budget_and_time(
        hourly in 1u128..10_000_000, hours in 1u64..8, slice in 300u64..4_000, budget in 0u128..40_000_000,
        work in 1u64..30_000, delay in 0u64..400, unit in prop_oneof![Just(1u128), Just(1_000)], predicts in any::<bool>(),
    ) {
        let rate = Rate::per_hour(Amount(hourly));
        let start = Metered { started_at: 1_000, duration: hours * HOUR, rate, escrow: rate.costs(slice.min(hours * HOUR)).min(Amount(budget)) };
        let means = Means { slice, lead: lead(BLOCK), left: Amount(budget).saturating_sub(start.escrow), unit };
        let (end, _, added) = run(start, means, work, delay, predicts);
        prop_assert!(start.escrow.saturating_add(added) <= Amount(budget).max(start.escrow));
        prop_assert!(end.escrow.0 <= rate.costs(end.duration).0 + unit, "no more than its time can use");
        if predicts {
            let wanted = rate.costs(work + work / 4 + 300 + 2 * slice.max(means.lead)).0 + unit;
            prop_assert!(end.escrow.0 <= wanted, "about what the work needs, {} of {wanted}", end.escrow);
        }
    }

    /// With money and a chain that answers in time, no lease runs dry before its work is done.
    #[test]
    fn a_lease_with_means_never_runs_dry(
        hourly in 1_000u128..10_000_000, slice in 300u64..4_000, work in 1u64..30_000, delay in 0u64..100,
        predicts in any::<bool>(),
    ) {
        let rate = Rate::per_hour(Amount(hourly));
        let start = Metered { started_at: 1_000, duration: 10 * HOUR, rate, escrow: rate.costs(slice) };
        let means = Means { slice, lead: lead(BLOCK), left: Amount(u128::MAX / 2), unit: 1 };
        let (_, ended, _) = run(start, means, work, delay, predicts);
        prop_assert!(ended >= start.started_at + work, "dry at {ended}");
    }
}

/// A world whose lease runs at 0.4 an hour, in slices of ten minutes.
fn sliced(budget: &str) -> World {
    let mut manifest = manifest();
    manifest["spec"]["market"]["budget"] = budget.into();
    manifest["spec"]["market"]["topUp"] = json!({ "slice": "10m" });
    let mut world = World::of(spec_of(manifest));
    world.up_to_running();
    world
}

fn top_ups(world: &World) -> Vec<&Goal> {
    world.goals.iter().map(|fact| &fact.goal).filter(|goal| matches!(goal, Goal::TopUp { .. })).collect()
}

/// Passes and blocks, without a provider that gives up, until the chain's clock is there.
fn up_to(world: &mut World, time: i64) {
    while world.now < time {
        world.pass();
        world.block();
    }
}

#[test]
fn an_order_that_is_topped_up_holds_one_slice() {
    let mut world = sliced("2.00");
    // Ten minutes at the highest rate, 0.5 an hour: longer at 0.4.
    assert_eq!(world.order().map(|order| order.escrow()), Some(Amount(83_333)));
    assert_eq!(World::new().observe().next_cap(), Amount(1_000_000), "all of it where it is not topped up");
}

#[test]
fn a_running_lease_is_raised_before_its_end_and_only_once_for_each() {
    let mut world = sliced("2.00");
    let first = world.order().expect("order").slot.end_at as i64;
    up_to(&mut world, first - 130);
    assert_eq!(top_ups(&world).len(), 0);
    let before = world.status.clone();
    up_to(&mut world, first - 100);
    assert_eq!(top_ups(&world).len(), 1, "{:?}", world.goals);
    let order = world.order().expect("order");
    assert!((600..=601).contains(&(order.slot.end_at as i64 - first)), "{}", order.slot.end_at);
    assert_eq!(order.escrow(), Amount(150_000), "twenty-two minutes and a half at 0.4 an hour");
    let news = events::news(&before, &world.status);
    assert!(news.iter().any(|news| news.reason == "ToppedUp" && !news.warning), "{news:?}");
    up_to(&mut world, first + 600 - 100);
    assert_eq!(top_ups(&world).len(), 2, "another need, another goal");
    assert_eq!(world.order().map(|order| order.escrow()), Some(Amount(216_778)));
    world.deliver();
    world.delivery = good();
    world.until("Complete", |w| w.shows() == "Complete");
    world.until("Settled", |w| w.reason(types::SETTLED).0 == "True");
    let spent = world.order().expect("order").cost();
    assert_eq!(
        world.status.spent.as_ref().map(|s| s.0.clone()),
        Some(spent.format(DECIMALS)),
        "what was paid, no more"
    );
    assert!(spent > Amount(83_333) && spent < Amount(216_778), "more than the first slice: {spent}");
}

#[test]
fn a_need_that_is_on_its_way_is_not_asked_for_again() {
    let mut world = sliced("2.00");
    let first = world.order().expect("order").slot.end_at as i64;
    up_to(&mut world, first - 124);
    // The outbox has no nonce for it, for a while: the chain moves on without it.
    for _ in 0..20 {
        world.pass();
        let stuck = std::mem::take(&mut world.goals);
        world.block();
        world.goals = stuck;
    }
    assert_eq!(top_ups(&world).len(), 1);
    assert!(world.observe().newest().expect("attempt").cost() > Amount(83_333), "and counts as spent");
    world.goals.iter_mut().for_each(|fact| {
        if fact.state == TransactionState::Pending {
            fact.trouble = Some(("InsufficientBalance".into(), "Send it the difference.".into()));
        }
    });
    world.pass();
    assert_eq!(world.reason(types::STALLED), ("True".into(), "TransactionFailed".into()));
}

#[test]
fn a_used_up_budget_is_told_and_raising_it_helps() {
    let mut world = sliced("0.10");
    let first = world.order().expect("order").slot.end_at as i64;
    up_to(&mut world, first - 60);
    assert_eq!(world.order().map(|order| order.escrow()), Some(Amount(100_000)), "all of the budget");
    let second = world.order().expect("order").slot.end_at as i64;
    up_to(&mut world, second - 60);
    assert_eq!(world.reason(types::FUNDED), ("False".into(), "BudgetExceeded".into()));
    assert_eq!(world.shows(), "Running");
    let message = world.status.message.as_ref().map(|m| m.0.clone()).unwrap_or_default();
    assert!(message.contains("market.budget 0.10") && message.contains("raise it"), "{message}");
    world.spec.market.budget = "1.00".into();
    up_to(&mut world, second - 50);
    assert_eq!(world.reason(types::FUNDED), ("True".into(), "Funded".into()));
    assert!(world.order().expect("order").slot.end_at as i64 > second);
}

#[test]
fn a_namespaces_budget_refuses_what_would_exceed_it() {
    let mut world = sliced("2.00");
    let first = world.order().expect("order").slot.end_at as i64;
    world.budgets = vec![("team".into(), budget("0.1"))];
    up_to(&mut world, first - 60);
    assert_eq!(world.reason(types::FUNDED), ("False".into(), "BudgetExceeded".into()));
    assert!(top_ups(&world).is_empty());
    let message = world.status.message.as_ref().map(|m| m.0.clone()).unwrap_or_default();
    assert!(
        message.contains("The lease needs another 0.066667") && message.contains("ComputeBudget `team`"),
        "{message}"
    );
}

#[test]
fn a_lease_whose_money_ran_out_says_so_before_it_is_closed() {
    let mut world = sliced("0.10");
    let first = world.order().expect("order").slot.end_at as i64;
    up_to(&mut world, first - 60);
    let end = world.order().expect("order").slot.end_at as i64;
    up_to(&mut world, end + 10);
    assert_eq!(world.state(), Some(OrderState::Running));
    assert_eq!(world.reason(types::FUNDED), ("False".into(), "EscrowExhausted".into()));
    world.until("Failed", |w| w.shows() == "Failed");
    assert_eq!(world.reason(types::FAILED).1, "EscrowExhausted");
}

#[test]
fn work_that_is_over_or_unwanted_is_not_funded_further() {
    let asked = |change: fn(&mut World)| {
        let mut world = sliced("2.00");
        let first = world.order().expect("order").slot.end_at as i64;
        up_to(&mut world, first - 140);
        change(&mut world);
        up_to(&mut world, first - 60);
        top_ups(&world).len()
    };
    assert_eq!(asked(|_| ()), 1);
    assert_eq!(asked(|world| world.report = exited(1, "Crashed", false, 1)), 0);
    assert_eq!(asked(|world| world.spec.suspend = true), 0);
    assert_eq!(asked(World::delete), 0);
    assert_eq!(asked(|world| world.spec.market.top_up = None), 0, "only where the task asks for it");
    let finish = |world: &mut World| {
        world.spec.deletion_policy = freehold_api::task::DeletionPolicy::Finish;
        world.delete();
    };
    assert_eq!(asked(finish), 1, "Finish waits for the work");
}

#[test]
fn progress_makes_the_last_slice_smaller() {
    let mut world = sliced("2.00");
    let start = world.order().expect("order").slot.started_at as i64;
    let first = world.order().expect("order").slot.end_at as i64;
    // A step a second, of which a hundred are left when it is decided.
    let due = first - 120;
    let steps = u64::try_from(due - start + 100).expect("positive");
    while world.now < first - 100 {
        world.report = progressed(u64::try_from(world.now - start).expect("positive"), steps);
        world.pass();
        world.block();
    }
    let raised = world.order().expect("order").slot.end_at as i64 - first;
    // 100 s and a quarter, and 300 s for what follows; less the 120 s that are funded already.
    assert!((295..=310).contains(&raised), "{raised}");
}
