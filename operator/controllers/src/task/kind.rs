//! What TrainingTask and InferenceTask have in common: one view of both, so
//! that one lifecycle serves the two.

use freehold_api::labels;
use freehold_api::recipe::Recipe;
use freehold_api::task::{
    Class, DeletionPolicy, Isolation, MarketSpec, ModelSource, OutputFormat, Resources, Source, TaskStatus,
};
use freehold_api::{InferenceTask, TrainingTask};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::goals::TaskRef;
use crate::metrics::Controller;

/// What the task runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// The built-in trainer.
    Recipe(Box<Recipe>),
    /// The built-in `freehold-trainer infer`.
    Infer,
    /// An image of the tenant's own.
    Image { image: String, args: Vec<String> },
}

/// The spec of either kind.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSpecView {
    pub workload: Workload,
    /// Name of the input under `/freehold/in`, and where its bytes are.
    pub data: (&'static str, Source),
    /// Model of an InferenceTask, initial weights of a TrainingTask.
    pub model: Option<(&'static str, ModelSource)>,
    pub output: Option<OutputFormat>,
    pub resources: Resources,
    pub market: MarketSpec,
    pub class: Class,
    pub active_deadline: String,
    pub backoff_limit: u32,
    pub suspend: bool,
    pub ttl_after_finished: Option<String>,
    pub deletion_policy: DeletionPolicy,
    pub isolation: Isolation,
}

/// A kind of task.
pub trait TaskKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    const KIND: &'static str;
    const PLURAL: &'static str;
    const CONTROLLER: Controller;

    fn spec(&self) -> TaskSpecView;

    fn status(&self) -> Option<&TaskStatus>;
}

impl TaskKind for TrainingTask {
    const KIND: &'static str = "TrainingTask";
    const PLURAL: &'static str = "trainingtasks";
    const CONTROLLER: Controller = Controller::TrainingTask;

    fn spec(&self) -> TaskSpecView {
        let spec = &self.spec;
        let (workload, model) = match (&spec.trainer.recipe, &spec.trainer.image) {
            (Some(recipe), _) => (Workload::Recipe(Box::new(recipe.clone())), initial_weights(recipe)),
            (None, image) => (own_image(image.as_ref().map(|i| i.as_str()), &spec.trainer.args), None),
        };
        TaskSpecView {
            workload,
            data: ("dataset", spec.dataset.clone()),
            model,
            output: None,
            resources: spec.resources.clone(),
            market: spec.market.clone(),
            class: spec.verification.class,
            active_deadline: spec.active_deadline.0.clone(),
            backoff_limit: spec.backoff_limit,
            suspend: spec.suspend,
            ttl_after_finished: spec.ttl_after_finished.as_ref().map(|d| d.0.clone()),
            deletion_policy: spec.deletion_policy,
            isolation: spec.isolation.clone(),
        }
    }

    fn status(&self) -> Option<&TaskStatus> {
        self.status.as_ref()
    }
}

impl TaskKind for InferenceTask {
    const KIND: &'static str = "InferenceTask";
    const PLURAL: &'static str = "inferencetasks";
    const CONTROLLER: Controller = Controller::InferenceTask;

    fn spec(&self) -> TaskSpecView {
        let spec = &self.spec;
        let workload = match &spec.image {
            None => Workload::Infer,
            image => own_image(image.as_ref().map(|i| i.as_str()), &spec.args),
        };
        TaskSpecView {
            workload,
            data: ("input", spec.input.clone()),
            model: Some(("model", spec.model.clone())),
            output: Some(spec.output.format),
            resources: spec.resources.clone(),
            market: spec.market.clone(),
            class: spec.verification.class,
            active_deadline: spec.active_deadline.0.clone(),
            backoff_limit: spec.backoff_limit,
            suspend: spec.suspend,
            ttl_after_finished: spec.ttl_after_finished.as_ref().map(|d| d.0.clone()),
            deletion_policy: spec.deletion_policy,
            isolation: spec.isolation.clone(),
        }
    }

    fn status(&self) -> Option<&TaskStatus> {
        self.status.as_ref()
    }
}

fn initial_weights(recipe: &Recipe) -> Option<(&'static str, ModelSource)> {
    let from = recipe.init_from.as_ref()?;
    Some(("init", ModelSource { task_ref: from.task_ref.clone(), artifact: from.artifact.clone() }))
}

fn own_image(image: Option<&str>, args: &[String]) -> Workload {
    Workload::Image { image: image.unwrap_or_default().to_owned(), args: args.to_vec() }
}

/// The metadata of a task that its lifecycle asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFacts {
    pub kind: &'static str,
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub generation: Option<i64>,
    /// Since when the task is being deleted.
    pub deleting: Option<Timestamp>,
    /// Our finalizer is set.
    pub held: bool,
    /// The object that this one, or the one that it is a copy of, ordered as.
    pub ordered_as: Option<String>,
    /// Id of the order that it is to take over.
    pub adopts: Option<String>,
    pub status: TaskStatus,
}

impl TaskFacts {
    pub fn of<K: TaskKind>(task: &K) -> Self {
        Self {
            kind: K::KIND,
            uid: task.uid().unwrap_or_default(),
            namespace: task.namespace().unwrap_or_default(),
            name: task.name_any(),
            generation: task.meta().generation,
            deleting: task.meta().deletion_timestamp.as_ref().map(|t| t.0),
            held: task.finalizers().iter().any(|f| f == labels::SETTLE_FINALIZER),
            ordered_as: task.annotations().get(labels::ORDERED_AS_ANNOTATION).cloned(),
            adopts: task.annotations().get(labels::ADOPT_ANNOTATION).cloned(),
            status: task.status().cloned().unwrap_or_default(),
        }
    }

    pub fn reference(&self) -> TaskRef {
        TaskRef { uid: self.uid.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }
}
