//! The lifecycle of a task as a pure function: what was observed, to claims
//! about conditions and effects to apply. Doing the effects and looking again
//! leads on; doing them twice changes nothing.

use std::time::Duration;

use freehold_api::Goal;
use freehold_api::conditions::{Claim, types};
use freehold_core::B256;
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderState};
use freehold_core::wire::CheckpointNote;

use super::adoption;
use super::funding::{self, Asks, Question};
use super::ledger::Stage;
use super::observed::{Attempt, Observed};
use super::outcome::{self, Outcome};
use super::reasons::{funded, leased, other, settled, valid, verified};
use super::{ending, last_word, leasing, top_up, winding};

/// Seconds between two looks where nothing wakes the task.
pub const POLL: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);
/// Repeats of an order that found nobody wait up to this many times half the bid window.
const MAX_BACKOFF: u32 = 3;

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    AddFinalizer,
    RemoveFinalizer,
    /// Write down that the order, placed from elsewhere, is the task's.
    Adopt {
        order: B256,
        attempt: u32,
    },
    /// Decide under the account's lock, write the order down, and ask for it to be placed.
    Fund {
        attempt: u32,
    },
    Ensure(Goal),
    /// Decide under the account's lock, and ask for the escrow to be raised from what the chain holds of it.
    TopUp {
        order: B256,
        amount: Amount,
        escrow: Amount,
    },
    /// Take back an order that no transaction was made for yet.
    Revoke {
        order: B256,
    },
    HandOver {
        manifest: bool,
        inputs: Vec<String>,
    },
    SaveCheckpoint(CheckpointNote),
    /// Fetch the delivered result into the store.
    Collect {
        result_hash: B256,
    },
    DeleteTask,
}

impl Effect {
    /// Allowed while the chain cannot be seen: moves no money and removes nothing.
    fn is_harmless(&self) -> bool {
        match self {
            Self::HandOver { .. } | Self::SaveCheckpoint(_) | Self::Collect { .. } => true,
            Self::AddFinalizer
            | Self::RemoveFinalizer
            | Self::Adopt { .. }
            | Self::Fund { .. }
            | Self::Ensure(_)
            | Self::TopUp { .. }
            | Self::Revoke { .. }
            | Self::DeleteTask => false,
        }
    }
}

/// What the task is driven toward.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    Pursue,
    Suspend,
    Delete,
    /// The task is over; its order is brought to an end.
    Conclude(Outcome),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub claims: Vec<Claim>,
    /// Conditions that no longer apply.
    pub dropped: Vec<&'static str>,
    pub effects: Vec<Effect>,
    pub recheck: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { claims: Vec::new(), dropped: Vec::new(), effects: Vec::new(), recheck: IDLE }
    }
}

impl Plan {
    pub(super) fn claim(&mut self, claim: Claim) {
        self.claims.retain(|c| c.type_ != claim.type_);
        self.claims.push(claim);
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn soon(&mut self) {
        self.recheck = self.recheck.min(POLL);
    }
}

pub fn intent(o: &Observed) -> Intent {
    if o.task.deleting.is_some() {
        return Intent::Delete;
    }
    match outcome::outcome(o) {
        Some(outcome) => Intent::Conclude(outcome),
        None if o.spec.suspend => Intent::Suspend,
        None => Intent::Pursue,
    }
}

pub fn plan(o: &Observed) -> Plan {
    let mut plan = Plan::default();
    let Some(view) = known_chain(o, &mut plan) else { return plan };
    let intent = intent(o);
    validity(o, &mut plan);
    strays(o, &mut plan);
    match o.newest() {
        None => unordered(o, &intent, &mut plan),
        Some(attempt) => ordered(o, attempt, &intent, &mut plan),
    }
    intentions(o, &intent, &mut plan);
    transactions(o, &mut plan);
    if !view.health.allows_action() {
        blind(o, &view.health, &mut plan);
    }
    plan
}

/// Without account or view there is nothing to judge by.
fn known_chain<'a>(o: &'a Observed, plan: &mut Plan) -> Option<&'a freehold_chain::view::ChainView> {
    let missing = match (&o.account, &o.view) {
        (Err(claim), _) => claim.clone(),
        (Ok(account), None) => Claim::unknown(
            types::FUNDED,
            other::CHAIN_UNREACHABLE,
            format!("The chain of account `{}` has not been read yet; see its conditions.", account.name),
        ),
        (Ok(_), Some(view)) => return Some(view),
    };
    if o.task.deleting.is_some() {
        if o.task.held {
            plan.claim(Claim::yes(
                types::DELETING,
                other::CHAIN_UNREACHABLE,
                format!("Waits for the chain, to end the task's order. {}", missing.message),
            ));
        }
    } else {
        plan.claim(missing);
    }
    plan.recheck = POLL;
    None
}

/// What is known of the spec. Once an order stands, its inputs are no longer looked at.
fn validity(o: &Observed, plan: &mut Plan) {
    let refusal = match (&o.limits, &o.work) {
        (Some(Err(claim)), _) => Some(claim),
        (_, Some(Err(claim))) => Some(claim),
        _ => None,
    };
    match refusal {
        Some(claim) => plan.claim(claim.clone()),
        None => plan.claim(Claim::yes(types::VALID, valid::VALID, "The spec can be run.")),
    }
}

/// A goal that is still wanted and failed, or waits on somebody, is said aloud.
fn transactions(o: &Observed, plan: &mut Plan) {
    use freehold_api::transaction::TransactionState::Failed;
    let decimals = o.view.as_ref().map(|view| view.decimals).unwrap_or_default();
    let asks = |effect: &Effect, goal: &Goal| match effect {
        Effect::Ensure(asked) => asked == goal,
        Effect::TopUp { order, amount, escrow } => top_up::goal(order, *amount, *escrow, decimals) == *goal,
        _ => false,
    };
    let wanted = |goal: &Goal| plan.effects.iter().any(|effect| asks(effect, goal));
    let troubled =
        o.goals.iter().filter(|fact| wanted(&fact.goal)).find_map(|fact| fact.trouble.as_ref().map(|t| (fact, t)));
    match troubled {
        Some((fact, (reason, message))) => {
            let verb = if fact.state == Failed { "failed" } else { "waits" };
            plan.claim(Claim::yes(
                types::STALLED,
                other::GOAL_FAILED,
                format!("The transaction {} {verb} ({reason}): {message}", fact.goal.name()),
            ));
        }
        None => plan.dropped.push(types::STALLED),
    }
}

/// Orders of earlier attempts that came back, as a reorganisation can make them: only the newest one is worked on.
fn strays(o: &Observed, plan: &mut Plan) {
    for attempt in o.attempts.iter().rev().skip(1) {
        match (attempt.stage, &attempt.order) {
            (Stage::Live(_), Some(order)) => {
                ending::end(order, o.chain_now()).into_iter().for_each(|goal| plan.effect(Effect::Ensure(goal)))
            }
            (Stage::Live(_), None) | (Stage::Unplaced | Stage::Lapsed | Stage::Settling(_) | Stage::Settled(_), _) => {}
        }
    }
}

fn unordered(o: &Observed, intent: &Intent, plan: &mut Plan) {
    match intent {
        Intent::Pursue => fund(o, 0, plan),
        Intent::Delete => release(o, plan),
        Intent::Suspend | Intent::Conclude(_) => {}
    }
}

fn ordered(o: &Observed, attempt: &Attempt, intent: &Intent, plan: &mut Plan) {
    if matches!(attempt.stage, Stage::Unplaced | Stage::Live(_)) {
        plan.dropped.push(types::SETTLED);
    }
    match (attempt.stage, &attempt.order) {
        (Stage::Unplaced, _) => unplaced(o, attempt, intent, plan),
        (Stage::Lapsed, _) => lost(o, attempt, intent, None, plan),
        (Stage::Live(OrderState::Open), Some(order)) => leasing::open(o, attempt, order, intent, plan),
        (Stage::Live(OrderState::Awaiting), Some(order)) => leasing::awaiting(o, attempt, order, intent, plan),
        (Stage::Live(OrderState::Running), Some(order)) => leasing::running(o, attempt, order, intent, plan),
        (Stage::Live(OrderState::Delivered), Some(order)) => winding::delivered(o, attempt, order, intent, plan),
        (Stage::Live(_), _) => plan.soon(),
        (Stage::Settling(state), _) => settling(state, plan),
        (Stage::Settled(OrderState::Accepted), _) => winding::accepted(o, attempt, intent, plan),
        (Stage::Settled(state), _) => lost(o, attempt, intent, Some(state), plan),
    }
}

/// Written down, not on the chain.
fn unplaced(o: &Observed, attempt: &Attempt, intent: &Intent, plan: &mut Plan) {
    plan.soon();
    match intent {
        Intent::Pursue => {
            plan.claim(placing(o, &place(attempt)));
            plan.effect(Effect::Ensure(place(attempt)));
        }
        Intent::Suspend | Intent::Delete | Intent::Conclude(_) => plan.effect(Effect::Revoke { order: attempt.id }),
    }
}

fn placing(o: &Observed, goal: &Goal) -> Claim {
    let trouble = o.goal(|g| g == goal).and_then(|fact| fact.trouble.as_ref());
    let short = [funded::GAS_LOW, funded::INSUFFICIENT_BALANCE, funded::SIGNER_REFUSED];
    match trouble.and_then(|(reason, message)| Some((short.into_iter().find(|r| r == reason)?, message))) {
        Some((reason, message)) => Claim::no(types::FUNDED, reason, message.clone()),
        None => Claim::unknown(types::FUNDED, funded::PLACING, "The order is being placed on the chain."),
    }
}

fn settling(state: OrderState, plan: &mut Plan) {
    plan.claim(Claim::unknown(
        types::SETTLED,
        settled::CONFIRMING,
        format!("The order is {} as of the latest block; waits for confirmations.", state.name()),
    ));
    plan.soon();
}

/// The newest order ended without an accepted result, or never came to be.
fn lost(o: &Observed, attempt: &Attempt, intent: &Intent, state: Option<OrderState>, plan: &mut Plan) {
    last_word::gather(o, intent, state, plan);
    match intent {
        Intent::Delete | Intent::Suspend | Intent::Conclude(_) => release(o, plan),
        Intent::Pursue => repeat(o, attempt, state, plan),
    }
    plan.claim(winding::loss(o, attempt, state));
    plan.dropped.extend([types::RESULT_SUBMITTED, types::VERIFIED]);
    if state == Some(OrderState::Rejected) {
        plan.claim(Claim::no(types::VERIFIED, verified::REJECTED, "The result was rejected."));
    }
    match state {
        Some(_) => winding::refund(o, plan),
        None => plan.claim(Claim::yes(types::SETTLED, settled::SETTLED, "The order never reached the chain.")),
    }
}

/// Another order, once it is known how the last one ended.
fn repeat(o: &Observed, attempt: &Attempt, state: Option<OrderState>, plan: &mut Plan) {
    let retrying = |message: String| Claim::no(types::FUNDED, funded::RETRYING, message);
    match last_word::awaited(o, state) {
        Some(why) => {
            plan.claim(retrying(format!("The last order ended without a result; before another one follows, {why}.")))
        }
        None => {
            plan.claim(retrying("The last order ended without a result; another one follows.".into()));
            fund(o, attempt.number + 1, plan);
        }
    }
}

/// Checks all that can be checked before the account's lock is taken.
pub(super) fn fund(o: &Observed, attempt: u32, plan: &mut Plan) {
    let not_before = not_before(o);
    if o.chain_now() < not_before {
        plan.recheck = plan.recheck.min(Duration::from_secs(not_before - o.chain_now()));
        return;
    }
    let Some(Ok(work)) = &o.work else {
        plan.recheck = plan.recheck.min(Duration::from_secs(15));
        return;
    };
    if let Some(found) = adoption::before_ordering(o, work) {
        return adopt(o, attempt, found, plan);
    }
    let Some(question) = Question::of(o, Asks::Order, o.next_cap(), &o.entries) else { return };
    if let Err(claim) = funding::decide(&question) {
        plan.claim(claim);
        return;
    }
    plan.claim(Claim::unknown(types::FUNDED, funded::PLACING, "The order is being placed on the chain."));
    hold(o, plan);
    plan.effect(Effect::Fund { attempt });
    plan.soon();
}

/// An order that another object placed comes first.
fn adopt(o: &Observed, attempt: u32, found: Result<B256, Claim>, plan: &mut Plan) {
    plan.soon();
    match found {
        Ok(order) => {
            let message = format!("Order {order:#x} is being taken over.");
            plan.claim(Claim::unknown(types::FUNDED, funded::ADOPTING, message));
            hold(o, plan);
            plan.effect(Effect::Adopt { order, attempt });
        }
        Err(claim) => plan.claim(claim),
    }
}

/// Before an order stands: the finalizer, and under which UID it is placed.
fn hold(o: &Observed, plan: &mut Plan) {
    if !o.task.held || o.task.ordered_as.as_deref() != Some(&adoption::ordered_as(&o.task)) {
        plan.effect(Effect::AddFinalizer);
    }
}

/// Orders that found nobody are repeated ever more slowly; a lease that was lost is replaced at once.
pub(super) fn not_before(o: &Observed) -> u64 {
    let (Some(limits), Some(newest)) = (o.limits(), o.newest()) else { return 0 };
    let ran = |a: &&Attempt| a.order.as_ref().is_some_and(|order| order.slot.started_at != 0);
    let in_vain = o.attempts.iter().rev().take_while(|a| !ran(a)).count();
    if in_vain == 0 {
        return 0;
    }
    let ended = newest.stored.as_ref().map(|s| s.bid_by()).unwrap_or_default();
    let exponent = u32::try_from(in_vain - 1).unwrap_or(MAX_BACKOFF).min(MAX_BACKOFF);
    ended.saturating_add((limits.bid_window / 2).saturating_mul(1 << exponent))
}

/// Nothing can accrue any more: the task may go whenever it is deleted.
pub(super) fn release(o: &Observed, plan: &mut Plan) {
    if o.task.held {
        plan.effect(Effect::RemoveFinalizer);
    }
}

/// Conditions that follow from what the task is driven toward.
fn intentions(o: &Observed, intent: &Intent, plan: &mut Plan) {
    match intent {
        Intent::Pursue => plan.dropped.push(types::SUSPENDED),
        Intent::Suspend => {
            let ended = o.stage().is_none_or(|s| matches!(s, Stage::Lapsed | Stage::Settled(_)));
            plan.claim(match ended {
                true => Claim::yes(
                    types::SUSPENDED,
                    other::SUSPENDED,
                    "spec.suspend is true; no order is placed until it is false.",
                ),
                false => {
                    Claim::yes(types::SUSPENDED, other::SUSPENDING, "spec.suspend is true; the order is being ended.")
                }
            });
        }
        Intent::Delete => {
            if o.task.held && !plan.effects.contains(&Effect::RemoveFinalizer) {
                plan.claim(Claim::yes(
                    types::DELETING,
                    other::CLOSING,
                    "The task goes once its order can accrue no more.",
                ));
                plan.soon();
            }
        }
        Intent::Conclude(outcome) => conclude(o, outcome, plan),
    }
}

fn conclude(o: &Observed, outcome: &Outcome, plan: &mut Plan) {
    plan.dropped.push(types::SUSPENDED);
    plan.claim(outcome.claim());
    let over = o.stage().is_none_or(|s| matches!(s, Stage::Lapsed | Stage::Settled(_)));
    let finished = o.task.status.completion_time.as_ref().and_then(|t| t.as_str().parse::<jiff::Timestamp>().ok());
    if let (Some(ttl), Some(finished), true) = (o.limits().and_then(|l| l.ttl), finished, over) {
        let age = u64::try_from(o.now.as_second() - finished.as_second()).unwrap_or_default();
        match ttl.checked_sub(age) {
            None | Some(0) => plan.effect(Effect::DeleteTask),
            Some(left) => plan.recheck = plan.recheck.min(Duration::from_secs(left)),
        }
    }
}

/// A blind operator does no harm.
fn blind(o: &Observed, health: &freehold_chain::view::Health, plan: &mut Plan) {
    let (reason, message) = health.explain();
    plan.effects.retain(Effect::is_harmless);
    plan.dropped.retain(|type_| *type_ != types::STALLED);
    plan.claims.retain(|claim| !matches!(claim.type_, types::COMPLETE | types::FAILED));
    plan.claim(Claim::yes(types::STALLED, reason, message.clone()));
    if o.attempts.is_empty() && o.task.deleting.is_none() {
        plan.claim(Claim::unknown(types::FUNDED, reason, message.clone()));
    }
    if o.task.deleting.is_some() && o.task.held {
        plan.claim(Claim::yes(types::DELETING, other::CHAIN_UNREACHABLE, message));
    }
    plan.soon();
}

pub(super) fn id_of(attempt: &Attempt) -> freehold_api::scalars::Bytes32 {
    format!("{:#x}", attempt.id).into()
}

fn place(attempt: &Attempt) -> Goal {
    Goal::PlaceOrder { order_id: id_of(attempt), order: super::stored::name_of(&attempt.id).into() }
}

pub(super) fn cancel(attempt: &Attempt) -> Goal {
    Goal::CancelOrder { order_id: id_of(attempt) }
}

pub(super) fn close(attempt: &Attempt) -> Goal {
    Goal::CloseOrder { order_id: id_of(attempt) }
}

/// `Leased` of an order that stands at a provider.
pub(super) fn leased_by(o: &Observed, order: &Order) -> Claim {
    let rate = o.format(order.rate().hourly());
    Claim::yes(types::LEASED, leased::LEASED, format!("Leased from {} at {rate} an hour.", order.slot.provider))
}
