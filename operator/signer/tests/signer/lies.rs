//! Signers that answer something else than they were asked.

use std::net::SocketAddr;

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{Address, B256, Bytes};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use freehold_api::Goal;
use freehold_chain::signer::{Error, RemoteSigner, Signer, Web3Signer};
use freehold_core::access::Claims;
use serde_json::{Value, json};
use warp::Filter;

use crate::world::{CHAIN, CONTRACTS, request, transaction};

fn key(n: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(n)).expect("key")
}

/// Answers every call with what `answer` makes of its path and body.
async fn answering(answer: impl Fn(&str, &Value) -> Value + Clone + Send + Sync + 'static) -> SocketAddr {
    freehold_testkit::chain::install_tls();
    let routes =
        warp::path::full().and(warp::body::bytes()).map(move |path: warp::path::FullPath, body: bytes::Bytes| {
            let body = serde_json::from_slice(&body).unwrap_or_default();
            warp::reply::json(&answer(path.as_str(), &body))
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("address");
    tokio::spawn(warp::serve(routes).incoming(listener).run());
    address
}

fn claims() -> Claims {
    Claims { lease: B256::repeat_byte(1), host: "gw.example".into(), scopes: "read".into(), expiry: 1_800_000_000 }
}

fn unusable<T: std::fmt::Debug>(outcome: Result<T, Error>, why: &str) {
    match outcome {
        Err(Error::Failed(reason)) => assert!(reason.contains(why), "{reason}"),
        other => panic!("believed: {other:?}"),
    }
}

#[tokio::test]
async fn a_signature_of_another_key_is_not_believed() {
    let (mine, other) = (key(1), key(2));
    let address = mine.address();
    let server = answering(move |path, _| match path {
        "/v1/address" => json!({ "address": address }),
        _ => json!({ "signature": Bytes::from(other.sign_hash_sync(&B256::ZERO).expect("signs").as_bytes()) }),
    })
    .await;
    let folder = tempfile::tempdir().expect("folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "token").expect("token");
    let signer = RemoteSigner::connect(&format!("http://{server}/"), &token).await.expect("connects");
    let void = transaction(Goal::Void { nonce: 3 }, 3, address, vec![]);
    unusable(signer.sign_transaction(request(&void)).await, "is signed by");
    unusable(signer.sign_access(&claims(), CHAIN, CONTRACTS.market).await, "is signed by");
}

#[tokio::test]
async fn a_signer_that_is_away_is_told_apart_from_one_that_refuses() {
    let folder = tempfile::tempdir().expect("folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "token").expect("token");
    freehold_testkit::chain::install_tls();
    let outcome = RemoteSigner::connect("http://127.0.0.1:1", &token).await.err();
    assert!(matches!(&outcome, Some(Error::Unreachable { url, .. }) if url == "http://127.0.0.1:1"), "{outcome:?}");
    let outcome = Web3Signer::connect("http://127.0.0.1:1", None).await.err();
    assert!(matches!(outcome, Some(Error::Unreachable { .. })), "{outcome:?}");
}

fn signed(key: &PrivateKeySigner, transaction: TxEip1559) -> Bytes {
    let signature = key.sign_hash_sync(&transaction.signature_hash()).expect("signs");
    TxEnvelope::from(transaction.into_signed(signature)).encoded_2718().into()
}

/// A web3signer that holds `key` and answers `eth_signTransaction` with `raw`.
async fn web3signer(key: PrivateKeySigner, raw: Bytes) -> Result<Web3Signer, Error> {
    let server = answering(move |_, body| match body["method"].as_str() {
        Some("eth_accounts") => json!({ "jsonrpc": "2.0", "id": 1, "result": [key.address(), Address::ZERO] }),
        Some("eth_signTransaction") => json!({ "jsonrpc": "2.0", "id": 1, "result": raw }),
        Some("eth_signTypedData") => {
            let data: alloy::dyn_abi::TypedData =
                serde_json::from_value(body["params"][1].clone()).expect("typed data");
            let hash = data.eip712_signing_hash().expect("hash");
            let signature = Bytes::from(key.sign_hash_sync(&hash).expect("signs").as_bytes());
            json!({ "jsonrpc": "2.0", "id": 1, "result": signature })
        }
        _ => json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32601, "message": "no such method" } }),
    })
    .await;
    let address = self::key(1).address();
    Web3Signer::connect(&format!("http://{server}"), Some(address)).await
}

#[tokio::test]
async fn a_web3signer_is_believed_where_it_signed_what_was_asked() {
    let mine = key(1);
    let void = transaction(Goal::Void { nonce: 3 }, 3, mine.address(), vec![]);
    let honest = web3signer(mine.clone(), signed(&mine, void.transaction.clone())).await.expect("connects");
    let answer = honest.sign_transaction(request(&void)).await.expect("signs");
    assert_eq!(Bytes::from(answer.raw), signed(&mine, void.transaction.clone()));
    assert!(honest.sign_access(&claims(), CHAIN, CONTRACTS.market).await.is_ok());

    let other = TxEip1559 { nonce: 4, ..void.transaction.clone() };
    let swapped = web3signer(mine.clone(), signed(&mine, other)).await.expect("connects");
    unusable(swapped.sign_transaction(request(&void)).await, "another transaction");
    let forged = web3signer(mine.clone(), signed(&key(2), void.transaction.clone())).await.expect("connects");
    unusable(forged.sign_transaction(request(&void)).await, "is signed by");
    let nonsense = web3signer(mine, Bytes::from_static(&[1, 2, 3])).await.expect("connects");
    unusable(nonsense.sign_transaction(request(&void)).await, "malformed");
    let absent = web3signer(key(3), Bytes::new()).await.err();
    assert!(matches!(&absent, Some(Error::Failed(reason)) if reason.contains("does not hold")), "{absent:?}");
}
