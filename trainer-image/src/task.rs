//! The manifest (`task.json`): what the trainer reads of it, and the folders
//! of the container contract around it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::Recipe;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Kind {
    TrainingTask,
    InferenceTask,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    #[default]
    Csv,
    Npy,
    Jsonl,
}

impl OutputFormat {
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Csv => "predictions.csv",
            Self::Npy => "predictions.npy",
            Self::Jsonl => "predictions.jsonl",
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Output {
    #[serde(default)]
    pub format: OutputFormat,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    pub name: String,
    #[serde(default)]
    pub sha256: Option<String>,
}

/// What the container was given; 0 or absent means not said.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    #[serde(default)]
    pub cpu_millis: u64,
    /// Bytes.
    #[serde(default)]
    pub memory: u64,
    #[serde(default)]
    pub gpu: Option<Gpu>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Gpu {
    pub count: u32,
}

impl Resources {
    pub fn asks_for_gpu(&self) -> bool {
        self.gpu.is_some_and(|gpu| gpu.count > 0)
    }
}

/// The part of the manifest that concerns the trainer; the rest is for the operator.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    pub kind: Kind,
    #[serde(default)]
    pub recipe: Option<Recipe>,
    #[serde(default)]
    pub output: Option<Output>,
    #[serde(default)]
    pub inputs: Vec<Input>,
    #[serde(default)]
    pub resources: Resources,
}

impl Task {
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| {
            Error::Usage(format!("cannot read the task {}: {source}; name it with --task", path.display()))
        })?;
        Self::parse(&bytes)
    }

    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let field = error.path().to_string();
            Error::Usage(format!("the task's {field}: {}", error.into_inner()))
        })
    }

    /// The recipe of a training task, checked.
    pub fn recipe(&self) -> Result<&Recipe> {
        let recipe =
            self.recipe.as_ref().ok_or_else(|| Error::Usage("the task has no recipe, which `train` needs".into()))?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// Digest of an input, where the manifest states it.
    pub fn digest(&self, name: &str) -> Option<&str> {
        self.inputs.iter().find(|input| input.name == name).and_then(|input| input.sha256.as_deref())
    }
}

/// The folders and files of the container contract.
#[derive(Clone, Debug)]
pub struct Paths {
    pub inputs: PathBuf,
    pub outputs: PathBuf,
    pub checkpoints: PathBuf,
    pub progress: PathBuf,
}

impl Paths {
    /// An input by name: `in/<name>`, or for use by hand `in/<name>.<anything>`.
    pub fn input(&self, name: &str) -> Result<PathBuf> {
        let exact = self.inputs.join(name);
        if exact.is_file() {
            return Ok(exact);
        }
        let prefix = format!("{name}.");
        let entries = std::fs::read_dir(&self.inputs).map_err(Error::io("list", &self.inputs))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix)))
            .collect();
        match (found.pop(), found.is_empty()) {
            (Some(path), true) => Ok(path),
            (Some(_), false) => Err(Error::Usage(format!(
                "more than one file is called {prefix}*: keep one in {}",
                self.inputs.display()
            ))),
            (None, _) => Err(Error::Usage(format!("input `{name}` is missing from {}", self.inputs.display()))),
        }
    }
}
