//! The pool of endpoints before a real EVM node, each endpoint behind a proxy that misbehaves on demand.

#![allow(clippy::panic)] // a test may

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{TxKind, U256};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use freehold_chain::reader::{ReaderConfig, ReaderGuard, spawn};
use freehold_chain::rpc::judge::Verdict;
use freehold_chain::rpc::{Depth, Error, Rpc};
use freehold_chain::view::{ChainView, Health, ViewReceiver};
use freehold_testkit::chain::{ACCOUNTS, Anvil, CHAIN_ID};
use freehold_testkit::proxy::{Fault, Proxy};
use futures::future::join_all;

const PATIENCE: Duration = Duration::from_secs(40);

async fn chain() -> Anvil {
    let anvil = Anvil::start().await.expect("anvil");
    anvil.mine(40).await.expect("blocks");
    anvil.mine_every(1).await.expect("a block a second");
    anvil
}

/// A reader over endpoints that can misbehave.
struct World {
    endpoints: Vec<Proxy>,
    rpc: Rpc,
    view: ViewReceiver,
    _reader: ReaderGuard,
}

impl World {
    async fn new(anvil: &Anvil, endpoints: usize, quorum: usize) -> Self {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let started = join_all((0..endpoints).map(|_| Proxy::start(any, &anvil.url))).await;
        let endpoints: Vec<Proxy> = started.into_iter().map(|proxy| proxy.expect("proxy")).collect();
        let urls: Vec<String> = endpoints.iter().map(|proxy| proxy.url.clone()).collect();
        let rpc = Rpc::new(&urls, Duration::from_secs(10)).expect("rpc");
        let config = ReaderConfig {
            rpc: rpc.clone(),
            chain_id: CHAIN_ID,
            market: anvil.contracts.market,
            registry: anvil.contracts.provider_registry,
            token: anvil.contracts.token,
            account: ACCOUNTS[1].0,
            depth: Depth::Blocks(2),
            block_time: Duration::from_secs(1),
            quorum,
            seed: 7,
        };
        let (view, reader) = spawn(config);
        let mut world = Self { endpoints, rpc, view, _reader: reader };
        let good = |view: &ChainView| view.endpoints.iter().filter(|one| one.verdict == Verdict::Good).count();
        world.until("all endpoints are good", |view| view.health == Health::Fresh && good(view) == urls.len()).await;
        world
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&ChainView) -> bool) -> Arc<ChainView> {
        let found = tokio::time::timeout(PATIENCE, self.view.wait_for(|view| holds(view))).await;
        if let Ok(view) = found {
            return view.expect("reader runs").clone();
        }
        drop(found);
        let view = self.view.borrow();
        panic!("not within {PATIENCE:?}: {what}; {:?} {:?} at {:?}", view.health, view.endpoints, view.latest.block);
    }

    /// The view goes on, read from the endpoint with this index.
    async fn reads_from(&mut self, index: usize) {
        let from = self.view.borrow().latest.block.number;
        self.until(&format!("endpoint {index} is read, beyond block {from}"), |view| {
            let used = view.endpoints.iter().position(|one| one.used);
            view.health == Health::Fresh && used == Some(index) && view.latest.block.number > from + 1
        })
        .await;
    }
}

/// A transfer of nothing from one of the chain's accounts.
fn transaction(account: usize, nonce: u64) -> (alloy::primitives::B256, Vec<u8>) {
    let signer: PrivateKeySigner = ACCOUNTS[account].1.parse().expect("key");
    let transaction = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 20_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(signer.address()),
        value: U256::ZERO,
        ..TxEip1559::default()
    };
    let signature = signer.sign_hash_sync(&transaction.signature_hash()).expect("signs");
    let envelope = TxEnvelope::from(transaction.into_signed(signature));
    (*envelope.tx_hash(), envelope.encoded_2718())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_first_of_three_does_the_second_is_read_until_it_is_well_again() {
    let anvil = chain().await;
    let head = anvil.rpc("eth_blockNumber", serde_json::json!([])).await.expect("head");
    let at = u64::from_str_radix(head.as_str().expect("text").trim_start_matches("0x"), 16).expect("number");
    let cases = [
        (Fault::Dead, "unreachable"),
        (Fault::Stalled, "unreachable"),
        (Fault::Garbage, "unreachable"),
        (Fault::Limited { seconds: 1 }, "limited"),
        (Fault::Lagging { blocks: 20 }, "lagging"),
        (Fault::Frozen { at }, "lagging"),
        (Fault::WrongHead, "unreachable"),
        (Fault::OtherHashes, "diverged"),
        (Fault::OtherChain { id: 5 }, "wrong_chain"),
    ];
    join_all(cases.map(|(fault, label)| {
        let anvil = &anvil;
        async move {
            let mut world = World::new(anvil, 3, 2).await;
            world.reads_from(0).await;
            world.endpoints[0].set(fault);
            let before = world.endpoints[0].changed();
            world.until(&format!("{fault:?} is {label}"), |view| view.endpoints[0].verdict.label() == label).await;
            world.reads_from(1).await;
            assert!(world.endpoints[0].changed() > before, "{fault:?} was met");
            world.endpoints[0].set(Fault::None);
            world.reads_from(0).await;
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_endpoints_one_alone_is_not_enough_to_act_on() {
    let anvil = chain().await;
    let mut world = World::new(&anvil, 2, 2).await;
    world.endpoints[0].set(Fault::Dead);
    let view = world.until("too few", |view| matches!(view.health, Health::Unwitnessed { .. })).await;
    assert!(!view.health.allows_action());
    let (reason, message) = view.health.explain();
    assert_eq!(reason, "Unwitnessed");
    assert!(message.contains("does not answer") && message.contains("spec.chain.quorum"), "{message}");
    world.endpoints[0].set(Fault::None);
    world.reads_from(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_endpoints_that_contradict_each_other_stop_everything_until_they_agree() {
    let anvil = chain().await;
    let mut world = World::new(&anvil, 2, 2).await;
    let confirmed = world.view.borrow().confirmed.block.number;
    world.endpoints[1].set(Fault::OtherHashes);
    let view = world.until("diverged", |view| matches!(view.health, Health::Diverged { .. })).await;
    assert!(!view.health.allows_action());
    assert!(view.confirmed.block.number <= confirmed + 2, "nothing is confirmed by one alone");
    world.endpoints[1].set(Fault::None);
    world.reads_from(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_endpoints_never_takes_back_what_was_read() {
    let anvil = chain().await;
    let mut world = World::new(&anvil, 3, 2).await;
    let (mut latest, mut confirmed) = (0, 0);
    for round in 0..6 {
        // The one in use is late by less than what disqualifies it, or gone.
        world.endpoints[0].set(Fault::Lagging { blocks: 3 });
        world.endpoints[1].set(if round % 2 == 0 { Fault::Dead } else { Fault::None });
        let goal = world.view.borrow().latest.block.number + 1;
        tokio::time::timeout(PATIENCE, async {
            loop {
                world.view.changed().await.expect("reader runs");
                let view = world.view.borrow_and_update().clone();
                assert!(view.latest.block.number >= latest, "latest went back to {:?}", view.latest.block);
                assert!(view.confirmed.block.number >= confirmed, "confirmed went back to {:?}", view.confirmed.block);
                (latest, confirmed) = (view.latest.block.number, view.confirmed.block.number);
                if latest >= goal {
                    return;
                }
            }
        })
        .await
        .expect("the view goes on");
        world.endpoints[0].set(if round % 3 == 0 { Fault::Dead } else { Fault::None });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_believed_when_enough_endpoints_give_it() {
    let anvil = chain().await;
    let world = World::new(&anvil, 3, 2).await;
    let (hash, raw) = transaction(2, 0);
    world.rpc.send_raw(&raw).await.expect("sent");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while world.rpc.receipt(hash).await.expect("answers").is_none() {
        assert!(tokio::time::Instant::now() < deadline, "the transaction is mined");
        anvil.mine(1).await.expect("block");
    }
    world.endpoints[0].set(Fault::WrongReceipt);
    assert!(!world.rpc.receipt(hash).await.expect("answers").expect("mined").success, "one alone lies");
    assert!(world.rpc.agreed_receipt(hash).await.expect("answers").expect("mined").success, "two tell the truth");
    world.endpoints[1].set(Fault::Dead);
    let disputed = world.rpc.agreed_receipt(hash).await;
    assert!(matches!(disputed, Err(Error::Disputed { .. })), "no two say the same: {disputed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_throws_transactions_away_cannot_hold_one_back() {
    let anvil = chain().await;
    let mut world = World::new(&anvil, 2, 2).await;
    world.endpoints[0].set(Fault::LosesTransactions);
    let (hash, raw) = transaction(3, 0);
    world.rpc.send_raw(&raw).await.expect("sent");
    assert_eq!(world.endpoints[0].changed(), 1);
    let from = world.view.borrow().latest.block.number;
    world.until("two blocks later", |view| view.latest.block.number >= from + 2).await;
    assert!(world.rpc.receipt(hash).await.expect("answers").is_some(), "the other endpoint took it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asked_for_a_pause_is_left_alone_for_so_long() {
    let anvil = chain().await;
    let world = World::new(&anvil, 3, 2).await;
    world.endpoints[0].set(Fault::Limited { seconds: 5 });
    let mut view = world.view.clone();
    let limited = view.wait_for(|view| view.endpoints[0].verdict == Verdict::Limited);
    tokio::time::timeout(PATIENCE, limited).await.expect("in time").expect("reader runs");
    world.endpoints[0].set(Fault::None);
    let (asked, from) = (world.endpoints[0].requests(), world.view.borrow().latest.block.number);
    let later = view.wait_for(|view| view.latest.block.number >= from + 3);
    tokio::time::timeout(PATIENCE, later).await.expect("in time").expect("reader runs");
    assert_eq!(world.endpoints[0].requests(), asked, "no request during the pause");
}
