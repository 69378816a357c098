//! Lines of `/freehold/progress.jsonl`, as any image may write them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest line that is read.
pub const MAX_LINE: usize = 4096;
/// Most metrics that are kept of a line.
pub const MAX_METRICS: usize = 16;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressLine {
    pub step: u64,
    pub steps: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// A line, or nothing if it is not one: what a workload prints is never trusted to be well formed.
pub fn parse(line: &str) -> Option<ProgressLine> {
    if line.len() > MAX_LINE {
        return None;
    }
    let mut parsed: ProgressLine = serde_json::from_str(line).ok()?;
    if parsed.metrics.len() > MAX_METRICS || parsed.metrics.keys().any(|name| name.len() > 64) {
        return None;
    }
    parsed.at = parsed.at.filter(|at| at.len() <= 40);
    Some(parsed)
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
    }
}
