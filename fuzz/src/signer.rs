//! Both sides of a signer: what is asked of it, and what it answers.

use std::sync::LazyLock;

use alloy::consensus::TxEip1559;
use alloy::primitives::{Address, B256, Bytes as Data, TxKind};
use alloy::signers::local::PrivateKeySigner;
use freehold_api::Goal;
use freehold_chain::signer::wire::{
    Account, Check, Checked, MAX_CHECKS, Refusal, SignAccess, SignTransaction, SignatureOf,
};
use freehold_chain::signer::{remote, web3signer};
use freehold_core::access::MAX_LIFE;
use freehold_signer::config::Policy;
use freehold_signer::journal::Entry;
use freehold_signer::policy::{self, Decision, Request};
use freehold_signer::state::State;
use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::json;

pub const NOW: u64 = 1_800_000_000;
pub const MARKET: Address = Address::repeat_byte(1);
pub const REGISTRY: Address = Address::repeat_byte(2);
pub const TOKEN: Address = Address::repeat_byte(3);
/// A line of the journal that somebody's request makes is no longer than this: the volume is finite.
const LONGEST_LINE: usize = 8192;

pub static KEY: LazyLock<PrivateKeySigner> =
    LazyLock::new(|| PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).expect("a key"));

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let text = json!({
        "chainId": 31337, "market": MARKET, "providerRegistry": REGISTRY,
        "token": { "address": TOKEN, "decimals": 6 }, "goals": Goal::NAMES, "gateways": ["*.example.org"],
        "period": "24h", "tokens": "100", "fees": "1", "signaturesPerMinute": 100,
    });
    Policy::parse(&text.to_string()).expect("a policy")
});

/// The first byte chooses the path, the rest is the body.
pub fn requests(data: &[u8]) {
    let Some((path, body)) = data.split_first() else { return };
    match path % 3 {
        0 => {
            let Ok(asked) = serde_json::from_slice::<SignTransaction>(body) else { return };
            if let Ok(decision) = decided(Request::Transaction(&asked)) {
                harmless(&asked, &decision);
            }
        }
        1 => {
            let Ok(asked) = serde_json::from_slice::<SignAccess>(body) else { return };
            if decided(Request::Access(&asked)).is_ok() {
                assert!(asked.chain_id == 31337 && asked.market == MARKET && asked.claims.expiry <= NOW + MAX_LIFE);
                assert!(asked.claims.host.to_ascii_lowercase().contains(".example.org"));
            }
        }
        _ => {
            let Ok(asked) = serde_json::from_slice::<Check>(body) else { return };
            for asked in asked.transactions.iter().take(MAX_CHECKS) {
                let _ = decided(Request::Transaction(asked));
            }
        }
    }
}

pub fn decided(request: Request<'_>) -> Result<Decision, Refusal> {
    let outcome = policy::judge(&POLICY, KEY.address(), &State::default(), request, NOW);
    let line = serde_json::to_string(&Entry::new("operator", request, &outcome, NOW)).expect("a line is printed");
    assert!(line.len() <= LONGEST_LINE, "a line of {} bytes in the journal", line.len());
    let again: Entry = serde_json::from_str(&line).expect("a line is read");
    assert_eq!(again.counts, outcome.as_ref().ok().cloned());
    outcome
}

/// What is signed goes to nobody else, takes no coins and no more tokens than the policy allows.
fn harmless(asked: &SignTransaction, decision: &Decision) {
    let transaction = &asked.transaction;
    assert_eq!(transaction.chain_id, 31337);
    assert!(transaction.value.is_zero() && transaction.access_list.is_empty());
    let TxKind::Call(to) = transaction.to else { unreachable!("a contract is made") };
    assert!([MARKET, REGISTRY, TOKEN, KEY.address()].contains(&to), "{to} is called");
    assert!(decision.spend.as_ref().is_none_or(|spend| spend.amount <= POLICY.tokens.0));
    assert!(decision.fee.as_ref().is_some_and(|fee| fee.amount <= POLICY.fees.0));
}

/// The first byte chooses signer and status, the rest is the body.
pub fn answers(data: &[u8]) {
    let Some((who, body)) = data.split_first() else { return };
    web3signer_says::<Vec<Address>>(body);
    web3signer_says::<Data>(body);
    let url = Url::parse("http://signer:8080/").expect("a URL");
    let status = [StatusCode::OK, StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR][usize::from(who % 3)];
    signer_says::<Account>(&url, status, body);
    signer_says::<Checked>(&url, status, body);
    signer_says::<SignatureOf>(&url, status, body);
    // Bytes that pass for a signature of what was asked are one.
    if let Ok(signed) = web3signer::signed(body, asked(), KEY.address()) {
        assert!(signed.raw == body, "what was signed has one form");
    }
}

pub fn asked() -> TxEip1559 {
    TxEip1559 { chain_id: 31337, to: TxKind::Call(MARKET), gas_limit: 21_000, ..TxEip1559::default() }
}

fn web3signer_says<T: DeserializeOwned>(body: &[u8]) {
    if let Some(Err(error)) = web3signer::answered::<T>("gateway token", "eth_signTypedData", body) {
        short(&error);
    }
}

fn signer_says<T: DeserializeOwned>(url: &Url, status: StatusCode, body: &[u8]) {
    if let Err(error) = remote::answered::<T>(url, "gateway token", status, body) {
        short(&error);
    }
}

fn short(error: &freehold_chain::signer::Error) {
    let length = error.to_string().chars().count();
    assert!(length <= 2048, "an error of {length} characters");
}
