//! JSON-RPC, as far as Freehold needs it: one endpoint at a time, the next of
//! the list when one does not answer. Everything that reads state names the
//! block by hash, so two answers never speak of two chains.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::primitives::{Address, B256, Bytes, U64, U256};
use alloy::rpc::client::{RpcCall, RpcClient};
use alloy::rpc::json_rpc::{RpcRecv, RpcSend};
use alloy::rpc::types::{Block as RpcBlock, Filter, Log, TransactionReceipt, TransactionRequest};
use alloy::sol_types::SolCall;
use alloy::transports::{RpcError, TransportErrorKind};

use crate::view::Block;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("RPC address `{url}` cannot be used: {reason}")]
    Url { url: String, reason: String },
    #[error("no HTTP client for the chain: {0}")]
    Client(#[from] reqwest::Error),
    #[error("{host} does not answer {method}: {reason}")]
    Unreachable { method: &'static str, host: String, reason: String },
    #[error("{method} was refused: {message} (code {code})")]
    Refused { method: &'static str, code: i64, message: String, data: Option<Bytes> },
    #[error("{method} returned something else than expected: {reason}")]
    Unexpected { method: &'static str, reason: String },
}

impl Error {
    /// Revert data, where the call reverted.
    pub fn revert(&self) -> Option<&Bytes> {
        match self {
            Self::Refused { data, .. } => data.as_ref(),
            _ => None,
        }
    }

    /// The endpoint judged the request; trying another endpoint would not help.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// A block's header, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub block: Block,
    pub parent: B256,
    /// Wei; 0 on chains without EIP-1559.
    pub base_fee: u128,
}

/// Which block counts as confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// So many blocks on top of it.
    Blocks(u64),
    /// The chain's own `finalized` block.
    Finalized,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub block: u64,
    pub success: bool,
    pub gas_used: u64,
    /// Wei in all.
    pub fee: u128,
}

struct Endpoint {
    /// Without path and query, which may hold a key.
    host: String,
    client: RpcClient,
}

/// The endpoints of one chain.
#[derive(Clone)]
pub struct Rpc {
    endpoints: Arc<[Endpoint]>,
    current: Arc<AtomicUsize>,
}

impl Rpc {
    /// `timeout` bounds each request, connection included.
    pub fn new(urls: &[String], timeout: Duration) -> Result<Self, Error> {
        let http = reqwest::Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).build()?;
        let endpoints = urls.iter().map(|url| endpoint(&http, url)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::Url { url: String::new(), reason: "spec.chain.rpcUrls is empty".into() });
        }
        Ok(Self { endpoints: endpoints.into(), current: Arc::default() })
    }

    fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.current.load(Ordering::Relaxed) % self.endpoints.len()]
    }

    /// Runs one request; after a failure to answer, the next request goes to the next endpoint.
    async fn request<P: RpcSend, R: RpcRecv>(&self, method: &'static str, params: P) -> Result<R, Error> {
        let endpoint = self.endpoint();
        let call: RpcCall<P, R> = endpoint.client.request(method, params);
        call.await.map_err(|error| self.judge(method, endpoint, error))
    }

    fn judge(&self, method: &'static str, endpoint: &Endpoint, error: RpcError<TransportErrorKind>) -> Error {
        match error {
            RpcError::ErrorResp(payload) => Error::Refused {
                method,
                code: payload.code,
                data: payload.as_revert_data(),
                message: payload.message.to_string(),
            },
            RpcError::Transport(kind) => {
                self.current.fetch_add(1, Ordering::Relaxed);
                Error::Unreachable { method, host: endpoint.host.clone(), reason: kind.to_string() }
            }
            other => Error::Unexpected { method, reason: other.to_string() },
        }
    }

    pub async fn chain_id(&self) -> Result<u64, Error> {
        let id: U64 = self.request("eth_chainId", ()).await?;
        Ok(id.to())
    }

    /// Header by number or tag; `None` where the chain has no such block.
    pub async fn header(&self, at: BlockNumberOrTag) -> Result<Option<Header>, Error> {
        let block: Option<RpcBlock> = self.request("eth_getBlockByNumber", (at, false)).await?;
        Ok(block.map(header_of))
    }

    pub async fn header_by_hash(&self, hash: B256) -> Result<Option<Header>, Error> {
        let block: Option<RpcBlock> = self.request("eth_getBlockByHash", (hash, false)).await?;
        Ok(block.map(header_of))
    }

    pub async fn logs_of(&self, block: B256, addresses: &[Address]) -> Result<Vec<Log>, Error> {
        let filter = Filter::new().address(addresses.to_vec()).at_block_hash(block);
        self.request("eth_getLogs", (filter,)).await
    }

    /// Logs that a filter of the caller's own describes.
    pub async fn logs(&self, filter: Filter) -> Result<Vec<Log>, Error> {
        self.request("eth_getLogs", (filter,)).await
    }

    /// Logs of a range of block numbers, both included.
    pub async fn logs_between(&self, from: u64, to: u64, addresses: &[Address]) -> Result<Vec<Log>, Error> {
        let filter = Filter::new().address(addresses.to_vec()).from_block(from).to_block(to);
        self.request("eth_getLogs", (filter,)).await
    }

    /// Calls a view at the block.
    pub async fn call<C: SolCall>(&self, to: Address, call: &C, at: B256) -> Result<C::Return, Error> {
        let request = TransactionRequest::default().to(to).input(call.abi_encode().into());
        let data: Bytes = self.request("eth_call", (request, BlockId::hash(at))).await?;
        C::abi_decode_returns(&data).map_err(|error| Error::Unexpected {
            method: "eth_call",
            reason: format!("{} at {to}: {error}", C::SIGNATURE),
        })
    }

    pub async fn code(&self, address: Address, at: B256) -> Result<Bytes, Error> {
        self.request("eth_getCode", (address, BlockId::hash(at))).await
    }

    /// Wei.
    pub async fn balance(&self, address: Address, at: B256) -> Result<u128, Error> {
        let wei: U256 = self.request("eth_getBalance", (address, BlockId::hash(at))).await?;
        Ok(wei.saturating_to())
    }

    /// Transactions that the account had sent as of the block.
    pub async fn nonce(&self, address: Address, at: B256) -> Result<u64, Error> {
        let nonce: U64 = self.request("eth_getTransactionCount", (address, BlockId::hash(at))).await?;
        Ok(nonce.to())
    }

    pub async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, Error> {
        let receipt: Option<TransactionReceipt> = self.request("eth_getTransactionReceipt", (hash,)).await?;
        Ok(receipt.and_then(|receipt| {
            Some(Receipt {
                block: receipt.block_number?,
                success: receipt.status(),
                gas_used: receipt.gas_used,
                fee: receipt.effective_gas_price.saturating_mul(u128::from(receipt.gas_used)),
            })
        }))
    }

    /// Hands a transaction to the chain. That it is known already is success.
    pub async fn send_raw(&self, raw: &[u8]) -> Result<(), Error> {
        match self.request::<_, B256>("eth_sendRawTransaction", (Bytes::copy_from_slice(raw),)).await {
            Ok(_) => Ok(()),
            Err(Error::Refused { message, .. }) if is_known(&message) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gas that the transaction would use on top of the latest block; its refusal carries the revert.
    pub async fn estimate_gas(&self, from: Address, to: Address, value: U256, data: &[u8]) -> Result<u64, Error> {
        let request =
            TransactionRequest::default().from(from).to(to).value(value).input(Bytes::copy_from_slice(data).into());
        let gas: U64 = self.request("eth_estimateGas", (request,)).await?;
        Ok(gas.to())
    }

    /// What a sender should offer above the base fee, in wei.
    pub async fn priority_fee(&self) -> Result<u128, Error> {
        let fee: U256 = self.request("eth_maxPriorityFeePerGas", ()).await?;
        Ok(fee.saturating_to())
    }
}

fn endpoint(http: &reqwest::Client, url: &str) -> Result<Endpoint, Error> {
    let parsed: reqwest::Url = url.parse().map_err(|error| Error::Url {
        url: url.to_owned(),
        reason: format!("{error}; write http(s)://host[:port][/path]"),
    })?;
    let host = format!("{}://{}", parsed.scheme(), parsed.authority().rsplit('@').next().unwrap_or_default());
    Ok(Endpoint { host, client: RpcClient::new_http_with_client(http.clone(), parsed) })
}

fn header_of(block: RpcBlock) -> Header {
    let header = block.header;
    Header {
        block: Block { number: header.number, hash: header.hash, timestamp: header.timestamp },
        parent: header.parent_hash,
        base_fee: header.base_fee_per_gas.map_or(0, u128::from),
    }
}

/// Nodes have no code for "I have it already" or "it is mined already": only words.
fn is_known(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["already known", "already imported", "known transaction", "nonce too low", "already exists"]
        .iter()
        .any(|phrase| message.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_of_a_repeat_is_no_error() {
        assert!(is_known("already known"));
        assert!(is_known("Transaction already imported."));
        assert!(!is_known("insufficient funds for gas * price + value"));
        assert!(!is_known("replacement transaction underpriced"));
    }
}
