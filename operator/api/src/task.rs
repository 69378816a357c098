//! The tenant's kinds: TrainingTask and InferenceTask.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::recipe::{ArtifactRef, Recipe};
use crate::scalars::{
    EvmAddress, GoDuration, HttpUrl, ImageByDigest, ObjectName, Percent, Quantity, Sha256, TokenAmount,
};
pub use crate::task_status::{Artifact, Attempt, CheckpointRef, Exact, Progress, TaskStatus};

/// Trains a model on leased GPUs; ends with a checkpoint, metrics, a verdict and a settled lease.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "freehold.dev",
    version = "v1alpha1",
    kind = "TrainingTask",
    plural = "trainingtasks",
    shortname = "tt",
    category = "freehold",
    namespaced,
    status = "TaskStatus",
    derive = "PartialEq",
    doc = "TrainingTask trains a model on leased GPUs and ends with a checkpoint, metrics, a verdict and a settled lease.",
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Progress","type":"string","jsonPath":".status.progressText"}"#,
    printcolumn = r#"{"name":"Provider","type":"string","jsonPath":".status.provider"}"#,
    printcolumn = r#"{"name":"Rate/h","type":"string","jsonPath":".status.ratePerHour"}"#,
    printcolumn = r#"{"name":"Spent","type":"string","jsonPath":".status.spent"}"#,
    printcolumn = r#"{"name":"Budget","type":"string","jsonPath":".spec.market.budget"}"#,
    printcolumn = r#"{"name":"FundedUntil","type":"string","jsonPath":".status.fundedUntil"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Order","type":"string","jsonPath":".status.orderId","priority":1}"#,
    printcolumn = r#"{"name":"Attempt","type":"integer","jsonPath":".status.attempt","priority":1}"#,
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.verification.class","priority":1}"#,
    printcolumn = r#"{"name":"Account","type":"string","jsonPath":".spec.market.account","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#,
    // An account that changes while an order is on its way would leave that order to nobody.
    validation = Rule::new("self.spec.market.account == oldSelf.spec.market.account").message("market.account is fixed: delete the task and create another"),
    validation = Rule::new("has(self.spec.trainer.image) || !has(self.spec.resources.gpu) || self.spec.resources.gpu.count <= 1").message("resources.gpu.count: the built-in trainer uses one GPU; set 1, or bring an image of your own"),
    validation = Rule::new("!has(self.status) || !has(self.status.orderId) || (self.spec.trainer == oldSelf.spec.trainer && self.spec.dataset == oldSelf.spec.dataset && self.spec.resources == oldSelf.spec.resources && self.spec.verification == oldSelf.spec.verification)").message("trainer, dataset, resources and verification are fixed once an order is placed: delete the task and create another")
)]
#[serde(rename_all = "camelCase")]
pub struct TrainingTaskSpec {
    /// What is trained: a built-in recipe, or your own image.
    pub trainer: Trainer,
    /// The training data.
    pub dataset: Source,
    /// What the provider must hold free for the task.
    pub resources: Resources,
    /// Who pays, and how much at most.
    pub market: MarketSpec,
    /// How the result is checked.
    #[serde(default)]
    pub verification: Verification,
    /// Longest life of the task, all attempts together.
    pub active_deadline: GoDuration,
    /// Failed runs before the task fails (a crash counts, an interruption does not).
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: u32,
    /// Places no order while true; a running lease is checkpointed and closed.
    #[serde(default)]
    pub suspend: bool,
    /// The finished task is deleted after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<GoDuration>,
    /// What deleting a running task does.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The isolation that the tenant asks for.
    #[serde(default)]
    pub isolation: Isolation,
}

/// Runs a model over a batch of rows on leased GPUs.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "freehold.dev",
    version = "v1alpha1",
    kind = "InferenceTask",
    plural = "inferencetasks",
    shortname = "it",
    category = "freehold",
    namespaced,
    status = "TaskStatus",
    derive = "PartialEq",
    doc = "InferenceTask runs a model over a batch of rows on leased GPUs and ends with the predictions in the tenant's store and a settled lease.",
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Progress","type":"string","jsonPath":".status.progressText"}"#,
    printcolumn = r#"{"name":"Provider","type":"string","jsonPath":".status.provider"}"#,
    printcolumn = r#"{"name":"Rate/h","type":"string","jsonPath":".status.ratePerHour"}"#,
    printcolumn = r#"{"name":"Spent","type":"string","jsonPath":".status.spent"}"#,
    printcolumn = r#"{"name":"Budget","type":"string","jsonPath":".spec.market.budget"}"#,
    printcolumn = r#"{"name":"FundedUntil","type":"string","jsonPath":".status.fundedUntil"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Order","type":"string","jsonPath":".status.orderId","priority":1}"#,
    printcolumn = r#"{"name":"Attempt","type":"integer","jsonPath":".status.attempt","priority":1}"#,
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.verification.class","priority":1}"#,
    printcolumn = r#"{"name":"Account","type":"string","jsonPath":".spec.market.account","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#,
    // An account that changes while an order is on its way would leave that order to nobody.
    validation = Rule::new("self.spec.market.account == oldSelf.spec.market.account").message("market.account is fixed: delete the task and create another"),
    validation = Rule::new("has(self.spec.image) || !has(self.spec.resources.gpu) || self.spec.resources.gpu.count <= 1").message("resources.gpu.count: the built-in trainer uses one GPU; set 1, or bring an image of your own"),
    validation = Rule::new("!has(self.status) || !has(self.status.orderId) || (self.spec.model == oldSelf.spec.model && self.spec.input == oldSelf.spec.input && self.spec.output == oldSelf.spec.output && self.spec.resources == oldSelf.spec.resources && self.spec.verification == oldSelf.spec.verification)").message("model, input, output, resources and verification are fixed once an order is placed: delete the task and create another")
)]
#[serde(rename_all = "camelCase")]
pub struct InferenceTaskSpec {
    /// The model to run.
    pub model: ModelSource,
    /// The rows to run it on.
    pub input: Source,
    /// The form of the predictions.
    #[serde(default)]
    pub output: Output,
    /// Your own image instead of the built-in `freehold-trainer infer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageByDigest>,
    /// Arguments of your own image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub args: Vec<String>,
    /// What the provider must hold free for the task.
    pub resources: Resources,
    /// Who pays, and how much at most.
    pub market: MarketSpec,
    /// How the result is checked.
    #[serde(default)]
    pub verification: Verification,
    /// Longest life of the task, all attempts together.
    pub active_deadline: GoDuration,
    /// Failed runs before the task fails (a crash counts, an interruption does not).
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: u32,
    /// Places no order while true; a running lease is closed.
    #[serde(default)]
    pub suspend: bool,
    /// The finished task is deleted after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<GoDuration>,
    /// What deleting a running task does.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The isolation that the tenant asks for.
    #[serde(default)]
    pub isolation: Isolation,
}

fn three() -> u32 {
    3
}

/// A built-in recipe, or an image that follows the container contract. Set exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.recipe) != has(self.image)", "set exactly one of recipe and image"))]
#[x_kube(validation = ("!has(self.args) || has(self.image)", "args belong to image: a recipe takes none"))]
pub struct Trainer {
    /// A recipe for the built-in trainer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    /// Your own image, by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageByDigest>,
    /// Arguments of your own image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub args: Vec<String>,
}

/// Bytes from somewhere. Set exactly one of uri, configMapRef and artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.uri), has(self.configMapRef), has(self.artifact)].filter(x, x).size() == 1", "set exactly one of uri, configMapRef and artifact"))]
#[x_kube(validation = ("!has(self.uri) || has(self.sha256)", "uri needs sha256: the digest of the bytes behind it"))]
pub struct Source {
    /// Fetched by the provider's gateway, over https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<HttpUrl>,
    /// SHA-256 of the bytes; required with uri, checked with configMapRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// A key of a ConfigMap of the task's namespace; uploaded by the tenant's operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKey>,
    /// An artifact of the tenant's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactRef>,
    /// Name of the file, which tells its format (`digits.csv.gz`); default: the last part of uri or key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub file_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of the ConfigMap.
    pub name: ObjectName,
    /// Key of the ConfigMap whose bytes are taken.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A model: of a finished task, or from the tenant's store. Set exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.taskRef) != has(self.artifact)", "set exactly one of taskRef and artifact"))]
pub struct ModelSource {
    /// A TrainingTask of the same namespace; its model is taken once it is Complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_ref: Option<ObjectName>,
    /// A model in the tenant's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// File format of the predictions.
    #[serde(default)]
    pub format: OutputFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OutputFormat {
    #[default]
    Csv,
    Npy,
    Jsonl,
}

/// What a lease holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// GPUs; absent: a task without GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// CPU cores, such as `2` or `500m`.
    pub cpu: Quantity,
    /// Memory, such as `4Gi`.
    pub memory: Quantity,
    /// Scratch disk, such as `10Gi`.
    pub disk: Quantity,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Devices, all of one node.
    #[schemars(range(min = 1, max = 16))]
    pub count: u32,
    /// Product names that will do, with `*` as a wildcard; `["*"]` takes any.
    #[serde(default = "any_model")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 64)))]
    pub models: Vec<String>,
    /// Least memory of each device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// A MIG profile such as `1g.10gb` instead of whole devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[1-9]g\.[0-9]+gb(\+me)?$"))]
    pub mig_profile: Option<String>,
}

fn any_model() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Price limits and the choice of providers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.maxRatePerHour)", "class none is paid by time: set maxRatePerHour"))]
pub struct MarketSpec {
    /// The ComputeAccount that pays; needs a ComputeBudget in the namespace and the right `spend`.
    pub account: ObjectName,
    /// Highest accepted rate, in whole tokens an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate_per_hour: Option<TokenAmount>,
    /// What all attempts together may cost, in whole tokens.
    pub budget: TokenAmount,
    /// Funds the lease in slices of time as the work goes on, within the budget. Absent: an order holds all that it may
    /// cost from the start, and nothing is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_up: Option<TopUp>,
    /// Which providers may be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub providers: Option<ProviderFilter>,
    /// Share of the price held back until the result is accepted (default 20%).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdback: Option<Percent>,
    /// How long providers may bid (default: the chain profile's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bid_window: Option<GoDuration>,
    /// How long the chosen provider may take to start (default: the chain profile's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_window: Option<GoDuration>,
    /// How long the tenant may look at the result (default: the chain profile's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review_window: Option<GoDuration>,
}

/// How a lease is funded while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("duration(self.slice) >= duration('5m')", "slice: at least 5m, so that a top-up finds its block before the escrow ends"))]
pub struct TopUp {
    /// The order holds what so much time costs at maxRatePerHour; shortly before the escrow ends it is raised by
    /// another slice, or by less where the work's progress says that less will do.
    pub slice: GoDuration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderFilter {
    /// Attributes that a provider must publish, with `*` as a wildcard in the value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "string_map_schema")]
    pub attributes: BTreeMap<String, String>,
    /// Auditors whose attestation of the provider's attributes is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audited_by: Option<AuditedBy>,
    /// Only these provider accounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub addresses: Vec<EvmAddress>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditedBy {
    /// One of these suffices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub any_of: Vec<EvmAddress>,
    /// All of these are needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub all_of: Vec<EvmAddress>,
}

/// A bounded map of short strings.
pub fn string_map_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 256 }
    })
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// `none`: paid by time, the tenant looks at the result.
    #[serde(default)]
    pub class: Class,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    #[default]
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Checkpoint within 60 s, close the lease, then go.
    #[default]
    Checkpoint,
    /// Let the lease run to its end first.
    Finish,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// Accepts a container that shares the node's kernel with others (runc).
    #[serde(default)]
    pub accept_shared_kernel: bool,
    /// RuntimeClass asked for, such as `gvisor` or `kata`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<ObjectName>,
}
