use rstest::rstest;

use super::*;

fn ended(code: i32, reason: &str) -> Option<TrainerEnd> {
    Some(TrainerEnd { code, reason: reason.into(), message: Some("column `label` is missing\n".into()) })
}

#[rstest]
#[case::usage("PodFailurePolicy", ended(64, "Error"), 64, "BadUsage")]
#[case::data("PodFailurePolicy", ended(65, "Error"), 65, "BadData")]
#[case::memory("BackoffLimitExceeded", ended(137, "OOMKilled"), 137, "OutOfMemory")]
#[case::crash("BackoffLimitExceeded", ended(139, "Error"), 139, "BackoffLimitExceeded")]
#[case::deadline("DeadlineExceeded", ended(143, "Error"), 143, "DeadlineExceeded")]
#[case::deadline_in_fetch("DeadlineExceeded", None, -1, "DeadlineExceeded")]
#[case::our_own_containers("BackoffLimitExceeded", None, -1, "HandlingFailed")]
#[case::publish("BackoffLimitExceeded", ended(0, "Completed"), 0, "HandlingFailed")]
#[case::else_("Other", ended(1, "Error"), 1, "Crashed")]
fn a_job_ends_in_a_reason(
    #[case] job: &str,
    #[case] trainer: Option<TrainerEnd>,
    #[case] code: i32,
    #[case] reason: &str,
) {
    let end = JobEnd { reason: job.into(), message: "Job has reached the specified backoff limit".into(), failures: 4 };
    let exit = of_job(&end, trainer.as_ref());
    assert_eq!((exit.code, exit.reason.as_str(), exit.failures), (code, reason, 4));
    let expected = if trainer.is_some() { "column `label` is missing" } else { end.message.as_str() };
    assert_eq!(exit.message.unwrap().as_str(), expected);
}

#[test]
fn a_message_is_bounded() {
    let trainer = TrainerEnd { code: 1, reason: "Error".into(), message: Some("x".repeat(5000)) };
    let exit = of_job(&JobEnd::default(), Some(&trainer));
    assert_eq!(exit.message.unwrap().as_str().len(), 1024);
}

#[rstest]
#[case("Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.", true)]
#[case("Evicted", "Usage of EmptyDir volume \"work\" exceeds the limit \"4Gi\".", true)]
#[case("Evicted", "Container trainer exceeded its local ephemeral storage limit \"1Gi\".", true)]
#[case("Evicted", "The node was low on resource: memory.", false)]
#[case("Evicted", "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi.", false)]
#[case("Preempted", "exceeds emptyDir", false)]
fn only_its_own_disk_is_the_work_s_fault(#[case] reason: &str, #[case] message: &str, #[case] expected: bool) {
    assert_eq!(is_disk_eviction(reason, message), expected);
}

#[test]
fn stops_survive_the_way_through_an_annotation() {
    for stop in Stop::ALL {
        assert_eq!(Stop::parse(stop.as_str()), Some(stop));
    }
    assert_eq!(Stop::parse("Tuesday"), None);
}
