//! From what is seen to goals: register, bid, take back, reclaim. Pure; the
//! same sight gives the same goals.

use std::collections::{BTreeMap, BTreeSet};

use freehold_api::Goal;
use freehold_api::provider::ComputeProviderSpec;
use freehold_api::scalars::{Bytes32, HttpUrl};
use freehold_api::transaction::TransactionState;
use freehold_chain::view::ChainView;
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderState};
use freehold_core::spec::OrderSpec;
use freehold_core::{B256, canonical};

use super::inventory::{Capacity, Promise};
use super::policy::{self, Case, Limits, Refusal, Standing};
use super::pricing::{self, PriceList, Priced};

/// A goal of the account that was asked for before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub goal: Goal,
    pub state: TransactionState,
}

/// A lease of ours, as far as capacity goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub order: B256,
    /// What node and devices do not show yet; none once all of it is held, or its work has ended.
    pub promise: Option<Promise>,
}

pub struct Sight<'a> {
    pub provider: &'a ComputeProviderSpec,
    pub limits: &'a Limits,
    pub prices: &'a PriceList,
    pub view: &'a ChainView,
    pub capacity: Capacity,
    pub leases: Vec<Lease>,
    pub asked: Vec<Asked>,
    pub runtime_classes: Vec<String>,
    /// No new bids, and none is kept: the ComputeProvider is being deleted.
    pub leaving: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub goals: Vec<Goal>,
    /// Open orders without a bid of ours, and why.
    pub refused: BTreeMap<B256, Refusal>,
    pub open_bids: usize,
    /// What is left after all promises.
    pub left: Capacity,
}

/// A bid of ours that stands, or is on its way.
struct OpenBid<'a> {
    order: &'a Order,
    spec: Option<OrderSpec>,
    bond: Amount,
    in_chain: bool,
}

pub fn plan(mut sight: Sight<'_>) -> Plan {
    let mut capacity = std::mem::take(&mut sight.capacity);
    let bids = open_bids(&sight);
    let mut out = Plan { open_bids: bids.len(), ..Plan::default() };
    let promises: Vec<Promise> = sight.leases.iter().filter_map(|lease| lease.promise.clone()).collect();
    capacity.keep(&promises);
    let broken = capacity.keep(&bids.iter().filter_map(OpenBid::promise).collect::<Vec<_>>());
    if sight.view.health.allows_action() {
        out.goals.extend(register(&sight));
        out.goals.extend(unbid(&sight, &bids, &broken));
        out.goals.extend(reclaim(&sight));
    }
    bid(&sight, &bids, &mut capacity, &mut out);
    out.left = capacity;
    out
}

impl OpenBid<'_> {
    fn promise(&self) -> Option<Promise> {
        let resources = self.spec.as_ref()?.resources.clone();
        Some(Promise::Anywhere { order: self.order.id, resources })
    }
}

impl Sight<'_> {
    fn now(&self) -> u64 {
        self.view.latest.block.timestamp
    }

    /// Goals about `order` that satisfy `wanted`.
    fn asked_for(&self, order: B256, wanted: fn(&Goal) -> bool) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(move |asked| wanted(&asked.goal) && goal_order(&asked.goal) == Some(order))
    }

    /// A goal of this sort is still being pursued, or was reached, for `order`.
    fn is_asked(&self, order: B256, wanted: fn(&Goal) -> bool) -> bool {
        self.asked_for(order, wanted).next().is_some()
    }

    fn our_bid(&self, order: &Order) -> Option<freehold_core::order::Bid> {
        order.bids.iter().find(|bid| bid.provider == self.view.account).copied()
    }
}

pub fn goal_order(goal: &Goal) -> Option<B256> {
    goal.order_id()?.as_str().parse().ok()
}

fn is_bid(goal: &Goal) -> bool {
    matches!(goal, Goal::Bid { .. })
}

fn is_unbid(goal: &Goal) -> bool {
    matches!(goal, Goal::Unbid { .. })
}

fn is_reclaim(goal: &Goal) -> bool {
    matches!(goal, Goal::Reclaim { .. })
}

fn bytes32(id: &B256) -> Bytes32 {
    id.to_string().into()
}

fn open_bids<'a>(sight: &Sight<'a>) -> Vec<OpenBid<'a>> {
    let open = sight.view.latest.orders.values().filter(|order| order.slot.state == OrderState::Open);
    let ours = open.filter_map(|order| {
        let stands = sight.our_bid(order).filter(|bid| bid.valid_until >= sight.now());
        let pending = sight.asked_for(order.id, is_bid).any(|asked| !asked.state.is_final());
        let bond = stands.map_or(Amount(order.terms.bond), |bid| bid.bond);
        (stands.is_some() || pending).then(|| OpenBid {
            order: order.as_ref(),
            spec: OrderSpec::parse(&order.spec).ok(),
            bond,
            in_chain: stands.is_some(),
        })
    });
    let mut bids: Vec<OpenBid<'a>> = ours.collect();
    // Who bid first is kept first: a newer bid must not push an older one out.
    bids.sort_by_key(|bid| (!bid.in_chain, bid.order.slot.deadline, bid.order.id));
    bids
}

fn register(sight: &Sight<'_>) -> Option<Goal> {
    if sight.leaving || policy::is_registered(sight.provider, sight.view) {
        return None;
    }
    let attributes = canonical::to_vec("attributes", &sight.provider.attributes).ok()?;
    Some(Goal::Register {
        gateway: HttpUrl(sight.provider.gateway_url.0.clone()),
        attributes: String::from_utf8(attributes).ok()?,
    })
}

/// Bids whose capacity is gone are taken back before a tenant counts on them.
fn unbid(sight: &Sight<'_>, bids: &[OpenBid<'_>], broken: &[B256]) -> Vec<Goal> {
    let hopeless = bids.iter().filter(|bid| bid.in_chain && (sight.leaving || broken.contains(&bid.order.id)));
    let new = hopeless.filter(|bid| !sight.is_asked(bid.order.id, is_unbid));
    new.map(|bid| Goal::Unbid { order_id: bytes32(&bid.order.id) }).collect()
}

/// Bonds of bids that lost or lapsed return to the ledger.
fn reclaim(sight: &Sight<'_>) -> Vec<Goal> {
    let orders = sight.view.latest.orders.values().filter(|order| has_lost(sight, order));
    let new = orders.filter(|order| !sight.is_asked(order.id, is_reclaim));
    new.map(|order| Goal::Reclaim { order_id: bytes32(&order.id) }).collect()
}

fn has_lost(sight: &Sight<'_>, order: &Order) -> bool {
    let Some(bid) = sight.our_bid(order) else { return false };
    match order.slot.state {
        OrderState::Open => sight.now() > bid.valid_until.min(order.slot.deadline),
        _ => order.slot.provider != sight.view.account,
    }
}

/// Looks at every open order, those that close first before the others.
fn bid(sight: &Sight<'_>, bids: &[OpenBid<'_>], capacity: &mut Capacity, out: &mut Plan) {
    let has_bid: BTreeSet<B256> = bids.iter().map(|bid| bid.order.id).collect();
    let mut tenant_bids: BTreeMap<_, usize> = BTreeMap::new();
    for bid in bids {
        *tenant_bids.entry(bid.order.slot.tenant).or_default() += 1;
    }
    let mut standing = Standing {
        leases: sight.leases.len(),
        bids: bids.len(),
        tenant_bids: 0,
        pending_bonds: bids.iter().filter(|bid| !bid.in_chain).map(|bid| bid.bond).sum(),
    };
    let orders = sight.view.latest.orders.values();
    let mut open: Vec<_> = orders
        .filter(|o| o.slot.state == OrderState::Open && !has_bid.contains(&o.id) && o.slot.tenant != sight.view.account)
        .collect();
    open.sort_by_key(|order| (order.slot.deadline, order.id));
    for order in open {
        standing.tenant_bids = tenant_bids.get(&order.slot.tenant).copied().unwrap_or(0);
        match consider(sight, order, standing, capacity) {
            Ok(goal) => {
                out.goals.push(goal);
                out.open_bids += 1;
                standing.bids += 1;
                standing.pending_bonds = standing.pending_bonds.saturating_add(Amount(order.terms.bond));
                *tenant_bids.entry(order.slot.tenant).or_default() += 1;
            }
            Err(refusal) => {
                out.refused.insert(order.id, refusal);
            }
        }
    }
}

/// Policy, then room, then price; the room is taken only for a bid.
fn consider(sight: &Sight<'_>, order: &Order, standing: Standing, capacity: &mut Capacity) -> Result<Goal, Refusal> {
    let refusal = |reason, message: String| Refusal { reason, message };
    if sight.leaving {
        return Err(refusal("Cordoned", "the ComputeProvider is being deleted".into()));
    }
    let spec = OrderSpec::parse(&order.spec).map_err(|error| refusal("SpecUnreadable", error.to_string()))?;
    policy::check(&Case {
        provider: sight.provider,
        limits: sight.limits,
        view: sight.view,
        runtime_classes: &sight.runtime_classes,
        order,
        spec: &spec,
        standing,
        bid_before: sight.is_asked(order.id, is_bid),
    })?;
    let placement = capacity
        .find(&spec.resources)
        .ok_or_else(|| refusal("NoCapacity", "no node has GPUs, CPU, memory and disk free for it now".into()))?;
    let priced = Priced {
        resources: &spec.resources,
        model: placement.model.as_deref(),
        class: &spec.class,
        duration: order.terms.duration.to::<u64>(),
        tenant: order.slot.tenant.to_string(),
    };
    let nano = sight.prices.nano_per_hour(&priced).map_err(|error| refusal("NoPrice", error.to_string()))?;
    let rate = pricing::rate(nano, sight.view.decimals);
    policy::lasts_long_enough(order, rate)?;
    capacity.take(&spec.resources);
    let valid_until = u32::try_from(sight.now() + sight.limits.validity).unwrap_or(u32::MAX);
    Ok(Goal::Bid { order_id: bytes32(&order.id), price: rate.0.to_string(), valid_until })
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
