//! Stages of an order that still has work ahead: Open, Awaiting, Running.

use std::collections::BTreeSet;

use freehold_api::Goal;
use freehold_api::conditions::{self, Claim, types};
use freehold_api::task::DeletionPolicy;
use freehold_api::transaction::TransactionState;
use freehold_core::order::{Order, OrderState};
use freehold_core::units::go_duration;
use freehold_core::wire::LeaseReport;

use super::choose::{self, Choice, choose};
use super::ending::overdue;
use super::observed::{Attempt, Observed, Report};
use super::outcome::Outcome;
use super::plan::{Effect, Intent, Plan, cancel, close, id_of, leased_by};
use super::reasons::{failed, funded, leased, running};
use super::top_up;

/// How long a checkpoint is waited for before a lease is closed.
const CHECKPOINT_GRACE: i64 = 60;
/// How long the provider is given to close a lease whose work has ended: its closing costs the tenant less.
const CLOSE_GRACE: i64 = 60;

pub fn open(o: &Observed, attempt: &Attempt, order: &Order, intent: &Intent, plan: &mut Plan) {
    plan.soon();
    // Of an attempt before: nothing runs yet.
    plan.dropped.push(types::RUNNING);
    plan.claim(Claim::yes(types::FUNDED, funded::FUNDED, format!("{} are in escrow.", o.format(order.slot.funds))));
    // Without its manifest the order could never be handed over; without limits no bid can be judged.
    let (Intent::Pursue, true, Some(limits), Some(view)) = (intent, attempt.has_manifest(), o.limits(), &o.view) else {
        plan.effect(Effect::Ensure(cancel(attempt)));
        return;
    };
    let bids = order.bids.len();
    plan.claim(Claim::no(
        types::LEASED,
        leased::WAITING_FOR_BIDS,
        format!("{bids} bid(s) so far; the best suitable one is taken."),
    ));
    // No second acceptance beside one that is on its way; asked for again, what it waits for is said.
    if let Some(goal) = accepting(o, attempt) {
        return plan.effect(Effect::Ensure(goal.clone()));
    }
    let market = choose::Market {
        limits,
        providers: &view.providers,
        records: &view.records,
        excluded: &providers_of(o, |state| state == OrderState::Rejected),
        disappointing: &providers_of(o, |_| true),
        refused: &failed_acceptances(o),
        now: o.chain_now(),
        block_time: view.block_time,
        decimals: view.decimals,
    };
    match choose(order, &market) {
        Choice::Wait => {}
        Choice::Take(bid) => plan.effect(Effect::Ensure(Goal::AcceptBid {
            order_id: id_of(attempt),
            provider: format!("{:#x}", bid.provider).into(),
            price: bid.price.to_string(),
            valid_until: u32::try_from(bid.valid_until).unwrap_or(u32::MAX),
        })),
        Choice::Nothing { reason, message } => {
            plan.claim(Claim::no(types::LEASED, reason, message));
            plan.effect(Effect::Ensure(cancel(attempt)));
        }
    }
}

/// The acceptance that is on its way.
fn accepting<'a>(o: &'a Observed, attempt: &Attempt) -> Option<&'a Goal> {
    let id = id_of(attempt);
    let ours = |goal: &Goal| matches!(goal, Goal::AcceptBid { order_id, .. } if *order_id == id);
    o.goals.iter().find(|fact| ours(&fact.goal) && !fact.state.is_final()).map(|fact| &fact.goal)
}

fn failed_acceptances(o: &Observed) -> BTreeSet<(freehold_core::Address, u128, u64)> {
    let of = |goal: &Goal| match goal {
        Goal::AcceptBid { provider, price, valid_until, .. } => {
            Some((provider.as_str().parse().ok()?, price.parse().ok()?, u64::from(*valid_until)))
        }
        _ => None,
    };
    o.goals.iter().filter(|f| f.state == TransactionState::Failed).filter_map(|f| of(&f.goal)).collect()
}

/// Providers of earlier attempts that ended in such a state.
fn providers_of(o: &Observed, ended: fn(OrderState) -> bool) -> BTreeSet<freehold_core::Address> {
    let earlier = o.attempts.iter().rev().skip(1);
    earlier
        .filter(|a| a.order.as_ref().is_some_and(|order| ended(order.slot.state)))
        .filter_map(Attempt::provider)
        .collect()
}

pub fn awaiting(o: &Observed, attempt: &Attempt, order: &Order, intent: &Intent, plan: &mut Plan) {
    plan.soon();
    plan.claim(Claim::yes(types::FUNDED, funded::FUNDED, format!("{} are in escrow.", o.format(order.slot.funds))));
    plan.claim(leased_by(o, order));
    // Before all else: a cancellation would pay the provider for the start that it missed.
    if overdue(order, o.chain_now()) {
        plan.claim(Claim::no(
            types::LEASED,
            leased::NO_SHOW,
            "The provider did not start in its window; its penalty comes back with the escrow.",
        ));
        plan.effect(Effect::Ensure(Goal::NoShow { order_id: id_of(attempt) }));
        return;
    }
    if *intent != Intent::Pursue || attempt.stored.is_none() || cannot_be_handed_over(o, attempt) {
        plan.claim(Claim::no(types::RUNNING, running::STOPPED, "The lease is being cancelled before its start."));
        plan.effect(Effect::Ensure(cancel(attempt)));
        return;
    }
    match &o.report {
        Report::Says(report) => handing_over(report, plan),
        Report::Unreachable(why) => unreachable(why, plan),
        Report::NotServed => {
            plan.claim(Claim::no(types::RUNNING, running::HANDING_OVER, "The provider is preparing the lease."))
        }
        Report::NotAsked => {}
    }
}

/// Placed from elsewhere, and the gateway still lacks what lies there.
fn cannot_be_handed_over(o: &Observed, attempt: &Attempt) -> bool {
    let lacks = |report: &LeaseReport| !report.manifest_held || !report.missing_inputs.is_empty();
    !attempt.has_manifest() && o.report.says().is_some_and(lacks)
}

fn handing_over(report: &LeaseReport, plan: &mut Plan) {
    if !report.manifest_held || !report.missing_inputs.is_empty() {
        plan.effect(Effect::HandOver { manifest: !report.manifest_held, inputs: report.missing_inputs.clone() });
    }
    let claim = match report.input_errors.iter().next() {
        Some((name, why)) => Claim::no(
            types::RUNNING,
            running::INPUT_UNAVAILABLE,
            format!(
                "The provider's gateway cannot get the input `{name}`: {}. It goes on trying for half of the start window.",
                why.trim_end_matches('.')
            ),
        ),
        None if !report.manifest_held => {
            Claim::no(types::RUNNING, running::HANDING_OVER, "The manifest is being handed over.")
        }
        None if !report.missing_inputs.is_empty() => Claim::no(
            types::RUNNING,
            running::HANDING_OVER,
            format!("Inputs are being handed over: {}.", report.missing_inputs.join(", ")),
        ),
        None if report.phase == "AwaitingInputs" => {
            Claim::no(types::RUNNING, running::PULLING_INPUTS, "The provider is fetching the inputs.")
        }
        None => Claim::no(types::RUNNING, running::STARTING, "The provider holds all inputs and is placing the work."),
    };
    plan.claim(claim);
}

fn unreachable(why: &str, plan: &mut Plan) {
    plan.claim(Claim::no(
        types::RUNNING,
        running::PROVIDER_UNREACHABLE,
        format!("The provider's gateway does not answer: {}. Goes on trying.", why.trim_end_matches('.')),
    ));
}

pub fn running(o: &Observed, attempt: &Attempt, order: &Order, intent: &Intent, plan: &mut Plan) {
    plan.soon();
    plan.claim(Claim::yes(types::FUNDED, funded::FUNDED, format!("{} are in escrow.", o.format(order.slot.funds))));
    plan.claim(leased_by(o, order));
    plan.claim(progress(o));
    if let Some(note) = newer_checkpoint(o) {
        plan.effect(Effect::SaveCheckpoint(note));
    }
    top_up::exhausted(o, order, plan);
    if attempt.stored.is_none() || is_over(o, order, intent) {
        plan.claim(Claim::no(types::RUNNING, running::STOPPED, "The lease is being closed."));
        plan.effect(Effect::Ensure(close(attempt)));
    } else {
        top_up::keep_funded(o, attempt, order, intent, plan);
    }
}

fn progress(o: &Observed) -> Claim {
    match &o.report {
        Report::Unreachable(why) => Claim::no(
            types::RUNNING,
            running::PROVIDER_UNREACHABLE,
            format!(
                "The provider's gateway does not answer: {}. The lease goes on; it is closed after {} of silence.",
                why.trim_end_matches('.'),
                silence(o)
            ),
        ),
        Report::Says(report) => match &report.exit {
            Some(exit) => {
                let how = if exit.code < 0 {
                    "The work cannot go on".to_owned()
                } else {
                    format!("The trainer ended with exit code {}", exit.code)
                };
                Claim::no(
                    types::RUNNING,
                    exit_reason(&exit.reason),
                    format!("{how}; waits for the provider to close the lease."),
                )
            }
            None => Claim::yes(types::RUNNING, running::RUNNING, "The provider works, and time is paid."),
        },
        Report::NotServed => Claim::no(
            types::RUNNING,
            running::PROVIDER_UNREACHABLE,
            format!(
                "The provider's gateway does not know the lease any more. It is closed after {} of this.",
                silence(o)
            ),
        ),
        Report::NotAsked => Claim::yes(types::RUNNING, running::RUNNING, "The provider works, and time is paid."),
    }
}

pub(super) fn silence(o: &Observed) -> String {
    go_duration(u64::try_from(o.silence()).unwrap_or_default())
}

/// Reasons of strangers never become reasons of conditions unless they are known.
fn exit_reason(said: &str) -> &'static str {
    [
        failed::BAD_USAGE,
        failed::BAD_DATA,
        failed::DISK_EXCEEDED,
        failed::OUT_OF_MEMORY,
        failed::BACKOFF_LIMIT_EXCEEDED,
        "DeviceLost",
        "Evicted",
        "ImageUnavailable",
        "NodeLost",
    ]
    .into_iter()
    .find(|known| *known == said)
    .unwrap_or(failed::CRASHED)
}

/// A checkpoint that the gateway holds and the tenant's store does not.
pub(super) fn newer_checkpoint(o: &Observed) -> Option<freehold_core::wire::CheckpointNote> {
    let newest = o.report.says()?.checkpoints.last()?;
    let held = o.checkpoint.as_ref().map(|c| c.step);
    held.is_none_or(|step| newest.step > step).then(|| newest.clone())
}

/// Is the lease to be closed now?
fn is_over(o: &Observed, order: &Order, intent: &Intent) -> bool {
    match intent {
        // Waits for the work, not for a provider that is gone: the task could never be.
        Intent::Delete if o.spec.deletion_policy == DeletionPolicy::Finish => ended(o, order),
        Intent::Delete => checkpoint_awaited(o, o.task.deleting),
        Intent::Suspend => checkpoint_awaited(o, since(o, types::SUSPENDED, "True").or(Some(o.now))),
        Intent::Conclude(Outcome::Failed { reason: failed::DEADLINE_EXCEEDED, .. }) => true,
        // The provider closes for less, and is given the time to.
        Intent::Conclude(_) => older_than(o, since(o, types::FAILED, "True"), CLOSE_GRACE),
        Intent::Pursue => ended(o, order),
    }
}

fn ended(o: &Observed, order: &Order) -> bool {
    let stopped = since(o, types::RUNNING, "False");
    let overdue = o.chain_now() > order.slot.end_at + u64::try_from(CLOSE_GRACE).unwrap_or_default();
    let exited = o.report.says().is_some_and(|r| r.exit.is_some()) && older_than(o, stopped, CLOSE_GRACE);
    let silent = matches!(o.report, Report::Unreachable(_) | Report::NotServed) && older_than(o, stopped, o.silence());
    overdue || exited || silent
}

/// The last checkpoint was waited for long enough, or none can come.
fn checkpoint_awaited(o: &Observed, since: Option<jiff::Timestamp>) -> bool {
    let trains = o.task.kind == "TrainingTask";
    !trains || o.report.says().is_none_or(|r| r.exit.is_some()) || older_than(o, since, CHECKPOINT_GRACE)
}

pub(super) fn older_than(o: &Observed, since: Option<jiff::Timestamp>, seconds: i64) -> bool {
    since.is_some_and(|since| o.now.as_second() - since.as_second() >= seconds)
}

/// Since when a condition has had this status.
pub(super) fn since(o: &Observed, type_: &str, status: &str) -> Option<jiff::Timestamp> {
    let known = conditions::find(&o.task.status.conditions, type_).filter(|c| c.status == status)?;
    Some(known.last_transition_time.0)
}
