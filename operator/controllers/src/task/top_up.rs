//! Whether a running lease is given more escrow now, and how much. Pure.
//!
//! An order that is topped up holds a slice of time at first. Shortly before the
//! escrow ends it is raised by another slice, or by less where the work's
//! progress says that less will do: never beyond the task's budget, the
//! namespace's, or the account's caps, and never past the order's own time.

use std::time::Duration;

use freehold_api::Goal;
use freehold_api::conditions::{Claim, Status, types};
use freehold_api::task::DeletionPolicy;
use freehold_core::B256;
use freehold_core::money::{Amount, mul_div};
use freehold_core::order::{Metered, Order, OrderState};
use freehold_core::progress::ProgressLine;

use super::funding::{self, Asks, Question};
use super::ledger::Stage;
use super::observed::{Attempt, Observed};
use super::plan::{Effect, Intent, Plan, id_of};
use super::reasons::funded;
use super::status::time;
use super::validate::LEAST_LEASE_SECONDS;

/// What follows the last step: evaluation, and the upload of the result.
const WRAP_UP: u64 = 300;
/// Decimals that a token amount of the API may have.
const API_DECIMALS: u32 = 9;

/// Seconds before the escrow's end at which it is raised: enough for a goal to be decided, sent, replaced by a dearer
/// one, and mined.
pub fn lead(block_time: u64) -> u64 {
    60 + 30 * block_time
}

/// What is given, and how.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    pub slice: u64,
    pub lead: u64,
    /// What is left of the task's budget.
    pub left: Amount,
    /// Smallest amount that a goal can tell.
    pub unit: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Funded for as long as it can be used; another look is due after so many seconds, or never.
    Enough {
        look_in: Option<u64>,
    },
    Add(Amount),
    /// Nothing is left that would be worth a transaction.
    Spent,
}

/// `work_left`: predicted seconds of work, where its progress is known.
pub fn choose(lease: &Metered, means: &Means, work_left: Option<u64>, now: u64) -> Choice {
    let (end, last) = (lease.end(), lease.last());
    if end >= last {
        return Choice::Enough { look_in: None };
    }
    if now.saturating_add(means.lead) < end {
        return Choice::Enough { look_in: Some(end - means.lead - now) };
    }
    // A prediction is a guess of strangers: a quarter more than it says.
    let done =
        work_left.map_or(u64::MAX, |left| now.saturating_add(left.saturating_add(left / 4)).saturating_add(WRAP_UP));
    if done <= end {
        // Each report of progress is another look.
        return Choice::Enough { look_in: None };
    }
    // At least as far as the next look.
    let until = end.saturating_add(means.slice).min(done.max(end.saturating_add(means.lead))).min(last);
    let missing = lease.rate.costs(until.saturating_sub(lease.started_at)).saturating_sub(lease.escrow);
    let affordable = means.left.0 / means.unit * means.unit;
    let amount = Amount(missing.0.div_ceil(means.unit).saturating_mul(means.unit).min(affordable));
    let bought = lease.end_with(lease.escrow.saturating_add(amount)) - end;
    if amount == Amount::ZERO || (amount < missing && bought < LEAST_LEASE_SECONDS) {
        return Choice::Spent;
    }
    Choice::Add(amount)
}

/// Seconds of work left, from the steps done since `resumed` in `elapsed` seconds.
pub fn work_left(elapsed: u64, resumed: u64, line: &ProgressLine) -> Option<u64> {
    let done = line.step.checked_sub(resumed).filter(|done| *done > 0)?;
    let left = u128::from(line.steps.saturating_sub(line.step));
    Some(u64::try_from(mul_div(u128::from(elapsed), left, u128::from(done))).unwrap_or(u64::MAX))
}

/// Smallest units that a goal's amount cannot tell apart.
fn unit(decimals: u8) -> u128 {
    10u128.checked_pow(u32::from(decimals).saturating_sub(API_DECIMALS)).unwrap_or(u128::MAX)
}

/// Keeps a lease that goes on in funds, if the task asks for it, and says where that ends.
pub fn keep_funded(o: &Observed, attempt: &Attempt, order: &Order, intent: &Intent, plan: &mut Plan) {
    if !goes_on(o, order, intent) {
        return;
    }
    // Until a block shows what it added, nothing is added to that; asked for again, what it waits for is said.
    if let Some(goal) = asked(o, attempt, order) {
        return plan.effect(Effect::Ensure(goal.clone()));
    }
    let Some(means) = means(o) else { return };
    let lease = order.metered();
    let elapsed = o.chain_now().saturating_sub(lease.started_at);
    let resumed = attempt.stored.as_ref().map_or(0, |stored| stored.resumed);
    let progress = o.report.says().and_then(|report| report.progress.as_ref());
    let predicted = progress.and_then(|line| work_left(elapsed, resumed, line));
    let until = time(lease.end());
    let short = |why: &str| format!("The escrow lasts until {until} and is not raised. {why}");
    match choose(&lease, &means, predicted, o.chain_now()) {
        Choice::Enough { look_in } => {
            if let Some(seconds) = look_in {
                plan.recheck = plan.recheck.min(Duration::from_secs(seconds.max(1)));
            }
        }
        Choice::Spent => plan.claim(Claim::no(
            types::FUNDED,
            funded::BUDGET_EXCEEDED,
            short(&format!("Of market.budget {} {} are left; raise it.", o.spec.market.budget, o.format(means.left))),
        )),
        Choice::Add(amount) => {
            let Some(question) = Question::of(o, Asks::TopUp, amount, &o.entries) else { return };
            match funding::decide(&question) {
                Err(claim) => plan.claim(Claim { message: short(&claim.message), ..claim }),
                Ok(()) => plan.effect(Effect::TopUp { order: attempt.id, amount, escrow: lease.escrow }),
            }
        }
    }
}

/// The goal of a top-up: the same need has the same name, whoever asks and however often.
pub fn goal(order: &B256, amount: Amount, escrow: Amount, decimals: u8) -> Goal {
    let order_id = format!("{order:#x}").into();
    Goal::TopUp { order_id, amount: amount.format(decimals).into(), escrow: escrow.to_string() }
}

/// The money ran out before the work was done: told before the lease is closed over it.
pub fn exhausted(o: &Observed, order: &Order, plan: &mut Plan) {
    let lease = order.metered();
    let by_money = lease.end() < lease.last();
    if by_money && o.chain_now() > order.slot.end_at {
        plan.claim(Claim::no(
            types::FUNDED,
            funded::ESCROW_EXHAUSTED,
            format!("The escrow of {} ran out at {}.", o.format(lease.escrow), time(order.slot.end_at)),
        ));
    }
}

/// The work is wanted and has not ended, and there is time to pay for it.
fn goes_on(o: &Observed, order: &Order, intent: &Intent) -> bool {
    let wanted = match intent {
        Intent::Pursue => true,
        Intent::Delete => o.spec.deletion_policy == DeletionPolicy::Finish,
        Intent::Suspend | Intent::Conclude(_) => false,
    };
    wanted && o.chain_now() <= order.slot.end_at && o.report.says().is_none_or(|report| report.exit.is_none())
}

fn means(o: &Observed) -> Option<Means> {
    let (limits, view) = (o.limits()?, o.view.as_ref()?);
    Some(Means { slice: limits.slice?, lead: lead(view.block_time), left: o.budget_left(), unit: unit(view.decimals) })
}

/// The top-up that was asked for from what the chain holds now: one need has one goal, also where that failed.
fn asked<'a>(o: &'a Observed, attempt: &Attempt, order: &Order) -> Option<&'a Goal> {
    let (id, held) = (id_of(attempt), order.escrow().0);
    let unseen = |goal: &Goal| match goal {
        Goal::TopUp { order_id, escrow, .. } => *order_id == id && escrow.parse().is_ok_and(|from: u128| from >= held),
        _ => false,
    };
    o.goals.iter().map(|fact| &fact.goal).find(|goal| unseen(goal))
}

/// Budgets and other orders have to be known.
pub fn may_be_due(o: &Observed) -> bool {
    let running = o.newest().filter(|attempt| attempt.stage == Stage::Live(OrderState::Running));
    let order = running.and_then(|attempt| attempt.order.as_ref());
    order.zip(means(o)).is_some_and(|(order, means)| o.chain_now() + means.lead >= order.slot.end_at)
}

/// The lease of the task is kept in funds: that its escrow ends soon is no news.
pub fn keeps_up(o: &Observed, plan: &Plan) -> bool {
    let order = o.newest().filter(|a| a.stage == Stage::Live(OrderState::Running)).and_then(|a| a.order.as_ref());
    let can_be = order.map(|order| order.metered()).is_some_and(|lease| lease.end() < lease.last());
    let refused = |claim: &Claim| claim.type_ == types::FUNDED && claim.status != Status::True;
    can_be && means(o).is_some_and(|means| means.left > Amount::ZERO) && !plan.claims.iter().any(refused)
}
