//! What a vendor's library says of its devices.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use freehold_api::provider::GpuNode;
use freehold_node_agent::health::Health;
use freehold_node_agent::inventory::{self, PluginMode, Seen};
use freehold_node_agent::isolation::Isolation;
use freehold_node_agent::nvml::{Device, Inventory, Slice};
use freehold_node_agent::plugin::PluginState;
use freehold_node_agent::pod_resources::Allocations;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::bytes::Bytes;
use crate::schema;

/// Devices one after the other: whatever a driver says, the status is one that the API server takes.
pub fn nvml(data: &[u8]) {
    static STATUS: LazyLock<Value> = LazyLock::new(|| schema::of(&GpuNode::crd(), "status"));
    let mut data = Bytes(data);
    let mut inventory =
        Inventory { driver_version: Some(data.text()), cuda_version: Some(data.text()), ..Inventory::default() };
    let mut health = Health::default();
    while !data.is_empty() && inventory.devices.len() < 200 {
        let device = device(&mut data);
        if data.u8() % 4 == 0 {
            health.xid(device.gpu(), data.u64());
        }
        if device.lost {
            inventory.silent.insert(device.index)
        } else {
            inventory.reached.insert(device.index)
        };
        inventory.devices.push(device);
    }
    health.observe(&inventory.devices);
    let devices = inventory::with_lost(&Inventory { silent: BTreeSet::new(), ..inventory.clone() }, &inventory.devices);
    let allocations = Allocations::default();
    let seen = Seen {
        nvml: Ok(&inventory),
        devices: &devices,
        health: &health,
        allocations: Ok(&allocations),
        mode: PluginMode::Builtin,
        plugin: &PluginState::Registered,
        isolation: &Isolation::Verified,
    };
    let (status, _) = inventory::status(&seen);
    assert!(status.free.unwrap_or_default() <= status.total.unwrap_or_default());
    let refused = schema::refusal(&STATUS, &serde_json::to_value(&status).expect("a status is printed"));
    assert_eq!(refused, None, "a status is refused");
    let _ = (inventory::remembered(&status.devices), inventory::resources(&devices, &health, "nvidia.com/gpu"));
}

fn device(data: &mut Bytes<'_>) -> Device {
    let shape = data.u8();
    let slice = (shape & 1 == 1).then(|| Slice {
        parent: data.text(),
        profile: data.text(),
        gpu_instance: Some(data.u32()),
        compute_instance: None,
    });
    Device {
        uuid: data.text(),
        index: data.u8().into(),
        minor: Some(data.u32()),
        model: data.text(),
        memory_bytes: data.u64(),
        memory_used_bytes: data.u64(),
        compute_capability: Some(data.text()),
        pci_bus_id: Some(data.text()),
        pcie: Some(data.text()),
        nv_links: Some(u32::from(data.u8() % 19)),
        mig: slice,
        ecc: Some(shape & 2 == 2),
        uncorrected_ecc_errors: data.u64(),
        processes: data.u32(),
        utilization: Some(u32::from(data.u8() % 101)),
        lost: shape & 4 == 4,
    }
}
