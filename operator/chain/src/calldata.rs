//! From a goal to the one call that reaches it. Calldata is never stored: it is
//! rebuilt from the goal, the stored order and the chain. Pure.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::sol_types::SolCall;
use freehold_api::Goal;
use freehold_api::scalars::{Bytes32, EvmAddress, TokenAmount};
use freehold_core::money::Amount;
use freehold_core::order::{Order, Terms, order_id};

use crate::bindings::{Erc20, Market, ProviderRegistry, market, terms_to_contract};
use crate::view::ChainView;

/// An order as the tenant stored it before placing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOrder {
    pub terms: Terms,
    pub salt: B256,
    /// RFC 8785 JSON.
    pub spec: Vec<u8>,
}

/// One call of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub to: Address,
    pub data: Bytes,
    /// Wei.
    pub value: U256,
    /// Gas that suffices by measurement; a function of the goal alone, so that
    /// the same goal gives the same transaction again.
    pub gas: u64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("{field} `{value}` is not {expected}")]
    Malformed { field: &'static str, value: String, expected: &'static str },
    #[error("{field}: {source}")]
    Amount { field: &'static str, source: freehold_core::money::Error },
    #[error("the stored order has no {0}; the task must be applied again")]
    Incomplete(&'static str),
    #[error("the stored order's terms cannot be read: {0}")]
    Terms(String),
    #[error("the stored order makes id {found}, the goal is {expected}")]
    OtherOrder { found: B256, expected: B256 },
    #[error("order {0} is not on the chain as far as it was read")]
    UnknownOrder(B256),
    #[error("the order to place is not stored any more")]
    NotStored,
}

impl StoredOrder {
    /// Keys of the ConfigMap that an order is stored in.
    pub const TERMS: &'static str = "terms.json";
    pub const SALT: &'static str = "salt";
    pub const SPEC: &'static str = "spec.json";

    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Error> {
        let field = |name| data.get(name).ok_or(Error::Incomplete(name));
        let salt = field(Self::SALT)?.trim();
        Ok(Self {
            terms: serde_json::from_str(field(Self::TERMS)?).map_err(|error| Error::Terms(error.to_string()))?,
            salt: word(Self::SALT, salt)?,
            spec: field(Self::SPEC)?.clone().into_bytes(),
        })
    }

    pub fn to_data(&self) -> Result<BTreeMap<String, String>, Error> {
        let terms = serde_json::to_string(&self.terms).map_err(|error| Error::Terms(error.to_string()))?;
        let spec = String::from_utf8(self.spec.clone()).map_err(|_| Error::Incomplete(Self::SPEC))?;
        Ok(BTreeMap::from([
            (Self::TERMS.to_owned(), terms),
            (Self::SALT.to_owned(), self.salt.to_string()),
            (Self::SPEC.to_owned(), spec),
        ]))
    }
}

fn word(field: &'static str, text: &str) -> Result<B256, Error> {
    text.parse().map_err(|_| Error::Malformed {
        field,
        value: text.to_owned(),
        expected: "0x and 64 hexadecimal digits",
    })
}

/// A 32-byte value of a goal.
pub fn hash_of(field: &'static str, text: &Bytes32) -> Result<B256, Error> {
    word(field, text.as_str())
}

pub fn address_of(field: &'static str, text: &EvmAddress) -> Result<Address, Error> {
    text.as_str().parse().map_err(|_| Error::Malformed {
        field,
        value: text.to_string(),
        expected: "0x and 40 hexadecimal digits",
    })
}

pub fn price_of(text: &str) -> Result<u128, Error> {
    text.parse().map_err(|_| Error::Malformed { field: "price", value: text.to_owned(), expected: "a 128-bit integer" })
}

pub fn amount_of(field: &'static str, text: &TokenAmount, decimals: u8) -> Result<Amount, Error> {
    Amount::parse(text.as_str(), decimals).map_err(|source| Error::Amount { field, source })
}

/// Id of the goal's order, where it is about one.
pub fn order_of(goal: &Goal) -> Result<Option<B256>, Error> {
    goal.order_id().map(|id| hash_of("orderId", id)).transpose()
}

/// The call that reaches `goal`. `stored` is what `placeOrder` places.
pub fn call_of(goal: &Goal, view: &ChainView, stored: Option<&StoredOrder>) -> Result<Call, Error> {
    match goal {
        Goal::Approve { amount, .. } => {
            let amount = U256::from(amount_of("amount", amount, view.decimals)?.0);
            Ok(call(view.token, &Erc20::approveCall { spender: view.market, amount }, 100_000))
        }
        Goal::PlaceOrder { order_id, .. } => place(hash_of("orderId", order_id)?, view, stored),
        Goal::Withdraw { .. } => {
            let all = Market::withdrawCall { token: view.token, amount: u128::MAX, to: view.account };
            Ok(call(view.market, &all, 150_000))
        }
        Goal::Register { gateway, attributes } => {
            let bytes = u64::try_from(gateway.as_str().len() + attributes.len()).unwrap_or(u64::MAX);
            let register = ProviderRegistry::registerCall {
                gateway: gateway.to_string(),
                attributes: Bytes::copy_from_slice(attributes.as_bytes()),
            };
            // Each 32 bytes are a storage slot, and their calldata.
            let gas = 150_000 + bytes.div_ceil(32).saturating_add(4).saturating_mul(24_000);
            Ok(call(view.registry, &register, gas))
        }
        Goal::Void { .. } => Ok(Call { to: view.account, data: Bytes::new(), value: U256::ZERO, gas: 21_000 }),
        _ => about_order(goal, view),
    }
}

fn call<C: SolCall>(to: Address, call: &C, gas: u64) -> Call {
    Call { to, data: call.abi_encode().into(), value: U256::ZERO, gas }
}

fn place(expected: B256, view: &ChainView, stored: Option<&StoredOrder>) -> Result<Call, Error> {
    let stored = stored.ok_or(Error::NotStored)?;
    let found = order_id(view.chain_id, view.market, view.account, stored.salt);
    if found != expected {
        return Err(Error::OtherOrder { found, expected });
    }
    let order = Market::orderCall {
        salt: stored.salt,
        terms: terms_to_contract(&stored.terms),
        spec: Bytes::copy_from_slice(&stored.spec),
    };
    Ok(call(view.market, &order, 350_000))
}

/// Calls that repeat the terms of an order that stands on the chain.
fn about_order(goal: &Goal, view: &ChainView) -> Result<Call, Error> {
    let id = order_of(goal)?.unwrap_or_default();
    let order = view.order(&id).ok_or(Error::UnknownOrder(id))?;
    let terms = terms_to_contract(&order.terms);
    let at = view.market;
    Ok(match goal {
        Goal::AcceptBid { provider, price, valid_until, .. } => {
            let (provider, price) = (address_of("provider", provider)?, price_of(price)?);
            call(at, &Market::acceptCall { id, terms, provider, price, validUntil: *valid_until }, 180_000)
        }
        Goal::CancelOrder { .. } => call(at, &Market::cancelCall { id, terms }, 150_000),
        Goal::CloseOrder { .. } => call(at, &Market::closeCall { id, terms }, 150_000),
        Goal::AcceptResult { result_hash, .. } => {
            call(at, &Market::acceptResultCall { id, terms, resultHash: hash_of("resultHash", result_hash)? }, 150_000)
        }
        Goal::RejectResult { result_hash, .. } => {
            call(at, &Market::rejectResultCall { id, terms, resultHash: hash_of("resultHash", result_hash)? }, 180_000)
        }
        Goal::NoShow { .. } => call(at, &Market::noShowCall { id, terms }, 150_000),
        Goal::TopUp { amount, .. } => {
            let amount = amount_of("amount", amount, view.decimals)?.0;
            call(at, &Market::topUpCall { id, terms, amount }, 200_000)
        }
        Goal::Bid { price, valid_until, .. } => {
            call(at, &Market::bidCall { id, terms, price: price_of(price)?, validUntil: *valid_until }, 220_000)
        }
        Goal::Unbid { .. } => call(at, &Market::unbidCall { id, terms }, 110_000),
        Goal::Reclaim { .. } => reclaim(at, id, order, terms, view.account),
        Goal::Start { .. } => call(at, &Market::startCall { id, terms }, 110_000),
        Goal::Decline { .. } => call(at, &Market::declineCall { id, terms }, 150_000),
        Goal::Deliver { result_hash, .. } => {
            call(at, &Market::deliverCall { id, terms, resultHash: hash_of("resultHash", result_hash)? }, 110_000)
        }
        Goal::Settle { .. } => {
            call(at, &Market::settleCall { id, terms, resultHash: order.result_hash.unwrap_or_default() }, 150_000)
        }
        Goal::Approve { .. }
        | Goal::PlaceOrder { .. }
        | Goal::Withdraw { .. }
        | Goal::Register { .. }
        | Goal::Void { .. } => {
            return Err(Error::UnknownOrder(id));
        }
    })
}

fn reclaim(at: Address, id: B256, order: &Order, terms: market::Terms, provider: Address) -> Call {
    let result_hash = order.result_hash.unwrap_or_default();
    call(at, &Market::reclaimCall { id, terms, provider, resultHash: result_hash }, 110_000)
}
