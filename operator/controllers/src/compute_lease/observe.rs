//! From API objects to facts. Pure.

use freehold_api::{ChainTransaction, ComputeLease, labels};
use freehold_chain::view::{ChainView, Snapshot};
use freehold_core::order::{Order, OrderState};
use freehold_core::{B256, wire::WorkReport};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Namespace, Node, NodeCondition, Pod};
use kube::ResourceExt;

use super::build::pod::TRAINER;
use super::build::{STOPPED_AT_ANNOTATION, STOPPED_BECAUSE_ANNOTATION};
use super::exit::{JobEnd, Stop, TrainerEnd, is_disk_eviction};
use super::facts::{Asked, Chain, Handover, JobFact, PodFact, Space};
use crate::compute_provider::inventory::is_over;
use crate::goals;

/// Blocks that a transaction may need to be in the chain.
const MARGIN_BLOCKS: u64 = 5;
const LEAST_MARGIN: u64 = 15;

pub fn margin(view: &ChainView) -> u64 {
    (MARGIN_BLOCKS * view.block_time).max(LEAST_MARGIN)
}

pub fn chain(view: &ChainView, snapshot: &Snapshot, id: &B256) -> Chain {
    match snapshot.orders.get(id) {
        Some(order) if order.slot.provider == view.account => of_order(order),
        Some(_) | None => Chain::NotOurs,
    }
}

fn of_order(order: &Order) -> Chain {
    let deadline = order.slot.deadline;
    match order.slot.state {
        OrderState::None | OrderState::Open => Chain::NotOurs,
        OrderState::Awaiting => Chain::Awaiting { start_by: deadline },
        OrderState::Running => Chain::Running { end_at: order.slot.end_at },
        OrderState::Delivered => {
            Chain::Delivered { review_by: deadline, result: order.result_hash.unwrap_or_default() }
        }
        state @ (OrderState::Cancelled
        | OrderState::Declined
        | OrderState::NoShow
        | OrderState::Closed
        | OrderState::Accepted
        | OrderState::Rejected
        | OrderState::Killed
        | OrderState::Failed
        | OrderState::Proved
        | OrderState::Valid
        | OrderState::Invalid
        | OrderState::Stuck) => Chain::Settled(state),
    }
}

/// A view from before the lease was found knows nothing of it: an endpoint that is behind, another operator's eyes.
pub fn caught_up(view: &ChainView, lease: &ComputeLease) -> bool {
    let seen = lease.annotations().get(labels::SEEN_ANNOTATION).and_then(|number| number.parse::<u64>().ok());
    seen.is_none_or(|seen| view.confirmed.block.number >= seen)
}

/// `manifest` is the verdict on a manifest that is held.
pub fn handover(report: &Result<WorkReport, String>, manifest: Option<Result<(), String>>) -> Handover {
    let report = match report {
        Ok(report) => report,
        Err(error) => return Handover::Unknown(error.clone()),
    };
    if !report.manifest_held {
        return Handover::NoManifest;
    }
    if let Some(Err(why)) = manifest {
        return Handover::Invalid(why);
    }
    if report.missing_inputs.is_empty() {
        return Handover::Complete;
    }
    let missing = report.missing_inputs.iter().map(|name| match report.input_errors.get(name) {
        Some(error) => format!("{name} ({error})"),
        None => name.clone(),
    });
    Handover::Missing(missing.collect())
}

pub fn space(namespace: Option<&Namespace>) -> Space {
    match namespace {
        None => Space::Absent,
        Some(namespace) if namespace.metadata.deletion_timestamp.is_some() => Space::Terminating,
        Some(_) => Space::Active,
    }
}

pub fn job(job: &Job) -> JobFact {
    let status = job.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let condition = |type_: &str| conditions.into_iter().flatten().find(|c| c.type_ == type_ && c.status == "True");
    let failures = status.and_then(|status| status.failed).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let annotation = |name: &str| job.annotations().get(name);
    let because = annotation(STOPPED_BECAUSE_ANNOTATION).and_then(|text| Stop::parse(text));
    let at = annotation(STOPPED_AT_ANNOTATION).and_then(|text| text.parse().ok());
    JobFact {
        suspended: job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false),
        stopped: because.zip(at),
        complete: condition("Complete").is_some(),
        failed: condition("Failed").map(|c| JobEnd {
            reason: c.reason.clone().unwrap_or_default(),
            message: c.message.clone().unwrap_or_default(),
            failures,
        }),
        failures,
    }
}

/// The newest pod; for a Job that failed, the newest in which the trainer ended.
pub fn newest<'a>(pods: &'a [Pod], job: Option<&JobFact>) -> Option<&'a Pod> {
    let newest = |pods: Vec<&'a Pod>| pods.into_iter().max_by_key(|pod| pod.creation_timestamp().map(|time| time.0));
    let failed = job.is_some_and(|job| job.failed.is_some());
    let ended = if failed { newest(pods.iter().filter(|pod| trainer_end(pod).is_some()).collect()) } else { None };
    ended.or_else(|| newest(pods.iter().collect()))
}

pub fn pod(pod: &Pod, node: Option<&Node>, now: Timestamp) -> PodFact {
    let placed = node_of(pod);
    let status = pod.status.as_ref();
    let text = |part: Option<&String>| part.map(String::as_str).unwrap_or_default().to_owned();
    let age = pod.creation_timestamp().map_or(0, |made| seconds(made.0, now));
    let waiting = waiting(pod);
    PodFact {
        active: !is_over(pod),
        trainer_running: trainer(pod).and_then(|c| c.state.as_ref()).is_some_and(|state| state.running.is_some()),
        trainer: trainer_end(pod),
        nodeless_for: match (&placed, node) {
            (Some(_), Some(node)) => down_since(node).map_or(0, |since| seconds(since, now)),
            (None, _) | (_, None) => age,
        },
        imageless_for: match &waiting {
            Some((reason, _)) if is_pull_failure(reason) => last_end(pod).map_or(age, |end| seconds(end, now)),
            Some(_) | None => 0,
        },
        waiting,
        disk_exceeded: is_disk_eviction(
            &text(status.and_then(|status| status.reason.as_ref())),
            &text(status.and_then(|status| status.message.as_ref())),
        ),
        node_ready: node.is_some_and(is_ready),
        node: placed,
    }
}

pub fn node_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

fn seconds(since: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.as_second().saturating_sub(since.as_second())).unwrap_or(0)
}

/// When the last container ended. The next one's image is asked for then: waiting for the start is not its fault.
fn last_end(pod: &Pod) -> Option<Timestamp> {
    let ended = statuses(pod).filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ended.map(|time| time.0).max()
}

fn readiness(node: &Node) -> Option<&NodeCondition> {
    node.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|c| c.type_ == "Ready")
}

fn is_ready(node: &Node) -> bool {
    readiness(node).is_some_and(|c| c.status == "True")
}

fn down_since(node: &Node) -> Option<Timestamp> {
    readiness(node).filter(|c| c.status != "True")?.last_transition_time.as_ref().map(|time| time.0)
}

/// The kubelet tries on, but an image that is not there by then will not come.
fn is_pull_failure(reason: &str) -> bool {
    matches!(reason, "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull")
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()))
}

fn trainer(pod: &Pod) -> Option<&ContainerStatus> {
    statuses(pod).find(|status| status.name == TRAINER)
}

fn trainer_end(pod: &Pod) -> Option<TrainerEnd> {
    let ended = trainer(pod)?.state.as_ref()?.terminated.as_ref()?;
    Some(TrainerEnd {
        code: ended.exit_code,
        reason: ended.reason.clone().unwrap_or_default(),
        message: ended.message.clone().filter(|message| !message.trim().is_empty()),
    })
}

/// Waiting for one's turn is no trouble; anything else is worth telling.
fn waiting(pod: &Pod) -> Option<(String, String)> {
    let waiting = statuses(pod).filter_map(|status| status.state.as_ref()?.waiting.as_ref());
    let mut troubled = waiting.filter_map(|waiting| {
        let reason = waiting
            .reason
            .clone()
            .filter(|reason| !matches!(reason.as_str(), "PodInitializing" | "ContainerCreating"))?;
        Some((reason, waiting.message.clone().unwrap_or_default()))
    });
    troubled.next()
}

pub fn asked(entries: &[ChainTransaction]) -> Asked {
    Asked(entries.iter().map(|entry| (entry.spec.goal.name(), goals::state(entry))).collect())
}

#[cfg(test)]
#[path = "tests/observe.rs"]
mod tests;
