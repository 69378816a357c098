//! The provider's side on a real API server, with real pods: an order becomes
//! a bid, a lease, a placed pod and a start; what the chain ends is cleaned
//! up. The chain and the gateway are played by the test. Needs a cluster with
//! Freehold's CRDs: `KUBECONFIG=… cargo test -p freehold-controllers --test provider -- --ignored`.

#![allow(clippy::panic, clippy::unwrap_used)] // a test may

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::primitives::aliases::U40;
use async_trait::async_trait;
use freehold_api::lease::LeasePhase;
use freehold_api::provider::{Bidding, ComputeProviderSpec, GpuNodeSpec, Price, Pricing};
use freehold_api::{ChainTransaction, ComputeLease, ComputeProvider, Goal, GpuNode, conditions};
use freehold_chain::view::{Balances, Block, ChainView, Health, ProviderRecord, Snapshot};
use freehold_controllers::compute_lease::gateway::{Error, WorkStore};
use freehold_controllers::compute_lease::{self, names};
use freehold_controllers::compute_provider;
use freehold_controllers::context::{Context, Roles, Settings, SystemClock};
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderSlot, OrderState, Terms};
use freehold_core::spec::{OrderSpec, SpecRequirements, SpecResources};
use freehold_core::wire::WorkReport;
use freehold_core::{Address, B256, canonical};
use freehold_testkit::chain::install_tls;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(120);
const OURS: Address = Address::repeat_byte(0xaa);
const TENANT: Address = Address::repeat_byte(0x11);
const TOKEN: Address = Address::repeat_byte(0x70);
const GATEWAY: &str = "https://gateway.example.org";
const NOW: u64 = 1_800_000_000;

/// What the tenant handed over.
#[derive(Default)]
struct Held(Mutex<(WorkReport, Vec<u8>, usize)>);

struct Store(Arc<Held>);

#[async_trait]
impl WorkStore for Store {
    async fn report(&self, _: &B256) -> Result<WorkReport, Error> {
        Ok(self.0.0.lock().unwrap().0.clone())
    }

    async fn manifest(&self, _: &B256) -> Result<Vec<u8>, Error> {
        Ok(self.0.0.lock().unwrap().1.clone())
    }

    async fn append_log(&self, _: &B256, bytes: Vec<u8>) -> Result<(), Error> {
        self.0.0.lock().unwrap().2 += bytes.len();
        Ok(())
    }
}

/// A release of its own, on the first node of the cluster.
struct Site {
    ctx: Context,
    name: String,
    account: String,
    order: B256,
    chain: watch::Sender<Arc<ChainView>>,
    held: Arc<Held>,
    operator: tokio::task::JoinHandle<()>,
}

impl Site {
    async fn new(test: &str) -> Self {
        install_tls();
        let client = Client::try_default().await.expect("KUBECONFIG names a cluster");
        let name = format!("provider-{test}-{}", std::process::id());
        let ctx = Context::new(client, settings(&name), Arc::new(SystemClock));
        let order = canonical::keccak(name.as_bytes());
        let (chain, view) = watch::channel(Arc::new(view(None, Health::Fresh)));
        let account = format!("account-{name}");
        ctx.views.insert(&account, view);
        let held = Arc::new(Held::default());
        let operator = tokio::spawn(operator(ctx.clone(), held.clone()));
        let site = Self { ctx, name, account, order, chain, held, operator };
        site.create().await;
        site
    }

    async fn create(&self) {
        let client = || self.ctx.client.clone();
        let meta = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata: meta, ..Namespace::default() };
        Api::all(client()).create(&PostParams::default(), &namespace).await.expect("namespace");
        let node = Api::<Node>::all(client()).list(&ListParams::default()).await.expect("nodes").items.remove(0);
        let spec = GpuNodeSpec { node_name: node.name_any().into(), release: self.ctx.settings.release.clone().into() };
        let gpu_nodes: Api<GpuNode> = Api::all(client());
        gpu_nodes.create(&PostParams::default(), &GpuNode::new(&self.name, spec)).await.expect("GpuNode");
        let conditions = ["Sellable", "IsolationVerified"].map(|type_| {
            json!({ "type": type_, "status": "True", "reason": type_, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
        });
        let sellable = json!({ "status": {
            "devices": [{ "uuid": "GPU-test", "index": 0, "model": "Test", "memoryBytes": 1_u64 << 34, "state": "Healthy" }],
            "conditions": conditions,
        } });
        let params = PatchParams::default();
        gpu_nodes.patch_status(&self.name, &params, &Patch::Merge(sellable)).await.expect("GpuNode status");
        let provider = ComputeProvider::new("provider", provider(&self.account));
        self.api().create(&PostParams::default(), &provider).await.expect("ComputeProvider");
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.ctx.client.clone(), &self.name)
    }

    fn work<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.ctx.client.clone(), &names::namespace(&self.order))
    }

    /// The next block.
    fn block(&self, state: OrderState, health: Health) {
        let order = order(self.order, state, &manifest());
        self.chain.send_replace(Arc::new(view(Some(order), health)));
    }

    async fn goal(&self, name: &str) -> Goal {
        until(&format!("goal {name}"), || async {
            let goals = self.api::<ChainTransaction>().list(&ListParams::default()).await.ok()?.items;
            goals.into_iter().map(|entry| entry.spec.goal).find(|goal| goal.name() == name)
        })
        .await
    }

    async fn lease(&self, what: &str, wanted: impl Fn(&ComputeLease) -> bool) -> ComputeLease {
        let name = names::lease(&self.order);
        until(what, || async { self.api::<ComputeLease>().get_opt(&name).await.ok()?.filter(&wanted) }).await
    }

    async fn in_phase(&self, phase: LeasePhase) -> ComputeLease {
        let is = |lease: &ComputeLease| lease.status.as_ref().and_then(|status| status.phase) == Some(phase);
        self.lease(&format!("phase {phase:?}"), is).await
    }

    /// The tenant uploads manifest and inputs.
    fn hand_over(&self) {
        let report = WorkReport { manifest_held: true, ..WorkReport::default() };
        *self.held.0.lock().unwrap() = (report, manifest(), 0);
    }

    async fn clean(self) {
        self.operator.abort();
        let client = || self.ctx.client.clone();
        let now = DeleteParams::default();
        Api::<GpuNode>::all(client()).delete(&self.name, &now).await.ok();
        Api::<Namespace>::all(client()).delete(&names::namespace(&self.order), &now).await.ok();
        let free = json!({ "metadata": { "finalizers": null } });
        for lease in self.api::<ComputeLease>().list(&ListParams::default()).await.expect("leases") {
            self.api::<ComputeLease>()
                .patch(&lease.name_any(), &PatchParams::default(), &Patch::Merge(&free))
                .await
                .ok();
        }
        self.api::<ComputeProvider>().patch("provider", &PatchParams::default(), &Patch::Merge(&free)).await.ok();
        Api::<Namespace>::all(client()).delete(&self.name, &now).await.ok();
    }
}

async fn operator(ctx: Context, held: Arc<Held>) {
    tokio::select! {
        ended = compute_provider::run(ctx.clone()) => panic!("{ended:?}"),
        () = compute_lease::run_with(ctx, Box::new(Store(held))) => panic!("the leases' controller ended"),
    }
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn settings(namespace: &str) -> Settings {
    Settings {
        namespace: namespace.into(),
        release: format!("{namespace}.freehold"),
        roles: Roles { tenant: false, provider: true },
        trainer_image: String::new(),
        courier_image: image(),
        gateway_internal_url: String::new(),
        gateway_pod_url: "http://gateway.freehold:8081".into(),
        gateway_pod_ip: Some("10.102.0.99".into()),
        store: PathBuf::new(),
        allowed_cidrs: vec![],
        gpu_resource: "nvidia.com/gpu".into(),
        gpu_plugin: "builtin".into(),
        signer_token: PathBuf::new(),
        cluster_uid: String::new(),
    }
}

/// An image that the node has already: what runs does not matter here.
fn image() -> String {
    std::env::var("FREEHOLD_TEST_IMAGE").expect("FREEHOLD_TEST_IMAGE names an image of the node, by digest")
}

fn provider(account: &str) -> ComputeProviderSpec {
    let free = || Price("0.01".into());
    ComputeProviderSpec {
        account: account.into(),
        gateway_url: GATEWAY.into(),
        attributes: BTreeMap::new(),
        pricing: Pricing {
            gpu: BTreeMap::from([("*".into(), "0.30".into())]),
            cpu: free(),
            memory: free(),
            disk: free(),
            minimum: free(),
            expression: None,
        },
        bidding: Bidding::default(),
        cordoned: false,
    }
}

fn resources() -> SpecResources {
    SpecResources { cpu_millis: 50, memory: 64 << 20, disk: 64 << 20, gpu: None }
}

fn manifest() -> Vec<u8> {
    let manifest = json!({
        "apiVersion": "freehold.dev/v1alpha1", "kind": "TrainingTask", "name": "t", "namespace": "demo", "uid": "u",
        "attempt": 0, "class": "none", "image": image(), "args": ["x"], "inputs": [], "resources": resources(),
        "backoffLimit": 3, "deadlineSeconds": 600,
    });
    canonical::to_vec("manifest", &manifest).unwrap()
}

fn order(id: B256, state: OrderState, manifest: &[u8]) -> Order {
    let spec = OrderSpec {
        kind: "TrainingTask".into(),
        class: "none".into(),
        image: image(),
        resources: resources(),
        recipe: None,
        inputs: Vec::new(),
        manifest: canonical::sha256_hex(manifest),
        require: SpecRequirements { accept_shared_kernel: true, ..SpecRequirements::default() },
    };
    let leased = state != OrderState::Open;
    Order {
        id,
        salt: B256::ZERO,
        terms: Terms {
            token: TOKEN,
            maxPrice: 2_000_000,
            auditReserve: 0,
            bond: 200_000,
            noShowPenalty: 40_000,
            bidBy: U40::from(NOW + 20),
            startWindow: U40::from(300u64),
            duration: U40::from(600u64),
            window: U40::from(600u64),
            holdbackBps: 2000,
            class: 0,
            specHash: B256::ZERO,
            rulesHash: B256::ZERO,
            origin: B256::ZERO,
        },
        spec: canonical::to_vec("spec", &spec).unwrap(),
        slot: OrderSlot {
            state,
            tenant: TENANT,
            provider: if leased { OURS } else { Address::ZERO },
            price: 1_000_000_000,
            deadline: NOW + 300,
            started_at: if state == OrderState::Running { NOW } else { 0 },
            end_at: if state == OrderState::Running { NOW + 600 } else { 0 },
            funds: Amount(2_000_000),
            ..OrderSlot::default()
        },
        bids: Vec::new(),
        result_hash: None,
        split: None,
    }
}

fn view(order: Option<Order>, health: Health) -> ChainView {
    let orders: BTreeMap<B256, Arc<Order>> = order.into_iter().map(|order| (order.id, Arc::new(order))).collect();
    let hash = canonical::keccak(format!("{orders:?}{health:?}").as_bytes());
    let snapshot = Snapshot { block: Block { number: 100, hash, timestamp: NOW }, orders };
    let record = ProviderRecord { gateway: GATEWAY.into(), ..ProviderRecord::default() };
    ChainView {
        endpoints: vec![],
        records: BTreeMap::new(),
        health,
        chain_id: 31337,
        market: Address::repeat_byte(0x3a),
        registry: Address::repeat_byte(0x3b),
        token: TOKEN,
        account: OURS,
        decimals: 6,
        latest: snapshot.clone(),
        confirmed: snapshot,
        balances: Balances { free: Amount(1_000_000), ..Balances::default() },
        providers: BTreeMap::from([(OURS, record)]),
        block_time: 2,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster (KUBECONFIG) and FREEHOLD_TEST_IMAGE"]
async fn from_an_order_to_an_empty_cluster() {
    let site = Site::new("life").await;
    site.block(OrderState::Open, Health::Fresh);
    assert!(
        matches!(site.goal("bid").await, Goal::Bid { order_id, .. } if order_id.as_str() == site.order.to_string())
    );

    site.block(OrderState::Awaiting, Health::Fresh);
    site.in_phase(LeasePhase::AwaitingInputs).await;
    site.hand_over();
    site.goal("start").await;
    let lease = site.in_phase(LeasePhase::Starting).await;
    let status = lease.status.unwrap();
    assert!(status.node.is_some() && conditions::is_true(&status.conditions, "CapacityHeld"), "{status:?}");
    let pods = site.work::<Pod>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(pods.len(), 1);

    site.block(OrderState::Running, Health::Fresh);
    site.in_phase(LeasePhase::Running).await;

    // A blind operator leaves it alone, whatever the view may show.
    site.chain.send_replace(Arc::new(view(None, Health::Stale { head: 100 })));
    site.lease("ChainUnreachable", |lease| {
        let conditions = &lease.status.as_ref().unwrap().conditions;
        conditions::find(conditions, "Closed").is_some_and(|c| c.reason == "ChainUnreachable")
    })
    .await;
    assert!(site.work::<Job>().get_opt("work").await.unwrap().is_some());

    site.block(OrderState::Closed, Health::Fresh);
    let done = site
        .lease("CleanedUp", |lease| conditions::is_true(&lease.status.as_ref().unwrap().conditions, "CleanedUp"))
        .await;
    assert_eq!(done.status.unwrap().phase, Some(LeasePhase::Closed));
    let namespaces: Api<Namespace> = Api::all(site.ctx.client.clone());
    assert!(namespaces.get_opt(&names::namespace(&site.order)).await.unwrap().is_none());
    site.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster (KUBECONFIG) and FREEHOLD_TEST_IMAGE"]
async fn what_is_deleted_while_it_lives_comes_back() {
    let site = Site::new("back").await;
    site.hand_over();
    site.block(OrderState::Running, Health::Fresh);
    let first = site.in_phase(LeasePhase::Running).await;
    let job = until("the Job", || async { site.work::<Job>().get_opt("work").await.ok()? }).await;

    site.api::<ComputeLease>().delete(&first.name_any(), &DeleteParams::default()).await.unwrap();
    let uid = first.uid();
    site.lease("another ComputeLease", |lease| lease.uid() != uid).await;
    let same = site.work::<Job>().get("work").await.unwrap();
    assert_eq!(same.uid(), job.uid(), "the work was not touched");

    let params = DeleteParams::background();
    site.work::<Job>().delete("work", &params).await.unwrap();
    let uid = job.uid();
    until("another Job", || async { site.work::<Job>().get_opt("work").await.ok()?.filter(|job| job.uid() != uid) })
        .await;
    site.clean().await;
}
