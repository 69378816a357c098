//! The tenant's side of a gateway.
//!
//! The address comes from the provider's registration on the chain, so it is
//! treated like any stranger's URL: see [`crate::address`].

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use freehold_core::B256;
use freehold_core::access::{self, Claims, Scope};
use freehold_core::wire::{Event, LeaseReport};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use reqwest::{Method, Url};

use crate::Clock;
use crate::address::{ClientError, Policy, Refused};
use crate::args::host_of;
use crate::digest::Digest;
use crate::transfer::{Authorize, Remote};

pub use crate::transfer::{Error, Source};

/// Seconds that a token is made for.
const LIFE: u64 = 300;
/// A token with less than this left is not used any more.
const MARGIN: u64 = 60;
/// Largest `events` that is read.
const EVENTS: u64 = 2 << 20;

/// Signs [`Claims::signing_hash`] with the tenant's account: r ‖ s ‖ v.
#[async_trait::async_trait]
pub trait SignAccess: Send + Sync {
    async fn sign(&self, claims: &Claims) -> Result<Vec<u8>, String>;
}

/// One lease at its provider's gateway.
pub struct GatewayClient {
    remote: Remote,
}

impl GatewayClient {
    pub fn new(
        gateway: &str,
        lease: B256,
        signer: Arc<dyn SignAccess>,
        clock: Clock,
        policy: &Policy,
    ) -> Result<Self, Error> {
        let url = Url::parse(gateway).map_err(|_| Refused::Url(gateway.chars().take(256).collect()))?;
        let host = host_of(&url).ok_or_else(|| Refused::Url(gateway.chars().take(256).collect()))?;
        let http = policy.client(&url).map_err(|error| match error {
            ClientError::Refused(refused) => Error::Refused(refused),
            ClientError::Build(error) => Error::Malformed(format!("no HTTP client can be made: {error}")),
        })?;
        let auth = Arc::new(Tokens { lease, host, signer, clock, made: Mutex::default() });
        Ok(Self { remote: Remote::new(http, &url, "leases", &lease.to_string(), auth) })
    }

    /// Sends smaller pieces than a gateway would take.
    pub fn with_chunk(self, chunk: u64) -> Self {
        Self { remote: self.remote.with_chunk(chunk) }
    }

    pub async fn put_manifest(&self, bytes: Bytes) -> Result<(), Error> {
        self.remote.put(Method::PUT, "/manifest", bytes).await
    }

    pub async fn status(&self) -> Result<LeaseReport, Error> {
        Ok(self.remote.json::<LeaseReport>("/status", Scope::Read).await?.bounded())
    }

    /// Oldest first; lines that are no events are left out.
    pub async fn events(&self) -> Result<Vec<Event>, Error> {
        let bytes = self.remote.get("/events", Scope::Read, EVENTS).await?;
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Uploads what is not held yet, from where an earlier attempt stopped.
    pub async fn upload_artifact(&self, sha256: &str, source: &Source) -> Result<(), Error> {
        self.remote.upload(&parse(sha256)?, source).await
    }

    /// Brings an artifact of at most `limit` bytes to `to`, which appears only
    /// when the digest is right. Called again, it goes on where it stopped.
    pub async fn download_artifact(&self, sha256: &str, limit: u64, to: &Path) -> Result<u64, Error> {
        self.remote.download(&parse(sha256)?, limit, to).await
    }

    /// A small artifact, such as `result.json`.
    pub async fn read_artifact(&self, sha256: &str, limit: u64) -> Result<Bytes, Error> {
        let expected = parse(sha256)?;
        let bytes = self.remote.get(&format!("/artifacts/{expected}"), Scope::Read, limit).await?;
        let found = Digest::of(&bytes);
        if found == expected { Ok(bytes) } else { Err(Error::Digest { what: "artifact".into(), expected, found }) }
    }

    /// The trainer's log; with `follow` until the lease ends.
    pub async fn logs(
        &self,
        follow: bool,
        tail: Option<u32>,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let mut path = format!("/logs?follow={follow}");
        if let Some(lines) = tail {
            path.push_str(&format!("&tail={lines}"));
        }
        let request = self.remote.request(Method::GET, &path, &[Scope::Logs]).await?;
        let response = self.remote.send(request).await?;
        Ok(response.bytes_stream().map_err(|e| Error::Malformed(e.to_string())).boxed())
    }
}

fn parse(sha256: &str) -> Result<Digest, Error> {
    sha256.parse().map_err(|e: crate::digest::Malformed| Error::Malformed(e.to_string()))
}

/// Tokens by scopes, made when needed and used for as long as they last.
struct Tokens {
    lease: B256,
    host: String,
    signer: Arc<dyn SignAccess>,
    clock: Clock,
    made: Mutex<HashMap<String, (u64, String)>>,
}

#[async_trait::async_trait]
impl Authorize for Tokens {
    async fn header(&self, scopes: &[Scope]) -> Result<String, Error> {
        let (scopes, now) = (access::scopes(scopes), (self.clock)());
        let known = {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.get(&scopes).filter(|(expiry, _)| *expiry > now + MARGIN).map(|(_, header)| header.clone())
        };
        if let Some(header) = known {
            return Ok(header);
        }
        let claims = Claims { lease: self.lease, host: self.host.clone(), scopes: scopes.clone(), expiry: now + LIFE };
        let signature = self.signer.sign(&claims).await.map_err(Error::Sign)?;
        let header = claims.header(&signature).map_err(|e| Error::Sign(e.to_string()))?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.insert(scopes, (claims.expiry, header.clone()));
        Ok(header)
    }
}
