//! The leases that the gateway knows: ComputeLeases of its own namespace,
//! parsed once, when they are seen.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use freehold_api::lease::{ComputeLease, Exit, LeaseInput, LeasePhase};
use freehold_core::{Address, B256};
use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use tokio::sync::watch;

use crate::digest::Digest;

/// A lease as far as the gateway cares.
#[derive(Clone, Debug)]
pub struct Lease {
    pub id: B256,
    pub tenant: Address,
    pub chain_id: u64,
    pub market: Address,
    pub manifest: Digest,
    pub inputs: Vec<LeaseInput>,
    /// Namespace of the work.
    pub namespace: String,
    pub phase: LeasePhase,
    pub exit: Option<Exit>,
}

impl Lease {
    /// Nothing, if the object is not what the operator writes.
    pub fn parse(object: &ComputeLease) -> Option<Self> {
        let status = object.status.clone().unwrap_or_default();
        let spec = &object.spec;
        Some(Self {
            id: spec.order_id.as_str().parse().ok()?,
            tenant: spec.tenant.as_str().parse().ok()?,
            chain_id: spec.chain_id,
            market: spec.market.as_str().parse().ok()?,
            manifest: spec.manifest_sha256.as_str().parse().ok()?,
            inputs: spec.inputs.clone(),
            namespace: spec.namespace.as_str().to_owned(),
            phase: status.phase.unwrap_or_default(),
            exit: status.exit,
        })
    }

    /// The chain says that the work may run.
    pub fn started(&self) -> bool {
        matches!(self.phase, LeasePhase::Running | LeasePhase::Finished | LeasePhase::Delivered)
    }

    /// No pod of this lease will write a log any more.
    pub fn ended(&self) -> bool {
        match self.phase {
            LeasePhase::AwaitingInputs | LeasePhase::Starting | LeasePhase::Running => false,
            LeasePhase::Finished | LeasePhase::Delivered | LeasePhase::Failed | LeasePhase::Closed => true,
        }
    }

    /// The input that an artifact is, if any.
    pub fn input_of(&self, digest: &Digest) -> Option<&LeaseInput> {
        self.inputs.iter().find(|input| input.sha256.as_str() == digest.as_str())
    }
}

type Known = HashMap<B256, Arc<Lease>>;

pub struct Leases {
    known: RwLock<Known>,
    /// Counts changes; 0 until everything was listed once.
    changes: watch::Sender<u64>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { known: RwLock::default(), changes: watch::Sender::new(0) }
    }
}

impl Leases {
    pub fn get(&self, id: B256) -> Option<Arc<Lease>> {
        self.read(|known| known.get(&id).cloned())
    }

    pub fn all(&self) -> Vec<Arc<Lease>> {
        self.read(|known| known.values().cloned().collect())
    }

    /// Everything was listed at least once.
    pub fn synced(&self) -> bool {
        *self.changes.borrow() > 0
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn insert(&self, lease: Lease) {
        self.change(|known| {
            known.insert(lease.id, Arc::new(lease));
        });
    }

    pub fn remove(&self, id: B256) {
        self.change(|known| {
            known.remove(&id);
        });
    }

    pub fn replace(&self, leases: Vec<Lease>) {
        self.change(|known| *known = leases.into_iter().map(|lease| (lease.id, Arc::new(lease))).collect());
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn change(&self, edit: impl FnOnce(&mut Known)) {
        edit(&mut self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Follows ComputeLeases for ever. While the API server is away the leases
/// stay as they were: tenants can still fetch what they paid for.
pub async fn follow(client: kube::Client, namespace: &str, leases: Arc<Leases>) {
    let api: Api<DeserializeGuard<ComputeLease>> = Api::namespaced(client, namespace);
    let mut events = watch_objects(api, watcher::Config::default()).default_backoff().boxed();
    let mut listed = Vec::new();
    loop {
        match events.try_next().await {
            Ok(Some(event)) => apply(&leases, &mut listed, event),
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "the watch on ComputeLeases broke; trying again"),
        }
    }
}

fn apply(leases: &Leases, listed: &mut Vec<Lease>, event: Event<DeserializeGuard<ComputeLease>>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => listed.extend(parse(object)),
        Event::InitDone => leases.replace(std::mem::take(listed)),
        Event::Apply(object) => parse(object).into_iter().for_each(|lease| leases.insert(lease)),
        Event::Delete(object) => parse(object).into_iter().for_each(|lease| leases.remove(lease.id)),
    }
}

fn parse(object: DeserializeGuard<ComputeLease>) -> Option<Lease> {
    match object.0 {
        Ok(object) => Lease::parse(&object),
        Err(invalid) => {
            tracing::warn!(name = ?invalid.metadata.name, error = %invalid.error, "ComputeLease cannot be read; ignored");
            None
        }
    }
}
