//! What the gateway asks of the API server, against scripted answers.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use freehold_api::lease::LeasePhase;
use freehold_gateway::leases::{self, Leases};
use freehold_gateway::logs::{Kubelet, PodLogs, Query};
use freehold_gateway::reviews::{AUDIENCE, ApiServer, ReviewTokens, Reviews, Unavailable};
use futures::StreamExt;
use kube::client::Body;
use serde_json::{Value, json};

use crate::world::{NOW, order, until};

type Asked = Arc<Mutex<Vec<String>>>;

/// An API server that answers by path and query.
fn api(answer: impl Fn(&str, &Value) -> (u16, String) + Clone + Send + Sync + 'static) -> (kube::Client, Asked) {
    let asked = Asked::default();
    let log = asked.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (answer, log) = (answer.clone(), log.clone());
        async move {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let body = request.into_body().collect_bytes().await.unwrap();
            log.lock().unwrap().push(path.clone());
            let (status, text) = answer(&path, &serde_json::from_slice(&body).unwrap_or_default());
            let response = http::Response::builder().status(status).header("content-type", "application/json");
            Ok::<_, Infallible>(response.body(Body::from(text.into_bytes())).unwrap())
        }
    });
    (kube::Client::new(service, "default"), asked)
}

fn review(status: Value) -> (kube::Client, Asked) {
    api(move |path, asked| {
        assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews?");
        assert_eq!(asked["spec"]["audiences"], json!(["freehold-gateway"]));
        let kind = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}});
        let mut answer = kind;
        answer["spec"] = asked["spec"].clone();
        answer["status"] = status.clone();
        (201, answer.to_string())
    })
}

#[tokio::test]
async fn a_token_counts_only_if_it_was_made_for_gateways() {
    let user = json!({"username": "system:serviceaccount:fh-lease-1:courier"});
    let cases = [
        (json!({"authenticated": true, "audiences": ["freehold-gateway"], "user": user}), true),
        (json!({"authenticated": true, "audiences": ["https://kubernetes.default.svc"], "user": user}), false),
        (json!({"authenticated": true, "user": user}), false),
        (json!({"authenticated": false, "audiences": ["freehold-gateway"], "user": user}), false),
        (json!({"error": "token expired"}), false),
    ];
    for (status, counts) in cases {
        let (client, _) = review(status.clone());
        let found = ApiServer::new(client, AUDIENCE).user_of("token").await.unwrap();
        assert_eq!(found.is_some(), counts, "{status}");
    }
    let (down, _) = api(|_, _| (500, "{}".into()));
    assert!(matches!(ApiServer::new(down, AUDIENCE).user_of("token").await, Err(Unavailable(_))));
}

#[tokio::test]
async fn verdicts_are_remembered_for_a_while() {
    let status = json!({"authenticated": true, "audiences": ["freehold-gateway"], "user": {"username": "x"}});
    let (client, asked) = review(status);
    let time = Arc::new(Mutex::new(NOW));
    let clock = time.clone();
    let reviews = Reviews::new(Arc::new(ApiServer::new(client, AUDIENCE)), Arc::new(move || *clock.lock().unwrap()));
    for _ in 0..3 {
        assert_eq!(reviews.user_of("token").await.unwrap().as_deref(), Some("x"));
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
    reviews.user_of("another").await.unwrap();
    *time.lock().unwrap() += 60;
    reviews.user_of("token").await.unwrap();
    assert_eq!(asked.lock().unwrap().len(), 3);
    assert_eq!(reviews.user_of(&"x".repeat(10_000)).await.unwrap(), None);
    assert_eq!(asked.lock().unwrap().len(), 3, "what cannot be a token is not sent on");
}

fn lease(order: &str, phase: &str) -> Value {
    json!({
        "apiVersion": "freehold.dev/v1alpha1",
        "kind": "ComputeLease",
        "metadata": {"name": "lease-1", "namespace": "provider", "resourceVersion": "5"},
        "spec": {
            "orderId": order, "tenant": format!("0x{}", "11".repeat(20)), "provider": "p",
            "providerAddress": format!("0x{}", "22".repeat(20)), "chainId": 31337,
            "market": format!("0x{}", "33".repeat(20)), "rate": "1", "spec": "{}",
            "manifestSha256": "0".repeat(64), "namespace": "fh-lease-1",
            "inputs": [{"name": "dataset", "sha256": "1".repeat(64), "size": 5}],
        },
        "status": {"phase": phase},
    })
}

#[tokio::test]
async fn leases_are_those_of_the_namespace_and_malformed_ones_are_passed_over() {
    let (client, asked) = api(|path, _| {
        if path.contains("watch=true") {
            let changed = json!({"type": "MODIFIED", "object": lease(&order().to_string(), "Running")});
            return (200, format!("{changed}\n"));
        }
        let broken = json!({"metadata": {"name": "b", "namespace": "provider"}, "spec": {"orderId": 5}});
        let odd = lease("0xnot-an-order", "Running");
        let items = json!([lease(&order().to_string(), "AwaitingInputs"), broken, odd]);
        let list = json!({"apiVersion": "freehold.dev/v1alpha1", "kind": "ComputeLeaseList",
            "metadata": {"resourceVersion": "7"}, "items": items});
        (200, list.to_string())
    });
    let leases = Arc::new(Leases::default());
    assert!(!leases.synced());
    let following = tokio::spawn({
        let leases = leases.clone();
        async move { leases::follow(client, "provider", leases).await }
    });
    until("the change arrives", || async {
        leases.get(order()).is_some_and(|lease| lease.phase == LeasePhase::Running)
    })
    .await;
    following.abort();
    let lease = leases.get(order()).unwrap();
    assert_eq!((leases.all().len(), lease.namespace.as_str(), lease.chain_id), (1, "fh-lease-1", 31337));
    assert!(leases.synced() && lease.started() && !lease.ended());
    let path = "/apis/freehold.dev/v1alpha1/namespaces/provider/computeleases";
    assert!(asked.lock().unwrap().iter().all(|asked| asked.starts_with(path)));
}

fn pod(name: &str, second: u32, state: Value) -> Value {
    json!({
        "metadata": {"name": name, "creationTimestamp": format!("2027-01-15T08:00:{second:02}Z")},
        "status": {"initContainerStatuses": [{"name": "trainer", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state}]},
    })
}

#[tokio::test]
async fn the_log_is_that_of_the_newest_trainer_that_ran() {
    let (client, asked) = api(|path, _| {
        if path.contains("/log") {
            return (200, "step 1\n".into());
        }
        let items = json!([
            pod("first", 1, json!({"terminated": {"exitCode": 75}})),
            pod("second", 2, json!({"running": {}})),
            pod("third", 3, json!({"waiting": {"reason": "PodInitializing"}})),
        ]);
        (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}).to_string())
    });
    let kubelet = Kubelet::new(client);
    let query = Query { follow: true, tail: Some(5) };
    let log = kubelet.open("fh-lease-1", query, &HashSet::new()).await.unwrap().unwrap();
    assert_eq!(log.pod, "second");
    let bytes: Vec<_> = log.bytes.map(|piece| piece.unwrap()).collect().await;
    assert_eq!(bytes.concat(), b"step 1\n");
    let last = asked.lock().unwrap().last().cloned().unwrap();
    assert!(last.starts_with("/api/v1/namespaces/fh-lease-1/pods/second/log?"), "{last}");
    assert!(["container=trainer", "follow=true", "tailLines=5"].iter().all(|part| last.contains(part)), "{last}");
    let read = HashSet::from(["second".to_owned()]);
    assert!(kubelet.open("fh-lease-1", query, &read).await.unwrap().is_none());
}
