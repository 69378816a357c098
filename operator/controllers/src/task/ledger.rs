//! What an account has promised and spent, per namespace: computed from stored
//! orders and the chain each time, never from any status.

use std::collections::BTreeSet;

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

/// What a settled order has cost its tenant.
pub fn cost(order: &Order) -> Amount {
    let put_in = order.terms.cap();
    // Without the settling event nothing is known to have come back.
    order.split.map_or(put_in, |split| put_in.saturating_sub(split.to_tenant))
}

pub fn entry(stored: &StoredOrder, view: &ChainView, failed: &BTreeSet<B256>) -> Option<Entry> {
    let money = match stage(Some(stored), &stored.id, view, failed) {
        Stage::Unplaced => Money::Promised(stored.terms.cap()),
        Stage::Lapsed => return None,
        Stage::Live(_) | Stage::Settling(_) => {
            let order = view.order(&stored.id)?;
            Money::Escrowed(Amount(order.slot.funds.0.saturating_add(order.slot.paid.0)).max(stored.terms.cap()))
        }
        Stage::Settled(_) => {
            let order = view.confirmed_order(&stored.id)?;
            Money::Spent { amount: cost(order), at: stored.bid_by() }
        }
    };
    Some(Entry { id: stored.id, namespace: stored.task.namespace.clone(), task_uid: stored.task.uid.clone(), money })
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
            Money::Spent { amount, at } if at >= since => sum.spent = sum.spent.saturating_add(amount),
            Money::Spent { .. } => {}
        }
        sum
    })
}
