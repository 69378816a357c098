//! Where a task stands: the status that TrainingTask and InferenceTask share.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::{Bytes32, EvmAddress, Sha256, Text, conditions_schema};
use crate::task::string_map_schema;

/// Where a task stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The last of Pending, Funded, Leased, Running, ResultSubmitted, Verified, Complete, Failed to hold, or Suspended, Deleting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Text>,
    /// Why the task is where it is, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Text>,
    /// What holds and what does not, with reason and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Order of the newest attempt; from its acceptance on also the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Bytes32>,
    /// Number of the newest attempt, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub attempt: Option<u32>,
    /// Chain account of the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<EvmAddress>,
    /// Agreed rate in whole tokens an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_hour: Option<Text>,
    /// What all attempts have cost so far, in whole tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Text>,
    /// When the escrow runs out (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub funded_until: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// `step/steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_text: Option<Text>,
    /// What the states of an exact run can be checked against, as the provider says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<Exact>,
    /// Newest checkpoint in the tenant's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointRef>,
    /// Result files in the tenant's store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub artifacts: Vec<Artifact>,
    /// Final metrics, as the trainer reported them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "string_map_schema")]
    pub metrics: BTreeMap<String, String>,
    /// One entry an order that was placed for the task, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub attempts: Vec<Attempt>,
    /// Runs that failed and count against backoffLimit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub failures: Option<u32>,
    /// When the first order was placed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Text>,
    /// When the task became Complete or Failed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Text>,
}

/// The newest progress line of the trainer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Steps done.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    pub step: u64,
    /// Steps in all.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    pub steps: u64,
    /// Training loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Text>,
    /// Metrics by name, as decimal strings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "string_map_schema")]
    pub metrics: BTreeMap<String, String>,
    /// When the trainer wrote the line (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Text>,
}

/// Roots of a run with precision exact-i8 or exact-wide: the same program, data and seed give the same ones everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exact {
    /// Identity of the integer program that the recipe was compiled to.
    pub program_id: Bytes32,
    /// Root over the rows that are trained and evaluated on.
    pub data_root: Bytes32,
    /// Seed of all that is drawn.
    pub seed: Bytes32,
    /// Root of the state before the first step.
    pub init_root: Bytes32,
    /// Root of the state after the last segment that has ended.
    pub state_root: Bytes32,
    /// Segments that have ended.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub segments: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointRef {
    /// Steps done.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    pub step: u64,
    /// SHA-256 of the bytes.
    pub sha256: Sha256,
    /// Bytes.
    #[schemars(range(min = 0, max = 1_000_000_000_000_000_i64))]
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Path of the file under the outputs.
    #[schemars(length(max = 128))]
    pub name: String,
    /// SHA-256 of the bytes.
    pub sha256: Sha256,
    /// Bytes.
    #[schemars(range(min = 0, max = 1_000_000_000_000_000_i64))]
    pub size: u64,
}

/// What became of one order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Number of the attempt, from 0.
    #[schemars(range(min = 0, max = 10_000))]
    pub number: u32,
    /// The order.
    pub order_id: Bytes32,
    /// Chain account of the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<EvmAddress>,
    /// State of the order on the chain.
    pub state: Text,
    /// Whole tokens paid to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid: Option<Text>,
    /// Whole tokens returned to the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refunded: Option<Text>,
}
