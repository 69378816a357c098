//! `courier fetch`: task, inputs and the newest checkpoint into the pod; then
//! it holds the trainer back until the lease runs on the chain.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use freehold_core::access::Scope;
use freehold_core::manifest::{self, Manifest, ManifestInput};
use freehold_core::progress::MAX_STEPS;
use freehold_core::result::check_name;
use freehold_core::wire::WorkReport;
use reqwest::Method;

use super::{Error, Pace};
use crate::digest::Digest;
use crate::transfer::{self, Remote};

/// Where the size is not known: the pod's disk is what bounds it.
const UNKNOWN_SIZE: u64 = 1 << 42;
/// Name of the input that goes to the checkpoints.
const CHECKPOINT: &str = "checkpoint";

#[derive(Clone, Debug, clap::Args)]
pub struct FetchArgs {
    /// Seconds that inputs and the lease's start are waited for.
    #[arg(long, env = "FREEHOLD_FETCH_SECONDS", default_value_t = 1800)]
    pub seconds: u64,
    /// Milliseconds between looks.
    #[arg(long, env = "FREEHOLD_FETCH_LOOK_MILLIS", default_value_t = 1000)]
    pub look_millis: u64,
}

pub async fn fetch(remote: &Remote, root: &Path, args: &FetchArgs) -> Result<(), Error> {
    let pace = Pace::within(Duration::from_secs(args.seconds));
    let ready = |report: &WorkReport| match (report.manifest_held, report.missing_inputs.as_slice()) {
        (false, _) => Err("the manifest is not held yet".to_owned()),
        (true, []) => Ok(()),
        (true, missing) => Err(format!("inputs {missing:?} are not held yet {:?}", report.input_errors)),
    };
    let report = wait_until(remote, args, "waiting for inputs", ready).await?;
    prepare(root)?;
    let manifest = pace.keep_trying("fetching the task", || read_manifest(remote)).await?;
    let parsed = Manifest::parse(&manifest).map_err(|e| Error::BadData(e.to_string()))?;
    for input in &parsed.inputs {
        bring(remote, &pace, root, input).await?;
    }
    bring_checkpoint(remote, &pace, root, &parsed, &report).await?;
    write_whole(&root.join("task.json"), &manifest)?;
    tracing::info!(inputs = parsed.inputs.len(), "task and inputs are here; waiting for the lease to start");
    let started = |report: &WorkReport| report.started.then_some(()).ok_or_else(|| "the lease has not started".into());
    wait_until(remote, args, "waiting for the lease to start", started).await?;
    Ok(())
}

/// Looks until the report is as wished; the gateway may be away meanwhile.
async fn wait_until(
    remote: &Remote,
    args: &FetchArgs,
    what: &'static str,
    wished: impl Fn(&WorkReport) -> Result<(), String>,
) -> Result<WorkReport, Error> {
    let started = tokio::time::Instant::now();
    loop {
        let last = match remote.json::<WorkReport>("", Scope::Read).await {
            Ok(report) => match wished(&report) {
                Ok(()) => return Ok(report),
                Err(last) => last,
            },
            Err(error) if error.is_transient() => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        if started.elapsed() > Duration::from_secs(args.seconds) {
            return Err(Error::TimedOut { what, seconds: args.seconds, last });
        }
        tracing::debug!("{what}: {last}");
        tokio::time::sleep(Duration::from_millis(args.look_millis)).await;
    }
}

/// The gateway states the digest that the chain names; a body that was cut or changed on the way is noticed.
async fn read_manifest(remote: &Remote) -> Result<Bytes, transfer::Error> {
    let request = remote.request(Method::GET, "/manifest", &[Scope::Read]).await?;
    let response = remote.send(request).await?;
    let stated = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(|tag| tag.trim_matches('"'));
    let expected: Digest = stated
        .and_then(|tag| tag.parse().ok())
        .ok_or_else(|| transfer::Error::Malformed("the manifest comes without its digest".into()))?;
    let bytes = remote.bounded(response, manifest::MAX_BYTES as u64).await?;
    let found = Digest::of(&bytes);
    match found == expected {
        true => Ok(bytes),
        false => Err(transfer::Error::Digest { what: "the manifest".into(), expected, found }),
    }
}

fn prepare(root: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    for (folder, mode) in [("in", 0o755), ("out", 0o777), ("checkpoints", 0o777)] {
        let path = root.join(folder);
        std::fs::create_dir_all(&path).map_err(Error::file(path.display()))?;
        // The trainer may run as another user. A folder that is a mount of its own belongs to the kubelet, and is open already.
        let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
    }
    Ok(())
}

async fn bring(remote: &Remote, pace: &Pace, root: &Path, input: &ManifestInput) -> Result<(), Error> {
    if input.name == CHECKPOINT {
        return Ok(());
    }
    let plain = !input.name.is_empty() && !input.name.starts_with('.') && !input.name.contains('/');
    if !plain || check_name(&input.name).is_err() {
        return Err(Error::BadData(format!("`{}` cannot be an input's name", input.name.escape_debug())));
    }
    download(remote, pace, &input.sha256, input.size, &root.join("in").join(&input.name)).await
}

/// The furthest checkpoint known: the lease's own newest, or the one that the task came with.
async fn bring_checkpoint(
    remote: &Remote,
    pace: &Pace,
    root: &Path,
    manifest: &Manifest,
    report: &WorkReport,
) -> Result<(), Error> {
    let given = manifest.inputs.iter().find(|input| input.name == CHECKPOINT);
    let given_step = given.map(|input| manifest.resume_step.or_else(|| step_of(&input.file_name)).unwrap_or_default());
    let newest = report.checkpoints.iter().max_by_key(|note| note.step);
    let (sha256, size, file_name) = match (newest, given) {
        (Some(note), _) if given_step.is_none_or(|step| note.step > step) => (&note.sha256, note.size, &note.file_name),
        (_, Some(input)) => (&input.sha256, input.size, &input.file_name),
        (_, None) => return Ok(()),
    };
    if file_name.contains('/') || check_name(file_name).is_err() {
        return Err(Error::BadData(format!("`{}` cannot be a checkpoint's file name", file_name.escape_debug())));
    }
    let path = root.join("checkpoints").join(file_name);
    download(remote, pace, sha256, size, &path).await?;
    tracing::info!(file_name, "restored a checkpoint");
    Ok(())
}

async fn download(remote: &Remote, pace: &Pace, sha256: &str, size: u64, to: &Path) -> Result<(), Error> {
    let digest: Digest = sha256.parse().map_err(|e: crate::digest::Malformed| Error::BadData(e.to_string()))?;
    let limit = if size > 0 { size } else { UNKNOWN_SIZE };
    pace.keep_trying("fetching an input", || remote.download(&digest, limit, to)).await?;
    Ok(())
}

/// Appears at once, byte for byte.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let part = transfer::part_of(path);
    std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path)).map_err(Error::file(path.display()))
}

/// The number at the end of a checkpoint's name, such as 1200 of `step-1200.safetensors`.
pub fn step_of(file_name: &str) -> Option<u64> {
    let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
    let digits = stem.bytes().rev().take_while(u8::is_ascii_digit).count();
    // A date in the name is no step.
    stem[stem.len() - digits..].parse().ok().filter(|step| *step <= MAX_STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_names() {
        assert_eq!(step_of("step-00001200.safetensors"), Some(1200));
        assert_eq!(step_of("ckpt_7.pt"), Some(7));
        assert_eq!(step_of("42"), Some(42));
        assert_eq!(step_of("model.safetensors"), None);
        assert_eq!(step_of("ünïcode9"), Some(9));
        assert_eq!(step_of(&format!("{}.x", "9".repeat(40))), None);
    }
}
