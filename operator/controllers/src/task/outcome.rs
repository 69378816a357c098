//! Is the task over, and how? A chain of small predicates; what was once
//! recorded stays.

use freehold_api::conditions::{self, types};
use freehold_core::order::OrderState;
use freehold_core::wire::ExitReport;

use super::ledger::Stage;
use super::observed::{Delivery, Observed, Report};
use super::reasons::{failed, other};
use super::validate::LEAST_LEASE_SECONDS;

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Complete { message: String },
    Failed { reason: &'static str, message: String },
}

/// Reasons that `Failed` may have: what is recorded is read back as one of these.
const REASONS: [&str; 11] = [
    failed::DEADLINE_EXCEEDED,
    failed::BACKOFF_LIMIT_EXCEEDED,
    failed::ESCROW_EXHAUSTED,
    failed::RESULT_REJECTED,
    failed::INPUT_UNAVAILABLE,
    failed::PROVIDER_CLOSED,
    failed::BAD_USAGE,
    failed::BAD_DATA,
    failed::DISK_EXCEEDED,
    failed::OUT_OF_MEMORY,
    failed::CRASHED,
];

pub fn outcome(o: &Observed) -> Option<Outcome> {
    let checks: [fn(&Observed) -> Option<Outcome>; 9] = [
        recorded,
        complete,
        spoiled,
        terminal_exit,
        too_many_failures,
        input_unavailable,
        never_served,
        out_of_time,
        out_of_money,
    ];
    checks.iter().find_map(|check| check(o))
}

/// Finished tasks stay finished: nothing is ordered again.
pub fn recorded(o: &Observed) -> Option<Outcome> {
    let conditions = &o.task.status.conditions;
    if let Some(known) = conditions::find(conditions, types::COMPLETE).filter(|c| c.status == "True") {
        return Some(Outcome::Complete { message: known.message.clone() });
    }
    let known = conditions::find(conditions, types::FAILED).filter(|c| c.status == "True")?;
    let reason = REASONS.iter().find(|r| **r == known.reason).copied().unwrap_or(failed::CRASHED);
    Some(Outcome::Failed { reason, message: known.message.clone() })
}

fn complete(o: &Observed) -> Option<Outcome> {
    let accepted = o.stage() == Some(Stage::Settled(OrderState::Accepted));
    match &o.delivery {
        Delivery::Good(result) if accepted => Some(Outcome::Complete {
            message: format!("The result was accepted; {} file(s) are in the tenant's store.", result.outputs.len()),
        }),
        _ => None,
    }
}

/// Accepted by silence, and no good.
fn spoiled(o: &Observed) -> Option<Outcome> {
    let accepted = o.stage() == Some(Stage::Settled(OrderState::Accepted));
    match &o.delivery {
        Delivery::Bad(why) if accepted => Some(failed(
            failed::RESULT_REJECTED,
            format!(
                "The review window ended before the result could be rejected: {why}. Create another task, with a longer market.reviewWindow."
            ),
        )),
        _ => None,
    }
}

fn terminal_exit(o: &Observed) -> Option<Outcome> {
    let exit = exit_of_lost_or_running(o).filter(|exit| exit.terminal)?;
    let (reason, remedy) = match exit.reason.as_str() {
        failed::BAD_USAGE => (failed::BAD_USAGE, "Correct the recipe or the arguments"),
        failed::BAD_DATA => (failed::BAD_DATA, "Correct the data"),
        failed::DISK_EXCEEDED => (failed::DISK_EXCEEDED, "Raise resources.disk"),
        failed::OUT_OF_MEMORY => (failed::OUT_OF_MEMORY, "Raise resources.memory"),
        failed::BACKOFF_LIMIT_EXCEEDED => (failed::BACKOFF_LIMIT_EXCEEDED, "Look at the trainer's logs"),
        _ => (failed::CRASHED, "Look at the trainer's logs"),
    };
    let how = if exit.code < 0 {
        "The work cannot go on".to_owned()
    } else {
        format!("The trainer ended with exit code {}", exit.code)
    };
    Some(failed(reason, format!("{how}{}. {remedy}, and create another task.", said(exit))))
}

/// The exit counts unless the lease ended in a delivery.
fn exit_of_lost_or_running(o: &Observed) -> Option<&ExitReport> {
    let delivered = |state| matches!(state, OrderState::Delivered | OrderState::Accepted | OrderState::Rejected);
    match o.stage()? {
        Stage::Unplaced | Stage::Lapsed => None,
        Stage::Live(state) | Stage::Settling(state) | Stage::Settled(state) if delivered(state) => None,
        Stage::Live(_) | Stage::Settling(_) | Stage::Settled(_) => o.report.says()?.exit.as_ref(),
    }
}

fn said(exit: &ExitReport) -> String {
    exit.message.as_ref().map(|m| format!(": {}", m.trim_end_matches('.'))).unwrap_or_default()
}

fn too_many_failures(o: &Observed) -> Option<Outcome> {
    let exit = exit_of_lost_or_running(o)?;
    let failures = o.failures();
    let remedy = match exit.reason.as_str() {
        failed::OUT_OF_MEMORY => "The last one ran out of memory: raise resources.memory",
        _ => "Look at the trainer's logs",
    };
    (failures > o.spec.backoff_limit).then(|| {
        failed(
            failed::BACKOFF_LIMIT_EXCEEDED,
            format!(
                "{failures} runs failed, backoffLimit is {}. {remedy}, and create another task.",
                o.spec.backoff_limit
            ),
        )
    })
}

/// The gateway could not fetch an input in half of the start window, or the lease was lost over it.
fn input_unavailable(o: &Observed) -> Option<Outcome> {
    let (name, why) = o.report.says()?.input_errors.iter().next()?;
    let due = match o.stage()? {
        Stage::Live(OrderState::Awaiting) => {
            let order = o.newest()?.order.as_ref()?;
            let window = order.terms.startWindow.to::<u64>();
            o.chain_now() + window / 2 > order.slot.deadline
        }
        Stage::Settled(state) => matches!(state, OrderState::Declined | OrderState::NoShow),
        Stage::Live(_) | Stage::Settling(_) | Stage::Unplaced | Stage::Lapsed => false,
    };
    due.then(|| {
        failed(
            failed::INPUT_UNAVAILABLE,
            format!("The provider's gateway cannot get the input `{name}`: {}. Check address and digest, and create another task.", why.trim_end_matches('.')),
        )
    })
}

/// Accepted by silence, and never handed out.
fn never_served(o: &Observed) -> Option<Outcome> {
    let accepted = o.stage() == Some(Stage::Settled(OrderState::Accepted));
    let missing = matches!(o.delivery, Delivery::Missing) && !matches!(o.report, Report::Says(_));
    (accepted && missing && o.seconds_left() == 0).then(|| {
        failed(
            failed::RESULT_REJECTED,
            "The review window ended and the provider's gateway does not hand out the result. Create another task."
                .into(),
        )
    })
}

fn out_of_time(o: &Observed) -> Option<Outcome> {
    o.limits()?;
    let least = match o.stage()? {
        // What was delivered in time is still judged.
        Stage::Live(OrderState::Delivered)
        | Stage::Settling(OrderState::Accepted)
        | Stage::Settled(OrderState::Accepted) => return None,
        Stage::Unplaced | Stage::Live(_) | Stage::Settling(_) => 0,
        Stage::Lapsed | Stage::Settled(_) if o.spec.suspend => return None,
        Stage::Lapsed | Stage::Settled(_) => LEAST_LEASE_SECONDS,
    };
    (o.seconds_left() <= least).then(|| {
        failed(
            failed::DEADLINE_EXCEEDED,
            format!(
                "The task did not finish within activeDeadline {}. Create another one with a later deadline.",
                o.spec.active_deadline
            ),
        )
    })
}

fn out_of_money(o: &Observed) -> Option<Outcome> {
    let limits = o.limits()?;
    let lost = match o.stage()? {
        Stage::Settled(OrderState::Accepted) => return None,
        Stage::Settled(state) => state,
        Stage::Lapsed | Stage::Unplaced | Stage::Live(_) | Stage::Settling(_) => return None,
    };
    let left = o.budget_left();
    if left >= limits.least() || o.spec.suspend {
        return None;
    }
    let money =
        format!("Of market.budget {} {} are left, too little for another lease.", o.spec.market.budget, o.format(left));
    Some(match lost {
        OrderState::Rejected => failed(
            failed::RESULT_REJECTED,
            format!("The result was rejected. {money} Raise market.budget in another task."),
        ),
        _ => failed(failed::ESCROW_EXHAUSTED, format!("{money} Raise market.budget in another task.")),
    })
}

fn failed(reason: &'static str, message: String) -> Outcome {
    Outcome::Failed { reason, message }
}

impl Outcome {
    pub fn claim(&self) -> conditions::Claim {
        match self {
            Self::Complete { message } => conditions::Claim::yes(types::COMPLETE, other::COMPLETE, message.clone()),
            Self::Failed { reason, message } => conditions::Claim::yes(types::FAILED, reason, message.clone()),
        }
    }
}
