use freehold_core::order::OrderState;
use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{self, NOW, id, leased, view};

#[rstest]
#[case(OrderState::Open, Chain::NotOurs)]
#[case(OrderState::Awaiting, Chain::Awaiting { start_by: NOW + 20 })]
#[case(OrderState::Running, Chain::Running { end_at: NOW + 900 })]
#[case(OrderState::Delivered, Chain::Delivered { review_by: NOW + 20, result: id(5) })]
#[case(OrderState::Accepted, Chain::Settled(OrderState::Accepted))]
fn states_become_what_matters_here(#[case] state: OrderState, #[case] expected: Chain) {
    let mut order = leased(1, 1, state);
    order.slot.end_at = NOW + 900;
    order.result_hash = Some(id(5));
    let seen = view(vec![order.clone()]);
    assert_eq!(chain(&seen, &seen.latest, &id(1)), expected);
    order.slot.provider = fixtures::TENANT;
    let other = view(vec![order]);
    assert_eq!(chain(&other, &other.latest, &id(1)), Chain::NotOurs, "another provider's");
    assert_eq!(chain(&other, &other.latest, &id(2)), Chain::NotOurs, "unknown");
}

fn report(manifest: bool, missing: &[&str]) -> WorkReport {
    WorkReport {
        manifest_held: manifest,
        missing_inputs: missing.iter().map(|name| (*name).to_owned()).collect(),
        input_errors: [("dataset".to_owned(), "404 Not Found".to_owned())].into(),
        ..WorkReport::default()
    }
}

#[test]
fn what_is_missing_is_told_with_its_cause() {
    assert_eq!(handover(&Ok(report(false, &["dataset"])), None), Handover::NoManifest);
    let missing = handover(&Ok(report(true, &["dataset", "model"])), Some(Ok(())));
    assert_eq!(missing, Handover::Missing(vec!["dataset (404 Not Found)".into(), "model".into()]));
    assert_eq!(handover(&Ok(report(true, &[])), Some(Ok(()))), Handover::Complete);
    let invalid = handover(&Ok(report(true, &["model"])), Some(Err("image differs".into())));
    assert_eq!(invalid, Handover::Invalid("image differs".into()), "at once, not when the inputs are there");
    assert_eq!(handover(&Err("refused".into()), None), Handover::Unknown("refused".into()));
}

fn a_job(value: serde_json::Value) -> JobFact {
    job(&serde_json::from_value(value).unwrap())
}

#[test]
fn jobs() {
    let complete = a_job(serde_json::json!({ "status": { "conditions": [
        { "type": "SuccessCriteriaMet", "status": "True" }, { "type": "Complete", "status": "True" },
    ] } }));
    assert!(complete.complete && complete.failed.is_none());
    let failed = a_job(serde_json::json!({ "status": { "failed": 2, "conditions": [
        { "type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy" },
        { "type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 65" },
    ] } }));
    let end = JobEnd { reason: "PodFailurePolicy".into(), message: "exit code 65".into(), failures: 2 };
    assert_eq!(failed.failed, Some(end));
    let ending =
        a_job(serde_json::json!({ "status": { "conditions": [{ "type": "FailureTarget", "status": "True" }] } }));
    assert_eq!(ending.failed, None, "its pod still saves");
    let stopped = a_job(serde_json::json!({
        "metadata": { "annotations": { "freehold.dev/stopped-because": "DeviceLost", "freehold.dev/stopped-at": "12" } },
        "spec": { "suspend": true, "template": {} },
    }));
    assert_eq!((stopped.suspended, stopped.stopped), (true, Some((Stop::DeviceLost, 12))));
    let queued = a_job(serde_json::json!({ "spec": { "suspend": true, "template": {} } }));
    assert_eq!((queued.suspended, queued.stopped), (true, None));
}

fn a_pod(name: &str, created: i64, status: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": { "name": name, "creationTimestamp": Timestamp::from_second(created).unwrap().to_string() },
        "spec": { "containers": [] },
        "status": status,
    }))
    .unwrap()
}

fn trainer_state(state: serde_json::Value) -> serde_json::Value {
    serde_json::json!({ "phase": "Pending", "initContainerStatuses": [
        { "name": "trainer", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state },
    ] })
}

fn seen(status: serde_json::Value) -> PodFact {
    pod(&a_pod("a", 100, status), None, Timestamp::from_second(400).unwrap())
}

#[test]
fn a_pod_misses_its_node_from_when_it_went_down() {
    let node = |status: &str| -> Node {
        serde_json::from_value(serde_json::json!({ "status": { "conditions": [
            { "type": "Ready", "status": status, "lastTransitionTime": "1970-01-01T00:05:00Z" },
        ] } }))
        .unwrap()
    };
    let placed = |node: &Node| {
        let mut placed = a_pod("a", 100, trainer_state(serde_json::json!({ "running": {} })));
        placed.spec.get_or_insert_default().node_name = Some("node-a".into());
        pod(&placed, Some(node), Timestamp::from_second(400).unwrap())
    };
    assert_eq!(placed(&node("True")).nodeless_for, 0);
    assert_eq!((placed(&node("Unknown")).nodeless_for, placed(&node("Unknown")).node_ready), (100, false));
}

#[test]
fn pods() {
    let running = seen(trainer_state(serde_json::json!({ "running": {} })));
    assert!(running.active && running.trainer_running);
    assert_eq!(running.nodeless_for, 300);
    let ended = seen(trainer_state(
        serde_json::json!({ "terminated": { "exitCode": 65, "reason": "Error", "message": "row 3" } }),
    ));
    assert_eq!(ended.trainer, Some(TrainerEnd { code: 65, reason: "Error".into(), message: Some("row 3".into()) }));
    let pulling =
        trainer_state(serde_json::json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } }));
    let pulling = seen(pulling);
    assert_eq!(pulling.waiting, Some(("ImagePullBackOff".into(), "no such image".into())));
    assert_eq!(pulling.imageless_for, 300);
    let waited = serde_json::json!({ "phase": "Pending", "initContainerStatuses": [
        { "name": "fetch", "image": "", "imageID": "", "ready": true, "restartCount": 0,
          "state": { "terminated": { "exitCode": 0, "finishedAt": "1970-01-01T00:06:30Z" } } },
        { "name": "trainer", "image": "", "imageID": "", "ready": false, "restartCount": 0,
          "state": { "waiting": { "reason": "ErrImagePull" } } },
    ] });
    assert_eq!(seen(waited).imageless_for, 10, "the wait for the start does not count");
    let turn = trainer_state(serde_json::json!({ "waiting": { "reason": "PodInitializing" } }));
    assert_eq!(seen(turn).waiting, None);
    let full = serde_json::json!({ "phase": "Failed", "reason": "Evicted", "message": "Usage of EmptyDir volume \"work\" exceeds the limit \"1Gi\"." });
    assert!(seen(full.clone()).disk_exceeded && !seen(full).active);
}

#[test]
fn the_newest_pod_counts_but_a_failure_is_read_where_the_trainer_ended() {
    let ended = a_pod("old", 100, trainer_state(serde_json::json!({ "terminated": { "exitCode": 1 } })));
    let fresh = a_pod("new", 200, serde_json::json!({ "phase": "Pending" }));
    let pods = [ended, fresh];
    assert_eq!(newest(&pods, None).map(ResourceExt::name_any), Some("new".into()));
    let failed = JobFact { failed: Some(JobEnd::default()), ..JobFact::default() };
    assert_eq!(newest(&pods, Some(&failed)).map(ResourceExt::name_any), Some("old".into()));
    assert!(newest(&[], None).is_none());
}
