//! Signed elsewhere, mined here.

use std::time::Duration;

use alloy::consensus::TxEip1559;
use alloy::primitives::TxKind;
use alloy::signers::local::PrivateKeySigner;
use freehold_api::Goal;
use freehold_chain::calldata::{StoredOrder, call_of};
use freehold_chain::goal::{Standing, status_of};
use freehold_chain::reader::{ReaderConfig, spawn};
use freehold_chain::rpc::{Depth, Rpc};
use freehold_chain::signer::{SignRequest, Signer, Web3Signer};
use freehold_chain::view::{ChainView, Health};
use freehold_core::order::{order_id, salt};
use freehold_testkit::chain::{ACCOUNTS, Anvil, CHAIN_ID, terms};

use crate::world::{Contracts, UNIT, World};

const PATIENCE: Duration = Duration::from_secs(30);

fn transaction(goal: &Goal, view: &ChainView, stored: Option<&StoredOrder>, nonce: u64) -> TxEip1559 {
    let call = call_of(goal, view, stored).expect("call");
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: call.gas,
        max_fee_per_gas: 20_000_000_000,
        max_priority_fee_per_gas: 2_000_000_000,
        to: TxKind::Call(call.to),
        value: call.value,
        input: call.data,
        ..TxEip1559::default()
    }
}

async fn anvil() -> Anvil {
    let anvil = Anvil::start().await.expect("anvil");
    anvil.mint(ACCOUNTS[1].0, 10 * UNIT).await.expect("mint");
    anvil.automine(false).await.expect("automine off");
    anvil.mine_every(1).await.expect("a block a second");
    anvil
}

/// Sends each goal once it is possible, and waits until it holds.
async fn reach(anvil: &Anvil, signer: &dyn Signer, goals: &[(Goal, Option<StoredOrder>)]) {
    let config = ReaderConfig {
        rpc: Rpc::new(std::slice::from_ref(&anvil.url), Duration::from_secs(10)).expect("rpc"),
        chain_id: CHAIN_ID,
        market: anvil.contracts.market,
        registry: anvil.contracts.provider_registry,
        token: anvil.contracts.token,
        account: signer.address(),
        depth: Depth::Blocks(1),
        quorum: 1,
        seed: 0,
        block_time: Duration::from_secs(1),
    };
    let rpc = config.rpc.clone();
    let (mut views, _guard) = spawn(config);
    for (goal, stored) in goals {
        let stands = |view: &ChainView| status_of(goal, view, stored.as_ref()).expect("goal").latest;
        let possible = views.wait_for(|view| view.health == Health::Fresh && stands(view) == Standing::Possible);
        let view = tokio::time::timeout(PATIENCE, possible).await.expect("possible in time").expect("reader").clone();
        let nonce = rpc.nonce(view.account, view.latest.block.hash).await.expect("nonce");
        let transaction = transaction(goal, &view, stored.as_ref(), nonce);
        let signed = signer.sign_transaction(SignRequest { goal, stored: stored.as_ref(), transaction }).await;
        rpc.send_raw(&signed.expect("signed").raw).await.expect("sent");
        let reached = views.wait_for(|view| matches!(stands(view), Standing::Reached(_)));
        tokio::time::timeout(PATIENCE, reached).await.expect("reached in time").expect("reader");
    }
}

async fn order(anvil: &Anvil) -> (Goal, Option<StoredOrder>) {
    let block = anvil.rpc("eth_getBlockByNumber", serde_json::json!(["latest", false])).await.expect("block");
    let now: alloy::primitives::U64 = serde_json::from_value(block["timestamp"].clone()).expect("timestamp");
    let spec = b"{}".to_vec();
    let terms = terms(anvil.contracts.token, UNIT, now.to::<u64>() + 300, &spec);
    let stored = StoredOrder { terms, salt: salt("uid", 0), spec };
    let id = order_id(CHAIN_ID, anvil.contracts.market, ACCOUNTS[1].0, stored.salt);
    (Goal::PlaceOrder { order_id: id.to_string().into(), order: "order".into() }, Some(stored))
}

#[tokio::test]
async fn an_order_signed_by_the_signer_is_placed() {
    let anvil = anvil().await;
    let key: PrivateKeySigner = ACCOUNTS[1].1.parse().expect("key");
    let contracts = Contracts {
        market: anvil.contracts.market,
        registry: anvil.contracts.provider_registry,
        token: anvil.contracts.token,
    };
    let world = World::with(key, contracts).await;
    let approve = (Goal::Approve { amount: "16".into(), block: 0 }, None);
    reach(&anvil, &world.operator().await, &[approve, order(&anvil).await]).await;
    let decided: Vec<_> = world.lines().iter().map(|line| (line["goal"].clone(), line["decision"].clone())).collect();
    assert_eq!(decided, [("approve".into(), "signed".into()), ("placeOrder".into(), "signed".into())]);
    assert_eq!(world.lines()[1]["spend"]["amount"], "1000000");
}

/// anvil holds keys too, and signs with them when it is asked as a web3signer is.
#[tokio::test]
async fn an_order_signed_by_a_web3signer_is_placed() {
    let anvil = anvil().await;
    let signer = Web3Signer::connect(&anvil.url, Some(ACCOUNTS[1].0)).await.expect("connects");
    let approve = (Goal::Approve { amount: "16".into(), block: 0 }, None);
    reach(&anvil, &signer, &[approve, order(&anvil).await]).await;
}
