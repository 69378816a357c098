//! Whether to bid on an order: a chain of small predicates. Read from top to
//! bottom, the list in [`check`] is the policy. Pure.

use freehold_api::provider::ComputeProviderSpec;
use freehold_chain::view::ChainView;
use freehold_core::money::{Amount, Rate};
use freehold_core::order::Order;
use freehold_core::spec::OrderSpec;
use freehold_core::units::glob;

/// A start window shorter than this many blocks leaves no time to receive inputs and to start.
const START_BLOCKS: u64 = 10;
/// Blocks that a bid needs to be in the chain before bidding ends.
const BID_BLOCKS: u64 = 2;
/// The no-show penalty is at most this part of the price: one in …
const PENALTY_SHARE: u128 = 10;
/// An escrow that lasts less is not worth the start.
const LEAST_SECONDS: u64 = 60;

/// Why there is no bid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

type Verdict = Result<(), Refusal>;

fn refuse(reason: &'static str, message: impl Into<String>) -> Verdict {
    Err(Refusal { reason, message: message.into() })
}

/// Limits of `spec.bidding` in the token's smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_leases: usize,
    pub max_bids_per_tenant: usize,
    pub max_penalty: Amount,
    pub max_bond: Amount,
    /// Seconds that a bid stands.
    pub validity: u64,
}

/// What counts against the limits, bids of this pass included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub leases: usize,
    pub bids: usize,
    /// Open bids on orders of the same tenant.
    pub tenant_bids: usize,
    /// Bonds of bids that are not in the chain yet.
    pub pending_bonds: Amount,
}

/// Everything a predicate may look at.
pub struct Case<'a> {
    pub provider: &'a ComputeProviderSpec,
    pub limits: &'a Limits,
    pub view: &'a ChainView,
    pub runtime_classes: &'a [String],
    pub order: &'a Order,
    pub spec: &'a OrderSpec,
    pub standing: Standing,
    /// A bid on this order was asked for before, whatever became of it.
    pub bid_before: bool,
}

impl Case<'_> {
    fn now(&self) -> u64 {
        self.view.latest.block.timestamp
    }
}

/// The policy: what has to hold before capacity and price are looked at.
pub fn check(case: &Case<'_>) -> Verdict {
    let chain: [fn(&Case<'_>) -> Verdict; 16] = [
        chain_is_fresh,
        not_cordoned,
        registered,
        not_our_own,
        once_an_order,
        time_to_bid,
        token_is_ours,
        class_is_offered,
        spec_is_usable,
        inputs_fit,
        attributes_match,
        kernel_is_acceptable,
        time_to_start,
        leases_left,
        tenant_within_cap,
        risk_within_limits,
    ];
    chain.iter().try_for_each(|predicate| predicate(case))?;
    bond_is_covered(case)
}

fn chain_is_fresh(case: &Case<'_>) -> Verdict {
    if case.view.health.allows_action() {
        return Ok(());
    }
    refuse("Blind", case.view.health.explain().1)
}

fn not_cordoned(case: &Case<'_>) -> Verdict {
    if !case.provider.cordoned {
        return Ok(());
    }
    refuse("Cordoned", "spec.cordoned is true; set it to false to bid again")
}

/// Tenants judge a bidder by its registry record.
fn registered(case: &Case<'_>) -> Verdict {
    if is_registered(case.provider, case.view) {
        return Ok(());
    }
    refuse("NotRegistered", "the ProviderRegistry does not hold this gateway and these attributes yet")
}

pub fn is_registered(provider: &ComputeProviderSpec, view: &ChainView) -> bool {
    view.providers.get(&view.account).is_some_and(|record| {
        record.gateway == provider.gateway_url.as_str() && record.attributes == provider.attributes
    })
}

fn not_our_own(case: &Case<'_>) -> Verdict {
    if case.order.slot.tenant != case.view.account {
        return Ok(());
    }
    refuse("OwnOrder", "the order was placed by the provider's own account")
}

/// A bid that lapsed or was taken back is not repeated: the goal's outcome stands for the order.
fn once_an_order(case: &Case<'_>) -> Verdict {
    if !case.bid_before {
        return Ok(());
    }
    refuse("AlreadyBid", "one bid an order: this one had its bid")
}

fn time_to_bid(case: &Case<'_>) -> Verdict {
    let least = case.now() + BID_BLOCKS * case.view.block_time;
    if case.order.slot.deadline >= least {
        return Ok(());
    }
    refuse("BiddingEnds", format!("bidding ends at {}, a bid cannot be in the chain before", case.order.slot.deadline))
}

fn token_is_ours(case: &Case<'_>) -> Verdict {
    let token = case.order.terms.token;
    if token == case.view.token {
        return Ok(());
    }
    refuse("OtherToken", format!("the order pays in token {token}, the account takes {}", case.view.token))
}

fn class_is_offered(case: &Case<'_>) -> Verdict {
    if case.order.terms.class == 0 && case.spec.class == "none" {
        return Ok(());
    }
    refuse("UnknownClass", format!("verification class `{}` is not offered, only `none` is", case.spec.class))
}

fn spec_is_usable(case: &Case<'_>) -> Verdict {
    case.spec.usable().or_else(|error| refuse("SpecUnusable", error.to_string()))
}

/// The pod's disk holds the inputs before anything else.
fn inputs_fit(case: &Case<'_>) -> Verdict {
    let inputs = case.spec.inputs.iter().fold(0_u64, |sum, input| sum.saturating_add(input.size));
    let disk = case.spec.resources.disk;
    if inputs <= disk {
        return Ok(());
    }
    refuse("InputsTooLarge", format!("the inputs have {inputs} bytes, the disk that is asked for has {disk}"))
}

fn attributes_match(case: &Case<'_>) -> Verdict {
    for (name, pattern) in &case.spec.require.attributes {
        let value = case.provider.attributes.get(name);
        if !value.is_some_and(|value| glob(pattern, value)) {
            let found = value.map_or("it is not set".to_owned(), |value| format!("it is `{value}`"));
            return refuse("AttributeMismatch", format!("attribute `{name}` has to match `{pattern}`, {found}"));
        }
    }
    Ok(())
}

fn kernel_is_acceptable(case: &Case<'_>) -> Verdict {
    match &case.spec.require.runtime_class {
        Some(class) if case.runtime_classes.contains(class) => Ok(()),
        Some(class) => refuse("NoRuntimeClass", format!("the cluster has no RuntimeClass `{class}`")),
        None if case.spec.require.accept_shared_kernel => Ok(()),
        None => refuse("SharedKernel", "the task neither accepts a shared kernel nor names a RuntimeClass"),
    }
}

fn time_to_start(case: &Case<'_>) -> Verdict {
    let (window, least) = (case.order.terms.startWindow.to::<u64>(), START_BLOCKS * case.view.block_time);
    if window >= least {
        return Ok(());
    }
    refuse("StartWindowTooShort", format!("the start window is {window} s, {least} s are needed"))
}

fn leases_left(case: &Case<'_>) -> Verdict {
    let used = case.standing.leases + case.standing.bids;
    if used < case.limits.max_leases {
        return Ok(());
    }
    refuse(
        "MaxLeases",
        format!("leases and open bids are {used}, spec.bidding.maxLeases is {}", case.limits.max_leases),
    )
}

fn tenant_within_cap(case: &Case<'_>) -> Verdict {
    if case.standing.tenant_bids < case.limits.max_bids_per_tenant {
        return Ok(());
    }
    refuse("TenantCap", format!("{} open bids hold capacity for this tenant already", case.standing.tenant_bids))
}

fn risk_within_limits(case: &Case<'_>) -> Verdict {
    let (penalty, bond) = (Amount(case.order.terms.noShowPenalty), Amount(case.order.terms.bond));
    let show = |amount: Amount| amount.format(case.view.decimals);
    if penalty > case.limits.max_penalty {
        let (asked, limit) = (show(penalty), show(case.limits.max_penalty));
        return refuse("PenaltyTooHigh", format!("the no-show penalty is {asked}, spec.bidding.maxPenalty is {limit}"));
    }
    // A penalty that dwarfs the price would be earned by making providers fail, not by having work done.
    let share = Amount(case.order.terms.cap().0 / PENALTY_SHARE);
    if penalty > share {
        let (asked, limit) = (show(penalty), show(share));
        return refuse("PenaltyTooHigh", format!("the no-show penalty is {asked}, a tenth of the price is {limit}"));
    }
    if bond > case.limits.max_bond {
        let (asked, limit) = (show(bond), show(case.limits.max_bond));
        return refuse("BondTooHigh", format!("the bond is {asked}, spec.bidding.maxBond is {limit}"));
    }
    Ok(())
}

fn bond_is_covered(case: &Case<'_>) -> Verdict {
    let needed = Amount(case.order.terms.bond).saturating_add(case.standing.pending_bonds);
    let reachable = reachable(case.view);
    if needed <= reachable {
        return Ok(());
    }
    let show = |amount: Amount| amount.format(case.view.decimals);
    refuse(
        "BalanceTooLow",
        format!(
            "bonds of {} are needed, {} can be had from ledger and wallet; send tokens to {}",
            show(needed),
            show(reachable),
            case.view.account
        ),
    )
}

/// What a bond can be taken from: the ledger, then the wallet (the account approves what its goals need).
fn reachable(view: &ChainView) -> Amount {
    view.balances.free.saturating_add(view.balances.wallet)
}

/// Last, once the price is known: the escrow has to last.
pub fn lasts_long_enough(order: &Order, rate: Rate) -> Verdict {
    let funded = rate.seconds_until(order.terms.cap()).min(order.terms.duration.to::<u64>());
    if rate.0 > 0 && funded >= LEAST_SECONDS {
        return Ok(());
    }
    refuse("EscrowTooShort", format!("at our rate the escrow lasts {funded} s, {LEAST_SECONDS} s are the least"))
}

#[cfg(test)]
#[path = "tests/policy.rs"]
mod tests;
