//! What an account's owner should know of its nonces.

use super::{Entry, Facts, Ledger, Policy};

/// Something an operator should look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NonceHealth {
    #[default]
    Healthy,
    /// A transaction was sent with the account's key by somebody else.
    Foreign { nonce: u64 },
    /// The lowest nonce has waited for longer than replacing should take.
    Stuck { nonce: u64, goal: String },
    /// The signer will not even fill the lowest nonce; what comes after it waits.
    Refused { nonce: u64, reason: String },
}

/// Whether the account's nonces are what this operator made them.
pub fn nonce_health(ledger: &Ledger, entries: &[Entry], facts: &Facts, policy: &Policy, now: u64) -> NonceHealth {
    if let Some(next) = ledger.next_nonce.filter(|next| facts.nonce_latest > *next) {
        return NonceHealth::Foreign { nonce: next };
    }
    let lowest = ledger.slots.iter().filter(|slot| slot.nonce >= facts.nonce_latest).min_by_key(|slot| slot.nonce);
    let Some(slot) = lowest else { return NonceHealth::Healthy };
    let entry = entries.iter().find(|entry| entry.name == slot.goal);
    if let Some(reason) = entry.filter(|_| slot.hashes.is_empty()).and_then(|entry| entry.refused.clone()) {
        return NonceHealth::Refused { nonce: slot.nonce, reason };
    }
    let since = entry.and_then(|entry| entry.signed_at).unwrap_or(now);
    if now.saturating_sub(since) > policy.replace_after.saturating_mul(4) {
        return NonceHealth::Stuck { nonce: slot.nonce, goal: slot.goal.clone() };
    }
    NonceHealth::Healthy
}
