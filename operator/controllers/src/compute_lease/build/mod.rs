//! The objects of a lease, a file a kind. Pure: everything comes in a
//! [`Blueprint`], and the same blueprint gives the same objects.

mod job;
mod namespace;
mod network;
pub mod pod;
mod quota;
mod rights;
mod root;

use std::collections::BTreeMap;

use freehold_api::labels;
use freehold_core::B256;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::names;
use super::validate::Work;

pub use job::{JOB, STOPPED_AT_ANNOTATION, STOPPED_BECAUSE_ANNOTATION};

/// Name of the service account, as the gateway expects it of a lease's pods.
pub const SERVICE_ACCOUNT: &str = "courier";

/// Where pods find the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    pub url: String,
    pub port: u16,
    /// Host name of the URL and the address behind it; none where the URL holds an address.
    pub alias: Option<(String, String)>,
}

/// Everything that the objects of a lease are made of.
#[derive(Clone, Debug)]
pub struct Blueprint {
    pub order: B256,
    pub account: String,
    pub provider: String,
    /// `namespace.name` of the release.
    pub release: String,
    pub courier_image: String,
    pub gpu_resource: String,
    pub gateway: Gateway,
    pub work: Work,
    /// Seconds that the chain allows between acceptance and start.
    pub start_window: u64,
    /// Seconds that the chain pays for at most.
    pub duration: u64,
    /// The node that was planned, and those that could do instead.
    pub node: String,
    pub nodes: Vec<String>,
}

impl Blueprint {
    pub fn release_namespace(&self) -> &str {
        self.release.split_once('.').map_or("", |(namespace, _)| namespace)
    }

    pub fn release_name(&self) -> &str {
        self.release.split_once('.').map_or(&self.release, |(_, name)| name)
    }
}

/// In the order in which they are applied: nothing runs before its walls stand.
#[derive(Clone, Debug)]
pub struct Objects {
    pub namespace: Namespace,
    pub policies: Vec<NetworkPolicy>,
    pub quota: ResourceQuota,
    pub account: ServiceAccount,
    pub log_readers: RoleBinding,
    pub job: Job,
}

pub fn root(blueprint: &Blueprint) -> ConfigMap {
    root::config_map(blueprint)
}

pub fn namespace(blueprint: &Blueprint) -> Namespace {
    namespace::namespace(blueprint)
}

/// `root_uid` is that of the ConfigMap which owns the rest.
pub fn objects(blueprint: &Blueprint, root_uid: &str) -> Objects {
    let made = Made { blueprint, root_uid };
    Objects {
        namespace: namespace::namespace(blueprint),
        policies: network::policies(&made),
        quota: quota::quota(&made),
        account: rights::service_account(&made),
        log_readers: rights::log_readers(&made),
        job: job::job(&made),
    }
}

struct Made<'a> {
    blueprint: &'a Blueprint,
    root_uid: &'a str,
}

impl Made<'_> {
    fn meta(&self, name: &str) -> ObjectMeta {
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: root::ROOT.into(),
            uid: self.root_uid.to_owned(),
            ..OwnerReference::default()
        };
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(names::namespace(&self.blueprint.order)),
            labels: Some(common_labels(self.blueprint)),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        }
    }
}

fn common_labels(blueprint: &Blueprint) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::ORDER.to_owned(), crate::goals::order_label(&blueprint.order.to_string())),
        (labels::RELEASE.to_owned(), blueprint.release.clone()),
        ("app.kubernetes.io/managed-by".to_owned(), "freehold".to_owned()),
    ])
}

#[cfg(test)]
#[path = "../tests/build.rs"]
mod tests;
