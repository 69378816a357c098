//! `metrics.json`: what a run came to.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::evaluation::Evaluation;
use crate::files;
use crate::recipe::Metric;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainingSummary {
    /// Steps made, of `steps`.
    pub step: u64,
    pub steps: u64,
    pub stopped_early: bool,
    /// Training loss of the last step.
    pub loss: Option<f64>,
    /// Of the model delivered, on the rows held out.
    pub metrics: BTreeMap<String, f64>,
    pub last: Option<Judged>,
    pub best: Option<Judged>,
    pub rows_trained: usize,
    pub rows_held_out: usize,
    pub model: ModelFile,
    pub resumed_from: Option<u64>,
    pub device: String,
    pub threads: i32,
    pub wall_seconds: f64,
    /// Over the steps that this process made.
    pub steps_per_second: f64,
    /// What exact training commits to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<Commitments>,
}

/// What anybody who has the same task, data and seed has to come to. Hashes are in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Commitments {
    /// Of model, optimizer, schedule and number of steps.
    pub program_id: String,
    pub data_root: String,
    pub seed: String,
    /// Of the state before the first step.
    pub init_root: String,
    /// Of the state after the last segment that has ended.
    pub state_root: String,
    /// Segments that have ended.
    pub segments: usize,
    /// Steps of each but the last, which may be shorter.
    pub segment_steps: u32,
}

#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    pub step: u64,
    pub metrics: BTreeMap<String, f64>,
}

impl Judged {
    pub fn new(evaluation: Evaluation, metrics: &[Metric]) -> Self {
        Self { step: evaluation.step, metrics: evaluation.report(metrics) }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct ModelFile {
    pub file: String,
    pub step: u64,
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

impl ModelFile {
    pub fn measure(path: &Path, step: u64) -> Result<Self> {
        let (size, sha256) = files::measure(path)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { file, step, sha256, size })
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceSummary {
    pub rows: usize,
    pub file: String,
    pub sha256: String,
    pub device: String,
    pub threads: i32,
    pub wall_seconds: f64,
}

impl TrainingSummary {
    pub fn sentence(&self) -> String {
        let metrics: String = self.metrics.iter().map(|(name, value)| format!(", {name} {value:.4}")).collect();
        let early = if self.stopped_early { " (stopped early)" } else { "" };
        format!(
            "trained to step {} of {}{early}{metrics} at step {}, {:.0} steps/s; model {}",
            self.step, self.steps, self.model.step, self.steps_per_second, self.model.sha256
        )
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        write(self, path)
    }
}

impl InferenceSummary {
    pub fn sentence(&self) -> String {
        format!("predicted {} rows in {:.1} s; {} {}", self.rows, self.wall_seconds, self.file, self.sha256)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        write(self, path)
    }
}

fn write(summary: &impl Serialize, path: &Path) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(summary).map_err(|error| Error::io("write", path)(error.into()))?;
    text.push(b'\n');
    files::write_stream(path, |out| out.write_all(&text))
}
