//! The choice among the bids of an open order.

use std::collections::{BTreeMap, BTreeSet};

use freehold_chain::view::ProviderRecord;
use freehold_core::Address;
use freehold_core::order::{Bid, Order};
use freehold_core::record::Record;
use freehold_core::units::glob;

use super::reasons::leased;
use super::validate::Limits;

/// What bears on the choice beside the order itself.
#[derive(Clone, Debug)]
pub struct Market<'a> {
    pub limits: &'a Limits,
    pub providers: &'a BTreeMap<Address, ProviderRecord>,
    /// What providers did with their leases.
    pub records: &'a BTreeMap<Address, Record>,
    /// Providers whose result this task has rejected.
    pub excluded: &'a BTreeSet<Address>,
    /// Providers that this task was leased to in vain: taken only if nobody else will do.
    pub disappointing: &'a BTreeSet<Address>,
    /// Bids for which an acceptance has already failed.
    pub refused: &'a BTreeSet<(Address, u128, u64)>,
    /// Timestamp of the latest block.
    pub now: u64,
    pub block_time: u64,
    pub decimals: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    Take(Bid),
    /// More bids may come.
    Wait,
    /// The time for bids is over; why none was taken.
    Nothing {
        reason: &'static str,
        message: String,
    },
}

/// Waits for half of the bid window from when the order was decided, so that the first bid is not
/// the only one; then the suitable bid that is cheapest for its provider's record is taken as soon as there is one.
pub fn choose(order: &Order, market: &Market<'_>) -> Choice {
    let bid_by = order.terms.bidBy.to::<u64>();
    // An acceptance lands in the next block at the earliest.
    if market.now + market.block_time > bid_by {
        return nothing(order, market);
    }
    let decided_by = market.limits.bid_window / 2 + super::order::placement(market.block_time);
    if market.now + decided_by < bid_by {
        return Choice::Wait;
    }
    let suitable = order.bids.iter().filter(|bid| refusal(bid, market).is_none());
    let weighed = |bid: &Bid| market.records.get(&bid.provider).copied().unwrap_or_default().weigh(bid.price);
    let best = suitable
        .min_by_key(|bid| (market.disappointing.contains(&bid.provider), weighed(bid), bid.price, bid.provider));
    best.map_or(Choice::Wait, |bid| Choice::Take(*bid))
}

/// Why a bid will not do.
#[derive(Clone, Debug, PartialEq)]
enum Refusal {
    TooHigh,
    Expired,
    Provider(String),
}

/// The policy, a check a line.
fn refusal(bid: &Bid, market: &Market<'_>) -> Option<Refusal> {
    let checks: [fn(&Bid, &Market<'_>) -> Option<Refusal>; 6] =
        [addresses, history, attributes, auditors, validity, price];
    checks.iter().find_map(|check| check(bid, market))
}

fn addresses(bid: &Bid, market: &Market<'_>) -> Option<Refusal> {
    let wanted = &market.limits.providers.addresses;
    (!wanted.is_empty() && !wanted.contains(&bid.provider))
        .then(|| Refusal::Provider(format!("{} is not among market.providers.addresses", bid.provider)))
}

fn history(bid: &Bid, market: &Market<'_>) -> Option<Refusal> {
    market
        .excluded
        .contains(&bid.provider)
        .then(|| Refusal::Provider(format!("a result of {} was rejected before", bid.provider)))
}

fn attributes(bid: &Bid, market: &Market<'_>) -> Option<Refusal> {
    let Some(record) = market.providers.get(&bid.provider).filter(|r| !r.gateway.is_empty()) else {
        return Some(Refusal::Provider(format!("{} publishes no gateway", bid.provider)));
    };
    market.limits.providers.attributes.iter().find_map(|(key, pattern)| match record.attributes.get(key) {
        Some(value) if glob(pattern, value) => None,
        Some(value) => Some(Refusal::Provider(format!("{} has {key}={value}, asked is {pattern}", bid.provider))),
        None => Some(Refusal::Provider(format!("{} does not publish {key}", bid.provider))),
    })
}

fn auditors(bid: &Bid, market: &Market<'_>) -> Option<Refusal> {
    let filter = &market.limits.providers;
    let attested =
        |auditor: &Address| market.providers.get(&bid.provider).is_some_and(|r| r.attested_by.contains(auditor));
    if !filter.any_auditor.is_empty() && !filter.any_auditor.iter().any(attested) {
        return Some(Refusal::Provider(format!("no auditor of auditedBy.anyOf attests {}", bid.provider)));
    }
    filter
        .all_auditors
        .iter()
        .find(|auditor| !attested(auditor))
        .map(|auditor| Refusal::Provider(format!("auditor {auditor} does not attest {}", bid.provider)))
}

fn validity(bid: &Bid, market: &Market<'_>) -> Option<Refusal> {
    let failed = market.refused.contains(&(bid.provider, bid.price, bid.valid_until));
    (failed || bid.valid_until < market.now + market.block_time).then_some(Refusal::Expired)
}

fn price(bid: &Bid, market: &Market<'_>) -> Option<Refusal> {
    (bid.price > market.limits.max_rate.0).then_some(Refusal::TooHigh)
}

/// The most useful reason: a price that would do if raised, before a provider that would do if asked otherwise.
fn nothing(order: &Order, market: &Market<'_>) -> Choice {
    let refusals: Vec<(&Bid, Refusal)> =
        order.bids.iter().filter_map(|bid| refusal(bid, market).map(|why| (bid, why))).collect();
    let cheapest = refusals.iter().filter(|(_, why)| *why == Refusal::TooHigh).map(|(bid, _)| bid.price).min();
    if let Some(price) = cheapest {
        let hourly = freehold_core::money::Rate(price).hourly().format(market.decimals);
        let limit = market.limits.max_hourly.format(market.decimals);
        return Choice::Nothing {
            reason: leased::PRICE_TOO_HIGH,
            message: format!(
                "The cheapest bid is {hourly} an hour, market.maxRatePerHour is {limit}. Raise it, or wait for cheaper providers."
            ),
        };
    }
    let strangers = refusals.iter().find_map(|(_, why)| match why {
        Refusal::Provider(why) => Some(why.clone()),
        Refusal::TooHigh | Refusal::Expired => None,
    });
    if let Some(why) = strangers {
        return Choice::Nothing {
            reason: leased::NO_MATCHING_PROVIDER,
            message: format!(
                "{} bid(s), none of a provider that market.providers takes: {why}. Widen market.providers, or wait.",
                order.bids.len()
            ),
        };
    }
    Choice::Nothing {
        reason: leased::NO_BIDS,
        message: "No provider bid in time: none has the resources free that the task asks for. The order is repeated until activeDeadline; ask for less to be served sooner.".into(),
    }
}
