//! Who pays: ComputeAccount (a chain account) and ComputeBudget (what a namespace may spend of it).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::{Bytes32, EvmAddress, GoDuration, HttpUrl, ObjectName, Text, TokenAmount, conditions_schema};

/// An account on a chain, the market it deals on and the signer that holds its key.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "freehold.dev",
    version = "v1alpha1",
    kind = "ComputeAccount",
    plural = "computeaccounts",
    shortname = "cacct",
    category = "freehold",
    status = "ComputeAccountStatus",
    derive = "PartialEq",
    doc = "ComputeAccount is an account on a chain, the market it deals on and the signer that holds its key.",
    printcolumn = r#"{"name":"Role","type":"string","jsonPath":".spec.role"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.address"}"#,
    printcolumn = r#"{"name":"Balance","type":"string","jsonPath":".status.balance"}"#,
    printcolumn = r#"{"name":"Gas","type":"string","jsonPath":".status.gas"}"#,
    printcolumn = r#"{"name":"Committed","type":"string","jsonPath":".status.committed"}"#,
    printcolumn = r#"{"name":"InFlight","type":"integer","jsonPath":".status.inFlightCount"}"#,
    printcolumn = r#"{"name":"OldestPending","type":"string","jsonPath":".status.oldestPending"}"#,
    printcolumn = r#"{"name":"Head","type":"integer","jsonPath":".status.head"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.chain.chainId == oldSelf.chain.chainId && self.market == oldSelf.market && self.role == oldSelf.role", "chain.chainId, market and role are fixed: create another ComputeAccount"))]
pub struct ComputeAccountSpec {
    /// What the account does on the market.
    pub role: Role,
    /// The chain and how to reach it.
    pub chain: Chain,
    /// The Market contract.
    pub market: EvmAddress,
    /// The ProviderRegistry contract.
    pub provider_registry: EvmAddress,
    /// The ERC-20 token that prices are in.
    pub token: EvmAddress,
    /// The account's address; checked against the signer's key where set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<EvmAddress>,
    /// Who holds the key.
    pub signer_ref: SignerRef,
    /// When a block counts as confirmed.
    #[serde(default)]
    pub confirmations: Confirmations,
    /// Upper limits of what the account may spend in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caps: Option<Caps>,
    /// A provider's earnings lie in the escrow of a running lease for so long at most: then they are settled and
    /// withdrawn, those of several leases in one transaction (default 24h).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle_every: Option<GoDuration>,
    /// Release (`namespace.name`) of the operator that serves the account; others leave it alone.
    pub operator: ObjectName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    Tenant,
    Provider,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.quorum) || self.quorum <= size(self.rpcUrls)", "quorum cannot be more than the number of rpcUrls"))]
pub struct Chain {
    /// Expected chain id (EIP-155); an endpoint of another chain is refused.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub chain_id: u64,
    /// JSON-RPC endpoints in the order of preference: the first that is healthy and in agreement is used.
    #[schemars(length(min = 1, max = 8))]
    pub rpc_urls: Vec<HttpUrl>,
    /// Endpoints that must name the same confirmed block before anything is started, paid or torn down; two, or one
    /// where rpcUrls has one. With two endpoints and a quorum of two, nothing is done while one of them is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8))]
    pub quorum: Option<u32>,
    /// Usual time between two blocks.
    pub block_time: GoDuration,
    /// Windows that the chain's profile recommends.
    #[serde(default)]
    pub windows: Windows,
}

/// Default windows of orders (design: protocol, section 7), and of what is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("duration(self.silence) >= duration('30s')", "silence must be at least 30s: a gateway that restarts is not gone"),
    validation = ("duration(self.orphans) >= duration('30s')", "orphans must be at least 30s: a task that is restored is not lost"),
)]
pub struct Windows {
    /// How long providers may bid.
    pub bids: GoDuration,
    /// How long the chosen provider may take to start.
    pub start: GoDuration,
    /// How long the tenant may look at a result.
    pub review: GoDuration,
    /// A provider whose gateway does not answer for so long is taken for gone: its lease is closed, and the task is
    /// leased elsewhere.
    #[serde(default = "ten_minutes")]
    pub silence: GoDuration,
    /// An order of this cluster that has had no task for so long, as when a finalizer was forced off, is ended.
    #[serde(default = "ten_minutes")]
    pub orphans: GoDuration,
}

fn ten_minutes() -> GoDuration {
    "10m".into()
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            bids: "2m".into(),
            start: "30m".into(),
            review: "24h".into(),
            silence: ten_minutes(),
            orphans: ten_minutes(),
        }
    }
}

/// Where signatures come from. Set exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.secret), has(self.url), has(self.web3signer)].filter(x, x).size() == 1", "set exactly one of secret, url and web3signer"))]
pub struct SignerRef {
    /// Key of a Secret of the operator's namespace that holds a private key as 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretKey>,
    /// A Freehold signer (`freehold signer`), called with a projected token of the operator's service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<HttpUrl>,
    /// A signer of another make that speaks Web3Signer's JSON-RPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web3signer: Option<Web3Signer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Web3Signer {
    /// Its JSON-RPC endpoint (`eth_accounts`, `eth_signTransaction`, `eth_signTypedData`). Where it holds several
    /// accounts, spec.address names the one to use.
    pub url: HttpUrl,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the object.
    pub name: ObjectName,
    /// Key of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Depth at which results, payments and teardown are believed. Set exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!(has(self.blocks) && self.finalized)", "set blocks or finalized, not both"))]
pub struct Confirmations {
    /// Blocks on top of the one that is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub blocks: Option<u32>,
    /// The chain's own `finalized` block.
    #[serde(default)]
    pub finalized: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Caps {
    /// Length of the period.
    pub period: GoDuration,
    /// Whole tokens that new orders, bonds and top-ups may take in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenAmount>,
    /// Fees in the chain's own coin that transactions may cost in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fees: Option<TokenAmount>,
}

/// What the chain says of the account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComputeAccountStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not, with reason and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Address of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<EvmAddress>,
    /// Decimals of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 36))]
    pub decimals: Option<u8>,
    /// Whole tokens in the wallet and free in the Market.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Text>,
    /// The chain's own coin, for fees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gas: Option<Text>,
    /// Whole tokens in unsettled orders and pending goals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Text>,
    /// Nonces that are allocated and not yet confirmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub in_flight: Vec<InFlight>,
    /// Length of inFlight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub in_flight_count: Option<u32>,
    /// Next nonce to allocate; only grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub next_nonce: Option<u64>,
    /// Age of the oldest pending goal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_pending: Option<Text>,
    /// Block that was read last (written only together with something else).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub head: Option<u64>,
}

/// A nonce and the goal it belongs to for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InFlight {
    /// The nonce.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub nonce: u64,
    /// Name of the ChainTransaction.
    pub goal: ObjectName,
    /// Every transaction that was ever signed for the nonce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub hashes: Vec<Bytes32>,
}

/// What a namespace may spend of an account.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "freehold.dev",
    version = "v1alpha1",
    kind = "ComputeBudget",
    plural = "computebudgets",
    shortname = "cbudget",
    category = "freehold",
    namespaced,
    status = "ComputeBudgetStatus",
    derive = "PartialEq",
    doc = "ComputeBudget limits what the tasks of a namespace may spend of a ComputeAccount.",
    printcolumn = r#"{"name":"Account","type":"string","jsonPath":".spec.accountRef.name"}"#,
    printcolumn = r#"{"name":"Limit","type":"string","jsonPath":".spec.limit"}"#,
    printcolumn = r#"{"name":"Committed","type":"string","jsonPath":".status.committed"}"#,
    printcolumn = r#"{"name":"Spent","type":"string","jsonPath":".status.spent"}"#,
    printcolumn = r#"{"name":"Left","type":"string","jsonPath":".status.left"}"#,
    printcolumn = r#"{"name":"Period","type":"string","jsonPath":".spec.period"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.accountRef == oldSelf.accountRef", "accountRef is fixed: create another ComputeBudget"))]
pub struct ComputeBudgetSpec {
    /// The account that pays.
    pub account_ref: AccountRef,
    /// Whole tokens that may be spent in a period, commitments included.
    pub limit: TokenAmount,
    /// Length of the period; spending of older orders no longer counts.
    #[serde(default = "thirty_days")]
    pub period: GoDuration,
    /// Highest `market.budget` of one task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_task: Option<TokenAmount>,
    /// Highest `market.maxRatePerHour` of one task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate_per_hour: Option<TokenAmount>,
    /// Orders that may be open or leased at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent: Option<u32>,
}

fn thirty_days() -> GoDuration {
    "720h".into()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountRef {
    /// Name of the object.
    pub name: ObjectName,
}

/// What of the budget is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComputeBudgetStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not, with reason and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Whole tokens in unsettled orders and pending goals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Text>,
    /// Whole tokens paid in the period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Text>,
    /// Limit less committed and spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Text>,
}
