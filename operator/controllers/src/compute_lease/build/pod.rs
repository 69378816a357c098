//! The task pod: fetch → courier (sidecar) → trainer → publish.
//!
//! What a tenant names (image, arguments) reaches the trainer alone. The
//! helpers carry the token of the gateway, the trainer carries none.

use std::collections::BTreeMap;

use freehold_core::spec::{SpecGpu, SpecResources};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, EmptyDirVolumeSource, EnvVar, HostAlias, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, PodDNSConfig, PodSecurityContext, PodSpec, PreferredSchedulingTerm,
    ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection,
    Toleration, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Blueprint, SERVICE_ACCOUNT};
use crate::compute_provider::inventory::{Requests, Slot};

/// Taint of GPU nodes in mode Ledger: only leases tolerate it.
pub const GPU_TAINT: &str = "freehold.dev/gpu";
pub const TRAINER: &str = "trainer";
pub const TOKEN_DIR: &str = "/var/run/secrets/freehold";
const TOKEN_NAME: &str = "gateway-token";
pub const TOKEN_AUDIENCE: &str = "freehold-gateway";
const TOKEN_SECONDS: i64 = 600;
const ROOT: &str = "/freehold";
const USER: i64 = 65532;
/// SIGTERM to SIGKILL: time for a last checkpoint and its upload.
const GRACE_SECONDS: i64 = 90;

/// What each helper container is given. The courier runs beside the trainer, so a lease takes this much more.
const HELPER_CPU_MILLIS: u64 = 20;
const HELPER_MEMORY: u64 = 64 << 20;
/// A helper buffers chunks while it uploads.
const HELPER_MEMORY_LIMIT: u64 = 256 << 20;
const HELPER_DISK: u64 = 64 << 20;

/// What a pod of these resources takes from its node, as the scheduler counts.
pub fn reserved(resources: &SpecResources) -> Requests {
    Requests {
        cpu_millis: resources.cpu_millis.max(HELPER_CPU_MILLIS).saturating_add(HELPER_CPU_MILLIS),
        memory: resources.memory.max(HELPER_MEMORY).saturating_add(HELPER_MEMORY),
        disk: resources.disk.max(HELPER_DISK).saturating_add(HELPER_DISK),
        gpus: resources.gpu.iter().map(|gpu| (Slot::of(gpu.mig_profile.as_deref()), gpu.count)).collect(),
    }
}

pub fn spec(blueprint: &Blueprint) -> PodSpec {
    let manifest = &blueprint.work.manifest;
    PodSpec {
        init_containers: Some(vec![helper(blueprint, "fetch"), courier(blueprint), trainer(blueprint)]),
        containers: vec![publish(blueprint)],
        restart_policy: Some("Never".into()),
        service_account_name: Some(SERVICE_ACCOUNT.into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // The courier serves on until the trainer's processes are gone.
        share_process_namespace: Some(true),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        runtime_class_name: manifest.runtime_class.clone(),
        security_context: Some(pod_security()),
        affinity: Some(affinity(&blueprint.node, &blueprint.nodes)),
        tolerations: Some(vec![Toleration {
            key: Some(GPU_TAINT.into()),
            operator: Some("Exists".into()),
            ..Toleration::default()
        }]),
        host_aliases: blueprint
            .gateway
            .alias
            .as_ref()
            .map(|(host, ip)| vec![HostAlias { ip: ip.clone(), hostnames: Some(vec![host.clone()]) }]),
        // Names resolve from /etc/hosts alone; the address belongs to nobody (RFC 5737).
        dns_policy: Some("None".into()),
        dns_config: Some(PodDNSConfig { nameservers: Some(vec!["192.0.2.1".into()]), ..PodDNSConfig::default() }),
        volumes: Some(volumes(&manifest.resources)),
        ..PodSpec::default()
    }
}

fn trainer(blueprint: &Blueprint) -> Container {
    let manifest = &blueprint.work.manifest;
    let mut env = vec![
        variable("OMP_NUM_THREADS", manifest.resources.cpu_millis.div_ceil(1000).max(1).to_string()),
        variable("HOME", "/tmp".into()),
    ];
    if manifest.resources.gpu.is_none() {
        env.push(no_gpus());
    }
    Container {
        name: TRAINER.into(),
        image: Some(manifest.image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(manifest.args.clone()),
        env: Some(env),
        resources: Some(trainer_resources(&manifest.resources, &blueprint.gpu_resource)),
        volume_mounts: Some(trainer_mounts()),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        working_dir: Some(ROOT.into()),
        ..Container::default()
    }
}

/// The work folder is writable, what came from outside is not.
fn trainer_mounts() -> Vec<VolumeMount> {
    let fixed = |path: &str| VolumeMount {
        name: "work".into(),
        mount_path: format!("{ROOT}/{path}"),
        sub_path: Some(path.into()),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    vec![mount("work", ROOT), fixed("in"), fixed("task.json"), mount("tmp", "/tmp")]
}

fn courier(blueprint: &Blueprint) -> Container {
    Container { name: "courier".into(), restart_policy: Some("Always".into()), ..helper(blueprint, "watch") }
}

/// The kubelet names devices of main containers to agents, not those of init
/// containers. `publish` asks for as many as the trainer and is given the same
/// ones, so they are seen as held until the pod ends.
fn publish(blueprint: &Blueprint) -> Container {
    let mut container = helper(blueprint, "publish");
    if let (Some(gpu), Some(resources)) = (&blueprint.work.manifest.resources.gpu, &mut container.resources) {
        for amounts in [&mut resources.requests, &mut resources.limits].into_iter().flatten() {
            let (name, count) = gpu_request(gpu, &blueprint.gpu_resource);
            amounts.insert(name, count);
        }
    }
    container
}

fn helper(blueprint: &Blueprint, command: &str) -> Container {
    Container {
        name: command.into(),
        image: Some(blueprint.courier_image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(vec!["courier".into(), command.into()]),
        env: Some(vec![
            variable("FREEHOLD_ORDER_ID", blueprint.order.to_string()),
            variable("FREEHOLD_GATEWAY_URL", blueprint.gateway.url.clone()),
            variable("FREEHOLD_TOKEN_FILE", format!("{TOKEN_DIR}/{TOKEN_NAME}")),
            variable("FREEHOLD_ROOT", ROOT.into()),
            no_gpus(),
        ]),
        resources: Some(helper_resources()),
        volume_mounts: Some(vec![mount("work", ROOT), mount("tmp", "/tmp"), token_mount()]),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    }
}

/// An image may ask for all GPUs in its environment; the pod's own wins.
fn no_gpus() -> EnvVar {
    variable("NVIDIA_VISIBLE_DEVICES", "void".into())
}

fn variable(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value), value_from: None }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() }
}

fn token_mount() -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount("token", TOKEN_DIR) }
}

fn volumes(resources: &SpecResources) -> Vec<Volume> {
    let scratch = |name: &str| Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(bytes(resources.disk)),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    };
    let token = Volume {
        name: "token".into(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(ServiceAccountTokenProjection {
                    audience: Some(TOKEN_AUDIENCE.into()),
                    expiration_seconds: Some(TOKEN_SECONDS),
                    path: TOKEN_NAME.into(),
                }),
                ..VolumeProjection::default()
            }]),
            default_mode: Some(0o440),
        }),
        ..Volume::default()
    };
    vec![scratch("work"), scratch("tmp"), token]
}

fn trainer_resources(resources: &SpecResources, gpu_resource: &str) -> ResourceRequirements {
    let mut sold = BTreeMap::from([
        ("cpu".to_owned(), millis(resources.cpu_millis)),
        ("memory".to_owned(), bytes(resources.memory)),
        ("ephemeral-storage".to_owned(), bytes(resources.disk)),
    ]);
    if let Some(gpu) = &resources.gpu {
        let (name, count) = gpu_request(gpu, gpu_resource);
        sold.insert(name, count);
    }
    ResourceRequirements { requests: Some(sold.clone()), limits: Some(sold), claims: None }
}

fn gpu_request(gpu: &SpecGpu, gpu_resource: &str) -> (String, Quantity) {
    (Slot::of(gpu.mig_profile.as_deref()).resource(gpu_resource), Quantity(gpu.count.to_string()))
}

fn helper_resources() -> ResourceRequirements {
    let of = |memory| {
        BTreeMap::from([
            ("cpu".to_owned(), millis(HELPER_CPU_MILLIS)),
            ("memory".to_owned(), bytes(memory)),
            ("ephemeral-storage".to_owned(), bytes(HELPER_DISK)),
        ])
    };
    let requests = of(HELPER_MEMORY);
    let mut limits = of(HELPER_MEMORY_LIMIT);
    // Idle cores may be used: an upload holds rent up.
    limits.remove("cpu");
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
}

pub fn millis(millis: u64) -> Quantity {
    Quantity(format!("{millis}m"))
}

pub fn bytes(bytes: u64) -> Quantity {
    Quantity(bytes.to_string())
}

/// Any node that could do the work, so that a lost one can be replaced; the one that was planned first.
fn affinity(node: &str, nodes: &[String]) -> Affinity {
    let named = |name: &str| NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![name.to_owned()]),
        }]),
    };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: nodes.iter().map(|name| named(name)).collect(),
            }),
            preferred_during_scheduling_ignored_during_execution: Some(vec![PreferredSchedulingTerm {
                weight: 100,
                preference: named(node),
            }]),
        }),
        ..Affinity::default()
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}
