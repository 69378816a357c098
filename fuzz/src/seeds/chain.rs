//! A chain that answers honestly, and what it says when it is read.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use alloy::primitives::{Address, B256, Bytes, LogData, U256, Uint};
use alloy::rpc::client::RpcClient;
use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::sol_types::{SolCall, SolEvent};
use alloy::transports::{TransportError, TransportFut};
use freehold_chain::bindings::{Market, ProviderRegistry, market};
use freehold_chain::rpc::Rpc;
use freehold_core::order::order_id;
use serde_json::{Value, json};

use crate::chain::{ACCOUNT, MARKET, TOKEN, block_on, read_chain};

const PROVIDER: Address = Address::repeat_byte(0x22);
const HEAD: u64 = 12;

pub fn seeds(take: &mut impl FnMut(&'static str, &'static str, Vec<u8>)) {
    let heard = Honest::default();
    let rpc = Rpc::over(RpcClient::new(heard.clone(), true)).expect("an endpoint");
    block_on(read_chain(&rpc)).expect("an honest chain is read");
    take("rpc", "reader", script(0, &heard.said()));
    let body = |result: Value| answer(&result);
    let receipt = json!({
        "transactionHash": B256::ZERO, "transactionIndex": "0x0", "blockHash": hash(9), "blockNumber": "0x9",
        "from": ACCOUNT, "to": MARKET, "cumulativeGasUsed": "0x5208", "gasUsed": "0x5208", "contractAddress": null,
        "logs": [], "logsBloom": Bytes::from(vec![0; 256]), "status": "0x1", "type": "0x2", "effectiveGasPrice": "0x7",
    });
    let refused = json!({
        "jsonrpc": "2.0", "id": 0, "error": { "code": 3, "message": "execution reverted", "data": "0x08c379a0" },
    });
    let small = [
        body(receipt.clone()),
        body(receipt),
        body(json!(B256::ZERO)),
        refused.to_string().into_bytes(),
        body(json!("0x7")),
        body(json!("0x3")),
        body(json!("0x1")),
        body(json!("0x7a69")),
        body(json!("0x60")),
        body(block(HEAD)),
    ];
    take("rpc", "requests", script(1, &small));
    let report = [
        body(json!("0x7a69")),
        body(block(HEAD)),
        body(json!("0x60")),
        body(logs_json(&history())),
        body(block(5)),
        body(block(6)),
        body(block(7)),
        body(block(8)),
        body(block(9)),
        body(json!(Bytes::from(Market::orderOfCall::abi_encode_returns(&stored())))),
    ];
    take("rpc", "auditor", script(2, &report));
    take("logs", "history", logs_bytes(&history()));
}

fn script(who: u8, bodies: &[Vec<u8>]) -> Vec<u8> {
    [&[who][..], &bodies.join(&0)].concat()
}

pub fn terms() -> market::Terms {
    market::Terms {
        token: TOKEN,
        maxPrice: 2_000_000,
        auditReserve: 0,
        bond: 200_000,
        noShowPenalty: 40_000,
        bidBy: Uint::from(1_800_000_020_u64),
        startWindow: Uint::from(300_u64),
        duration: Uint::from(3600_u64),
        window: Uint::from(600_u64),
        holdbackBps: 2000,
        class: 0,
        specHash: alloy::primitives::keccak256(b"{}"),
        rulesHash: B256::ZERO,
        origin: B256::ZERO,
    }
}

fn order() -> B256 {
    order_id(31337, MARKET, ACCOUNT, B256::ZERO)
}

/// An order from its placing to its end.
fn history() -> Vec<LogData> {
    let (id, provider) = (order(), PROVIDER);
    vec![
        Market::Ordered { id, tenant: ACCOUNT, salt: B256::ZERO, terms: terms(), spec: b"{}".into() }.encode_log_data(),
        Market::BidPlaced { id, provider, price: 9, validUntil: 1_800_000_100, bond: Uint::from(200_000_u64) }
            .encode_log_data(),
        Market::Leased { id, provider, seq: 1, price: 9, refund: 0 }.encode_log_data(),
        Market::Started { id, provider, endAt: Uint::from(1_800_003_600_u64) }.encode_log_data(),
        Market::Delivered { id, resultHash: B256::repeat_byte(8), accrued: 0, reviewBy: Uint::from(1_800_000_700_u64) }
            .encode_log_data(),
    ]
}

fn logs_bytes(history: &[LogData]) -> Vec<u8> {
    let mut bytes = 1_800_000_000_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0; 1 + 20 + 20 + 16 + 12]);
    for log in history {
        bytes.push(8 | log.topics().len() as u8);
        log.topics().iter().for_each(|topic| bytes.extend_from_slice(topic.as_slice()));
        bytes.extend_from_slice(&(log.data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&log.data);
    }
    bytes
}

fn logs_json(history: &[LogData]) -> Value {
    let log = |(at, log): (usize, &LogData)| {
        json!({
            "address": MARKET, "topics": log.topics(), "data": log.data, "blockHash": hash(5 + at as u64),
            "blockNumber": format!("{:#x}", 5 + at), "transactionHash": B256::ZERO, "transactionIndex": "0x0",
            "logIndex": format!("{at:#x}"), "removed": false,
        })
    };
    Value::Array(history.iter().enumerate().map(log).collect())
}

fn stored() -> market::OrderView {
    market::OrderView {
        tenant: ACCOUNT,
        price: 9,
        bond: Uint::from(200_000_u64),
        state: 4,
        outcome: 0,
        games: 0,
        deadline: Uint::from(1_800_000_700_u64),
        provider: PROVIDER,
        startedAt: Uint::from(1_800_000_010_u64),
        endAt: Uint::from(1_800_000_014_u64),
        funds: 2_000_000,
        paid: 0,
        termsHash: B256::repeat_byte(4),
    }
}

fn hash(number: u64) -> B256 {
    B256::from(U256::from(number + 1) << 200)
}

fn block(number: u64) -> Value {
    json!({
        "hash": hash(number), "parentHash": hash(number.saturating_sub(1)), "sha3Uncles": B256::ZERO, "miner": Address::ZERO,
        "stateRoot": B256::ZERO, "transactionsRoot": B256::ZERO, "receiptsRoot": B256::ZERO,
        "logsBloom": Bytes::from(vec![0; 256]), "difficulty": "0x0", "number": format!("{number:#x}"),
        "gasLimit": "0x1c9c380", "gasUsed": "0x0", "timestamp": format!("{:#x}", 1_800_000_000 + 2 * number),
        "extraData": "0x", "mixHash": B256::ZERO, "nonce": "0x0000000000000000", "baseFeePerGas": "0x7",
        "transactions": [], "uncles": [], "size": "0x200",
    })
}

fn answer(result: &Value) -> Vec<u8> {
    json!({ "jsonrpc": "2.0", "id": 0, "result": result }).to_string().into_bytes()
}

#[derive(Clone, Default)]
struct Honest(Arc<Mutex<Vec<Vec<u8>>>>);

impl Honest {
    fn said(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl tower::Service<RequestPacket> for Honest {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        let request = serde_json::to_value(&request).expect("a request is JSON");
        let body = answer(&result(request["method"].as_str().unwrap_or_default(), &request["params"]));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(body.clone());
        Box::pin(async move {
            serde_json::from_slice(&body)
                .map_err(|error| TransportError::deser_err(error, String::from_utf8_lossy(&body)))
        })
    }
}

fn result(method: &str, params: &Value) -> Value {
    match method {
        "eth_getBlockByNumber" => match params[0].as_str().unwrap_or_default() {
            "latest" => block(HEAD),
            number => block(U256::from_str_radix(number.trim_start_matches("0x"), 16).map_or(0, |n| n.saturating_to())),
        },
        "eth_getBlockByHash" => (0..=HEAD).find(|n| json!(hash(*n)) == params[0]).map_or(Value::Null, block),
        "eth_getLogs" if params[0].get("blockHash").is_none() => logs_json(&history()),
        "eth_getLogs" => {
            let all = logs_json(&history());
            all.as_array()
                .into_iter()
                .flatten()
                .filter(|log| log["blockHash"] == params[0]["blockHash"])
                .cloned()
                .collect()
        }
        "eth_getCode" => json!("0x60"),
        "eth_getBalance" => json!("0xde0b6b3a7640000"),
        "eth_call" => {
            let input = params[0].get("input").or_else(|| params[0].get("data")).cloned().unwrap_or_default();
            let input: Bytes = serde_json::from_value(input).unwrap_or_default();
            json!(Bytes::from(view(&input)))
        }
        _ => Value::Null,
    }
}

fn view(call: &[u8]) -> Vec<u8> {
    let selector = call.get(..4).unwrap_or_default();
    let word = |value: u128| U256::from(value).to_be_bytes::<32>().to_vec();
    match () {
        () if selector == Market::RATE_SCALECall::SELECTOR => word(freehold_core::money::RATE_SCALE),
        () if selector == Market::SPEC_LIMITCall::SELECTOR => word(1024),
        () if selector == Market::orderOfCall::SELECTOR => Market::orderOfCall::abi_encode_returns(&stored()),
        () if selector == Market::bidOfCall::SELECTOR => {
            let bid = market::Bid { price: 9, bond: Uint::from(200_000_u64), validUntil: 1_800_000_100 };
            Market::bidOfCall::abi_encode_returns(&bid)
        }
        () if selector == Market::multicallCall::SELECTOR => {
            let calls = Market::multicallCall::abi_decode(call).map(|call| call.calls).unwrap_or_default();
            let answers: Vec<Bytes> = calls.iter().map(|call| view(call).into()).collect();
            Market::multicallCall::abi_encode_returns(&answers)
        }
        () if selector == ProviderRegistry::providerOfCall::SELECTOR => {
            ProviderRegistry::providerOfCall::abi_encode_returns(
                &freehold_chain::bindings::registry::IProviderRegistry::Provider {
                    gateway: "https://gateway.example.org".into(),
                    attributes: br#"{"region":"eu-west"}"#.into(),
                    updatedAt: Uint::from(1_800_000_000_u64),
                },
            )
        }
        () => word(if call.len() > 40 { 5_000_000 } else { 6 }),
    }
}
