//! JSON-RPC, as far as Freehold needs it, over a pool of endpoints: one is
//! used at a time, chosen by a [`survey`](survey::Surveyor) of all of them.
//! Everything that reads state names the block by hash, so two answers never
//! speak of two chains.

use std::sync::Arc;
use std::time::Duration;

use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::primitives::{Address, B256, Bytes, U64, U256};
use alloy::rpc::client::{RpcCall, RpcClient};
use alloy::rpc::json_rpc::{RpcRecv, RpcSend};
use alloy::rpc::types::{Block as RpcBlock, Filter, Log, TransactionReceipt, TransactionRequest};
use alloy::sol_types::SolCall;
use alloy::transports::{RpcError, TransportErrorKind};
use futures::future::join_all;
use tokio::time::Instant;

use self::pool::{Endpoint, Pool};
use crate::failpoint::crossing;
use crate::view::Block;

pub mod judge;
mod pool;
pub mod survey;

pub use pool::Standing;

/// No endpoint may silence itself for longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("RPC address `{url}` cannot be used: {reason}")]
    Url { url: String, reason: String },
    #[error("no HTTP client for the chain: {0}")]
    Client(#[from] reqwest::Error),
    #[error("{host} does not answer {method}: {reason}")]
    Unreachable { method: &'static str, host: String, reason: String },
    #[error("{host} asked for a pause")]
    Limited { host: String },
    #[error("fewer endpoints than have to agree say the same of transaction {hash}")]
    Disputed { hash: B256 },
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
    pub block_hash: B256,
    pub success: bool,
    pub gas_used: u64,
    /// Wei in all.
    pub fee: u128,
}

/// The endpoints of one chain. Requests go to the one that is used, or, in what
/// a survey hands out, to one endpoint alone.
#[derive(Clone)]
pub struct Rpc {
    pool: Arc<Pool>,
    pinned: Option<usize>,
}

impl Rpc {
    /// `urls` in the order of preference; `timeout` bounds each request, connection included.
    pub fn new(urls: &[String], timeout: Duration) -> Result<Self, Error> {
        let http = reqwest::Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).build()?;
        Self::of(urls.iter().map(|url| Endpoint::new(&http, url)).collect::<Result<Vec<_>, _>>()?)
    }

    /// One endpoint that is reached in a way of the caller's own.
    pub fn over(client: RpcClient) -> Result<Self, Error> {
        Self::of(vec![Endpoint::over("local".into(), client)])
    }

    fn of(endpoints: Vec<Endpoint>) -> Result<Self, Error> {
        if endpoints.is_empty() {
            return Err(Error::Url { url: String::new(), reason: "spec.chain.rpcUrls is empty".into() });
        }
        Ok(Self { pool: Arc::new(Pool::new(endpoints)), pinned: None })
    }

    /// Number of endpoints.
    pub fn size(&self) -> usize {
        self.pool.endpoints.len()
    }

    /// What is thought of each endpoint, and which one is used.
    pub fn standings(&self) -> Vec<Standing> {
        self.pool.standings()
    }

    /// The same pool, asking one endpoint alone.
    fn pin(&self, at: usize) -> Self {
        Self { pool: self.pool.clone(), pinned: Some(at) }
    }

    /// Runs one request. After a failure to answer the next one goes to another endpoint, until a survey says more.
    async fn request<P: RpcSend, R: RpcRecv>(&self, method: &'static str, params: P) -> Result<R, Error> {
        let at = self.pinned.unwrap_or_else(|| self.pool.current());
        let endpoint = &self.pool.endpoints[at];
        if endpoint.paused(Instant::now()) {
            return Err(Error::Limited { host: endpoint.host.clone() });
        }
        let call: RpcCall<P, R> = endpoint.client.request(method, params);
        let answer = crossing(|| format!("rpc.{method}"), call).await;
        let outcome = answer.map_err(|error| judge_error(method, endpoint, error));
        if self.pinned.is_none() && matches!(outcome, Err(Error::Unreachable { .. } | Error::Limited { .. })) {
            self.pool.turn_from(at);
        }
        outcome
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
            reason: format!("{} at {to}: {}", C::SIGNATURE, short(&error)),
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
                block_hash: receipt.block_hash?,
                success: receipt.status(),
                gas_used: receipt.gas_used,
                fee: receipt.effective_gas_price.saturating_mul(u128::from(receipt.gas_used)),
            })
        }))
    }

    /// The receipt, or that there is none, by the word of as many endpoints as have to agree. What fewer say is an
    /// error: taken for "none", it would look as if another transaction had used the nonce.
    pub async fn agreed_receipt(&self, hash: B256) -> Result<Option<Receipt>, Error> {
        let (usable, quorum) = self.pool.usable();
        if quorum <= 1 {
            return self.receipt(hash).await;
        }
        let asked = usable.iter().map(|at| {
            let one = self.pin(*at);
            async move { one.receipt(hash).await }
        });
        let answers: Vec<Option<Receipt>> = join_all(asked).await.into_iter().filter_map(Result::ok).collect();
        agreed(&answers, quorum).ok_or(Error::Disputed { hash })
    }

    /// Hands a transaction to every endpoint that is thought good, so that none can hold it back. One that takes it
    /// is enough; that it is known already is success.
    pub async fn send_raw(&self, raw: &[u8]) -> Result<(), Error> {
        let (usable, _) = self.pool.usable();
        let sent = usable.iter().map(|at| {
            let one = self.pin(*at);
            async move { one.send_raw_to_one(raw).await }
        });
        let mut outcomes = join_all(sent).await;
        if outcomes.iter().any(Result::is_ok) {
            return Ok(());
        }
        // What a refusal says of the transaction matters more than who did not answer.
        let at = outcomes.iter().position(|outcome| matches!(outcome, Err(error) if error.is_refusal())).unwrap_or(0);
        outcomes.swap_remove(at)
    }

    async fn send_raw_to_one(&self, raw: &[u8]) -> Result<(), Error> {
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

/// What at least `quorum` of the answers say; nothing if too few do. One that has the receipt is not outvoted by those
/// that have not seen the block yet.
fn agreed(answers: &[Option<Receipt>], quorum: usize) -> Option<Option<Receipt>> {
    let said = |what: &Option<Receipt>| answers.iter().filter(|answer| *answer == what).count() >= quorum;
    match answers.iter().find(|answer| answer.is_some()) {
        Some(_) => answers.iter().find(|answer| answer.is_some() && said(answer)).copied(),
        None => said(&None).then_some(None),
    }
}

fn judge_error(method: &'static str, endpoint: &Endpoint, error: RpcError<TransportErrorKind>) -> Error {
    if let Some(pause) = asked_pause(method, &error) {
        endpoint.pause(Instant::now(), pause);
        return Error::Limited { host: endpoint.host.clone() };
    }
    match error {
        RpcError::ErrorResp(payload) => Error::Refused {
            method,
            code: payload.code,
            data: payload.as_revert_data(),
            message: short(&payload.message),
        },
        RpcError::Transport(kind) => {
            Error::Unreachable { method, host: endpoint.host.clone(), reason: innermost(&kind) }
        }
        other => Error::Unexpected { method, reason: short(&other) },
    }
}

/// Whether the endpoint asks for a pause, and for how long if it says so.
fn asked_pause(method: &str, error: &RpcError<TransportErrorKind>) -> Option<Option<Duration>> {
    match error {
        RpcError::Transport(kind) if kind.is_retry_err() => {
            Some(kind.retry_after().map(|pause| pause.min(LONGEST_PAUSE)))
        }
        // A range of logs that is too long has the same code; that one is for the caller to halve.
        RpcError::ErrorResp(payload) if payload.is_retry_err() && method != "eth_getLogs" => Some(None),
        _ => None,
    }
}

/// The cause at the bottom: what lies above it repeats the address, which may hold a key.
fn innermost(kind: &TransportErrorKind) -> String {
    let mut cause: &dyn std::error::Error = kind;
    while let Some(below) = cause.source() {
        cause = below;
    }
    short(&cause)
}

/// What an endpoint says may be long, and become part of a sentence.
pub(crate) fn short(text: &dyn std::fmt::Display) -> String {
    text.to_string().chars().take(200).collect()
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
    fn a_receipt_takes_a_quorum_and_so_does_its_absence() {
        let receipt = |success| Some(Receipt { block: 7, block_hash: B256::ZERO, success, gas_used: 1, fee: 1 });
        let (yes, no) = (receipt(true), receipt(false));
        assert_eq!(agreed(&[yes, no, yes], 2), Some(yes));
        assert_eq!(agreed(&[None, yes, yes], 2), Some(yes));
        assert_eq!(agreed(&[None, None], 2), Some(None));
        assert_eq!(agreed(&[yes, no], 2), None, "they contradict each other");
        assert_eq!(agreed(&[None, None, yes], 2), None, "two may not have seen its block yet");
        assert_eq!(agreed(&[yes], 2), None, "one alone");
        assert_eq!(agreed(&[], 2), None);
    }

    #[test]
    fn what_a_node_says_of_a_repeat_is_no_error() {
        assert!(is_known("already known"));
        assert!(is_known("Transaction already imported."));
        assert!(!is_known("insufficient funds for gas * price + value"));
        assert!(!is_known("replacement transaction underpriced"));
    }
}
