//! Whether the devices that the kubelet gave are those that were sold, and
//! whether they still work. Pure.

use freehold_api::GpuNode;
use freehold_api::provider::{DeviceState, GpuDevice};
use freehold_core::spec::SpecGpu;

use crate::compute_provider::inventory::{Device, suits};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// The work uses none.
    NotNeeded,
    /// The agent does not show them yet.
    NotYet,
    Match(Vec<String>),
    /// Not what was sold.
    Mismatch(String),
    /// One that was given to the work failed.
    Lost(String),
}

/// `known` are the UUIDs that this lease was seen to hold before.
pub fn judge(gpu: Option<&SpecGpu>, namespace: &str, known: &[String], nodes: &[GpuNode]) -> Devices {
    let Some(gpu) = gpu else { return Devices::NotNeeded };
    let all: Vec<&GpuDevice> = nodes.iter().filter_map(|node| node.status.as_ref()).flat_map(|s| &s.devices).collect();
    let is_held = |device: &GpuDevice| device.pod.as_ref().is_some_and(|pod| pod.namespace == namespace);
    let held: Vec<&GpuDevice> = all.iter().copied().filter(|device| is_held(device)).collect();
    // A device that fell off the bus may lose its pod in the same breath; what was seen before still counts.
    let ours =
        all.iter().copied().filter(|device| is_held(device) || (held.is_empty() && known.contains(&device.uuid)));
    if let Some(sick) = ours.into_iter().find(|device| device.state != DeviceState::Healthy) {
        return Devices::Lost(complaint(sick));
    }
    if held.is_empty() {
        return Devices::NotYet;
    }
    if held.len() != gpu.count as usize {
        let message = format!("the kubelet gave {} devices, {} were sold", held.len(), gpu.count);
        return Devices::Mismatch(message);
    }
    match held.iter().find(|device| !suits(&as_sold(device), gpu)) {
        Some(other) => Devices::Mismatch(format!(
            "{} is {} with {} bytes, not what was sold",
            other.uuid, other.model, other.memory_bytes
        )),
        None => Devices::Match(held.iter().map(|device| device.uuid.clone()).collect()),
    }
}

fn complaint(device: &GpuDevice) -> String {
    let what = match device.state {
        DeviceState::Healthy => "is healthy".to_owned(),
        DeviceState::XidError => {
            format!("reported Xid {}", device.xid.map_or("errors".to_owned(), |xid| xid.to_string()))
        }
        DeviceState::EccError => format!("has {} uncorrected ECC errors", device.uncorrected_ecc_errors),
        DeviceState::Lost => "fell off the bus".to_owned(),
    };
    format!("{} {what}", device.uuid)
}

fn as_sold(device: &GpuDevice) -> Device {
    Device {
        uuid: device.uuid.clone(),
        model: device.model.clone(),
        memory: device.memory_bytes,
        mig_profile: device.mig_profile.clone(),
        free: false,
    }
}

#[cfg(test)]
#[path = "tests/devices.rs"]
mod tests;
