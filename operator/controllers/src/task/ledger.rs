//! What an account has promised and spent, per namespace: computed from stored
//! orders and the chain each time, never from any status.

use std::collections::{BTreeMap, BTreeSet};

use freehold_chain::view::ChainView;
use freehold_core::B256;
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderState};

use super::stored::StoredOrder;

/// One order of the account.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: B256,
    pub namespace: String,
    pub task_uid: String,
    pub money: Money,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Money {
    /// Written down, not on the chain yet: will still be taken from the balance.
    Promised(Amount),
    /// In the market's escrow.
    Escrowed(Amount),
    /// To be added to an escrow by a goal that no block shows yet.
    Raise(Amount),
    /// What a settled order has cost; `at` is when its bidding ended (unix seconds).
    Spent { amount: Amount, at: u64 },
}

/// Where a stored order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not on the chain; may still come.
    Unplaced,
    /// Not on the chain, and can never come.
    Lapsed,
    /// On the chain and not settled, as of the latest block.
    Live(OrderState),
    /// Settled, but not yet at confirmed depth.
    Settling(OrderState),
    /// Settled at confirmed depth.
    Settled(OrderState),
}

/// `failed`: orders whose placement has failed for good.
pub fn stage(stored: Option<&StoredOrder>, id: &B256, view: &ChainView, failed: &BTreeSet<B256>) -> Stage {
    if let Some(order) = view.confirmed_order(id).filter(|o| o.slot.state.is_settled()) {
        return Stage::Settled(order.slot.state);
    }
    match view.order(id).map(|o| o.slot.state).filter(|s| *s != OrderState::None) {
        Some(state) if state.is_settled() => Stage::Settling(state),
        Some(state) => Stage::Live(state),
        // An order is refused once its time for bids is over; at confirmed depth that cannot change any more.
        None if stored.is_none_or(|s| view.confirmed.block.timestamp > s.bid_by()) || failed.contains(id) => {
            Stage::Lapsed
        }
        None => Stage::Unplaced,
    }
}

/// What top-ups that were asked for bring escrows to, by order. A level, so that one that a block shows already does not
/// count twice.
pub type Raised = BTreeMap<B256, Amount>;

pub fn entry(stored: &StoredOrder, view: &ChainView, failed: &BTreeSet<B256>) -> Option<Entry> {
    let money = match stage(Some(stored), &stored.id, view, failed) {
        Stage::Unplaced => Money::Promised(stored.terms.cap()),
        Stage::Lapsed => return None,
        Stage::Live(_) | Stage::Settling(_) => Money::Escrowed(held(view.order(&stored.id)?, stored)),
        Stage::Settled(_) => {
            let order = view.confirmed_order(&stored.id)?;
            Money::Spent { amount: order.cost(), at: stored.bid_by() }
        }
    };
    Some(entry_of(stored, money))
}

/// What a top-up of the order will still take.
pub fn raise(stored: &StoredOrder, view: &ChainView, raised: &Raised) -> Option<Entry> {
    let order = view.order(&stored.id).filter(|order| order.slot.state == OrderState::Running)?;
    let more = raised.get(&stored.id)?.saturating_sub(held(order, stored));
    (more > Amount::ZERO).then(|| entry_of(stored, Money::Raise(more)))
}

fn held(order: &Order, stored: &StoredOrder) -> Amount {
    order.escrow().max(stored.terms.cap())
}

fn entry_of(stored: &StoredOrder, money: Money) -> Entry {
    Entry { id: stored.id, namespace: stored.task.namespace.clone(), task_uid: stored.task.uid.clone(), money }
}

/// Sums over some entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Promised or escrowed.
    pub committed: Amount,
    /// Promised alone.
    pub promised: Amount,
    /// Spent by orders of the period.
    pub spent: Amount,
    /// Orders that are not settled.
    pub live: u32,
}

/// `since`: unix seconds; what was spent before no longer counts.
pub fn totals<'a>(entries: impl Iterator<Item = &'a Entry>, since: u64) -> Totals {
    entries.fold(Totals::default(), |mut sum, entry| {
        match entry.money {
            Money::Promised(cap) => {
                sum.committed = sum.committed.saturating_add(cap);
                sum.promised = sum.promised.saturating_add(cap);
                sum.live += 1;
            }
            Money::Escrowed(cap) => {
                sum.committed = sum.committed.saturating_add(cap);
                sum.live += 1;
            }
            Money::Raise(more) => {
                sum.committed = sum.committed.saturating_add(more);
                sum.promised = sum.promised.saturating_add(more);
            }
            Money::Spent { amount, at } if at >= since => sum.spent = sum.spent.saturating_add(amount),
            Money::Spent { .. } => {}
        }
        sum
    })
}
