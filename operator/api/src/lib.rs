//! Freehold's kinds (`freehold.dev/v1alpha1`).
//!
//! Types, schema and the rules that one object alone can be held to. No I/O
//! and no behaviour: what a field means for the chain is in `freehold-core`,
//! what the operator does about it in `freehold-controllers`.

pub mod account;
pub mod conditions;
pub mod lease;
pub mod provider;
pub mod recipe;
pub mod scalars;
pub mod task;
pub mod task_status;
pub mod transaction;

pub use account::{ComputeAccount, ComputeBudget};
pub use lease::ComputeLease;
pub use provider::{ComputeProvider, GpuNode};
pub use task::{InferenceTask, TrainingTask};
pub use transaction::{ChainTransaction, Goal};

pub const GROUP: &str = "freehold.dev";
pub const VERSION: &str = "v1alpha1";

/// Labels and annotations that parts agree on.
pub mod labels {
    /// `0x…` order id without the prefix, cut to 63 characters: on everything that belongs to a lease.
    pub const ORDER: &str = "freehold.dev/order";
    /// The chain account a ChainTransaction or order ConfigMap belongs to.
    pub const ACCOUNT: &str = "freehold.dev/account";
    pub const TASK_UID: &str = "freehold.dev/task-uid";
    pub const TASK_NAME: &str = "freehold.dev/task-name";
    pub const TASK_NAMESPACE: &str = "freehold.dev/task-namespace";
    /// The release (`namespace/name` joined by a dot) that owns a cluster-scoped object or namespace.
    pub const RELEASE: &str = "freehold.dev/release";
    /// Full order id (`0x…`), where a label is too short.
    pub const ORDER_ANNOTATION: &str = "freehold.dev/order-id";
    /// Number of the newest block when a ComputeLease was made: an older block says nothing of the lease.
    pub const SEEN_ANNOTATION: &str = "freehold.dev/seen-in-block";
    /// Holds a task until its order can accrue no more.
    pub const SETTLE_FINALIZER: &str = "freehold.dev/settle";
    /// Holds a ComputeLease until the chain says that it is settled.
    pub const LEASE_FINALIZER: &str = "freehold.dev/lease";
    /// On a ComputeLease: the provider gives the lease up.
    pub const EVICT_ANNOTATION: &str = "freehold.dev/evict";
    /// On a task: the order of its account that it takes over.
    pub const ADOPT_ANNOTATION: &str = "freehold.dev/adopt";
    /// On a ComputeAccount: orders that were placed elsewhere and are to be ended, separated by spaces.
    pub const END_ANNOTATION: &str = "freehold.dev/end-orders";
    /// On a task that has ordered: `namespace/name/uid` of the object that did. A copy that is restored has another UID.
    pub const ORDERED_AS_ANNOTATION: &str = "freehold.dev/ordered-as";
    /// On a CRD: [`super::SCHEMA`] of the release that it came with.
    pub const SCHEMA_ANNOTATION: &str = "freehold.dev/schema";
}

/// Raised with each field that is added to a kind: an operator does not start on kinds that are older than itself, for
/// the API server would drop what it writes. Newer ones are fine: fields are only added.
pub const SCHEMA: u32 = 2;

/// ConfigMap of the release namespace that says whether the release has live orders or leases.
pub const LIVE_CONFIG_MAP: &str = "freehold-live";

/// Every CRD, in the order in which they are written and applied.
pub fn crds() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt;
    vec![
        TrainingTask::crd(),
        InferenceTask::crd(),
        ComputeAccount::crd(),
        ComputeBudget::crd(),
        ComputeProvider::crd(),
        GpuNode::crd(),
        ComputeLease::crd(),
        ChainTransaction::crd(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// Paths of fields that `kubectl explain` would show without a word.
    fn unexplained(schema: &Value, path: &str, out: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let own = !(path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str()));
            let path = format!("{path}.{name}");
            if own && field["description"].as_str().is_none_or(str::is_empty) {
                out.push(path.clone());
            }
            unexplained(field, &path, out);
        }
        if schema["items"].is_object() {
            unexplained(&schema["items"], &format!("{path}[]"), out);
        }
    }

    #[test]
    fn every_field_is_explained() {
        for crd in super::crds() {
            let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
            let mut out = Vec::new();
            unexplained(&schema["openAPIV3Schema"], "", &mut out);
            assert_eq!(out, Vec::<String>::new(), "{}", crd.spec.names.kind);
        }
    }
}
