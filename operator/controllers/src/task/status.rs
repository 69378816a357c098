//! What a task's status says: conditions from the plan's claims, columns from
//! the observation. One write at the end of a pass, and only if it is due.

use freehold_api::conditions::{self, Claim, types};
use freehold_api::task::{Artifact, Attempt as AttemptStatus, CheckpointRef, Exact, Progress, TaskStatus};
use freehold_core::B256;
use freehold_core::money::Amount;
use freehold_core::order::OrderState;
use freehold_core::progress::{Commitments, ProgressLine, decimal};
use jiff::Timestamp;

use super::ledger::Stage;
use super::observed::{Attempt, Delivery, Observed};
use super::plan::Plan;

/// Entries that the status keeps.
const MAX_ATTEMPTS: usize = 64;
/// Segments that the status counts: a trace has no more states.
const MAX_SEGMENTS: u32 = 1 << 20;
/// Seconds between two writes for progress alone, and for cost alone.
const PROGRESS_EVERY: i64 = 10;
const COST_EVERY: i64 = 60;

/// States in their order: the last that holds is shown.
pub(super) const LADDER: [(&str, &str); 8] = [
    (types::FUNDED, "Funded"),
    (types::LEASED, "Leased"),
    (types::RUNNING, "Running"),
    (types::RESULT_SUBMITTED, "ResultSubmitted"),
    (types::VERIFIED, "Verified"),
    (types::COMPLETE, "Complete"),
    (types::FAILED, "Failed"),
    (types::SUSPENDED, "Suspended"),
];

/// The status after a pass. `overrides` are claims that applying the plan gave rise to.
pub fn status(o: &Observed, plan: &Plan, overrides: &[Claim]) -> TaskStatus {
    let mut status = o.task.status.clone();
    status.observed_generation = o.task.generation;
    let claimed = |type_: &str| plan.claims.iter().chain(overrides).any(|claim| claim.type_ == type_);
    for type_ in plan.dropped.iter().filter(|type_| !claimed(type_)) {
        conditions::remove(&mut status.conditions, type_);
    }
    for claim in plan.claims.iter().chain(overrides) {
        conditions::set(&mut status.conditions, claim.clone(), o.task.generation, o.now);
    }
    columns(o, &mut status);
    let state = state(&status.conditions);
    let finished = matches!(state, "Complete" | "Failed");
    if finished && status.completion_time.is_none() {
        status.completion_time = Some(o.now.to_string().into());
    }
    status.message = message(&status.conditions, state).map(Into::into);
    status.state = Some(state.into());
    status
}

fn state(found: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> &'static str {
    if conditions::is_true(found, types::DELETING) {
        return "Deleting";
    }
    let finished = [types::COMPLETE, types::FAILED].into_iter().find(|t| conditions::is_true(found, t));
    match finished {
        Some(types::COMPLETE) => "Complete",
        Some(_) => "Failed",
        None => {
            LADDER.iter().rev().find(|(type_, _)| conditions::is_true(found, type_)).map_or("Pending", |(_, name)| name)
        }
    }
}

/// The sentence that says most about where the task stands: what keeps it from the next rung, else the last rung.
fn message(found: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition], state: &str) -> Option<String> {
    let say = |type_: &str| conditions::find(found, type_).map(|c| c.message.clone());
    let open = |type_: &&str| conditions::find(found, type_).is_some_and(|c| c.status != "True");
    match state {
        "Deleting" => say(types::DELETING),
        "Complete" => say(types::COMPLETE),
        "Failed" => say(types::FAILED),
        "Suspended" => say(types::SUSPENDED),
        _ if conditions::is_true(found, types::STALLED) => say(types::STALLED),
        "ResultSubmitted" | "Verified" => say(types::VERIFIED),
        _ => [types::VALID, types::FUNDED, types::RESULT_SUBMITTED, types::LEASED, types::RUNNING]
            .iter()
            .find(|type_| open(type_))
            .and_then(|type_| say(type_))
            .or_else(|| LADDER.iter().find(|(_, name)| *name == state).and_then(|(type_, _)| say(type_))),
    }
}

fn columns(o: &Observed, status: &mut TaskStatus) {
    let Some(newest) = o.newest() else { return };
    status.start_time = o
        .attempts
        .iter()
        .find_map(|a| a.stored.as_ref())
        .map(|s| s.created.to_string().into())
        .or(status.start_time.take());
    status.failures = Some(o.failures());
    status.attempt = Some(newest.number);
    status.order_id = Some(format!("{:#x}", newest.id).into());
    status.provider = newest.provider().map(|p| p.to_checksum(None).into());
    let leased = newest.order.as_ref().filter(|order| order.slot.provider != freehold_core::Address::ZERO);
    status.rate_per_hour = leased.map(|order| o.format(order.rate().hourly()).into());
    status.funded_until = leased.filter(|order| order.slot.end_at != 0).map(|order| time(order.slot.end_at).into());
    status.spent = Some(o.format(spent(o)).into());
    status.attempts = attempts(o);
    if let Some(line) = o.report.says().and_then(|r| r.progress.as_ref()) {
        status.progress = Some(progress(line));
        status.progress_text = Some(format!("{}/{}", line.step, line.steps).into());
        status.exact = line.exact.as_ref().map(exact);
    }
    status.checkpoint = o.checkpoint.as_ref().map(|note| CheckpointRef {
        step: note.step,
        sha256: note.sha256.clone().into(),
        size: note.size,
    });
    if let Delivery::Good(result) = &o.delivery
        && matches!(newest.stage, Stage::Settled(OrderState::Accepted))
    {
        let artifact = |f: &freehold_core::result::OutputFile| Artifact {
            name: f.name.clone(),
            sha256: f.sha256.clone().into(),
            size: f.size,
        };
        status.artifacts = result.outputs.iter().map(artifact).collect();
        status.metrics =
            result.metrics.iter().take(32).map(|(k, v)| (k.clone(), v.chars().take(256).collect())).collect();
    }
}

/// What all attempts have cost so far.
fn spent(o: &Observed) -> Amount {
    let of = |a: &Attempt| match (a.stage, &a.order) {
        (Stage::Settled(_) | Stage::Settling(_), _) => a.cost(),
        (Stage::Live(_), Some(order)) => order.accrued(o.chain_now()),
        (Stage::Live(_) | Stage::Unplaced | Stage::Lapsed, _) => Amount::ZERO,
    };
    o.attempts.iter().map(of).sum()
}

fn attempts(o: &Observed) -> Vec<AttemptStatus> {
    let skip = o.attempts.len().saturating_sub(MAX_ATTEMPTS);
    o.attempts.iter().skip(skip).map(|a| attempt(o, a)).collect()
}

fn attempt(o: &Observed, attempt: &Attempt) -> AttemptStatus {
    let split = attempt.order.as_ref().and_then(|order| order.split.map(|split| (order, split)));
    let state = match attempt.stage {
        Stage::Unplaced => "Placing",
        Stage::Lapsed => "NotPlaced",
        Stage::Live(state) | Stage::Settling(state) | Stage::Settled(state) => state.name(),
    };
    AttemptStatus {
        number: attempt.number,
        order_id: format!("{:#x}", attempt.id).into(),
        provider: attempt.provider().map(|p| p.to_checksum(None).into()),
        state: state.into(),
        paid: split.map(|(order, _)| o.format(order.slot.paid).into()),
        refunded: split.map(|(_, split)| o.format(split.to_tenant).into()),
    }
}

/// A line as the status shows it.
pub fn progress(line: &ProgressLine) -> Progress {
    Progress {
        step: line.step,
        steps: line.steps,
        loss: line.loss.map(|loss| decimal(loss).into()),
        metrics: line.metrics.iter().map(|(k, v)| (k.clone(), decimal(*v))).collect(),
        at: line.at.clone().map(Into::into),
    }
}

fn exact(run: &Commitments) -> Exact {
    let text = |root: &B256| format!("{root:#x}").into();
    Exact {
        program_id: text(&run.program_id),
        data_root: text(&run.data_root),
        seed: text(&run.seed),
        init_root: text(&run.init_root),
        state_root: text(&run.state_root),
        segments: run.segments.min(MAX_SEGMENTS),
    }
}

/// Unix seconds as RFC 3339.
pub fn time(seconds: u64) -> String {
    i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok()).map(|t| t.to_string()).unwrap_or_default()
}

/// Is the new status worth a write now? Progress and cost move all the time and are written seldom.
pub fn is_due(old: &TaskStatus, new: &TaskStatus, seconds_since_write: i64) -> bool {
    let quiet = |status: &TaskStatus| TaskStatus { progress: None, progress_text: None, spent: None, ..status.clone() };
    if quiet(old) != quiet(new) {
        return true;
    }
    let moved = old.progress != new.progress && seconds_since_write >= PROGRESS_EVERY;
    let cost = old.spent != new.spent && seconds_since_write >= COST_EVERY;
    moved || cost
}
