//! `metav1.Condition` as values: types and reasons by name, and one pure
//! function that merges a new condition into a list.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// What a reconciler says about one condition; the list keeps when it last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub type_: &'static str,
    pub status: Status,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    True,
    False,
    Unknown,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl Claim {
    pub fn yes(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status: Status::True, reason, message: message.into() }
    }

    pub fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status: Status::False, reason, message: message.into() }
    }

    pub fn unknown(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status: Status::Unknown, reason, message: message.into() }
    }
}

/// Puts `claim` into `conditions`; the transition time moves only when the status does.
pub fn set(conditions: &mut Vec<Condition>, claim: Claim, generation: Option<i64>, now: Timestamp) {
    let status = claim.status.as_str().to_owned();
    let message: String = claim.message.chars().take(1024).collect();
    match conditions.iter_mut().find(|c| c.type_ == claim.type_) {
        Some(known) => {
            if known.status != status {
                known.last_transition_time = Time(now);
            }
            known.status = status;
            known.reason = claim.reason.to_owned();
            known.message = message;
            known.observed_generation = generation;
        }
        None => conditions.push(Condition {
            type_: claim.type_.to_owned(),
            status,
            reason: claim.reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: Time(now),
        }),
    }
}

pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == "True")
}

/// Condition types (design/cluster.md section 7).
pub mod types {
    pub const VALID: &str = "Valid";
    pub const FUNDED: &str = "Funded";
    pub const LEASED: &str = "Leased";
    pub const RUNNING: &str = "Running";
    pub const RESULT_SUBMITTED: &str = "ResultSubmitted";
    pub const VERIFIED: &str = "Verified";
    pub const SETTLED: &str = "Settled";
    pub const COMPLETE: &str = "Complete";
    pub const FAILED: &str = "Failed";
    pub const SUSPENDED: &str = "Suspended";
    pub const DELETING: &str = "Deleting";
    pub const STALLED: &str = "Stalled";

    pub const CHAIN_HEALTHY: &str = "ChainHealthy";
    pub const NONCE_HEALTHY: &str = "NonceHealthy";
    pub const SIGNER_REACHABLE: &str = "SignerReachable";
    pub const ORDERS_KNOWN: &str = "OrdersKnown";
    pub const READY: &str = "Ready";

    pub const REGISTERED: &str = "Registered";
    pub const BIDDING: &str = "Bidding";
    pub const GATEWAY_REACHABLE: &str = "GatewayReachable";

    pub const HEALTHY: &str = "Healthy";
    pub const PLUGIN_READY: &str = "PluginReady";
    pub const ISOLATION_VERIFIED: &str = "IsolationVerified";
    pub const SELLABLE: &str = "Sellable";

    pub const MANIFEST_RECEIVED: &str = "ManifestReceived";
    pub const CAPACITY_HELD: &str = "CapacityHeld";
    pub const DEVICES_MATCH: &str = "DevicesMatch";
    pub const DELIVERED: &str = "Delivered";
    pub const CLOSED: &str = "Closed";
    pub const CLEANED_UP: &str = "CleanedUp";

    pub const CONFIRMED: &str = "Confirmed";
}
