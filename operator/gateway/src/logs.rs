//! The trainer's log: from the kubelet while its pod is there, from the store
//! afterwards. Plain text for the reader; nothing here interprets it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freehold_core::B256;
use futures::io::AsyncReadExt;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};
use tokio::sync::mpsc;

use crate::gateway::Gateway;
use crate::leases::Lease;
use crate::problem::Failure;
use crate::store;
use crate::web::{Answer, content, streamed};

/// The container whose log tenants read.
pub const TRAINER: &str = "trainer";
const TEXT: &str = "text/plain; charset=utf-8";
/// Most lines that `tail` may ask for.
const LINES: u32 = 100_000;
/// Between looks for a pod that is not there yet.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub follow: bool,
    /// Lines from the end.
    pub tail: Option<u32>,
}

impl Query {
    pub fn parse(query: &HashMap<String, String>) -> Result<Self, Failure> {
        let follow = match query.get("follow").map(String::as_str) {
            None | Some("false" | "0") => false,
            Some("true" | "1" | "") => true,
            Some(_) => return Err(Failure::bad_request("follow is true or false")),
        };
        let tail = query.get("tail").map(|text| text.parse::<u32>().ok().filter(|lines| *lines <= LINES));
        match tail {
            Some(None) => Err(Failure::bad_request(format!("tail is a number of lines up to {LINES}"))),
            tail => Ok(Self { follow, tail: tail.flatten() }),
        }
    }
}

/// The log of one pod's trainer.
pub struct PodLog {
    pub pod: String,
    pub bytes: BoxStream<'static, Result<Bytes, std::io::Error>>,
}

/// Where logs of living pods come from.
#[async_trait::async_trait]
pub trait PodLogs: Send + Sync {
    /// The newest pod's log, unless there is none yet or its name is in `read`.
    async fn open(&self, namespace: &str, query: Query, read: &HashSet<String>) -> Result<Option<PodLog>, String>;
}

pub async fn serve(gateway: Arc<Gateway>, lease: Arc<Lease>, query: Query) -> Answer {
    if query.follow {
        let slot = gateway.follow_slot(lease.id)?;
        let (lines, mut followed) = mpsc::channel(16);
        let limit = gateway.limits.follow();
        tokio::spawn(async move {
            let _slot = slot;
            let follow = follow(&gateway, lease.id, query, &lines);
            tokio::select! {
                () = follow => {}
                () = lines.closed() => {}
                () = tokio::time::sleep(limit) => {}
            }
        });
        return Ok(streamed(TEXT, stream::poll_fn(move |cx| followed.poll_recv(cx))));
    }
    match gateway.pod_logs.open(&lease.namespace, query, &HashSet::new()).await {
        Ok(Some(log)) => return Ok(streamed(TEXT, log.bytes)),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, lease = %lease.id, "cannot read a pod's log"),
    }
    Ok(content(TEXT, stored(&gateway, lease.id, query).await?))
}

async fn stored(gateway: &Gateway, id: B256, query: Query) -> Result<Bytes, store::Error> {
    let log = gateway.store.log(id).await?.unwrap_or_default();
    Ok(query.tail.map_or_else(|| log.clone(), |lines| last_lines(&log, lines)))
}

/// Pod after pod, until the lease ends; what was stored, if no pod was there to be read.
async fn follow(gateway: &Gateway, id: B256, mut query: Query, lines: &mpsc::Sender<Result<Bytes, std::io::Error>>) {
    let mut read = HashSet::new();
    let mut changes = gateway.leases.changes();
    while let Some(lease) = gateway.leases.get(id) {
        match gateway.pod_logs.open(&lease.namespace, query, &read).await {
            Ok(Some(mut log)) => {
                while let Some(Ok(bytes)) = log.bytes.next().await {
                    if lines.send(Ok(bytes)).await.is_err() {
                        return;
                    }
                }
                read.insert(log.pod);
                query.tail = None;
                continue;
            }
            Ok(None) if lease.ended() => break,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, lease = %id, "cannot follow a pod's log"),
        }
        let _ = tokio::time::timeout(LOOK, changes.changed()).await;
    }
    if read.is_empty()
        && let Ok(log) = stored(gateway, id, query).await
    {
        let _ = lines.send(Ok(log)).await;
    }
}

fn last_lines(log: &Bytes, lines: u32) -> Bytes {
    let body = log.strip_suffix(b"\n").unwrap_or(log);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match (lines, breaks.map(|(at, _)| at).nth(lines.saturating_sub(1) as usize)) {
        (0, _) => Bytes::new(),
        (_, Some(at)) => log.slice(at + 1..),
        (_, None) => log.clone(),
    }
}

/// Logs by way of the API server.
pub struct Kubelet {
    client: kube::Client,
}

impl Kubelet {
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }
}

#[async_trait::async_trait]
impl PodLogs for Kubelet {
    async fn open(&self, namespace: &str, query: Query, read: &HashSet<String>) -> Result<Option<PodLog>, String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let listed = pods.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let newest = listed
            .items
            .into_iter()
            .filter(trainer_ran)
            .max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let Some(pod) = newest.and_then(|pod| pod.metadata.name).filter(|name| !read.contains(name)) else {
            return Ok(None);
        };
        let params = LogParams {
            container: Some(TRAINER.into()),
            follow: query.follow,
            tail_lines: query.tail.map(i64::from),
            limit_bytes: (!query.follow).then_some(store::LOG as i64),
            ..Default::default()
        };
        let reader = pods.log_stream(&pod, &params).await.map_err(|e| e.to_string())?;
        let bytes = stream::try_unfold(Box::pin(reader), |mut reader| async move {
            let mut buffer = vec![0; 16 * 1024];
            let count = reader.read(&mut buffer).await?;
            buffer.truncate(count);
            Ok((count > 0).then(|| (Bytes::from(buffer), reader)))
        });
        Ok(Some(PodLog { pod, bytes: bytes.boxed() }))
    }
}

/// Only a container that runs or ran has a log.
fn trainer_ran(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let ran = |container: &ContainerStatus| {
        let state = container.state.as_ref();
        container.name == TRAINER && state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten().any(ran)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        let log = Bytes::from_static(b"one\ntwo\nthree\n");
        assert_eq!(last_lines(&log, 1), "three\n");
        assert_eq!(last_lines(&log, 2), "two\nthree\n");
        assert_eq!(last_lines(&log, 9), log);
        assert_eq!(last_lines(&log, 0), "");
        assert_eq!(last_lines(&Bytes::new(), 3), "");
    }

    #[test]
    fn queries() {
        let parse = |pairs: &[(&str, &str)]| {
            Query::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()).ok()
        };
        assert_eq!(parse(&[]), Some(Query::default()));
        assert_eq!(parse(&[("follow", "true"), ("tail", "5")]), Some(Query { follow: true, tail: Some(5) }));
        assert_eq!(parse(&[("follow", "maybe")]), None);
        assert_eq!(parse(&[("tail", "-1")]), None);
    }
}
