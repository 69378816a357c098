//! The end of the trainer's log goes to the gateway's store before the pods go.

use std::collections::VecDeque;
use std::time::Duration;

use freehold_core::B256;
use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, LogParams};

use super::build::pod::TRAINER;
use super::gateway::{self, WorkStore};
use crate::context::Context;

/// What is kept of a lease's logs, from the end.
const KEPT: usize = 10 << 20;
/// Size of one request to the gateway.
const PIECE: usize = 1 << 20;
/// For all logs of a lease: a node that hangs must not hold the namespace.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the log of pod {pod}: {source}")]
    Read { pod: String, source: std::io::Error },
    #[error("the logs did not come within {} s", PATIENCE.as_secs())]
    Slow,
    #[error("cannot keep the log: {0}")]
    Keep(#[from] gateway::Error),
}

/// Sends the last 10 MiB of all trainers of the lease, oldest pod first; of logs that do not end, what came.
pub async fn archive(ctx: &Context, store: &dyn WorkStore, order: &B256, pods: &[Pod]) -> Result<(), Error> {
    let mut tail = Tail::default();
    let read = tokio::time::timeout(PATIENCE, read_all(ctx, pods, &mut tail)).await;
    let bytes: Vec<u8> = tail.0.into();
    for piece in bytes.chunks(PIECE) {
        store.append_log(order, piece.to_vec()).await?;
    }
    read.unwrap_or(Err(Error::Slow))
}

async fn read_all(ctx: &Context, pods: &[Pod], tail: &mut Tail) -> Result<(), Error> {
    let mut by_age: Vec<&Pod> = pods.iter().collect();
    by_age.sort_by_key(|pod| pod.creation_timestamp().map(|time| time.0));
    for pod in by_age {
        read(ctx, pod, tail).await?;
    }
    Ok(())
}

async fn read(ctx: &Context, pod: &Pod, tail: &mut Tail) -> Result<(), Error> {
    let Some(namespace) = pod.namespace() else { return Ok(()) };
    let params = LogParams { container: Some(TRAINER.into()), ..LogParams::default() };
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    // A trainer that never began has no log, and that is no error.
    let Ok(stream) = api.log_stream(&pod.name_any(), &params).await else { return Ok(()) };
    let mut stream = std::pin::pin!(stream);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut buffer).await;
        match read.map_err(|source| Error::Read { pod: pod.name_any(), source })? {
            0 => return Ok(()),
            n => tail.push(&buffer[..n]),
        }
    }
}

#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let excess = self.0.len().saturating_sub(KEPT);
        self.0.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        tail.push(b"first");
        tail.push(&vec![b'x'; KEPT]);
        tail.push(b"last");
        assert_eq!(tail.0.len(), KEPT);
        assert_eq!(tail.0.iter().rev().take(4).rev().copied().collect::<Vec<_>>(), b"last");
        assert!(!tail.0.contains(&b'f'));
    }
}
