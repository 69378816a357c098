//! A folder in the shape of the container contract, and runs in it.
#![allow(dead_code)]

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use freehold_trainer::error::Result;
use freehold_trainer::exact::plan::Plan;
use freehold_trainer::exact::replay::{Request, replay};
use freehold_trainer::infer::infer;
use freehold_trainer::summary::{InferenceSummary, TrainingSummary};
use freehold_trainer::task::{Paths, Task};
use freehold_trainer::train::{Env, train};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tch::Device;
use tempfile::TempDir;

pub struct Bench {
    folder: TempDir,
    /// When the run is told to stop: at this reading of the clock.
    pub stop_at: Option<usize>,
    /// What each reading of the clock adds.
    pub tick: SignedDuration,
    pub said: Vec<String>,
}

impl Bench {
    pub fn new() -> Self {
        tch::set_num_threads(1);
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        Self { folder, stop_at: None, tick: SignedDuration::from_millis(1), said: Vec::new() }
    }

    pub fn with(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let bench = Self::new();
        bench.input(name, bytes);
        bench
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn input(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path().join("in").join(name), bytes).unwrap();
    }

    pub fn paths(&self) -> Paths {
        Paths {
            inputs: self.path().join("in"),
            outputs: self.path().join("out"),
            checkpoints: self.path().join("checkpoints"),
            progress: self.path().join("progress.jsonl"),
        }
    }

    fn in_env<T>(&mut self, run: impl FnOnce(&mut Env) -> T) -> T {
        let stop = AtomicBool::new(false);
        let readings = Cell::new(0);
        let (stop_at, tick) = (self.stop_at, self.tick);
        let now = || {
            readings.set(readings.get() + 1);
            if Some(readings.get()) == stop_at {
                stop.store(true, Ordering::Relaxed);
            }
            Timestamp::UNIX_EPOCH + tick * i32::try_from(readings.get()).unwrap()
        };
        let mut say = |sentence| self.said.push(sentence);
        run(&mut Env { device: Device::Cpu, stop: &stop, now: &now, say: &mut say })
    }

    pub fn train(&mut self, task: &Value) -> Result<TrainingSummary> {
        let task = Task::parse(task.to_string().as_bytes())?;
        let paths = self.paths();
        self.in_env(|env| train(&task, &paths, env))
    }

    /// Computes a segment of an exact run again.
    pub fn replay(&mut self, task: &Value, segment: usize, by_interpreter: bool) -> Result<String> {
        let task = Task::parse(task.to_string().as_bytes())?;
        let (paths, trace) = (self.paths(), self.output("trace.json"));
        let request = Request { segment, trace, by_interpreter };
        self.in_env(|env| replay(&task, &paths, &request, env))
    }

    pub fn plan(&mut self, task: &Value) -> Result<Plan> {
        let task = Task::parse(task.to_string().as_bytes())?;
        let paths = self.paths();
        self.in_env(|env| Plan::new(&task, task.recipe()?, &paths, env))
    }

    pub fn infer(&mut self, format: &str) -> Result<InferenceSummary> {
        self.infer_task(&json!({ "kind": "InferenceTask", "output": { "format": format } }))
    }

    /// With so many bytes of memory.
    pub fn infer_within(&mut self, memory: u64) -> Result<InferenceSummary> {
        self.infer_task(&json!({ "kind": "InferenceTask", "resources": { "memory": memory } }))
    }

    fn infer_task(&mut self, task: &Value) -> Result<InferenceSummary> {
        let task = Task::parse(task.to_string().as_bytes())?;
        let paths = self.paths();
        self.in_env(|env| infer(&task, &paths, env))
    }

    /// Hands the trained model to inference.
    pub fn use_model(&self) {
        fs::copy(self.output("model.safetensors"), self.path().join("in/model")).unwrap();
    }

    pub fn output(&self, name: &str) -> PathBuf {
        self.path().join("out").join(name)
    }

    pub fn progress(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path().join("progress.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Names of the checkpoint files, sorted.
    pub fn checkpoints(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().join("checkpoints")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.path().join(format!("checkpoints/step-{step:06}.safetensors"))
    }
}

/// A training task with small defaults; `changes` are merged into its recipe.
pub fn task(changes: Value) -> Value {
    let mut recipe = json!({
        "model": { "mlp": { "layers": [2, 8, 2] } },
        "optimizer": { "adamw": { "learningRate": "0.02" } },
        "batchSize": 8,
        "steps": 60,
        "seed": 7,
    });
    for (key, value) in changes.as_object().unwrap() {
        recipe[key] = value.clone();
    }
    json!({ "kind": "TrainingTask", "recipe": recipe })
}

/// Points in the plane: class `in` inside a circle, `out` outside.
pub fn circle(rows: usize) -> String {
    let mut text = String::from("x,y,label\n");
    for row in 0..rows {
        let (x, y) = (spread(row, 37) * 2.0 - 1.0, spread(row, 61) * 2.0 - 1.0);
        let label = if x * x + y * y < 0.6 { "in" } else { "out" };
        text.push_str(&format!("{x:.4},{y:.4},{label}\n"));
    }
    text
}

/// Numbers in [0, 1) that look scattered.
pub fn spread(row: usize, prime: usize) -> f64 {
    ((row + 1) * prime * 7919 % 1009) as f64 / 1009.0
}
