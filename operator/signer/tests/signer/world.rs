//! A signer on this machine, and an operator that calls it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy::consensus::TxEip1559;
use alloy::primitives::{Address, B256, TxKind, U256};
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::SolCall;
use freehold_api::Goal;
use freehold_chain::bindings::{Market, terms_to_contract};
use freehold_chain::signer::wire::SignTransaction;
use freehold_chain::signer::{RemoteSigner, SignRequest};
use freehold_core::order::{Terms, order_id, salt};
use freehold_gateway::reviews::{ReviewTokens, Reviews, Unavailable};
use freehold_gateway::serve;
use freehold_gateway::slots::Slots;
use freehold_signer::journal::Journal;
use freehold_signer::server::{self, Parts, Server};
use tokio::sync::watch;

pub const CHAIN: u64 = 31_337;
pub const NOW: u64 = 1_800_000_000;
pub const UNIT: u128 = 1_000_000;
pub const OPERATOR: &str = "system:serviceaccount:freehold-tenant:freehold-operator";

/// Believes tokens of the form `user:<name>`.
struct Reviewer;

#[async_trait::async_trait]
impl ReviewTokens for Reviewer {
    async fn user_of(&self, token: &str) -> Result<Option<String>, Unavailable> {
        match token {
            "broken" => Err(Unavailable("no API server".into())),
            token => Ok(token.strip_prefix("user:").map(str::to_owned)),
        }
    }
}

/// The contracts that the policy names.
#[derive(Clone, Copy)]
pub struct Contracts {
    pub market: Address,
    pub registry: Address,
    pub token: Address,
}

pub const CONTRACTS: Contracts = Contracts {
    market: Address::repeat_byte(0x4d),
    registry: Address::repeat_byte(0x52),
    token: Address::repeat_byte(0x54),
};

pub fn policy(contracts: Contracts, tokens: &str) -> String {
    serde_json::json!({
        "chainId": CHAIN, "market": contracts.market, "providerRegistry": contracts.registry,
        "token": { "address": contracts.token, "decimals": 6 }, "goals": Goal::NAMES, "gateways": ["*"],
        "period": "24h", "tokens": tokens, "fees": "1", "signaturesPerMinute": 100,
    })
    .to_string()
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub key: PrivateKeySigner,
    pub address: SocketAddr,
    time: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl World {
    pub async fn start() -> Self {
        Self::with(PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).expect("key"), CONTRACTS).await
    }

    pub async fn with(key: PrivateKeySigner, contracts: Contracts) -> Self {
        freehold_testkit::chain::install_tls();
        let mut world = Self {
            folder: tempfile::tempdir().expect("folder"),
            key,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            time: Arc::new(AtomicU64::new(NOW)),
            stop: watch::Sender::new(false),
            serving: None,
        };
        world.set_policy(&policy(contracts, "10"));
        world.serve().await;
        world
    }

    /// Another process on the same files and the same address.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.serve().await;
    }

    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(serving) = self.serving.take() {
            serving.await.expect("ends");
        }
    }

    async fn serve(&mut self) {
        let (journal, state) = Journal::open(&self.journal()).expect("journal");
        let time = self.time.clone();
        let clock: freehold_gateway::Clock = Arc::new(move || time.load(Ordering::SeqCst));
        let server = Arc::new(Server::new(Parts {
            key: self.key.clone(),
            policy: self.path("policy.yaml"),
            journal,
            state,
            reviews: Reviews::new(Arc::new(Reviewer), clock.clone()),
            operator: OPERATOR.into(),
            clock,
        }));
        let listener = serve::bind(self.address).await.expect("listens");
        self.address = listener.local_addr().expect("address");
        let (stop, stopped) = watch::channel(false);
        self.stop = stop;
        let routes = server::routes(server);
        self.serving = Some(tokio::spawn(serve::serve(listener, routes, Slots::new(64, 64), stopped)));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn journal(&self) -> PathBuf {
        self.path("journal.jsonl")
    }

    pub fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.journal()).expect("journal");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    pub fn set_policy(&self, text: &str) {
        std::fs::write(self.path("policy.yaml"), text).expect("policy");
    }

    pub fn pass_time(&self, seconds: u64) {
        self.time.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client whose token is `token`.
    pub async fn client(&self, token: &str) -> Result<RemoteSigner, freehold_chain::signer::Error> {
        let file = self.path(&format!("token-{}", token.replace([':', '/'], "-")));
        std::fs::write(&file, format!("{token}\n")).expect("token");
        RemoteSigner::connect(&self.url(), &file).await
    }

    pub async fn operator(&self) -> RemoteSigner {
        self.client(&format!("user:{OPERATOR}")).await.expect("the operator is known")
    }

    /// An order of so many tokens.
    pub fn place(&self, n: u32, tokens: u128) -> SignTransaction {
        let salt = salt("uid", n);
        let id = order_id(CHAIN, CONTRACTS.market, self.key.address(), salt);
        let call = Market::orderCall { salt, terms: terms_to_contract(&terms(tokens)), spec: b"{}".as_slice().into() };
        let goal = Goal::PlaceOrder { order_id: id.to_string().into(), order: "order".into() };
        transaction(goal, u64::from(n), CONTRACTS.market, call.abi_encode())
    }

    pub fn withdraw(&self, to: Address) -> SignTransaction {
        let call = Market::withdrawCall { token: CONTRACTS.token, amount: u128::MAX, to };
        transaction(
            Goal::Withdraw { amount: "1".into(), block: 1, orders: vec![] },
            0,
            CONTRACTS.market,
            call.abi_encode(),
        )
    }
}

pub fn transaction(goal: Goal, nonce: u64, to: Address, input: Vec<u8>) -> SignTransaction {
    let transaction = TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 200_000,
        max_fee_per_gas: 1_000_000_000,
        max_priority_fee_per_gas: 100_000_000,
        to: TxKind::Call(to),
        value: U256::ZERO,
        input: input.into(),
        ..TxEip1559::default()
    };
    SignTransaction { goal, transaction }
}

pub fn request(asked: &SignTransaction) -> SignRequest<'_> {
    SignRequest { goal: &asked.goal, stored: None, transaction: asked.transaction.clone() }
}

fn terms(tokens: u128) -> Terms {
    Terms {
        bond: UNIT,
        noShowPenalty: 1,
        ..freehold_testkit::chain::terms(CONTRACTS.token, tokens * UNIT, NOW + 300, b"{}")
    }
}
