//! A sentence at each transition, as Kubernetes Events.

use freehold_api::task::TaskStatus;
use freehold_api::{GROUP, VERSION};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};

use super::kind::TaskFacts;
use super::reasons::{funded, leased, result, running, settled, valid};
use super::stored;
use crate::context::Context;

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

#[derive(Clone, Debug, PartialEq)]
pub struct News {
    pub warning: bool,
    pub reason: String,
    pub note: String,
}

/// What is new between two statuses.
pub fn news(old: &TaskStatus, new: &TaskStatus) -> Vec<News> {
    let mut out = Vec::new();
    if let Some(state) = new.state.as_ref().filter(|state| Some(*state) != old.state.as_ref()) {
        let note = new.message.as_ref().map(|m| m.0.clone()).unwrap_or_default();
        out.push(News { warning: state.as_str() == "Failed", reason: state.0.clone(), note });
    }
    for condition in new.conditions.iter().filter(|c| c.status == "False" && !ORDINARY.contains(&c.reason.as_str())) {
        let known = freehold_api::conditions::find(&old.conditions, &condition.type_);
        if known.is_none_or(|k| k.reason != condition.reason || k.status != condition.status) {
            out.push(News { warning: true, reason: condition.reason.clone(), note: condition.message.clone() });
        }
    }
    out
}

pub async fn publish(ctx: &Context, task: &TaskFacts, new: &TaskStatus, news: Vec<News>) {
    let about = regarding(ctx, task, new);
    for item in news {
        let event = Event {
            type_: if item.warning { EventType::Warning } else { EventType::Normal },
            reason: item.reason,
            note: Some(item.note.chars().take(1000).collect()),
            action: "Reconcile".into(),
            secondary: None,
        };
        // Events inform; a pass does not fail for want of one.
        if let Err(error) = ctx.recorder.publish(&event, &about).await {
            tracing::debug!(%error, task = task.name, "an event was not published");
        }
    }
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
