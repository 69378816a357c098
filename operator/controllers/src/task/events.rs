//! A sentence at each transition, as Kubernetes Events.

use freehold_api::conditions::{self, types};
use freehold_api::task::TaskStatus;
use freehold_api::{GROUP, VERSION};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::kind::TaskFacts;
use super::reasons::{funded, leased, other, result, running, settled, valid};
use super::status::LADDER;
use super::stored;
use crate::context::Context;
use crate::news::News;

/// Reasons of ordinary progress: no event, the state tells.
const ORDINARY: [&str; 13] = [
    valid::WAITING_FOR_MODEL,
    funded::PLACING,
    funded::RETRYING,
    leased::WAITING_FOR_BIDS,
    leased::CANCELLED,
    running::FINISHED,
    running::HANDING_OVER,
    running::STARTING,
    running::PULLING_INPUTS,
    running::STOPPED,
    result::UPLOAD_INCOMPLETE,
    settled::REFUND_PENDING,
    settled::CONFIRMING,
];

/// What is new between two statuses: each rung that is reached, each trouble, the refund.
pub fn news(old: &TaskStatus, new: &TaskStatus) -> Vec<News> {
    let reached = |type_: &str| {
        let is_new = !conditions::is_true(&old.conditions, type_);
        conditions::find(&new.conditions, type_).filter(|found| found.status == "True" && is_new)
    };
    let mut out: Vec<News> = Vec::new();
    // A right is given up: the sentence has to be found when the task is gone.
    let waived = |status: &TaskStatus| {
        conditions::find(&status.conditions, types::DELETING).filter(|c| c.reason == other::WAIVED).cloned()
    };
    if let (Some(found), None) = (waived(new), waived(old)) {
        out.push(News::bad(&found.reason, &found.message));
    }
    // States that no rung stands for.
    if let Some(state) = new.state.as_ref().filter(|state| Some(*state) != old.state.as_ref())
        && !LADDER.iter().any(|(_, name)| *name == state.as_str())
    {
        out.push(News::good(&state.0, new.message.as_ref().map(|m| m.0.clone()).unwrap_or_default()));
    }
    for (type_, name) in LADDER {
        let Some(found) = reached(type_) else { continue };
        out.push(News { warning: type_ == types::FAILED, reason: name.into(), note: told(new, found) });
    }
    out.extend(raised(old, new));
    out.extend(reached(types::SETTLED).map(|found| News::good(types::SETTLED, told(new, found))));
    for condition in new.conditions.iter().filter(|c| c.status == "False" && !ORDINARY.contains(&c.reason.as_str())) {
        let known = conditions::find(&old.conditions, &condition.type_);
        if known.is_none_or(|k| k.reason != condition.reason || k.status != condition.status) {
            out.push(News::bad(&condition.reason, told(new, condition)));
        }
    }
    out
}

/// The end of a lease moves only by a top-up.
fn raised(old: &TaskStatus, new: &TaskStatus) -> Option<News> {
    let (before, after) = (old.funded_until.as_ref()?, new.funded_until.as_ref()?);
    let later = old.order_id == new.order_id && before.as_str() < after.as_str();
    later.then(|| {
        News::good("ToppedUp", format!("The escrow was raised: it lasts until {after}, before until {before}."))
    })
}

/// The condition's sentence, and which order it speaks of where that is not plain.
fn told(status: &TaskStatus, condition: &Condition) -> String {
    let newest = status.attempts.last();
    let message = &condition.message;
    match (condition.type_.as_str(), newest) {
        (types::FUNDED, Some(attempt)) if condition.status == "True" => {
            format!("Order {} was placed (attempt {}): {message}", attempt.order_id, attempt.number)
        }
        (types::LEASED, Some(attempt)) if condition.status == "False" => {
            format!("Attempt {} (order {}): {message}", attempt.number, attempt.order_id)
        }
        (types::SETTLED, Some(attempt)) => match &attempt.refunded {
            Some(refunded) => format!("{message} {refunded} of order {} came back.", attempt.order_id),
            None => message.clone(),
        },
        _ => message.clone(),
    }
}

pub async fn publish(ctx: &Context, task: &TaskFacts, new: &TaskStatus, news: Vec<News>) {
    crate::news::publish(ctx, &regarding(ctx, task, new), news).await;
}

/// The task; once it is being deleted, its order in the release namespace, since the task's own may be terminating.
fn regarding(ctx: &Context, task: &TaskFacts, new: &TaskStatus) -> ObjectReference {
    let order = new.order_id.as_ref().and_then(|id| id.as_str().parse().ok()).map(|id| stored::name_of(&id));
    match (task.deleting, order) {
        (Some(_), Some(order)) => ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("ConfigMap".into()),
            name: Some(order),
            namespace: Some(ctx.settings.namespace.clone()),
            ..ObjectReference::default()
        },
        _ => ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some(task.kind.into()),
            name: Some(task.name.clone()),
            namespace: Some(task.namespace.clone()),
            uid: Some(task.uid.clone()),
            ..ObjectReference::default()
        },
    }
}
