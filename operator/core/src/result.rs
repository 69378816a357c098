//! `result.json`: what a lease delivered. Its SHA-256 is the result hash on the chain.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultFile {
    /// Sorted by name.
    pub outputs: Vec<OutputFile>,
    /// Decimal strings, as the trainer reported them.
    #[serde(default)]
    pub metrics: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputFile {
    /// Relative path under `/freehold/out`.
    pub name: String,
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Most outputs that a lease may deliver.
pub const MAX_OUTPUTS: usize = 64;
/// Longest name of an output.
pub const MAX_NAME: usize = 128;
/// Largest `result.json` that is read.
pub const MAX_BYTES: usize = 64 * 1024;

/// What makes a file unfit to be delivered under its name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the result cannot be read: {0}")]
    Unreadable(String),
    #[error("the result is {size} bytes long; at most {MAX_BYTES} are taken")]
    TooLong { size: usize },
    #[error("there are {count} outputs; at most {MAX_OUTPUTS} are taken: pack some into one file")]
    TooMany { count: usize },
    #[error(
        "`{0}` cannot be an output's name: take a relative path of at most {MAX_NAME} bytes, \
         without `.`, `..`, backslash or control characters"
    )]
    Name(String),
    #[error("the digest `{found}` of output `{name}` is not 64 lower-case hexadecimal digits")]
    Digest { name: String, found: String },
    #[error("outputs are not sorted by name, or `{0}` is named twice")]
    Order(String),
}

/// A relative path that means the same file below any folder.
pub fn check_name(name: &str) -> Result<(), Error> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let clean = !name.chars().any(|c| c.is_control() || c == '\\');
    if name.len() <= MAX_NAME && clean && name.split('/').all(plain) {
        return Ok(());
    }
    Err(Error::Name(name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()))
}

impl ResultFile {
    /// Reads what a stranger wrote: sizes, names, digests and order are checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLong { size: bytes.len() });
        }
        let parsed: Self = serde_json::from_slice(bytes).map_err(|e| Error::Unreadable(e.to_string()))?;
        if parsed.outputs.len() > MAX_OUTPUTS {
            return Err(Error::TooMany { count: parsed.outputs.len() });
        }
        for output in &parsed.outputs {
            check_name(&output.name)?;
            let hexadecimal = output.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if output.sha256.len() != 64 || !hexadecimal {
                let found = output.sha256.chars().take(80).collect();
                return Err(Error::Digest { name: output.name.clone(), found });
            }
        }
        match parsed.outputs.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            Some(pair) => Err(Error::Order(pair[1].name.clone())),
            None => Ok(parsed),
        }
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, canonical::Error> {
        canonical::to_vec("the result", self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for good in ["model.safetensors", "a/b/c.csv", ".hidden", "ünicode"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a\\b", "a\nb", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reads_its_own_bytes_and_refuses_disorder() {
        let output = |name: &str| OutputFile { name: name.into(), sha256: "0".repeat(64), size: 1 };
        let file = ResultFile { outputs: vec![output("a"), output("b")], ..Default::default() };
        assert_eq!(ResultFile::parse(&file.to_bytes().unwrap()), Ok(file));
        let twice = ResultFile { outputs: vec![output("a"), output("a")], ..Default::default() };
        assert_eq!(ResultFile::parse(&twice.to_bytes().unwrap()), Err(Error::Order("a".into())));
        let short =
            ResultFile { outputs: vec![OutputFile { sha256: "00".into(), ..output("a") }], ..Default::default() };
        assert!(matches!(ResultFile::parse(&short.to_bytes().unwrap()), Err(Error::Digest { .. })));
    }
}
