//! The provider's kinds: ComputeProvider (what is offered, at which price) and GpuNode (what NVML sees).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::{EvmAddress, GoDuration, HttpUrl, ObjectName, Text, TokenAmount, conditions_schema};
use crate::task::string_map_schema;

/// What a provider offers, and on which terms it bids.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "freehold.dev",
    version = "v1alpha1",
    kind = "ComputeProvider",
    plural = "computeproviders",
    shortname = "cprov",
    category = "freehold",
    namespaced,
    status = "ComputeProviderStatus",
    derive = "PartialEq",
    doc = "ComputeProvider says what a provider offers, and on which terms it bids.",
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.address"}"#,
    printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".status.nodes"}"#,
    printcolumn = r#"{"name":"GPUs","type":"string","jsonPath":".status.gpus"}"#,
    printcolumn = r#"{"name":"Leases","type":"integer","jsonPath":".status.leases"}"#,
    printcolumn = r#"{"name":"OpenBids","type":"integer","jsonPath":".status.openBids"}"#,
    printcolumn = r#"{"name":"Earned","type":"string","jsonPath":".status.earned"}"#,
    printcolumn = r#"{"name":"Unclaimed","type":"string","jsonPath":".status.unclaimed"}"#,
    printcolumn = r#"{"name":"Bidding","type":"string","jsonPath":".status.conditions[?(@.type==\"Bidding\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ComputeProviderSpec {
    /// The ComputeAccount (role Provider) that bids and is paid.
    pub account: ObjectName,
    /// The public address of the gateway, as tenants reach it.
    pub gateway_url: HttpUrl,
    /// What is published about the provider, such as region and tier.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "string_map_schema")]
    pub attributes: BTreeMap<String, String>,
    /// What compute costs.
    pub pricing: Pricing,
    /// When to bid.
    #[serde(default)]
    pub bidding: Bidding,
    /// True: no new bids; leases run on.
    #[serde(default)]
    pub cordoned: bool,
}

/// Prices in whole tokens an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pricing {
    /// A GPU hour by product name, `*` for the others.
    #[schemars(schema_with = "price_map_schema")]
    pub gpu: BTreeMap<String, TokenAmount>,
    /// A core hour.
    #[serde(default)]
    pub cpu: Price,
    /// A GiB of memory for an hour.
    #[serde(default)]
    pub memory: Price,
    /// A GiB of disk for an hour.
    #[serde(default)]
    pub disk: Price,
    /// Least rate of a bid, an hour.
    #[serde(default)]
    pub minimum: Price,
    /// CEL expression over `rate` (nano-tokens an hour from the table), `gpus`, `model`, `class`, `duration` (seconds) and `tenant` that yields the rate to bid in nano-tokens an hour, or a negative number for no bid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub expression: Option<String>,
}

/// Whole tokens an hour; zero unless set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Price(pub TokenAmount);

impl Default for Price {
    fn default() -> Self {
        Self("0".into())
    }
}

fn price_map_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string", "maxLength": 22, "pattern": r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?$"
        }
    })
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bidding {
    /// How long a bid, and the capacity behind it, is held (at most 5m).
    #[serde(default = "one_minute")]
    pub validity: GoDuration,
    /// Leases that may run at once.
    #[serde(default = "hundred")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_leases: u32,
    /// Open bids that may hold capacity for one tenant at once.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max_bids_per_tenant: u32,
    /// Highest no-show penalty that is risked for a bid, in whole tokens.
    #[serde(default = "ten")]
    pub max_penalty: TokenAmount,
    /// Highest bond locked for a bid, in whole tokens.
    #[serde(default = "hundred_tokens")]
    pub max_bond: TokenAmount,
}

impl Default for Bidding {
    fn default() -> Self {
        Self {
            validity: one_minute(),
            max_leases: hundred(),
            max_bids_per_tenant: four(),
            max_penalty: ten(),
            max_bond: hundred_tokens(),
        }
    }
}

fn one_minute() -> GoDuration {
    "1m".into()
}
fn hundred() -> u32 {
    100
}
fn four() -> u32 {
    4
}
fn ten() -> TokenAmount {
    "10".into()
}
fn hundred_tokens() -> TokenAmount {
    "100".into()
}

/// What the provider has to offer, and what it earned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComputeProviderStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not, with reason and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Chain account of the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<EvmAddress>,
    /// Nodes with devices to offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub nodes: Option<u32>,
    /// `free/total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Text>,
    /// Leases that are not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub leases: Option<u32>,
    /// Bids that hold capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub open_bids: Option<u32>,
    /// Whole tokens earned by leases known to this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earned: Option<Text>,
    /// Whole tokens free in the Market's ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclaimed: Option<Text>,
}

/// What NVML says about a node's GPUs. Written by the node's agent; its name is the node's.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "freehold.dev",
    version = "v1alpha1",
    kind = "GpuNode",
    plural = "gpunodes",
    shortname = "gpun",
    category = "freehold",
    status = "GpuNodeStatus",
    derive = "PartialEq",
    doc = "GpuNode is what NVML says about the GPUs of the node of the same name.",
    printcolumn = r#"{"name":"Model","type":"string","jsonPath":".status.model"}"#,
    printcolumn = r#"{"name":"GPUs","type":"integer","jsonPath":".status.total"}"#,
    printcolumn = r#"{"name":"Free","type":"integer","jsonPath":".status.free"}"#,
    printcolumn = r#"{"name":"MIG","type":"string","jsonPath":".status.mig"}"#,
    printcolumn = r#"{"name":"Driver","type":"string","jsonPath":".status.driverVersion"}"#,
    printcolumn = r#"{"name":"Health","type":"string","jsonPath":".status.health"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeSpec {
    /// Name of the Node.
    pub node_name: ObjectName,
    /// Release (`namespace.name`) whose agent serves the node.
    pub release: ObjectName,
}

/// What NVML and the kubelet say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not, with reason and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Product name, or `mixed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Text>,
    /// Devices that NVML lists, lost ones included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1024))]
    pub total: Option<u32>,
    /// Healthy devices that no pod holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1024))]
    pub free: Option<u32>,
    /// `off`, or the MIG profiles that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<Text>,
    /// Version of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<Text>,
    /// Highest CUDA version of the driver, such as `13.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_version: Option<Text>,
    /// `ok`, or what is wrong with how many devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Text>,
    /// Every device, lost ones included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub devices: Vec<GpuDevice>,
}

/// A whole GPU, or a MIG slice of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuDevice {
    /// `GPU-…` or `MIG-…`.
    #[schemars(length(max = 96))]
    pub uuid: String,
    /// Number of the device in NVML.
    #[schemars(range(min = 0, max = 1024))]
    pub index: u32,
    /// Product name as NVML gives it.
    #[schemars(length(max = 128))]
    pub model: String,
    /// Bytes of memory.
    #[schemars(range(min = 0, max = 1_000_000_000_000_000_i64))]
    pub memory_bytes: u64,
    /// Bytes in use.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000_000_000_i64))]
    pub memory_used_bytes: u64,
    /// CUDA compute capability, such as `9.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<Text>,
    /// Address on the PCI bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<Text>,
    /// Width and generation, such as `gen5 x16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie: Option<Text>,
    /// Active NVLinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub nv_links: Option<u32>,
    /// Parent of a MIG slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 96))]
    pub mig_parent: Option<String>,
    /// Profile of a MIG slice, such as `1g.10gb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub mig_profile: Option<String>,
    /// Whether ECC memory is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc: Option<bool>,
    /// Uncorrected ECC errors since the driver was loaded.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub uncorrected_ecc_errors: u64,
    /// Newest critical Xid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub xid: Option<u64>,
    /// Whether the device can be used.
    pub state: DeviceState,
    /// Processes that NVML sees on it.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub processes: u32,
    /// GPU utilisation in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub utilization: Option<u32>,
    /// The pod that holds the device, as the kubelet says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeviceState {
    #[default]
    Healthy,
    /// A critical Xid was seen; needs an operator or a reset.
    XidError,
    EccError,
    /// Fell off the bus.
    Lost,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// Namespace of the pod.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the pod.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
}
