//! What an operator knows of the chain: one value, read at block hashes, that
//! feeds every reconciler. Reconcilers make no calls of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freehold_core::money::Amount;
use freehold_core::order::Order;
use freehold_core::record::Record;
use freehold_core::{Address, B256};
use tokio::sync::watch;

use crate::rpc::Standing;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub number: u64,
    pub hash: B256,
    /// Unix seconds; deadlines are judged by it.
    pub timestamp: u64,
}

/// Why the chain may, or may not, be acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    Fresh,
    /// Nothing was read yet.
    #[default]
    Starting,
    /// No endpoint answers.
    Unreachable {
        error: String,
    },
    /// The head has not moved for five block times.
    Stale {
        head: u64,
    },
    WrongChain {
        expected: u64,
        found: u64,
    },
    /// Endpoints name different confirmed blocks.
    Diverged {
        endpoints: String,
    },
    /// Fewer endpoints than have to agree answer.
    Unwitnessed {
        endpoints: String,
    },
    /// No contract, or another one, at the Market's address.
    WrongMarket {
        address: Address,
        error: String,
    },
    /// Another contract at the address of the token or the registry.
    WrongContract {
        field: &'static str,
        address: Address,
        error: String,
    },
}

impl Health {
    /// New bids, orders and destructive actions are allowed.
    pub fn allows_action(&self) -> bool {
        *self == Self::Fresh
    }

    /// Reason of `ChainHealthy=False` and a sentence with the remedy.
    pub fn explain(&self) -> (&'static str, String) {
        match self {
            Self::Fresh => ("Fresh", "The head moves and the chain is the expected one.".into()),
            Self::Starting => ("Starting", "The chain has not been read yet.".into()),
            Self::Unreachable { error } => (
                "Unreachable",
                format!(
                    "No RPC endpoint answers ({error}). Check spec.chain.rpcUrls; running work goes on, nothing new is started or torn down."
                ),
            ),
            Self::Stale { head } => (
                "Stale",
                format!(
                    "The head has stood at block {head} for five block times. Nothing new is started or torn down until it moves."
                ),
            ),
            Self::WrongChain { expected, found } => (
                "WrongChain",
                format!(
                    "The endpoint serves chain {found}, spec.chain.chainId is {expected}. Correct spec.chain.rpcUrls."
                ),
            ),
            Self::Diverged { endpoints } => (
                "Diverged",
                format!(
                    "The endpoints contradict each other: {endpoints}. Nothing new is started or torn down until they agree; take the wrong one out of spec.chain.rpcUrls."
                ),
            ),
            Self::Unwitnessed { endpoints } => (
                "Unwitnessed",
                format!(
                    "Fewer endpoints than spec.chain.quorum asks for name the same confirmed block: {endpoints}. Nothing new is started or torn down; mend or add an endpoint in spec.chain.rpcUrls, or lower spec.chain.quorum."
                ),
            ),
            Self::WrongMarket { address, error } => (
                "WrongMarket",
                format!("spec.market {address} is not a Freehold Market ({error}). Correct spec.market."),
            ),
            Self::WrongContract { field, address, error } => (
                "WrongContract",
                format!("{field} {address} is not the contract that it should be ({error}). Correct {field}."),
            ),
        }
    }
}

/// Orders as of one block. Holds every order in which the account is tenant or
/// provider, and every open order of others.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub block: Block,
    pub orders: BTreeMap<B256, Arc<Order>>,
}

/// What the ProviderRegistry says of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderRecord {
    pub gateway: String,
    pub attributes: BTreeMap<String, String>,
    /// Auditors whose attestation of exactly these attributes stands.
    pub attested_by: BTreeSet<Address>,
}

/// Balances of the account at the latest block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balances {
    /// Tokens in the wallet.
    pub wallet: Amount,
    /// Tokens free in the Market's ledger.
    pub free: Amount,
    /// Tokens that the Market may draw from the wallet.
    pub allowance: Amount,
    /// Native coin, in wei.
    pub gas: u128,
}

#[derive(Clone, Debug, Default)]
pub struct ChainView {
    pub health: Health,
    pub chain_id: u64,
    pub market: Address,
    pub registry: Address,
    pub token: Address,
    /// The account that looks.
    pub account: Address,
    pub decimals: u8,
    pub latest: Snapshot,
    /// At confirmed depth; never ahead of `latest`.
    pub confirmed: Snapshot,
    pub balances: Balances,
    pub providers: BTreeMap<Address, ProviderRecord>,
    /// What providers did with their leases, as far back as logs were read.
    pub records: BTreeMap<Address, Record>,
    /// What is thought of the endpoints.
    pub endpoints: Vec<Standing>,
    /// Usual seconds between two blocks.
    pub block_time: u64,
}

impl ChainView {
    pub fn order(&self, id: &B256) -> Option<&Arc<Order>> {
        self.latest.orders.get(id)
    }

    pub fn confirmed_order(&self, id: &B256) -> Option<&Arc<Order>> {
        self.confirmed.orders.get(id)
    }
}

/// The newest view; `changed()` wakes on each block.
pub type ViewReceiver = watch::Receiver<Arc<ChainView>>;
