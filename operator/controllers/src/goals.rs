//! How controllers ask for something on the chain: a ChainTransaction whose
//! name follows from what it achieves, so asking twice is asking once.

use std::collections::BTreeMap;

use freehold_api::transaction::{ChainTransactionSpec, TransactionState};
use freehold_api::{ChainTransaction, Goal, labels};
use freehold_core::canonical;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::context::Context;

/// The task that a goal is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRef {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Canonical(#[from] canonical::Error),
    #[error("cannot record the goal {goal}: {source}")]
    Kube { goal: String, source: Box<kube::Error> },
}

/// `<goal>-<account>-<digest>`: the same goal has the same name, whoever asks.
pub fn name(account: &str, goal: &Goal) -> Result<String, canonical::Error> {
    let digest = canonical::sha256_hex(&canonical::to_vec("a goal", &(account, goal))?);
    Ok(format!("{}-{}", goal.name().to_ascii_lowercase(), &digest[..20]))
}

/// The goal's entry in the outbox, made if it is not there yet.
pub async fn ensure(
    ctx: &Context,
    account: &str,
    goal: Goal,
    task: Option<&TaskRef>,
) -> Result<ChainTransaction, Error> {
    let name = name(account, &goal)?;
    let api: Api<ChainTransaction> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let wrap = |source| Error::Kube { goal: name.clone(), source: Box::new(source) };
    if let Some(known) = api.get_opt(&name).await.map_err(wrap)? {
        return Ok(known);
    }
    let entry = ChainTransaction {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(ctx.settings.namespace.clone()),
            labels: Some(labels_of(account, &goal, task)),
            ..ObjectMeta::default()
        },
        spec: ChainTransactionSpec { account: account.into(), goal },
        status: None,
    };
    match api.create(&PostParams::default(), &entry).await {
        Ok(made) => Ok(made),
        Err(kube::Error::Api(status)) if status.is_already_exists() => api.get(&name).await.map_err(wrap),
        Err(error) => Err(wrap(error)),
    }
}

fn labels_of(account: &str, goal: &Goal, task: Option<&TaskRef>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([(labels::ACCOUNT.to_owned(), account.to_owned())]);
    if let Some(id) = goal.order_id() {
        out.insert(labels::ORDER.to_owned(), order_label(id.as_str()));
    }
    if let Some(task) = task {
        out.insert(labels::TASK_UID.to_owned(), task.uid.clone());
        out.insert(labels::TASK_NAMESPACE.to_owned(), task.namespace.clone());
        out.insert(labels::TASK_NAME.to_owned(), task.name.chars().take(63).collect());
    }
    out
}

/// An order id as a label value: without the prefix, cut to 63 characters.
pub fn order_label(id: &str) -> String {
    id.trim_start_matches("0x").chars().take(63).collect()
}

/// Fields of log lines: the task that a goal is for, and the lease that it is about.
pub fn about(entry: &ChainTransaction) -> (Option<String>, Option<&str>) {
    let label = |name: &str| entry.metadata.labels.as_ref()?.get(name);
    let task =
        label(labels::TASK_NAMESPACE).zip(label(labels::TASK_NAME)).map(|(space, name)| format!("{space}/{name}"));
    (task, entry.spec.goal.order_id().map(|id| id.as_str()))
}

pub fn state(entry: &ChainTransaction) -> TransactionState {
    entry.status.as_ref().and_then(|status| status.state).unwrap_or(TransactionState::Pending)
}
