//! The gateway's state, and what it answers about a lease.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use freehold_core::B256;
use freehold_core::manifest::Manifest;
use freehold_core::wire::{Event, ExitReport, LeaseReport, WorkReport};
use http::StatusCode;

use crate::Clock;
use crate::args::Limits;
use crate::digest::Digest;
use crate::fetch::Fetches;
use crate::leases::{Lease, Leases};
use crate::logs::PodLogs;
use crate::metrics::Metrics;
use crate::problem::Failure;
use crate::reviews::Reviews;
use crate::slots::{Slot, Slots};
use crate::store::Store;

pub struct Gateway {
    pub leases: Arc<Leases>,
    pub store: Store,
    pub reviews: Reviews,
    pub pod_logs: Arc<dyn PodLogs>,
    pub fetches: Fetches,
    pub metrics: Metrics,
    pub clock: Clock,
    /// Hosts that tokens may be for.
    pub hosts: Vec<String>,
    /// User name of the provider's operator.
    pub operator_account: String,
    /// The store's folder, where it has one.
    pub folder: Option<PathBuf>,
    pub limits: Limits,
    uploads: Slots<B256>,
    follows: Slots<B256>,
    rate: Mutex<Rate>,
}

/// Uploads, and followed logs, of one lease at a time.
const EACH: usize = 4;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Tenant,
    Pods,
}

/// Requests in the current second.
#[derive(Default)]
struct Rate {
    second: u64,
    requests: HashMap<(B256, Side), u32>,
}

/// What a gateway is made of.
pub struct Parts {
    pub leases: Arc<Leases>,
    pub store: Store,
    pub reviews: Reviews,
    pub pod_logs: Arc<dyn PodLogs>,
    pub clock: Clock,
    pub hosts: Vec<String>,
    pub operator_account: String,
    pub folder: Option<PathBuf>,
    pub limits: Limits,
}

impl Gateway {
    pub fn new(parts: Parts) -> Self {
        Self {
            uploads: Slots::new(parts.limits.uploads, EACH),
            follows: Slots::new(parts.limits.follows, EACH),
            fetches: Fetches::default(),
            metrics: Metrics::default(),
            rate: Mutex::default(),
            leases: parts.leases,
            store: parts.store,
            reviews: parts.reviews,
            pod_logs: parts.pod_logs,
            clock: parts.clock,
            hosts: parts.hosts,
            operator_account: parts.operator_account,
            folder: parts.folder,
            limits: parts.limits,
        }
    }

    /// The lease of a path segment, if it is known here.
    pub fn lease(&self, id: &str) -> Result<Arc<Lease>, Failure> {
        let unknown = || Failure::not_found("no lease of this id is served here");
        // One spelling of an id only: `0x` and lower-case digits, as everywhere else.
        let id: B256 = id.parse().ok().filter(|parsed: &B256| parsed.to_string() == id).ok_or_else(unknown)?;
        self.leases.get(id).ok_or_else(|| if self.leases.synced() { unknown() } else { starting() })
    }

    /// Counts a request whose sender is known; a stranger's requests cost a lease nothing.
    pub fn count(&self, lease: B256, side: Side) -> Result<(), Failure> {
        let now = (self.clock)();
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if rate.second != now {
            *rate = Rate { second: now, requests: HashMap::new() };
        }
        let count = rate.requests.entry((lease, side)).or_default();
        *count += 1;
        if *count > self.limits.rate {
            return Err(Failure::busy(format!("more than {} requests a second for one lease", self.limits.rate)));
        }
        Ok(())
    }

    pub fn upload_slot(&self, lease: B256) -> Result<Slot<B256>, Failure> {
        self.uploads.take(lease).ok_or_else(|| Failure::busy("too many uploads at a time; try again in a second"))
    }

    pub fn follow_slot(&self, lease: B256) -> Result<Slot<B256>, Failure> {
        self.follows.take(lease).ok_or_else(|| Failure::busy("too many followed logs at a time; try again later"))
    }

    /// Notes something that the tenant can read later; losing a note is no reason to fail a request.
    pub async fn tell(&self, lease: &Lease, reason: &str, message: impl Into<String>) {
        let at = jiff::Timestamp::from_second(i64::try_from((self.clock)()).unwrap_or_default()).unwrap_or_default();
        let event = Event { at: at.to_string(), reason: reason.into(), message: message.into() };
        if let Err(error) = self.store.append_event(lease.id, &event).await {
            tracing::warn!(%error, lease = %lease.id, "cannot note an event");
        }
    }

    /// Takes the manifest that the order names.
    pub async fn take_manifest(&self, lease: &Lease, bytes: Bytes) -> Result<(), Failure> {
        let found = Digest::of(&bytes);
        if found != lease.manifest {
            return Err(Failure::digest(lease.manifest.as_str(), found.as_str()));
        }
        let manifest = Manifest::parse(&bytes).map_err(|e| Failure::unprocessable("bad-manifest", e.to_string()))?;
        check_inputs(lease, &manifest)?;
        if self.store.manifest(lease.id).await?.is_none() {
            self.store.put_manifest(lease.id, bytes).await?;
            self.tell(lease, "ManifestReceived", format!("manifest {found}")).await;
        }
        // Whoever sends the manifest again asks for another try at what could not be fetched.
        self.fetches.retry(lease.id);
        Ok(())
    }

    pub async fn manifest(&self, lease: &Lease) -> Result<Option<Manifest>, Failure> {
        match self.store.manifest(lease.id).await? {
            Some(bytes) => Manifest::parse(&bytes).map(Some).map_err(Failure::internal),
            None => Ok(None),
        }
    }

    pub async fn lease_report(&self, lease: &Lease) -> Result<LeaseReport, Failure> {
        let manifest = self.manifest(lease).await?;
        let fetched = |name: &str| {
            let inputs = manifest.as_ref().map(|m| m.inputs.as_slice()).unwrap_or_default();
            inputs.iter().any(|input| input.name == name && input.uri.is_some())
        };
        let missing = self.missing_inputs(lease).await?;
        Ok(LeaseReport {
            phase: format!("{:?}", lease.phase),
            manifest_held: manifest.is_some(),
            input_errors: self.input_errors(lease, &missing),
            missing_inputs: missing.into_iter().filter(|name| !fetched(name)).collect(),
            progress: self.store.progress(lease.id).await?,
            checkpoints: self.store.checkpoints(lease.id).await?,
            result: self.store.result(lease.id).await?.map(|digest| digest.to_string()),
            exit: lease.exit.as_ref().map(exit_report),
        })
    }

    pub async fn work_report(&self, lease: &Lease) -> Result<WorkReport, Failure> {
        let missing = self.missing_inputs(lease).await?;
        Ok(WorkReport {
            started: lease.started(),
            manifest_held: self.store.manifest(lease.id).await?.is_some(),
            input_errors: self.input_errors(lease, &missing),
            missing_inputs: missing,
            progress: self.store.progress(lease.id).await?,
            checkpoints: self.store.checkpoints(lease.id).await?,
            result: self.store.result(lease.id).await?.map(|digest| digest.to_string()),
        })
    }

    /// Names of inputs that are not held, whoever has to bring them.
    async fn missing_inputs(&self, lease: &Lease) -> Result<Vec<String>, Failure> {
        let mut missing = Vec::new();
        for input in &lease.inputs {
            let digest: Digest = input.sha256.as_str().parse().map_err(Failure::internal)?;
            if self.store.artifact_size(lease.id, &digest).await?.is_none() {
                missing.push(input.name.clone());
            }
        }
        Ok(missing)
    }

    fn input_errors(&self, lease: &Lease, missing: &[String]) -> BTreeMap<String, String> {
        let mut errors = self.fetches.errors(lease.id);
        errors.retain(|name, _| missing.contains(name));
        errors
    }
}

/// Until every lease was listed, none can be called unknown.
fn starting() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "the gateway has just started; try again in a second")
        .with("retry-after", "1")
}

/// The manifest's inputs must be those that the order was placed for.
fn check_inputs(lease: &Lease, manifest: &Manifest) -> Result<(), Failure> {
    let mut ordered: Vec<(&str, &str)> = lease.inputs.iter().map(|i| (i.name.as_str(), i.sha256.as_str())).collect();
    let mut named: Vec<(&str, &str)> = manifest.inputs.iter().map(|i| (i.name.as_str(), i.sha256.as_str())).collect();
    ordered.sort_unstable();
    named.sort_unstable();
    if ordered == named {
        return Ok(());
    }
    let detail = format!("the order names the inputs {ordered:?}, the manifest {named:?}; they must be the same");
    Err(Failure::unprocessable("other-inputs", detail))
}

/// Exits that are the task's own fault: another provider would see the same.
fn exit_report(exit: &freehold_api::lease::Exit) -> ExitReport {
    ExitReport {
        code: exit.code,
        reason: exit.reason.to_string(),
        message: exit.message.as_ref().map(ToString::to_string),
        failures: exit.failures,
        terminal: matches!(exit.reason.as_str(), "BadUsage" | "BadData" | "DiskExceeded"),
    }
}
