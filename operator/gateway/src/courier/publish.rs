//! `courier publish`: the pod's main container, which runs once the trainer
//! has exited 0. Its exit code decides the Job, so it ends well only when the
//! gateway holds every output and the result that names them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use freehold_core::result::{MAX_OUTPUTS, OutputFile, ResultFile, check_name};
use reqwest::Method;
use serde_json::Value;

use super::files::{self, Entry};
use super::{Error, Pace};
use crate::digest::Digest;
use crate::transfer::{Remote, Source};

/// Metrics of a result, the length of their names, and of the file that they are read from.
const METRICS: usize = 16;
const METRIC_NAME: usize = 64;
const METRICS_FILE: u64 = 256 * 1024;

#[derive(Clone, Debug, clap::Args)]
pub struct PublishArgs {
    /// Seconds that delivering is tried for; a gateway may be away for some of them.
    #[arg(long, env = "FREEHOLD_PUBLISH_SECONDS", default_value_t = 1800)]
    pub seconds: u64,
    /// Milliseconds before the first repetition; the wait doubles from there, to 15 s.
    #[arg(long, env = "FREEHOLD_PUBLISH_WAIT_MILLIS", default_value_t = 1000)]
    pub wait_millis: u64,
}

pub async fn publish(remote: &Remote, root: &Path, args: &PublishArgs) -> Result<(), Error> {
    let outputs = gather(root).await?;
    let names = outputs.iter().map(|output| output.file.clone()).collect();
    let result = ResultFile { outputs: names, metrics: metrics(root) };
    let bytes = result.to_bytes().map_err(|e| Error::BadData(e.to_string()))?;
    ResultFile::parse(&bytes).map_err(|e| Error::BadData(e.to_string()))?;
    let mut pace = Pace::within(Duration::from_secs(args.seconds));
    pace.first = Duration::from_millis(args.wait_millis);
    let deliver = || async {
        for output in &outputs {
            remote.upload(&output.digest, &output.source).await?;
        }
        remote.put(Method::POST, "/result", bytes.clone().into()).await
    };
    pace.keep_trying("delivering the outputs", deliver).await?;
    tracing::info!(outputs = outputs.len(), result = %Digest::of(&bytes), "delivered");
    Ok(())
}

struct Output {
    file: OutputFile,
    digest: Digest,
    source: Source,
}

async fn gather(root: &Path) -> Result<Vec<Output>, Error> {
    let entries = files::walk(root, "out", MAX_OUTPUTS).map_err(|error| match error {
        files::Error::Unfit(why) => Error::BadData(why),
        files::Error::Io(source) => Error::File { path: "out".into(), source },
    })?;
    let mut outputs = Vec::new();
    for Entry { name, .. } in entries {
        check_name(&name).map_err(|e| Error::BadData(e.to_string()))?;
        let path = format!("out/{name}");
        let source = Source::File(files::open(root, &path).map_err(Error::file(&path))?.into());
        let (digest, size) = source.measure().await.map_err(Error::file(&path))?;
        outputs.push(Output { file: OutputFile { name, sha256: digest.to_string(), size }, digest, source });
    }
    Ok(outputs)
}

/// Numbers of `metrics.json`: those under `metrics` where it has such an
/// object, else those at the top. A result without them is as good.
fn metrics(root: &Path) -> BTreeMap<String, String> {
    let mut bytes = Vec::new();
    let read = files::open(root, "out/metrics.json").and_then(|file| file.take(METRICS_FILE).read_to_end(&mut bytes));
    read.map(|_| metrics_of(&bytes)).unwrap_or_default()
}

/// The same, of the file's bytes.
pub fn metrics_of(bytes: &[u8]) -> BTreeMap<String, String> {
    match serde_json::from_slice(bytes).ok() {
        Some(Value::Object(file)) => {
            let chosen = file.get("metrics").and_then(Value::as_object).unwrap_or(&file);
            let short = chosen.iter().filter(|(name, _)| name.len() <= METRIC_NAME);
            short.filter_map(|(name, value)| Some((name.clone(), decimal(value)?))).take(METRICS).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// A number as digits, never with an exponent.
fn decimal(value: &Value) -> Option<String> {
    let number = value.as_number()?;
    let text = match (number.as_u64(), number.as_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(real)) => format!("{real}"),
        (None, None) => return None,
    };
    (text.len() <= 40).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> BTreeMap<String, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("out/metrics.json"), text).unwrap();
        metrics(dir.path())
    }

    #[test]
    fn metrics_are_decimal_strings() {
        let found = of(r#"{"steps":5,"metrics":{"accuracy":0.9775,"loss":1e-7,"rows":359,"name":"x","worse":-1.5}}"#);
        let pairs: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("accuracy", "0.9775"), ("loss", "0.0000001"), ("rows", "359"), ("worse", "-1.5")]);
        assert_eq!(of(r#"{"accuracy":1}"#).get("accuracy").map(String::as_str), Some("1"));
    }

    #[test]
    fn odd_metrics_files_yield_none() {
        for text in ["", "[1,2]", "{", r#"{"a":1e300}"#, &format!(r#"{{"{}":1}}"#, "n".repeat(65))] {
            assert!(of(text).is_empty(), "{text}");
        }
    }
}
