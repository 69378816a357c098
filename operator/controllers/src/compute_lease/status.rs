//! What a pass has to say about a lease. Pure; a number that changes with
//! each block is rounded, for every change is a write.

use freehold_api::ComputeLease;
use freehold_api::conditions::{self, Claim, types};
use freehold_api::lease::ComputeLeaseStatus;
use freehold_api::scalars::Text;
use freehold_api::task::{CheckpointRef, Progress};
use freehold_chain::view::ChainView;
use freehold_core::order::{Order, OrderState};
use freehold_core::progress::{ProgressLine, decimal};
use freehold_core::wire::WorkReport;
use jiff::Timestamp;
use serde_json::Value;

use super::dereference::Observed;
use super::devices::Devices;
use super::plan::{Next, REBUILDING};

/// Cost is written once a minute, progress once in ten seconds.
const COST_STEP: u64 = 60;
const PROGRESS_STEP: i64 = 10;
const NOTE: usize = 256;
/// What the schema takes.
const MOST_REBUILDS: u32 = 10_000;
/// What the schema takes; an order for more is not bid on, but slices of one GPU can be more.
const MAX_GPUS: usize = freehold_core::spec::MAX_GPUS as usize;

pub fn status(lease: &ComputeLease, observed: &Observed, next: &Next, now: Timestamp) -> ComputeLeaseStatus {
    let mut out = lease.status.clone().unwrap_or_default();
    let generation = lease.metadata.generation;
    out.observed_generation = generation;
    out.phase = Some(next.phase);
    out.exit = next.exit.clone();
    if let Some(node) = observed.facts.pod.as_ref().and_then(|pod| pod.node.clone()) {
        out.node = Some(node.into());
    }
    match &observed.facts.devices {
        Devices::Match(uuids) => {
            out.gpu = Some(uuids.iter().take(MAX_GPUS).map(String::as_str).collect::<Vec<_>>().join(",").into());
            out.gpus = uuids.iter().take(MAX_GPUS).cloned().collect();
        }
        Devices::NotNeeded => out.gpu = Some("none".into()),
        Devices::NotYet | Devices::Mismatch(_) | Devices::Lost(_) => {}
    }
    if let Some(order) = observed.view.order(&observed.facts.order) {
        money(&mut out, &observed.view, order);
    }
    if let Some(report) = &observed.report {
        work(&mut out, report);
    }
    say(&mut out, &next.claims, generation, now);
    out.notes = notes(&out);
    out
}

/// Conditions, and how often the work had to be made again: each time that `Running` turns to it.
fn say(out: &mut ComputeLeaseStatus, claims: &[Claim], generation: Option<i64>, now: Timestamp) {
    let before = rebuilding(out);
    for claim in claims {
        conditions::set(&mut out.conditions, claim.clone(), generation, now);
    }
    if rebuilding(out) && !before {
        out.rebuilds = Some((out.rebuilds.unwrap_or_default() + 1).min(MOST_REBUILDS));
    }
}

fn rebuilding(status: &ComputeLeaseStatus) -> bool {
    conditions::find(&status.conditions, types::RUNNING).is_some_and(|running| running.reason == REBUILDING)
}

fn money(out: &mut ComputeLeaseStatus, view: &ChainView, order: &Order) {
    let show = |amount: freehold_core::money::Amount| Some(Text(amount.format(view.decimals)));
    out.rate_per_hour = show(order.rate().hourly());
    let accrued = match order.slot.state {
        // Funds leave the slot when it settles; what was paid stays.
        state if state.is_settled() => order.slot.paid,
        OrderState::Running => {
            let elapsed = view.latest.block.timestamp.saturating_sub(order.slot.started_at);
            order.accrued(order.slot.started_at + elapsed / COST_STEP * COST_STEP)
        }
        _ => order.accrued(view.latest.block.timestamp),
    };
    out.accrued = show(accrued);
    if order.slot.end_at > 0 {
        out.funded_until = rfc3339(order.slot.end_at);
    }
}

fn rfc3339(seconds: u64) -> Option<Text> {
    let at = Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(at.to_string().into())
}

fn work(out: &mut ComputeLeaseStatus, report: &WorkReport) {
    if let Some(line) = &report.progress {
        let fresh = progress(line);
        if out.progress.as_ref().is_none_or(|known| is_due(known, &fresh)) {
            out.progress = Some(fresh);
        }
    }
    if let Some(newest) = report.checkpoints.last() {
        out.checkpoint =
            Some(CheckpointRef { step: newest.step, sha256: newest.sha256.clone().into(), size: newest.size });
    }
    if let Some(result) = &report.result {
        out.result_sha256 = Some(result.clone().into());
    }
}

fn progress(line: &ProgressLine) -> Progress {
    Progress {
        step: line.step,
        steps: line.steps,
        loss: line.loss.map(|loss| decimal(loss).into()),
        metrics: line.metrics.iter().map(|(name, value)| (name.clone(), decimal(*value))).collect(),
        at: line.at.clone().map(Text),
    }
}

/// The last step is always told; between, one line in ten seconds.
fn is_due(known: &Progress, fresh: &Progress) -> bool {
    let at = |progress: &Progress| progress.at.as_ref().and_then(|at| at.as_str().parse::<Timestamp>().ok());
    let apart = at(known).zip(at(fresh)).map(|(old, new)| new.as_second() - old.as_second());
    fresh.step >= fresh.steps || apart.is_none_or(|seconds| !(0..PROGRESS_STEP).contains(&seconds))
}

/// What is not as it should be, for the tenant to read.
fn notes(status: &ComputeLeaseStatus) -> std::collections::BTreeMap<String, String> {
    let told = [types::MANIFEST_RECEIVED, types::CAPACITY_HELD, types::DEVICES_MATCH, types::RUNNING, types::DELIVERED];
    let conditions = status.conditions.iter().filter(|condition| told.contains(&condition.type_.as_str()));
    conditions
        .filter(|condition| condition.status == "False")
        .map(|condition| (condition.type_.clone(), condition.message.chars().take(NOTE).collect()))
        .collect()
}

/// What turns `known` into `wanted` (RFC 7386): a merge patch removes only what it names as null.
pub fn merge_patch(known: &Value, wanted: &Value) -> Value {
    let (Value::Object(known), Value::Object(wanted)) = (known, wanted) else { return wanted.clone() };
    let gone = known.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = wanted.iter().filter(|(key, value)| known.get(*key) != Some(value));
    let changed = changed.map(|(key, value)| (key.clone(), merge_patch(known.get(key).unwrap_or(&Value::Null), value)));
    Value::Object(gone.chain(changed).collect())
}

#[cfg(test)]
#[path = "tests/status.rs"]
mod tests;
