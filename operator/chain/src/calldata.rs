//! From a goal to the one call that reaches it. Calldata is never stored: it is
//! rebuilt from the goal, the stored order and the chain. Pure.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::sol_types::SolCall;
use freehold_api::Goal;
use freehold_api::scalars::{Bytes32, EvmAddress, TokenAmount};
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderState, Terms, order_id};

use crate::bindings::{Erc20, Market, ProviderRegistry, market, terms_to_contract};
use crate::view::ChainView;

const WITHDRAW_GAS: u64 = 150_000;
/// What each settlement of a batch adds: a first payment to a ledger that held nothing is the dearest.
const SETTLE_GAS: u64 = 80_000;

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
    integer_of("price", text)
}

pub fn integer_of(field: &'static str, text: &str) -> Result<u128, Error> {
    text.parse().map_err(|_| Error::Malformed { field, value: text.to_owned(), expected: "a 128-bit integer" })
}

pub fn amount_of(field: &'static str, text: &TokenAmount, decimals: u8) -> Result<Amount, Error> {
    Amount::parse(text.as_str(), decimals).map_err(|source| Error::Amount { field, source })
}

/// Id of the goal's order, where it is about one.
pub fn order_of(goal: &Goal) -> Result<Option<B256>, Error> {
    goal.order_id().map(|id| hash_of("orderId", id)).transpose()
}

/// Leases that a withdrawal settles on its way: those of the goal's that can still be settled. One that somebody has
/// brought to its end meanwhile would make the whole transaction revert, and is left out.
pub fn to_settle<'a>(goal: &Goal, view: &'a ChainView) -> Result<Vec<&'a Order>, Error> {
    let Goal::Withdraw { orders, .. } = goal else { return Ok(Vec::new()) };
    let ids = orders.iter().map(|id| hash_of("orders", id)).collect::<Result<BTreeSet<_>, _>>()?;
    let live = |order: &&Order| matches!(order.slot.state, OrderState::Running | OrderState::Delivered);
    Ok(ids.iter().filter_map(|id| view.order(id).map(AsRef::as_ref)).filter(live).collect())
}

/// The call that reaches `goal`. `stored` is what `placeOrder` places.
pub fn call_of(goal: &Goal, view: &ChainView, stored: Option<&StoredOrder>) -> Result<Call, Error> {
    match goal {
        Goal::Approve { amount, .. } => {
            let amount = U256::from(amount_of("amount", amount, view.decimals)?.0);
            Ok(call(view.token, &Erc20::approveCall { spender: view.market, amount }, 100_000))
        }
        Goal::PlaceOrder { order_id, .. } => place(hash_of("orderId", order_id)?, view, stored),
        Goal::Withdraw { orders, .. } => withdraw(&to_settle(goal, view)?, orders.len(), view),
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

/// One call, or a batch: the settlements, then the withdrawal of all that is free then.
fn withdraw(settled: &[&Order], named: usize, view: &ChainView) -> Result<Call, Error> {
    let all = Market::withdrawCall { token: view.token, amount: u128::MAX, to: view.account };
    if settled.is_empty() {
        return Ok(call(view.market, &all, WITHDRAW_GAS));
    }
    let settle = |order: &&Order| settle(order).abi_encode().into();
    let calls = settled.iter().map(settle).chain([all.abi_encode().into()]).collect();
    let gas = WITHDRAW_GAS + SETTLE_GAS * u64::try_from(named).unwrap_or(u64::MAX);
    Ok(call(view.market, &Market::multicallCall { calls }, gas))
}

fn settle(order: &Order) -> Market::settleCall {
    let terms = terms_to_contract(&order.terms);
    Market::settleCall { id: order.id, terms, resultHash: order.result_hash.unwrap_or_default() }
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
        Goal::Settle { .. } => call(at, &settle(order), 150_000),
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
