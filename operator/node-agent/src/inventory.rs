//! From a reading of NVML, the kubelet's allocations and what is known of health to a GpuNode's status. Pure.

use std::collections::{BTreeMap, BTreeSet};

use freehold_api::conditions::{Claim, types};
use freehold_api::provider::{DeviceState, GpuDevice, GpuNodeStatus};
use freehold_api::scalars::Text;

use crate::health::Health;
use crate::isolation::Isolation;
use crate::nvml::{Device, Inventory, Slice};
use crate::plugin::PluginState;
use crate::pod_resources::Allocations;

/// What the driver itself may keep on an idle device: a few MiB were seen, and the context of any CUDA
/// program takes more than this.
const IDLE_MEMORY: u64 = 256 << 20;

/// Limits of the kind's schema. A driver that says more is believed that much.
const MAX_DEVICES: usize = 128;
const MAX_UUID: usize = 96;
const MAX_BYTES: u64 = 1_000_000_000_000_000;
const MAX_NUMBER: u64 = (1 << 53) - 1;
const MAX_PROCESSES: u32 = 1_000_000;

/// Adds to what NVML lists the devices that it listed before and cannot reach now.
///
/// A GPU that NVML still counts but that does not answer is lost. So is one that is no longer counted,
/// unless all that is counted is new: then the node has other hardware. A slice that is gone while its GPU answers was
/// taken apart.
pub fn with_lost(inventory: &Inventory, previous: &[Device]) -> Vec<Device> {
    let mut devices = inventory.devices.clone();
    let known: BTreeSet<&str> = devices.iter().map(Device::gpu).collect();
    let same_node = known.is_empty() || previous.iter().any(|device| known.contains(device.gpu()));
    let lost = previous.iter().filter(|device| {
        let silent = inventory.silent.contains(&device.index);
        let uncounted = same_node && !inventory.reached.contains(&device.index);
        silent || uncounted
    });
    let lost: Vec<Device> = lost.map(as_lost).collect();
    // One that was silent from the start has no name yet.
    let named: BTreeSet<u32> = lost.iter().map(|device| device.index).collect();
    let nameless = inventory.silent.difference(&named).map(|index| Device {
        uuid: format!("unknown-{index}"),
        index: *index,
        model: "unknown".into(),
        lost: true,
        ..Device::default()
    });
    devices.extend(nameless);
    devices.extend(lost);
    devices.sort_by_key(|device| device.index); // stable: slices keep NVML's order
    devices
}

fn as_lost(device: &Device) -> Device {
    Device { lost: true, memory_used_bytes: 0, processes: 0, utilization: None, ..device.clone() }
}

/// What an earlier run of the agent has published, as far as a lost device needs it.
pub fn remembered(published: &[GpuDevice]) -> Vec<Device> {
    let slice = |device: &GpuDevice| Slice {
        parent: device.mig_parent.clone().unwrap_or_default(),
        profile: device.mig_profile.clone().unwrap_or_default(),
        ..Slice::default()
    };
    let device = |device: &GpuDevice| Device {
        uuid: device.uuid.clone(),
        index: device.index,
        model: device.model.clone(),
        memory_bytes: device.memory_bytes,
        compute_capability: device.compute_capability.as_ref().map(|text| text.0.clone()),
        pci_bus_id: device.pci_bus_id.as_ref().map(|text| text.0.clone()),
        pcie: device.pcie.as_ref().map(|text| text.0.clone()),
        mig: device.mig_parent.is_some().then(|| slice(device)),
        lost: device.state == DeviceState::Lost,
        ..Device::default()
    };
    published.iter().map(device).collect()
}

/// Who hands the devices to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PluginMode {
    /// This agent serves the kubelet's device-plugin API.
    Builtin,
    /// A plugin that was installed apart from it, such as NVIDIA's.
    External,
}

/// Everything one pass of the agent has seen.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The driver's versions, or why NVML cannot be read; then `devices` are those of an earlier pass.
    pub nvml: Result<&'a Inventory, String>,
    pub devices: &'a [Device],
    pub health: &'a Health,
    /// Or why the kubelet's answer is missing.
    pub allocations: Result<&'a Allocations, String>,
    pub mode: PluginMode,
    pub plugin: &'a PluginState,
    pub isolation: &'a Isolation,
}

/// Status without conditions, and the conditions as claims.
pub fn status(seen: &Seen<'_>) -> (GpuNodeStatus, Vec<Claim>) {
    let devices: Vec<GpuDevice> = seen.devices.iter().take(MAX_DEVICES).map(|d| publish(seen, d)).collect();
    let known = seen.nvml.is_ok() && seen.allocations.is_ok();
    let free = devices.iter().filter(|device| known && is_free(device)).count();
    let versions = seen.nvml.as_ref().ok();
    let claims = vec![healthy(seen, &devices), plugin_ready(seen), seen.isolation.claim(), sellable(seen, &devices)];
    let status = GpuNodeStatus {
        model: model(&devices).map(text),
        total: u32::try_from(devices.len()).ok(),
        free: u32::try_from(free).ok(),
        mig: Some(text(mig(&devices))),
        driver_version: versions.and_then(|i| i.driver_version.clone()).map(text),
        cuda_version: versions.and_then(|i| i.cuda_version.clone()).map(text),
        health: Some(text(health_text(seen, &devices))),
        devices,
        ..GpuNodeStatus::default()
    };
    (status, claims)
}

fn text(value: impl Into<String>) -> Text {
    Text(clipped(value.into(), 256))
}

fn clipped(value: String, max: usize) -> String {
    if value.chars().count() > max { value.chars().take(max).collect() } else { value }
}

fn publish(seen: &Seen<'_>, device: &Device) -> GpuDevice {
    let pod = seen.allocations.as_ref().ok().and_then(|allocations| allocations.pods.get(&device.uuid));
    let slice = device.mig.as_ref();
    GpuDevice {
        uuid: clipped(device.uuid.clone(), MAX_UUID),
        index: device.index,
        model: clipped(device.model.clone(), 128),
        memory_bytes: device.memory_bytes.min(MAX_BYTES),
        memory_used_bytes: device.memory_used_bytes.min(MAX_BYTES),
        compute_capability: device.compute_capability.clone().map(text),
        pci_bus_id: device.pci_bus_id.clone().map(text),
        pcie: device.pcie.clone().map(text),
        nv_links: device.nv_links,
        mig_parent: slice.map(|slice| clipped(slice.parent.clone(), MAX_UUID)),
        mig_profile: slice.map(|slice| clipped(slice.profile.clone(), 32)),
        ecc: device.ecc,
        uncorrected_ecc_errors: device.uncorrected_ecc_errors.min(MAX_NUMBER),
        xid: seen.health.newest_xid(device).map(|xid| xid.min(MAX_NUMBER)),
        state: seen.health.state(device),
        processes: device.processes.min(MAX_PROCESSES),
        utilization: device.utilization,
        pod: pod.cloned(),
    }
}

/// Nothing has it, neither a pod nor a process that no pod accounts for.
pub fn is_free(device: &GpuDevice) -> bool {
    device.state == DeviceState::Healthy
        && device.pod.is_none()
        && device.processes == 0
        && device.memory_used_bytes <= IDLE_MEMORY
}

fn models(devices: &[GpuDevice]) -> BTreeSet<&str> {
    devices.iter().map(|device| device.model.as_str()).collect()
}

fn model(devices: &[GpuDevice]) -> Option<String> {
    match models(devices).into_iter().collect::<Vec<_>>()[..] {
        [] => None,
        [one] => Some(one.to_owned()),
        _ => Some("mixed".into()),
    }
}

fn mig(devices: &[GpuDevice]) -> String {
    let profiles: BTreeSet<&str> = devices.iter().filter_map(|device| device.mig_profile.as_deref()).collect();
    if profiles.is_empty() { "off".into() } else { profiles.into_iter().collect::<Vec<_>>().join(",") }
}

/// How many devices are in each state but Healthy, the worst first.
fn sick(devices: &[GpuDevice]) -> Vec<(DeviceState, &'static str, &'static str, Vec<&GpuDevice>)> {
    let kinds = [
        (DeviceState::Lost, "DeviceLost", "lost"),
        (DeviceState::XidError, "XidError", "Xid error"),
        (DeviceState::EccError, "EccError", "ECC error"),
    ];
    let with = |state| devices.iter().filter(|device| device.state == state).collect::<Vec<_>>();
    let all = kinds.into_iter().map(|(state, reason, word)| (state, reason, word, with(state)));
    all.filter(|(.., devices)| !devices.is_empty()).collect()
}

fn health_text(seen: &Seen<'_>, devices: &[GpuDevice]) -> String {
    if seen.nvml.is_err() {
        return "NVML unavailable".into();
    }
    let sick = sick(devices);
    if sick.is_empty() {
        return if devices.is_empty() { "no devices".into() } else { "ok".into() };
    }
    let count = |(_, _, word, devices): &(_, _, &str, Vec<_>)| format!("{} {word}", devices.len());
    sick.iter().map(count).collect::<Vec<_>>().join(", ")
}

fn healthy(seen: &Seen<'_>, devices: &[GpuDevice]) -> Claim {
    if let Err(why) = &seen.nvml {
        return Claim::unknown(types::HEALTHY, "NvmlUnavailable", why);
    }
    let sick = sick(devices);
    let Some((_, reason, ..)) = sick.first() else {
        return Claim::yes(types::HEALTHY, "AllHealthy", format!("{} devices are well", devices.len()));
    };
    let named = sick.iter().flat_map(|(_, _, word, devices)| devices.iter().map(move |device| complaint(device, word)));
    let named: Vec<String> = named.collect();
    let remedy = match *reason {
        "DeviceLost" => "reset the GPU or boot the node",
        "XidError" => "reset the GPU, then annotate this object with freehold.dev/reset-health=<uuid> (or all)",
        _ => "reset the GPU; if the errors come back, replace it",
    };
    Claim::no(types::HEALTHY, reason, format!("{}; {remedy}", named.join("; ")))
}

fn complaint(device: &GpuDevice, word: &str) -> String {
    let detail = match (device.state, device.xid) {
        (DeviceState::XidError, Some(xid)) => format!("Xid {xid}"),
        (DeviceState::EccError, _) => format!("{} uncorrected ECC errors", device.uncorrected_ecc_errors),
        _ => word.to_owned(),
    };
    format!("{} (GPU {}): {detail}", device.uuid, device.index)
}

fn plugin_ready(seen: &Seen<'_>) -> Claim {
    let yes = |reason, message: &str| Claim::yes(types::PLUGIN_READY, reason, message);
    let no = |reason, message: &str| Claim::no(types::PLUGIN_READY, reason, message);
    match (seen.mode, seen.plugin, &seen.allocations) {
        (PluginMode::Builtin, PluginState::Registered, _) => {
            yes("Registered", "the agent's plugin is registered with the kubelet")
        }
        (PluginMode::Builtin, PluginState::Conflict(why), _) => no("Conflict", why),
        (PluginMode::Builtin, PluginState::Waiting(why), _) => no("NotRegistered", why),
        (PluginMode::External, _, Ok(allocations)) if allocations.offered => {
            yes("External", "another plugin has registered the GPUs with the kubelet")
        }
        (PluginMode::External, _, Ok(_)) => no(
            "NotRegistered",
            "no plugin has registered GPUs with the kubelet; install NVIDIA's device plugin, or set gpu.plugin: builtin",
        ),
        (PluginMode::External, _, Err(why)) => Claim::unknown(types::PLUGIN_READY, "KubeletUnreachable", why),
    }
}

fn sellable(seen: &Seen<'_>, devices: &[GpuDevice]) -> Claim {
    let no = |reason, message: String| Claim::no(types::SELLABLE, reason, message);
    if let Err(why) = &seen.nvml {
        return no("NvmlUnavailable", why.clone());
    }
    if devices.is_empty() {
        return no("NoDevices", "NVML lists no device".into());
    }
    let allocations = match &seen.allocations {
        Ok(allocations) => allocations,
        Err(why) => return no("KubeletUnreachable", why.clone()),
    };
    if allocations.shared {
        return no("TimeSliced", "one GPU is offered to several pods at once; turn time slicing and MPS off".into());
    }
    let models = models(devices);
    if models.len() > 1 {
        let models = models.into_iter().collect::<Vec<_>>().join(", ");
        return no("MixedModels", format!("the kubelet cannot choose between {models}; use one model a node"));
    }
    Claim::yes(types::SELLABLE, "Sellable", "devices that are free can be sold")
}

/// Names of the extended resources, and the devices of each: whole GPUs as `resource`, slices by profile
/// (`nvidia.com/mig-1g.10gb`), so that a slice is never handed out as a GPU.
pub fn resources(devices: &[Device], health: &Health, resource: &str) -> BTreeMap<String, Vec<Offer>> {
    let domain = resource.split_once('/').map_or("nvidia.com", |(domain, _)| domain);
    let mut offers: BTreeMap<String, Vec<Offer>> = BTreeMap::new();
    for device in devices {
        let name = match &device.mig {
            None => resource.to_owned(),
            Some(slice) => format!("{domain}/mig-{}", slice.profile.replace('+', ".")),
        };
        let healthy = health.state(device) == DeviceState::Healthy;
        offers.entry(name).or_default().push(Offer { uuid: device.uuid.clone(), healthy });
    }
    offers
}

/// A device as the kubelet hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub uuid: String,
    pub healthy: bool,
}

#[cfg(test)]
#[path = "tests/inventory.rs"]
mod tests;
