//! How an order that nobody wants any more is brought to its end.

use freehold_api::Goal;
use freehold_core::order::{Order, OrderState};

/// The order's current deadline has passed at `now`, the latest block's timestamp.
pub fn overdue(order: &Order, now: u64) -> bool {
    now > order.slot.deadline
}

/// What ends the order soonest and at the least cost; nothing while somebody else must move first.
pub fn end(order: &Order, now: u64) -> Option<Goal> {
    let order_id = format!("{:#x}", order.id).into();
    match order.slot.state {
        // A missed start costs the provider, a cancellation after it the tenant.
        OrderState::Awaiting if overdue(order, now) => Some(Goal::NoShow { order_id }),
        OrderState::Open | OrderState::Awaiting => Some(Goal::CancelOrder { order_id }),
        OrderState::Running => Some(Goal::CloseOrder { order_id }),
        OrderState::Delivered if overdue(order, now) => accept(order),
        OrderState::Delivered
        | OrderState::None
        | OrderState::Cancelled
        | OrderState::Declined
        | OrderState::NoShow
        | OrderState::Closed
        | OrderState::Accepted
        | OrderState::Rejected
        | OrderState::Killed
        | OrderState::Failed
        | OrderState::Proved
        | OrderState::Valid
        | OrderState::Invalid
        | OrderState::Stuck => None,
    }
}

/// Silence accepts a result only once somebody says so to the contract: the provider may never do it.
pub fn accept(order: &Order) -> Option<Goal> {
    let result_hash = format!("{:#x}", order.result_hash?).into();
    Some(Goal::AcceptResult { order_id: format!("{:#x}", order.id).into(), result_hash })
}
