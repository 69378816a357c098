use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use freehold_api::lease::{LeaseInput, LeasePhase};
use freehold_core::access::{Claims, Scope, scopes};
use freehold_core::manifest::{Manifest, ManifestInput};
use freehold_core::{Address, B256};
use freehold_gateway::address::Policy;
use freehold_gateway::client::{GatewayClient, SignAccess};
use freehold_gateway::courier::PodArgs;
use freehold_gateway::digest::Digest;
use freehold_gateway::gateway::{Gateway, Parts};
use freehold_gateway::leases::{Lease, Leases};
use freehold_gateway::logs::{PodLog, PodLogs, Query};
use freehold_gateway::reviews::{ReviewTokens, Reviews, Unavailable};
use freehold_gateway::slots::Slots;
use freehold_gateway::store::Store;
use freehold_gateway::transfer::Remote;
use freehold_gateway::{Clock, Limits, fetch, public, serve, work};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub const CHAIN: u64 = 31337;
pub const NOW: u64 = 1_800_000_000;
pub const OPERATOR: &str = "system:serviceaccount:freehold-provider:freehold-operator";
pub const QUOTA: u64 = 1 << 20;

pub fn market() -> Address {
    Address::repeat_byte(0x4d)
}

pub fn order() -> B256 {
    B256::repeat_byte(0x0a)
}

/// Signs with the tenant's key.
pub struct Wallet(pub PrivateKeySigner);

impl Wallet {
    pub fn new(seed: u8) -> Self {
        Self(PrivateKeySigner::from_bytes(&B256::repeat_byte(seed)).unwrap())
    }

    pub fn header(&self, claims: &Claims) -> String {
        let hash = claims.signing_hash(CHAIN, market());
        claims.header(&self.0.sign_hash_sync(&hash).unwrap().as_bytes()).unwrap()
    }
}

#[async_trait::async_trait]
impl SignAccess for Wallet {
    async fn sign(&self, claims: &Claims) -> Result<Vec<u8>, String> {
        let hash = claims.signing_hash(CHAIN, market());
        Ok(self.0.sign_hash_sync(&hash).unwrap().as_bytes().to_vec())
    }
}

/// Believes tokens of the form `user:<name>`.
pub struct Reviewer;

#[async_trait::async_trait]
impl ReviewTokens for Reviewer {
    async fn user_of(&self, token: &str) -> Result<Option<String>, Unavailable> {
        match token {
            "broken" => Err(Unavailable("no API server".into())),
            token => Ok(token.strip_prefix("user:").map(str::to_owned)),
        }
    }
}

pub struct NoLogs;

#[async_trait::async_trait]
impl PodLogs for NoLogs {
    async fn open(&self, _: &str, _: Query, _: &HashSet<String>) -> Result<Option<PodLog>, String> {
        Ok(None)
    }
}

/// A gateway on this machine, and the lease of one tenant.
pub struct World {
    pub folder: tempfile::TempDir,
    pub gateway: Arc<Gateway>,
    pub leases: Arc<Leases>,
    pub public: SocketAddr,
    pub courier: SocketAddr,
    pub wallet: Arc<Wallet>,
    time: Arc<AtomicU64>,
    logs: Arc<dyn PodLogs>,
    stop: watch::Sender<bool>,
    servers: Option<tokio::task::JoinHandle<()>>,
}

impl World {
    pub async fn start() -> Self {
        Self::with_logs(Arc::new(NoLogs)).await
    }

    pub async fn with_logs(logs: Arc<dyn PodLogs>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let leases = Arc::new(Leases::default());
        leases.replace(Vec::new());
        let time = Arc::new(AtomicU64::new(NOW));
        let (public, courier) = (listen("127.0.0.1:0").await, listen("127.0.0.1:0").await);
        let addresses = (public.local_addr().unwrap(), courier.local_addr().unwrap());
        let gateway = assemble(folder.path(), &leases, &time, &logs, addresses.0);
        let mut world = Self {
            folder,
            gateway,
            leases,
            public: addresses.0,
            courier: addresses.1,
            wallet: Arc::new(Wallet::new(7)),
            time,
            logs,
            stop: watch::Sender::new(false),
            servers: None,
        };
        world.serve(public, courier);
        world
    }

    fn serve(&mut self, public: TcpListener, courier: TcpListener) {
        let (stop, stopped) = watch::channel(false);
        let (outer, inner) = (public::routes(self.gateway.clone()), work::routes(self.gateway.clone()));
        self.stop = stop;
        self.servers = Some(tokio::spawn(async move {
            let outer = serve::serve(public, outer, Slots::new(64, 64), stopped.clone());
            futures::future::join(outer, serve::serve(courier, inner, Slots::new(64, 64), stopped)).await;
        }));
    }

    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(servers) = self.servers.take() {
            servers.await.unwrap();
        }
    }

    /// Another process on the same folder and the same addresses.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.gateway = assemble(self.folder.path(), &self.leases, &self.time, &self.logs, self.public);
        let (public, courier) = (listen(&self.public.to_string()).await, listen(&self.courier.to_string()).await);
        self.serve(public, courier);
    }

    pub fn pass_time(&self, seconds: u64) {
        self.time.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let time = self.time.clone();
        Arc::new(move || time.load(Ordering::SeqCst))
    }

    /// The tenant's lease, whose manifest names these inputs; returns the manifest's bytes.
    pub fn lease(&self, inputs: &[ManifestInput]) -> Vec<u8> {
        let manifest = manifest(inputs).to_bytes().unwrap();
        self.leases.insert(Lease {
            id: order(),
            tenant: self.wallet.0.address(),
            chain_id: CHAIN,
            market: market(),
            manifest: Digest::of(&manifest),
            inputs: inputs.iter().map(lease_input).collect(),
            namespace: "fh-lease-1".into(),
            phase: LeasePhase::AwaitingInputs,
            exit: None,
        });
        manifest
    }

    pub fn enter(&self, phase: LeasePhase) {
        let lease = self.leases.get(order()).unwrap();
        self.leases.insert(Lease { phase, ..(*lease).clone() });
    }

    pub fn client(&self) -> GatewayClient {
        let policy = Policy { allowed: vec!["127.0.0.0/8".parse().unwrap()], refused: Vec::new() };
        let url = format!("http://{}", self.public);
        GatewayClient::new(&url, order(), self.wallet.clone(), self.clock(), &policy).unwrap()
    }

    /// A pod of the lease, or whoever else `user` is.
    pub fn pod(&self, user: &str) -> Remote {
        let token_file = self.folder.path().join(format!("token-{}", user.replace([':', '/'], "-")));
        std::fs::write(&token_file, format!("user:{user}\n")).unwrap();
        let args = PodArgs {
            gateway_url: format!("http://{}", self.courier),
            order_id: order().to_string(),
            token_file,
            root: self.folder.path().join("pod"),
        };
        args.remote().unwrap()
    }

    pub fn courier_pod(&self) -> Remote {
        self.pod("system:serviceaccount:fh-lease-1:courier")
    }

    /// Fetches inputs in the background, as the gateway does.
    pub fn fetch_inputs(&self, policy: Policy) {
        tokio::spawn(fetch::run(self.gateway.clone(), policy));
    }

    pub fn claims(&self, wanted: &[Scope]) -> Claims {
        Claims { lease: order(), host: self.public.to_string(), scopes: scopes(wanted), expiry: NOW + 300 }
    }

    pub fn artifact_file(&self, digest: &str) -> std::path::PathBuf {
        let lease = format!("leases/{}/artifacts/{digest}", hex::encode(order()));
        self.folder.path().join("store").join(lease)
    }
}

fn assemble(
    folder: &Path,
    leases: &Arc<Leases>,
    time: &Arc<AtomicU64>,
    logs: &Arc<dyn PodLogs>,
    public: SocketAddr,
) -> Arc<Gateway> {
    let time = time.clone();
    let clock: Clock = Arc::new(move || time.load(Ordering::SeqCst));
    Arc::new(Gateway::new(Parts {
        leases: leases.clone(),
        store: Store::open(&folder.join("store"), QUOTA).unwrap(),
        reviews: Reviews::new(Arc::new(Reviewer), clock.clone()),
        pod_logs: logs.clone(),
        clock,
        hosts: vec!["gateway.example.org".into(), public.to_string()],
        operator_account: OPERATOR.into(),
        folder: None,
        limits: Limits { rate: 100_000, ..Limits::default() },
    }))
}

async fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).await.unwrap()
}

pub fn input(name: &str, bytes: &[u8]) -> ManifestInput {
    ManifestInput {
        name: name.into(),
        sha256: Digest::of(bytes).to_string(),
        size: bytes.len() as u64,
        file_name: format!("{name}.csv"),
        uri: None,
    }
}

fn lease_input(input: &ManifestInput) -> LeaseInput {
    LeaseInput { name: input.name.clone(), sha256: input.sha256.as_str().into(), size: input.size }
}

pub fn manifest(inputs: &[ManifestInput]) -> Manifest {
    Manifest {
        api_version: "freehold.dev/v1alpha1".into(),
        kind: "TrainingTask".into(),
        name: "digits".into(),
        namespace: "demo".into(),
        uid: "5b1f".into(),
        attempt: 0,
        class: "none".into(),
        image: format!("freehold.dev/trainer@sha256:{}", "0".repeat(64)),
        args: vec!["train".into()],
        recipe: None,
        output: None,
        inputs: inputs.to_vec(),
        resources: Default::default(),
        backoff_limit: 3,
        deadline_seconds: 3600,
        runtime_class: None,
        resume_step: None,
    }
}

/// Waits for a condition, at most a minute.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

/// Bytes that differ from place to place.
pub fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
