//! Inputs that the gateway brings itself: those that the manifest gives a URL.
//!
//! Each pass looks at what is missing now, so a restart only looks again. What
//! cannot be had is kept in memory, for the reports.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freehold_core::B256;
use freehold_core::manifest::ManifestInput;
use futures::{StreamExt, TryStreamExt};
use reqwest::Url;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::address::{self, ClientError, Policy};
use crate::digest::Digest;
use crate::gateway::Gateway;
use crate::leases::Lease;
use crate::problem::Failure;
use crate::store::{self, Interrupted};

/// Inputs that are fetched at a time.
const AT_A_TIME: usize = 4;
/// Between looks, if nothing wakes the loop.
const LOOK: Duration = Duration::from_secs(10);
/// Longest wait before an unreachable input is tried again (seconds).
const LONGEST_WAIT: u64 = 300;

/// Why an input cannot be had; the variant's name leads the message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("AddressRefused: {0}")]
    AddressRefused(String),
    #[error("DatasetUnreachable: {0}")]
    DatasetUnreachable(String),
    #[error("DigestMismatch: expected SHA-256 {expected}, the bytes at the URL have {found}")]
    DigestMismatch { expected: Digest, found: Digest },
    #[error("TooLarge: {0}")]
    TooLarge(String),
    #[error("StoreFull: {0}")]
    StoreFull(String),
    #[error("StoreFault: the gateway's store failed; it tries again")]
    StoreFault,
}

impl Error {
    /// The same bytes would meet the same fate.
    fn lasting(&self) -> bool {
        match self {
            Self::AddressRefused(_) | Self::DigestMismatch { .. } | Self::TooLarge(_) | Self::StoreFull(_) => true,
            Self::DatasetUnreachable(_) | Self::StoreFault => false,
        }
    }
}

type Key = (B256, String);

#[derive(Clone, Debug)]
struct Trouble {
    message: String,
    tries: u32,
    /// Unix seconds; nothing if another try is pointless until the manifest is sent again.
    again: Option<u64>,
}

#[derive(Default)]
pub struct Fetches {
    troubles: Mutex<HashMap<Key, Trouble>>,
    wake: Notify,
}

impl Fetches {
    /// By input.
    pub fn errors(&self, lease: B256) -> BTreeMap<String, String> {
        let troubles = self.troubles();
        let of_lease = troubles.iter().filter(|((id, _), _)| *id == lease);
        of_lease.map(|((_, name), trouble)| (name.clone(), trouble.message.clone())).collect()
    }

    /// Forgets what went wrong and looks at once.
    pub fn retry(&self, lease: B256) {
        self.troubles().retain(|(id, _), _| *id != lease);
        self.wake.notify_one();
    }

    fn troubles(&self) -> MutexGuard<'_, HashMap<Key, Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self, key: &Key, now: u64) -> bool {
        self.troubles().get(key).is_none_or(|trouble| trouble.again.is_some_and(|at| at <= now))
    }

    /// What to tell the tenant, if it is news.
    fn settle(&self, key: Key, outcome: &Result<u64, Error>, now: u64) -> Option<String> {
        let mut troubles = self.troubles();
        let Err(error) = outcome else {
            troubles.remove(&key);
            return None;
        };
        let known = troubles.get(&key);
        let tries = known.map_or(0, |trouble| trouble.tries);
        let again = (!error.lasting()).then(|| now + LONGEST_WAIT.min(2 << tries.min(16)));
        let message = error.to_string();
        let news = known.is_none_or(|trouble| trouble.message != message);
        troubles.insert(key, Trouble { message: message.clone(), tries: tries + 1, again });
        news.then_some(message)
    }
}

/// Fetches for ever.
pub async fn run(gateway: Arc<Gateway>, policy: Policy) {
    let mut running: HashSet<Key> = HashSet::new();
    let mut tasks: JoinSet<(Key, Arc<Lease>, Result<u64, Error>)> = JoinSet::new();
    let mut changes = gateway.leases.changes();
    loop {
        for (lease, input) in due(&gateway, &running).await {
            if tasks.len() >= AT_A_TIME {
                break;
            }
            let key = (lease.id, input.name.clone());
            running.insert(key.clone());
            let (gateway, policy) = (gateway.clone(), policy.clone());
            tasks.spawn(async move {
                let outcome = fetch(&gateway, &policy, &lease, &input).await;
                (key, lease, outcome)
            });
        }
        tokio::select! {
            Some(Ok((key, lease, outcome))) = tasks.join_next(), if !tasks.is_empty() => {
                running.remove(&key);
                settle(&gateway, &lease, key, outcome).await;
            }
            () = gateway.fetches.wake.notified() => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn settle(gateway: &Gateway, lease: &Lease, key: Key, outcome: Result<u64, Error>) {
    let name = key.1.clone();
    let news = gateway.fetches.settle(key, &outcome, (gateway.clock)());
    match (outcome, news) {
        (Ok(size), _) => {
            gateway.metrics.fetched(size);
            gateway.tell(lease, "InputFetched", format!("input `{name}`, {size} bytes")).await;
        }
        (Err(_), Some(message)) => gateway.tell(lease, "InputFetchFailed", format!("input `{name}`: {message}")).await,
        (Err(_), None) => {}
    }
}

/// Inputs of live leases that are missing, have a URL and are not to be waited for.
async fn due(gateway: &Gateway, running: &HashSet<Key>) -> Vec<(Arc<Lease>, ManifestInput)> {
    let now = (gateway.clock)();
    let mut found = Vec::new();
    for lease in gateway.leases.all().into_iter().filter(|lease| !lease.ended()) {
        match wanted(gateway, &lease).await {
            Ok(inputs) => found.extend(inputs.into_iter().map(|input| (lease.clone(), input))),
            Err(failure) => {
                tracing::warn!(lease = %lease.id, detail = failure.detail, "cannot look for missing inputs")
            }
        }
    }
    found.retain(|(lease, input)| {
        let key = (lease.id, input.name.clone());
        !running.contains(&key) && gateway.fetches.due(&key, now)
    });
    found
}

async fn wanted(gateway: &Gateway, lease: &Lease) -> Result<Vec<ManifestInput>, Failure> {
    let Some(manifest) = gateway.manifest(lease).await? else { return Ok(Vec::new()) };
    let mut wanted = Vec::new();
    for input in manifest.inputs {
        let digest: Digest = input.sha256.parse().map_err(Failure::internal)?;
        if input.uri.is_some() && gateway.store.artifact_size(lease.id, &digest).await?.is_none() {
            wanted.push(input);
        }
    }
    Ok(wanted)
}

async fn fetch(gateway: &Gateway, policy: &Policy, lease: &Lease, input: &ManifestInput) -> Result<u64, Error> {
    let text = input.uri.as_deref().unwrap_or_default();
    let url = Url::parse(text).map_err(|e| Error::AddressRefused(format!("the input's URL cannot be read: {e}")))?;
    let digest: Digest = input.sha256.parse().map_err(|_| Error::StoreFault)?;
    let client = policy.client(&url).map_err(|error| match error {
        ClientError::Refused(refused) => Error::AddressRefused(refused.to_string()),
        ClientError::Build(error) => {
            tracing::error!(lease = %lease.id, error = &error as &dyn std::error::Error, "cannot make an HTTP client");
            Error::DatasetUnreachable("the gateway cannot speak https: its image holds no certificates".into())
        }
    })?;
    let shown = address::shown(&url);
    let response = client.get(url).send().await.map_err(|error| unreachable(lease, &shown, &error))?;
    if !response.status().is_success() {
        let hint =
            if response.status().is_redirection() { "; redirects are not followed, name the final URL" } else { "" };
        return Err(Error::DatasetUnreachable(format!("{shown} answers {}{hint}", response.status())));
    }
    let used = gateway.store.used(lease.id).await.map_err(|_| Error::StoreFault)?;
    let free = gateway.store.quota().saturating_sub(used);
    let limit = if input.size > 0 { input.size.min(free) } else { free };
    let too_large = |size: Option<u64>| {
        let size = size.map_or_else(|| "more".to_owned(), |size| format!("{size} bytes"));
        Error::TooLarge(format!("{shown} has {size}; {limit} are stated by the task or left of the lease's quota"))
    };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large(response.content_length()));
    }
    let reserve = response.content_length().unwrap_or(limit);
    let body = response.bytes_stream().map_err(|e| Interrupted(e.to_string())).boxed();
    gateway.store.ingest(lease.id, &digest, reserve, body).await.map_err(|error| match error {
        store::Error::Digest { expected, found } => Error::DigestMismatch { expected, found },
        store::Error::TooLarge { .. } => too_large(None),
        store::Error::Cut { .. } => Error::DatasetUnreachable(format!("{shown} broke off")),
        store::Error::Quota { .. } => Error::StoreFull(error.to_string()),
        store::Error::Busy | store::Error::Offset { .. } | store::Error::Missing(_) => Error::StoreFault,
        store::Error::Backend(_) | store::Error::Record(_) => {
            tracing::error!(%error, "the store failed");
            Error::StoreFault
        }
    })
}

fn unreachable(lease: &Lease, shown: &str, error: &reqwest::Error) -> Error {
    if let Some(refused) = address::refusal_of(error) {
        return Error::AddressRefused(refused.to_string());
    }
    let kind = match error {
        error if error.is_timeout() => "does not answer in time",
        error if error.is_connect() => "cannot be connected to",
        _ => "does not answer properly",
    };
    tracing::info!(lease = %lease.id, error = error as &dyn std::error::Error, shown, "an input cannot be fetched");
    Error::DatasetUnreachable(format!("{shown} {kind}"))
}
