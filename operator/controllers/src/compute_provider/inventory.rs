//! What is free to sell: what the agents' GpuNodes and the scheduler's Nodes
//! say, minus what was promised and is not held yet. Computed anew each time,
//! never counted up and down. Pure.

use std::collections::BTreeMap;

use freehold_api::conditions::{find, types};
use freehold_api::provider::DeviceState;
use freehold_api::{GpuNode, labels};
use freehold_core::B256;
use freehold_core::spec::{SpecGpu, SpecResources};
use freehold_core::units::{self, glob};
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};
use kube::ResourceExt;

use crate::compute_lease::build::pod::{GPU_TAINT, reserved};

/// Memory that an idle device may show as used: the driver's own.
const IDLE_MEMORY: u64 = 256 << 20;

/// A whole GPU, or a MIG slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub uuid: String,
    pub model: String,
    pub memory: u64,
    pub mig_profile: Option<String>,
    /// Healthy, and held by nothing.
    pub free: bool,
}

/// One node of the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCapacity {
    pub name: String,
    pub devices: Vec<Device>,
    /// GPUs that the scheduler would still place on the node, by slot.
    pub slots: BTreeMap<Slot, u32>,
    pub cpu_millis: u64,
    pub memory: u64,
    pub disk: u64,
    /// New work may be placed here.
    pub open: bool,
}

/// Something that was promised, and that nodes or devices do not show yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Not placed yet.
    Anywhere { order: B256, resources: SpecResources },
    /// The pod is on the node, so the scheduler counts it; the agent does not show its devices yet.
    Devices { node: String, slot: Slot, count: u32 },
}

/// Where something goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub node: String,
    /// Product name of the GPUs; none without GPUs.
    pub model: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    pub nodes: Vec<NodeCapacity>,
}

/// Requests of a pod, as the scheduler counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub cpu_millis: u64,
    pub memory: u64,
    pub disk: u64,
    pub gpus: BTreeMap<Slot, u32>,
}

/// What is asked of the device plugin: whole GPUs, or slices of one MIG profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(Option<String>);

impl Slot {
    pub fn of(mig_profile: Option<&str>) -> Self {
        Self(mig_profile.map(|profile| profile.replace('+', ".")))
    }

    /// Name of the extended resource, as NVIDIA's plugin forms it.
    pub fn resource(&self, gpu_resource: &str) -> String {
        match &self.0 {
            None => gpu_resource.to_owned(),
            Some(profile) => format!("{}{profile}", slices(gpu_resource)),
        }
    }

    fn parse(name: &str, gpu_resource: &str) -> Option<Self> {
        if name == gpu_resource {
            return Some(Self(None));
        }
        name.strip_prefix(&slices(gpu_resource)).map(|profile| Self(Some(profile.to_owned())))
    }
}

/// Prefix of the resources of slices.
fn slices(gpu_resource: &str) -> String {
    let domain = gpu_resource.split_once('/').map_or("nvidia.com", |(domain, _)| domain);
    format!("{domain}/mig-")
}

impl Device {
    pub fn slot(&self) -> Slot {
        Slot::of(self.mig_profile.as_deref())
    }
}

impl NodeCapacity {
    pub fn free_devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.free)
    }

    /// The model that `gpu` would get here. The kubelet picks the devices, so
    /// every free one of the slot has to be what was asked for.
    fn model_for(&self, gpu: &SpecGpu) -> Option<String> {
        let slot = Slot::of(gpu.mig_profile.as_deref());
        let count = usize::try_from(gpu.count).ok()?;
        let free: Vec<&Device> = self.free_devices().filter(|device| device.slot() == slot).collect();
        let enough = free.len() >= count && self.slots.get(&slot).is_some_and(|left| *left >= gpu.count);
        (enough && free.iter().all(|device| suits(device, gpu)))
            .then(|| free.first().map(|device| device.model.clone()))
            .flatten()
    }

    fn place(&self, resources: &SpecResources) -> Option<Placement> {
        let need = reserved(resources);
        let room =
            self.open && self.cpu_millis >= need.cpu_millis && self.memory >= need.memory && self.disk >= need.disk;
        let model = match &resources.gpu {
            None => None,
            Some(gpu) => Some(self.model_for(gpu)?),
        };
        room.then(|| Placement { node: self.name.clone(), model })
    }

    fn take(&mut self, resources: &SpecResources) {
        let need = reserved(resources);
        self.cpu_millis = self.cpu_millis.saturating_sub(need.cpu_millis);
        self.memory = self.memory.saturating_sub(need.memory);
        self.disk = self.disk.saturating_sub(need.disk);
        for (slot, count) in need.gpus {
            self.hold(&slot, count);
            self.slots.entry(slot).and_modify(|left| *left = left.saturating_sub(count));
        }
    }

    fn hold(&mut self, slot: &Slot, count: u32) {
        let free = self.devices.iter_mut().filter(|device| device.free && device.slot() == *slot);
        free.take(count as usize).for_each(|device| device.free = false);
    }

    /// Whether work of this kind could ever run here, whatever runs now.
    fn could_run(&self, resources: &SpecResources) -> bool {
        let Some(gpu) = &resources.gpu else { return true };
        let slot = Slot::of(gpu.mig_profile.as_deref());
        let alike: Vec<&Device> = self.devices.iter().filter(|device| device.slot() == slot).collect();
        alike.len() >= gpu.count as usize && alike.into_iter().all(|device| suits(device, gpu))
    }
}

impl Capacity {
    /// The tightest node that has room for all of it.
    pub fn find(&self, resources: &SpecResources) -> Option<Placement> {
        let fitting = self.nodes.iter().filter_map(|node| Some((node, node.place(resources)?)));
        fitting
            .min_by_key(|(node, _)| (node.free_devices().count(), node.cpu_millis, node.name.clone()))
            .map(|(_, placement)| placement)
    }

    /// Finds room and takes it.
    pub fn take(&mut self, resources: &SpecResources) -> Option<Placement> {
        let placement = self.find(resources)?;
        self.on(&placement.node, |node| node.take(resources));
        Some(placement)
    }

    fn on(&mut self, name: &str, act: impl FnOnce(&mut NodeCapacity)) {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) {
            act(node);
        }
    }

    /// Keeps what was promised out of what is sold; returns the orders whose promise cannot be kept.
    pub fn keep(&mut self, promises: &[Promise]) -> Vec<B256> {
        let mut broken = Vec::new();
        for promise in promises {
            match promise {
                Promise::Devices { node, slot, count } => self.on(node, |node| node.hold(slot, *count)),
                Promise::Anywhere { order, resources } => {
                    if self.take(resources).is_none() {
                        broken.push(*order);
                    }
                }
            }
        }
        broken
    }

    /// Nodes on which such work may be placed again after a loss.
    pub fn could_run(&self, resources: &SpecResources) -> Vec<String> {
        self.nodes.iter().filter(|node| node.could_run(resources)).map(|node| node.name.clone()).collect()
    }

    /// `(free, total)` devices.
    pub fn gpus(&self) -> (usize, usize) {
        let free = self.nodes.iter().filter(|node| node.open).map(|node| node.free_devices().count()).sum();
        (free, self.nodes.iter().map(|node| node.devices.len()).sum())
    }
}

pub fn suits(device: &Device, gpu: &SpecGpu) -> bool {
    let models = gpu.models.is_empty() || gpu.models.iter().any(|pattern| glob(pattern, &device.model));
    models && device.memory >= gpu.memory && device.mig_profile == gpu.mig_profile
}

/// Joins what agents, nodes and pods say. Nodes without a GpuNode of this release are not ours to sell.
pub fn capacity(gpu_nodes: &[GpuNode], nodes: &[Node], pods: &[Pod], release: &str, gpu_resource: &str) -> Capacity {
    let mut used: BTreeMap<&str, Vec<Requests>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !is_over(pod)) {
        if let Some((spec, node)) = pod.spec.as_ref().and_then(|spec| Some((spec, spec.node_name.as_deref()?))) {
            used.entry(node).or_default().push(requests_of(spec, gpu_resource));
        }
    }
    let ours = gpu_nodes.iter().filter(|gpu_node| gpu_node.spec.release.as_str() == release);
    let joined = ours.filter_map(|gpu_node| {
        let name = gpu_node.spec.node_name.as_str();
        let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name))?;
        let used = used.get(name).map_or(&[][..], Vec::as_slice);
        let mut capacity = node_capacity(gpu_node, node, used, gpu_resource);
        capacity.open &= !pods.iter().any(|pod| is_silent_agent(pod, name, release));
        Some(capacity)
    });
    Capacity { nodes: joined.collect() }
}

/// What an agent said before it fell silent says nothing of its devices now.
fn is_silent_agent(pod: &Pod, node: &str, release: &str) -> bool {
    let label = |name: &str| pod.labels().get(name).map(String::as_str);
    // Its other container ends from time to time to try the runtime again.
    let mut containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    label(labels::RELEASE) == Some(release)
        && label("app.kubernetes.io/component") == Some("agent")
        && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
        && !containers.any(|container| container.name == "agent" && container.ready)
}

fn node_capacity(gpu_node: &GpuNode, node: &Node, used: &[Requests], gpu_resource: &str) -> NodeCapacity {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let quantity = |name: &str| allocatable.and_then(|a| units::millis(&a.get(name)?.0)).unwrap_or(0);
    let whole = |name: &str| u64::try_from(quantity(name) / 1000).unwrap_or(u64::MAX);
    let sum = |part: fn(&Requests) -> u64| used.iter().map(part).sum::<u64>();
    let names = allocatable.into_iter().flat_map(BTreeMap::keys);
    let slots = names.filter_map(|name| Some((Slot::parse(name, gpu_resource)?, whole(name))));
    let taken = |slot: &Slot| used.iter().filter_map(|r| r.gpus.get(slot)).map(|n| u64::from(*n)).sum::<u64>();
    let left = |(slot, all): (Slot, u64)| {
        let left = u32::try_from(all.saturating_sub(taken(&slot))).unwrap_or(u32::MAX);
        (slot, left)
    };
    NodeCapacity {
        name: gpu_node.spec.node_name.0.clone(),
        devices: devices(gpu_node),
        slots: slots.map(left).collect(),
        cpu_millis: u64::try_from(quantity("cpu")).unwrap_or(u64::MAX).saturating_sub(sum(|r| r.cpu_millis)),
        memory: whole("memory").saturating_sub(sum(|r| r.memory)),
        disk: whole("ephemeral-storage").saturating_sub(sum(|r| r.disk)),
        open: is_sold(gpu_node) && takes_leases(node),
    }
}

fn devices(gpu_node: &GpuNode) -> Vec<Device> {
    let listed = gpu_node.status.iter().flat_map(|status| &status.devices);
    listed
        .map(|device| Device {
            uuid: device.uuid.clone(),
            model: device.model.clone(),
            memory: device.memory_bytes,
            mig_profile: device.mig_profile.clone(),
            free: device.state == DeviceState::Healthy
                && device.pod.is_none()
                && device.processes == 0
                && device.memory_used_bytes <= IDLE_MEMORY,
        })
        .collect()
}

/// The agent vouches for the node. A sick device does not close the others: each has its own state.
pub fn is_sold(gpu_node: &GpuNode) -> bool {
    let conditions = gpu_node.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let is = |type_, status| find(conditions, type_).is_some_and(|c| c.status == status);
    is(types::SELLABLE, "True") && is(types::ISOLATION_VERIFIED, "True") && !is(types::PLUGIN_READY, "False")
}

/// The node is up, and bears no taint but the one that leases tolerate.
fn takes_leases(node: &Node) -> bool {
    let ready = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = ready.filter(|c| c.type_ == "Ready").any(|c| c.status == "True");
    let spec = node.spec.as_ref();
    let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let mut taints = spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    ready && !cordoned && !taints.any(|taint| taint.key != GPU_TAINT && taint.effect != "PreferNoSchedule")
}

pub fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Sidecars count beside everything that starts after them.
pub fn requests_of(spec: &PodSpec, gpu_resource: &str) -> Requests {
    let mut sidecars = Requests::default();
    let mut peak = Requests::default();
    for init in spec.init_containers.iter().flatten() {
        let own = of_container(init, gpu_resource);
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.plus(own);
            peak = peak.max(sidecars.clone());
        } else {
            peak = peak.max(sidecars.clone().plus(own));
        }
    }
    let main = spec.containers.iter().map(|c| of_container(c, gpu_resource)).fold(sidecars, Requests::plus);
    peak.max(main)
}

impl Requests {
    fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory: self.memory.saturating_add(other.memory),
            disk: self.disk.saturating_add(other.disk),
            gpus: merge(self.gpus, other.gpus, u32::saturating_add),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory: self.memory.max(other.memory),
            disk: self.disk.max(other.disk),
            gpus: merge(self.gpus, other.gpus, u32::max),
        }
    }
}

fn merge(mut into: BTreeMap<Slot, u32>, from: BTreeMap<Slot, u32>, join: fn(u32, u32) -> u32) -> BTreeMap<Slot, u32> {
    for (slot, count) in from {
        into.entry(slot).and_modify(|known| *known = join(*known, count)).or_insert(count);
    }
    into
}

fn of_container(container: &Container, gpu_resource: &str) -> Requests {
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|r| r.requests.as_ref());
    let limits = resources.and_then(|r| r.limits.as_ref());
    let millis = |name: &str| {
        let quantity = requests.and_then(|r| r.get(name)).or_else(|| limits.and_then(|l| l.get(name)));
        quantity.and_then(|q| units::millis(&q.0)).unwrap_or(0)
    };
    let whole = |name: &str| u64::try_from(millis(name).div_ceil(1000)).unwrap_or(u64::MAX);
    let count = |name: &str| u32::try_from(whole(name)).unwrap_or(u32::MAX);
    // Extended resources are limits; the API server copies them to requests.
    let names = requests.into_iter().chain(limits).flat_map(BTreeMap::keys);
    Requests {
        cpu_millis: u64::try_from(millis("cpu")).unwrap_or(u64::MAX),
        memory: whole("memory"),
        disk: whole("ephemeral-storage"),
        gpus: names.filter_map(|name| Some((Slot::parse(name, gpu_resource)?, count(name)))).collect(),
    }
}

#[cfg(test)]
#[path = "tests/inventory.rs"]
mod tests;
