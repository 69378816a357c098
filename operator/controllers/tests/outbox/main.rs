//! The outbox on a real API server and a real EVM node. The operator's part
//! runs in a process of its own (this test binary again), so that it can be
//! killed for real. Needs a cluster with Freehold's CRDs:
//! `KUBECONFIG=… cargo test -p freehold-controllers --test outbox -- --ignored`.

#![allow(clippy::panic)] // a test may

mod batch;
mod signer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{B256, U64, U256};
use freehold_api::account::{Chain, ComputeAccountSpec, Confirmations, Role, SecretKey, SignerRef, Windows};
use freehold_api::transaction::TransactionState;
use freehold_api::{ChainTransaction, ComputeAccount, Goal, conditions};
use freehold_chain::calldata::StoredOrder;
use freehold_controllers::context::{Context, Roles, Settings, SystemClock};
use freehold_controllers::{chain_transaction, compute_account, crossings, goals};
use freehold_core::order::{order_id, salt};
use freehold_testkit::chain::{ACCOUNTS, Anvil, CHAIN_ID, install_tls, terms};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::{Config, ResourceExt};
use serde_json::json;
use tokio::process::{Child, Command};

const TOKENS: u128 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// Set for the process that plays the operator.
const NAMESPACE: &str = "FREEHOLD_TEST_NAMESPACE";
/// The operator's token for a signer elsewhere.
const TOKEN: &str = "FREEHOLD_TEST_TOKEN";

fn settings(namespace: &str) -> Settings {
    Settings {
        namespace: namespace.into(),
        release: format!("{namespace}.freehold"),
        roles: Roles { tenant: true, provider: false },
        trainer_image: String::new(),
        courier_image: String::new(),
        gateway_internal_url: String::new(),
        gateway_pod_url: String::new(),
        gateway_pod_ip: None,
        store: PathBuf::new(),
        allowed_cidrs: vec![],
        gpu_resource: "nvidia.com/gpu".into(),
        gpu_plugin: "builtin".into(),
        signer_token: std::env::var_os(TOKEN).unwrap_or_default().into(),
        cluster_uid: String::new(),
    }
}

async fn context(namespace: &str) -> Context {
    install_tls();
    let config = Config::infer().await.expect("KUBECONFIG names a cluster");
    let client = crossings::client(config).expect("client");
    Context::new(client, settings(namespace), Arc::new(SystemClock))
}

/// The operator: nothing on its own, everything when a test below starts this binary again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of the tests below"]
async fn operator_process() {
    let Ok(namespace) = std::env::var(NAMESPACE) else { return };
    let ctx = context(&namespace).await;
    let outcome = tokio::select! {
        outcome = compute_account::run(ctx.clone()) => outcome.map_err(|error| error.to_string()),
        outcome = chain_transaction::run(ctx) => outcome.map_err(|error| error.to_string()),
    };
    panic!("the operator ended: {outcome:?}");
}

/// A namespace with an account of its own on a chain of its own; gone with `clean`.
struct Site {
    ctx: Context,
    anvil: Anvil,
    name: String,
    folder: tempfile::TempDir,
    signer: SignerRef,
}

impl Site {
    async fn new(test: &str) -> Self {
        let secret = SecretKey { name: "key".into(), key: "key".into() };
        Self::with(test, SignerRef { secret: Some(secret), ..SignerRef::default() }).await
    }

    async fn with(test: &str, signer: SignerRef) -> Self {
        let name = format!("outbox-{test}-{}", std::process::id());
        let ctx = context(&name).await;
        let anvil = Anvil::start().await.expect("anvil");
        anvil.mint(ACCOUNTS[1].0, 10 * TOKENS).await.expect("mint");
        anvil.automine(false).await.expect("automine off");
        anvil.mine_every(1).await.expect("a block a second");
        let site = Self { ctx, anvil, name, folder: tempfile::tempdir().expect("folder"), signer };
        site.create().await;
        site
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.ctx.client.clone(), &self.name)
    }

    async fn create(&self) {
        let named = |name: &str| ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        let params = PostParams::default();
        let namespaces: Api<Namespace> = Api::all(self.ctx.client.clone());
        namespaces
            .create(&params, &Namespace { metadata: named(&self.name), ..Namespace::default() })
            .await
            .expect("namespace");
        let data = BTreeMap::from([("key".to_owned(), ByteString(ACCOUNTS[1].1.as_bytes().to_vec()))]);
        self.api()
            .create(&params, &Secret { metadata: named("key"), data: Some(data), ..Secret::default() })
            .await
            .expect("secret");
        let accounts: Api<ComputeAccount> = Api::all(self.ctx.client.clone());
        accounts.create(&params, &ComputeAccount::new(&self.name, self.account())).await.expect("account");
    }

    fn account(&self) -> ComputeAccountSpec {
        let contracts = self.anvil.contracts;
        ComputeAccountSpec {
            role: Role::Tenant,
            chain: Chain {
                quorum: None,
                chain_id: CHAIN_ID,
                rpc_urls: vec![self.anvil.url.as_str().into()],
                block_time: "1s".into(),
                windows: Windows::default(),
            },
            market: contracts.market.to_string().into(),
            provider_registry: contracts.provider_registry.to_string().into(),
            token: contracts.token.to_string().into(),
            address: Some(ACCOUNTS[1].0.to_string().into()),
            signer_ref: self.signer.clone(),
            confirmations: Confirmations { blocks: Some(2), finalized: false },
            caps: None,
            settle_every: None,
            operator: self.ctx.settings.release.as_str().into(),
        }
    }

    fn operator(&self, failpoints: &str) -> Child {
        std::fs::write(self.folder.path().join("armed"), failpoints.replace(',', "\n")).expect("armed");
        let log = std::fs::File::create(self.folder.path().join("operator.log")).expect("log");
        Command::new(std::env::current_exe().expect("this binary"))
            .args(["--ignored", "--exact", "operator_process", "--nocapture"])
            .env(NAMESPACE, &self.name)
            .env("FREEHOLD_FAILPOINTS", self.folder.path())
            .env(TOKEN, self.token())
            .stdout(Stdio::from(log.try_clone().expect("log")))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .expect("operator starts")
    }

    /// Runs the operator, again each time it dies, until `done`.
    async fn run_until(&self, failpoints: &str, what: &str, done: impl AsyncFn() -> bool) -> u32 {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut operator = self.operator(failpoints);
        let mut deaths = 0;
        let mut looks = tokio::time::interval(Duration::from_millis(300));
        while !done().await {
            assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.log());
            tokio::select! {
                _ = operator.wait() => {
                    deaths += 1;
                    operator = self.operator(failpoints);
                }
                _ = looks.tick() => {}
            }
        }
        operator.kill().await.expect("operator ends");
        deaths
    }

    fn token(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("operator.log")).unwrap_or_default()
    }

    async fn stored(&self, attempt: u32) -> (B256, StoredOrder) {
        let block = self.anvil.rpc("eth_getBlockByNumber", json!(["latest", false])).await.expect("block");
        let now: U64 = serde_json::from_value(block["timestamp"].clone()).expect("timestamp");
        let spec = b"{}".to_vec();
        let terms = terms(self.anvil.contracts.token, TOKENS, now.to::<u64>() + 300, &spec);
        let stored = StoredOrder { terms, salt: salt("uid", attempt), spec };
        (order_id(CHAIN_ID, self.anvil.contracts.market, ACCOUNTS[1].0, stored.salt), stored)
    }

    async fn place(&self, attempt: u32) -> String {
        let (id, stored) = self.stored(attempt).await;
        let name = format!("order-{attempt}");
        let data = Some(stored.to_data().expect("data"));
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        self.api()
            .create(&PostParams::default(), &ConfigMap { metadata, data, ..ConfigMap::default() })
            .await
            .expect("order stored");
        let goal = Goal::PlaceOrder { order_id: id.to_string().into(), order: name.into() };
        goals::ensure(&self.ctx, &self.name, goal, None).await.expect("goal").name_any()
    }

    async fn goal(&self, name: &str) -> ChainTransaction {
        self.api().get(name).await.expect("goal")
    }

    async fn is(&self, name: &str, state: TransactionState) -> bool {
        goals::state(&self.goal(name).await) == state
    }

    async fn status(&self) -> freehold_api::account::ComputeAccountStatus {
        let accounts: Api<ComputeAccount> = Api::all(self.ctx.client.clone());
        accounts.get(&self.name).await.expect("account").status.unwrap_or_default()
    }

    async fn wallet(&self) -> u128 {
        let data = format!("0x70a08231{:0>64}", hex::encode(ACCOUNTS[1].0));
        let balance = self
            .anvil
            .rpc("eth_call", json!([{ "to": self.anvil.contracts.token, "data": data }, "latest"]))
            .await
            .expect("balance");
        let balance: U256 = serde_json::from_value(balance).expect("number");
        balance.to()
    }

    async fn nonce(&self) -> u64 {
        let nonce = self.anvil.rpc("eth_getTransactionCount", json!([ACCOUNTS[1].0, "latest"])).await.expect("nonce");
        let nonce: U64 = serde_json::from_value(nonce).expect("number");
        nonce.to()
    }

    async fn clean(self) {
        let accounts: Api<ComputeAccount> = Api::all(self.ctx.client.clone());
        accounts.delete(&self.name, &DeleteParams::default()).await.expect("account deleted");
        let namespaces: Api<Namespace> = Api::all(self.ctx.client.clone());
        namespaces.delete(&self.name, &DeleteParams::default()).await.expect("namespace deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with Freehold's CRDs (KUBECONFIG)"]
async fn killed_at_every_point_an_order_is_placed_once() {
    let site = Site::new("killed").await;
    let first = site.nonce().await;
    let goal = site.place(0).await;
    let released =
        async || site.is(&goal, TransactionState::Confirmed).await && site.status().await.in_flight.is_empty();
    let deaths = site.run_until("all", "the order is confirmed", released).await;

    let struck: BTreeSet<String> = std::fs::read_to_string(site.folder.path().join("struck"))
        .expect("struck")
        .lines()
        .map(str::to_owned)
        .collect();
    for point in [
        "outbox.allocating",
        "outbox.allocated",
        "outbox.signed",
        "outbox.hashed",
        "outbox.persisted",
        "outbox.broadcast",
        "outbox.marked",
    ] {
        assert!(struck.contains(point), "never died at {point}: {struck:?}");
    }
    assert_eq!(deaths as usize, struck.len());
    assert_eq!(site.wallet().await, 9 * TOKENS, "funded once");
    assert_eq!(site.nonce().await - first, 2, "one approval and one order");
    let status = site.goal(&goal).await.status.expect("status");
    assert_eq!(status.nonce, Some(first + 1));
    assert!(status.block.is_some() && status.gas_used.is_some() && status.fee.is_some() && status.hash.is_some());
    site.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with Freehold's CRDs (KUBECONFIG)"]
async fn a_nonce_whose_goal_is_lost_is_filled() {
    let site = Site::new("void").await;
    let first = site.nonce().await;
    site.place(0).await;
    let mut operator = site.operator("outbox.allocated");
    tokio::time::timeout(PATIENCE, operator.wait()).await.expect("dies in time").expect("operator dies");
    let held = site.status().await.in_flight;
    assert_eq!(held.iter().map(|held| (held.nonce, held.hashes.len())).collect::<Vec<_>>(), vec![(first, 0)]);

    // Nothing was signed for the nonce, and now nothing asks for it either.
    let goals: Api<ChainTransaction> = site.api();
    for goal in goals.list(&Default::default()).await.expect("goals") {
        goals.delete(&goal.name_any(), &DeleteParams::default()).await.expect("goal deleted");
    }
    let filled = async || site.nonce().await == first + 1 && site.status().await.in_flight.is_empty();
    site.run_until("", "the nonce is used and let go", filled).await;
    let left = goals.list(&Default::default()).await.expect("goals").items;
    let left: Vec<_> = left.iter().map(|goal| (goal.spec.goal.clone(), goals::state(goal))).collect();
    assert_eq!(left, vec![(Goal::Void { nonce: first }, TransactionState::Confirmed)]);
    assert_eq!(site.wallet().await, 10 * TOKENS);
    site.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with Freehold's CRDs (KUBECONFIG)"]
async fn what_a_reorganisation_undoes_beyond_the_confirmed_depth_is_done_again() {
    let site = Site::new("undone").await;
    site.place(0).await;
    let (order_id, _) = site.stored(0).await;
    let cancel = Goal::CancelOrder { order_id: order_id.to_string().into() };
    let cancel = goals::ensure(&site.ctx, &site.name, cancel, None).await.expect("goal").name_any();
    let over = async || site.is(&cancel, TransactionState::Confirmed).await && site.status().await.in_flight.is_empty();
    site.run_until("", "the order is cancelled", over).await;
    let before = site.goal(&cancel).await.status.expect("status");

    let latest = site.anvil.rpc("eth_blockNumber", json!([])).await.expect("number");
    let latest: U64 = serde_json::from_value(latest).expect("number");
    let depth = latest.to::<u64>() - before.block.expect("a block") + 1;
    assert!(depth > 2, "no deeper than what counts as confirmed");
    site.anvil.rpc("anvil_reorg", json!([depth, []])).await.expect("reorganisation");
    let again = async || over().await && site.goal(&cancel).await.status.is_some_and(|now| now.hash != before.hash);
    site.run_until("", "it is cancelled again", again).await;
    let now = site.goal(&cancel).await.status.expect("status");
    assert_ne!(now.nonce, before.nonce, "its nonce was taken by another");
    site.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with Freehold's CRDs (KUBECONFIG)"]
async fn an_account_says_what_it_holds_and_what_it_lacks() {
    let site = Site::new("account").await;
    let ready = async |reason: &str| {
        let status = site.status().await;
        conditions::find(&status.conditions, conditions::types::READY)
            .is_some_and(|condition| condition.reason == reason)
    };
    site.run_until("", "the account is ready", async || ready("Ready").await).await;
    let status = site.status().await;
    assert_eq!(status.balance.map(|text| text.to_string()).as_deref(), Some("10"));
    assert_eq!(
        (status.decimals, status.address.map(|text| text.to_string())),
        (Some(6), Some(ACCOUNTS[1].0.to_string()))
    );

    // Twelve orders want more than the wallet holds: ten are placed, two wait and say what is missing.
    let mut names = Vec::new();
    for attempt in 0..12 {
        names.push(site.place(attempt).await);
    }
    let reason = async |name: &str| {
        let status = site.goal(name).await.status.unwrap_or_default();
        conditions::find(&status.conditions, conditions::types::CONFIRMED)
            .map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    let counted = async |wanted: &str| {
        let mut count = 0;
        for name in &names {
            count += usize::from(reason(name).await.is_some_and(|(reason, _)| reason == wanted));
        }
        count
    };
    let settled = async || counted("Confirmed").await == 10 && counted("InsufficientBalance").await == 2;
    site.run_until("", "ten orders are placed and two say why they are not", settled).await;
    for name in &names {
        let goal = site.goal(name).await;
        if goals::state(&goal) == TransactionState::Pending {
            let (_, message) = reason(name).await.expect("condition");
            assert!(message.contains("holds 0 tokens") && message.contains("1 are needed"), "{message}");
            assert_eq!(goal.status.and_then(|status| status.nonce), None);
        }
    }
    assert_eq!(site.wallet().await, 0);

    // A transaction that somebody else sends with the account's key is told of.
    site.anvil.send(ACCOUNTS[1].0, ACCOUNTS[1].0, vec![]).await.expect("foreign transaction");
    site.run_until("", "the foreign nonce is found", async || ready("ForeignNonce").await).await;
    site.clean().await;
}
