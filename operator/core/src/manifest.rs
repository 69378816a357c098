//! The manifest: the resolved task that the tenant hands to the provider. Its
//! RFC 8785 bytes become `/freehold/task.json` unchanged; the order's spec
//! carries their SHA-256.

use freehold_api::recipe::Recipe;
use freehold_api::task::OutputFormat;
use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::spec::SpecResources;

/// Largest manifest that a gateway takes.
pub const MAX_BYTES: usize = 256 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub api_version: String,
    /// `TrainingTask` or `InferenceTask`.
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
    pub class: String,
    /// Image by digest.
    pub image: String,
    /// Arguments; for the built-in trainer `["train"]` or `["infer"]`.
    pub args: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<ManifestOutput>,
    pub inputs: Vec<ManifestInput>,
    pub resources: SpecResources,
    /// Runs that may fail before the lease's work is given up.
    pub backoff_limit: u32,
    /// Seconds that the work may take from start on.
    pub deadline_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class: Option<String>,
    /// The checkpoint that this attempt resumes from; also an input of the name `checkpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_step: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestOutput {
    pub format: OutputFormat,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestInput {
    /// `dataset`, `input`, `model`, `init` or `checkpoint`: `/freehold/in/<name>`, the last one under `/freehold/checkpoints`.
    pub name: String,
    pub sha256: String,
    /// Bytes; 0 where unknown.
    pub size: u64,
    /// Name of the file, which tells its format.
    pub file_name: String,
    /// Fetched by the gateway where present; else the tenant's operator uploads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Canonical(#[from] canonical::Error),
    #[error("the manifest is {size} bytes long; a gateway takes {MAX_BYTES}")]
    TooLong { size: usize },
    #[error("the manifest cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Manifest {
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes = canonical::to_vec("the manifest", self)?;
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
