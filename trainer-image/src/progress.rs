//! Lines of `progress.jsonl`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::files;
use crate::summary::Commitments;

/// Time between two lines of progress.
pub const REPORT_EVERY: SignedDuration = SignedDuration::from_secs(1);

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Line {
    pub step: u64,
    pub steps: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    pub metrics: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<Commitments>,
    /// RFC 3339.
    pub at: Timestamp,
}

pub struct Progress {
    path: PathBuf,
    file: File,
}

impl Progress {
    /// Opens the file to append: an earlier run of the same pod may have written to it.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            files::create_folder(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("open", path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Writes a line in one piece, so that a reader never sees half of one.
    pub fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line).map_err(|error| Error::io("write", &self.path)(error.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(Error::io("write", &self.path))
    }
}
