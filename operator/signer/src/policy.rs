//! What the signer signs, as a pure function of its policy, of what it signed before, of the
//! request and of the time. It believes nothing of the operator's: what a transaction does is
//! read from its bytes ([`crate::calls`]).

use alloy::consensus::{SignableTransaction, TxEip1559};
use alloy::primitives::{Address, B256, keccak256};
use freehold_api::Goal;
use freehold_chain::signer::wire::{Refusal, SignAccess, SignTransaction};
use freehold_core::access::{self, Scope};
use freehold_core::money::Amount;
use freehold_core::units::go_duration;
use serde::{Deserialize, Serialize};

use crate::calls;
use crate::config::Policy;
use crate::state::{Charge, State};

/// Names of the rules, as refusals tell them.
pub mod rule {
    pub const ALLOWANCE: &str = "allowance";
    pub const CALLDATA: &str = "calldata";
    pub const CHAIN: &str = "chain";
    pub const CONTRACT: &str = "contract";
    pub const EXPIRY: &str = "expiry";
    pub const FEES: &str = "fees";
    pub const GATEWAY: &str = "gateway";
    pub const GOAL: &str = "goal";
    pub const NONCE: &str = "nonce";
    pub const ORDER: &str = "order";
    pub const RATE: &str = "rate";
    pub const RECIPIENT: &str = "recipient";
    pub const SCOPES: &str = "scopes";
    pub const SPEND: &str = "spend";
    pub const TOKEN: &str = "token";
    pub const VALUE: &str = "value";
}

/// The span that `signaturesPerMinute` speaks of.
const MINUTE: u64 = 60;
/// Decimals of the chain's own coin.
const COIN_DECIMALS: u8 = 18;

#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    Transaction(&'a SignTransaction),
    Access(&'a SignAccess),
}

/// What may be signed, and what it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What is signed.
    pub hash: B256,
    /// Tokens that it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend: Option<Charge>,
    /// Wei that it may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee: Option<Charge>,
}

/// Whether `account`'s key signs the request.
pub fn judge(
    policy: &Policy,
    account: Address,
    state: &State,
    request: Request<'_>,
    now: u64,
) -> Result<Decision, Refusal> {
    let decision = match request {
        Request::Transaction(asked) => transaction(policy, account, asked)?,
        Request::Access(asked) => token(policy, asked, now)?,
    };
    caps(policy, state, &decision, now)?;
    Ok(decision)
}

fn transaction(policy: &Policy, account: Address, asked: &SignTransaction) -> Result<Decision, Refusal> {
    let SignTransaction { goal, transaction } = asked;
    if transaction.chain_id != policy.chain_id {
        return Err(Refusal::new(rule::CHAIN, transaction.chain_id, policy.chain_id));
    }
    if !policy.goals.contains(goal.name()) {
        return Err(Refusal::new(rule::GOAL, goal.name(), list(policy.goals.iter())));
    }
    if !transaction.value.is_zero() {
        return Err(Refusal::new(rule::VALUE, format!("{} wei", transaction.value), "0"));
    }
    if !transaction.access_list.is_empty() {
        return Err(Refusal::new(rule::CALLDATA, "an access list", "none"));
    }
    let key = one_nonce(goal, transaction);
    let spend = calls::read(policy, account, goal, transaction)?;
    let fee = u128::from(transaction.gas_limit).saturating_mul(transaction.max_fee_per_gas);
    Ok(Decision {
        hash: transaction.signature_hash(),
        spend: spend.map(|spend| Charge { key: spend.once.unwrap_or_else(|| key.clone()), amount: spend.amount.0 }),
        fee: Some(Charge { key, amount: fee }),
    })
}

/// The same goal at the same nonce: a replacement, of which at most one can be mined.
fn one_nonce(goal: &Goal, transaction: &TxEip1559) -> String {
    let digest = keccak256(serde_json::to_vec(goal).unwrap_or_default());
    format!("nonce/{}/{digest}", transaction.nonce)
}

fn token(policy: &Policy, asked: &SignAccess, now: u64) -> Result<Decision, Refusal> {
    let SignAccess { claims, chain_id, market } = asked;
    if *chain_id != policy.chain_id {
        return Err(Refusal::new(rule::CHAIN, chain_id, policy.chain_id));
    }
    if *market != policy.market {
        return Err(Refusal::new(rule::CONTRACT, market, format!("Market {}", policy.market)));
    }
    policy.allows_gateway(&claims.host)?;
    if !are_scopes(&claims.scopes) {
        let scopes: String = claims.scopes.chars().take(64).collect();
        return Err(Refusal::new(rule::SCOPES, scopes, "a sorted list of logs, read, write"));
    }
    if claims.expiry > now.saturating_add(access::MAX_LIFE) {
        let ahead = claims.expiry - now;
        return Err(Refusal::new(rule::EXPIRY, format!("{ahead} s ahead"), format!("{} s", access::MAX_LIFE)));
    }
    Ok(Decision { hash: claims.signing_hash(*chain_id, *market), spend: None, fee: None })
}

impl Policy {
    /// Gateways that tokens are for, and that a provider says are its own.
    pub fn allows_gateway(&self, host: &str) -> Result<(), Refusal> {
        if is_host(host) && self.gateways.iter().any(|pattern| fits(pattern, host)) {
            return Ok(());
        }
        let host: String = host.chars().take(253).collect();
        Err(Refusal::new(rule::GATEWAY, host, list(self.gateways.iter())))
    }
}

/// What the period has left.
fn caps(policy: &Policy, state: &State, decision: &Decision, now: u64) -> Result<(), Refusal> {
    let since = now.saturating_sub(policy.period);
    let period = go_duration(policy.period);
    if let Some(spend) = &decision.spend {
        let sum = state.tokens.sum_with(spend, since);
        if sum > policy.tokens.0 {
            let whole = |units| Amount(units).format(policy.decimals);
            return Err(Refusal::new(
                rule::SPEND,
                format!("{} tokens, {} with the rest of the period", whole(spend.amount), whole(sum)),
                format!("{} in {period}", whole(policy.tokens.0)),
            ));
        }
    }
    if let Some(fee) = &decision.fee {
        let sum = state.fees.sum_with(fee, since);
        if sum > policy.fees.0 {
            let coins = |wei| Amount(wei).format(COIN_DECIMALS);
            return Err(Refusal::new(
                rule::FEES,
                format!("{} of the chain's coin, {} with the rest of the period", coins(fee.amount), coins(sum)),
                format!("{} in {period}", coins(policy.fees.0)),
            ));
        }
    }
    // The same again gives the same signature: nobody has more for it.
    if !state.knows(&decision.hash) && state.signed_since(now.saturating_sub(MINUTE)) >= policy.rate {
        return Err(Refusal::new(rule::RATE, format!("{} signatures in a minute", policy.rate + 1), policy.rate));
    }
    Ok(())
}

/// A host, with a port or without: what a gateway's tokens are for.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 259
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}

/// `*` for any host, `*.example.org` for those under a domain, or the host itself.
fn fits(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.to_ascii_lowercase());
    match pattern.strip_prefix('*') {
        Some(rest) => host.len() > rest.len() && host.ends_with(rest),
        None => host == pattern,
    }
}

fn are_scopes(text: &str) -> bool {
    let known = [Scope::Logs, Scope::Read, Scope::Write];
    let named: Option<Vec<Scope>> =
        text.split(' ').map(|name| known.into_iter().find(|scope| scope.as_str() == name)).collect();
    named.is_some_and(|named| access::scopes(&named) == text)
}

fn list<T: AsRef<str>>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| item.as_ref().to_owned()).collect();
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

#[cfg(test)]
mod tests;
