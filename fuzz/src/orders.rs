//! What a tenant orders: the task as it is applied, the spec on the chain, the manifest at the gateway, the model
//! that comes back.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use alloy::primitives::{Address, B256};
use freehold_api::lease::{ComputeLease, ComputeLeaseSpec};
use freehold_api::provider::{Bidding, ComputeProviderSpec, Price, Pricing};
use freehold_api::{InferenceTask, TrainingTask};
use freehold_chain::view::{Balances, Block, ChainView, Health, ProviderRecord, Snapshot};
use freehold_controllers::compute_lease::build::{self, Blueprint};
use freehold_controllers::compute_lease::validate;
use freehold_controllers::compute_provider::policy::{self, Case, Limits, Standing};
use freehold_controllers::compute_provider::pricing::{self, PriceList, Priced};
use freehold_controllers::task::collect;
use freehold_controllers::task::kind::{TaskKind, TaskSpecView, Workload};
use freehold_controllers::task::order::{self, Job, Site};
use freehold_controllers::task::validate::{self as task_validate, ChainFacts, Found};
use freehold_core::canonical::sha256_hex;
use freehold_core::manifest::Manifest;
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderSlot, OrderState, Terms};
use freehold_core::spec::{OrderSpec, SpecInput, SpecRequirements};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::bytes::Bytes;
use crate::schema;

const NOW: u64 = 1_800_000_000;
const IMAGE: &str = "freehold.dev/trainer@sha256:1111111111111111111111111111111111111111111111111111111111111111";
const OURS: Address = Address::repeat_byte(0xaa);
const TENANT: Address = Address::repeat_byte(0x11);
const TOKEN: Address = Address::repeat_byte(0x70);

/// A task that the API server takes is refused with a remedy, or becomes an order that a provider can serve.
pub fn task(data: &[u8]) {
    static TRAINING: LazyLock<Value> = LazyLock::new(|| schema::of(&TrainingTask::crd(), "spec"));
    static INFERENCE: LazyLock<Value> = LazyLock::new(|| schema::of(&InferenceTask::crd(), "spec"));
    let Ok(object) = serde_json::from_slice::<Value>(data) else { return };
    match object.get("kind").and_then(Value::as_str) {
        Some("TrainingTask") => applied::<TrainingTask>(&object, &TRAINING),
        Some("InferenceTask") => applied::<InferenceTask>(&object, &INFERENCE),
        _ => {}
    }
}

fn applied<K: TaskKind>(object: &Value, schema: &Value) {
    let Some(spec) = object.get("spec").filter(|spec| schema::refusal(schema, spec).is_none()) else { return };
    let stored = json!({
        "apiVersion": "freehold.dev/v1alpha1", "kind": K::KIND,
        "metadata": { "name": "task", "namespace": "demo", "uid": "u" }, "spec": spec,
    });
    let task: K = match serde_json::from_value(stored) {
        Ok(task) => task,
        // Of several fields of which one must be set, CEL sees to it.
        Err(_) => return,
    };
    let printed = serde_json::to_value(&task).expect("a task is printed");
    let again: K = serde_json::from_value(printed).expect("what was printed is read");
    assert_eq!(again.spec(), task.spec());
    ordered(&task);
}

fn ordered(task: &impl TaskKind) {
    let view = task.spec();
    let chain = ChainFacts { decimals: 6, bid_window: 20, start_window: 300, review_window: 600, allows_http: false };
    let Ok(limits) = task_validate::limits(&view, &chain) else { return };
    assert!(limits.max_rate.0 > 0 && limits.budget >= limits.least());
    let held = |byte: &str| Found::Held { sha256: byte.repeat(32), size: 7 };
    let data = view.data.1.uri.as_ref().map_or_else(|| held("ab"), |_| Found::Remote);
    let model = view.model.as_ref().map(|_| held("cd"));
    if !passes_cel(&view) {
        return;
    }
    let Ok(work) = task_validate::work(&view, &chain, IMAGE, &data, model.as_ref()) else { return };
    let site = Site {
        chain_id: 31337,
        market: Address::repeat_byte(1),
        token: TOKEN,
        account: TENANT,
        origin: B256::ZERO,
        now: NOW,
        block_time: 2,
    };
    let seconds = limits.active_deadline;
    let job = Job {
        kind: "TrainingTask",
        uid: "u",
        namespace: "demo",
        name: "task",
        attempt: 0,
        backoff_limit: view.backoff_limit,
        failures: 0,
        duration: seconds,
        cap: order::cap(&limits, limits.budget, seconds),
        resume: None,
    };
    let Ok(draft) = order::build(&site, &limits, &work, &job) else { return };
    let spec = OrderSpec::parse(&draft.spec).expect("an order's spec is read");
    assert_eq!(spec.to_bytes().expect("prints"), draft.spec, "one spec has one form");
    if let Err(refusal) = spec.usable() {
        unreachable!("an order was placed that nobody can serve: {refusal}");
    }
    let lease = lease_of(&spec, &draft.spec);
    let Some(manifest) = &draft.manifest else { unreachable!("an order that is placed here has its manifest here") };
    if let Err(refusal) = validate::validate(&lease, manifest, &classes(&spec)) {
        unreachable!("a manifest was handed over that is refused: {refusal}");
    }
}

/// What the rules in CEL refuse and what follows takes for granted: an image or a recipe, one source, and its digest.
fn passes_cel(view: &TaskSpecView) -> bool {
    let source = &view.data.1;
    let sources = [source.uri.is_some(), source.config_map_ref.is_some(), source.artifact.is_some()];
    let image = !matches!(&view.workload, Workload::Image { image, .. } if image.is_empty());
    image && sources.iter().filter(|one| **one).count() == 1 && (source.uri.is_none() || source.sha256.is_some())
}

fn classes(spec: &OrderSpec) -> Vec<String> {
    spec.require.runtime_class.iter().cloned().collect()
}

/// As the operator makes it of an order.
fn lease_of(spec: &OrderSpec, bytes: &[u8]) -> ComputeLeaseSpec {
    let inputs =
        spec.inputs.iter().map(|input| json!({ "name": input.name, "sha256": input.sha256, "size": input.size }));
    let lease = json!({
        "orderId": B256::ZERO, "tenant": TENANT, "provider": "p", "providerAddress": OURS, "chainId": 1,
        "market": TOKEN, "rate": "1", "spec": String::from_utf8_lossy(bytes), "manifestSha256": spec.manifest,
        "inputs": inputs.collect::<Vec<_>>(), "namespace": "n",
    });
    serde_json::from_value(lease).expect("a lease")
}

/// A spec that is usable can be printed, priced, judged and leased.
pub fn spec(data: &[u8]) {
    static LEASE: LazyLock<Value> = LazyLock::new(|| schema::of(&ComputeLease::crd(), "spec"));
    let Ok(spec) = OrderSpec::parse(data) else { return };
    let order = order_with(data);
    let view = view();
    let provider = provider();
    let limits = Limits {
        max_leases: 10,
        max_bids_per_tenant: 4,
        max_penalty: Amount(u128::MAX),
        max_bond: Amount(u128::MAX),
        validity: 60,
    };
    let classes = classes(&spec);
    let case = Case {
        provider: &provider,
        limits: &limits,
        view: &view,
        runtime_classes: &classes,
        order: &order,
        spec: &spec,
        standing: Standing::default(),
        bid_before: false,
    };
    if let Err(refusal) = policy::check(&case) {
        assert!(refusal.message.chars().count() <= 1024, "{} is refused at length", refusal.reason);
        return;
    }
    spec.usable().expect("no bid on a spec that is not usable");
    if let Ok(printed) = spec.to_bytes() {
        assert_eq!(OrderSpec::parse(&printed).ok().as_ref(), Some(&spec), "what is printed is read");
    }
    let lease = serde_json::to_value(lease_of(&spec, data)).expect("a lease is printed");
    let refused = schema::refusal(&LEASE, &lease);
    assert_eq!(refused, None, "the lease of a usable spec is refused by its schema");
    let prices = PriceList::parse(&provider.pricing).expect("prices");
    let model = spec.resources.gpu.as_ref().map(|_| "NVIDIA H100 80GB HBM3");
    let priced = Priced { resources: &spec.resources, model, class: &spec.class, duration: 60, tenant: String::new() };
    if let Ok(nano) = prices.nano_per_hour(&priced) {
        let _ = policy::lasts_long_enough(&order, pricing::rate(nano, view.decimals));
    }
}

fn terms() -> Terms {
    use alloy::primitives::aliases::U40;
    Terms {
        token: TOKEN,
        maxPrice: 2_000_000,
        auditReserve: 0,
        bond: 200_000,
        noShowPenalty: 40_000,
        bidBy: U40::from(NOW + 20),
        startWindow: U40::from(300),
        duration: U40::from(7200),
        window: U40::from(600),
        holdbackBps: 2000,
        class: 0,
        specHash: B256::ZERO,
        rulesHash: B256::ZERO,
        origin: B256::ZERO,
    }
}

fn order_with(spec: &[u8]) -> Order {
    Order {
        id: B256::ZERO,
        salt: B256::ZERO,
        terms: terms(),
        spec: spec.to_vec(),
        slot: OrderSlot { state: OrderState::Open, tenant: TENANT, deadline: NOW + 20, ..OrderSlot::default() },
        bids: Vec::new(),
        result_hash: None,
        split: None,
    }
}

fn provider() -> ComputeProviderSpec {
    ComputeProviderSpec {
        account: "provider".into(),
        gateway_url: "https://gateway.example.org".into(),
        attributes: BTreeMap::from([("region".into(), "eu-west-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".into())]),
        pricing: Pricing {
            gpu: BTreeMap::from([("*".into(), "0.30".into()), ("*H100*".into(), "0.40".into())]),
            cpu: Price("0.01".into()),
            memory: Price("0.001".into()),
            disk: Price("0.0001".into()),
            minimum: Price("0.05".into()),
            expression: None,
        },
        bidding: Bidding::default(),
        cordoned: false,
    }
}

fn view() -> ChainView {
    let block = Block { number: 100, hash: B256::ZERO, timestamp: NOW };
    let snapshot = Snapshot { block, orders: BTreeMap::new() };
    let provider = provider();
    let record = ProviderRecord {
        gateway: provider.gateway_url.0,
        attributes: provider.attributes,
        attested_by: Default::default(),
    };
    ChainView {
        endpoints: vec![],
        records: BTreeMap::new(),
        health: Health::Fresh,
        chain_id: 31337,
        market: Address::repeat_byte(1),
        registry: Address::repeat_byte(2),
        token: TOKEN,
        account: OURS,
        decimals: 6,
        latest: snapshot.clone(),
        confirmed: snapshot,
        balances: Balances { wallet: Amount(1 << 60), free: Amount(1 << 60), allowance: Amount(1 << 60), gas: 1 },
        providers: BTreeMap::from([(OURS, record)]),
        block_time: 2,
    }
}

/// A manifest that passes is what was ordered, and becomes objects of bounded size.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    let recipe = manifest.recipe.as_ref().map(printed_recipe);
    let spec = OrderSpec {
        kind: manifest.kind.clone(),
        class: manifest.class.clone(),
        image: manifest.image.clone(),
        resources: manifest.resources.clone(),
        recipe: recipe.as_deref().map(sha256_hex),
        inputs: manifest
            .inputs
            .iter()
            .map(|input| SpecInput { name: input.name.clone(), sha256: input.sha256.clone(), size: input.size })
            .collect(),
        manifest: sha256_hex(data),
        require: SpecRequirements { runtime_class: manifest.runtime_class.clone(), ..SpecRequirements::default() },
    };
    if spec.usable().is_err() {
        return;
    }
    let Ok(bytes) = spec.to_bytes() else { return };
    let lease = lease_of(&spec, &bytes);
    let work = match validate::validate(&lease, data, &classes(&spec)) {
        Ok(work) => work,
        Err(_) => return,
    };
    assert_eq!(work.manifest, manifest);
    let printed = manifest.to_bytes().expect("prints");
    assert_eq!(Manifest::parse(&printed).ok(), Some(manifest), "what is printed is read");
    let blueprint = Blueprint {
        order: B256::ZERO,
        account: "provider".into(),
        provider: "p".into(),
        release: "freehold.freehold".into(),
        courier_image: IMAGE.into(),
        gpu_resource: "nvidia.com/gpu".into(),
        gateway: build::Gateway { url: "http://10.0.0.1:8081".into(), port: 8081, alias: None },
        work,
        start_window: 300,
        duration: 3600,
        node: "node".into(),
        nodes: vec!["node".into()],
    };
    let job = serde_json::to_vec(&build::objects(&blueprint, "root").job).expect("a job is printed");
    assert!(job.len() < data.len() * 6 + 20_000, "a manifest of {} bytes became a job of {}", data.len(), job.len());
}

fn printed_recipe(recipe: &freehold_api::recipe::Recipe) -> Vec<u8> {
    freehold_core::canonical::to_vec("the recipe", recipe).expect("a recipe is printed")
}

/// A delivered model: the size that the result names (0: its own), then the file.
pub fn model(data: &[u8]) {
    let mut data = Bytes(data);
    let claimed = data.u64();
    let file = data.safetensors();
    let size = if claimed == 0 { file.len() as u64 } else { claimed };
    if let Err(why) = collect::safetensors(&file[..], size) {
        assert!(why.chars().count() <= 1024, "a model is refused at length");
    }
}
