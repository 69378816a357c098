//! What the operator holds of each ComputeAccount that it serves: the signer,
//! the way to the chain, and what its outbox last found.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use freehold_api::{ChainTransaction, ComputeAccount};
use freehold_chain::outbox::NonceHealth;
use freehold_chain::rpc::{Depth, Rpc};
use freehold_chain::signer::Signer;
use freehold_core::money::Amount;
use freehold_core::order::OrderState;
use freehold_core::{Address, B256};
use futures::FutureExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use tokio::sync::watch;

use crate::goals;

/// One account that is served.
pub struct Account {
    pub name: String,
    pub signer: Arc<dyn Signer>,
    pub rpc: Rpc,
    pub depth: Depth,
    pub chain_id: u64,
    pub market: Address,
    /// Seconds between two blocks.
    pub block_time: u64,
    /// What the outbox last found; written by its worker alone.
    pub report: watch::Sender<Report>,
}

/// What the outbox found in its last pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Hash of the block that it was made at.
    pub block: B256,
    pub nonces: NonceHealth,
    /// Tokens that goals will take which no block holds yet.
    pub pending: Amount,
    /// The part of it that wallet and ledger can pay for.
    pub affordable: Amount,
}

/// The accounts that are served now.
#[derive(Clone, Default)]
pub struct Accounts(Arc<watch::Sender<BTreeMap<String, Arc<Account>>>>);

impl Accounts {
    pub fn insert(&self, account: Arc<Account>) {
        self.0.send_modify(|all| {
            all.insert(account.name.clone(), account);
        });
    }

    pub fn remove(&self, name: &str) {
        self.0.send_if_modified(|all| all.remove(name).is_some());
    }

    pub fn get(&self, name: &str) -> Option<Arc<Account>> {
        self.0.borrow().get(name).cloned()
    }

    pub fn all(&self) -> BTreeMap<String, Arc<Account>> {
        self.0.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Arc<Account>>> {
        self.0.subscribe()
    }
}

/// The release's ChainTransactions as the API server last told them. One cache
/// for all controllers; `chain_transaction` keeps it.
#[derive(Clone)]
pub struct Outbox {
    store: Store<ChainTransaction>,
    writer: Arc<Mutex<Option<Writer<ChainTransaction>>>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Default for Outbox {
    fn default() -> Self {
        let (store, writer) = reflector::store();
        Self { store, writer: Arc::new(Mutex::new(Some(writer))), changes: Arc::default() }
    }
}

impl Outbox {
    /// Every goal of an account, finished ones too.
    pub fn of(&self, account: &str) -> Vec<Arc<ChainTransaction>> {
        self.store.state_filter(|entry| entry.spec.account.as_str() == account)
    }

    /// Goals of an account that are still pursued.
    pub fn open(&self, account: &str) -> Vec<Arc<ChainTransaction>> {
        self.store.state_filter(|entry| entry.spec.account.as_str() == account && !goals::state(entry).is_final())
    }

    /// How many goals of any account are still pursued; nothing before the first listing is complete.
    pub fn unfinished(&self) -> Option<usize> {
        self.store.wait_until_ready().now_or_never()?.ok()?;
        Some(self.store.state_filter(|entry| !goals::state(entry).is_final()).len())
    }

    /// The first listing is complete.
    pub async fn ready(&self) -> bool {
        self.store.wait_until_ready().await.is_ok()
    }

    /// Wakes on each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn take_writer(&self) -> Option<Writer<ChainTransaction>> {
        self.writer.lock().ok()?.take()
    }

    pub(crate) fn apply(&self, writer: &mut Writer<ChainTransaction>, event: &watcher::Event<ChainTransaction>) {
        writer.apply_watcher_event(event);
        self.changes.send_modify(|count| *count += 1);
    }
}

type OrderStates = Vec<(B256, OrderState)>;

/// Live orders of accounts that were placed from elsewhere, as the last sweep saw them.
#[derive(Clone, Default)]
pub struct Foreign(Arc<Mutex<BTreeMap<String, OrderStates>>>);

impl Foreign {
    pub fn found(&self, account: &str, orders: OrderStates) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(account.to_owned(), orders);
    }

    /// Nothing before the first sweep.
    pub fn of(&self, account: &str) -> Option<OrderStates> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(account).cloned()
    }
}

/// Whether this release's operator serves the account.
pub fn is_ours(account: &ComputeAccount, release: &str) -> bool {
    account.spec.operator.as_str() == release
}
