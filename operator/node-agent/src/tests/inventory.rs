use freehold_api::conditions::Status;
use freehold_api::provider::PodRef;

use super::*;

fn gpu(index: u32) -> Device {
    Device {
        uuid: format!("GPU-{index}"),
        index,
        minor: Some(index),
        model: "NVIDIA H100 80GB HBM3".into(),
        memory_bytes: 80 << 30,
        ..Device::default()
    }
}

fn slice(gpu_index: u32, n: u32) -> Device {
    let parent = format!("GPU-{gpu_index}");
    let slice = Slice { parent, profile: "1g.10gb".into(), ..Slice::default() };
    Device { uuid: format!("MIG-{gpu_index}-{n}"), mig: Some(slice), ..gpu(gpu_index) }
}

fn reading(devices: Vec<Device>, silent: &[u32]) -> Inventory {
    Inventory {
        driver_version: Some("580.95.05".into()),
        cuda_version: Some("13.0".into()),
        reached: devices.iter().map(|device| device.index).collect(),
        devices,
        silent: silent.iter().copied().collect(),
    }
}

fn uuids(devices: &[Device]) -> Vec<(&str, bool)> {
    devices.iter().map(|device| (device.uuid.as_str(), device.lost)).collect()
}

/// A node on which everything is as it should be; each test spoils one thing.
struct Node {
    inventory: Result<Inventory, String>,
    devices: Vec<Device>,
    health: Health,
    allocations: Result<Allocations, String>,
    mode: PluginMode,
    plugin: PluginState,
    isolation: Isolation,
}

fn node(devices: Vec<Device>) -> Node {
    Node {
        inventory: Ok(reading(devices.clone(), &[])),
        devices,
        health: Health::default(),
        allocations: Ok(Allocations { offered: true, ..Allocations::default() }),
        mode: PluginMode::Builtin,
        plugin: PluginState::Registered,
        isolation: Isolation::Verified,
    }
}

impl Node {
    fn status(&self) -> (GpuNodeStatus, Vec<Claim>) {
        status(&Seen {
            nvml: self.inventory.as_ref().map_err(Clone::clone),
            devices: &self.devices,
            health: &self.health,
            allocations: self.allocations.as_ref().map_err(Clone::clone),
            mode: self.mode,
            plugin: &self.plugin,
            isolation: &self.isolation,
        })
    }

    fn claim(&self, type_: &str) -> (Status, &'static str, String) {
        let claim = self.status().1.into_iter().find(|claim| claim.type_ == type_).unwrap();
        (claim.status, claim.reason, claim.message)
    }

    fn reason(&self, type_: &str) -> (Status, &'static str) {
        let (status, reason, _) = self.claim(type_);
        (status, reason)
    }

    fn hold(&mut self, uuid: &str) {
        let pod = PodRef { namespace: "fh-lease-1".into(), name: "task".into(), container: None };
        self.allocations.as_mut().unwrap().pods.insert(uuid.into(), pod);
    }
}

#[test]
fn a_well_node_is_sold_whole() {
    let node = node(vec![gpu(0), gpu(1)]);
    let (status, _) = node.status();
    assert_eq!((status.total, status.free), (Some(2), Some(2)));
    assert_eq!(status.model.unwrap().0, "NVIDIA H100 80GB HBM3");
    assert_eq!(status.mig.unwrap().0, "off");
    assert_eq!(status.health.unwrap().0, "ok");
    assert_eq!((status.driver_version.unwrap().0, status.cuda_version.unwrap().0), ("580.95.05".into(), "13.0".into()));
    assert_eq!(node.reason("Healthy"), (Status::True, "AllHealthy"));
    assert_eq!(node.reason("PluginReady"), (Status::True, "Registered"));
    assert_eq!(node.reason("Sellable"), (Status::True, "Sellable"));
    assert_eq!(node.reason("IsolationVerified"), (Status::True, "Verified"));
}

#[test]
fn what_a_container_saw_unasked_is_named_with_the_remedy() {
    let mut node = node(vec![gpu(0)]);
    node.isolation = Isolation::Breached(vec!["nvidia0".into(), "nvidiactl".into()]);
    let (status, reason, message) = node.claim("IsolationVerified");
    assert_eq!((status, reason), (Status::False, "VariableHonoured"));
    assert!(message.contains("nvidia0, nvidiactl") && message.contains("config.toml"), "{message}");
    node.isolation = Isolation::NotProbed("why".into());
    assert_eq!(node.claim("IsolationVerified"), (Status::Unknown, "NotProbed", "why".into()));
}

#[test]
fn free_is_what_nothing_has() {
    let busy = Device { processes: 1, ..gpu(1) };
    let full = Device { memory_used_bytes: IDLE_MEMORY + 1, ..gpu(2) };
    let idle = Device { memory_used_bytes: IDLE_MEMORY, ..gpu(3) };
    let mut node = node(vec![gpu(0), busy, full, idle]);
    node.hold("GPU-0");
    let (status, _) = node.status();
    assert_eq!((status.total, status.free), (Some(4), Some(1)));
    assert_eq!(status.devices[0].pod.as_ref().unwrap().namespace, "fh-lease-1");
}

#[test]
fn a_silent_kubelet_leaves_nothing_free() {
    let mut node = node(vec![gpu(0)]);
    node.allocations = Err("the kubelet does not answer".into());
    assert_eq!(node.status().0.free, Some(0));
    assert_eq!(node.reason("Sellable"), (Status::False, "KubeletUnreachable"));
}

#[test]
fn sickness_is_told_by_its_worst_kind_and_names_each_device() {
    let faulty = Device { uncorrected_ecc_errors: 3, ..gpu(2) };
    let mut node = node(vec![gpu(0), gpu(1), faulty]);
    node.health.xid("GPU-1", 79);
    let (status, _) = node.status();
    assert_eq!(status.free, Some(1));
    assert_eq!(status.health.unwrap().0, "1 Xid error, 1 ECC error");
    assert_eq!(status.devices[1].xid, Some(79));
    let (state, reason, message) = node.claim("Healthy");
    assert_eq!((state, reason), (Status::False, "XidError"));
    assert!(message.contains("GPU-1 (GPU 1): Xid 79") && message.contains("3 uncorrected ECC errors"), "{message}");

    node.devices[0].lost = true;
    assert_eq!(node.reason("Healthy"), (Status::False, "DeviceLost"));
    assert_eq!(node.status().0.health.unwrap().0, "1 lost, 1 Xid error, 1 ECC error");
    assert_eq!(node.reason("Sellable").0, Status::True, "the others go on being sold");
}

#[test]
fn without_nvml_the_devices_stay_listed_and_none_is_free() {
    let mut node = node(vec![gpu(0)]);
    node.inventory = Err("NVML library cannot be used".into());
    let (status, _) = node.status();
    assert_eq!((status.total, status.free), (Some(1), Some(0)));
    assert_eq!(status.health.unwrap().0, "NVML unavailable");
    assert_eq!(node.reason("Healthy"), (Status::Unknown, "NvmlUnavailable"));
    assert_eq!(node.reason("Sellable"), (Status::False, "NvmlUnavailable"));
}

#[test]
fn what_cannot_be_sold_says_why() {
    assert_eq!(node(vec![]).reason("Sellable"), (Status::False, "NoDevices"));
    assert_eq!(node(vec![]).status().0.health.unwrap().0, "no devices");

    let mixed = node(vec![gpu(0), Device { model: "Tesla T4".into(), ..gpu(1) }]);
    assert_eq!(mixed.reason("Sellable"), (Status::False, "MixedModels"));
    assert_eq!(mixed.status().0.model.unwrap().0, "mixed");

    let mut shared = node(vec![gpu(0)]);
    shared.allocations.as_mut().unwrap().shared = true;
    assert_eq!(shared.reason("Sellable"), (Status::False, "TimeSliced"));
}

#[test]
fn the_plugin_is_ready_when_the_kubelet_knows_it() {
    let mut node = node(vec![gpu(0)]);
    node.plugin = PluginState::Conflict("NVIDIA's device plugin serves nvidia-gpu.sock".into());
    assert_eq!(node.reason("PluginReady"), (Status::False, "Conflict"));
    node.plugin = PluginState::Waiting("no kubelet".into());
    assert_eq!(node.reason("PluginReady"), (Status::False, "NotRegistered"));

    node.mode = PluginMode::External;
    assert_eq!(node.reason("PluginReady"), (Status::True, "External"));
    node.allocations = Ok(Allocations::default());
    assert_eq!(node.reason("PluginReady"), (Status::False, "NotRegistered"));
}

#[test]
fn slices_are_offered_by_profile_never_as_gpus() {
    let mut health = Health::default();
    health.xid("GPU-1", 79);
    let offers = resources(&[gpu(0), slice(1, 0), slice(1, 1)], &health, "nvidia.com/gpu");
    assert_eq!(offers["nvidia.com/gpu"], [Offer { uuid: "GPU-0".into(), healthy: true }]);
    let slices = [("MIG-1-0", false), ("MIG-1-1", false)].map(|(uuid, healthy)| Offer { uuid: uuid.into(), healthy });
    assert_eq!(offers["nvidia.com/mig-1g.10gb"], slices);

    let (status, _) = node(vec![slice(1, 0), slice(1, 1)]).status();
    assert_eq!(status.mig.unwrap().0, "1g.10gb");
    assert_eq!(status.devices[0].mig_parent.as_deref(), Some("GPU-1"));
}

#[test]
fn a_silent_gpu_is_listed_as_lost_under_its_name() {
    let before = [gpu(0), Device { processes: 2, ..gpu(1) }];
    let now = with_lost(&reading(vec![gpu(0)], &[1]), &before);
    assert_eq!(uuids(&now), [("GPU-0", false), ("GPU-1", true)]);
    assert_eq!(now[1].processes, 0);
    // It stays so, and comes back as itself.
    let still = with_lost(&reading(vec![gpu(0)], &[1]), &now);
    assert_eq!(uuids(&still), uuids(&now));
    assert_eq!(uuids(&with_lost(&reading(before.to_vec(), &[]), &still)), [("GPU-0", false), ("GPU-1", false)]);
}

#[test]
fn a_gpu_that_was_silent_from_the_start_has_no_name_yet() {
    let now = with_lost(&reading(vec![gpu(0)], &[1]), &[]);
    assert_eq!(uuids(&now), [("GPU-0", false), ("unknown-1", true)]);
    assert_eq!(uuids(&with_lost(&reading(vec![gpu(0), gpu(1)], &[]), &now)), [("GPU-0", false), ("GPU-1", false)]);
}

#[test]
fn a_gpu_that_is_no_longer_counted_is_lost_too() {
    let now = with_lost(&reading(vec![gpu(0)], &[]), &[gpu(0), gpu(1)]);
    assert_eq!(uuids(&now), [("GPU-0", false), ("GPU-1", true)]);
    assert_eq!(uuids(&with_lost(&reading(vec![], &[]), &[gpu(0)])), [("GPU-0", true)]);
}

#[test]
fn other_hardware_replaces_what_was_known() {
    let other = Device { uuid: "GPU-new".into(), ..gpu(0) };
    assert_eq!(uuids(&with_lost(&reading(vec![other], &[]), &[gpu(0), gpu(1)])), [("GPU-new", false)]);
}

#[test]
fn slices_go_with_their_gpu_but_may_be_taken_apart() {
    let before = [slice(0, 0), slice(0, 1)];
    assert_eq!(uuids(&with_lost(&reading(vec![], &[0]), &before)), [("MIG-0-0", true), ("MIG-0-1", true)]);
    assert_eq!(uuids(&with_lost(&reading(vec![slice(0, 1)], &[]), &before)), [("MIG-0-1", false)]);
    let without = Inventory { reached: BTreeSet::from([0]), ..Inventory::default() };
    assert_eq!(uuids(&with_lost(&without, &before)), []);
}

#[test]
fn a_restarted_agent_knows_the_devices_it_had_published() {
    let mut lost = node(vec![gpu(0), slice(1, 0)]);
    lost.devices[0].lost = true;
    let known = remembered(&lost.status().0.devices);
    assert_eq!(uuids(&known), [("GPU-0", true), ("MIG-1-0", false)]);
    assert_eq!(known[1].gpu(), "GPU-1");
    assert_eq!(known[0].memory_bytes, 80 << 30);
}

#[test]
fn the_schema_s_limits_hold() {
    let long = Device { model: "é".repeat(200), ..gpu(0) };
    let (status, _) = node((0..200).map(|index| Device { index, ..long.clone() }).collect()).status();
    assert_eq!(status.devices.len(), 128);
    assert_eq!(status.devices[0].model.chars().count(), 128);
}

#[test]
fn whatever_a_driver_says_fits_the_schema() {
    let slice = Slice { parent: "p".repeat(200), profile: "x".repeat(200), ..Slice::default() };
    let odd = Device {
        uuid: "u".repeat(200),
        memory_bytes: u64::MAX,
        memory_used_bytes: u64::MAX,
        uncorrected_ecc_errors: u64::MAX,
        processes: u32::MAX,
        mig: Some(slice),
        ..gpu(0)
    };
    let mut node = node(vec![odd]);
    node.health.xid(&"p".repeat(200), u64::MAX);
    let published = node.status().0.devices.remove(0);
    assert_eq!((published.memory_bytes, published.memory_used_bytes), (MAX_BYTES, MAX_BYTES));
    assert_eq!((published.uncorrected_ecc_errors, published.xid), (MAX_NUMBER, Some(MAX_NUMBER)));
    assert_eq!((published.processes, published.uuid.len()), (MAX_PROCESSES, MAX_UUID));
    assert_eq!(
        (published.mig_parent.map(|p| p.len()), published.mig_profile.map(|p| p.len())),
        (Some(MAX_UUID), Some(32))
    );
}
