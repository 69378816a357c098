//! The policy as its file says it, and as the rules need it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use alloy::primitives::Address;
use freehold_api::Goal;
use freehold_core::money::{self, Amount};
use freehold_core::units::seconds;
use serde::Deserialize;

use crate::state::MEMORY;

/// An approval may name so many times what a period may spend, unless the policy says otherwise: the
/// Market draws on an approval only by calls that are judged for themselves.
const HEADROOM: u128 = 16;
/// Decimals of the chain's own coin.
const COIN_DECIMALS: u8 = 18;

/// What may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub chain_id: u64,
    pub market: Address,
    pub registry: Address,
    pub token: Address,
    pub decimals: u8,
    /// Names of goals.
    pub goals: BTreeSet<String>,
    /// Hosts that tokens may be made for, and that a provider may register as its own.
    pub gateways: Vec<String>,
    /// Seconds.
    pub period: u64,
    /// Tokens that orders, bonds and top-ups may take in a period.
    pub tokens: Amount,
    /// Wei that transactions may cost in a period.
    pub fees: Amount,
    /// The highest approval.
    pub allowance: Amount,
    /// Signatures a minute.
    pub rate: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the policy at {path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the policy is not valid YAML or JSON: {0}")]
    Syntax(#[from] serde_saphyr::Error),
    #[error("the policy's {field} `{value}` is not {expected}")]
    Field { field: &'static str, value: String, expected: String },
    #[error("the policy's {field}: {source}")]
    Amount { field: &'static str, source: money::Error },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    chain_id: u64,
    market: String,
    provider_registry: String,
    token: Token,
    goals: Vec<String>,
    #[serde(default)]
    gateways: Vec<String>,
    period: String,
    tokens: String,
    fees: String,
    #[serde(default)]
    allowance: Option<String>,
    signatures_per_minute: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Token {
    address: String,
    decimals: u8,
}

impl Policy {
    /// Read anew for each request, so that a changed ConfigMap counts from the next one on.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = serde_saphyr::from_str(text)?;
        if file.token.decimals > 36 {
            return Err(wrong("token.decimals", &file.token.decimals.to_string(), "at most 36"));
        }
        if let Some(unknown) = file.goals.iter().find(|goal| !Goal::NAMES.contains(&goal.as_str())) {
            return Err(wrong("goals", unknown, &format!("one of {}", Goal::NAMES.join(", "))));
        }
        let period = seconds(&file.period)
            .filter(|period| (1..=MEMORY).contains(period))
            .ok_or_else(|| wrong("period", &file.period, "a duration such as 24h, at most 744h"))?;
        let amount = |field, text: &str, decimals| {
            Amount::parse(text, decimals).map_err(|source| Error::Amount { field, source })
        };
        let tokens = amount("tokens", &file.tokens, file.token.decimals)?;
        let allowance = match &file.allowance {
            Some(text) => amount("allowance", text, file.token.decimals)?,
            None => Amount(tokens.0.saturating_mul(HEADROOM)),
        };
        Ok(Self {
            chain_id: file.chain_id,
            market: address("market", &file.market)?,
            registry: address("providerRegistry", &file.provider_registry)?,
            token: address("token.address", &file.token.address)?,
            decimals: file.token.decimals,
            goals: file.goals.into_iter().collect(),
            gateways: file.gateways,
            period,
            tokens,
            fees: amount("fees", &file.fees, COIN_DECIMALS)?,
            allowance,
            rate: file.signatures_per_minute,
        })
    }
}

fn address(field: &'static str, text: &str) -> Result<Address, Error> {
    text.parse().map_err(|_| wrong(field, text, "0x and 40 hexadecimal digits"))
}

fn wrong(field: &'static str, value: &str, expected: &str) -> Error {
    Error::Field { field, value: value.to_owned(), expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
chainId: 31337
market: "0x0000000000000000000000000000000000000001"
providerRegistry: "0x0000000000000000000000000000000000000002"
token: { address: "0x0000000000000000000000000000000000000003", decimals: 6 }
goals: [approve, placeOrder, void]
gateways: ["*"]
period: 24h
tokens: "2.5"
fees: "0.1"
signaturesPerMinute: 60
"#;

    #[test]
    fn a_file_becomes_a_policy() {
        let policy = Policy::parse(FILE).expect("policy");
        assert_eq!((policy.period, policy.tokens, policy.decimals), (86_400, Amount(2_500_000), 6));
        assert_eq!((policy.fees, policy.allowance), (Amount(10u128.pow(17)), Amount(40_000_000)));
        let json = serde_json::json!({
            "chainId": 1, "market": policy.market, "providerRegistry": policy.registry,
            "token": { "address": policy.token, "decimals": 18 }, "goals": [], "period": "1h",
            "tokens": "1", "fees": "1", "allowance": "3", "signaturesPerMinute": 1,
        });
        let policy = Policy::parse(&json.to_string()).expect("JSON is YAML");
        assert!(policy.gateways.is_empty(), "no gateway is allowed unless it is named");
        assert_eq!(policy.allowance, Amount(3 * 10u128.pow(18)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, named) in [
            ("0x0000000000000000000000000000000000000001", "0x12", "market"),
            ("[approve, placeOrder, void]", "[aprove]", "aprove"),
            ("period: 24h", "period: 800h", "period"),
            ("\"2.5\"", "\"2.5000001\"", "tokens"),
            ("signaturesPerMinute", "signatureRate", "signatureRate"),
            ("decimals: 6", "decimals: 77", "decimals"),
        ] {
            assert!(FILE.contains(from));
            let error = Policy::parse(&FILE.replace(from, to)).expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
