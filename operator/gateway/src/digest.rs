//! SHA-256 digests as names of artifacts.

use std::fmt;
use std::str::FromStr;

/// 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a digest is 64 lower-case hexadecimal digits (SHA-256)")]
pub struct Malformed;

impl Digest {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn of(bytes: &[u8]) -> Self {
        Self(freehold_core::canonical::sha256_hex(bytes))
    }

    /// What a finished hash comes to.
    pub fn finish(hasher: sha2::Sha256) -> Self {
        Self(hex::encode(sha2::Digest::finalize(hasher)))
    }
}

impl FromStr for Digest {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let hexadecimal = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() == 64 && hexadecimal { Ok(Self(text.to_owned())) } else { Err(Malformed) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
