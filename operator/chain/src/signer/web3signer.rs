//! A signer of another make that speaks Web3Signer's JSON-RPC. Such a signer
//! knows no goals: whatever policy there is, is its own.

use alloy::consensus::{TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use alloy::primitives::{Address, Bytes, U64, U128};
use async_trait::async_trait;
use freehold_core::access::Claims;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Error, Refusal, SignRequest, Signed, Signer, assemble, believe, http, origin, reason, short, signature};

pub struct Web3Signer {
    url: Url,
    http: Client,
    address: Address,
}

/// JSON-RPC's answer.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl Web3Signer {
    /// Asks the signer which accounts it holds. With several, `address` says which one is meant.
    pub async fn connect(url: &str, address: Option<Address>) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Unreachable { url: url.to_owned(), reason };
        let url = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        let http = http(&url).map_err(|error| wrong(reason(&error)))?;
        let mut signer = Self { url, http, address: Address::ZERO };
        let held: Vec<Address> = signer.call("eth_accounts", "eth_accounts", json!([])).await?;
        signer.address = match (address, held.as_slice()) {
            (Some(wanted), held) if held.contains(&wanted) => wanted,
            (Some(wanted), _) => return Err(Error::Failed(format!("it does not hold the key of {wanted}"))),
            (None, [only]) => *only,
            (None, held) => {
                return Err(Error::Failed(format!("it holds {} accounts; spec.address must name one", held.len())));
            }
        };
        Ok(signer)
    }

    async fn call<T: DeserializeOwned>(&self, what: &'static str, method: &str, params: Value) -> Result<T, Error> {
        let unreachable = |reason: String| Error::Unreachable { url: origin(&self.url), reason };
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = self.http.post(self.url.clone()).json(&body);
        let (status, bytes) = super::call(method, request).await.map_err(unreachable)?;
        let missing = || unreachable(format!("{status}, and no JSON-RPC answer to {method}"));
        answered(what, method, &bytes).unwrap_or_else(|| Err(missing()))
    }
}

/// What the signer's bytes say; nothing if they are no JSON-RPC.
pub fn answered<T: DeserializeOwned>(what: &'static str, method: &str, bytes: &[u8]) -> Option<Result<T, Error>> {
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    Some(match (answer.error, answer.result) {
        (Some(failure), _) => {
            let value = format!("{method} failed: {} (code {})", failure.message, failure.code);
            let refusal = Refusal::new("web3signer", value, "what the signer itself allows");
            Err(Error::Refused { what, refusal })
        }
        (None, Some(result)) => serde_json::from_value(result).map_err(|error| {
            Error::Failed(format!("{method} returned something else than expected: {}", short(&error)))
        }),
        (None, None) => Err(Error::Failed(format!("{method} returned nothing"))),
    })
}

/// The transaction of `raw`, if it is the one that was asked for, signed by `signer`.
pub fn signed(raw: &[u8], transaction: TxEip1559, signer: Address) -> Result<Signed, Error> {
    let malformed = |error: &dyn std::fmt::Display| Error::Failed(format!("its transaction is malformed: {error}"));
    let envelope = TxEnvelope::decode_2718_exact(raw).map_err(|error| malformed(&error))?;
    let TxEnvelope::Eip1559(signed) = envelope else {
        return Err(malformed(&"its type is not EIP-1559"));
    };
    if *signed.tx() != transaction {
        return Err(Error::Failed("it signed another transaction than the one that was asked for".into()));
    }
    assemble(transaction, *signed.signature(), signer)
}

#[async_trait]
impl Signer for Web3Signer {
    fn address(&self) -> Address {
        self.address
    }

    async fn sign_transaction(&self, request: SignRequest<'_>) -> Result<Signed, Error> {
        let params = json!([call_object(self.address, &request.transaction)]);
        let raw: Bytes = self.call(request.goal.name(), "eth_signTransaction", params).await?;
        signed(&raw, request.transaction, self.address)
    }

    async fn sign_access(&self, claims: &Claims, chain_id: u64, market: Address) -> Result<[u8; 65], Error> {
        let params = json!([self.address, typed_data(claims, chain_id, market)]);
        let bytes: Bytes = self.call("gateway token", "eth_signTypedData", params).await?;
        let signature = signature(&bytes)?;
        believe(&claims.signing_hash(chain_id, market), &signature, self.address)?;
        Ok(signature.as_bytes())
    }
}

fn call_object(from: Address, transaction: &TxEip1559) -> Value {
    json!({
        "from": from,
        "to": transaction.to,
        "gas": U64::from(transaction.gas_limit),
        "maxFeePerGas": U128::from(transaction.max_fee_per_gas),
        "maxPriorityFeePerGas": U128::from(transaction.max_priority_fee_per_gas),
        "nonce": U64::from(transaction.nonce),
        "value": transaction.value,
        "data": transaction.input,
        "chainId": U64::from(transaction.chain_id),
    })
}

/// The token as EIP-712 typed data.
fn typed_data(claims: &Claims, chain_id: u64, market: Address) -> Value {
    let field = |name: &str, kind: &str| json!({ "name": name, "type": kind });
    json!({
        "types": {
            "EIP712Domain": [
                field("name", "string"),
                field("version", "string"),
                field("chainId", "uint256"),
                field("verifyingContract", "address"),
            ],
            "Access": [
                field("lease", "bytes32"),
                field("host", "string"),
                field("scopes", "string"),
                field("expiry", "uint64"),
            ],
        },
        "primaryType": "Access",
        "domain": { "name": "Freehold", "version": "1", "chainId": chain_id, "verifyingContract": market },
        "message": claims,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::dyn_abi::TypedData;
    use alloy::primitives::B256;

    #[test]
    fn the_typed_data_has_the_hash_that_a_gateway_checks() {
        let claims = Claims {
            lease: B256::repeat_byte(1),
            host: "gateway.example:8443".into(),
            scopes: "read write".into(),
            expiry: 1_800_000_000,
        };
        let market = Address::repeat_byte(7);
        let data: TypedData = serde_json::from_value(typed_data(&claims, 31_337, market)).expect("typed data");
        assert_eq!(data.eip712_signing_hash().expect("hash"), claims.signing_hash(31_337, market));
    }
}
