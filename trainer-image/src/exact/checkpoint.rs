//! Checkpoints of exact runs: the state in the program's own widths, and the roots of all states that segments have ended
//! with, so that a run goes on from one file, and ends with the same trace.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy_primitives::B256;
use freehold_exact::interpret::check_inputs;
use freehold_exact::tensor::{Tensor, Width, count};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::trace::{self, same};
use crate::error::{Error, Result};
use crate::evaluation::Evaluation;
use crate::files;
use crate::tensors::{self, Dtype, Stored};

const FORMAT: &str = "freehold.dev/exact-state/v1";
/// Name of the tensor that holds the roots; no parameter has it.
const ROOTS: &str = "trace";

/// Evaluations of a run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    pub last: Option<Evaluation>,
    /// By the first metric.
    pub best: Option<Evaluation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: String,
    /// Steps that were made.
    step: u32,
    program_id: B256,
    data_root: B256,
    seed: B256,
    segment_steps: u32,
    state_root: B256,
    /// Over the roots of the states, as a trace file's.
    trace_root: B256,
    history: History,
}

impl Header {
    fn read(path: &Path) -> std::result::Result<Self, String> {
        let metadata = tensors::read_metadata(path)?.ok_or("it is no checkpoint of freehold-trainer")?;
        let unread: serde_json::Value = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
        match unread["format"].as_str() {
            Some(FORMAT) => serde_json::from_value(unread).map_err(|error| error.to_string()),
            other => Err(format!("its format is `{}`, not `{FORMAT}`", other.unwrap_or_default())),
        }
    }

    fn check(&self, plan: &Plan) -> std::result::Result<(), String> {
        same("programId", self.program_id, plan.program_id)?;
        same("seed", self.seed, plan.seed)?;
        same("dataRoot", self.data_root, plan.data_root)?;
        same("segmentSteps", self.segment_steps, plan.segment_steps)?;
        if self.step > plan.program.steps {
            return Err(format!("it is of step {}, and this task has {}", self.step, plan.program.steps));
        }
        Ok(())
    }
}

pub struct Checkpoint {
    /// Steps that were made.
    pub step: u32,
    pub state: Vec<Tensor>,
    /// The state's.
    pub root: B256,
    /// Roots of the first state, and of those that segments have ended with.
    pub roots: Vec<B256>,
    pub history: History,
}

impl Checkpoint {
    pub fn write(&self, path: &Path, plan: &Plan) -> Result<()> {
        let header = Header {
            format: FORMAT.into(),
            step: self.step,
            program_id: plan.program_id,
            data_root: plan.data_root,
            seed: plan.seed,
            segment_steps: plan.segment_steps,
            state_root: self.root,
            trace_root: trace::root(&self.roots).map_err(Error::Usage)?,
            history: self.history,
        };
        let metadata = serde_json::to_string(&header).map_err(|error| Error::io("write", path)(error.into()))?;
        let declared = &plan.program.state;
        let stored: Vec<Stored> =
            declared.iter().zip(&self.state).map(|(declared, tensor)| stored(tensor, declared.width)).collect();
        let named = declared.iter().zip(&stored).map(|(one, stored)| (one.name.as_str(), kind(one.width), stored));
        let bytes = self.roots.iter().flat_map(|root| root.0).collect();
        let roots = Stored { shape: vec![self.roots.len(), 32], bytes };
        tensors::write_kinds(path, named.chain([(ROOTS, Dtype::U8, &roots)]), metadata)
    }

    /// Reads a file and checks that it is a whole checkpoint of this run; else says what is wrong with it.
    pub fn read(path: &Path, plan: &Plan) -> std::result::Result<Self, String> {
        let header = Header::read(path)?;
        header.check(plan)?;
        let declared = &plan.program.state;
        let kinds = |name: &str| declared.iter().find(|one| one.name == name).map(|one| kind(one.width));
        let mut named = tensors::read_kinds(path, |name| if name == ROOTS { Some(Dtype::U8) } else { kinds(name) })?;
        let mut take = |name: &str, shape: Option<&[usize]>| {
            let stored = named.remove(name).ok_or_else(|| format!("tensor `{name}` is missing"))?;
            match shape.filter(|shape| **shape != stored.shape) {
                Some(shape) => Err(format!("tensor `{name}` has shape {:?}, not {shape:?}", stored.shape)),
                None => Ok(stored),
            }
        };
        let state = declared.iter().map(|one| restored(&take(&one.name, Some(one.shape.as_slice()))?, one.width));
        let state: Vec<Arc<Tensor>> = state.collect::<std::result::Result<_, String>>()?;
        let roots: Vec<B256> = take(ROOTS, None)?.bytes.chunks_exact(32).map(B256::from_slice).collect();
        check_inputs("state", declared, &state).map_err(|error| error.to_string())?;
        let state: Vec<Tensor> = state.into_iter().map(Arc::unwrap_or_clone).collect();
        let found = plan.state_root(header.step, &state);
        if found != header.state_root {
            return Err(format!("its tensors have the stateRoot {found}, not {} that it states", header.state_root));
        }
        let ended = plan.ended(header.step);
        if roots.len() != ended + 1 {
            return Err(format!("its trace has {} states, not {} as at step {}", roots.len(), ended + 1, header.step));
        }
        if trace::root(&roots)? != header.trace_root {
            return Err(format!("its trace does not have the root {} that it states", header.trace_root));
        }
        if plan.end_of(ended) == header.step && roots.last() != Some(&found) {
            return Err(format!("its trace does not end with its stateRoot {found}"));
        }
        Ok(Self { step: header.step, state, root: found, roots, history: header.history })
    }
}

fn kind(width: Width) -> Dtype {
    match width {
        Width::W8 => Dtype::I8,
        Width::W16 => Dtype::I16,
        Width::W32 => Dtype::I32,
        Width::W64 => Dtype::I64,
    }
}

fn stored(tensor: &Tensor, width: Width) -> Stored {
    let mut bytes = Vec::with_capacity(count(tensor.shape()) * width.bytes());
    tensor.values().iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()[..width.bytes()]));
    Stored { shape: tensor.shape().to_vec(), bytes }
}

fn restored(stored: &Stored, width: Width) -> std::result::Result<Arc<Tensor>, String> {
    let value = |bytes: &[u8]| {
        let fill = if bytes.last().is_some_and(|top| top & 0x80 != 0) { 0xFF } else { 0 };
        let mut wide = [fill; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        i64::from_le_bytes(wide)
    };
    let values = stored.bytes.chunks_exact(width.bytes()).map(value).collect();
    Tensor::new(stored.shape.clone(), values).map(Arc::new).map_err(|error| error.to_string())
}

/// Checkpoints of this run in a folder, by step. The others are passed over, with words; so is, when it is read, one that
/// is not whole.
pub struct Store {
    folder: PathBuf,
    entries: Vec<(u32, PathBuf)>,
}

impl Store {
    pub fn open(folder: &Path, plan: &Plan, say: &mut dyn FnMut(String)) -> Result<Self> {
        files::create_folder(folder)?;
        files::remove_temporaries(folder)?;
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let path = entry.map_err(Error::io("list", folder))?.path();
            if !path.is_file() || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                continue;
            }
            match Header::read(&path).and_then(|header| header.check(plan).map(|()| header.step)) {
                Ok(step) => entries.push((step, path)),
                Err(what) => say(skipped(&path, &what)),
            }
        }
        entries.sort();
        Ok(Self { folder: folder.into(), entries })
    }

    /// The newest whole one of those that `wanted` takes, by their step.
    pub fn newest(
        &mut self,
        plan: &Plan,
        wanted: impl Fn(u32) -> bool,
        say: &mut dyn FnMut(String),
    ) -> Option<Checkpoint> {
        while let Some(at) = self.entries.iter().rposition(|(step, _)| wanted(*step)) {
            match Checkpoint::read(&self.entries[at].1, plan) {
                Ok(checkpoint) => return Some(checkpoint),
                Err(what) => say(skipped(&self.entries[at].1, &what)),
            }
            self.entries.remove(at);
        }
        None
    }

    /// Writes a checkpoint, then removes all of this run but the newest.
    pub fn save(&mut self, checkpoint: &Checkpoint, plan: &Plan, keep: usize) -> Result<()> {
        let path = self.folder.join(format!("step-{:06}.safetensors", checkpoint.step));
        checkpoint.write(&path, plan)?;
        self.entries.retain(|(_, other)| *other != path);
        self.entries.push((checkpoint.step, path));
        self.entries.sort();
        let old = self.entries.len().saturating_sub(keep);
        for (_, path) in self.entries.drain(..old) {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }
}

fn skipped(path: &Path, what: &str) -> String {
    format!("skipped checkpoint {}: {what}", path.display())
}
