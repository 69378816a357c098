use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use freehold_api::lease::LeasePhase;
use freehold_core::access::Scope;
use freehold_gateway::logs::{PodLog, PodLogs, Query};
use freehold_gateway::public;
use futures::StreamExt;
use reqwest::Method;
use tokio::sync::mpsc;

use crate::world::{OPERATOR, World, order, until};

type Lines = mpsc::UnboundedReceiver<Bytes>;

/// Pods whose logs a test writes line by line.
#[derive(Default)]
struct Pods(Mutex<Vec<(String, Lines)>>);

impl Pods {
    fn begin(&self, name: &str) -> mpsc::UnboundedSender<Bytes> {
        let (lines, log) = mpsc::unbounded_channel();
        self.0.lock().unwrap().push((name.into(), log));
        lines
    }
}

#[async_trait::async_trait]
impl PodLogs for Pods {
    async fn open(&self, namespace: &str, _: Query, read: &HashSet<String>) -> Result<Option<PodLog>, String> {
        assert_eq!(namespace, "fh-lease-1");
        let mut pods = self.0.lock().unwrap();
        let Some(at) = pods.iter().position(|(name, _)| !read.contains(name)) else { return Ok(None) };
        let (pod, mut log) = pods.remove(at);
        let bytes = futures::stream::poll_fn(move |cx| log.poll_recv(cx)).map(Ok).boxed();
        Ok(Some(PodLog { pod, bytes }))
    }
}

async fn next(
    stream: &mut (impl futures::Stream<Item = Result<Bytes, freehold_gateway::client::Error>> + Unpin),
) -> Option<String> {
    let piece = tokio::time::timeout(std::time::Duration::from_secs(30), stream.next()).await.expect("a line in time");
    piece.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn a_followed_log_goes_from_pod_to_pod_until_the_lease_ends() {
    let pods = Arc::new(Pods::default());
    let world = World::with_logs(pods.clone()).await;
    world.lease(&[]);
    world.enter(LeasePhase::Running);
    let mut log = world.client().logs(true, Some(10)).await.unwrap();
    let first = pods.begin("pod-1");
    first.send("step 1\n".into()).unwrap();
    assert_eq!(next(&mut log).await.as_deref(), Some("step 1\n"));
    first.send("step 2\n".into()).unwrap();
    assert_eq!(next(&mut log).await.as_deref(), Some("step 2\n"));
    drop(first);
    let second = pods.begin("pod-2");
    second.send("again\n".into()).unwrap();
    assert_eq!(next(&mut log).await.as_deref(), Some("again\n"));
    drop(second);
    world.enter(LeasePhase::Finished);
    assert_eq!(next(&mut log).await, None);
}

#[tokio::test]
async fn a_reader_that_leaves_frees_its_place() {
    let pods = Arc::new(Pods::default());
    let world = World::with_logs(pods.clone()).await;
    world.lease(&[]);
    world.enter(LeasePhase::Running);
    let lines = pods.begin("pod-1");
    lines.send("hello\n".into()).unwrap();
    let mut log = world.client().logs(true, None).await.unwrap();
    assert_eq!(next(&mut log).await.as_deref(), Some("hello\n"));
    drop(log);
    until("the pod's log is let go", || async { lines.is_closed() }).await;
}

#[tokio::test]
async fn one_lease_follows_only_so_many_logs() {
    let world = World::start().await;
    world.lease(&[]);
    let client = world.client();
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(client.logs(true, None).await.unwrap());
    }
    let refused = client.logs(true, None).await.err();
    assert!(matches!(refused, Some(freehold_gateway::client::Error::Answer { status: 429, .. })), "{refused:?}");
    open.pop();
    until("a place is free", || async { client.logs(true, None).await.is_ok() }).await;
}

#[tokio::test]
async fn the_stored_log_is_served_when_no_pod_is_left() {
    let mut world = World::start().await;
    world.lease(&[]);
    let operator = world.pod(OPERATOR);
    operator.put(Method::POST, "/logs", "one\ntwo\n".into()).await.unwrap();
    operator.put(Method::POST, "/logs", "three\n".into()).await.unwrap();
    world.restart().await;
    world.enter(LeasePhase::Closed);
    let client = world.client();
    for follow in [false, true] {
        let mut log = client.logs(follow, Some(2)).await.unwrap();
        assert_eq!(next(&mut log).await.as_deref(), Some("two\nthree\n"));
        assert_eq!(next(&mut log).await, None);
    }
    // Only so much is kept, and it is the end.
    let flood = vec![b'x'; 9 << 20];
    operator.put(Method::POST, "/logs", flood.clone().into()).await.unwrap();
    operator.put(Method::POST, "/logs", flood.into()).await.unwrap();
    operator.put(Method::POST, "/logs", "\nlast\n".into()).await.unwrap();
    assert_eq!(world.gateway.store.log(order()).await.unwrap().unwrap().len(), 10 << 20);
    let mut log = client.logs(false, Some(1)).await.unwrap();
    assert_eq!(next(&mut log).await.as_deref(), Some("last\n"));
}

#[tokio::test]
async fn reading_logs_needs_their_scope() {
    let world = World::start().await;
    world.lease(&[]);
    let path = format!("/v1/leases/{}/logs", order());
    for (scope, status) in [(Scope::Read, 403), (Scope::Logs, 200)] {
        let token = world.wallet.header(&world.claims(&[scope]));
        let request = warp::test::request().path(&path).header("authorization", token);
        assert_eq!(request.reply(&public::routes(world.gateway.clone())).await.status().as_u16(), status);
    }
    let token = world.wallet.header(&world.claims(&[Scope::Logs]));
    let request = warp::test::request().path(&format!("{path}?tail=many")).header("authorization", token);
    assert_eq!(request.reply(&public::routes(world.gateway.clone())).await.status().as_u16(), 400);
}
