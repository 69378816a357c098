//! The ConfigMap that owns everything else in the namespace: one delete takes all.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;

use super::{Blueprint, common_labels};
use crate::compute_lease::names;

pub(super) const ROOT: &str = "lease";

pub(super) fn config_map(blueprint: &Blueprint) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(ROOT.into()),
            namespace: Some(names::namespace(&blueprint.order)),
            labels: Some(common_labels(blueprint)),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            ("order".to_owned(), blueprint.order.to_string()),
            ("provider".to_owned(), blueprint.provider.clone()),
            ("release".to_owned(), blueprint.release.clone()),
        ])),
        ..ConfigMap::default()
    }
}
