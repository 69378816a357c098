use alloy::consensus::SignableTransaction;
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{Address, B256, TxKind, U256};
use alloy::signers::SignerSync;
use alloy::sol_types::{SolCall, SolError};
use freehold_chain::bindings::{Erc20, Market};
use freehold_core::access::{self, Claims, Scope};
use serde_json::{Value, json};

use crate::{gateway, signer};

pub fn seeds(take: &mut impl FnMut(&'static str, &'static str, Vec<u8>)) {
    tasks(take);
    token(take);
    texts(take);
    signers(take);
    take("nvml", "two-gpus", nvml());
    take("revert", "state", Market::Market_WrongState { id: B256::ZERO, state: 3 }.abi_encode());
    take(
        "revert",
        "token",
        Market::Market_TokenMoved { token: Address::ZERO, moved: U256::from(1), asked: U256::from(2) }.abi_encode(),
    );
    take(
        "revert",
        "reason",
        [&[0x08, 0xc3, 0x79, 0xa0][..], &alloy::sol_types::SolValue::abi_encode(&"no".to_owned())].concat(),
    );
}

/// The examples as JSON, and what becomes of them.
fn tasks(take: &mut impl FnMut(&'static str, &'static str, Vec<u8>)) {
    let json_of = |yaml: &str| {
        let value: Value = serde_saphyr::from_str(yaml).expect("an example is YAML");
        value
    };
    let training = json_of(include_str!("../../../examples/training-task.yaml"));
    let inference = json_of(include_str!("../../../examples/inference-task.yaml"));
    take("task", "training", training.to_string().into_bytes());
    take("task", "inference", inference.to_string().into_bytes());
    let mut all = training.clone();
    all["spec"]["dataset"] = json!({ "uri": "https://example.org/data/digits.csv.gz", "sha256": "a".repeat(64) });
    all["spec"]["market"]["providers"] = json!({
        "attributes": { "region": "eu-*" }, "auditedBy": { "anyOf": [Address::ZERO], "allOf": [] }, "addresses": [Address::ZERO],
    });
    all["spec"]["market"]["holdback"] = json!("30%");
    all["spec"]["market"]["bidWindow"] = json!("1m");
    all["spec"]["resources"]["gpu"] =
        json!({ "count": 1, "models": ["*A100*"], "memory": "5Gi", "migProfile": "1g.10gb" });
    all["spec"]["isolation"] = json!({ "runtimeClassName": "gvisor" });
    all["spec"]["ttlAfterFinished"] = json!("24h");
    take("task", "everything", all.to_string().into_bytes());
    let mut own = training;
    own["spec"]["trainer"] =
        json!({ "image": format!("example.org/own@sha256:{}", "1".repeat(64)), "args": ["--fast"] });
    take("task", "own-image", own.to_string().into_bytes());

    let resources = json!({
        "cpuMillis": 1000, "memory": 1u64 << 30, "disk": 2u64 << 30,
        "gpu": { "count": 1, "models": ["*H100*", "*"], "memory": 16u64 << 30 },
    });
    let image = format!("freehold.dev/trainer@sha256:{}", "1".repeat(64));
    let spec = json!({
        "class": "none", "image": image, "kind": "TrainingTask", "manifest": "2".repeat(64), "recipe": "3".repeat(64),
        "inputs": [{ "name": "dataset", "sha256": "4".repeat(64), "size": 10 }], "resources": resources,
        "require": { "acceptSharedKernel": true, "attributes": { "region": "eu-*" } },
    });
    take("spec", "training", spec.to_string().into_bytes());
    let manifest = json!({
        "apiVersion": "freehold.dev/v1alpha1", "kind": "TrainingTask", "name": "digits", "namespace": "demo", "uid": "u",
        "attempt": 0, "class": "none", "image": image, "args": ["train"],
        "recipe": {
            "model": { "mlp": { "layers": [64, 32, 10] } },
            "optimizer": { "adamw": { "learningRate": "0.003", "weightDecay": "0.1" } },
            "schedule": { "cosine": { "warmup": 100, "floor": "10%" } }, "batchSize": 32, "steps": 2500, "seed": 7,
            "evaluate": { "every": 500, "metrics": ["loss", "accuracy"] },
            "checkpoint": { "every": "1m", "keepLast": 2, "keepBest": 1 },
        },
        "inputs": [{ "name": "dataset", "sha256": "4".repeat(64), "size": 10, "fileName": "digits.csv.gz" }],
        "resources": resources, "backoffLimit": 3, "deadlineSeconds": 7200, "runtimeClass": "gvisor",
    });
    take("manifest", "training", manifest.to_string().into_bytes());

    let header = r#"{"__metadata__":{"freehold":"{}"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let file = [&[0; 9][..], &(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat();
    take("model", "small", file);
    take("model", "header", [&[0, 0, 0, 0, 0, 0, 0, 0, 1][..], header.as_bytes(), &[0; 5]].concat());
}

fn token(take: &mut impl FnMut(&'static str, &'static str, Vec<u8>)) {
    let claims = Claims {
        lease: gateway::LEASE,
        host: gateway::HOST.into(),
        scopes: access::scopes(&[Scope::Read, Scope::Write, Scope::Logs]),
        expiry: gateway::NOW + 300,
    };
    let hash = claims.signing_hash(31337, gateway::MARKET);
    let signature = signer::KEY.sign_hash_sync(&hash).expect("a signature");
    take("token", "signed", claims.header(&signature.as_bytes()).expect("a header").into_bytes());
    let stranger = Claims { expiry: gateway::NOW + 9_999, ..claims };
    take("token", "unsigned", stranger.header(&[0x1b; 65]).expect("a header").into_bytes());
}

fn texts(take: &mut impl FnMut(&'static str, &'static str, Vec<u8>)) {
    let texts = |first: &[u8], texts: &[&str]| [first, texts.join("\0").as_bytes()].concat();
    take("range", "chunk", texts(&100_u64.to_be_bytes(), &["bytes 0-9/100", "bytes=5-", "10", "true", "20"]));
    take("range", "suffix", texts(&7_u64.to_be_bytes(), &["", "bytes=-3", "7", "-", "-"]));
    take(
        "address",
        "four",
        texts(&[], &["10.0.0.0/8", "10.1.2.3", "https://example.org:8443/a?b", &"a".repeat(64), "step-7.pt"]),
    );
    take("address", "six", texts(&[], &["fd00::/8", "::ffff:10.0.0.1", "https://[2606:4700::1111]/", "", "x.12"]));
    take("values", "amount", texts(&[6], &["1.250000", "1h30m", "1.5Gi", "eu-*", "eu-west-1", "138888888888888"]));
    take("values", "pattern", texts(&[18], &["0.000000000000000001", "90s", "500m", "*a*b*", "xaybz", "0"]));
    let lines = concat!(
        "\x04noise\n",
        r#"{"step":3,"steps":10,"loss":0.5,"metrics":{"accuracy":0.9},"at":"2026-01-01T00:00:00Z"}"#,
        "\n",
        r#"{"step":4,"steps":10,"loss":1e-9}"#,
        "\n"
    );
    take("progress", "two-lines", lines.as_bytes().to_vec());
    let report = json!({
        "phase": "Running", "manifestHeld": true, "missingInputs": ["dataset"], "inputErrors": { "dataset": "gone" },
        "progress": { "step": 3, "steps": 10, "loss": 0.5, "metrics": { "accuracy": 0.9 } },
        "checkpoints": [{ "step": 3, "sha256": "5".repeat(64), "size": 9, "fileName": "step-3.safetensors" }],
        "result": "6".repeat(64),
        "exit": { "code": 65, "reason": "BadData", "message": "row 3 is empty", "failures": 1, "terminal": true },
    });
    take("report", "lease", report.to_string().into_bytes());
    let work = json!({
        "started": true, "manifestHeld": true, "missingInputs": [], "progress": null, "checkpoints": [], "result": null,
    });
    take("report", "work", work.to_string().into_bytes());
    let note = json!({ "step": 3, "sha256": "5".repeat(64), "size": 9, "fileName": "step-3.safetensors" });
    take("report", "checkpoint", note.to_string().into_bytes());
    let file = json!({
        "metrics": { "accuracy": "0.9" }, "outputs": [{ "name": "a/model.safetensors", "sha256": "7".repeat(64), "size": 3 }],
    });
    take("result", "result", file.to_string().into_bytes());
    take("result", "metrics", br#"{"metrics":{"accuracy":0.9775,"loss":1e-7,"rows":359}}"#.to_vec());
}

fn signers(take: &mut impl FnMut(&'static str, &'static str, Vec<u8>)) {
    let path = |path: u8, body: Value| [&[path][..], body.to_string().as_bytes()].concat();
    let approve = Erc20::approveCall { spender: signer::MARKET, amount: U256::from(5_000_000) };
    let transaction = |to, input: Vec<u8>| {
        let mut transaction = signer::asked();
        transaction.to = TxKind::Call(to);
        transaction.max_fee_per_gas = 1_000_000_000;
        transaction.input = input.into();
        transaction
    };
    let approve = json!({
        "goal": { "approve": { "amount": "5", "block": 7 } },
        "transaction": transaction(signer::TOKEN, approve.abi_encode()),
    });
    take("signer", "approve", path(0, approve.clone()));
    let void = json!({ "goal": { "void": { "nonce": 0 } }, "transaction": transaction(signer::KEY.address(), vec![]) });
    take("signer", "void", path(0, void.clone()));
    let salt = B256::repeat_byte(5);
    let terms = super::chain::terms();
    let order = freehold_core::order::order_id(31337, signer::MARKET, signer::KEY.address(), salt);
    let place = Market::orderCall { terms: terms.clone(), salt, spec: b"{}".into() };
    let place = json!({
        "goal": { "placeOrder": { "orderId": order, "order": "order-1" } },
        "transaction": transaction(signer::MARKET, place.abi_encode()),
    });
    take("signer", "order", path(0, place));
    let bid = Market::bidCall { id: order, terms, price: 7, validUntil: 1_800_000_100 };
    let bid = json!({
        "goal": { "bid": { "orderId": order, "price": "7", "validUntil": 1_800_000_100u32 } },
        "transaction": transaction(signer::MARKET, bid.abi_encode()),
    });
    take("signer", "bid", path(0, bid));
    let access = json!({
        "claims": { "lease": order, "host": "gw.example.org", "scopes": "logs read write", "expiry": signer::NOW + 300 },
        "chainId": 31337, "market": signer::MARKET,
    });
    take("signer", "access", path(1, access));
    take("signer", "check", path(2, json!({ "transactions": [approve, void] })));

    let signed = signer::asked();
    let signature = signer::KEY.sign_hash_sync(&signed.signature_hash()).expect("a signature");
    let raw = alloy::consensus::TxEnvelope::from(signed.into_signed(signature)).encoded_2718();
    take("signatures", "raw", [&[0][..], &raw].concat());
    let hexadecimal = alloy::primitives::Bytes::from(raw);
    take("signatures", "rpc", path(0, json!({ "jsonrpc": "2.0", "id": 1, "result": hexadecimal })));
    take(
        "signatures",
        "rpc-error",
        path(0, json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32000, "message": "no" } })),
    );
    take(
        "signatures",
        "signature",
        path(0, json!({ "signature": alloy::primitives::Bytes::from(signature.as_bytes().to_vec()) })),
    );
    let refused = json!({
        "type": "t", "title": "Forbidden", "status": 403, "detail": "no", "rule": "spend", "value": "5", "limit": "4",
    });
    take("signatures", "refused", path(1, refused));
}

fn nvml() -> Vec<u8> {
    let mut bytes = b"570.1\x0013.0\0".to_vec();
    for index in 0..2_u8 {
        bytes.push(2);
        bytes.extend_from_slice(format!("GPU-{index}\0").as_bytes());
        bytes.extend_from_slice(&[index, 0, 0, 0, index][..]);
        bytes.extend_from_slice(b"NVIDIA H100 80GB HBM3\0");
        bytes.extend_from_slice(&(80_u64 << 30).to_be_bytes());
        bytes.extend_from_slice(&0_u64.to_be_bytes());
        bytes.extend_from_slice(b"9.0\x0000:1\0gen5 x16\0");
        bytes.extend_from_slice(&[18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use freehold_chain::signer::wire::{Check, SignAccess, SignTransaction};

    use super::*;

    /// A seed that is refused at the door leads a fuzzer nowhere.
    #[test]
    fn requests_are_signed_and_the_token_is_believed() {
        let mut count = 0;
        seeds(&mut |target, name, bytes| match (target, name) {
            ("token", "signed") => {
                count += 1;
                assert!(gateway::believes(std::str::from_utf8(&bytes).unwrap()));
            }
            ("signer", "access") => {
                count += 1;
                let asked: SignAccess = serde_json::from_slice(&bytes[1..]).unwrap();
                signer::decided(freehold_signer::policy::Request::Access(&asked)).unwrap();
            }
            ("signer", "check") => {
                serde_json::from_slice::<Check>(&bytes[1..]).unwrap();
            }
            ("signer", _) => {
                count += 1;
                let asked: SignTransaction = serde_json::from_slice(&bytes[1..]).unwrap();
                signer::decided(freehold_signer::policy::Request::Transaction(&asked)).unwrap();
            }
            _ => {}
        });
        assert_eq!(count, 6);
    }
}
