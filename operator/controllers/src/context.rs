//! What every controller of one operator process shares.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use freehold_api::GROUP;
use freehold_chain::signer::Signer;
use freehold_chain::view::{ChainView, ViewReceiver};
use freehold_core::B256;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};

use crate::accounts::{Accounts, Foreign, Outbox};
use crate::live::Live;
use crate::metrics::Metrics;

/// Which controllers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    pub tenant: bool,
    pub provider: bool,
}

/// Settings of the release that the operator belongs to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the release: outbox, order ConfigMaps, ComputeLeases.
    pub namespace: String,
    /// `namespace.name`, as in `ComputeAccount.spec.operator`.
    pub release: String,
    pub roles: Roles,
    /// Image (by digest) of the built-in trainer.
    pub trainer_image: String,
    /// Image (by digest) of this binary: courier containers run it.
    pub courier_image: String,
    /// Courier listener of the provider's gateway, as the operator reaches it.
    pub gateway_internal_url: String,
    /// Courier listener as the lease's pods reach it (`http://host:port`), with the address of the host alias.
    pub gateway_pod_url: String,
    pub gateway_pod_ip: Option<String>,
    /// The tenant's artifact store.
    pub store: PathBuf,
    /// Addresses that tenants' gateways may have besides public ones (development clusters).
    pub allowed_cidrs: Vec<String>,
    /// Extended resource that the device plugin offers.
    pub gpu_resource: String,
    /// `builtin` or `external`.
    pub gpu_plugin: String,
    /// File of the projected token that a signer elsewhere knows this operator by.
    pub signer_token: PathBuf,
    /// UID of the kube-system namespace: the origin of this cluster's orders.
    pub cluster_uid: String,
}

/// Seconds since 1970; an argument wherever time matters, read only at the edge.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Views of the chain, one a ComputeAccount that this operator serves.
#[derive(Clone, Default)]
pub struct Views(Arc<RwLock<BTreeMap<String, ViewReceiver>>>);

impl Views {
    pub fn insert(&self, account: &str, view: ViewReceiver) {
        if let Ok(mut views) = self.0.write() {
            views.insert(account.to_owned(), view);
        }
    }

    pub fn remove(&self, account: &str) {
        if let Ok(mut views) = self.0.write() {
            views.remove(account);
        }
    }

    pub fn receiver(&self, account: &str) -> Option<ViewReceiver> {
        self.0.read().ok()?.get(account).cloned()
    }

    /// The newest view of `account`.
    pub fn get(&self, account: &str) -> Option<Arc<ChainView>> {
        self.0.read().ok()?.get(account).map(|view| view.borrow().clone())
    }
}

/// Signers of the accounts that this operator serves.
#[derive(Clone, Default)]
pub struct Signers(Arc<RwLock<BTreeMap<String, Arc<dyn Signer>>>>);

impl Signers {
    pub fn insert(&self, account: &str, signer: Arc<dyn Signer>) {
        if let Ok(mut signers) = self.0.write() {
            signers.insert(account.to_owned(), signer);
        }
    }

    pub fn remove(&self, account: &str) {
        if let Ok(mut signers) = self.0.write() {
            signers.remove(account);
        }
    }

    pub fn get(&self, account: &str) -> Option<Arc<dyn Signer>> {
        self.0.read().ok()?.get(account).cloned()
    }
}

/// Orders whose escrow is raised before it ends: that it ends soon is nothing to be told of.
#[derive(Clone, Default)]
pub struct KeptFunded(Arc<RwLock<BTreeSet<B256>>>);

impl KeptFunded {
    pub fn note(&self, order: B256, kept: bool) {
        if self.holds(&order) == kept {
            return;
        }
        if let Ok(mut orders) = self.0.write() {
            match kept {
                true => orders.insert(order),
                false => orders.remove(&order),
            };
        }
    }

    pub fn holds(&self, order: &B256) -> bool {
        self.0.read().is_ok_and(|orders| orders.contains(order))
    }
}

#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub settings: Arc<Settings>,
    pub views: Views,
    pub signers: Signers,
    /// Accounts with all that their outbox needs.
    pub accounts: Accounts,
    /// Cache of the release's ChainTransactions.
    pub outbox: Outbox,
    pub kept_funded: KeptFunded,
    pub metrics: Metrics,
    /// Orders of the accounts that were placed from elsewhere.
    pub foreign: Foreign,
    /// What the release has to bring to an end.
    pub live: Live,
    pub clock: Arc<dyn Clock>,
    pub recorder: Recorder,
}

impl Context {
    pub fn new(client: Client, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let reporter = Reporter { controller: format!("{GROUP}/operator"), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            settings: Arc::new(settings),
            views: Views::default(),
            signers: Signers::default(),
            accounts: Accounts::default(),
            outbox: Outbox::default(),
            kept_funded: KeptFunded::default(),
            metrics: Metrics::default(),
            foreign: Foreign::default(),
            live: Live::default(),
            clock,
            recorder,
        }
    }
}
