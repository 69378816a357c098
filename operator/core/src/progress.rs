//! Lines of `/freehold/progress.jsonl`, as any image may write them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::B256;

/// Longest line that is read.
pub const MAX_LINE: usize = 4096;
/// Most metrics that are kept of a line.
pub const MAX_METRICS: usize = 16;
/// Most steps that a run may count: what a status takes.
pub const MAX_STEPS: u64 = 1_000_000_000_000;
const MAX_NAME: usize = 64;
const MAX_TIME: usize = 40;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressLine {
    pub step: u64,
    pub steps: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Of a run that computes exactly.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "commitments")]
    pub exact: Option<Commitments>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// What the states of an exact run can be checked against: anybody who computes the same program on the same data from the
/// same seed comes to the same roots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commitments {
    pub program_id: B256,
    pub data_root: B256,
    pub seed: B256,
    /// Of the state before the first step.
    pub init_root: B256,
    /// Of the state after the last segment that has ended.
    pub state_root: B256,
    /// Segments that have ended.
    pub segments: u32,
}

/// None where somebody else's image means something else by the word.
fn commitments<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Commitments>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok())
}

/// A line, or nothing if it is not one: what a workload prints is never trusted to be well formed.
pub fn parse(line: &str) -> Option<ProgressLine> {
    if line.len() > MAX_LINE {
        return None;
    }
    let mut parsed: ProgressLine = serde_json::from_str(line).ok()?;
    if parsed.metrics.len() > MAX_METRICS || parsed.metrics.keys().any(|name| name.len() > MAX_NAME) {
        return None;
    }
    if parsed.step.max(parsed.steps) > MAX_STEPS {
        return None;
    }
    parsed.at = parsed.at.filter(|at| at.len() <= MAX_TIME);
    Some(parsed)
}

impl ProgressLine {
    /// Cut down to what a status takes: a line that came from somebody else's machine must not make a status
    /// that the API server refuses.
    pub fn bounded(mut self) -> Self {
        self.step = self.step.min(MAX_STEPS);
        self.steps = self.steps.min(MAX_STEPS);
        self.metrics.retain(|name, _| name.len() <= MAX_NAME);
        while self.metrics.len() > MAX_METRICS {
            self.metrics.pop_last();
        }
        self.at = self.at.filter(|at| at.len() <= MAX_TIME);
        self
    }
}

/// A number as statuses show it: at most six decimals, and short however large it is.
pub fn decimal(value: f64) -> String {
    if value.abs() >= 1e15 {
        return format!("{value:e}");
    }
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_lines_and_refuses_noise() {
        let line = parse(r#"{"step":3,"steps":10,"loss":0.5,"metrics":{"accuracy":0.9},"at":"2026-01-01T00:00:00Z"}"#);
        assert_eq!(line.map(|l| (l.step, l.steps)), Some((3, 10)));
        assert!(parse("step 3 of 10").is_none());
        assert!(parse(&format!(r#"{{"step":1,"steps":2,"at":"{}"}}"#, "x".repeat(MAX_LINE))).is_none());
        assert!(parse(r#"{"step":-1,"steps":2}"#).is_none());
        assert!(parse(r#"{"step":1000000000001,"steps":2}"#).is_none());
    }

    #[test]
    fn whatever_a_stranger_reports_fits_a_status() {
        let metrics = (0..40).map(|n| (format!("{}{n}", "m".repeat(n)), f64::MAX)).collect();
        let at = Some("x".repeat(99));
        let line = ProgressLine { step: u64::MAX, steps: u64::MAX, metrics, at, ..ProgressLine::default() };
        let line = line.bounded();
        assert_eq!((line.step, line.steps, line.metrics.len(), line.at), (MAX_STEPS, MAX_STEPS, MAX_METRICS, None));
    }

    #[test]
    fn roots_are_taken_whole_or_not_at_all() {
        let root = format!("0x{}", "ab".repeat(32));
        let line = |seed: &str| {
            parse(&format!(
                r#"{{"step":3,"steps":10,"exact":{{"programId":"{root}","dataRoot":"{root}","seed":"{seed}","initRoot":"{root}",
                "stateRoot":"{root}","segments":2}}}}"#
            ))
        };
        let exact = line(&root).and_then(|line| line.exact);
        assert_eq!(exact.map(|exact| (exact.segments, exact.state_root)), Some((2, B256::repeat_byte(0xab))));
        assert_eq!(line("0xab").map(|line| (line.step, line.exact)), Some((3, None)));
        assert_eq!(parse(r#"{"step":3,"steps":10,"exact":true}"#).map(|line| line.exact), Some(None));
    }

    #[test]
    fn numbers_stay_short() {
        for (value, text) in [(0.5, "0.5"), (12.0, "12"), (1e300, "1e300"), (-1e300, "-1e300"), (1e-9, "0")] {
            assert_eq!(decimal(value), text);
        }
        assert!(decimal(f64::MAX).len() < 32 && decimal(f64::MIN_POSITIVE).len() < 32);
    }
}
