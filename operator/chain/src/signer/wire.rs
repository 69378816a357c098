//! What an operator and a Freehold signer say to one another (JSON over HTTP, a projected
//! service-account token as bearer):
//!
//! - `GET  /v1/address`        [`Account`]
//! - `POST /v1/transactions`   [`SignTransaction`] → [`SignatureOf`]
//! - `POST /v1/checks`         [`Check`] → [`Checked`]; signs and counts nothing
//! - `POST /v1/access`         [`SignAccess`] → [`SignatureOf`]
//!
//! A refusal is a 403 with a problem document ([`Refused`]) that names the rule.

use std::fmt;

use alloy::consensus::TxEip1559;
use alloy::primitives::{Address, Bytes};
use freehold_api::Goal;
use freehold_core::access::Claims;
use freehold_core::wire::Problem;
use serde::{Deserialize, Serialize};

/// Audience of the operator's token.
pub const AUDIENCE: &str = "freehold-signer";
/// Transactions that one [`Check`] may ask about.
pub const MAX_CHECKS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub address: Address,
}

/// A transaction and what it is for. The signer decodes it and holds it against the goal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignTransaction {
    pub goal: Goal,
    pub transaction: TxEip1559,
}

/// Transactions that are to be signed one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    pub transactions: Vec<SignTransaction>,
}

/// One entry a transaction, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub refusals: Vec<Option<Refusal>>,
}

/// A token for a provider's gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SignAccess {
    pub claims: Claims,
    pub chain_id: u64,
    pub market: Address,
}

/// r ‖ s ‖ v. The asker puts it to what it asked for: bytes of a whole transaction never travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureOf {
    pub signature: Bytes,
}

/// Which rule of the policy a request breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub rule: String,
    /// What was asked.
    pub value: String,
    /// What the policy allows.
    pub limit: String,
}

/// Longest text of a refusal: what was asked may be long, and each refusal is a line of the journal.
const LONGEST: usize = 512;

impl Refusal {
    pub fn new(rule: &str, value: impl fmt::Display, limit: impl fmt::Display) -> Self {
        let short = |text: String| if text.len() > LONGEST { text.chars().take(LONGEST).collect() } else { text };
        Self { rule: short(rule.to_owned()), value: short(value.to_string()), limit: short(limit.to_string()) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}; allowed: {}", self.rule, self.value, self.limit)
    }
}

/// The problem document of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    #[serde(flatten)]
    pub problem: Problem,
    #[serde(flatten)]
    pub refusal: Refusal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_short_whatever_was_asked() {
        let refusal = Refusal::new("calldata", "9".repeat(1 << 20), "x".repeat(1 << 20));
        assert_eq!((refusal.value.len(), refusal.limit.len()), (LONGEST, LONGEST));
        assert_eq!(Refusal::new("spend", 5, 4), Refusal { rule: "spend".into(), value: "5".into(), limit: "4".into() });
    }
}
