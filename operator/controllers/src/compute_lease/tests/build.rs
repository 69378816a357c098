use k8s_openapi::api::core::v1::Container;

use super::*;
use crate::compute_provider::fixtures::{RELEASE, id, resources, spec};

fn blueprint(gpus: u32) -> Blueprint {
    let manifest = serde_json::from_value(serde_json::json!({
        "apiVersion": "freehold.dev/v1alpha1", "kind": "TrainingTask", "name": "digits", "namespace": "demo",
        "uid": "u", "attempt": 0, "class": "none", "image": spec(1).image, "args": ["train"], "inputs": [],
        "resources": resources(gpus), "backoffLimit": 3, "deadlineSeconds": 7200,
        "runtimeClass": if gpus == 0 { Some("gvisor") } else { None },
    }));
    Blueprint {
        order: id(0xab),
        account: "provider".into(),
        provider: "digits-and-co".into(),
        release: RELEASE.into(),
        courier_image: format!("freehold.dev/freehold@sha256:{}", "9".repeat(64)),
        gpu_resource: "nvidia.com/gpu".into(),
        gateway: Gateway {
            url: "http://gateway.freehold:8081".into(),
            port: 8081,
            alias: Some(("gateway.freehold".into(), "10.102.7.7".into())),
        },
        work: Work { manifest: manifest.unwrap() },
        start_window: 300,
        duration: 3600,
        node: "node-a".into(),
        nodes: vec!["node-a".into(), "node-b".into()],
    }
}

fn containers(objects: &Objects) -> Vec<Container> {
    let pod = objects.job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    pod.init_containers.iter().flatten().chain(&pod.containers).cloned().collect()
}

fn env(container: &Container, name: &str) -> Option<String> {
    container.env.iter().flatten().find(|v| v.name == name).and_then(|v| v.value.clone())
}

#[test]
fn a_gpu_task() {
    let blueprint = blueprint(1);
    let objects = objects(&blueprint, "root-uid");
    insta::assert_yaml_snapshot!("gpu_namespace", objects.namespace);
    insta::assert_yaml_snapshot!("gpu_root", root(&blueprint));
    insta::assert_yaml_snapshot!("gpu_policies", objects.policies);
    insta::assert_yaml_snapshot!("gpu_quota", objects.quota);
    insta::assert_yaml_snapshot!("gpu_account", objects.account);
    insta::assert_yaml_snapshot!("gpu_log_readers", objects.log_readers);
    insta::assert_yaml_snapshot!("gpu_job", objects.job);
}

#[test]
fn a_cpu_task() {
    let objects = objects(&blueprint(0), "root-uid");
    insta::assert_yaml_snapshot!("cpu_quota", objects.quota);
    insta::assert_yaml_snapshot!("cpu_job", objects.job);
}

#[test]
fn the_trainer_has_devices_and_no_token_the_others_a_token_and_no_view_of_devices() {
    let objects = objects(&blueprint(2), "root-uid");
    for container in containers(&objects) {
        let is_trainer = container.name == pod::TRAINER;
        let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
        // The kubelet reports devices of main containers alone, so the main one is given the trainer's.
        let gpus = (is_trainer || container.name == "publish").then_some("2");
        assert_eq!(limits.get("nvidia.com/gpu").map(|q| q.0.as_str()), gpus, "{}", container.name);
        let token = container.volume_mounts.iter().flatten().any(|mount| mount.name == "token");
        assert_eq!(token, !is_trainer, "{}", container.name);
        let void = env(&container, "NVIDIA_VISIBLE_DEVICES").as_deref() == Some("void");
        assert_eq!(void, !is_trainer, "the plugin sets the trainer's: {}", container.name);
    }
}

#[test]
fn without_gpus_every_container_sees_none() {
    for container in containers(&objects(&blueprint(0), "root-uid")) {
        assert_eq!(env(&container, "NVIDIA_VISIBLE_DEVICES").as_deref(), Some("void"), "{}", container.name);
    }
}

#[test]
fn the_quota_is_what_the_scheduler_counts() {
    for gpus in [0, 1] {
        let blueprint = blueprint(gpus);
        let objects = objects(&blueprint, "root-uid");
        let spec = objects.job.spec.unwrap().template.spec.unwrap();
        let counted = crate::compute_provider::inventory::requests_of(&spec, "nvidia.com/gpu");
        assert_eq!(counted, pod::reserved(&blueprint.work.manifest.resources));
    }
}
