//! The Job: created once; later only `suspend` is patched.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::api::ObjectMeta;

use super::pod::{self, TRAINER};
use super::{Made, common_labels};

pub const JOB: &str = "work";
/// Why we suspended the Job for good; absent on a suspension by someone else.
pub const STOPPED_BECAUSE_ANNOTATION: &str = "freehold.dev/stopped-because";
/// When, by the chain's clock (unix seconds).
pub const STOPPED_AT_ANNOTATION: &str = "freehold.dev/stopped-at";

/// Exit codes of the container contract (sysexits): retries cannot help.
const BAD_USAGE: i32 = 64;
const BAD_DATA: i32 = 65;
/// Try again, and do not count it.
const TRY_AGAIN: i32 = 75;

pub(super) fn job(made: &Made<'_>) -> Job {
    let manifest = &made.blueprint.work.manifest;
    // The Job's clock starts before the chain's: inputs, images and the start transaction come first.
    let paid = manifest.deadline_seconds.min(made.blueprint.duration);
    let deadline = paid.saturating_add(made.blueprint.start_window);
    Job {
        metadata: made.meta(JOB),
        spec: Some(JobSpec {
            active_deadline_seconds: Some(i64::try_from(deadline).unwrap_or(i64::MAX)),
            backoff_limit: Some(i32::try_from(manifest.backoff_limit).unwrap_or(i32::MAX)),
            pod_failure_policy: Some(failure_policy()),
            // A second trainer while the first saves its checkpoint would hold devices twice.
            pod_replacement_policy: Some("Failed".into()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(common_labels(made.blueprint)),
                    annotations: Some(BTreeMap::from([(
                        "kubectl.kubernetes.io/default-container".to_owned(),
                        TRAINER.to_owned(),
                    )])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod::spec(made.blueprint)),
            },
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

fn failure_policy() -> PodFailurePolicy {
    let on_codes = |action: &str, values: Vec<i32>| PodFailurePolicyRule {
        action: action.into(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(TRAINER.into()),
            operator: "In".into(),
            values,
        }),
        on_pod_conditions: None,
    };
    let disrupted = PodFailurePolicyRule {
        action: "Ignore".into(),
        on_exit_codes: None,
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
        }]),
    };
    PodFailurePolicy {
        rules: vec![on_codes("FailJob", vec![BAD_USAGE, BAD_DATA]), on_codes("Ignore", vec![TRY_AGAIN]), disrupted],
    }
}
