//! Stages in which the work is over: Delivered, Accepted, and every way to lose a lease.

use freehold_api::Goal;
use freehold_api::conditions::{Claim, types};
use freehold_core::B256;
use freehold_core::order::{Order, OrderState};

use super::ending::{self, overdue};
use super::observed::{Attempt, Delivery, Observed, Report};
use super::plan::{Effect, Intent, Plan, id_of, leased_by, release};
use super::reasons::{funded, leased, other, result, running, settled, verified};

/// Results act at confirmed depth only.
pub fn delivered(o: &Observed, attempt: &Attempt, order: &Order, intent: &Intent, plan: &mut Plan) {
    plan.soon();
    plan.claim(Claim::yes(types::FUNDED, funded::FUNDED, format!("{} are in escrow.", o.format(order.slot.funds))));
    plan.claim(leased_by(o, order));
    plan.claim(Claim::no(types::RUNNING, running::FINISHED, "The work is done."));
    let confirmed = attempt.confirmed_state() == OrderState::Delivered;
    if !confirmed {
        plan.claim(Claim::unknown(
            types::RESULT_SUBMITTED,
            settled::CONFIRMING,
            "The provider delivered; waits for confirmations.",
        ));
        return;
    }
    if *intent == Intent::Delete {
        plan.claim(Claim::yes(
            types::DELETING,
            other::WAIVED,
            "The result was delivered and is not judged any more: it counts as accepted when the review window ends.",
        ));
        if overdue(order, o.chain_now()) {
            plan.effects.extend(ending::accept(order).map(Effect::Ensure));
        }
        return release(o, plan);
    }
    plan.claim(Claim::unknown(
        types::VERIFIED,
        verified::WINDOW_OPEN,
        format!("The result is being checked; the window ends at {}.", super::status::time(order.slot.deadline)),
    ));
    judge(o, attempt, order, plan);
}

/// Accept what is good, reject what is not, or what was not handed out in three quarters of the window.
fn judge(o: &Observed, attempt: &Attempt, order: &Order, plan: &mut Plan) {
    let Some(hash) = order.result_hash else {
        return plan.claim(Claim::unknown(
            types::RESULT_SUBMITTED,
            settled::CONFIRMING,
            "The digest of the result has not been read from the chain yet.",
        ));
    };
    let (order_id, result_hash) = (id_of(attempt), format!("{hash:#x}").into());
    match &o.delivery {
        Delivery::Good(file) => {
            plan.claim(Claim::yes(
                types::RESULT_SUBMITTED,
                result::DELIVERED,
                format!("{} file(s) were delivered, and every digest matches.", file.outputs.len()),
            ));
            plan.effect(Effect::Ensure(Goal::AcceptResult { order_id, result_hash }));
        }
        Delivery::Bad(why) => {
            let what = match overdue(order, o.chain_now()) {
                true => "The review window ended before the result could be rejected",
                false => "The result is rejected",
            };
            plan.claim(Claim::no(types::RESULT_SUBMITTED, result::DIGEST_MISMATCH, format!("{what}: {why}.")));
            reject(o, order, Goal::RejectResult { order_id, result_hash }, plan);
        }
        Delivery::None | Delivery::Missing => {
            missing(o, order, hash, Goal::RejectResult { order_id, result_hash }, plan)
        }
    }
}

fn missing(o: &Observed, order: &Order, hash: B256, rejection: Goal, plan: &mut Plan) {
    let why = match &o.report {
        Report::Unreachable(why) => format!("; its gateway does not answer: {}", why.trim_end_matches('.')),
        Report::NotServed => "; its gateway does not know the lease".into(),
        Report::NotAsked | Report::Says(_) => String::new(),
    };
    plan.claim(Claim::no(
        types::RESULT_SUBMITTED,
        result::UPLOAD_INCOMPLETE,
        format!("The provider named a result that is not fetched yet{why}."),
    ));
    let window = order.terms.window.to::<u64>();
    let late = o.chain_now() + window / 4 > order.slot.deadline;
    if late {
        reject(o, order, rejection, plan);
    }
    // What has to be paid for is fetched all the same.
    if !late || overdue(order, o.chain_now()) {
        plan.effect(Effect::Collect { result_hash: hash });
    }
}

/// Once the window is over nothing can be rejected, and the order must not stand for ever: silence accepts.
fn reject(o: &Observed, order: &Order, rejection: Goal, plan: &mut Plan) {
    let goal = if overdue(order, o.chain_now()) { ending::accept(order) } else { Some(rejection) };
    plan.effects.extend(goal.map(Effect::Ensure));
}

/// Accepted at confirmed depth.
pub fn accepted(o: &Observed, attempt: &Attempt, intent: &Intent, plan: &mut Plan) {
    plan.claim(Claim::yes(types::FUNDED, funded::FUNDED, "The order was funded and is settled."));
    plan.claim(Claim::no(types::RUNNING, running::FINISHED, "The work is done."));
    if let Some(order) = &attempt.order {
        plan.claim(leased_by(o, order));
    }
    match &o.delivery {
        Delivery::Good(file) => {
            plan.claim(Claim::yes(
                types::RESULT_SUBMITTED,
                result::DELIVERED,
                format!("{} file(s) were delivered, and every digest matches.", file.outputs.len()),
            ));
            plan.claim(Claim::yes(types::VERIFIED, verified::ACCEPTED, "The result was accepted at confirmed depth."));
        }
        Delivery::Bad(why) => plan.claim(Claim::no(
            types::VERIFIED,
            verified::REJECTED,
            format!("The review window ended before the result could be rejected: {why}."),
        )),
        Delivery::None | Delivery::Missing => {
            plan.claim(Claim::no(
                types::RESULT_SUBMITTED,
                result::UPLOAD_INCOMPLETE,
                "The review window ended before the result was fetched; goes on trying.",
            ));
            if let Some(hash) = attempt.order.as_ref().and_then(|order| order.result_hash)
                && *intent != Intent::Delete
            {
                plan.effect(Effect::Collect { result_hash: hash });
            }
            plan.soon();
        }
    }
    if matches!(intent, Intent::Delete | Intent::Conclude(_)) {
        release(o, plan);
    }
    refund(o, plan);
}

/// Settled is said once nothing of the account is left in the market's ledger.
pub fn refund(o: &Observed, plan: &mut Plan) {
    let Some(view) = &o.view else { return };
    if freehold_api::conditions::is_true(&o.task.status.conditions, types::SETTLED) && same_attempt(o) {
        return;
    }
    plan.claim(match view.balances.free.0 {
        0 => Claim::yes(
            types::SETTLED,
            settled::SETTLED,
            "The order is settled and its refund is in the account's wallet.",
        ),
        _ => Claim::no(
            types::SETTLED,
            settled::REFUND_PENDING,
            // How much waits is the account's, and changes with each order of it: told here, every task that waits would
            // be written anew each time.
            "The order is settled; its refund is in the account's ledger in the market and is being withdrawn.",
        ),
    });
}

fn same_attempt(o: &Observed) -> bool {
    o.task.status.attempt == o.newest().map(|a| a.number)
}

/// Why the newest order came to nothing.
pub fn loss(o: &Observed, attempt: &Attempt, state: Option<OrderState>) -> Claim {
    let no = |reason, message: &str| Claim::no(types::LEASED, reason, message);
    match state {
        None => match o
            .goal(|g| matches!(g, Goal::PlaceOrder { order_id, .. } if *order_id == id_of(attempt)))
            .and_then(|f| f.trouble.clone())
        {
            Some((reason, message)) => {
                no(funded::ORDER_FAILED, &format!("The order could not be placed ({reason}): {message}"))
            }
            None => no(funded::ORDER_FAILED, "The order did not reach the chain in time."),
        },
        Some(OrderState::Declined) => no(leased::DECLINED, "The provider gave the lease back before its start."),
        Some(OrderState::NoShow) => no(leased::NO_SHOW, "The provider did not start in its window."),
        Some(OrderState::Closed) => no(leased::PROVIDER_CLOSED, &closed(o)),
        Some(OrderState::Rejected) => no(leased::RESULT_REJECTED, "The result was rejected."),
        Some(OrderState::Cancelled) => unwanted(o, attempt),
        Some(state) => no(leased::ENDED, &format!("The order ended as {}.", state.name())),
    }
}

/// What the provider said of the end, where it did.
fn closed(o: &Observed) -> String {
    let said = o.report.says().and_then(|report| report.exit.as_ref()?.message.as_deref());
    match said {
        Some(why) => format!("The lease was closed without a result: {why}"),
        None => "The lease was closed without a result.".into(),
    }
}

/// The reason for which no bid was taken was said when the order was cancelled; it stays while no other is known.
fn unwanted(o: &Observed, attempt: &Attempt) -> Claim {
    let known = freehold_api::conditions::find(&o.task.status.conditions, types::LEASED);
    let reasons = [leased::NO_BIDS, leased::PRICE_TOO_HIGH, leased::NO_MATCHING_PROVIDER];
    if let Some((known, reason)) = known.and_then(|c| Some((c, reasons.into_iter().find(|r| *r == c.reason)?))) {
        return Claim::no(types::LEASED, reason, known.message.clone());
    }
    match attempt.provider() {
        None => Claim::no(types::LEASED, leased::NO_BIDS, "The order ended without a lease."),
        Some(_) => Claim::no(types::LEASED, leased::CANCELLED, "The lease was cancelled before its start."),
    }
}
