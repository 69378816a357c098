use freehold_core::spec::SpecInput;
use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{resources, spec};

fn manifest() -> Manifest {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "freehold.dev/v1alpha1", "kind": "TrainingTask", "name": "digits", "namespace": "demo",
        "uid": "u", "attempt": 0, "class": "none", "image": spec(1).image, "args": ["train"],
        "inputs": [{ "name": "dataset", "sha256": "3".repeat(64), "size": 10, "fileName": "digits.csv.gz" }],
        "resources": resources(1), "backoffLimit": 3, "deadlineSeconds": 7200,
    }))
    .unwrap()
}

/// A lease whose order names the bytes of `manifest`, changed by `change` after it was ordered.
fn verdict(manifest: &Manifest, change: impl FnOnce(&mut OrderSpec)) -> Result<Work, Error> {
    let bytes = canonical::to_vec("manifest", manifest).unwrap();
    let mut ordered = spec(1);
    ordered.manifest = canonical::sha256_hex(&bytes);
    ordered.inputs = vec![SpecInput { name: "dataset".into(), sha256: "3".repeat(64), size: 10 }];
    change(&mut ordered);
    let lease: ComputeLeaseSpec = serde_json::from_value(serde_json::json!({
        "orderId": "", "tenant": "", "provider": "p", "providerAddress": "", "chainId": 1, "market": "", "rate": "1",
        "spec": String::from_utf8(canonical::to_vec("spec", &ordered).unwrap()).unwrap(),
        "manifestSha256": ordered.manifest, "namespace": "n",
    }))
    .unwrap();
    validate(&lease, &bytes, &["gvisor".into()])
}

fn changed(change: impl FnOnce(&mut Manifest)) -> Result<Work, Error> {
    let mut manifest = manifest();
    change(&mut manifest);
    verdict(&manifest, |_| ())
}

#[test]
fn what_was_ordered_passes() {
    assert_eq!(verdict(&manifest(), |_| ()).unwrap().manifest, manifest());
}

#[rstest]
#[case("kind", |s: &mut OrderSpec| s.kind = "InferenceTask".into())]
#[case("class", |s: &mut OrderSpec| s.class = "exact".into())]
#[case("image", |s: &mut OrderSpec| s.image = s.image.replace('1', "4"))]
#[case("resources", |s: &mut OrderSpec| s.resources.cpu_millis = 1)]
#[case("recipe", |s: &mut OrderSpec| s.recipe = Some("5".repeat(64)))]
#[case("inputs", |s: &mut OrderSpec| s.inputs.clear())]
#[case("runtimeClass", |s: &mut OrderSpec| s.require.runtime_class = Some("gvisor".into()))]
fn what_differs_is_named(#[case] field: &str, #[case] change: fn(&mut OrderSpec)) {
    match verdict(&manifest(), change) {
        Err(Error::Differs { field: named, .. }) => assert_eq!(named, field),
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_bytes_are_refused() {
    assert!(matches!(verdict(&manifest(), |s| s.manifest = "6".repeat(64)), Err(Error::Digest { .. })));
}

#[rstest]
#[case("args", |m: &mut Manifest| m.args = vec!["x".into(); 65])]
#[case("args", |m: &mut Manifest| m.args = vec!["x".repeat(4097)])]
#[case("backoffLimit", |m: &mut Manifest| m.backoff_limit = 101)]
#[case("deadlineSeconds", |m: &mut Manifest| m.deadline_seconds = 0)]
#[case("fileName", |m: &mut Manifest| m.inputs[0].file_name = "../../etc/passwd".into())]
#[case("fileName", |m: &mut Manifest| m.inputs[0].file_name = ".hidden".into())]
fn what_reaches_a_pod_is_bounded(#[case] field: &str, #[case] change: fn(&mut Manifest)) {
    match changed(change) {
        Err(Error::Malformed { field: named, .. }) => assert_eq!(named, field),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_runtime_class_is_refused() {
    let mut manifest = manifest();
    manifest.runtime_class = Some("kata".into());
    let error = verdict(&manifest, |s| s.require.runtime_class = Some("kata".into())).unwrap_err();
    assert!(matches!(error, Error::NoRuntimeClass(class) if class == "kata"));
    manifest.runtime_class = Some("gvisor".into());
    assert!(verdict(&manifest, |s| s.require.runtime_class = Some("gvisor".into())).is_ok());
}
