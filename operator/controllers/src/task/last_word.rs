//! After a lease was closed: how the work ended decides whether it is tried
//! again, and the newest checkpoint decides from where. Both are the gateway's
//! to tell, and are waited for before another order is placed; never for ever.

use freehold_api::conditions::{Claim, types};
use freehold_core::order::OrderState;
use freehold_core::wire::LeaseReport;

use super::leasing::{newer_checkpoint, older_than, silence, since};
use super::observed::{Observed, Report};
use super::plan::{Effect, Intent, Plan};
use super::reasons::running;

/// A trainer that is stopped saves, and its courier uploads, within this time.
const STOPPING: i64 = 150;
/// Phase of a lease whose provider knows that it is over.
const CLOSED: &str = "Closed";

/// Why the next order waits; nothing once the gateway has said all, or was waited for long enough.
pub fn awaited(o: &Observed, state: Option<OrderState>) -> Option<String> {
    if state != Some(OrderState::Closed) {
        return None;
    }
    let lost_for = |seconds| older_than(o, since(o, types::LEASED, "False"), seconds);
    match &o.report {
        Report::Says(_) | Report::Unreachable(_) if lost_for(o.silence()) => None,
        Report::Says(report) => match newer_checkpoint(o) {
            Some(note) => {
                Some(format!("its checkpoint of step {} is being fetched, for {} at most", note.step, silence(o)))
            }
            None => (!is_final(o, report) && !lost_for(STOPPING))
                .then(|| "the provider is given the time to save the last checkpoint".to_owned()),
        },
        // A gateway that was silent before the loss has had its time.
        Report::Unreachable(_) if older_than(o, since(o, types::RUNNING, "False"), o.silence()) => None,
        Report::Unreachable(why) => Some(format!(
            "its gateway, which knows how the work ended, does not answer: {}. It is tried for {}",
            why.trim_end_matches('.'),
            silence(o)
        )),
        Report::NotServed | Report::NotAsked => None,
    }
}

/// Nothing more can come of the lease.
fn is_final(o: &Observed, report: &LeaseReport) -> bool {
    let trains = o.task.kind == "TrainingTask";
    report.exit.is_some() || (!trains && report.phase == CLOSED)
}

/// Fetches what the gateway still holds, and says that nothing runs. The condition stays until the next order
/// stands: since when it is False tells how long the gateway has been silent.
pub fn gather(o: &Observed, intent: &Intent, state: Option<OrderState>, plan: &mut Plan) {
    let wanted = matches!(intent, Intent::Pursue | Intent::Suspend);
    if !wanted || state != Some(OrderState::Closed) {
        return plan.dropped.push(types::RUNNING);
    }
    if let Some(note) = newer_checkpoint(o) {
        plan.effect(Effect::SaveCheckpoint(note));
    }
    if awaited(o, state).is_some() {
        plan.soon();
    }
    plan.claim(match &o.report {
        Report::Unreachable(why) => Claim::no(
            types::RUNNING,
            running::PROVIDER_UNREACHABLE,
            format!("The lease was closed, and the provider's gateway does not answer: {}.", why.trim_end_matches('.')),
        ),
        Report::Says(_) | Report::NotServed | Report::NotAsked => {
            Claim::no(types::RUNNING, running::STOPPED, "The lease was closed.")
        }
    });
}
