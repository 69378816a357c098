//! `courier watch`: the sidecar. It reports progress and stores checkpoints
//! while the trainer runs, and goes on after SIGTERM until the trainer has
//! ended and its last checkpoint is stored.
//!
//! That the trainer has ended is seen by its processes being gone; where the
//! pod's containers share no process namespace, by its files being quiet for
//! a while. Either way the pod's grace period is the end of it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use freehold_core::progress::ProgressLine;
use freehold_core::wire::CheckpointNote;
use reqwest::Method;
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep};

use super::fetch::step_of;
use super::files::{self, Entry};
use super::processes::Processes;
use super::tail::Tail;
use super::{Error, Pace, TRY_AGAIN};
use crate::transfer::{self, Remote, Source};

/// Checkpoints that the gateway keeps: older ones need not travel.
const NEWEST: usize = 2;

#[derive(Clone, Debug, clap::Args)]
pub struct WatchArgs {
    /// Milliseconds between looks; at most one line of progress is sent a look.
    #[arg(long, env = "FREEHOLD_WATCH_LOOK_MILLIS", default_value_t = 1000)]
    pub look_millis: u64,
    /// Seconds of quiet files after which the trainer counts as ended, where its processes cannot be seen.
    #[arg(long, env = "FREEHOLD_WATCH_QUIET_SECONDS", default_value_t = 20)]
    pub quiet_seconds: u64,
    /// Seconds that the last progress and checkpoint are tried for.
    #[arg(long, env = "FREEHOLD_WATCH_LAST_SECONDS", default_value_t = 300)]
    pub last_seconds: u64,
}

/// Watches until `stop` and the trainer's end.
pub async fn watch(
    remote: &Remote,
    root: &Path,
    args: &WatchArgs,
    stop: impl Future<Output = ()>,
    processes: &dyn Processes,
) -> Result<(), Error> {
    let (ended, finished) = channel::channel(false);
    let (steps, _) = channel::channel(None);
    let end = async {
        stop.await;
        tracing::info!("asked to stop; serving on until the trainer has ended");
        trainer_ended(root, args, processes).await;
        tracing::info!("the trainer has ended");
        ended.send_replace(true);
    };
    let progress = follow_progress(remote, root, args, finished.clone(), &steps);
    let checkpoints = follow_checkpoints(remote, root, args, finished, &steps);
    let ((), progress, checkpoints) = tokio::join!(end, progress, checkpoints);
    progress.and(checkpoints)
}

async fn trainer_ended(root: &Path, args: &WatchArgs, processes: &dyn Processes) {
    let look = Duration::from_millis(args.look_millis.min(1000));
    let mut quiet = (Instant::now(), traces(root));
    loop {
        match processes.others() {
            Some(false) => return,
            Some(true) => {}
            None => {
                let seen = traces(root);
                if seen != quiet.1 {
                    quiet = (Instant::now(), seen);
                } else if quiet.0.elapsed() >= Duration::from_secs(args.quiet_seconds) {
                    return;
                }
            }
        }
        sleep(look).await;
    }
}

/// Everything by which a trainer at work shows, half-written files too.
fn traces(root: &Path) -> Vec<Entry> {
    let mut seen = files::list(root, "checkpoints").unwrap_or_default();
    seen.extend(files::list(root, "").unwrap_or_default());
    seen.sort_by(|a, b| a.name.cmp(&b.name));
    seen
}

async fn follow_progress(
    remote: &Remote,
    root: &Path,
    args: &WatchArgs,
    mut finished: channel::Receiver<bool>,
    steps: &channel::Sender<Option<u64>>,
) -> Result<(), Error> {
    let mut tail = Tail::default();
    let mut unsent: Option<ProgressLine> = None;
    loop {
        let last = *finished.borrow_and_update();
        match tail.read(root) {
            Ok(None) => {}
            Ok(Some(line)) => {
                steps.send_replace(Some(line.step));
                unsent = Some(line);
            }
            Err(error) => tracing::debug!(%error, "progress.jsonl cannot be read"),
        }
        if let Some(line) = unsent.take() {
            if last {
                let pace = Pace::within(Duration::from_secs(args.last_seconds));
                pace.keep_trying("sending the last progress", || send_progress(remote, &line)).await?;
            } else if let Err(error) = send_progress(remote, &line).await {
                tracing::warn!("sending progress: {error}");
                unsent = error.is_transient().then_some(line);
            }
        }
        if last {
            return Ok(());
        }
        next_look(args, &mut finished).await;
    }
}

async fn send_progress(remote: &Remote, line: &ProgressLine) -> Result<(), transfer::Error> {
    let body = serde_json::to_vec(line).map_err(|e| transfer::Error::Malformed(e.to_string()))?;
    remote.put(Method::POST, "/progress", body.into()).await
}

async fn follow_checkpoints(
    remote: &Remote,
    root: &Path,
    args: &WatchArgs,
    mut finished: channel::Receiver<bool>,
    steps: &channel::Sender<Option<u64>>,
) -> Result<(), Error> {
    let mut before: HashMap<String, Entry> = HashMap::new();
    let mut settled: HashMap<String, Entry> = HashMap::new();
    loop {
        let last = *finished.borrow_and_update();
        let found = complete(files::list(root, "checkpoints").unwrap_or_default());
        for entry in &found {
            // A file that changed since the last look is still being written, unless nobody is left to write.
            let stable = last || before.get(&entry.name) == Some(entry);
            if !stable || settled.get(&entry.name) == Some(entry) {
                continue;
            }
            let step = step_of(&entry.name).or(*steps.borrow()).unwrap_or_default();
            let outcome = if last {
                let pace = Pace::within(Duration::from_secs(args.last_seconds));
                pace.keep_trying("storing the last checkpoint", || store(remote, root, entry, step)).await
            } else {
                store(remote, root, entry, step).await.map_err(Error::from)
            };
            match outcome {
                Ok(()) => {
                    tracing::info!(file = entry.name, step, "stored a checkpoint");
                    settled.insert(entry.name.clone(), entry.clone());
                }
                Err(error) => {
                    tracing::warn!(file = entry.name, "storing a checkpoint: {error}");
                    // What can never be stored (too large, say) is not read again and again.
                    if error.exit_code() != TRY_AGAIN {
                        settled.insert(entry.name.clone(), entry.clone());
                    }
                }
            }
        }
        if last {
            return Ok(());
        }
        before = found.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        next_look(args, &mut finished).await;
    }
}

async fn next_look(args: &WatchArgs, finished: &mut channel::Receiver<bool>) {
    let _ = tokio::time::timeout(Duration::from_millis(args.look_millis), finished.wait_for(|done| *done)).await;
}

/// The newest files that are not plainly half written, oldest first.
fn complete(mut found: Vec<Entry>) -> Vec<Entry> {
    let growing = |name: &str| name.starts_with('.') || name.ends_with(".tmp") || name.ends_with(".part");
    found.retain(|entry| entry.size > 0 && !growing(&entry.name));
    found.sort_by_key(|entry| (step_of(&entry.name), entry.changed));
    found.split_off(found.len().saturating_sub(NEWEST))
}

async fn store(remote: &Remote, root: &Path, entry: &Entry, step: u64) -> Result<(), transfer::Error> {
    let path = format!("checkpoints/{}", entry.name);
    let unreadable = |source| transfer::Error::File { path: path.clone(), source };
    let file = files::open(root, &path).map_err(unreadable)?;
    let source = Source::File(file.into());
    let (digest, size) = source.measure().await.map_err(unreadable)?;
    remote.upload(&digest, &source).await?;
    let note = CheckpointNote { step, sha256: digest.to_string(), size, file_name: entry.name.clone() };
    let body = serde_json::to_vec(&note).map_err(|e| transfer::Error::Malformed(e.to_string()))?;
    remote.put(Method::POST, "/checkpoints", body.into()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_complete_files_count() {
        let entry = |name: &str, size, at| Entry { name: name.into(), size, changed: (at, 0) };
        let found = complete(vec![
            entry("step-30.safetensors", 5, 1),
            entry("step-4.safetensors", 5, 9),
            entry(".step-50.safetensors.tmp", 5, 9),
            entry("step-40.safetensors.tmp", 5, 9),
            entry("step-60.safetensors", 0, 9),
            entry("step-20.safetensors", 5, 9),
        ]);
        let names: Vec<&str> = found.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["step-20.safetensors", "step-30.safetensors"]);
    }
}
