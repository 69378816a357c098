//! One namespace a lease: the wall that everything else hangs on.

use std::collections::BTreeMap;

use freehold_api::labels;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ObjectMeta;

use super::{Blueprint, common_labels};
use crate::compute_lease::names;

const POD_SECURITY: [&str; 3] = ["enforce", "audit", "warn"];

pub(super) fn namespace(blueprint: &Blueprint) -> Namespace {
    let mut labels = common_labels(blueprint);
    labels.insert(labels::ACCOUNT.to_owned(), blueprint.account.clone());
    for mode in POD_SECURITY {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".to_owned());
    }
    Namespace {
        metadata: ObjectMeta {
            name: Some(names::namespace(&blueprint.order)),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(labels::ORDER_ANNOTATION.to_owned(), blueprint.order.to_string())])),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}
