//! A training run: from the task to the model file, through checkpoints.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tch::{Device, Reduction, Tensor};

use crate::artifact::Artifact;
use crate::batches::Sampler;
use crate::checkpoint::{Checkpoint, History, Store};
use crate::data::{self, Guard};
use crate::dataset::{self, Labelled, Normalization, Rows, Split};
use crate::description::Description;
use crate::error::{Error, Result};
use crate::evaluate::{self, Network};
use crate::evaluation::Evaluation;
use crate::model::Spec;
use crate::optim::{Slot, State};
use crate::progress::{Line, Progress, REPORT_EVERY};
use crate::recipe::{Metric, Model, Recipe};
use crate::summary::{Judged, ModelFile, TrainingSummary};
use crate::task::{Paths, Task};
use crate::tensors::{Named, Stored};
use crate::{device, exact, files, memory, model, schedule, tensors};

/// What a run takes from outside.
pub struct Env<'a> {
    pub device: Device,
    pub stop: &'a AtomicBool,
    pub now: &'a dyn Fn() -> Timestamp,
    /// Receives a sentence for the log.
    pub say: &'a mut dyn FnMut(String),
}

/// Rows that evaluation takes at a time, where the batch is not larger.
const EVALUATION_BATCH: usize = 256;

pub fn train(task: &Task, paths: &Paths, env: &mut Env) -> Result<TrainingSummary> {
    let started = (env.now)();
    let recipe = task.recipe()?;
    if recipe.precision.is_exact() {
        return exact::train::train(task, recipe, paths, env);
    }
    let material = Material::load(task, recipe, paths, env)?;
    let mut run = Run::start(task, recipe, &material, paths, env)?;
    let stepping = (env.now)();
    run.finish(env)?;
    let stepped = (env.now)();
    files::create_folder(&paths.outputs)?;
    let model = run.write_model(&material, &paths.outputs.join("model.safetensors"))?;
    let seconds = |from, to: Timestamp| to.duration_since(from).as_secs_f64();
    let summary = run.summary(model, seconds(started, (env.now)()), seconds(stepping, stepped));
    summary.write(&paths.outputs.join("metrics.json"))?;
    Ok(summary)
}

/// Data and starting weights, ready for the network.
struct Material {
    rows: Rows,
    split: Split,
    description: Description,
    normalization: Option<Normalization>,
    base: Option<Artifact>,
}

impl Material {
    fn load(task: &Task, recipe: &Recipe, paths: &Paths, env: &Env) -> Result<Self> {
        let guard = Guard { stop: env.stop, limit: memory::limit(task.resources) };
        let base = match recipe.init_from {
            Some(_) => Some(Artifact::read(&paths.input("init")?, env.device)?),
            None => None,
        };
        let path = paths.input("dataset")?;
        let material = match recipe.model {
            Model::Transformer { context, .. } => {
                let rows = Rows::text(data::read_bytes(&path, guard)?, context as usize)?;
                let split = Split::of_text(rows.len(), dataset::held_out_share(recipe))?;
                let description = Description::new(recipe.model.clone(), recipe.precision, Vec::new(), None);
                Self { rows, split, description, normalization: None, base }
            }
            Model::Mlp { .. } | Model::Cnn { .. } => Self::from_table(&path, recipe, base, guard)?,
        };
        let parameters = model::parameters(&recipe.model).iter().map(Spec::count).sum();
        let needed = memory::training(recipe, parameters, material.rows.len() as u64, device::side(env.device));
        let bytes = memory::RUNTIME.saturating_add(needed);
        let lower = if env.device.is_cuda() { "the model's size" } else { "batchSize or the model's size" };
        memory::require("training", bytes, guard.limit, lower)?;
        Ok(material)
    }

    fn from_table(path: &Path, recipe: &Recipe, base: Option<Artifact>, guard: Guard) -> Result<Self> {
        // Weights that were trained on some scale, for some classes, go on with them.
        let classes = base.as_ref().map(|base| base.description.classes.clone());
        let normalization = base.as_ref().and_then(|base| base.normalization.clone());
        let Labelled { table, indices, classes, split, normalization } =
            Labelled::read(path, recipe, classes, normalization, guard)?;
        let rows = Rows::table(&table, &indices, recipe.model.features().unwrap_or(0))?;
        let description = Description::new(recipe.model.clone(), recipe.precision, classes, table.features);
        Ok(Self { rows, split, description, normalization: Some(normalization), base })
    }
}

/// Everything that changes during a run.
struct Run<'a> {
    recipe: &'a Recipe,
    rows: &'a Rows,
    split: &'a Split,
    specs: Vec<Spec>,
    sampler: Sampler<'a>,
    device: Device,
    fingerprint: String,
    store: Store,
    progress: Progress,
    step: u64,
    parameters: Vec<Tensor>,
    optimizer: State,
    /// Parameters of the best evaluation, where early stopping asks for them.
    best: Option<Vec<Tensor>>,
    history: History,
    /// Loss of the last step, still on the device: reading it makes the CPU wait.
    loss: Option<Tensor>,
    resumed_from: Option<u64>,
    saved: Option<u64>,
    saved_at: Timestamp,
    reported_at: Option<Timestamp>,
}

impl<'a> Run<'a> {
    fn start(task: &Task, recipe: &'a Recipe, material: &'a Material, paths: &Paths, env: &mut Env) -> Result<Self> {
        let specs = model::parameters(&recipe.model);
        let fingerprint = fingerprint(task, recipe, paths)?;
        let keep = &recipe.checkpoint;
        let mut store = Store::open(&paths.checkpoints, keep.keep_last(), keep.keep_best(), env.say)?;
        let checkpoint = store.newest(&fingerprint, env.say);
        let parameters = match &material.base {
            Some(base) => {
                let named = base.parameters.iter().zip(model::parameters(&base.description.model));
                let named =
                    named.map(|(tensor, spec)| Ok((spec.name, Stored::of(tensor)?))).collect::<Result<Named>>()?;
                model::from_named(&specs, &named, "", env.device)?
            }
            None => model::initialise(&specs, recipe.seed, env.device)?,
        };
        let now = (env.now)();
        let mut run = Self {
            optimizer: State::new(&recipe.optimizer, &parameters)?,
            sampler: Sampler::new(&material.split.train, recipe.seed),
            progress: Progress::open(&paths.progress)?,
            recipe,
            rows: &material.rows,
            split: &material.split,
            specs,
            device: env.device,
            fingerprint,
            store,
            step: 0,
            parameters,
            best: None,
            history: History::default(),
            loss: None,
            resumed_from: None,
            saved: None,
            saved_at: now,
            reported_at: None,
        };
        if let Some(checkpoint) = checkpoint {
            run.resume(checkpoint, env)?;
        }
        for parameter in &run.parameters {
            let _ = parameter.f_set_requires_grad(true)?;
        }
        Ok(run)
    }

    fn resume(&mut self, checkpoint: Checkpoint, env: &mut Env) -> Result<()> {
        let Checkpoint { header, tensors } = checkpoint;
        self.parameters = model::from_named(&self.specs, &tensors, "parameter/", self.device)?;
        for slot in &mut self.optimizer.slots {
            slot.tensors = model::from_named(&self.specs, &tensors, &format!("{}/", slot.name), self.device)?;
        }
        if tensors.keys().any(|name| name.starts_with("best/")) {
            self.best = Some(model::from_named(&self.specs, &tensors, "best/", self.device)?);
        }
        (env.say)(format!("resumed from the checkpoint at step {} of {}", header.step, self.recipe.steps));
        let here = (device::name(self.device), tch::get_num_threads());
        if here != (&header.device, header.threads) {
            (env.say)(format!(
                "the checkpoint is from {} with {} threads, this is {} with {}: last digits may differ from an \
                 undisturbed run",
                header.device, header.threads, here.0, here.1
            ));
        }
        self.step = header.step;
        self.resumed_from = Some(header.step);
        self.saved = Some(header.step);
        self.history = header.history;
        Ok(())
    }

    fn finish(&mut self, env: &mut Env) -> Result<()> {
        loop {
            if self.evaluation_is_due() {
                self.evaluate(env)?;
            }
            // Still due: stopped in the middle of it. To go on, or to end, would be without its figures.
            if self.evaluation_is_due() {
                return Err(self.interrupt(env));
            }
            if self.finished() {
                break;
            }
            if env.stop.load(Ordering::Relaxed) {
                return Err(self.interrupt(env));
            }
            if self.checkpoint_is_due(env) {
                self.save(None, env)?;
            }
            self.train_step()?;
            self.report_if_due(env)?;
        }
        self.save(None, env)?;
        self.report(env)
    }

    fn finished(&self) -> bool {
        self.history.stopped || self.step >= u64::from(self.recipe.steps)
    }

    fn train_step(&mut self) -> Result<()> {
        let micro_batches = self.recipe.gradient_accumulation;
        let batch = self.recipe.batch_size as usize;
        let mut gradients: Vec<Tensor> = Vec::new();
        let mut total: Option<Tensor> = None;
        for micro in 0..u64::from(micro_batches) {
            let position = (self.step * u64::from(micro_batches) + micro) * batch as u64;
            let ids = self.sampler.take(position, batch);
            let (input, classes) = self.rows.batch(&ids, self.device)?;
            let logits = model::forward(&self.recipe.model, &self.parameters, &input, self.recipe.precision)?;
            let mut loss = evaluate::loss(&logits, &classes, Reduction::Mean)?;
            if micro_batches > 1 {
                loss = loss.f_mul_scalar(1.0 / f64::from(micro_batches))?;
            }
            accumulate(&mut gradients, Tensor::f_run_backward(&[&loss], &self.parameters, false, false)?)?;
            let loss = loss.f_detach()?;
            total = Some(match total {
                Some(total) => total.f_add(&loss)?,
                None => loss,
            });
        }
        let steps = u64::from(self.recipe.steps);
        let rate = schedule::rate(&self.recipe.schedule, self.recipe.optimizer.learning_rate(), self.step, steps);
        self.optimizer.update(&self.recipe.optimizer, &mut self.parameters, &gradients, rate, self.step)?;
        self.loss = total;
        self.step += 1;
        Ok(())
    }

    /// Takes the last loss off the device, and refuses to go on with a run that has diverged.
    fn read_loss(&mut self) -> Result<()> {
        let Some(loss) = self.loss.take() else { return Ok(()) };
        let loss = loss.f_double_value(&[])?;
        if !loss.is_finite() {
            return Err(Error::Usage(format!(
                "training diverged: the loss is {loss} at step {}; lower optimizer.learningRate or add schedule warmup",
                self.step
            )));
        }
        self.history.loss = Some(loss);
        Ok(())
    }

    fn network<'b>(&'b self) -> Network<'b> {
        Network {
            model: &self.recipe.model,
            parameters: &self.parameters,
            precision: self.recipe.precision,
            device: self.device,
        }
    }

    fn evaluation_is_due(&self) -> bool {
        let Some(evaluate) = &self.recipe.evaluate else { return false };
        let due = self.step.is_multiple_of(u64::from(evaluate.every)) || self.step == u64::from(self.recipe.steps);
        due && self.step > 0 && self.history.last.is_none_or(|last| last.step != self.step)
    }

    fn evaluate(&mut self, env: &mut Env) -> Result<()> {
        self.read_loss()?;
        let batch = match self.rows {
            Rows::Table { .. } => EVALUATION_BATCH.max(self.recipe.batch_size as usize),
            Rows::Text { .. } => self.recipe.batch_size as usize,
        };
        let evaluated = self.network().evaluate(self.rows, &self.split.held_out, batch, self.step, env.stop)?;
        // Stopped in the middle: the checkpoint says that this evaluation is still to be made.
        let Some(evaluation) = evaluated else { return Ok(()) };
        if !evaluation.loss.is_finite() {
            return Err(Error::Usage(format!(
                "training diverged: the held-out loss is {} at step {}; lower optimizer.learningRate",
                evaluation.loss, self.step
            )));
        }
        self.judge(evaluation)?;
        // A checkpoint of this step, from a run that was stopped in the evaluation, does not know its outcome.
        self.saved = None;
        self.report(env)?;
        let score = evaluation.score(self.first_metric());
        if self.store.would_keep(score) {
            self.save(Some(score), env)?;
        }
        Ok(())
    }

    fn judge(&mut self, evaluation: Evaluation) -> Result<()> {
        let stopping = self.recipe.early_stopping.as_ref();
        let metric = stopping.map_or(self.first_metric(), |stopping| stopping.metric);
        self.history.last = Some(evaluation);
        if self.history.best.is_none_or(|best| evaluation.score(metric) > best.score(metric)) {
            self.history.best = Some(evaluation);
            self.history.misses = 0;
            if stopping.is_some() {
                self.best = Some(self.parameters.iter().map(tensors::copy_of).collect::<Result<_>>()?);
            }
        } else {
            self.history.misses += 1;
            self.history.stopped = stopping.is_some_and(|stopping| self.history.misses >= stopping.patience);
        }
        Ok(())
    }

    fn metrics(&self) -> &[Metric] {
        self.recipe.evaluate.as_ref().map_or(&[], |evaluate| evaluate.metrics())
    }

    fn first_metric(&self) -> Metric {
        self.metrics().first().copied().unwrap_or(Metric::Loss)
    }

    fn report_if_due(&mut self, env: &Env) -> Result<()> {
        let due = self.reported_at.is_none_or(|at| (env.now)().duration_since(at) >= REPORT_EVERY);
        if due { self.report(env) } else { Ok(()) }
    }

    fn report(&mut self, env: &Env) -> Result<()> {
        self.read_loss()?;
        let at = (env.now)();
        let metrics = self.history.last.map(|last| last.report(self.metrics())).unwrap_or_default();
        let steps = u64::from(self.recipe.steps);
        self.progress.write(&Line { step: self.step, steps, loss: self.history.loss, metrics, exact: None, at })?;
        self.reported_at = Some(at);
        Ok(())
    }

    fn checkpoint_is_due(&self, env: &Env) -> bool {
        let plan = &self.recipe.checkpoint;
        let by_step = plan.every_steps.is_some_and(|every| self.step.is_multiple_of(u64::from(every.max(1))));
        let waited = (env.now)().duration_since(self.saved_at).unsigned_abs();
        self.step > 0 && (by_step || waited >= plan.every())
    }

    /// Writes a checkpoint unless there is one of this step.
    fn save(&mut self, score: Option<f64>, env: &Env) -> Result<()> {
        if self.saved == Some(self.step) {
            return Ok(());
        }
        self.read_loss()?;
        let mut tensors = Named::new();
        let best = self.best.iter().map(|tensors| ("best", tensors));
        let slots = self.optimizer.slots.iter().map(|Slot { name, tensors }| (*name, tensors));
        for (kind, list) in [("parameter", &self.parameters)].into_iter().chain(slots).chain(best) {
            for (spec, tensor) in self.specs.iter().zip(list) {
                tensors.insert(format!("{kind}/{}", spec.name), Stored::of(tensor)?);
            }
        }
        let score = score.or_else(|| {
            self.history.last.filter(|last| last.step == self.step).map(|last| last.score(self.first_metric()))
        });
        let checkpoint = Checkpoint::new(self.step, &self.fingerprint, score, &self.history, tensors);
        self.store.save(&checkpoint.computed(device::name(self.device), tch::get_num_threads()))?;
        self.saved = Some(self.step);
        self.saved_at = (env.now)();
        Ok(())
    }

    /// What SIGTERM asks for: a checkpoint, and a last line of progress.
    fn interrupt(&mut self, env: &Env) -> Error {
        if self.step == 0 {
            return Error::Interrupted("stopped by SIGTERM before the first step".into());
        }
        match self.save(None, env).and_then(|()| self.report(env)) {
            Ok(()) => {
                Error::Interrupted(format!("stopped by SIGTERM; the checkpoint at step {} is written", self.step))
            }
            Err(error) => error,
        }
    }

    /// The evaluation whose parameters early stopping chose, and these parameters.
    fn chosen(&self) -> Option<(Evaluation, &Vec<Tensor>)> {
        self.history.best.zip(self.best.as_ref())
    }

    /// Writes the model: the one that early stopping chose, else the last.
    fn write_model(&self, material: &Material, path: &Path) -> Result<ModelFile> {
        let parameters = self.chosen().map_or(&self.parameters, |(_, parameters)| parameters);
        let step = self.chosen().map_or(self.step, |(evaluation, _)| evaluation.step);
        require_finite(&self.specs, parameters, step)?;
        let artifact = Artifact {
            description: material.description.clone(),
            parameters: parameters.iter().map(Tensor::shallow_clone).collect(),
            normalization: material.normalization.clone(),
        };
        artifact.write(path)?;
        ModelFile::measure(path, step)
    }

    fn summary(&self, model: ModelFile, seconds: f64, stepping: f64) -> TrainingSummary {
        let judged = |evaluation: Evaluation| Judged::new(evaluation, self.metrics());
        let delivered = self.chosen().map(|(evaluation, _)| evaluation).or(self.history.last);
        TrainingSummary {
            step: self.step,
            steps: u64::from(self.recipe.steps),
            stopped_early: self.history.stopped,
            loss: self.history.loss,
            metrics: delivered.map(|evaluation| judged(evaluation).metrics).unwrap_or_default(),
            last: self.history.last.map(judged),
            best: self.history.best.map(judged),
            rows_trained: self.split.train.len(),
            rows_held_out: self.split.held_out.len(),
            model,
            resumed_from: self.resumed_from,
            device: device::name(self.device).into(),
            threads: tch::get_num_threads(),
            wall_seconds: seconds,
            exact: None,
            steps_per_second: (self.step - self.resumed_from.unwrap_or(0)) as f64 / stepping.max(1e-9),
        }
    }
}

/// Adds the gradients of another micro-batch.
fn accumulate(sums: &mut Vec<Tensor>, gradients: Vec<Tensor>) -> Result<()> {
    if sums.is_empty() {
        *sums = gradients;
        return Ok(());
    }
    for (sum, gradient) in sums.iter_mut().zip(&gradients) {
        let _ = sum.f_add_(gradient)?;
    }
    Ok(())
}

/// The loss is that of the weights before the last update: what this made of them only they can tell.
fn require_finite(specs: &[Spec], parameters: &[Tensor], step: u64) -> Result<()> {
    for (spec, parameter) in specs.iter().zip(parameters) {
        if parameter.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(Error::Usage(format!(
                "training diverged: after step {step} the parameter `{}` holds values that are not finite; lower \
                 optimizer.learningRate or add schedule warmup",
                spec.name
            )));
        }
    }
    Ok(())
}

/// Digest of all that decides what a step computes.
fn fingerprint(task: &Task, recipe: &Recipe, paths: &Paths) -> Result<String> {
    let mut recipe = recipe.clone();
    // When checkpoints are written changes nothing in them.
    recipe.checkpoint = Default::default();
    let dataset = Some(digest_of(task, "dataset", paths)?);
    let init = recipe.init_from.is_some().then(|| digest_of(task, "init", paths)).transpose()?;
    let inputs = [dataset, init];
    let text = serde_json::to_string(&(recipe, inputs)).map_err(|error| Error::Usage(error.to_string()))?;
    Ok(files::hex(&Sha256::digest(text)))
}

/// Digest of an input: the stated one, else the file's own, for by hand a file may be exchanged between two runs.
fn digest_of(task: &Task, name: &str, paths: &Paths) -> Result<String> {
    match task.digest(name) {
        Some(stated) => Ok(stated.into()),
        None => Ok(files::measure(&paths.input(name)?)?.1),
    }
}
