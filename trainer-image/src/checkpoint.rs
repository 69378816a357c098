//! Checkpoints: the whole state of a run in one file, complete or absent.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::evaluation::Evaluation;
use crate::files;
use crate::tensors::{self, Named};

const FORMAT: &str = "freehold.dev/checkpoint/v1";

/// What a run has seen so far, beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Mean training loss of the last step.
    pub loss: Option<f64>,
    pub last: Option<Evaluation>,
    /// Best evaluation by the metric of early stopping, else by the first metric.
    pub best: Option<Evaluation>,
    /// Evaluations since the best one.
    pub misses: u32,
    /// Early stopping has ended the run.
    pub stopped: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    format: String,
    pub step: u64,
    /// Of everything that decides what a step computes; a resumed run must have the same.
    pub fingerprint: String,
    /// Higher is better; of the evaluation at this step.
    pub score: Option<f64>,
    pub history: History,
    /// SHA-256 of the tensors.
    digest: String,
    /// Where it was computed: elsewhere, later digits may differ.
    pub device: String,
    pub threads: i32,
}

pub struct Checkpoint {
    pub header: Header,
    pub tensors: Named,
}

impl Checkpoint {
    pub fn new(step: u64, fingerprint: &str, score: Option<f64>, history: &History, tensors: Named) -> Self {
        let header = Header {
            format: FORMAT.into(),
            step,
            fingerprint: fingerprint.into(),
            score,
            history: history.clone(),
            digest: tensors::digest(&tensors),
            device: String::new(),
            threads: 0,
        };
        Self { header, tensors }
    }

    /// Says where it was computed.
    pub fn computed(mut self, device: &str, threads: i32) -> Self {
        self.header.device = device.into();
        self.header.threads = threads;
        self
    }

    /// Reads a file and checks that it is whole; else says what is wrong with it.
    pub fn read(path: &Path) -> std::result::Result<Self, String> {
        let (tensors, metadata) = tensors::read(path)?;
        let header = Header::parse(metadata)?;
        if header.digest != tensors::digest(&tensors) {
            return Err(format!("its tensors do not have the digest {} that it states", header.digest));
        }
        Ok(Self { header, tensors })
    }
}

impl Header {
    fn parse(metadata: Option<String>) -> std::result::Result<Self, String> {
        let metadata = metadata.ok_or("it is no checkpoint of freehold-trainer")?;
        let header: Self = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
        if header.format == FORMAT {
            Ok(header)
        } else {
            Err(format!("its format is `{}`, not `{FORMAT}`", header.format))
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    step: u64,
    score: Option<f64>,
    fingerprint: String,
    path: PathBuf,
}

/// A folder of checkpoints.
pub struct Store {
    folder: PathBuf,
    keep_last: usize,
    keep_best: usize,
    /// By step.
    entries: Vec<Entry>,
}

impl Store {
    /// Opens a folder; `say` is told of each file in it that is no checkpoint.
    pub fn open(folder: &Path, keep_last: usize, keep_best: usize, say: &mut dyn FnMut(String)) -> Result<Self> {
        files::create_folder(folder)?;
        files::remove_temporaries(folder)?;
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let path = entry.map_err(Error::io("list", folder))?.path();
            if !path.is_file() || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                continue;
            }
            match tensors::read_metadata(&path).and_then(Header::parse) {
                Ok(Header { step, score, fingerprint, .. }) => entries.push(Entry { step, score, fingerprint, path }),
                Err(what) => say(skipped(&path, &what)),
            }
        }
        entries.sort_by_key(|entry| entry.step);
        Ok(Self { folder: folder.into(), keep_last, keep_best, entries })
    }

    /// The newest checkpoint that is whole and of this run; others are passed over.
    pub fn newest(&mut self, fingerprint: &str, say: &mut dyn FnMut(String)) -> Option<Checkpoint> {
        // What is passed over is neither ours to delete nor to count among those that are kept.
        self.entries.retain(|entry| {
            let ours = entry.fingerprint == fingerprint;
            if !ours {
                say(skipped(&entry.path, "it belongs to another recipe or data set"));
            }
            ours
        });
        while let Some(entry) = self.entries.last() {
            match Checkpoint::read(&entry.path) {
                Ok(checkpoint) => return Some(checkpoint),
                Err(what) => say(skipped(&entry.path, &what)),
            }
            self.entries.pop();
        }
        None
    }

    /// Whether a checkpoint with this score would be among the best that are kept.
    pub fn would_keep(&self, score: f64) -> bool {
        let better = self.entries.iter().filter(|entry| entry.score.is_some_and(|other| other >= score)).count();
        better < self.keep_best
    }

    /// Writes a checkpoint, then removes those that need not be kept.
    pub fn save(&mut self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let Header { step, score, ref fingerprint, .. } = checkpoint.header;
        let path = self.folder.join(format!("step-{step:06}.safetensors"));
        let metadata = serde_json::to_string(&checkpoint.header)
            .map_err(|error| Error::io("write", &path)(std::io::Error::from(error)))?;
        tensors::write(&path, &checkpoint.tensors, metadata)?;
        self.entries.retain(|entry| entry.path != path);
        let at = self.entries.partition_point(|entry| entry.step <= step);
        self.entries.insert(at, Entry { step, score, fingerprint: fingerprint.clone(), path: path.clone() });
        self.prune()?;
        Ok(path)
    }

    fn prune(&mut self) -> Result<()> {
        let mut by_score: Vec<(f64, u64)> =
            self.entries.iter().filter_map(|entry| entry.score.map(|score| (score, entry.step))).collect();
        // Of equal scores the earlier one is the better.
        by_score.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let best: Vec<u64> = by_score.iter().take(self.keep_best).map(|(_, step)| *step).collect();
        let old = self.entries.len().saturating_sub(self.keep_last);
        let removed = self.entries.extract_if(..old, |entry| !best.contains(&entry.step));
        for entry in removed.collect::<Vec<_>>() {
            std::fs::remove_file(&entry.path).map_err(Error::io("remove", &entry.path))?;
        }
        Ok(())
    }
}

fn skipped(path: &Path, what: &str) -> String {
    format!("skipped checkpoint {}: {what}", path.display())
}
