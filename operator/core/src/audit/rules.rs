//! Who may move an order, and when; and what storage must then say.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolValue;

use super::{Book, Entry, Settlement};
use crate::money::{Amount, RATE_SCALE};
use crate::order::{OrderSlot, OrderState, Terms};

impl Book {
    /// Deadlines are inclusive.
    pub(super) fn in_time(&mut self, entry: &Entry, deadline: u64) {
        if entry.time > deadline {
            self.odd(entry, format!("comes at {}, after its deadline {deadline}", entry.time));
        }
    }

    pub(super) fn by_provider(&mut self, entry: &Entry, by: Address) {
        if self.provider != Some(by) {
            self.odd(entry, format!("is by {by}, who does not hold the lease"));
        }
    }

    fn odd(&mut self, entry: &Entry, what: String) {
        self.find(format!("{} in block {} {what}", entry.event.name(), entry.block));
    }

    /// A bond that goes back to who bid.
    pub(super) fn release(&mut self, entry: &Entry, provider: Address, bond: Amount) {
        let held = self.bids.remove(&provider).map_or(Amount::ZERO, |(_, _, bond)| bond);
        self.want("bond", entry, bond, held);
    }

    /// A bid lost, or lapsed before it could win. The winner's bond is the lease's.
    pub(super) fn may_reclaim(&mut self, entry: &Entry, provider: Address) {
        let until = self.bids.get(&provider).map_or(0, |(_, valid_until, _)| *valid_until).min(self.deadline);
        if self.state == OrderState::Open && entry.time <= until {
            self.odd(entry, format!("takes back the bond of {provider}, whose bid stands until {until}"));
        } else if self.provider == Some(provider) {
            self.odd(entry, format!("takes back the bond of {provider}, who won"));
        }
    }

    /// The lease's end after a start or a top-up, from terms, rate and funds.
    pub(super) fn ends(&mut self, entry: &Entry, told: u64) {
        let due = self.started.unwrap_or(entry.time).saturating_add(self.lasts());
        if told != due {
            self.odd(entry, format!("names the end {told}, terms and rate give {due}"));
        }
        (self.end_at, self.deadline) = (due, due);
    }

    /// Seconds: the duration, or until the accrual reaches the funds, rounded up.
    fn lasts(&self) -> u64 {
        let duration = self.terms.as_ref().map_or(0, |terms| terms.duration.to::<u64>());
        if self.price == 0 {
            return duration;
        }
        let exhausted = (U256::from(self.funded.0) * U256::from(RATE_SCALE)).div_ceil(U256::from(self.price));
        u64::try_from(exhausted).unwrap_or(u64::MAX).min(duration)
    }

    pub(super) fn reviewed(&mut self, entry: &Entry, told: u64) {
        let window = self.terms.as_ref().map_or(0, |terms| terms.window.to::<u64>());
        let due = entry.time.saturating_add(window);
        if told != due {
            self.odd(entry, format!("names the end of review {told}, the terms give {due}"));
        }
        self.deadline = due;
    }

    /// The table of transitions, by the state that the order was in.
    pub(super) fn may_end(&mut self, entry: &Entry, end: &Settlement) {
        use OrderState::{Accepted, Awaiting, Cancelled, Closed, Declined, NoShow, Open, Rejected};
        let (tenant, provider) = (end.by == self.tenant, self.provider == Some(end.by));
        let passed = entry.time > self.deadline;
        let allowed = match (self.state, end.state) {
            (Open, Cancelled) | (_, Accepted) => tenant || passed,
            (Awaiting, Cancelled) => tenant,
            (_, Declined) => provider && !passed,
            (_, NoShow) => passed,
            (_, Closed) => tenant || provider || passed,
            (_, Rejected) => tenant && !passed,
            // From a state that it cannot follow: found elsewhere.
            _ => true,
        };
        if !allowed {
            let deadline = self.deadline;
            self.odd(
                entry,
                format!("is by {} at {}, which the deadline {deadline} does not allow", end.by, entry.time),
            );
        }
    }

    /// What the events told is what the contract stores.
    pub(super) fn compare(&mut self, slot: &OrderSlot) {
        self.same("the state", slot.state.name(), self.state.name());
        self.same("tenant", slot.tenant, self.tenant);
        if let Some(terms) = self.terms.clone() {
            self.same("the terms' hash", slot.terms_hash, stored_hash(&terms, self.result_hash));
        }
        if let Some(provider) = self.provider {
            self.same("provider", slot.provider, provider);
            self.same("the rate", slot.price, self.price);
        }
        if let Some(started) = self.started {
            self.same("the start", slot.started_at, started);
            self.same("the end", slot.end_at, self.delivered.unwrap_or(self.end_at));
        }
        let paid_at_end = self.end.map_or(Amount::ZERO, |end| end.to_provider.saturating_sub(self.bond));
        self.same("paid", slot.paid, self.settled.saturating_add(paid_at_end));
        let held = if self.state.is_settled() { Amount::ZERO } else { self.funded.saturating_sub(self.settled) };
        self.same("the order's funds", slot.funds, held);
    }

    fn same<T: PartialEq + std::fmt::Display>(&mut self, what: &str, stored: T, told: T) {
        if stored != told {
            self.find(format!("the contract says {what} {stored}, the events say {told}"));
        }
    }
}

/// The only trace of the terms in storage: with the result, once there is one.
pub(super) fn stored_hash(terms: &Terms, result: Option<B256>) -> B256 {
    match result {
        Some(result) => keccak256((terms.hash(), result).abi_encode_params()),
        None => terms.hash(),
    }
}
