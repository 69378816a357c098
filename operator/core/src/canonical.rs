//! Canonical JSON (RFC 8785) and digests: the same value has the same bytes everywhere.

use alloy_primitives::{B256, keccak256};
use serde::Serialize;
use sha2::{Digest, Sha256};

#[derive(Debug, thiserror::Error)]
#[error("cannot write {what} as canonical JSON: {source}")]
pub struct Error {
    what: &'static str,
    source: serde_json::Error,
}

/// RFC 8785 bytes of `value`.
pub fn to_vec<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, Error> {
    serde_json_canonicalizer::to_vec(value).map_err(|source| Error { what, source })
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 as the 32 bytes that go on the chain.
pub fn sha256(bytes: &[u8]) -> B256 {
    B256::from_slice(&Sha256::digest(bytes))
}

/// The chain's form of a hexadecimal digest.
pub fn b256_of_hex(digest: &str) -> Option<B256> {
    let bytes = hex::decode(digest).ok()?;
    (bytes.len() == 32).then(|| B256::from_slice(&bytes))
}

pub fn keccak(bytes: &[u8]) -> B256 {
    keccak256(bytes)
}
