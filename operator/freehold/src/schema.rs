//! Are the kinds of the cluster as new as this operator? An older schema would
//! silently drop fields that it writes, so it does not start on one.

use freehold_api::{SCHEMA, labels};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the CustomResourceDefinition {name} cannot be read; install charts/freehold-crds first")]
    Missing { name: String, source: Box<kube::Error> },
    #[error(
        "the CustomResourceDefinition {name} has schema {found}, this operator needs {SCHEMA} or newer; upgrade charts/freehold-crds first"
    )]
    Old { name: String, found: u32 },
}

pub async fn check(client: &Client) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in freehold_api::crds().into_iter().filter_map(|crd| crd.metadata.name) {
        let missing = |source| Error::Missing { name: name.clone(), source: Box::new(source) };
        let found = api.get_metadata(&name).await.map_err(missing)?;
        judge(&name, found.annotations().get(labels::SCHEMA_ANNOTATION).map(String::as_str))?;
    }
    Ok(())
}

/// One without the annotation is from before there was one.
fn judge(name: &str, annotation: Option<&str>) -> Result<(), Error> {
    let found = annotation.and_then(|text| text.parse().ok()).unwrap_or(0);
    if found >= SCHEMA { Ok(()) } else { Err(Error::Old { name: name.to_owned(), found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_kinds_are_fine_and_older_ones_are_named() {
        for fine in [SCHEMA, SCHEMA + 1] {
            assert!(judge("x", Some(&fine.to_string())).is_ok());
        }
        for old in [None, Some("0"), Some(""), Some("one")] {
            let error = judge("trainingtasks.freehold.dev", old).expect_err("too old").to_string();
            assert!(error.contains("trainingtasks.freehold.dev") && error.contains("freehold-crds"), "{error}");
        }
    }
}
