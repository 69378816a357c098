//! The order's spec: what the chain carries for bidders to judge the work by
//! (at most 1 KiB of RFC 8785 JSON; its keccak-256 is the terms' spec hash).

use serde::{Deserialize, Serialize};

use crate::canonical;

/// Longest spec that the contract takes.
pub const MAX_BYTES: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderSpec {
    /// `TrainingTask` or `InferenceTask`.
    pub kind: String,
    /// Verification class, `none`.
    pub class: String,
    /// Image by digest.
    pub image: String,
    pub resources: SpecResources,
    /// SHA-256 of the recipe's RFC 8785 bytes; absent for images of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<SpecInput>,
    /// SHA-256 of the manifest.
    pub manifest: String,
    /// What the tenant asks of the provider beyond resources.
    #[serde(default, skip_serializing_if = "SpecRequirements::is_empty")]
    pub require: SpecRequirements,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecResources {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub disk: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<SpecGpu>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecGpu {
    pub count: u32,
    /// Wildcards over product names.
    pub models: Vec<String>,
    /// Least bytes of each device.
    #[serde(default)]
    pub memory: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_profile: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecInput {
    pub name: String,
    pub sha256: String,
    /// Bytes; 0 where the tenant does not know.
    pub size: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecRequirements {
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub attributes: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_shared_kernel: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class: Option<String>,
}

impl SpecRequirements {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Canonical(#[from] canonical::Error),
    #[error(
        "the order's spec is {size} bytes long, the chain takes {MAX_BYTES}: name fewer inputs, attributes or GPU models"
    )]
    TooLong { size: usize },
    #[error("the order's spec cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl OrderSpec {
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes = canonical::to_vec("the order's spec", self)?;
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLong { size: bytes.len() });
        }
        Ok(bytes)
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLong { size: bytes.len() });
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}
