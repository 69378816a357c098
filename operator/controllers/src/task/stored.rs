//! An order as it was decided: an immutable ConfigMap of the release namespace,
//! written before the goal that places it and never rendered again.

use std::collections::BTreeMap;

use freehold_api::labels;
use freehold_chain::calldata;
use freehold_core::order::Terms;
use freehold_core::{Address, B256};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde::Deserialize;

use crate::goals::{TaskRef, order_label};

/// Number of the attempt that the order is for.
/// An order that another object placed.
const ADOPTED_ANNOTATION: &str = "freehold.dev/adopted";
pub const ATTEMPT_ANNOTATION: &str = "freehold.dev/attempt";

/// Failed runs of the attempts before, which count against `backoffLimit`.
pub const FAILURES_ANNOTATION: &str = "freehold.dev/failures";

pub const MANIFEST: &str = "manifest.json";

/// What reconcilers keep of a stored order; the manifest stays in the ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredOrder {
    pub id: B256,
    /// Name of the ConfigMap.
    pub name: String,
    pub account: String,
    pub task: TaskRef,
    pub attempt: u32,
    /// Failed runs of the attempts before.
    pub failures: u32,
    pub terms: Terms,
    /// Step of the checkpoint that the work goes on from.
    pub resumed: u64,
    /// Placed by another object, and taken over: its id does not follow from the task's UID.
    pub adopted: bool,
    /// Not of an order that was placed from elsewhere.
    pub has_manifest: bool,
    pub created: Timestamp,
}

/// What is read of a manifest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resumed {
    resume_step: Option<u64>,
}

fn resumed(data: &BTreeMap<String, String>) -> u64 {
    let manifest = data.get(MANIFEST).and_then(|text| serde_json::from_str::<Resumed>(text).ok()).unwrap_or_default();
    manifest.resume_step.unwrap_or_default()
}

/// `order-<first 20 digits of the id>`.
pub fn name_of(id: &B256) -> String {
    format!("order-{}", &hex::encode(id)[..20])
}

/// Everything that is written down of a new order.
#[derive(Clone, Debug)]
pub struct Draft {
    pub id: B256,
    pub salt: B256,
    pub attempt: u32,
    pub failures: u32,
    pub terms: Terms,
    pub spec: Vec<u8>,
    /// Nothing for an order that was placed from elsewhere.
    pub manifest: Option<Vec<u8>>,
    pub adopted: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Order(#[from] calldata::Error),
    #[error("the manifest is not UTF-8: {0}")]
    Manifest(#[from] std::string::FromUtf8Error),
}

impl Draft {
    pub fn config_map(&self, namespace: &str, account: &str, task: &TaskRef) -> Result<ConfigMap, Error> {
        let order = calldata::StoredOrder { terms: self.terms.clone(), salt: self.salt, spec: self.spec.clone() };
        let mut data = order.to_data()?;
        if let Some(manifest) = &self.manifest {
            data.insert(MANIFEST.to_owned(), String::from_utf8(manifest.clone())?);
        }
        let id = format!("{:#x}", self.id);
        let labels = BTreeMap::from([
            (labels::ORDER.to_owned(), order_label(&id)),
            (labels::ACCOUNT.to_owned(), account.to_owned()),
            (labels::TASK_UID.to_owned(), task.uid.clone()),
            (labels::TASK_NAMESPACE.to_owned(), task.namespace.clone()),
            (labels::TASK_NAME.to_owned(), task.name.chars().take(63).collect()),
        ]);
        let annotations = BTreeMap::from([
            (labels::ORDER_ANNOTATION.to_owned(), id),
            (ATTEMPT_ANNOTATION.to_owned(), self.attempt.to_string()),
            (FAILURES_ANNOTATION.to_owned(), self.failures.to_string()),
            (ADOPTED_ANNOTATION.to_owned(), self.adopted.to_string()),
        ]);
        Ok(ConfigMap {
            metadata: ObjectMeta {
                name: Some(name_of(&self.id)),
                namespace: Some(namespace.to_owned()),
                labels: Some(labels),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            immutable: Some(true),
            data: Some(data),
            binary_data: None,
        })
    }
}

/// Makes the record that is there the task's of `map`: what was ordered stands, whose it is changes.
pub fn take_over(map: &ConfigMap) -> serde_json::Value {
    serde_json::json!({ "metadata": { "labels": map.metadata.labels, "annotations": map.metadata.annotations } })
}

impl StoredOrder {
    /// Nothing if the ConfigMap is no stored order.
    pub fn read(map: &ConfigMap) -> Option<Self> {
        let label = |key: &str| map.labels().get(key).cloned();
        let annotation = |key: &str| map.annotations().get(key).cloned();
        Some(Self {
            id: annotation(labels::ORDER_ANNOTATION)?.parse().ok()?,
            name: map.name_any(),
            account: label(labels::ACCOUNT)?,
            task: TaskRef {
                uid: label(labels::TASK_UID)?,
                namespace: label(labels::TASK_NAMESPACE)?,
                name: label(labels::TASK_NAME)?,
            },
            attempt: annotation(ATTEMPT_ANNOTATION)?.parse().ok()?,
            failures: annotation(FAILURES_ANNOTATION)?.parse().ok()?,
            terms: calldata::StoredOrder::from_data(map.data.as_ref()?).ok()?.terms,
            resumed: resumed(map.data.as_ref()?),
            adopted: annotation(ADOPTED_ANNOTATION).is_some_and(|text| text == "true"),
            has_manifest: map.data.as_ref()?.contains_key(MANIFEST),
            created: map.creation_timestamp()?.0,
        })
    }

    pub fn bid_by(&self) -> u64 {
        self.terms.bidBy.to::<u64>()
    }
}

/// Id of a task's n-th order.
pub fn id_of(chain_id: u64, market: Address, account: Address, uid: &str, attempt: u32) -> B256 {
    freehold_core::order::order_id(chain_id, market, account, freehold_core::order::salt(uid, attempt))
}
