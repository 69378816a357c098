//! Whatever chain, provider and user do, the lifecycle keeps its rules.

use freehold_api::Goal;
use freehold_chain::view::Health;
use freehold_core::B256;
use freehold_core::money::Amount;
use freehold_core::order::OrderState;
use proptest::prelude::*;
use serde_json::json;

use super::world::*;
use crate::task::ledger::Stage;
use crate::task::observed::{Delivery, Report};
use crate::task::plan::{Effect, plan};

#[derive(Clone, Copy, Debug)]
enum Move {
    Blocks(u8),
    Wait(u16),
    Bid(u32),
    Start,
    Deliver,
    Good,
    Bad,
    Close,
    Crash,
    BadData,
    Silent,
    Back,
    /// The work is so far, in hundredths.
    Progress(u8),
    Suspend,
    Resume,
    Blind,
    See,
    Delete,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => (1u8..8).prop_map(Move::Blocks),
        2 => (1u16..400).prop_map(Move::Wait),
        4 => (100_000u32..700_000).prop_map(Move::Bid),
        3 => Just(Move::Start),
        2 => Just(Move::Deliver),
        2 => Just(Move::Good),
        1 => Just(Move::Bad),
        1 => Just(Move::Close),
        1 => Just(Move::Crash),
        1 => Just(Move::BadData),
        1 => Just(Move::Silent),
        1 => Just(Move::Back),
        2 => (0u8..=100).prop_map(Move::Progress),
        1 => Just(Move::Suspend),
        1 => Just(Move::Resume),
        1 => Just(Move::Blind),
        2 => Just(Move::See),
        1 => Just(Move::Delete),
    ]
}

fn act(world: &mut World, step: Move) {
    match step {
        Move::Blocks(n) => world.blocks(usize::from(n)),
        Move::Wait(seconds) => {
            world.now += i64::from(seconds);
            world.block();
        }
        Move::Bid(hourly) => drop(world.bid(u128::from(hourly))),
        Move::Start => drop(world.start()),
        Move::Deliver => drop(world.deliver()),
        Move::Good if world.delivery == Delivery::Missing => world.delivery = good(),
        Move::Bad if world.delivery == Delivery::Missing => world.delivery = Delivery::Bad("it names no output".into()),
        Move::Close => drop(world.provider_closes()),
        Move::Crash => world.report = exited(139, "Crashed", false, 1),
        Move::BadData => world.report = exited(65, "BadData", true, 1),
        Move::Silent => world.report = Report::Unreachable("timeout".into()),
        Move::Back => world.report = running_report(),
        Move::Progress(percent) => world.report = progressed(u64::from(percent), 100),
        Move::Suspend => world.spec.suspend = true,
        Move::Resume => world.spec.suspend = false,
        Move::Blind => world.health = Health::Stale { head: 1 },
        Move::See => world.health = Health::Fresh,
        Move::Delete => world.delete(),
        Move::Good | Move::Bad => {}
    }
}

/// The goal fits the state that the operator saw.
fn legal(goal: &Goal, seen: Option<OrderState>) -> bool {
    match goal {
        Goal::PlaceOrder { .. } => seen.is_none(),
        Goal::AcceptBid { .. } => seen == Some(OrderState::Open),
        Goal::CancelOrder { .. } => matches!(seen, Some(OrderState::Open | OrderState::Awaiting)),
        Goal::NoShow { .. } => seen == Some(OrderState::Awaiting),
        Goal::CloseOrder { .. } | Goal::TopUp { .. } => seen == Some(OrderState::Running),
        Goal::AcceptResult { .. } | Goal::RejectResult { .. } => seen == Some(OrderState::Delivered),
        _ => false,
    }
}

fn check(world: &World) -> Result<(), TestCaseError> {
    let observed = world.observe();
    let planned = plan(&observed);
    for effect in &planned.effects {
        match effect {
            Effect::Ensure(goal) => {
                let id: B256 = goal.order_id().and_then(|id| id.as_str().parse().ok()).expect("an order");
                let seen = observed.view.as_ref().and_then(|v| v.order(&id)).map(|o| o.slot.state);
                prop_assert!(legal(goal, seen), "{goal:?} in {seen:?}");
                prop_assert!(world.health == Health::Fresh, "{goal:?} while blind");
            }
            Effect::TopUp { order, amount, escrow } => {
                prop_assert!(world.health == Health::Fresh, "a top-up while blind");
                let seen = observed.view.as_ref().and_then(|v| v.order(order)).expect("on the chain");
                prop_assert_eq!(seen.slot.state, OrderState::Running);
                prop_assert_eq!(seen.escrow(), *escrow);
                prop_assert!(*amount > Amount::ZERO && !world.spec.suspend);
                let closes = |effect: &Effect| matches!(effect, Effect::Ensure(Goal::CloseOrder { .. }));
                prop_assert!(!planned.effects.iter().any(closes), "a lease that is being closed");
                let asked = |effect: &Effect| matches!(effect, Effect::Ensure(Goal::TopUp { .. }));
                prop_assert!(!planned.effects.iter().any(asked), "beside one that is on its way");
            }
            Effect::Fund { .. } => {
                prop_assert!(world.health == Health::Fresh && !world.spec.suspend && world.deleting.is_none());
                let over = |stage: Stage| matches!(stage, Stage::Lapsed | Stage::Settled(_));
                prop_assert!(observed.attempts.iter().all(|a| over(a.stage)), "an order beside another");
            }
            Effect::RemoveFinalizer => {
                let accrues = |stage: Stage| {
                    matches!(
                        stage,
                        Stage::Live(OrderState::Open | OrderState::Awaiting | OrderState::Running) | Stage::Unplaced
                    )
                };
                prop_assert!(!observed.attempts.iter().any(|a| accrues(a.stage)), "gone before its order");
            }
            Effect::AddFinalizer
            | Effect::Adopt { .. }
            | Effect::Revoke { .. }
            | Effect::HandOver { .. }
            | Effect::SaveCheckpoint(_)
            | Effect::Collect { .. }
            | Effect::DeleteTask => {}
        }
    }
    Ok(())
}

/// After its effects are applied, a plan asks for nothing new. (An order that is taken back shows the one before it:
/// that takes a second pass.)
fn is_idempotent(world: &World) -> Result<(), TestCaseError> {
    let mut world = world.clone();
    world.pass();
    world.pass();
    let before = (world.goals.len(), world.stored.len(), world.held, world.deleting);
    world.pass();
    world.pass();
    prop_assert!((world.goals.len(), world.stored.len(), world.held, world.deleting) == before || world.gone);
    Ok(())
}

/// All attempts together never cost, or can cost, more than the task's budget.
fn is_within_budget(world: &World) -> Result<(), TestCaseError> {
    let observed = world.observe();
    let spent: Amount = observed.attempts.iter().map(|a| a.cost()).sum();
    prop_assert!(spent <= Amount(2_000_000), "{spent}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rules_hold(sliced in any::<bool>(), steps in prop::collection::vec(moves(), 1..60)) {
        let mut world = if sliced { World::of(with("/spec/market/topUp", json!({ "slice": "5m" }))) } else { World::new() };
        for step in steps {
            act(&mut world, step);
            if world.gone {
                break;
            }
            check(&world)?;
            is_idempotent(&world)?;
            let finished_before = ["Complete", "Failed"].contains(&world.shows()) && world.deleting.is_none();
            let orders = world.stored.len();
            world.pass();
            is_within_budget(&world)?;
            if finished_before {
                prop_assert!(world.stored.len() <= orders, "a finished task orders nothing");
                prop_assert!(world.deleting.is_some() || ["Complete", "Failed"].contains(&world.shows()), "finished is for ever, not {}", world.shows());
            }
        }
    }

    #[test]
    fn a_task_that_is_restored_under_another_uid_never_has_two_orders_that_cost(
        steps in prop::collection::vec(moves(), 1..40),
        at in 0usize..40,
        keeps_records: bool,
        adopts: bool,
    ) {
        let mut world = World::new();
        for (n, step) in steps.into_iter().enumerate() {
            if n == at && world.deleting.is_none() {
                world.restore("uid-2", keeps_records);
                let former = world.order().map(|order| format!("{:#x}", order.id));
                world.adopts = former.filter(|_| adopts);
            }
            act(&mut world, step);
            if world.gone {
                break;
            }
            world.pass();
            world.block();
            let accrues = |state| matches!(state, OrderState::Open | OrderState::Awaiting | OrderState::Running);
            let live = world.orders.values().filter(|order| accrues(order.slot.state)).count();
            prop_assert!(live <= 1, "{live} orders at once");
        }
    }

    #[test]
    fn everything_ends_once_the_task_is_deleted(steps in prop::collection::vec(moves(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            act(&mut world, step);
            if !world.gone {
                world.pass();
            }
        }
        world.health = Health::Fresh;
        world.delete();
        for _ in 0..120 {
            if !world.gone {
                world.pass();
            }
            world.block();
        }
        prop_assert!(!world.held, "still held: {:?}", world.status.message);
        let accrues = |state| matches!(state, OrderState::Open | OrderState::Awaiting | OrderState::Running);
        prop_assert!(world.orders.values().all(|o| !accrues(o.slot.state)));
    }
}
