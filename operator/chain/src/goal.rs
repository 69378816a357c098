//! What a goal means against the chain: reached already, possible now, not yet,
//! or never. Pure; deadlines are judged by the block's own time.

use alloy::primitives::{Address, B256};
use freehold_api::Goal;
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderState};

use crate::calldata::{Error, StoredOrder, address_of, amount_of, hash_of, integer_of, order_of, price_of, to_settle};
use crate::view::{ChainView, Snapshot};

/// Where a goal stands at one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds; nothing has to be sent.
    Reached(String),
    /// A transaction would reach it.
    Possible,
    /// Somebody or the clock must move first.
    NotYet(String),
    /// It makes no sense any more.
    Impossible(String),
}

use Standing::{Impossible, NotYet, Possible, Reached};

/// Where a goal stands at the latest block and at confirmed depth together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub latest: Standing,
    pub confirmed: Standing,
}

impl Status {
    /// What to do about a goal that has no nonce. It ends only on what is
    /// confirmed: a reorganisation may bring back what the latest block lost.
    pub fn verdict(&self) -> Standing {
        match (&self.latest, &self.confirmed) {
            (Reached(why), Reached(_)) => Reached(why.clone()),
            (Impossible(why), Impossible(_)) => Impossible(why.clone()),
            (Reached(why), _) => NotYet(format!("{why}; waits for confirmations")),
            (Impossible(why), _) => NotYet(format!("{why}; waits for confirmations")),
            (Possible, _) => Possible,
            (NotYet(why), _) => NotYet(why.clone()),
        }
    }
}

/// Where `goal` stands. An order that is to be placed is judged by `stored`.
pub fn status_of(goal: &Goal, view: &ChainView, stored: Option<&StoredOrder>) -> Result<Status, Error> {
    Ok(Status {
        latest: standing(goal, view, &view.latest, stored)?,
        confirmed: standing(goal, view, &view.confirmed, stored)?,
    })
}

/// Tokens that the goal takes from the account when it is reached.
pub fn cost_of(goal: &Goal, view: &ChainView, stored: Option<&StoredOrder>) -> Result<Amount, Error> {
    Ok(match goal {
        Goal::PlaceOrder { .. } => {
            let terms = &stored.ok_or(Error::NotStored)?.terms;
            Amount(terms.maxPrice).saturating_add(Amount(terms.auditReserve))
        }
        Goal::Bid { .. } => match own_order(goal, view)? {
            Some(order) if !order.bids.iter().any(|bid| bid.provider == view.account) => Amount(order.terms.bond),
            _ => Amount::ZERO,
        },
        Goal::TopUp { amount, .. } => amount_of("amount", amount, view.decimals)?,
        _ => Amount::ZERO,
    })
}

fn own_order<'a>(goal: &Goal, view: &'a ChainView) -> Result<Option<&'a Order>, Error> {
    Ok(order_of(goal)?.and_then(|id| view.order(&id)).map(AsRef::as_ref))
}

fn standing(goal: &Goal, view: &ChainView, at: &Snapshot, stored: Option<&StoredOrder>) -> Result<Standing, Error> {
    let look = Look { account: view.account, now: at.block.timestamp };
    match goal {
        Goal::Approve { amount, .. } => {
            let enough = view.balances.allowance >= amount_of("amount", amount, view.decimals)?;
            Ok(if enough { Reached("the allowance is high enough".into()) } else { Possible })
        }
        Goal::Withdraw { .. } => {
            let unpaid: Amount = to_settle(goal, view)?.iter().map(|order| order.unpaid(look.now)).sum();
            let nothing = view.balances.free.saturating_add(unpaid) == Amount::ZERO;
            Ok(if nothing { Reached("nothing is free in the Market's ledger".into()) } else { Possible })
        }
        Goal::Register { gateway, attributes } => Ok(registered(view, gateway.as_str(), attributes)),
        // Whether the nonce is used is the outbox's to say.
        Goal::Void { .. } => Ok(Possible),
        Goal::PlaceOrder { order_id, .. } => Ok(placed(hash_of("orderId", order_id)?, at, stored)),
        Goal::Reclaim { order_id } => {
            let order = at.orders.get(&hash_of("orderId", order_id)?);
            Ok(order
                .map_or_else(|| Reached("the account has no bond on the order".into()), |order| look.reclaim(order)))
        }
        _ => {
            let id = order_of(goal)?.unwrap_or_default();
            let Some(order) = at.orders.get(&id) else { return Ok(unseen(goal, id)) };
            look.at_order(goal, order)
        }
    }
}

/// A view holds the account's own orders and bonds, and open orders of others: what is not there
/// is not on the chain yet, or has nothing to do with the account any more.
fn unseen(goal: &Goal, id: B256) -> Standing {
    match goal {
        Goal::Bid { .. } => Impossible(format!("order {id} is not open for bids")),
        Goal::Unbid { .. } => Reached("the account has no bid on the order".into()),
        _ => NotYet(format!("order {id} is not on the chain")),
    }
}

fn registered(view: &ChainView, gateway: &str, attributes: &str) -> Standing {
    let asked = serde_json::from_str(attributes).unwrap_or_default();
    match view.providers.get(&view.account) {
        Some(known) if known.gateway == gateway && known.attributes == asked => {
            Reached("the registry says so already".into())
        }
        _ => Possible,
    }
}

fn placed(id: B256, at: &Snapshot, stored: Option<&StoredOrder>) -> Standing {
    let Some(order) = at.orders.get(&id) else {
        return match stored {
            Some(stored) if stored.terms.bidBy.to::<u64>() <= at.block.timestamp => Impossible(format!(
                "the order's time for bids ended at {} (Unix time) before it was placed",
                stored.terms.bidBy
            )),
            Some(_) => Possible,
            None => Impossible("the order to place is not stored any more".into()),
        };
    };
    match stored {
        Some(stored) if stored.terms != order.terms => Impossible(format!("order {id} stands with other terms")),
        _ => Reached("the order stands".into()),
    }
}

/// Who looks, and when.
#[derive(Clone, Copy)]
struct Look {
    account: Address,
    now: u64,
}

impl Look {
    fn is_tenant(self, order: &Order) -> bool {
        order.slot.tenant == self.account
    }

    fn is_provider(self, order: &Order) -> bool {
        order.slot.provider == self.account
    }

    /// The current deadline has passed: anybody may move the order on.
    fn overdue(self, order: &Order) -> bool {
        self.now > order.slot.deadline
    }

    fn at_order(self, goal: &Goal, order: &Order) -> Result<Standing, Error> {
        Ok(match goal {
            Goal::AcceptBid { provider, price, valid_until, .. } => {
                self.accept_bid(order, address_of("provider", provider)?, price_of(price)?, u64::from(*valid_until))
            }
            Goal::CancelOrder { .. } => self.cancel(order),
            Goal::CloseOrder { .. } => self.close(order),
            Goal::AcceptResult { result_hash, .. } => self.accept_result(order, hash_of("resultHash", result_hash)?),
            Goal::RejectResult { result_hash, .. } => self.reject_result(order, hash_of("resultHash", result_hash)?),
            Goal::NoShow { .. } => self.no_show(order),
            Goal::TopUp { escrow, .. } => self.top_up(order, integer_of("escrow", escrow)?),
            Goal::Bid { price, valid_until, .. } => self.bid(order, price_of(price)?, u64::from(*valid_until)),
            Goal::Unbid { .. } => self.unbid(order),
            Goal::Start { .. } => self.start(order),
            Goal::Decline { .. } => self.decline(order),
            Goal::Deliver { result_hash, .. } => self.deliver(order, hash_of("resultHash", result_hash)?),
            Goal::Settle { .. } => settle(order),
            Goal::Reclaim { .. } => self.reclaim(order),
            Goal::Approve { .. }
            | Goal::PlaceOrder { .. }
            | Goal::Withdraw { .. }
            | Goal::Register { .. }
            | Goal::Void { .. } => Possible,
        })
    }

    fn accept_bid(self, order: &Order, provider: Address, price: u128, valid_until: u64) -> Standing {
        if order.slot.state != OrderState::Open {
            return if order.slot.provider == provider {
                Reached("the bid was accepted".into())
            } else {
                impossible(order, "accepted")
            };
        }
        let stands = order
            .bids
            .iter()
            .any(|bid| bid.provider == provider && bid.price == price && bid.valid_until == valid_until);
        let until = valid_until.min(order.slot.deadline);
        match stands {
            false => Impossible(format!("{provider} has no such bid on the order any more")),
            true if self.now > until => Impossible(format!("the bid could be accepted until {until} (Unix time)")),
            true => Possible,
        }
    }

    fn cancel(self, order: &Order) -> Standing {
        match order.slot.state {
            OrderState::Open if self.is_tenant(order) || self.overdue(order) => Possible,
            OrderState::Open => {
                NotYet(format!("others than the tenant may cancel after {} (Unix time)", order.slot.deadline))
            }
            OrderState::Awaiting if self.is_tenant(order) => Possible,
            state if state.is_settled() => over(order),
            _ => impossible(order, "cancelled"),
        }
    }

    fn close(self, order: &Order) -> Standing {
        match order.slot.state {
            OrderState::Running if self.is_tenant(order) || self.is_provider(order) || self.overdue(order) => Possible,
            OrderState::Running => NotYet(format!("strangers may close after {} (Unix time)", order.slot.deadline)),
            state if state.is_settled() => over(order),
            _ => impossible(order, "closed"),
        }
    }

    fn accept_result(self, order: &Order, result: B256) -> Standing {
        match order.slot.state {
            OrderState::Accepted => over(order),
            OrderState::Delivered if order.result_hash != Some(result) => other_result(order),
            OrderState::Delivered if self.is_tenant(order) || self.overdue(order) => Possible,
            OrderState::Delivered => NotYet(format!("silence accepts after {} (Unix time)", order.slot.deadline)),
            OrderState::Running => NotYet("nothing was delivered yet".into()),
            _ => impossible(order, "accepted"),
        }
    }

    fn reject_result(self, order: &Order, result: B256) -> Standing {
        match order.slot.state {
            OrderState::Rejected => over(order),
            OrderState::Delivered if order.result_hash != Some(result) => other_result(order),
            OrderState::Delivered if !self.overdue(order) => Possible,
            OrderState::Delivered => {
                Impossible(format!("the result could be refused until {} (Unix time)", order.slot.deadline))
            }
            OrderState::Running => NotYet("nothing was delivered yet".into()),
            _ => impossible(order, "rejected"),
        }
    }

    fn no_show(self, order: &Order) -> Standing {
        match order.slot.state {
            OrderState::NoShow => over(order),
            OrderState::Awaiting if self.overdue(order) => Possible,
            OrderState::Awaiting => NotYet(format!("the provider may start until {} (Unix time)", order.slot.deadline)),
            _ => impossible(order, "recorded as a no-show"),
        }
    }

    fn top_up(self, order: &Order, escrow: u128) -> Standing {
        let held = order.escrow().0;
        match order.slot.state {
            OrderState::Running if held > escrow => Reached(format!("the escrow was raised to {held}")),
            OrderState::Running if held < escrow => Impossible(format!("the escrow is {held}, not {escrow}")),
            OrderState::Running if !self.overdue(order) => Possible,
            OrderState::Open | OrderState::Awaiting => NotYet("the lease has not started".into()),
            _ => impossible(order, "topped up"),
        }
    }

    fn bid(self, order: &Order, price: u128, valid_until: u64) -> Standing {
        let own = order.bids.iter().find(|bid| bid.provider == self.account);
        match order.slot.state {
            OrderState::Open if own.is_some_and(|bid| bid.price == price && bid.valid_until == valid_until) => {
                Reached("the bid stands".into())
            }
            OrderState::Open if self.overdue(order) => {
                Impossible(format!("bids ended at {} (Unix time)", order.slot.deadline))
            }
            OrderState::Open if self.now > valid_until => {
                Impossible(format!("the bid would have been valid until {valid_until} (Unix time)"))
            }
            OrderState::Open => Possible,
            _ if self.is_provider(order) => Reached("the bid won".into()),
            _ => impossible(order, "bid on"),
        }
    }

    fn unbid(self, order: &Order) -> Standing {
        let own = order.bids.iter().any(|bid| bid.provider == self.account);
        match order.slot.state {
            _ if !own => Reached("the account has no bid on the order".into()),
            OrderState::Open => Possible,
            _ => Impossible("the order is no longer open; the bond comes back by reclaim".into()),
        }
    }

    fn reclaim(self, order: &Order) -> Standing {
        let Some(bid) = order.bids.iter().find(|bid| bid.provider == self.account) else {
            return Reached("the account has no bond on the order".into());
        };
        let until = bid.valid_until.min(order.slot.deadline);
        match order.slot.state {
            _ if self.is_provider(order) => {
                Impossible("the bid won; its bond comes back when the lease settles".into())
            }
            OrderState::Open if self.now <= until => NotYet(format!("the bid can win until {until} (Unix time)")),
            _ => Possible,
        }
    }

    fn start(self, order: &Order) -> Standing {
        match order.slot.state {
            OrderState::Awaiting if !self.is_provider(order) => Impossible("another provider holds the lease".into()),
            OrderState::Awaiting if self.overdue(order) => {
                Impossible(format!("the lease had to start by {} (Unix time)", order.slot.deadline))
            }
            OrderState::Awaiting => Possible,
            OrderState::Open => NotYet("the bid was not accepted yet".into()),
            _ if order.slot.started_at != 0 && self.is_provider(order) => Reached("the lease was started".into()),
            _ => impossible(order, "started"),
        }
    }

    fn decline(self, order: &Order) -> Standing {
        match order.slot.state {
            OrderState::Declined => over(order),
            OrderState::Awaiting if self.is_provider(order) && !self.overdue(order) => Possible,
            _ => impossible(order, "declined"),
        }
    }

    fn deliver(self, order: &Order, result: B256) -> Standing {
        match order.slot.state {
            _ if order.result_hash == Some(result) => Reached("the result is on the chain".into()),
            OrderState::Running if !self.is_provider(order) => Impossible("another provider holds the lease".into()),
            OrderState::Running if self.overdue(order) => {
                Impossible(format!("the lease ended at {} (Unix time)", order.slot.deadline))
            }
            OrderState::Running => Possible,
            OrderState::Awaiting => NotYet("the lease has not started".into()),
            _ => impossible(order, "delivered"),
        }
    }
}

fn settle(order: &Order) -> Standing {
    match order.slot.state {
        OrderState::Running | OrderState::Delivered => Possible,
        state if state.is_settled() => over(order),
        _ => NotYet("the lease has not started".into()),
    }
}

fn over(order: &Order) -> Standing {
    Reached(format!("the order is {}", order.slot.state.name()))
}

fn impossible(order: &Order, what: &str) -> Standing {
    Impossible(format!("the order is {} and cannot be {what}", order.slot.state.name()))
}

fn other_result(order: &Order) -> Standing {
    let found = order.result_hash.map_or_else(|| "unknown".to_owned(), |hash| hash.to_string());
    Impossible(format!("another result was delivered ({found})"))
}

#[cfg(test)]
mod tests;
