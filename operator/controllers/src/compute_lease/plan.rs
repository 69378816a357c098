//! The life of a lease as a function: what the chain, the cluster and the
//! gateway show → what to say and what to do. Pure; nothing is remembered but
//! what can be seen.

use std::time::Duration;

use freehold_api::Goal;
use freehold_api::conditions::{Claim, types};
use freehold_api::lease::{Exit, LeasePhase};
use freehold_core::B256;

use super::devices::Devices;
use super::exit::{self, JobEnd, Stop, TrainerEnd};
use super::facts::{Chain, Facts, Handover, JobFact, PodFact, Space};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Ask(Goal),
    /// Namespace, walls and Job.
    Create,
    /// Keep the log, then suspend the Job for good: SIGTERM, checkpoint, upload.
    Stop(Stop),
    ArchiveLogs,
    DeleteNamespace,
}

#[derive(Clone, Debug)]
pub struct Next {
    pub phase: LeasePhase,
    pub claims: Vec<Claim>,
    pub effects: Vec<Effect>,
    pub exit: Option<Exit>,
    /// Look again after this, if nothing wakes earlier.
    pub wake: Duration,
}

/// While something is about to happen.
const SOON: Duration = Duration::from_secs(2);
/// While work runs: progress, results, devices.
const WATCH: Duration = Duration::from_secs(5);
/// While nothing but the chain can change anything.
const IDLE: Duration = Duration::from_secs(30);
/// Once nothing is left; a reorganisation wakes it earlier.
pub const DONE: Duration = Duration::from_secs(600);
/// Reason of `Running` while what was lost is made again: each time that it comes up is counted.
pub const REBUILDING: &str = "Rebuilding";
/// A stopped trainer's grace period, and time for its last upload.
const STOP_SECONDS: u64 = 150;
/// A pod that finds no node for so long, or whose node does not come back, will not run.
const NODELESS_SECONDS: u64 = 300;
/// A registry that does not give the image for so long will not.
const IMAGELESS_SECONDS: u64 = 600;

pub fn next(facts: &Facts) -> Next {
    if let Some(why) = &facts.blind {
        return blind(facts, why);
    }
    match (facts.latest, facts.confirmed) {
        (latest, confirmed) if latest.is_over() && confirmed.is_over() && facts.caught_up => over(facts, latest),
        (Chain::NotOurs | Chain::Settled(_), _) => ending(facts),
        (Chain::Awaiting { start_by }, _) => awaiting(facts, start_by).live(),
        (Chain::Running { end_at }, _) => running(facts, end_at).live(),
        (Chain::Delivered { review_by, result }, _) => delivered(facts, review_by, result).live(),
    }
}

impl Next {
    fn new(phase: LeasePhase, wake: Duration) -> Self {
        Self { phase, claims: Vec::new(), effects: Vec::new(), exit: None, wake }
    }

    fn say(mut self, claim: Claim) -> Self {
        self.claims.push(claim);
        self
    }

    /// Also after a reorganisation that took the lease away and gave it back: what was cleaned up then is there again.
    fn live(self) -> Self {
        const SENTENCE: &str = "The chain says that the lease is live.";
        self.say(Claim::no(types::CLOSED, "Live", SENTENCE)).say(Claim::no(types::CLEANED_UP, "Live", SENTENCE))
    }

    fn act(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    fn exit(mut self, exit: Option<Exit>) -> Self {
        self.exit = exit;
        self
    }
}

/// A blind operator does no harm: what runs goes on, what is written stays.
fn blind(facts: &Facts, why: &str) -> Next {
    Next::new(facts.phase, WATCH).say(Claim::unknown(types::CLOSED, "ChainUnreachable", why)).exit(facts.exit.clone())
}

/// The newest block says that it is over; what ends work waits for depth.
fn ending(facts: &Facts) -> Next {
    let phase = if facts.latest == Chain::NotOurs { facts.phase } else { LeasePhase::Closed };
    Next::new(phase, SOON)
        .say(Claim::no(
            types::CLOSED,
            "Unconfirmed",
            "The newest block says that the lease is over; waiting for confirmations.",
        ))
        .exit(facts.exit.clone())
}

fn over(facts: &Facts, latest: Chain) -> Next {
    let (reason, message) = match latest {
        Chain::Settled(state) => (state.name(), format!("The order is {} at confirmed depth.", state.name())),
        _ => ("Reorganised", "The chain no longer knows this lease.".to_owned()),
    };
    let next =
        Next::new(LeasePhase::Closed, SOON).exit(facts.exit.clone()).say(Claim::yes(types::CLOSED, reason, message));
    let next =
        if facts.said_running { next.say(Claim::no(types::RUNNING, "Closed", "The lease is over.")) } else { next };
    match facts.space {
        Space::Active => next
            .say(Claim::no(types::CLEANED_UP, "Archiving", "Logs are kept, then the namespace is deleted."))
            .act(Effect::ArchiveLogs)
            .act(Effect::DeleteNamespace),
        Space::Terminating => next.say(Claim::no(types::CLEANED_UP, "Terminating", "The namespace is being deleted.")),
        Space::Absent => {
            let done = Claim::yes(types::CLEANED_UP, "Gone", "Nothing of the lease is left in the cluster.");
            Next { wake: DONE, ..next.say(done) }
        }
    }
}

fn awaiting(facts: &Facts, start_by: u64) -> Next {
    if facts.now > start_by {
        return start_missed(facts, start_by);
    }
    let late = facts.now + facts.margin >= start_by;
    let next = Next::new(LeasePhase::AwaitingInputs, SOON);
    if facts.asked.live("decline") {
        return Next::new(LeasePhase::Failed, SOON).exit(facts.exit.clone());
    }
    // A start that is on its way would win: then it is closed once it runs.
    if facts.evicted && !facts.asked.live("start") {
        return decline(facts, next, Stop::Evicted.as_str(), "the provider evicted it");
    }
    match (&facts.handover, &facts.job) {
        (_, Some(job)) => starting(facts, job, late),
        (Handover::Complete, None) => next.say(held()).create_or_wait(facts, late),
        (Handover::Invalid(why), None) => decline(
            facts,
            next.say(Claim::no(types::MANIFEST_RECEIVED, "Invalid", why.clone())),
            "ManifestInvalid",
            why,
        ),
        (missing, None) => {
            let (reason, message) = missing.explain();
            let next = next.say(Claim::no(types::MANIFEST_RECEIVED, reason, message.clone()));
            if late { decline(facts, next, reason, &message) } else { next }
        }
    }
}

fn handed_over(facts: &Facts) -> Claim {
    if facts.handover == Handover::Complete {
        return held();
    }
    let (reason, message) = facts.handover.explain();
    Claim::no(types::MANIFEST_RECEIVED, reason, message)
}

fn held() -> Claim {
    Claim::yes(types::MANIFEST_RECEIVED, "Held", "Manifest and inputs are held, and are what was ordered.")
}

impl Next {
    fn create_or_wait(self, facts: &Facts, late: bool) -> Self {
        match (facts.space, facts.has_room) {
            (Space::Terminating, _) => self,
            (_, true) => {
                let claim = Claim::no(types::CAPACITY_HELD, "Placing", "The pod is being placed.");
                Self { phase: LeasePhase::Starting, ..self.say(claim).act(Effect::Create) }
            }
            (_, false) => {
                let message = "No node has room for it now.";
                let next = self.say(Claim::no(types::CAPACITY_HELD, "NoCapacity", message));
                if late { decline(facts, next, "NoCapacity", message) } else { next }
            }
        }
    }
}

/// The pod exists and its `fetch` waits for the chain to say Running.
fn starting(facts: &Facts, job: &JobFact, late: bool) -> Next {
    let next = Next::new(LeasePhase::Starting, SOON).say(handed_over(facts));
    if facts.asked.live("start") {
        return next.capacity(facts).say(Claim::no(types::RUNNING, "Starting", "The start transaction is on its way."));
    }
    if let Some(end) = &job.failed {
        let exit = exit::of_job(end, trainer(facts));
        return decline(facts, next.capacity(facts).exit(Some(exit)), "HandlingFailed", &end.message);
    }
    let Some(pod) = facts.pod.as_ref().filter(|pod| pod.node.is_some()) else {
        let next = next.say(Claim::no(types::CAPACITY_HELD, "Placing", "The pod is not on a node yet."));
        return if late { decline(facts, next, "NoCapacity", "the pod found no node in time") } else { next };
    };
    let next = next.capacity(facts);
    if !pod.node_ready {
        return decline(facts, next, "NodeLost", "the node was lost before the start");
    }
    // Held when the pod was made, and since then perhaps lost: rent begins with what can be trained on.
    if facts.handover != Handover::Complete {
        let (reason, message) = facts.handover.explain();
        return if late { decline(facts, next, reason, &message) } else { next };
    }
    match &facts.devices {
        Devices::Match(_) | Devices::NotNeeded => {
            let goal = facts.ask(Goal::Start { order_id: facts.id() });
            Next { effects: goal.into_iter().collect(), ..next }
        }
        Devices::Mismatch(why) | Devices::Lost(why) => decline(facts, next, "DeviceMismatch", why),
        Devices::NotYet if late => decline(facts, next, "DeviceMismatch", "the agent did not show the devices in time"),
        Devices::NotYet => next,
    }
}

impl Next {
    fn capacity(self, facts: &Facts) -> Self {
        let node = facts.pod.as_ref().and_then(|pod| pod.node.clone());
        let held = match &node {
            Some(node) => Claim::yes(types::CAPACITY_HELD, "Placed", format!("The pod is on node {node}.")),
            None => Claim::no(types::CAPACITY_HELD, "Placing", "The pod is not on a node yet."),
        };
        let next = self.say(held);
        let devices = match &facts.devices {
            // Between two pods, and after the last, what was found before still stands.
            Devices::NotYet if matches!(facts.latest, Chain::Running { .. }) => return next,
            Devices::NotNeeded => Claim::yes(types::DEVICES_MATCH, "NotNeeded", "The work uses no GPU."),
            Devices::Match(uuids) => {
                Claim::yes(types::DEVICES_MATCH, "AsSold", format!("The kubelet gave {}.", uuids.join(", ")))
            }
            Devices::NotYet => {
                Claim::unknown(types::DEVICES_MATCH, "Waiting", "The agent does not show the pod's devices yet.")
            }
            Devices::Mismatch(why) => Claim::no(types::DEVICES_MATCH, "Mismatch", why.clone()),
            Devices::Lost(why) => Claim::no(types::DEVICES_MATCH, "DeviceLost", why.clone()),
        };
        next.say(devices)
    }
}

/// Cheap for the provider, and gives the tenant its money back at once.
fn decline(facts: &Facts, next: Next, reason: &'static str, why: &str) -> Next {
    let message = format!("The lease is declined: {why}");
    let exit = next
        .exit
        .clone()
        .or_else(|| Some(Exit { code: -1, reason: reason.into(), message: Some(message.clone().into()), failures: 0 }));
    let next = Next { phase: LeasePhase::Failed, exit, ..next.say(Claim::no(types::RUNNING, reason, message)) };
    facts.ask(Goal::Decline { order_id: facts.id() }).into_iter().fold(next, Next::act)
}

/// Anyone may now take the order back; once a block has passed we do, for what is left of the bond.
fn start_missed(facts: &Facts, start_by: u64) -> Next {
    let sentence = Stop::StartMissed.sentence();
    let next = Next::new(LeasePhase::Failed, SOON)
        .say(Claim::no(types::RUNNING, "NoShow", sentence))
        .exit(Some(exit::of_stop(Stop::StartMissed, 0)));
    let next = match (&facts.job, facts.stopped()) {
        (Some(_), None) => next.act(Effect::Stop(Stop::StartMissed)),
        _ => next,
    };
    let due = facts.now > start_by + facts.margin;
    let goal = due.then(|| facts.ask(Goal::NoShow { order_id: facts.id() })).flatten();
    goal.into_iter().fold(next, Next::act)
}

fn running(facts: &Facts, end_at: u64) -> Next {
    // The end of the escrow is known beforehand: it is looked at in the second after it.
    let left = Duration::from_secs(end_at.saturating_sub(facts.now) + 1);
    let next = Next::new(LeasePhase::Running, WATCH.min(left));
    let Some(job) = &facts.job else { return rebuild(facts, next, end_at) };
    if let Some((stop, at)) = job.stopped {
        return stopping(facts, job, stop, at);
    }
    let next = next.say(held());
    if job.complete && facts.now <= end_at {
        return finished(facts);
    }
    if facts.now > end_at {
        return stop(facts, job, Stop::EscrowExhausted, Stop::EscrowExhausted.sentence());
    }
    if facts.evicted {
        return stop(facts, job, Stop::Evicted, Stop::Evicted.sentence());
    }
    if let Some(end) = &job.failed {
        return failed(facts, end);
    }
    let next = next.capacity(facts);
    if let Devices::Lost(why) = &facts.devices {
        return stop(facts, job, Stop::DeviceLost, why);
    }
    match &facts.pod {
        Some(pod) if pod.disk_exceeded => stop(facts, job, Stop::DiskExceeded, Stop::DiskExceeded.sentence()),
        Some(pod) if pod.active && pod.nodeless_for > NODELESS_SECONDS => {
            stop(facts, job, Stop::NodeLost, Stop::NodeLost.sentence())
        }
        Some(pod) if pod.active && pod.imageless_for > IMAGELESS_SECONDS => {
            stop(facts, job, Stop::ImageUnavailable, Stop::ImageUnavailable.sentence())
        }
        pod => next.say(at_work(job, pod.as_ref())),
    }
}

fn at_work(job: &JobFact, pod: Option<&PodFact>) -> Claim {
    let no = |reason, message: String| Claim::no(types::RUNNING, reason, message);
    if job.suspended {
        return no("SuspendedByQueue", "Someone else suspended the Job; it waits to be resumed.".into());
    }
    match pod {
        Some(pod) if pod.trainer_running => Claim::yes(types::RUNNING, "Training", "The trainer runs."),
        Some(PodFact { waiting: Some((reason, message)), .. }) => {
            no("ContainerWaiting", format!("A container cannot start yet: {reason} {message}"))
        }
        Some(pod) if pod.active && !pod.node_ready => {
            no("NodeLost", "The work waits for a node; it goes on from its newest checkpoint.".into())
        }
        Some(pod) if pod.trainer.as_ref().is_some_and(|end| end.code == 0) => {
            no("Publishing", "The trainer is done, its outputs are being published.".into())
        }
        Some(pod) if pod.active => no("PullingInputs", "Inputs are being placed in the pod.".into()),
        Some(_) | None => no("Retrying", format!("A new pod is on its way; {} runs failed so far.", job.failures)),
    }
}

/// Everything was lost but the chain's word: made again, from the newest checkpoint.
fn rebuild(facts: &Facts, next: Next, end_at: u64) -> Next {
    let over = if facts.now > end_at { Some(Stop::EscrowExhausted) } else { facts.evicted.then_some(Stop::Evicted) };
    if let Some(stop) = over {
        return close(facts, Next::new(LeasePhase::Failed, SOON).exit(Some(exit::of_stop(stop, 0))));
    }
    let next = next.say(Claim::no(
        types::RUNNING,
        REBUILDING,
        "The lease runs on the chain and its objects are gone; they are made again.",
    ));
    match facts.handover {
        Handover::Complete if facts.space != Space::Terminating && facts.has_room => next.act(Effect::Create),
        _ => next,
    }
}

/// The Job is complete; the result counts once the gateway holds every output.
fn finished(facts: &Facts) -> Next {
    let next = Next::new(LeasePhase::Finished, SOON).say(held());
    let next = next.say(Claim::no(types::RUNNING, "Finished", "The work is done."));
    match facts.result {
        Some(hash) => {
            let goal = Goal::Deliver { order_id: facts.id(), result_hash: hash.to_string().into() };
            let next =
                next.say(Claim::no(types::DELIVERED, "Delivering", "The result's digest is on its way to the chain."));
            facts.ask(goal).into_iter().fold(next, Next::act)
        }
        None => {
            next.say(Claim::no(types::DELIVERED, "UploadIncomplete", "The gateway does not hold every output yet."))
        }
    }
}

fn failed(facts: &Facts, end: &JobEnd) -> Next {
    let exit = exit::of_job(end, trainer(facts));
    let message = exit.message.as_ref().map_or_else(|| end.message.clone(), |text| text.0.clone());
    let claim = Claim::no(types::RUNNING, reason_of(&exit), message);
    close(facts, Next::new(LeasePhase::Failed, SOON).say(held()).say(claim).exit(Some(exit)))
}

fn stop(facts: &Facts, job: &JobFact, stop: Stop, why: &str) -> Next {
    let mut exit = exit::of_stop(stop, job.failures);
    exit.message = Some(why.into());
    Next::new(LeasePhase::Running, SOON)
        .capacity(facts)
        .say(Claim::no(types::RUNNING, stop.as_str(), why.to_owned()))
        .exit(Some(exit))
        .act(Effect::Stop(stop))
}

/// The trainer saves and the courier uploads; then the lease is closed.
fn stopping(facts: &Facts, job: &JobFact, stop: Stop, at: u64) -> Next {
    let waiting = facts.pods_active && facts.now < at + STOP_SECONDS;
    // What was written at the stop names the device.
    let exit = facts.exit.clone().or_else(|| Some(exit::of_stop(stop, job.failures)));
    let phase = if waiting { LeasePhase::Running } else { LeasePhase::Failed };
    let next = Next::new(phase, SOON).exit(exit.clone());
    let message = exit.and_then(|exit| exit.message).map_or_else(|| stop.sentence().to_owned(), |text| text.0);
    let next = next.say(Claim::no(types::RUNNING, stop.as_str(), message));
    if waiting { next } else { close(facts, next) }
}

fn close(facts: &Facts, next: Next) -> Next {
    facts.ask(Goal::CloseOrder { order_id: facts.id() }).into_iter().fold(next, Next::act)
}

fn delivered(facts: &Facts, review_by: u64, result: B256) -> Next {
    let message = format!("Result {result} is on the chain; the tenant may answer until it accepts by silence.");
    let next = Next::new(LeasePhase::Delivered, IDLE)
        .say(Claim::no(types::RUNNING, "Finished", "The work is done."))
        .say(Claim::yes(types::DELIVERED, "Delivered", message));
    if facts.now <= review_by {
        return next;
    }
    let goal = Goal::AcceptResult { order_id: facts.id(), result_hash: result.to_string().into() };
    facts.ask(goal).into_iter().fold(next, Next::act)
}

fn trainer(facts: &Facts) -> Option<&TrainerEnd> {
    facts.pod.as_ref()?.trainer.as_ref()
}

/// Reasons are written by this crate alone, so they are all known.
fn reason_of(exit: &Exit) -> &'static str {
    const KNOWN: [&str; 7] =
        ["BadUsage", "BadData", "OutOfMemory", "DeadlineExceeded", "BackoffLimitExceeded", "HandlingFailed", "Crashed"];
    KNOWN.into_iter().find(|known| *known == exit.reason.as_str()).unwrap_or("Crashed")
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
