//! Figures of tasks, budgets, leases and what sweeps found. Pure.

use freehold_api::lease::LeasePhase;
use freehold_core::money::Amount;
use jiff::Timestamp;

use super::Found;
use super::figure::{self as fig, Sample};

/// A task, as far as it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// `status.state`.
    pub state: Option<String>,
    pub deleting: Option<Timestamp>,
}

/// A budget and what is gone of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// `namespace/name`.
    pub name: String,
    pub limit: Amount,
    pub used: Amount,
}

/// All tasks of one kind. Zeros are shown too: a series that comes and goes cannot be reckoned with.
pub fn tasks(kind: &'static str, tasks: &[Task], now: Timestamp) -> Vec<Sample> {
    let state = |task: &Task| {
        let known = |name: &str| fig::STATES.iter().copied().find(|state| *state == name);
        task.state.as_deref().and_then(known).unwrap_or("Pending")
    };
    let count = |wanted: &str| tasks.iter().filter(|task| state(task) == wanted).count();
    let counted = fig::STATES.iter().map(|state| fig::TASKS.at(&[kind, state], count(state) as f64));
    let leaving = age(tasks.iter().filter_map(|task| task.deleting).min(), now);
    counted.chain([fig::TASK_DELETING.at(&[kind], leaving)]).collect()
}

pub fn budgets(budgets: &[Budget]) -> Vec<Sample> {
    let share = |budget: &Budget| match budget.limit {
        Amount(0) => 1.0,
        limit => budget.used.0 as f64 / limit.0 as f64,
    };
    budgets.iter().map(|budget| fig::BUDGET_USED.at(&[&budget.name], share(budget))).collect()
}

pub fn leases(phases: &[LeasePhase]) -> Vec<Sample> {
    let count = |wanted: &str| phases.iter().filter(|phase| format!("{phase:?}") == wanted).count();
    fig::PHASES.iter().map(|phase| fig::LEASES.at(&[phase], count(phase) as f64)).collect()
}

pub fn rebuilds(leases: impl Iterator<Item = Option<u32>>) -> Sample {
    fig::REBUILDS.at(&[], leases.flatten().map(f64::from).sum())
}

/// What a sweep has not looked at yet is not known to be zero.
pub fn found(found: &Found, now: Timestamp) -> Vec<Sample> {
    let orphans = [("order", found.orders), ("namespace", found.namespaces)];
    let counted = orphans.into_iter().filter_map(|(kind, count)| Some(fig::ORPHANS.at(&[kind], count? as f64)));
    let terminating = found.namespaces.map(|_| fig::TERMINATING.at(&[], age(found.terminating, now)));
    counted.chain(terminating).collect()
}

/// Of the store's filesystem.
pub fn store(used: u64, limit: u64) -> Vec<Sample> {
    vec![fig::STORE_USED.at(&[], used as f64), fig::STORE_LIMIT.at(&[], limit as f64)]
}

pub fn info(tenant: bool, provider: bool) -> Sample {
    let text = |on| if on { "true" } else { "false" };
    fig::INFO.at(&[text(tenant), text(provider)], 1.0)
}

fn age(since: Option<Timestamp>, now: Timestamp) -> f64 {
    since.map_or(0, |since| (now.as_second() - since.as_second()).max(0)) as f64
}
