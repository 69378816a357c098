//! The order's spec: what the chain carries for bidders to judge the work by
//! (at most 1 KiB of RFC 8785 JSON; its keccak-256 is the terms' spec hash).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::canonical;

/// Longest spec that the contract takes.
pub const MAX_BYTES: usize = 1024;
/// Most inputs of a task.
pub const MAX_INPUTS: usize = 16;
/// Most GPUs of a task.
pub const MAX_GPUS: u32 = 16;
/// Largest size that an input may claim, in bytes.
pub const MAX_INPUT_SIZE: u64 = 1_000_000_000_000_000;
/// Most of anything that a task may ask for: bytes, thousandths of a core.
pub const MAX_ASKED: u64 = 1_000_000_000_000_000;

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
    #[error("{field} of the order's spec is `{value}`: it {rule}")]
    Unusable { field: &'static str, value: String, rule: &'static str },
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

    /// Whether a lease can be made of it. Anybody may write a spec to the chain: whoever bids on one that
    /// nobody can serve loses the bond.
    pub fn usable(&self) -> Result<(), Error> {
        let unusable =
            |field, value: &str, rule| Err(Error::Unusable { field, value: value.chars().take(80).collect(), rule });
        if !is_pinned(&self.image) {
            return unusable("image", &self.image, "has to be repository@sha256:…");
        }
        if !is_sha256(&self.manifest) {
            return unusable("manifest", &self.manifest, "has to be 64 lower-case hexadecimal digits");
        }
        if self.inputs.len() > MAX_INPUTS {
            return unusable("inputs", &self.inputs.len().to_string(), "may have at most 16 entries");
        }
        let mut names = BTreeSet::new();
        for input in &self.inputs {
            if !is_input_name(&input.name) || !names.insert(input.name.as_str()) {
                return unusable("inputs.name", &input.name, "has to be a name of its own, of a-z, 0-9 and -");
            }
            if !is_sha256(&input.sha256) {
                return unusable("inputs.sha256", &input.sha256, "has to be 64 lower-case hexadecimal digits");
            }
            if input.size > MAX_INPUT_SIZE {
                return unusable("inputs.size", &input.size.to_string(), "may be at most 10^15 bytes");
            }
        }
        let SpecResources { cpu_millis, memory, disk, gpu } = &self.resources;
        let gpu_memory = gpu.as_ref().map_or(0, |gpu| gpu.memory);
        let most = *[*cpu_millis, *memory, *disk, gpu_memory].iter().max().unwrap_or(&0);
        if most > MAX_ASKED {
            // JSON's numbers would not carry it: printed again, it would be another.
            return unusable("resources", &most.to_string(), "may ask for at most 10^15 of anything");
        }
        match gpu {
            Some(gpu) if !(1..=MAX_GPUS).contains(&gpu.count) => {
                unusable("resources.gpu.count", &gpu.count.to_string(), "has to be between 1 and 16")
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// `repository@sha256:…`.
pub fn is_pinned(image: &str) -> bool {
    image.rsplit_once("@sha256:").is_some_and(|(repository, digest)| !repository.is_empty() && is_sha256(digest))
}

/// 64 lower-case hexadecimal digits.
pub fn is_sha256(digest: &str) -> bool {
    digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What becomes a file name and a key: a-z, 0-9 and -, at most 64, no - in front.
pub fn is_input_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && name.bytes().all(allowed)
}

/// What an input's bytes may be called: A-Z, a-z, 0-9, ., - and _, at most 128, no . in front.
pub fn is_file_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(allowed)
}
