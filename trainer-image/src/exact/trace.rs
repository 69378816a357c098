//! The trace of a run, as a file: the root of the state before the first step and after each segment, and what it is of.

use std::path::Path;

use alloy_primitives::{Address, B256};
use freehold_exact::trace::{Binding, Trace};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::files;

pub const FILE: &str = "trace.json";
const FORMAT: &str = "freehold.dev/trace/v1";
/// A million states, and some.
const MAX_BYTES: u64 = 128 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TraceFile {
    format: String,
    program_id: B256,
    data_root: B256,
    seed: B256,
    steps: u32,
    segment_steps: u32,
    /// Of the tree over `states`, bound to no order.
    root: B256,
    /// Their roots.
    pub states: Vec<B256>,
}

/// The root of the tree over the states, which no order is bound to: it only says that they are these.
pub fn root(states: &[B256]) -> std::result::Result<B256, String> {
    let nothing = Binding::new(0, Address::ZERO, B256::ZERO);
    Trace::new(nothing, states).map(|trace| trace.root()).map_err(|error| error.to_string())
}

impl TraceFile {
    pub fn new(plan: &Plan, states: &[B256]) -> Result<Self> {
        Ok(Self {
            format: FORMAT.into(),
            program_id: plan.program_id,
            data_root: plan.data_root,
            seed: plan.seed,
            steps: plan.program.steps,
            segment_steps: plan.segment_steps,
            root: root(states).map_err(Error::Usage)?,
            states: states.to_vec(),
        })
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| Error::io("write", path)(error.into()))?;
        text.push(b'\n');
        files::write_stream(path, |out| out.write_all(&text))
    }

    /// The trace of this run, or what is wrong with the file.
    pub fn read(path: &Path, plan: &Plan) -> Result<Self> {
        let size = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
        let bad = |what: String| Error::Data(format!("the trace {} cannot be used: {what}", path.display()));
        if size > MAX_BYTES {
            return Err(bad(format!("it has {size} bytes, more than a trace has")));
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let file: Self = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        file.check(plan).map_err(bad)?;
        Ok(file)
    }

    fn check(&self, plan: &Plan) -> std::result::Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("its format is `{}`, not `{FORMAT}`", self.format));
        }
        same("programId", self.program_id, plan.program_id)?;
        same("seed", self.seed, plan.seed)?;
        same("dataRoot", self.data_root, plan.data_root)?;
        same("steps", self.steps, plan.program.steps)?;
        same("segmentSteps", self.segment_steps, plan.segment_steps)?;
        same("number of states", self.states.len(), plan.segments() + 1)?;
        if root(&self.states)? != self.root {
            return Err(format!("its states do not have the root {} that it states", self.root));
        }
        Ok(())
    }
}

/// That what a file is of is what this task asks for.
pub fn same<T: PartialEq + std::fmt::Display>(name: &str, found: T, expected: T) -> std::result::Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("its {name} is {found}, that of this task is {expected}"))
}
