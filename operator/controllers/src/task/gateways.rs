//! The way to providers' gateways, with calls signed by the account that leased.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use freehold_chain::failpoint::crossing;
use freehold_chain::signer::Signer;
use freehold_core::access::Claims;
use freehold_core::wire::LeaseReport;
use freehold_core::{Address, B256};
use freehold_gateway::address::Policy;
use freehold_gateway::client::{GatewayClient, SignAccess, Source};

use crate::context::Context;

/// A gateway that takes longer to say how a lease is doing counts as silent.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// Transfers are resumable: a pass does its share and gives other work its turn.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("account `{0}` has no signer: see its conditions")]
    NoSigner(String),
    #[error("{0}")]
    Policy(String),
    #[error(transparent)]
    Call(#[from] freehold_gateway::client::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl Error {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call(freehold_gateway::client::Error::Answer { status: 404, .. }))
    }
}

/// Which lease, where, and who asks.
#[derive(Clone, Debug)]
pub struct Lease {
    pub id: B256,
    pub account: String,
    pub gateway: String,
    pub chain_id: u64,
    pub market: Address,
}

/// What a tenant's operator does at a gateway.
#[async_trait]
pub trait Gateways: Send + Sync {
    async fn status(&self, lease: &Lease) -> Result<LeaseReport, Error>;
    async fn put_manifest(&self, lease: &Lease, bytes: Vec<u8>) -> Result<(), Error>;
    async fn upload(&self, lease: &Lease, sha256: &str, from: &Path) -> Result<(), Error>;
    /// `to` appears only with the right digest; called again, it goes on where it stopped.
    async fn download(&self, lease: &Lease, sha256: &str, limit: u64, to: &Path) -> Result<(), Error>;
}

/// Clients that are kept; beyond, all are made anew.
const KEPT: usize = 256;

/// Gateways over HTTP.
pub struct Remote {
    ctx: Context,
    policy: Policy,
    /// A client signs a token once for all the calls of its life: a signer elsewhere counts what it signs.
    clients: Mutex<HashMap<(B256, String), Client>>,
}

struct Client {
    signer: Arc<dyn Signer>,
    gateway: Arc<GatewayClient>,
}

impl Remote {
    pub fn new(ctx: Context) -> Result<Self, Error> {
        let allowed = ctx
            .settings
            .allowed_cidrs
            .iter()
            .map(|text| text.parse())
            .collect::<Result<Vec<_>, String>>()
            .map_err(Error::Policy)?;
        Ok(Self { ctx, policy: Policy { allowed, refused: Vec::new() }, clients: Mutex::default() })
    }

    fn client(&self, lease: &Lease) -> Result<Arc<GatewayClient>, Error> {
        let signer = self.ctx.signers.get(&lease.account).ok_or_else(|| Error::NoSigner(lease.account.clone()))?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (lease.id, lease.gateway.clone());
        if let Some(known) = clients.get(&key).filter(|known| Arc::ptr_eq(&known.signer, &signer)) {
            return Ok(known.gateway.clone());
        }
        let gateway = Arc::new(self.make(lease, signer.clone())?);
        if clients.len() >= KEPT {
            clients.clear();
        }
        clients.insert(key, Client { signer, gateway: gateway.clone() });
        Ok(gateway)
    }

    fn make(&self, lease: &Lease, signer: Arc<dyn Signer>) -> Result<GatewayClient, Error> {
        let signer = Arc::new(Signing { signer, chain_id: lease.chain_id, market: lease.market });
        let clock = self.ctx.clock.clone();
        let seconds: freehold_gateway::Clock =
            Arc::new(move || u64::try_from(clock.now().as_second()).unwrap_or_default());
        Ok(GatewayClient::new(&lease.gateway, lease.id, signer, seconds, &self.policy)?)
    }
}

struct Signing {
    signer: Arc<dyn Signer>,
    chain_id: u64,
    market: Address,
}

#[async_trait]
impl SignAccess for Signing {
    async fn sign(&self, claims: &Claims) -> Result<Vec<u8>, String> {
        let signature = self.signer.sign_access(claims, self.chain_id, self.market).await;
        signature.map(|s| s.to_vec()).map_err(|e| e.to_string())
    }
}

async fn within<T>(
    name: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, freehold_gateway::client::Error>>,
) -> Result<T, Error> {
    match crossing(|| format!("gateway.{name}"), tokio::time::timeout(limit, call)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::Timeout(limit)),
    }
}

#[async_trait]
impl Gateways for Remote {
    async fn status(&self, lease: &Lease) -> Result<LeaseReport, Error> {
        within("status", STATUS_TIMEOUT, self.client(lease)?.status()).await
    }

    async fn put_manifest(&self, lease: &Lease, bytes: Vec<u8>) -> Result<(), Error> {
        within("manifest", TRANSFER_TIMEOUT, self.client(lease)?.put_manifest(bytes.into())).await
    }

    async fn upload(&self, lease: &Lease, sha256: &str, from: &Path) -> Result<(), Error> {
        let source = Source::open(from)?;
        within("upload", TRANSFER_TIMEOUT, self.client(lease)?.upload_artifact(sha256, &source)).await
    }

    async fn download(&self, lease: &Lease, sha256: &str, limit: u64, to: &Path) -> Result<(), Error> {
        within("download", TRANSFER_TIMEOUT, self.client(lease)?.download_artifact(sha256, limit, to)).await.map(|_| ())
    }
}
