//! Figures of one account, from its view of the chain, its outbox's report and
//! its goals. Pure.

use std::sync::Arc;

use freehold_api::conditions::{self, types};
use freehold_api::transaction::TransactionState;
use freehold_api::{ChainTransaction, ComputeAccount};
use freehold_chain::outbox::NonceHealth;
use freehold_chain::view::ChainView;
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderState};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::runtime::reflector::Store;

use super::figure::{self as fig, Sample};
use crate::accounts::{Report, is_ours};
use crate::compute_account::committed;
use crate::context::{Context, KeptFunded};
use crate::goals;

/// Decimals of the chain's own coin.
const COIN_DECIMALS: u8 = 18;
/// A refusal is shown for so long, also where the goal was given up.
const REFUSED_SECONDS: i64 = 3_600;
/// An escrow that was never meant to last is near its end from the beginning.
const SHORT_LEASE: u64 = 7_200;

/// What a scrape sees of an account.
pub struct Sight<'a> {
    pub name: &'a str,
    pub view: &'a ChainView,
    pub report: &'a Report,
    /// Every goal that is kept, finished ones too.
    pub goals: &'a [Arc<ChainTransaction>],
    pub kept_funded: &'a KeptFunded,
    pub now: Timestamp,
}

/// Lets the release's accounts be seen: those that are served, and whether each is.
pub fn show(ctx: &Context, objects: Store<ComputeAccount>) {
    let release = ctx.settings.release.clone();
    ctx.metrics.show(move |_| ready(&objects.state(), &release));
    let (views, accounts, outbox) = (ctx.views.clone(), ctx.accounts.clone(), ctx.outbox.clone());
    let kept_funded = ctx.kept_funded.clone();
    let known = ctx.foreign.clone();
    ctx.metrics.show(move |now| {
        let mut samples = Vec::new();
        for (name, served) in accounts.all() {
            let Some(view) = views.get(&name) else { continue };
            let report = served.report.borrow().clone();
            let (goals, kept_funded) = (outbox.of(&name), &kept_funded);
            let sight = Sight { name: &name, view: &view, report: &report, goals: &goals, kept_funded, now };
            samples.extend(figures(&sight));
            samples.extend(known.of(&name).map(|orders| foreign(&name, orders.len())));
        }
        samples
    });
}

/// An account without its key is read by nobody: this alone still tells of it.
pub fn ready(accounts: &[Arc<ComputeAccount>], release: &str) -> Vec<Sample> {
    let ours = accounts.iter().filter(|account| is_ours(account, release));
    let is_ready = |account: &ComputeAccount| {
        account.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, types::READY))
    };
    ours.map(|account| fig::READY.at(&[&account.name_any()], f64::from(u8::from(is_ready(account))))).collect()
}

pub fn foreign(name: &str, count: usize) -> Sample {
    fig::FOREIGN.at(&[name], count as f64)
}

pub fn figures(sight: &Sight<'_>) -> Vec<Sample> {
    [chain(sight), money(sight), outbox(sight), orders(sight)].into_iter().flatten().collect()
}

fn chain(Sight { name, view, now, .. }: &Sight<'_>) -> Vec<Sample> {
    let mut out = fig::CHAIN_HEALTH.one_of(&[name], fig::HEALTHS, view.health.explain().0);
    for (at, standing) in view.endpoints.iter().enumerate() {
        let at = at.to_string();
        out.extend(fig::ENDPOINT.one_of(&[name, &at], fig::VERDICTS, standing.verdict.label()));
        out.push(fig::ENDPOINT_USED.at(&[name, &at], f64::from(u8::from(standing.used))));
    }
    let block = view.latest.block;
    if block.number > 0 {
        let age = unix(*now).saturating_sub(block.timestamp);
        out.push(fig::HEAD.at(&[name], block.number as f64));
        out.push(fig::HEAD_AGE.at(&[name], age as f64));
    }
    out
}

fn money(Sight { name, view, report, .. }: &Sight<'_>) -> Vec<Sample> {
    if view.latest.block.number == 0 {
        return vec![];
    }
    let tokens = |amount: Amount| whole(amount.0, view.decimals);
    let mut out = vec![
        fig::GAS.at(&[name], whole(view.balances.gas, COIN_DECIMALS)),
        fig::TOKENS.at(&[name, "wallet"], tokens(view.balances.wallet)),
        fig::TOKENS.at(&[name, "ledger"], tokens(view.balances.free)),
    ];
    // A goal that a newer block has reached must not count twice.
    if report.block == view.latest.block.hash {
        out.push(fig::COMMITTED.at(&[name], tokens(committed(view).saturating_add(report.pending))));
    }
    out
}

fn outbox(Sight { name, report, goals, now, .. }: &Sight<'_>) -> Vec<Sample> {
    let nonces = match report.nonces {
        NonceHealth::Healthy => "Healthy",
        NonceHealth::Foreign { .. } => "Foreign",
        NonceHealth::Stuck { .. } => "Stuck",
        NonceHealth::Refused { .. } => "Refused",
    };
    let mut out = fig::NONCE.one_of(&[name], fig::NONCES, nonces);
    let open: Vec<(&'static str, &ChainTransaction)> =
        goals.iter().filter_map(|goal| Some((open_state(goal)?, goal.as_ref()))).collect();
    for state in fig::OPEN {
        let here = || open.iter().filter(|(at, _)| at == state).map(|(_, goal)| *goal);
        let age = |goal: &ChainTransaction| Some(now.as_second() - goal.creation_timestamp()?.0.as_second());
        let oldest = here().filter_map(age).max().unwrap_or(0).max(0);
        out.push(fig::OUTBOX_OLDEST.at(&[name, state], oldest as f64));
        for kind in fig::GOALS {
            let count = here().filter(|goal| goal.spec.goal.name() == *kind).count();
            if count > 0 {
                out.push(fig::OUTBOX.at(&[name, kind, state], count as f64));
            }
        }
    }
    out.extend(fig::REASONS.iter().map(|reason| {
        let count = goals.iter().filter(|goal| waits_on(goal, *now) == Some(reason)).count();
        fig::OUTBOX_WAITING.at(&[name, reason], count as f64)
    }));
    out
}

fn open_state(goal: &ChainTransaction) -> Option<&'static str> {
    match goals::state(goal) {
        TransactionState::Pending if said(goal).is_some_and(|said| said.reason == "Waiting") => Some("Waiting"),
        TransactionState::Pending => Some("Pending"),
        TransactionState::Submitted => Some("Submitted"),
        TransactionState::Mined => Some("Mined"),
        TransactionState::Confirmed | TransactionState::Obsolete | TransactionState::Failed => None,
    }
}

/// A goal that is newer than this list still counts.
/// Why the goal is not reached yet.
fn said(goal: &ChainTransaction) -> Option<&Condition> {
    conditions::find(conditions_of(goal), types::CONFIRMED).filter(|condition| condition.status == "False")
}

fn conditions_of(goal: &ChainTransaction) -> &[Condition] {
    goal.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

fn waits_on(goal: &ChainTransaction, now: Timestamp) -> Option<&'static str> {
    let said = said(goal)?;
    let reason = fig::REASONS.iter().copied().find(|known| *known == said.reason)?;
    let given_up = conditions::find(conditions_of(goal), types::FAILED).filter(|condition| condition.status == "True");
    let since = given_up.unwrap_or(said).last_transition_time.0;
    let recent = now.as_second() - since.as_second() <= REFUSED_SECONDS;
    let counts = !goals::state(goal).is_final() || (reason == fig::SIGNER_REFUSED && recent);
    counts.then_some(reason)
}

fn orders(Sight { name, view, kept_funded, .. }: &Sight<'_>) -> Vec<Sample> {
    let own = |order: &&Arc<Order>| order.slot.tenant == view.account || order.slot.provider == view.account;
    let own: Vec<&Arc<Order>> = view.latest.orders.values().filter(own).collect();
    let chain_now = view.latest.block.timestamp;
    let mut out: Vec<Sample> = fig::ORDERS
        .iter()
        .map(|state| {
            let count = own.iter().filter(|order| fig::order_state(order.slot.state) == Some(state)).count();
            fig::ORDER_COUNT.at(&[name, state], count as f64)
        })
        .collect();
    let left = |order: &Order| order.slot.deadline.saturating_sub(chain_now);
    let within = |state| own.iter().filter(move |order| order.slot.state == state).map(|order| order.as_ref());
    // A stranger's lease that was topped up before will be again, as far as anybody here can know.
    let raised = |order: &Order| match order.slot.tenant == view.account {
        true => kept_funded.holds(&order.id),
        false => order.escrow() > order.terms.cap(),
    };
    let escrow = within(OrderState::Running)
        .filter(|order| !raised(order))
        .filter(|order| order.slot.end_at.saturating_sub(order.slot.started_at) >= SHORT_LEASE)
        .map(|order| order.slot.end_at.saturating_sub(chain_now))
        .min();
    let started = within(OrderState::Awaiting).map(|o| used(left(o), o.terms.startWindow.to())).reduce(f64::max);
    let review = within(OrderState::Delivered).map(left).min();
    let reviewed = within(OrderState::Delivered).map(|o| used(left(o), o.terms.window.to())).reduce(f64::max);
    out.extend(escrow.map(|seconds| fig::ESCROW.at(&[name], seconds as f64)));
    out.extend(started.map(|share| fig::START_USED.at(&[name], share)));
    out.extend(review.map(|seconds| fig::REVIEW.at(&[name], seconds as f64)));
    out.extend(reviewed.map(|share| fig::REVIEW_USED.at(&[name], share)));
    out
}

/// Share of a window that is gone.
fn used(left: u64, window: u64) -> f64 {
    if window == 0 { 1.0 } else { 1.0 - (left.min(window) as f64 / window as f64) }
}

/// Smallest units as whole ones; figures may round, money never does.
fn whole(units: u128, decimals: u8) -> f64 {
    units as f64 / 10f64.powi(i32::from(decimals))
}

fn unix(now: Timestamp) -> u64 {
    u64::try_from(now.as_second()).unwrap_or_default()
}
