//! ComputeLease: the provider's side of one lease.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::{Bytes32, EvmAddress, ObjectName, Sha256, Text, conditions_schema};
use crate::task::{CheckpointRef, Progress};

/// The provider's side of one lease. Made by the operator when an order is accepted.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "freehold.dev",
    version = "v1alpha1",
    kind = "ComputeLease",
    plural = "computeleases",
    shortname = "clease",
    category = "freehold",
    namespaced,
    status = "ComputeLeaseStatus",
    derive = "PartialEq",
    doc = "ComputeLease is the provider's side of one lease: made when an order is accepted, gone after it is settled.",
    printcolumn = r#"{"name":"Order","type":"string","jsonPath":".spec.orderId"}"#,
    printcolumn = r#"{"name":"Tenant","type":"string","jsonPath":".spec.tenant"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.node"}"#,
    printcolumn = r#"{"name":"GPU","type":"string","jsonPath":".status.gpu"}"#,
    printcolumn = r#"{"name":"Rate/h","type":"string","jsonPath":".status.ratePerHour"}"#,
    printcolumn = r#"{"name":"Accrued","type":"string","jsonPath":".status.accrued"}"#,
    printcolumn = r#"{"name":"FundedUntil","type":"string","jsonPath":".status.fundedUntil"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self == oldSelf", "a lease's terms are fixed by the chain"))]
pub struct ComputeLeaseSpec {
    /// The order, which is also the lease.
    pub order_id: Bytes32,
    /// The tenant's chain account: the only one whose signed calls the gateway takes for this lease.
    pub tenant: EvmAddress,
    /// The ComputeProvider of the same namespace that bid.
    pub provider: ObjectName,
    /// The provider's chain account.
    pub provider_address: EvmAddress,
    /// Chain of the lease (EIP-155).
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub chain_id: u64,
    /// The Market contract of the lease.
    pub market: EvmAddress,
    /// Rate as the chain holds it: smallest units a second, times 10^12.
    #[schemars(length(max = 39), regex(pattern = r"^[0-9]+$"))]
    pub rate: String,
    /// The order's spec bytes, as on the chain (RFC 8785 JSON).
    #[schemars(length(max = 1024))]
    pub spec: String,
    /// Digest of the manifest that the tenant must hand over.
    pub manifest_sha256: Sha256,
    /// Inputs that the tenant must hand over, or that the gateway fetches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub inputs: Vec<LeaseInput>,
    /// Namespace of the work.
    pub namespace: ObjectName,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseInput {
    /// Name of the input, as in the manifest.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9][a-z0-9-]*$"))]
    pub name: String,
    /// SHA-256 of the bytes.
    pub sha256: Sha256,
    /// Bytes; 0 where the tenant does not know.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000_000_000_i64))]
    pub size: u64,
}

/// How the lease goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComputeLeaseStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not, with reason and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Where the lease stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<LeasePhase>,
    /// Node of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Text>,
    /// UUIDs of the devices that the kubelet gave to the trainer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 96)))]
    pub gpus: Vec<String>,
    /// The same, for the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Text>,
    /// Whole tokens an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_hour: Option<Text>,
    /// Whole tokens accrued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accrued: Option<Text>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub funded_until: Option<Text>,
    /// Newest progress of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Newest checkpoint in the gateway's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointRef>,
    /// SHA-256 of `result.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_sha256: Option<Sha256>,
    /// How the trainer ended, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Times that the work was lost on the provider's side (its namespace or Job deleted by force) and made again: a
    /// fault of the provider, which counts against no limit of the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub rebuilds: Option<u32>,
    /// Notes for the tenant, by condition type (served by the gateway).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::task::string_map_schema")]
    pub notes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Exit code of the trainer; -1 where there is none.
    #[schemars(range(min = -1, max = 255))]
    pub code: i32,
    /// As conditions name it: BadUsage, BadData, DiskExceeded, OutOfMemory, DeviceLost, Crashed.
    pub reason: Text,
    /// What the trainer said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Text>,
    /// Failed runs on this lease so far.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub failures: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LeasePhase {
    /// Waits for manifest and inputs.
    #[default]
    AwaitingInputs,
    /// The pod is being placed, and inputs fetched into it.
    Starting,
    Running,
    /// The work ended; its outputs are in the store.
    Finished,
    /// The result hash is on the chain.
    Delivered,
    /// The work cannot go on here.
    Failed,
    /// The chain says that the lease is over.
    Closed,
}
