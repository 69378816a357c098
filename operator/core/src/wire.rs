//! What gateway, courier and operators say to one another (JSON over HTTP).
//!
//! Public listener, tenant's signed calls:
//! - `PUT  /v1/leases/{id}/manifest`             the manifest's bytes
//! - `GET  /v1/leases/{id}/status`               [`LeaseReport`]
//! - `GET  /v1/leases/{id}/logs?follow=…`        plain text
//! - `GET  /v1/leases/{id}/events`               lines of [`Event`]
//! - `GET  /v1/leases/{id}/artifacts/{sha256}`   bytes; ranges
//! - `HEAD /v1/leases/{id}/artifacts/{sha256}`   `Upload-Offset` of a partial upload
//! - `PUT  /v1/leases/{id}/artifacts/{sha256}`   chunk; `Content-Range: bytes a-b/total`
//!
//! Courier listener, projected service-account tokens of the lease's pods and
//! of the provider's operator:
//! - `GET  /v1/work/{id}`                        [`WorkReport`]
//! - `GET  /v1/work/{id}/manifest`, `…/artifacts/{sha256}`; `PUT …/artifacts/{sha256}`
//! - `POST /v1/work/{id}/progress`               [`crate::progress::ProgressLine`]
//! - `POST /v1/work/{id}/checkpoints`            [`CheckpointNote`]
//! - `POST /v1/work/{id}/logs`                   appended plain text
//! - `POST /v1/work/{id}/result`                 bytes of `result.json`

use serde::{Deserialize, Serialize};

use crate::progress::{MAX_STEPS, ProgressLine};
use crate::spec::{MAX_INPUT_SIZE, is_file_name, is_sha256};

/// Largest chunk of an upload.
pub const CHUNK: u64 = 64 << 20;
/// Most failed runs that a status counts.
pub const MAX_FAILURES: u32 = 10_000;
/// Longest text that a status takes of a stranger.
const MAX_TEXT: usize = 1024;

/// What the tenant sees of its lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseReport {
    /// Phase of the ComputeLease.
    pub phase: String,
    pub manifest_held: bool,
    /// Names of inputs that the tenant still has to upload.
    pub missing_inputs: Vec<String>,
    /// Why an input of the gateway's own fetching cannot be had, by name.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub input_errors: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressLine>,
    /// Newest last; at most two.
    #[serde(default)]
    pub checkpoints: Vec<CheckpointNote>,
    /// SHA-256 of `result.json`, once every output is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitReport {
    pub code: i32,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default)]
    pub failures: u32,
    /// Trying again elsewhere cannot help.
    #[serde(default)]
    pub terminal: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointNote {
    pub step: u64,
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Name of the file under `/freehold/checkpoints`.
    pub file_name: String,
}

/// What the lease's pods and the provider's operator see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkReport {
    /// The lease runs on the chain: `fetch` lets the trainer begin.
    pub started: bool,
    pub manifest_held: bool,
    pub missing_inputs: Vec<String>,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub input_errors: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressLine>,
    #[serde(default)]
    pub checkpoints: Vec<CheckpointNote>,
    /// SHA-256 of `result.json`, once every output is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

impl LeaseReport {
    /// What a gateway says of a lease, cut down to what a status takes: see [`ProgressLine::bounded`].
    pub fn bounded(mut self) -> Self {
        self.progress = self.progress.map(ProgressLine::bounded);
        self.checkpoints.retain(CheckpointNote::fits);
        self.result = self.result.filter(|digest| is_sha256(digest));
        self.exit = self.exit.map(ExitReport::bounded);
        self
    }
}

impl ExitReport {
    fn bounded(self) -> Self {
        let short = |text: String| text.chars().take(MAX_TEXT).collect();
        Self {
            code: self.code.clamp(-1, 255),
            reason: short(self.reason),
            message: self.message.map(short),
            failures: self.failures.min(MAX_FAILURES),
            terminal: self.terminal,
        }
    }
}

impl WorkReport {
    pub fn bounded(mut self) -> Self {
        self.progress = self.progress.map(ProgressLine::bounded);
        self.checkpoints.retain(CheckpointNote::fits);
        self.result = self.result.filter(|digest| is_sha256(digest));
        self
    }
}

impl CheckpointNote {
    /// Whether a status takes it, and the manifest of another attempt.
    pub fn fits(&self) -> bool {
        let named = is_sha256(&self.sha256) && is_file_name(&self.file_name);
        named && self.step <= MAX_STEPS && self.size <= MAX_INPUT_SIZE
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// RFC 3339.
    pub at: String,
    pub reason: String,
    pub message: String,
}

/// RFC 9457 problem document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_gateway_reports_fits_a_status() {
        let exit = ExitReport {
            code: i32::MIN,
            reason: "x".repeat(5000),
            message: Some("\u{fc}".repeat(5000)),
            failures: u32::MAX,
            terminal: false,
        };
        let exit = LeaseReport { exit: Some(exit), ..LeaseReport::default() }.bounded().exit.unwrap();
        assert_eq!((exit.code, exit.failures, exit.reason.len()), (-1, MAX_FAILURES, MAX_TEXT));
        assert_eq!(exit.message.map(|message| message.chars().count()), Some(MAX_TEXT));
    }

    #[test]
    fn a_checkpoint_that_no_provider_would_take_is_not_remembered() {
        let note = |name: &str| CheckpointNote { sha256: "0".repeat(64), file_name: name.into(), ..Default::default() };
        let names = ["step-3.safetensors", "../step-3", "a/b", ".hidden", "two words.pt", ""];
        let report = LeaseReport { checkpoints: names.map(note).into(), ..LeaseReport::default() }.bounded();
        assert_eq!(report.checkpoints, [note("step-3.safetensors")]);
    }
}
