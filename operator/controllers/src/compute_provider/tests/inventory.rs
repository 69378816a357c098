use freehold_api::provider::DeviceState;
use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{self, GIB, H100, RELEASE, gpu_node, id, resources};

fn two_h100() -> Capacity {
    let agent = gpu_node(vec![fixtures::device(0, H100), fixtures::device(1, H100)]);
    capacity(&[agent], &[fixtures::node(2)], &[], RELEASE, "nvidia.com/gpu")
}

#[test]
fn a_node_takes_as_many_leases_as_it_has_devices() {
    let mut capacity = two_h100();
    assert_eq!(capacity.gpus(), (2, 2));
    let first = capacity.take(&resources(1)).unwrap();
    assert_eq!(first, Placement { node: "node-a".into(), model: Some(H100.into()) });
    assert!(capacity.take(&resources(1)).is_some());
    assert!(capacity.take(&resources(1)).is_none(), "a third has to wait");
    assert!(capacity.take(&resources(0)).is_some(), "work without GPUs still fits");
}

#[test]
fn all_gpus_of_a_lease_are_on_one_node() {
    assert!(two_h100().find(&resources(2)).is_some());
    assert!(two_h100().find(&resources(3)).is_none());
}

#[rstest]
#[case::other_model(|gpu: &mut SpecGpu| gpu.models = vec!["*A100*".into()])]
#[case::more_memory(|gpu: &mut SpecGpu| gpu.memory = 81 * GIB)]
#[case::a_slice(|gpu: &mut SpecGpu| gpu.mig_profile = Some("1g.10gb".into()))]
fn devices_have_to_be_what_is_asked_for(#[case] change: fn(&mut SpecGpu)) {
    let mut wanted = resources(1);
    change(wanted.gpu.as_mut().unwrap());
    assert!(two_h100().find(&wanted).is_none());
    assert!(two_h100().find(&resources(1)).is_some());
}

#[rstest]
#[case::cpu(SpecResources { cpu_millis: 8_000, ..resources(1) })]
#[case::memory(SpecResources { memory: 32 * GIB, ..resources(1) })]
#[case::disk(SpecResources { disk: 100 * GIB, ..resources(1) })]
fn the_courier_needs_room_beside_the_trainer(#[case] wanted: SpecResources) {
    assert!(two_h100().find(&wanted).is_none());
}

#[rstest]
#[case::lost(|d: &mut freehold_api::provider::GpuDevice| d.state = DeviceState::Lost)]
#[case::xid(|d: &mut freehold_api::provider::GpuDevice| d.state = DeviceState::XidError)]
#[case::busy(|d: &mut freehold_api::provider::GpuDevice| d.processes = 1)]
#[case::memory_in_use(|d: &mut freehold_api::provider::GpuDevice| d.memory_used_bytes = 2 * GIB)]
fn a_device_that_is_not_idle_and_well_is_not_sold(#[case] change: fn(&mut freehold_api::provider::GpuDevice)) {
    let mut sick = fixtures::device(0, H100);
    change(&mut sick);
    let agent = gpu_node(vec![sick, fixtures::device(1, H100)]);
    let capacity = capacity(&[agent], &[fixtures::node(2)], &[], RELEASE, "nvidia.com/gpu");
    assert_eq!(capacity.gpus(), (1, 2), "the other one is");
    assert!(capacity.find(&resources(1)).is_some());
}

#[test]
fn the_kubelet_chooses_so_mixed_devices_are_not_sold_by_model() {
    let agent = gpu_node(vec![fixtures::device(0, H100), fixtures::device(1, "Tesla T4")]);
    let capacity = capacity(&[agent], &[fixtures::node(2)], &[], RELEASE, "nvidia.com/gpu");
    assert!(capacity.find(&resources(1)).is_none());
    let mut any = resources(1);
    any.gpu.as_mut().unwrap().models = vec!["*".into()];
    assert!(capacity.find(&any).is_some());
}

#[test]
fn nodes_that_nobody_vouches_for_are_not_sold() {
    let agent = || gpu_node(vec![fixtures::device(0, H100)]);
    let sold = |agent: GpuNode, node: Node| {
        capacity(&[agent], &[node], &[], RELEASE, "nvidia.com/gpu").find(&resources(1)).is_some()
    };
    assert!(sold(agent(), fixtures::node(1)));
    let with = |which: usize, status: &str| {
        let mut agent = agent();
        agent.status.as_mut().unwrap().conditions[which].status = status.into();
        sold(agent, fixtures::node(1))
    };
    let [sellable, isolated, served] = [0, 1, 2];
    assert!(!with(sellable, "False") && !with(sellable, "Unknown"));
    assert!(!with(isolated, "False") && !with(isolated, "Unknown"), "nobody has shown that GPUs stay apart");
    assert!(!with(served, "False") && with(served, "Unknown"));
    let mut silent = agent();
    silent.status.as_mut().unwrap().conditions.truncate(1);
    assert!(!sold(silent, fixtures::node(1)), "an agent that says nothing of it vouches for nothing");
    let mut foreign = agent();
    foreign.spec.release = "other.release".into();
    assert!(!sold(foreign, fixtures::node(1)));
    let mut cordoned = fixtures::node(1);
    cordoned.spec.as_mut().unwrap().unschedulable = Some(true);
    assert!(!sold(agent(), cordoned));
    let mut down = fixtures::node(1);
    down.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "Unknown".into();
    assert!(!sold(agent(), down));
    assert!(!sold(agent(), fixtures::node(0)), "the plugin's offer counts, too");
}

#[test]
fn a_node_whose_agent_is_silent_is_not_sold() {
    let agent_pod = |release: &str, ready: bool| -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "agent", "namespace": "freehold-provider-agent", "labels": {
                "freehold.dev/release": release, "app.kubernetes.io/component": "agent",
            } },
            "spec": { "nodeName": "node-a", "containers": [{ "name": "agent" }] },
            "status": {
                "phase": "Running",
                "conditions": [{ "type": "Ready", "status": "False" }],
                "containerStatuses": [
                    { "name": "isolation-probe", "ready": !ready, "image": "", "imageID": "", "restartCount": 0 },
                    { "name": "agent", "ready": ready, "image": "", "imageID": "", "restartCount": 0 },
                ],
            },
        }))
        .unwrap()
    };
    let sold = |pod: Pod| {
        let gpu_node = gpu_node(vec![fixtures::device(0, H100)]);
        capacity(&[gpu_node], &[fixtures::node(1)], &[pod], RELEASE, "nvidia.com/gpu").find(&resources(1)).is_some()
    };
    assert!(sold(agent_pod(RELEASE, true)), "its probe ends now and then");
    assert!(!sold(agent_pod(RELEASE, false)));
    assert!(sold(agent_pod("other.release", false)), "another release's agent speaks for itself");
}

#[test]
fn pods_of_others_take_their_requests() {
    let pods = [fixtures::pod("elsewhere", Some("node-a"), "7500m", 1)];
    let agent = gpu_node(vec![fixtures::device(0, H100), fixtures::device(1, H100)]);
    let capacity = capacity(&[agent], &[fixtures::node(2)], &pods, RELEASE, "nvidia.com/gpu");
    let small = |millis| SpecResources { cpu_millis: millis, ..resources(1) };
    assert!(capacity.find(&small(500)).is_none());
    assert!(capacity.find(&small(400)).is_some());
}

#[test]
fn promises_come_before_sales() {
    let mut capacity = two_h100();
    let promise = |byte, gpus| Promise::Anywhere { order: id(byte), resources: resources(gpus) };
    assert_eq!(capacity.keep(&[promise(1, 1), promise(2, 2), promise(3, 1)]), vec![id(2)]);
    assert_eq!(capacity.gpus(), (0, 2));
    let mut placed = two_h100();
    assert!(placed.keep(&[Promise::Devices { node: "node-a".into(), slot: Slot::default(), count: 1 }]).is_empty());
    assert_eq!(placed.gpus(), (1, 2));
}

#[test]
fn sidecars_count_beside_what_starts_after_them() {
    let blueprint = serde_json::json!({
        "initContainers": [
            { "name": "fetch", "resources": { "requests": { "cpu": "50m" } } },
            { "name": "courier", "restartPolicy": "Always", "resources": { "requests": { "cpu": "100m" } } },
            { "name": "trainer", "resources": { "requests": { "cpu": "400m" } } },
        ],
        "containers": [{ "name": "publish", "resources": { "requests": { "cpu": "70m" } } }],
    });
    let spec: PodSpec = serde_json::from_value(blueprint).unwrap();
    assert_eq!(requests_of(&spec, "nvidia.com/gpu").cpu_millis, 500, "as the scheduler was seen to count");
}

#[test]
fn slices_are_sold_by_profile_and_never_as_whole_gpus() {
    let slice = |index| freehold_api::provider::GpuDevice {
        mig_profile: Some("1g.10gb".into()),
        memory_bytes: 10 * GIB,
        ..fixtures::device(index, H100)
    };
    let mut node = fixtures::node(1);
    let allocatable = node.status.as_mut().unwrap().allocatable.as_mut().unwrap();
    allocatable
        .insert("nvidia.com/mig-1g.10gb".into(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("2".into()));
    let agent = gpu_node(vec![fixtures::device(0, H100), slice(1), slice(2)]);
    let mut capacity = capacity(&[agent], &[node], &[], RELEASE, "nvidia.com/gpu");
    let mut wanted = resources(2);
    assert!(capacity.find(&wanted).is_none(), "one whole GPU is there");
    *wanted.gpu.as_mut().unwrap() =
        SpecGpu { count: 2, models: vec!["*".into()], memory: 0, mig_profile: Some("1g.10gb".into()) };
    assert!(capacity.take(&wanted).is_some());
    assert!(capacity.take(&wanted).is_none());
    assert!(capacity.take(&resources(1)).is_some(), "the whole one is still free");
    assert_eq!(Slot::of(Some("1g.10gb+me")).resource("nvidia.com/gpu"), "nvidia.com/mig-1g.10gb.me");
}
