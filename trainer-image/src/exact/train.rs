//! An exact training run: init, then step after step; after each segment the state's root and a checkpoint; now and then
//! an evaluation. All of it is a function of program, data and seed: neither the device, nor the threads, nor where it was
//! interrupted change a bit.

use std::path::Path;
use std::sync::atomic::Ordering;

use alloy_primitives::B256;
use freehold_exact::optim::PARAMETER;
use freehold_exact::program::List;
use freehold_exact::tensor::Tensor;
use jiff::Timestamp;

use super::checkpoint::{Checkpoint, History, Store};
use super::engine::{Engine, Libtorch};
use super::plan::Plan;
use super::trace::{self, TraceFile};
use crate::error::{Error, Result};
use crate::evaluation::Evaluation;
use crate::progress::{Line, Progress, REPORT_EVERY};
use crate::recipe::{Metric, Model, Recipe};
use crate::summary::{Judged, ModelFile, TrainingSummary};
use crate::task::{Paths, Task};
use crate::tensors::{Named, Stored};
use crate::train::Env;
use crate::{artifact, device, files, model};

/// Fractional bits of the losses that a program adds up.
const LOSS_BITS: i32 = 12;

pub fn train(task: &Task, recipe: &Recipe, paths: &Paths, env: &mut Env) -> Result<TrainingSummary> {
    let started = (env.now)();
    let plan = Plan::new(task, recipe, paths, env)?;
    let mut run = Run::start(recipe, &plan, paths, env)?;
    let stepping = (env.now)();
    run.finish(env)?;
    let stepped = (env.now)();
    files::create_folder(&paths.outputs)?;
    run.checkpoint()?.write(&paths.outputs.join("state.safetensors"), &plan)?;
    TraceFile::new(&plan, &run.roots)?.write(&paths.outputs.join(trace::FILE))?;
    let model = run.write_model(&paths.outputs.join("model.safetensors"))?;
    let seconds = |from, to: Timestamp| to.duration_since(from).as_secs_f64();
    let summary = run.summary(model, env, seconds(started, (env.now)()), seconds(stepping, stepped));
    summary.write(&paths.outputs.join("metrics.json"))?;
    Ok(summary)
}

struct Run<'a> {
    recipe: &'a Recipe,
    plan: &'a Plan,
    engine: Libtorch,
    store: Store,
    progress: Progress,
    /// Steps that were made.
    step: u32,
    state: Vec<tch::Tensor>,
    /// Roots of the first state, and of those that segments have ended with.
    roots: Vec<B256>,
    history: History,
    resumed_from: Option<u32>,
    saved: Option<u32>,
    saved_at: Timestamp,
    reported_at: Option<Timestamp>,
}

impl<'a> Run<'a> {
    fn start(recipe: &'a Recipe, plan: &'a Plan, paths: &Paths, env: &mut Env) -> Result<Self> {
        let engine = Libtorch::start(plan, env.device, env.say)?;
        let mut store = Store::open(&paths.checkpoints, plan, env.say)?;
        let checkpoint = store.newest(plan, |_| true, env.say);
        let state = engine.run(List::Init, &Vec::new(), &plan.context(0))?;
        let first = plan.state_root(0, &engine.store(&state)?);
        let mut run = Self {
            progress: Progress::open(&paths.progress)?,
            recipe,
            plan,
            engine,
            store,
            step: 0,
            state,
            roots: vec![first],
            history: History::default(),
            resumed_from: None,
            saved: None,
            saved_at: (env.now)(),
            reported_at: None,
        };
        if let Some(checkpoint) = checkpoint {
            run.resume(checkpoint, first, env)?;
        }
        Ok(run)
    }

    fn resume(&mut self, checkpoint: Checkpoint, first: B256, env: &mut Env) -> Result<()> {
        let Checkpoint { step, state, roots, history, .. } = checkpoint;
        if let Some(other) = roots.first().filter(|root| **root != first) {
            return Err(Error::Data(format!(
                "the checkpoint at step {step} began with the stateRoot {other}, and this program, data and seed with \
                 {first}: remove it"
            )));
        }
        (env.say)(format!("resumed from the checkpoint at step {step} of {}", self.plan.program.steps));
        self.state = self.engine.load(state)?;
        (self.step, self.roots, self.history) = (step, roots, history);
        (self.resumed_from, self.saved) = (Some(step), Some(step));
        Ok(())
    }

    fn finish(&mut self, env: &mut Env) -> Result<()> {
        loop {
            if self.evaluation_is_due() {
                self.evaluate(env)?;
            }
            if self.step == self.plan.program.steps {
                return self.report(env);
            }
            if env.stop.load(Ordering::Relaxed) {
                return Err(self.interrupt(env));
            }
            self.state = self.engine.run(List::Step, &self.state, &self.plan.context(self.step))?;
            self.step += 1;
            if self.segment_has_ended() || self.checkpoint_is_due(env) {
                self.save(env)?;
            }
            self.report_if_due(env)?;
        }
    }

    /// Whether the state's root is the trace's next.
    fn segment_has_ended(&self) -> bool {
        self.plan.ended(self.step) == self.roots.len()
    }

    /// Within a segment, only where the recipe asks for it.
    fn checkpoint_is_due(&self, env: &Env) -> bool {
        let plan = &self.recipe.checkpoint;
        let by_step = plan.every_steps.is_some_and(|every| self.step.is_multiple_of(every.max(1)));
        let waited = || (env.now)().duration_since(self.saved_at).unsigned_abs();
        by_step || plan.every.is_some_and(|every| waited() >= every.0)
    }

    fn checkpoint(&self) -> Result<Checkpoint> {
        let state = self.engine.store(&self.state)?;
        let root = self.plan.state_root(self.step, &state);
        Ok(Checkpoint { step: self.step, state, root, roots: self.roots.clone(), history: self.history })
    }

    /// Writes a checkpoint, unless there is one of this step, and ends the segment where it ends.
    fn save(&mut self, env: &Env) -> Result<()> {
        if self.saved == Some(self.step) {
            return Ok(());
        }
        let mut checkpoint = self.checkpoint()?;
        if self.segment_has_ended() {
            self.roots.push(checkpoint.root);
            checkpoint.roots.push(checkpoint.root);
        }
        self.store.save(&checkpoint, self.plan, self.recipe.checkpoint.keep_last())?;
        self.saved = Some(self.step);
        self.saved_at = (env.now)();
        Ok(())
    }

    fn evaluation_is_due(&self) -> bool {
        let every = self.recipe.evaluate.as_ref().map_or(1, |evaluate| evaluate.every.max(1));
        let due = self.step.is_multiple_of(every) || self.step == self.plan.program.steps;
        due && self.step > 0 && self.history.last.is_none_or(|last| last.step != u64::from(self.step))
    }

    fn evaluate(&mut self, env: &Env) -> Result<()> {
        let results = self.engine.run(List::Evaluate, &self.state, &self.plan.context(0))?;
        let results = self.engine.store(&results)?;
        let result = |at: usize| results.get(at).and_then(|one: &Tensor| one.values().first()).copied().unwrap_or(0);
        let count = self.plan.evaluated as f64;
        let evaluation = Evaluation {
            step: self.step.into(),
            accuracy: result(0) as f64 / count,
            loss: result(1) as f64 / f64::from(1 << LOSS_BITS) / count,
        };
        let metric = self.metrics().first().copied().unwrap_or(Metric::Loss);
        if self.history.best.is_none_or(|best| evaluation.score(metric) > best.score(metric)) {
            self.history.best = Some(evaluation);
        }
        self.history.last = Some(evaluation);
        self.report(env)
    }

    fn metrics(&self) -> &[Metric] {
        self.recipe.evaluate.as_ref().map_or(&[], |evaluate| evaluate.metrics())
    }

    fn report_if_due(&mut self, env: &Env) -> Result<()> {
        let due = self.reported_at.is_none_or(|at| (env.now)().duration_since(at) >= REPORT_EVERY);
        if due { self.report(env) } else { Ok(()) }
    }

    fn report(&mut self, env: &Env) -> Result<()> {
        let at = (env.now)();
        let metrics = self.history.last.map(|last| last.report(self.metrics())).unwrap_or_default();
        let exact = Some(self.plan.commitments(&self.roots));
        let (step, steps) = (self.step.into(), self.plan.program.steps.into());
        self.progress.write(&Line { step, steps, loss: None, metrics, exact, at })?;
        self.reported_at = Some(at);
        Ok(())
    }

    /// What SIGTERM asks for: a checkpoint, and a last line of progress.
    fn interrupt(&mut self, env: &Env) -> Error {
        if self.step == 0 {
            return Error::Interrupted("stopped by SIGTERM before the first step".into());
        }
        match self.save(env).and_then(|()| self.report(env)) {
            Ok(()) => {
                Error::Interrupted(format!("stopped by SIGTERM; the checkpoint at step {} is written", self.step))
            }
            Err(error) => error,
        }
    }

    /// The parameters as 32-bit floats, which hold them as they are: they have at most 22 bits.
    fn write_model(&self, path: &Path) -> Result<ModelFile> {
        let description = &self.plan.data.description;
        // A transformer's parameters are not those of the float one.
        let shapes = match description.model {
            Model::Transformer { .. } => Vec::new(),
            Model::Mlp { .. } | Model::Cnn { .. } => model::parameters(&description.model),
        };
        let remembered = self.plan.remembered;
        let state = self.engine.store(&self.state)?;
        let parameters = self.plan.program.state.iter().zip(&state).step_by(1 + remembered);
        let named: Named = parameters
            .map(|(declared, tensor)| {
                let shape = shapes.iter().find(|spec| spec.name == declared.name);
                let shape = shape.map(|spec| spec.shape.iter().map(|side| side.unsigned_abs() as usize).collect());
                let one = f64::from(1 << PARAMETER);
                let bytes = tensor.values().iter().flat_map(|value| ((*value as f64 / one) as f32).to_le_bytes());
                let shape = shape.unwrap_or_else(|| declared.shape.clone());
                (declared.name.clone(), Stored { shape, bytes: bytes.collect() })
            })
            .collect();
        artifact::write(path, named, description, self.plan.data.normalization.as_ref())?;
        ModelFile::measure(path, self.step.into())
    }

    fn summary(&self, model: ModelFile, env: &Env, seconds: f64, stepping: f64) -> TrainingSummary {
        let judged = |evaluation: Evaluation| Judged::new(evaluation, self.metrics());
        let made = self.step - self.resumed_from.unwrap_or(0);
        TrainingSummary {
            step: self.step.into(),
            steps: self.plan.program.steps.into(),
            stopped_early: false,
            loss: None,
            metrics: self.history.last.map(|last| judged(last).metrics).unwrap_or_default(),
            last: self.history.last.map(judged),
            best: self.history.best.map(judged),
            rows_trained: self.plan.data.trained,
            rows_held_out: self.plan.data.held_out,
            model,
            resumed_from: self.resumed_from.map(Into::into),
            device: device::name(env.device).into(),
            threads: tch::get_num_threads(),
            wall_seconds: seconds,
            steps_per_second: f64::from(made) / stepping.max(1e-9),
            exact: Some(self.plan.commitments(&self.roots)),
        }
    }
}
