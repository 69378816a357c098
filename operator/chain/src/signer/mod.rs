//! Who signs. The operator asks for a goal's transaction or a gateway token,
//! never for the signature of arbitrary bytes, so that a signer elsewhere can
//! judge what it is asked for.
//!
//! [`local`] holds a key in this process, [`remote`] asks a Freehold signer
//! ([`wire`]), [`web3signer`] one of another make. What comes back from
//! elsewhere is believed only if it is the account's signature of exactly what
//! was asked.

pub mod local;
pub mod remote;
pub mod web3signer;
pub mod wire;

use std::time::Duration;

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{Address, B256, Signature};
use async_trait::async_trait;
use freehold_api::Goal;
use freehold_core::access::Claims;

pub use local::LocalSigner;
pub use remote::RemoteSigner;
pub use web3signer::Web3Signer;
pub use wire::Refusal;

use crate::calldata::StoredOrder;
use crate::failpoint::crossing;

/// Longest wait for a signer's answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);

/// A transaction and what it is for.
#[derive(Clone, Debug)]
pub struct SignRequest<'a> {
    pub goal: &'a Goal,
    /// What `placeOrder` places.
    pub stored: Option<&'a StoredOrder>,
    pub transaction: TxEip1559,
}

/// A signed transaction. The bytes are a bearer instrument: they stay in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub hash: B256,
    pub raw: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the private key cannot be read ({reason}); it must be 64 hexadecimal digits, with or without 0x")]
    Key { reason: String },
    /// Trying again can help.
    #[error("the signer at {url} does not answer: {reason}")]
    Unreachable { url: String, reason: String },
    /// It answers, but not to this operator.
    #[error("the signer at {url} turned the operator away: {reason}")]
    Unauthorized { url: String, reason: String },
    #[error("the signer's answer cannot be used: {0}")]
    Failed(String),
    /// Its policy does not allow this; another policy may.
    #[error("the signer refused the {what} by its rule {refusal}")]
    Refused { what: &'static str, refusal: Refusal },
}

#[async_trait]
pub trait Signer: Send + Sync {
    fn address(&self) -> Address;

    /// What it would refuse of these transactions, were they signed one after the other. Nothing is
    /// signed or counted; who cannot tell beforehand refuses nothing.
    async fn check(&self, requests: &[SignRequest<'_>]) -> Result<Vec<Option<Refusal>>, Error> {
        Ok(vec![None; requests.len()])
    }

    async fn sign_transaction(&self, request: SignRequest<'_>) -> Result<Signed, Error>;

    /// r ‖ s ‖ v over the token's EIP-712 hash.
    async fn sign_access(&self, claims: &Claims, chain_id: u64, market: Address) -> Result<[u8; 65], Error>;
}

/// The transaction with its signature, if that is `signer`'s.
fn assemble(transaction: TxEip1559, signature: Signature, signer: Address) -> Result<Signed, Error> {
    believe(&transaction.signature_hash(), &signature, signer)?;
    let envelope = TxEnvelope::from(transaction.into_signed(signature));
    Ok(Signed { hash: *envelope.tx_hash(), raw: envelope.encoded_2718() })
}

/// Refuses a signature of `hash` that is not `signer`'s.
fn believe(hash: &B256, signature: &Signature, signer: Address) -> Result<(), Error> {
    match signature.recover_address_from_prehash(hash) {
        Ok(found) if found == signer => Ok(()),
        Ok(found) => Err(Error::Failed(format!("it is signed by {found}, the account is {signer}"))),
        Err(error) => Err(Error::Failed(format!("its signature is malformed: {error}"))),
    }
}

/// r ‖ s ‖ v, whichever way `v` is written.
fn signature(bytes: &[u8]) -> Result<Signature, Error> {
    Signature::try_from(bytes).map_err(|error| Error::Failed(format!("its signature is malformed: {error}")))
}

/// A client that follows no redirect: a token goes to the signer and nowhere else.
fn http(url: &reqwest::Url) -> Result<reqwest::Client, reqwest::Error> {
    let builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    // Plain http needs no certificates, and a container may have none.
    match url.scheme() {
        "http" => builder.tls_certs_only(std::iter::empty()),
        _ => builder.https_only(true),
    }
    .build()
}

/// Longest answer that is read.
const LONGEST: usize = 1 << 20;

/// The answer's status and bytes, within bounds.
async fn call(name: &str, request: reqwest::RequestBuilder) -> Result<(reqwest::StatusCode, Vec<u8>), String> {
    crossing(|| format!("signer.{name}"), async {
        let mut response = request.send().await.map_err(|error| reason(&error))?;
        let mut read = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| reason(&error))? {
            if read.len() + piece.len() > LONGEST {
                return Err(format!("its answer is longer than {LONGEST} bytes"));
            }
            read.extend_from_slice(&piece);
        }
        Ok((response.status(), read))
    })
    .await
}

/// An HTTP failure down to its cause, without the URL.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.is_timeout() { format!("no answer within {} s", TIMEOUT.as_secs()) } else { cause.to_string() }
}

/// What a signer says may be long, and become part of a sentence.
fn short(text: &dyn std::fmt::Display) -> String {
    text.to_string().chars().take(512).collect()
}

/// Scheme, host and port of a URL: what may be shown of it.
fn origin(url: &reqwest::Url) -> String {
    url.origin().ascii_serialization()
}
