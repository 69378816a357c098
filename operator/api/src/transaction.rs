//! ChainTransaction: a durable outbox entry. It holds a goal, never calldata:
//! what is sent is rebuilt from the goal, the stored order and the chain.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::{Bytes32, EvmAddress, HttpUrl, ObjectName, Text, TokenAmount, conditions_schema};

/// Something that an account wants to be true on the chain.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "freehold.dev",
    version = "v1alpha1",
    kind = "ChainTransaction",
    plural = "chaintransactions",
    shortname = "ctx",
    category = "freehold",
    namespaced,
    status = "ChainTransactionStatus",
    derive = "PartialEq",
    doc = "ChainTransaction is a goal that the operator pursues on the chain until it holds at confirmed depth, or cannot.",
    printcolumn = r#"{"name":"Goal","type":"string","jsonPath":".status.goal"}"#,
    printcolumn = r#"{"name":"Task","type":"string","jsonPath":".metadata.labels.freehold\\.dev/task-name"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Nonce","type":"integer","jsonPath":".status.nonce"}"#,
    printcolumn = r#"{"name":"Hash","type":"string","jsonPath":".status.hash"}"#,
    printcolumn = r#"{"name":"Block","type":"integer","jsonPath":".status.block"}"#,
    printcolumn = r#"{"name":"Fee","type":"string","jsonPath":".status.fee"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self == oldSelf", "a goal is fixed: create another ChainTransaction"))]
pub struct ChainTransactionSpec {
    /// The ComputeAccount that acts.
    pub account: ObjectName,
    /// What is to be reached.
    pub goal: Goal,
}

/// A closed list of what an account may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    /// The Market may draw this many whole tokens from the wallet; `block` is where the need was seen.
    #[serde(rename_all = "camelCase")]
    Approve {
        amount: TokenAmount,
        /// Block at which this was seen.
        #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
        block: u64,
    },
    /// The order that is stored in the named ConfigMap of the release namespace stands on the chain.
    #[serde(rename_all = "camelCase")]
    PlaceOrder { order_id: Bytes32, order: ObjectName },
    /// A provider's bid is accepted, exactly as it stands.
    #[serde(rename_all = "camelCase")]
    AcceptBid {
        order_id: Bytes32,
        provider: EvmAddress,
        /// Price or rate as the bid holds it, in the token's smallest unit (rates: a second, times 10^12).
        #[schemars(length(max = 39), regex(pattern = r"^[0-9]+$"))]
        price: String,
        /// Unix seconds.
        #[schemars(range(min = 0, max = 4_294_967_295_i64))]
        valid_until: u32,
    },
    /// An Open or Awaiting order is cancelled.
    #[serde(rename_all = "camelCase")]
    CancelOrder { order_id: Bytes32 },
    /// A Running lease is closed.
    #[serde(rename_all = "camelCase")]
    CloseOrder { order_id: Bytes32 },
    /// A delivered result is accepted.
    #[serde(rename_all = "camelCase")]
    AcceptResult { order_id: Bytes32, result_hash: Bytes32 },
    /// A delivered result is rejected: the holdback is burned.
    #[serde(rename_all = "camelCase")]
    RejectResult { order_id: Bytes32, result_hash: Bytes32 },
    /// A provider that missed its start window is recorded as such.
    #[serde(rename_all = "camelCase")]
    NoShow { order_id: Bytes32 },
    /// A running lease is funded further: its escrow, as the chain holds it, is raised from `escrow` by `amount`.
    #[serde(rename_all = "camelCase")]
    TopUp {
        order_id: Bytes32,
        /// Whole tokens to add.
        amount: TokenAmount,
        /// What was put in until then, in the token's smallest unit: one need has one goal, and an escrow that was
        /// raised meanwhile is not raised again.
        #[schemars(length(max = 39), regex(pattern = r"^[0-9]+$"))]
        escrow: String,
    },
    /// A bid for an open order stands.
    #[serde(rename_all = "camelCase")]
    Bid {
        order_id: Bytes32,
        /// As in acceptBid.
        #[schemars(length(max = 39), regex(pattern = r"^[0-9]+$"))]
        price: String,
        /// Unix seconds.
        #[schemars(range(min = 0, max = 4_294_967_295_i64))]
        valid_until: u32,
    },
    /// A bid is withdrawn.
    #[serde(rename_all = "camelCase")]
    Unbid { order_id: Bytes32 },
    /// The bond of a bid that lost returns to the ledger.
    #[serde(rename_all = "camelCase")]
    Reclaim { order_id: Bytes32 },
    /// A lease has started: its inputs are held and valid.
    #[serde(rename_all = "camelCase")]
    Start { order_id: Bytes32 },
    /// A lease is declined before it starts.
    #[serde(rename_all = "camelCase")]
    Decline { order_id: Bytes32 },
    /// A result is delivered.
    #[serde(rename_all = "camelCase")]
    Deliver { order_id: Bytes32, result_hash: Bytes32 },
    /// What accrued up to now is moved to the provider's ledger.
    #[serde(rename_all = "camelCase")]
    Settle { order_id: Bytes32 },
    /// Everything free in the Market's ledger at `block` is in the wallet, with what has accrued on the named leases:
    /// one transaction settles those that are still to be settled, and withdraws.
    #[serde(rename_all = "camelCase")]
    Withdraw {
        /// Whole tokens that were free, or to be settled.
        amount: TokenAmount,
        /// Block at which this was seen.
        #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
        block: u64,
        /// Leases to settle on the way.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 16))]
        orders: Vec<Bytes32>,
    },
    /// The ProviderRegistry says who the provider is.
    #[serde(rename_all = "camelCase")]
    Register {
        gateway: HttpUrl,
        /// RFC 8785 JSON object of attributes.
        #[schemars(length(max = 1024))]
        attributes: String,
    },
    /// Fills a nonce that would otherwise stay open: a transfer of nothing to the account itself.
    #[serde(rename_all = "camelCase")]
    Void {
        /// The nonce to fill.
        #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
        nonce: u64,
    },
}

/// How far the goal has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChainTransactionStatus {
    /// What holds and what does not, with reason and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Name of the goal, for the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Text>,
    /// How far the goal has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TransactionState>,
    /// The nonce that belongs to the goal for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub nonce: Option<u64>,
    /// The transaction that was mined, or the newest that was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Bytes32>,
    /// Every transaction that was signed for the nonce; stored before the broadcast.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub hashes: Vec<Bytes32>,
    /// Highest fee a unit of gas that was offered, in wei.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub max_fee_per_gas: Option<u64>,
    /// Leases that the transaction settles on the way to a withdrawal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub settles: Vec<Bytes32>,
    /// Block of the transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub block: Option<u64>,
    /// Gas of the transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub gas_used: Option<u64>,
    /// What the transaction cost, in the chain's own coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee: Option<Text>,
    /// When the newest signature was broadcast (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Text>,
    /// Transactions of the goal that reverted or lost their nonce, so that it was tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub reverts: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransactionState {
    /// No nonce yet.
    Pending,
    /// Nonce and hash are stored; the broadcast may have happened.
    Submitted,
    /// In a block that is not yet confirmed.
    Mined,
    /// At confirmed depth; the goal is reached.
    Confirmed,
    /// The goal was already true, or no longer makes sense; nothing was sent.
    Obsolete,
    /// Cannot be reached.
    Failed,
}

impl TransactionState {
    /// Nothing more will be done for the goal.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Obsolete | Self::Failed)
    }
}

impl Goal {
    /// Leases that one withdrawal settles at most: its gas stays far below a block's.
    pub const MOST_ORDERS: usize = 16;

    /// The name of every variant.
    pub const NAMES: [&str; 19] = [
        "approve",
        "placeOrder",
        "acceptBid",
        "cancelOrder",
        "closeOrder",
        "acceptResult",
        "rejectResult",
        "noShow",
        "topUp",
        "bid",
        "unbid",
        "reclaim",
        "start",
        "decline",
        "deliver",
        "settle",
        "withdraw",
        "register",
        "void",
    ];

    /// Lower-camel name of the variant, as in the manifest.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approve { .. } => "approve",
            Self::PlaceOrder { .. } => "placeOrder",
            Self::AcceptBid { .. } => "acceptBid",
            Self::CancelOrder { .. } => "cancelOrder",
            Self::CloseOrder { .. } => "closeOrder",
            Self::AcceptResult { .. } => "acceptResult",
            Self::RejectResult { .. } => "rejectResult",
            Self::NoShow { .. } => "noShow",
            Self::TopUp { .. } => "topUp",
            Self::Bid { .. } => "bid",
            Self::Unbid { .. } => "unbid",
            Self::Reclaim { .. } => "reclaim",
            Self::Start { .. } => "start",
            Self::Decline { .. } => "decline",
            Self::Deliver { .. } => "deliver",
            Self::Settle { .. } => "settle",
            Self::Withdraw { .. } => "withdraw",
            Self::Register { .. } => "register",
            Self::Void { .. } => "void",
        }
    }

    /// The order that the goal is about.
    pub fn order_id(&self) -> Option<&Bytes32> {
        match self {
            Self::PlaceOrder { order_id, .. }
            | Self::AcceptBid { order_id, .. }
            | Self::CancelOrder { order_id }
            | Self::CloseOrder { order_id }
            | Self::AcceptResult { order_id, .. }
            | Self::RejectResult { order_id, .. }
            | Self::NoShow { order_id }
            | Self::TopUp { order_id, .. }
            | Self::Bid { order_id, .. }
            | Self::Unbid { order_id }
            | Self::Reclaim { order_id }
            | Self::Start { order_id }
            | Self::Decline { order_id }
            | Self::Deliver { order_id, .. }
            | Self::Settle { order_id } => Some(order_id),
            Self::Approve { .. } | Self::Withdraw { .. } | Self::Register { .. } | Self::Void { .. } => None,
        }
    }
}
