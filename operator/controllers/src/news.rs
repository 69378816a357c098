//! Kubernetes Events: a sentence for what has happened, about a task or a lease.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};

use crate::context::Context;

#[derive(Clone, Debug, PartialEq)]
pub struct News {
    pub warning: bool,
    pub reason: String,
    pub note: String,
}

impl News {
    pub fn good(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.into(), note: note.into() }
    }

    pub fn bad(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.into(), note: note.into() }
    }
}

/// Events inform; a pass does not fail for want of one.
pub async fn publish(ctx: &Context, about: &ObjectReference, news: Vec<News>) {
    for item in news {
        let event = Event {
            type_: if item.warning { EventType::Warning } else { EventType::Normal },
            reason: item.reason,
            note: Some(item.note.chars().take(1000).collect()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = ctx.recorder.publish(&event, about).await {
            tracing::debug!(%error, kind = about.kind, name = about.name, "an event was not published");
        }
    }
}
