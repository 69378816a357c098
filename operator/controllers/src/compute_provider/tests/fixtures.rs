//! Orders, views and nodes that tests of the provider's side share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freehold_api::provider::{
    Bidding, ComputeProviderSpec, DeviceState, GpuDevice, GpuNode, GpuNodeSpec, GpuNodeStatus, PodRef, Price, Pricing,
};
use freehold_chain::view::{Balances, Block, ChainView, Health, ProviderRecord, Snapshot};
use freehold_core::money::Amount;
use freehold_core::order::{Bid, Order, OrderSlot, OrderState, Terms};
use freehold_core::spec::{OrderSpec, SpecGpu, SpecRequirements, SpecResources};
use freehold_core::{Address, B256, canonical};
use k8s_openapi::api::core::v1::{Node, Pod};

pub const NOW: u64 = 1_000_000;
pub const OURS: Address = Address::repeat_byte(0xaa);
pub const TENANT: Address = Address::repeat_byte(0x11);
pub const TOKEN: Address = Address::repeat_byte(0x70);
pub const RELEASE: &str = "freehold-provider.freehold";
pub const H100: &str = "NVIDIA H100 80GB HBM3";
pub const GIB: u64 = 1 << 30;

pub fn id(byte: u8) -> B256 {
    B256::repeat_byte(byte)
}

pub fn resources(gpus: u32) -> SpecResources {
    SpecResources {
        cpu_millis: 1000,
        memory: 2 * GIB,
        disk: 4 * GIB,
        gpu: (gpus > 0).then(|| SpecGpu {
            count: gpus,
            models: vec!["*H100*".into()],
            memory: 16 * GIB,
            mig_profile: None,
        }),
    }
}

pub fn spec(gpus: u32) -> OrderSpec {
    OrderSpec {
        kind: "TrainingTask".into(),
        class: "none".into(),
        image: format!("freehold.dev/trainer@sha256:{}", "1".repeat(64)),
        resources: resources(gpus),
        recipe: None,
        inputs: Vec::new(),
        manifest: "2".repeat(64),
        require: SpecRequirements { accept_shared_kernel: true, ..SpecRequirements::default() },
    }
}

pub fn terms() -> Terms {
    use alloy::primitives::aliases::U40;
    let seconds = |n: u64| U40::from(n);
    Terms {
        token: TOKEN,
        maxPrice: 2_000_000,
        auditReserve: 0,
        bond: 200_000,
        noShowPenalty: 40_000,
        bidBy: seconds(NOW + 20),
        startWindow: seconds(300),
        duration: seconds(7200),
        window: seconds(600),
        holdbackBps: 2000,
        class: 0,
        specHash: B256::ZERO,
        rulesHash: B256::ZERO,
        origin: B256::ZERO,
    }
}

pub fn order_with(id: B256, spec: &OrderSpec) -> Order {
    Order {
        id,
        salt: B256::ZERO,
        terms: terms(),
        spec: canonical::to_vec("spec", spec).unwrap(),
        slot: OrderSlot {
            state: OrderState::Open,
            tenant: TENANT,
            deadline: NOW + 20,
            funds: Amount(2_000_000),
            ..OrderSlot::default()
        },
        bids: Vec::new(),
        result_hash: None,
        split: None,
    }
}

pub fn open(byte: u8, gpus: u32) -> Order {
    order_with(id(byte), &spec(gpus))
}

pub fn leased(byte: u8, gpus: u32, state: OrderState) -> Order {
    let mut order = open(byte, gpus);
    order.slot.state = state;
    order.slot.provider = OURS;
    order.slot.price = 138_888_888_888_888;
    order.bids.push(bid(NOW + 60));
    order
}

pub fn bid(valid_until: u64) -> Bid {
    Bid { provider: OURS, price: 1, bond: Amount(200_000), valid_until }
}

pub fn provider() -> ComputeProviderSpec {
    ComputeProviderSpec {
        account: "provider".into(),
        gateway_url: "https://gateway.example.org".into(),
        attributes: BTreeMap::from([("region".into(), "eu-west".into())]),
        pricing: pricing(),
        bidding: Bidding::default(),
        cordoned: false,
    }
}

pub fn pricing() -> Pricing {
    Pricing {
        gpu: BTreeMap::from([("*".into(), "0.30".into()), ("*H100*".into(), "0.40".into())]),
        cpu: Price("0.01".into()),
        memory: Price("0.001".into()),
        disk: Price("0.0001".into()),
        minimum: Price("0.05".into()),
        expression: None,
    }
}

pub fn view(orders: Vec<Order>) -> ChainView {
    let block = Block { number: 100, hash: id(0xbb), timestamp: NOW };
    let orders: BTreeMap<B256, Arc<Order>> = orders.into_iter().map(|order| (order.id, Arc::new(order))).collect();
    let snapshot = Snapshot { block, orders };
    let provider = provider();
    ChainView {
        endpoints: vec![],
        records: BTreeMap::new(),
        health: Health::Fresh,
        chain_id: 31337,
        market: Address::repeat_byte(0x3a),
        registry: Address::repeat_byte(0x3b),
        token: TOKEN,
        account: OURS,
        decimals: 6,
        latest: snapshot.clone(),
        confirmed: snapshot,
        balances: Balances {
            wallet: Amount(1_000_000_000),
            free: Amount(1_000_000),
            allowance: Amount(1_000_000_000),
            gas: 1,
        },
        providers: BTreeMap::from([(
            OURS,
            ProviderRecord {
                gateway: provider.gateway_url.0,
                attributes: provider.attributes,
                attested_by: BTreeSet::new(),
            },
        )]),
        block_time: 2,
    }
}

pub fn device(index: u32, model: &str) -> GpuDevice {
    GpuDevice {
        uuid: format!("GPU-{index}"),
        index,
        model: model.into(),
        memory_bytes: 80 * GIB,
        state: DeviceState::Healthy,
        ..GpuDevice::default()
    }
}

pub fn held_by(mut device: GpuDevice, namespace: &str) -> GpuDevice {
    device.pod = Some(PodRef { namespace: namespace.into(), name: "work-1".into(), container: None });
    device
}

pub fn gpu_node(devices: Vec<GpuDevice>) -> GpuNode {
    let holds = |type_: &str| k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        type_: type_.into(),
        status: "True".into(),
        reason: type_.into(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
    };
    let mut node = GpuNode::new("node-a", GpuNodeSpec { node_name: "node-a".into(), release: RELEASE.into() });
    let conditions = ["Sellable", "IsolationVerified", "PluginReady"].map(holds).to_vec();
    node.status = Some(GpuNodeStatus { devices, conditions, ..GpuNodeStatus::default() });
    node
}

pub fn node(gpus: u32) -> Node {
    serde_json::from_value(serde_json::json!({
        "metadata": { "name": "node-a" },
        "spec": { "taints": [{ "key": "freehold.dev/gpu", "effect": "NoSchedule" }] },
        "status": {
            "allocatable": {
                "cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "nvidia.com/gpu": gpus.to_string(),
            },
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    }))
    .unwrap()
}

pub fn pod(namespace: &str, node: Option<&str>, cpu: &str, gpus: u32) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": { "namespace": namespace, "name": "work-1" },
        "spec": {
            "nodeName": node,
            "containers": [{
                "name": "main",
                "resources": {
                    "requests": { "cpu": cpu, "memory": "1Gi" },
                    "limits": { "nvidia.com/gpu": gpus.to_string() },
                },
            }],
        },
        "status": { "phase": "Running" },
    }))
    .unwrap()
}
