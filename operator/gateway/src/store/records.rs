//! Small things that are kept beside a lease's artifacts.

use std::collections::HashSet;

use bytes::Bytes;
use freehold_core::B256;
use freehold_core::progress::ProgressLine;
use freehold_core::result::ResultFile;
use freehold_core::wire::{CheckpointNote, Event};
use object_store::ObjectStoreExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Error, Store, artifact, at};
use crate::digest::Digest;

/// Checkpoints that are kept of a lease.
const CHECKPOINTS: usize = 2;
/// Bytes of logs that are kept: the last ones.
pub const LOG: usize = 10 << 20;
/// Events that are kept: the last ones.
const EVENTS: usize = 500;

/// Which artifact is the result.
#[derive(serde::Serialize, serde::Deserialize)]
struct Pointer {
    sha256: String,
}

impl Store {
    pub async fn progress(&self, lease: B256) -> Result<Option<ProgressLine>, Error> {
        self.record(lease, "progress").await
    }

    pub async fn put_progress(&self, lease: B256, line: &ProgressLine) -> Result<(), Error> {
        self.put_record(lease, "progress", line).await
    }

    /// Oldest first.
    pub async fn checkpoints(&self, lease: B256) -> Result<Vec<CheckpointNote>, Error> {
        Ok(self.record(lease, "checkpoints").await?.unwrap_or_default())
    }

    /// Adds a checkpoint whose file is held, and drops all but the newest;
    /// `needed` names artifacts that stay whatever they are.
    pub async fn note_checkpoint(&self, lease: B256, note: CheckpointNote, needed: &[Digest]) -> Result<(), Error> {
        let digest: Digest = note.sha256.parse().map_err(|_| Error::Missing(vec![note.file_name.clone()]))?;
        if self.artifact_size(lease, &digest).await? != Some(note.size) {
            return Err(Error::Missing(vec![note.file_name]));
        }
        let _writing = self.records.lock().await;
        let mut notes = self.checkpoints(lease).await?;
        notes.retain(|known| known.step != note.step);
        notes.push(note);
        notes.sort_by_key(|note| note.step);
        let kept = notes.split_off(notes.len().saturating_sub(CHECKPOINTS));
        self.put_record(lease, "checkpoints", &kept).await?;
        let mut stays: HashSet<String> = kept.iter().map(|note| note.sha256.clone()).collect();
        stays.extend(needed.iter().map(|digest| digest.as_str().to_owned()));
        stays.extend(self.delivered(lease).await?);
        for old in notes {
            if let Ok(digest) = old.sha256.parse()
                && !stays.contains(&old.sha256)
            {
                self.delete(&artifact(lease, &digest)).await?;
            }
        }
        Ok(())
    }

    /// Digest of `result.json`.
    pub async fn result(&self, lease: B256) -> Result<Option<Digest>, Error> {
        let pointer: Option<Pointer> = self.record(lease, "result").await?;
        Ok(pointer.and_then(|pointer| pointer.sha256.parse().ok()))
    }

    /// Takes the result once every output that it names is held.
    pub async fn put_result(&self, lease: B256, bytes: Bytes, parsed: &ResultFile) -> Result<Digest, Error> {
        let mut missing = Vec::new();
        for output in &parsed.outputs {
            let held = match output.sha256.parse() {
                Ok(digest) => self.artifact_size(lease, &digest).await?,
                Err(_) => None,
            };
            if held != Some(output.size) {
                missing.push(output.name.clone());
            }
        }
        if !missing.is_empty() {
            return Err(Error::Missing(missing));
        }
        let digest = Digest::of(&bytes);
        self.objects.put(&artifact(lease, &digest), bytes.into()).await?;
        self.put_record(lease, "result", &Pointer { sha256: digest.to_string() }).await?;
        Ok(digest)
    }

    /// Digests that the result stands on.
    async fn delivered(&self, lease: B256) -> Result<Vec<String>, Error> {
        let Some(digest) = self.result(lease).await? else { return Ok(Vec::new()) };
        let bytes = self.read(&artifact(lease, &digest)).await?.unwrap_or_default();
        let outputs = ResultFile::parse(&bytes).map(|file| file.outputs).unwrap_or_default();
        Ok(outputs.into_iter().map(|output| output.sha256).chain([digest.to_string()]).collect())
    }

    pub async fn log(&self, lease: B256) -> Result<Option<Bytes>, Error> {
        self.read(&at(lease, "log")).await
    }

    pub async fn append_log(&self, lease: B256, more: &[u8]) -> Result<(), Error> {
        let _writing = self.records.lock().await;
        let mut log = self.log(lease).await?.map(|bytes| bytes.to_vec()).unwrap_or_default();
        log.extend_from_slice(more);
        let excess = log.len().saturating_sub(LOG);
        log.drain(..excess);
        self.objects.put(&at(lease, "log"), log.into()).await?;
        Ok(())
    }

    /// One JSON object a line, oldest first.
    pub async fn events(&self, lease: B256) -> Result<Bytes, Error> {
        Ok(self.read(&at(lease, "events")).await?.unwrap_or_default())
    }

    pub async fn append_event(&self, lease: B256, event: &Event) -> Result<(), Error> {
        let _writing = self.records.lock().await;
        let known = self.events(lease).await?;
        let mut lines: Vec<&[u8]> = known.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let line = serde_json::to_vec(event)?;
        lines.push(&line);
        let kept = &lines[lines.len().saturating_sub(EVENTS)..];
        let mut text = kept.join(&b'\n');
        text.push(b'\n');
        self.objects.put(&at(lease, "events"), text.into()).await?;
        Ok(())
    }

    /// When the lease was first missed (Unix seconds).
    pub async fn gone_since(&self, lease: B256) -> Result<Option<u64>, Error> {
        self.record(lease, "gone").await
    }

    pub async fn mark_gone(&self, lease: B256, since: Option<u64>) -> Result<(), Error> {
        match since {
            Some(since) => self.put_record(lease, "gone", &since).await,
            None => self.delete(&at(lease, "gone")).await,
        }
    }

    async fn record<T: DeserializeOwned>(&self, lease: B256, name: &'static str) -> Result<Option<T>, Error> {
        match self.read(&at(lease, name)).await? {
            Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            None => Ok(None),
        }
    }

    async fn put_record<T: Serialize>(&self, lease: B256, name: &'static str, value: &T) -> Result<(), Error> {
        self.objects.put(&at(lease, name), serde_json::to_vec(value)?.into()).await?;
        Ok(())
    }
}
