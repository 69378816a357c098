//! What was signed, as far as the policy's periods reach back.

use std::collections::BTreeMap;

use alloy::primitives::B256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::policy::Decision;

/// Longest period that a policy may have, and how long anything is remembered.
pub const MEMORY: u64 = 31 * 86_400;

/// What counts once under its key: of several amounts the highest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    pub key: String,
    /// In the smallest unit.
    #[serde(serialize_with = "to_text", deserialize_with = "of_text")]
    pub amount: u128,
}

// As text: readers of JSON lose the digits of large numbers.
fn to_text<S: Serializer>(amount: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(amount)
}

fn of_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Sums of one kind of money.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<String, Counted>);

#[derive(Clone, Copy, Debug)]
struct Counted {
    amount: u128,
    /// When it was signed last.
    at: u64,
}

impl Ledger {
    /// What was signed after `since`, and this charge.
    pub fn sum_with(&self, charge: &Charge, since: u64) -> u128 {
        let others = self.0.iter().filter(|(key, counted)| **key != charge.key && counted.at > since);
        others.fold(self.highest(charge), |sum, (_, counted)| sum.saturating_add(counted.amount))
    }

    fn highest(&self, charge: &Charge) -> u128 {
        self.0.get(&charge.key).map_or(0, |counted| counted.amount).max(charge.amount)
    }

    fn record(&mut self, charge: &Charge, at: u64) {
        let amount = self.highest(charge);
        let at = self.0.get(&charge.key).map_or(0, |counted| counted.at).max(at);
        self.0.insert(charge.key.clone(), Counted { amount, at });
    }

    fn forget(&mut self, before: u64) {
        self.0.retain(|_, counted| counted.at > before);
    }
}

#[derive(Clone, Debug, Default)]
pub struct State {
    pub tokens: Ledger,
    pub fees: Ledger,
    /// What was signed, and when first.
    signed: BTreeMap<B256, u64>,
}

impl State {
    /// Counts what is signed at `at`.
    pub fn record(&mut self, decision: &Decision, at: u64) {
        if let Some(spend) = &decision.spend {
            self.tokens.record(spend, at);
        }
        if let Some(fee) = &decision.fee {
            self.fees.record(fee, at);
        }
        self.signed.entry(decision.hash).or_insert(at);
        let before = at.saturating_sub(MEMORY);
        self.tokens.forget(before);
        self.fees.forget(before);
        self.signed.retain(|_, first| *first > before);
    }

    /// The very same was signed before.
    pub fn knows(&self, hash: &B256) -> bool {
        self.signed.contains_key(hash)
    }

    /// Signatures made after `since`.
    pub fn signed_since(&self, since: u64) -> u32 {
        u32::try_from(self.signed.values().filter(|first| **first > since).count()).unwrap_or(u32::MAX)
    }
}
