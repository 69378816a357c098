//! Reading contract storage at one block hash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::sol_types::SolCall;
use freehold_core::money::Amount;
use freehold_core::order::Order;
use futures::stream::{StreamExt, TryStreamExt};

use super::{Error, Purse, ReaderConfig};
use crate::bindings::{Erc20, Market, ProviderRegistry, bid_of_contract, slot_of_contract};
use crate::index::Index;
use crate::rpc::{Error as RpcError, short};
use crate::view::{Block, ProviderRecord};

/// Views in one `multicall`: some 15 k gas each, far below what endpoints allow a call.
const CALLS: usize = 200;
/// Requests to the registry at a time.
const REGISTRY_REQUESTS: usize = 8;

/// Many views of the Market at one block, in the order asked.
async fn multicall(config: &ReaderConfig, calls: &[Vec<u8>], at: B256) -> Result<Vec<Bytes>, Error> {
    let mut out = Vec::with_capacity(calls.len());
    for chunk in calls.chunks(CALLS) {
        let calls = chunk.iter().map(|call| Bytes::copy_from_slice(call)).collect();
        let answers = config.rpc.call(config.market, &Market::multicallCall { calls }, at).await?;
        if answers.len() != chunk.len() {
            return Err(unexpected(format!("{} answers to {} calls", answers.len(), chunk.len())));
        }
        out.extend(answers);
    }
    Ok(out)
}

fn unexpected(reason: String) -> Error {
    RpcError::Unexpected { method: "eth_call", reason }.into()
}

fn decode<C: SolCall>(data: &Bytes) -> Result<C::Return, Error> {
    C::abi_decode_returns(data).map_err(|error| unexpected(format!("{}: {}", C::SIGNATURE, short(&error))))
}

/// The named orders, as of `block`.
pub async fn orders(
    config: &ReaderConfig,
    index: &Index,
    ids: &[B256],
    block: Block,
) -> Result<BTreeMap<B256, Option<Arc<Order>>>, Error> {
    let mut calls = Vec::new();
    for id in ids {
        calls.push(Market::orderOfCall { id: *id }.abi_encode());
        for provider in index.bidders(id) {
            calls.push(Market::bidOfCall { id: *id, provider }.abi_encode());
        }
    }
    let mut answers = multicall(config, &calls, block.hash).await?.into_iter();
    let mut next = || answers.next().ok_or_else(|| unexpected("an answer is missing".into()));
    let mut out = BTreeMap::new();
    for id in ids {
        let stored = decode::<Market::orderOfCall>(&next()?)?;
        let slot = slot_of_contract(&stored).ok_or_else(|| {
            unexpected(format!("order {id} is in state {}, which this version does not know", stored.state))
        })?;
        let mut bids = Vec::new();
        for provider in index.bidders(id) {
            bids.extend(bid_of_contract(provider, &decode::<Market::bidOfCall>(&next()?)?));
        }
        out.insert(*id, index.order(id, slot, bids, block.number).map(Arc::new));
    }
    Ok(out)
}

/// What is free in the Market's ledger.
pub async fn free(config: &ReaderConfig, at: B256) -> Result<Amount, Error> {
    let call = Market::freeCall { token: config.token, account: config.account };
    Ok(Amount(config.rpc.call(config.market, &call, at).await?))
}

pub async fn purse(config: &ReaderConfig, at: B256) -> Result<Purse, Error> {
    let balance = Erc20::balanceOfCall { account: config.account };
    let allowance = Erc20::allowanceCall { owner: config.account, spender: config.market };
    let (wallet, allowance, gas) = futures::try_join!(
        config.rpc.call(config.token, &balance, at),
        config.rpc.call(config.token, &allowance, at),
        config.rpc.balance(config.account, at),
    )?;
    Ok(Purse { wallet: Amount(wallet.saturating_to()), allowance: Amount(allowance.saturating_to()), gas })
}

/// Records of the named providers; `None` for those that have none.
pub async fn providers(
    config: &ReaderConfig,
    index: &Index,
    names: Vec<Address>,
    at: B256,
) -> Result<Vec<(Address, Option<ProviderRecord>)>, Error> {
    futures::stream::iter(names)
        .map(|provider| provider_record(config, index, provider, at))
        .buffer_unordered(REGISTRY_REQUESTS)
        .try_collect()
        .await
}

async fn provider_record(
    config: &ReaderConfig,
    index: &Index,
    provider: Address,
    at: B256,
) -> Result<(Address, Option<ProviderRecord>), Error> {
    let record = config.rpc.call(config.registry, &ProviderRegistry::providerOfCall { provider }, at).await?;
    if record.updatedAt.is_zero() {
        return Ok((provider, None));
    }
    let mut attested_by = BTreeSet::new();
    for auditor in index.auditors(&provider) {
        if config.rpc.call(config.registry, &ProviderRegistry::attestedCall { auditor, provider }, at).await? {
            attested_by.insert(auditor);
        }
    }
    // A provider writes its attributes itself; what is no JSON object of strings says nothing.
    let attributes = serde_json::from_slice(&record.attributes).unwrap_or_default();
    Ok((provider, Some(ProviderRecord { gateway: record.gateway, attributes, attested_by })))
}

/// Checks that the three contracts are what the account says, and returns the token's decimals.
pub async fn check_contracts(config: &ReaderConfig, at: B256) -> Result<u8, Error> {
    let wrong_market = |error: String| Error::WrongMarket { address: config.market, error };
    if config.rpc.code(config.market, at).await?.is_empty() {
        return Err(wrong_market("there is no contract at that address".into()));
    }
    let scale = answer(config.rpc.call(config.market, &Market::RATE_SCALECall {}, at).await)?.map_err(wrong_market)?;
    if scale != U256::from(freehold_core::money::RATE_SCALE) {
        return Err(wrong_market(format!("its RATE_SCALE is {scale}")));
    }
    let limit = answer(config.rpc.call(config.market, &Market::SPEC_LIMITCall {}, at).await)?.map_err(wrong_market)?;
    if limit < U256::from(freehold_core::spec::MAX_BYTES) {
        return Err(wrong_market(format!("its SPEC_LIMIT is {limit}")));
    }
    let registry = |error| Error::WrongContract { field: "spec.providerRegistry", address: config.registry, error };
    answer(config.rpc.call(config.registry, &ProviderRegistry::GATEWAY_LIMITCall {}, at).await)?.map_err(registry)?;
    let token = |error| Error::WrongContract { field: "spec.token", address: config.token, error };
    answer(config.rpc.call(config.token, &Erc20::decimalsCall {}, at).await)?.map_err(token)
}

/// Tells "the contract is another one" (inner error) from "nobody answered" (outer error).
fn answer<T>(outcome: Result<T, RpcError>) -> Result<Result<T, String>, Error> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(error @ (RpcError::Unexpected { .. } | RpcError::Refused { .. })) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}
