//! The namespace may use what was leased, once.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Made;
use super::pod::{bytes, millis, reserved};

pub(super) fn quota(made: &Made<'_>) -> ResourceQuota {
    let blueprint = made.blueprint;
    let whole = reserved(&blueprint.work.manifest.resources);
    let none = || Quantity("0".into());
    let mut hard = BTreeMap::from([
        ("count/jobs.batch".to_owned(), Quantity("1".into())),
        ("pods".to_owned(), Quantity("1".into())),
        ("requests.cpu".to_owned(), millis(whole.cpu_millis)),
        ("requests.memory".to_owned(), bytes(whole.memory)),
        ("requests.ephemeral-storage".to_owned(), bytes(whole.disk)),
        (format!("requests.{}", blueprint.gpu_resource), none()),
        ("services".to_owned(), none()),
        ("persistentvolumeclaims".to_owned(), none()),
    ]);
    for (slot, count) in whole.gpus {
        hard.insert(format!("requests.{}", slot.resource(&blueprint.gpu_resource)), Quantity(count.to_string()));
    }
    ResourceQuota {
        metadata: made.meta("lease"),
        spec: Some(ResourceQuotaSpec { hard: Some(hard), ..ResourceQuotaSpec::default() }),
        ..ResourceQuota::default()
    }
}
