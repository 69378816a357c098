//! What a pass has to say about a ComputeProvider. Pure.

use std::collections::BTreeMap;

use freehold_api::ComputeProvider;
use freehold_api::conditions::{self, Claim, types};
use freehold_api::provider::ComputeProviderStatus;
use freehold_chain::view::ChainView;
use freehold_core::money::Amount;
use jiff::Timestamp;

use super::plan::Plan;
use super::policy::{Refusal, is_registered};

/// What became of a pass.
pub enum Outcome<'a> {
    /// The chain has not been read yet.
    NoView,
    Invalid {
        view: &'a ChainView,
        error: String,
    },
    Planned {
        view: &'a ChainView,
        plan: &'a Plan,
        leases: usize,
    },
}

pub fn status(
    provider: &ComputeProvider,
    outcome: &Outcome<'_>,
    gateway: Option<Result<(), String>>,
    now: Timestamp,
) -> ComputeProviderStatus {
    let mut out = provider.status.clone().unwrap_or_default();
    let generation = provider.metadata.generation;
    out.observed_generation = generation;
    let mut claims = vec![bidding(provider, outcome)];
    match outcome {
        Outcome::NoView => {}
        Outcome::Invalid { view, .. } => {
            claims.push(registered(provider, view));
            chain_figures(&mut out, view);
        }
        Outcome::Planned { view, plan, leases } => {
            claims.push(registered(provider, view));
            chain_figures(&mut out, view);
            plan_figures(&mut out, plan, *leases);
        }
    }
    claims.extend(gateway.map(|answer| reachable(provider, answer)));
    for claim in claims {
        conditions::set(&mut out.conditions, claim, generation, now);
    }
    out
}

fn chain_figures(out: &mut ComputeProviderStatus, view: &ChainView) {
    out.address = Some(view.account.to_string().into());
    if !view.health.allows_action() {
        return;
    }
    let ours = view.latest.orders.values().filter(|order| order.slot.provider == view.account);
    // What was paid out of the escrow, the bond not counted: so the contract keeps it.
    let earned: Amount = ours.map(|order| order.slot.paid).sum();
    out.earned = Some(earned.format(view.decimals).into());
    out.unclaimed = Some(view.balances.free.format(view.decimals).into());
}

fn plan_figures(out: &mut ComputeProviderStatus, plan: &Plan, leases: usize) {
    let (free, total) = plan.left.gpus();
    out.gpus = Some(format!("{free}/{total}").into());
    out.nodes = u32::try_from(plan.left.nodes.iter().filter(|node| node.open).count()).ok();
    out.leases = u32::try_from(leases).ok();
    out.open_bids = u32::try_from(plan.open_bids).ok();
}

fn registered(provider: &ComputeProvider, view: &ChainView) -> Claim {
    if is_registered(&provider.spec, view) {
        return Claim::yes(
            types::REGISTERED,
            "Registered",
            "The ProviderRegistry holds this gateway and these attributes.",
        );
    }
    Claim::no(
        types::REGISTERED,
        "Pending",
        "The ProviderRegistry does not hold this gateway and these attributes yet; a transaction that registers them is on its way.",
    )
}

fn bidding(provider: &ComputeProvider, outcome: &Outcome<'_>) -> Claim {
    let no = |reason, message: &str| Claim::no(types::BIDDING, reason, message);
    let plan = match outcome {
        Outcome::NoView => {
            return no("Blind", &format!("The chain of account {} has not been read yet.", provider.spec.account));
        }
        Outcome::Invalid { error, .. } => return no("InvalidSpec", error),
        Outcome::Planned { view, .. } if !view.health.allows_action() => return no("Blind", &view.health.explain().1),
        Outcome::Planned { .. } if provider.spec.cordoned => {
            return no("Cordoned", "spec.cordoned is true: no new bids, leases run on.");
        }
        Outcome::Planned { view, .. } if !is_registered(&provider.spec, view) => {
            return no("NotRegistered", "Bids begin once the ProviderRegistry holds gateway and attributes.");
        }
        Outcome::Planned { plan, .. } => plan,
    };
    match plan.left.gpus() {
        (_, 0) => no("NoCapacity", "No GpuNode of this release shows a GPU; see `kubectl get gpunodes`."),
        (0, _) => no("NoCapacity", "Every GPU is leased, promised or unfit; bids go on when one is free."),
        _ => Claim::yes(types::BIDDING, "Ready", ready(&plan.refused)),
    }
}

/// Numbers that change with each block do not belong here: every change is a write.
fn ready(refused: &BTreeMap<freehold_core::B256, Refusal>) -> String {
    let Some((id, first)) = refused.iter().next() else {
        return "Bids on every open order that fits.".to_owned();
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for refusal in refused.values() {
        *counts.entry(refusal.reason).or_default() += 1;
    }
    let counts = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect::<Vec<_>>().join(", ");
    format!("Bids on every open order that fits; passed over: {counts}. First, {id}: {}.", first.message)
}

fn reachable(provider: &ComputeProvider, answer: Result<(), String>) -> Claim {
    let url = &provider.spec.gateway_url;
    match answer {
        Ok(()) => Claim::yes(types::GATEWAY_REACHABLE, "Answered", format!("{url} answers.")),
        Err(error) => Claim::no(
            types::GATEWAY_REACHABLE,
            "NoAnswer",
            format!("{url}/healthz: {error}. Tenants cannot hand work over; check spec.gatewayUrl and the ingress."),
        ),
    }
}

#[cfg(test)]
#[path = "tests/status.rs"]
mod tests;
