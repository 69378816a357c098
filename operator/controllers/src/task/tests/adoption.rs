//! Restored under another UID: the order of before is taken over or ended, and never doubled.

use freehold_api::conditions::types;
use freehold_core::order::OrderState;
use rstest::rstest;

use super::world::*;
use crate::task::observed::Report;
use crate::task::plan::Effect;

fn funds(world: &mut World) -> bool {
    world.pass().effects.iter().any(|effect| matches!(effect, Effect::Fund { .. }))
}

fn up_to(state: OrderState) -> World {
    let mut world = World::new();
    world.until("Open", |w| w.state() == Some(OrderState::Open));
    if state >= OrderState::Awaiting {
        world.bid(400_000);
        world.until("Awaiting", |w| w.state() == Some(OrderState::Awaiting));
    }
    if state >= OrderState::Running {
        world.start();
        world.block();
    }
    world
}

#[rstest]
fn no_second_order_stands_beside_the_one_of_before(
    #[values(OrderState::Open, OrderState::Awaiting, OrderState::Running)] at: OrderState,
    #[values(true, false)] keeps_records: bool,
    #[values(true, false)] held: bool,
) {
    let mut world = up_to(at);
    let order = format!("{:#x}", world.order().expect("an order").id);
    world.restore("uid-2", keeps_records);
    world.held = held;
    for _ in 0..4 {
        assert!(!funds(&mut world));
        assert_eq!(world.reason(types::FUNDED), ("False".into(), "ForeignOrder".into()));
        world.block();
    }
    let message = world.status.message.clone().expect("a message").0;
    assert!(
        message.contains(&format!("kubectl freehold adopt {order} --task trainingtask/digits -n demo")),
        "{message}"
    );
    assert!(message.contains(&format!("adopt {order} --end --account team-a")), "{message}");
    // Whoever ends it: once that is confirmed, the task orders again.
    world.order().expect("an order").slot.state = OrderState::Closed;
    world.block();
    assert!(!funds(&mut world), "a reorganisation may bring it back");
    world.blocks(4);
    assert!(funds(&mut world));
    assert_eq!(world.ordered_as.as_deref(), Some("demo/digits/uid-2"));
}

#[test]
fn what_was_delivered_holds_nothing_back() {
    let mut world = up_to(OrderState::Running);
    assert!(world.deliver());
    world.block();
    world.restore("uid-2", false);
    assert!(funds(&mut world));
}

#[test]
fn a_copy_under_another_name_is_a_task_of_its_own() {
    let mut world = up_to(OrderState::Running);
    world.restore("uid-2", false);
    world.ordered_as = Some("demo/other/uid-1".into());
    assert!(funds(&mut world));
}

#[rstest]
fn a_running_order_is_taken_over_and_brought_to_its_result(#[values(true, false)] keeps_records: bool) {
    let mut world = up_to(OrderState::Running);
    let order = world.order().expect("an order").id;
    world.restore("uid-2", keeps_records);
    world.adopts = Some(format!("{order:#x}"));
    let plan = world.pass();
    assert_eq!(plan.effects.last(), Some(&Effect::Adopt { order, attempt: 0 }));
    assert_eq!(world.reason(types::FUNDED).1, "AdoptingOrder");
    world.report = running_report();
    world.block();
    world.pass();
    assert_eq!(world.shows(), "Running");
    assert_eq!(world.status.order_id.as_ref().map(|id| id.0.clone()), Some(format!("{order:#x}")));
    assert!(world.deliver());
    world.blocks(4);
    world.delivery = good();
    world.until("Complete", |w| w.shows() == "Complete");
    assert_eq!(world.orders.len(), 1);
}

#[test]
fn a_lease_that_is_taken_over_and_lost_is_followed_by_an_order_of_ones_own() {
    let mut world = up_to(OrderState::Running);
    world.restore("uid-2", false);
    world.adopts = world.order().map(|order| format!("{:#x}", order.id));
    world.pass();
    world.pass();
    world.provider_closes();
    world.report = Report::NotServed;
    world.until("another order", |w| w.orders.len() == 2);
    assert!(world.orders.contains_key(&world.id(1)));
}

#[test]
fn an_order_whose_manifest_lies_elsewhere_is_cancelled_and_placed_anew() {
    let mut world = up_to(OrderState::Open);
    let first = world.order().expect("an order").id;
    world.restore("uid-2", false);
    world.adopts = Some(format!("{first:#x}"));
    world.until("cancelled", |w| w.orders[&first].slot.state == OrderState::Cancelled);
    world.until("another order", |w| w.orders.len() == 2);
    assert!(world.orders.contains_key(&world.id(1)));
}

#[test]
fn what_cannot_be_taken_over_is_refused_and_nothing_is_ordered() {
    let restored = |adopts: String| {
        let mut world = up_to(OrderState::Running);
        world.restore("uid-2", false);
        world.adopts = Some(adopts);
        world
    };
    let order = format!("{:#x}", World::new().id(0));
    let mut unknown = restored(format!("0x{}", "1".repeat(64)));
    let mut nonsense = restored("mine".into());
    let mut other = restored(order.clone());
    other.data = crate::task::validate::Found::Held { sha256: "00".repeat(32), size: 1 };
    let mut others = restored(order.clone());
    let mut stored = up_to(OrderState::Running).stored;
    stored[0].task.name = "somebody-elses".into();
    others.stored = stored;
    let mut over = restored(order);
    over.order().expect("an order").slot.state = OrderState::Closed;
    over.block();
    for (world, why) in [
        (&mut unknown, "knows no order"),
        (&mut nonsense, "`mine`"),
        (&mut other, "an input differs"),
        (&mut others, "belongs to the task demo/somebody-elses"),
        (&mut over, "is over (Closed)"),
    ] {
        assert!(!funds(world), "{why}");
        assert_eq!(world.reason(types::FUNDED).1, "AdoptionRefused", "{why}");
        let message = world.status.message.clone().expect("a message").0;
        assert!(message.contains(why), "{why} is not in {message}");
        assert!(world.stored.iter().all(|stored| stored.task.uid != "uid-2"));
    }
}
