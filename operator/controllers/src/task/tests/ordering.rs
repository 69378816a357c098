//! What is written down of an order.

use freehold_chain::calldata;
use freehold_core::canonical;
use freehold_core::manifest::Manifest;
use freehold_core::money::Amount;
use freehold_core::order as chain_order;
use freehold_core::spec::OrderSpec;
use freehold_core::wire::CheckpointNote;
use freehold_core::{Address, B256};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::world::*;
use crate::goals::TaskRef;
use crate::task::order::{Job, Site, build, cap};
use crate::task::stored::{Draft, StoredOrder, take_over};
use crate::task::validate::{self, Limits, Work};

fn site() -> Site {
    Site {
        chain_id: 31337,
        market: Address::repeat_byte(1),
        token: Address::repeat_byte(2),
        account: Address::repeat_byte(3),
        origin: chain_order::origin("kube-system-uid"),
        now: START as u64,
        block_time: 2,
    }
}

fn valid() -> (Limits, Work) {
    let spec = spec_of(manifest());
    let limits = validate::limits(&spec, &chain_facts()).expect("limits");
    let work = validate::work(&spec, &chain_facts(), "trainer@sha256:00", &held(), None).expect("work");
    (limits, work)
}

fn job(attempt: u32, cap: Amount, resume: Option<&CheckpointNote>) -> Job<'_> {
    Job {
        kind: "TrainingTask",
        uid: "uid-1",
        namespace: "demo",
        name: "digits",
        attempt,
        backoff_limit: 3,
        failures: 1,
        duration: 7200,
        cap,
        resume,
    }
}

fn draft(resume: Option<&CheckpointNote>) -> Draft {
    let (limits, work) = valid();
    build(&site(), &limits, &work, &job(0, Amount(1_000_000), resume)).expect("builds")
}

#[test]
fn terms_follow_the_design() {
    let terms = draft(None).terms;
    assert_eq!((terms.maxPrice, terms.noShowPenalty, terms.bond, terms.auditReserve), (1_000_000, 20_000, 100_000, 0));
    assert_eq!(
        (terms.bidBy.to::<i64>(), terms.startWindow.to::<u64>(), terms.window.to::<u64>()),
        (START + 40, 300, 600)
    );
    assert_eq!((terms.duration.to::<u64>(), terms.holdbackBps, terms.class), (7200, 2000, 0));
    assert_eq!(terms.rulesHash, B256::ZERO);
}

#[test]
fn spec_manifest_and_terms_bind_one_another() {
    let draft = draft(None);
    assert_eq!(draft.terms.specHash, canonical::keccak(&draft.spec));
    let spec = OrderSpec::parse(&draft.spec).expect("spec");
    assert_eq!(spec.manifest, canonical::sha256_hex(draft.manifest.as_ref().expect("manifest")));
    let manifest = Manifest::parse(draft.manifest.as_ref().expect("manifest")).expect("manifest");
    let recipe = canonical::to_vec("recipe", manifest.recipe.as_ref().expect("a recipe")).expect("bytes");
    assert_eq!(spec.recipe, Some(canonical::sha256_hex(&recipe)));
    assert_eq!(spec.inputs.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["dataset"]);
    assert_eq!(manifest.backoff_limit, 2, "failures of earlier attempts count");
    assert_eq!(
        (manifest.inputs[0].file_name.as_str(), manifest.args.as_slice()),
        ("train.csv.gz", &["train".to_owned()][..])
    );
    assert!(draft.spec.len() <= 1024, "{}", draft.spec.len());
}

#[test]
fn a_later_attempt_resumes() {
    let note =
        CheckpointNote { step: 40, sha256: "ef".repeat(32), size: 10, file_name: "step-000040.safetensors".into() };
    let manifest = Manifest::parse(&draft(Some(&note)).manifest.expect("manifest")).expect("manifest");
    assert_eq!(manifest.resume_step, Some(40));
    let input = manifest.inputs.last().expect("an input");
    assert_eq!((input.name.as_str(), input.file_name.as_str()), ("checkpoint", "step-000040.safetensors"));
}

#[test]
fn what_was_written_down_is_read_back_and_is_what_the_outbox_places() {
    let draft = draft(None);
    let task = TaskRef { uid: "uid-1".into(), namespace: "demo".into(), name: "digits".into() };
    let mut map = draft.config_map("freehold-tenant", "team-a", &task).expect("a ConfigMap");
    assert_eq!(map.immutable, Some(true));
    map.metadata.creation_timestamp = Some(Time(Timestamp::from_second(START).expect("time")));
    let stored = StoredOrder::read(&map).expect("a stored order");
    assert_eq!((stored.id, stored.attempt, stored.failures, &stored.task), (draft.id, 0, 1, &task));
    assert_eq!(stored.terms, draft.terms);
    let placed = calldata::StoredOrder::from_data(map.data.as_ref().expect("data")).expect("readable");
    assert_eq!((placed.salt, placed.spec), (draft.salt, draft.spec.clone()));
    assert_eq!(chain_order::order_id(31337, site().market, site().account, placed.salt), draft.id);
}

/// The record stays; only whose it is changes. Its id does not follow from the new UID: unless that is said, the task would
/// not find the order and place a second one.
#[test]
fn a_record_that_is_taken_over_says_so_and_keeps_its_manifest() {
    let task = |uid: &str| TaskRef { uid: uid.into(), namespace: "demo".into(), name: "digits".into() };
    let placed = draft(None);
    let mut map = placed.config_map("freehold-tenant", "team-a", &task("uid-1")).expect("a ConfigMap");
    map.metadata.creation_timestamp = Some(Time(Timestamp::from_second(START).expect("time")));
    assert!(!StoredOrder::read(&map).expect("a stored order").adopted);

    let taken = Draft { manifest: None, adopted: true, attempt: 3, ..placed.clone() };
    let patch = take_over(&taken.config_map("freehold-tenant", "team-a", &task("uid-2")).expect("a ConfigMap"));
    map.metadata.labels = serde_json::from_value(patch["metadata"]["labels"].clone()).expect("labels");
    map.metadata.annotations = serde_json::from_value(patch["metadata"]["annotations"].clone()).expect("annotations");
    let stored = StoredOrder::read(&map).expect("a stored order");
    assert_eq!((stored.id, stored.attempt, &stored.task), (placed.id, 3, &task("uid-2")));
    assert!(stored.adopted && stored.has_manifest);
}

#[test]
fn each_attempt_has_an_id_of_its_own() {
    let (limits, work) = valid();
    let id = |attempt| build(&site(), &limits, &work, &job(attempt, Amount(1), None)).expect("builds").id;
    assert_eq!(id(0), id(0));
    assert_ne!(id(0), id(1));
}

proptest! {
    #[test]
    fn the_cap_is_the_least_of_money_and_time(left in 0u128..10_000_000, seconds in 0u64..100_000) {
        let (limits, _) = valid();
        let found = cap(&limits, Amount(left), seconds);
        prop_assert!(found.0 <= left);
        let hourly = 500_000u128;
        prop_assert!(found.0 <= hourly * u128::from(seconds) / 3600);
        prop_assert!(found.0 == left || found.0 == hourly * u128::from(seconds) / 3600);
    }
}
