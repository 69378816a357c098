//! An order's history rebuilt from its events alone, and whether its sums hold.
//!
//! Every amount and deadline that an event names is computed again from the
//! terms, the bid and the block times, and who moved when is held against the
//! table of transitions (design: protocol, section 3); every token that went in
//! must have come out. What does not fit is a finding, and one finding is
//! enough to fail an audit.

use alloy_primitives::{Address, B256};

use crate::money::{Amount, Rate};
use crate::order::{OrderSlot, OrderState, Terms};

mod report;
mod rules;
#[cfg(test)]
mod tests;

pub use report::{Report, TermsReport, Totals, Transition};

/// How a settling transition split the money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub state: OrderState,
    pub by: Address,
    pub accrued: Amount,
    pub to_provider: Amount,
    pub to_tenant: Amount,
    pub burned: Amount,
}

/// The Market's events about one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Ordered {
        tenant: Address,
        salt: B256,
        terms: Box<Terms>,
        spec: Vec<u8>,
    },
    BidPlaced {
        provider: Address,
        price: u128,
        valid_until: u64,
        bond: Amount,
    },
    Unbid {
        provider: Address,
        bond: Amount,
    },
    Reclaimed {
        provider: Address,
        bond: Amount,
    },
    Leased {
        provider: Address,
        seq: u64,
        price: u128,
        refund: Amount,
    },
    Started {
        provider: Address,
        end_at: u64,
    },
    ToppedUp {
        amount: Amount,
        end_at: u64,
    },
    /// A part of the accrual moved to the provider's ledger before the end.
    Settled {
        by: Address,
        accrued: Amount,
        to_provider: Amount,
        to_tenant: Amount,
        burned: Amount,
    },
    Delivered {
        result_hash: B256,
        accrued: Amount,
        review_by: u64,
    },
    Ended(Settlement),
}

impl Event {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ordered { .. } => "Ordered",
            Self::BidPlaced { .. } => "BidPlaced",
            Self::Unbid { .. } => "Unbid",
            Self::Reclaimed { .. } => "Reclaimed",
            Self::Leased { .. } => "Leased",
            Self::Started { .. } => "Started",
            Self::ToppedUp { .. } => "ToppedUp",
            Self::Settled { .. } => "Settled",
            Self::Delivered { .. } => "Delivered",
            Self::Ended(settlement) => settlement.state.name(),
        }
    }
}

/// An event and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub block: u64,
    /// Unix seconds of the block.
    pub time: u64,
    pub transaction: B256,
    pub event: Event,
}

/// What the walk over the events has seen so far.
#[derive(Default)]
struct Book {
    terms: Option<Box<Terms>>,
    tenant: Address,
    spec: Vec<u8>,
    provider: Option<Address>,
    price: u128,
    funded: Amount,
    bond: Amount,
    bids: std::collections::BTreeMap<Address, (u128, u64, Amount)>,
    started: Option<u64>,
    end_at: u64,
    /// Of the state, in unix seconds: bidBy, startBy, end, reviewBy.
    deadline: u64,
    delivered: Option<u64>,
    result_hash: Option<B256>,
    settled: Amount,
    end: Option<Settlement>,
    state: OrderState,
    findings: Vec<String>,
}

/// Rebuilds the order `id` from `entries` (in chain order) and holds it against its storage.
pub fn audit(
    id: B256,
    expected_id: impl Fn(Address, B256) -> B256,
    entries: &[Entry],
    slot: &OrderSlot,
) -> Option<Report> {
    let mut book = Book::default();
    for entry in entries {
        book.read(id, &expected_id, entry);
    }
    let terms = book.terms.clone()?;
    book.compare(slot);
    book.balance();
    Some(book.report(id, *terms, entries))
}

impl Book {
    fn find(&mut self, finding: String) {
        self.findings.push(finding);
    }

    fn want(&mut self, what: &str, at: &Entry, found: Amount, expected: Amount) {
        if found != expected {
            self.find(format!(
                "{} of {} in block {} is {found}, the terms and block times give {expected}",
                what,
                at.event.name(),
                at.block
            ));
        }
    }

    fn step(&mut self, entry: &Entry, from: &[OrderState], to: OrderState) {
        if !from.contains(&self.state) {
            self.find(format!("{} in block {} follows state {}", entry.event.name(), entry.block, self.state.name()));
        }
        self.state = to;
    }

    fn read(&mut self, id: B256, expected_id: &impl Fn(Address, B256) -> B256, entry: &Entry) {
        use OrderState::{Awaiting, Delivered, None, Open, Running};
        match &entry.event {
            Event::Ordered { tenant, salt, terms, spec } => {
                self.step(entry, &[None], Open);
                if expected_id(*tenant, *salt) != id {
                    self.find(format!("the order id does not follow from tenant {tenant} and salt {salt}"));
                }
                if alloy_primitives::keccak256(spec) != terms.specHash {
                    self.find("the published spec is not the one that the terms name".to_owned());
                }
                self.tenant = *tenant;
                self.deadline = terms.bidBy.to::<u64>();
                self.funded = Amount(terms.maxPrice.saturating_add(terms.auditReserve));
                self.spec = spec.clone();
                self.terms = Some(terms.clone());
            }
            Event::BidPlaced { provider, price, valid_until, bond } => {
                self.step(entry, &[Open], Open);
                self.in_time(entry, self.deadline.min(*valid_until));
                let due = self.terms.as_ref().map_or(Amount::ZERO, |terms| Amount(terms.bond));
                self.want("bond", entry, *bond, due);
                self.bids.insert(*provider, (*price, *valid_until, *bond));
            }
            Event::Unbid { provider, bond } => {
                self.step(entry, &[Open], Open);
                self.release(entry, *provider, *bond);
            }
            Event::Reclaimed { provider, bond } => {
                self.may_reclaim(entry, *provider);
                self.release(entry, *provider, *bond);
            }
            Event::Leased { provider, price, refund, .. } => {
                self.step(entry, &[Open], Awaiting);
                match self.bids.get(provider).copied() {
                    Some((bid, valid_until, bond)) if bid == *price => {
                        self.in_time(entry, self.deadline.min(valid_until));
                        self.bond = bond;
                    }
                    _ => self.find(format!("the lease names price {price}, {provider} did not bid that")),
                }
                self.want("refund", entry, *refund, Amount::ZERO);
                self.provider = Some(*provider);
                self.price = *price;
                let window = self.terms.as_ref().map_or(0, |terms| terms.startWindow.to::<u64>());
                self.deadline = entry.time.saturating_add(window);
            }
            Event::Started { provider, end_at } => {
                self.step(entry, &[Awaiting], Running);
                self.in_time(entry, self.deadline);
                self.by_provider(entry, *provider);
                self.started = Some(entry.time);
                self.ends(entry, *end_at);
            }
            Event::ToppedUp { amount, end_at } => {
                self.step(entry, &[Running], Running);
                self.in_time(entry, self.deadline);
                self.funded = self.funded.saturating_add(*amount);
                self.ends(entry, *end_at);
            }
            Event::Settled { accrued, to_provider, to_tenant, burned, .. } => {
                self.step(entry, &[Running, Delivered], self.state);
                let due = self.accrued(entry.time);
                self.want("accrual", entry, *accrued, due);
                self.want("share of the tenant", entry, *to_tenant, Amount::ZERO);
                self.want("burned amount", entry, *burned, Amount::ZERO);
                let released = self.released(due).saturating_sub(self.settled);
                self.want("payment", entry, *to_provider, released);
                self.settled = self.settled.saturating_add(*to_provider);
            }
            Event::Delivered { result_hash, accrued, review_by } => {
                self.step(entry, &[Running], Delivered);
                self.in_time(entry, self.deadline);
                let due = self.accrued(entry.time);
                self.want("accrual", entry, *accrued, due);
                self.reviewed(entry, *review_by);
                self.delivered = Some(entry.time);
                self.result_hash = Some(*result_hash);
            }
            Event::Ended(settlement) => self.settle(entry, settlement),
        }
    }

    fn settle(&mut self, entry: &Entry, end: &Settlement) {
        use OrderState::{Accepted, Awaiting, Cancelled, Closed, Declined, Delivered, NoShow, Open, Rejected, Running};
        let from: &[OrderState] = match end.state {
            Cancelled => &[Open, Awaiting],
            Declined | NoShow => &[Awaiting],
            Closed => &[Running],
            Accepted | Rejected => &[Delivered],
            _ => &[],
        };
        let was_awaiting = self.state == Awaiting;
        self.may_end(entry, end);
        self.step(entry, from, end.state);
        let Some(terms) = self.terms.clone() else { return };
        let penalty = Amount(terms.noShowPenalty);
        let total = if self.started.is_some() { self.accrued(entry.time) } else { Amount::ZERO };
        let holdback = total.saturating_sub(self.released(total));
        let (earned, burned) = match end.state {
            Cancelled if was_awaiting => (penalty.min(self.funded).saturating_add(self.bond), Amount::ZERO),
            Declined => (self.bond.saturating_sub(Amount(penalty.0 / 10)), Amount(penalty.0 / 10)),
            NoShow => (self.bond.saturating_sub(penalty), Amount::ZERO),
            Closed if end.by == self.tenant => (total.saturating_add(self.bond), Amount::ZERO),
            Closed => (total.saturating_sub(holdback).saturating_add(self.bond), Amount::ZERO),
            Accepted => (total.saturating_add(self.bond), Amount::ZERO),
            Rejected => (total.saturating_sub(holdback).saturating_add(self.bond), holdback),
            _ => (Amount::ZERO, Amount::ZERO),
        };
        self.want("accrual", entry, end.accrued, total);
        self.want("share of the provider", entry, end.to_provider, earned.saturating_sub(self.settled));
        self.want("burned amount", entry, end.burned, burned);
        self.end = Some(*end);
    }

    fn accrued(&self, now: u64) -> Amount {
        let Some(started) = self.started else { return Amount::ZERO };
        let until = self.delivered.unwrap_or(now).min(self.end_at).max(started);
        Rate(self.price).accrued(until - started, self.funded)
    }

    /// What a provider may have before the verdict: the accrual less the holdback, floored.
    fn released(&self, total: Amount) -> Amount {
        let kept = self.terms.as_ref().map_or(0, |terms| 10_000u16.saturating_sub(terms.holdbackBps));
        total.bps(kept)
    }

    /// Everything that went in has come out, once the order has ended.
    fn balance(&mut self) {
        let Some(end) = self.end else { return };
        // A bond is part of the order only from the acceptance on; others return by `reclaim`.
        let paid_in = self.funded.saturating_add(self.bond);
        let paid_out: Amount = [self.settled, end.to_provider, end.to_tenant, end.burned].into_iter().sum();
        if paid_in != paid_out {
            self.find(format!("the sums do not balance: {paid_in} went in (funds and bond), {paid_out} came out"));
        }
    }

    fn report(self, id: B256, terms: Terms, entries: &[Entry]) -> Report {
        let (to_provider, to_tenant, burned) = match self.end {
            Some(end) => (self.settled.saturating_add(end.to_provider), end.to_tenant, end.burned),
            None => (self.settled.saturating_add(self.bond), Amount::ZERO, Amount::ZERO),
        };
        Report {
            order_id: id.to_string(),
            state: self.state.name().to_owned(),
            tenant: self.tenant.to_string(),
            provider: self.provider.map(|provider| provider.to_string()),
            token: terms.token.to_string(),
            rate: self.provider.map(|_| self.price.to_string()),
            result_hash: self.result_hash.map(|hash| hash.to_string()),
            spec: serde_json::from_slice(&self.spec).unwrap_or(serde_json::Value::Null),
            terms: TermsReport::from(&terms),
            transitions: entries.iter().map(transition).collect(),
            totals: Totals {
                funded: self.funded.to_string(),
                bond: self.bond.to_string(),
                paid: to_provider.saturating_sub(self.bond).to_string(),
                refunded: to_tenant.to_string(),
                burned: burned.to_string(),
                bond_lost: self.bond.saturating_sub(to_provider).to_string(),
            },
            findings: self.findings,
        }
    }
}

fn transition(entry: &Entry) -> Transition {
    let money = match &entry.event {
        Event::Ordered { terms, .. } => format!("tenant funds {}", terms.maxPrice),
        Event::BidPlaced { price, bond, .. } => format!("rate {price}, bond {bond}"),
        Event::Unbid { bond, .. } | Event::Reclaimed { bond, .. } => format!("bond {bond} back"),
        Event::Leased { price, .. } => format!("rate {price}"),
        Event::Started { .. } => String::new(),
        Event::ToppedUp { amount, .. } => format!("tenant adds {amount}"),
        Event::Settled { accrued, to_provider, .. } => format!("accrued {accrued}, provider {to_provider}"),
        Event::Delivered { accrued, .. } => format!("accrued {accrued}"),
        Event::Ended(end) => {
            format!(
                "accrued {}, provider {}, tenant {}, burned {}",
                end.accrued, end.to_provider, end.to_tenant, end.burned
            )
        }
    };
    let time = i64::try_from(entry.time).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    Transition {
        event: entry.event.name().to_owned(),
        block: entry.block,
        time: time.map(|time| time.to_string()).unwrap_or_default(),
        transaction: entry.transaction.to_string(),
        money,
    }
}
