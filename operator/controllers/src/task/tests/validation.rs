//! Bad input, and what it gets.

use freehold_api::conditions::{Claim, Status};
use rstest::rstest;
use serde_json::{Value, json};

use super::world::*;
use crate::task::kind::TaskSpecView;
use crate::task::validate::{self, Found};

fn refusal(spec: &TaskSpecView, data: &Found, model: Option<&Found>) -> Claim {
    match validate::limits(spec, &chain_facts()) {
        Err(claim) => claim,
        Ok(_) => validate::work(spec, &chain_facts(), "trainer@sha256:00", data, model).expect_err("refused"),
    }
}

#[rstest]
#[case::budget_too_low("/spec/market/budget", json!("0.001"), "Raise the budget to at least 0.008333")]
#[case::budget_too_fine("/spec/market/budget", json!("1.0000001"), "6 decimals")]
#[case::rate_zero("/spec/market/maxRatePerHour", json!("0"), "raise it")]
#[case::holdback("/spec/market/holdback", json!("60%"), "above 50%")]
#[case::deadline("/spec/activeDeadline", json!("30s"), "at least 1m20s")]
#[case::bid_window("/spec/market/bidWindow", json!("5s"), "shorter than the account's 20s")]
#[case::disk("/spec/resources/disk", json!("2Pi"), "resources.disk `2Pi` is more than anybody has: ask for at most 10^15 bytes")]
#[case::memory("/spec/resources/memory", json!("0"), "resources.memory `0` is no positive quantity")]
#[case::cpu("/spec/resources/cpu", json!("2P"), "resources.cpu `2P` is no possible quantity")]
#[case::gpu_memory("/spec/resources/gpu/memory", json!("4Ti"), "no GPU has more than 1024 GiB")]
#[case::mig("/spec/resources/gpu", json!({ "count": 1, "memory": "40Gi", "migProfile": "1g.10gb" }), "a 1g.10gb slice has 10 GiB")]
#[case::http("/spec/dataset", json!({ "uri": "http://example.com/a.csv", "sha256": "00" }), "over https")]
#[case::no_name("/spec/dataset", json!({ "uri": "https://example.com/", "sha256": "00" }), "fileName is needed")]
#[case::address("/spec/market/providers", json!({ "addresses": ["0x1"] }), "`0x1` is no address")]
fn is_refused_with_a_remedy(#[case] pointer: &str, #[case] value: Value, #[case] remedy: &str) {
    let claim = refusal(&with(pointer, value), &Found::Remote, None);
    assert_eq!((claim.reason, claim.status), ("InvalidSpec", Status::False), "{}", claim.message);
    assert!(claim.message.contains(remedy), "{}", claim.message);
}

#[test]
fn wrong_digests_name_both() {
    let spec = with("/spec/dataset/sha256", json!("00".repeat(32)));
    let claim = refusal(&spec, &held(), None);
    assert_eq!(claim.reason, "DigestMismatch");
    assert!(claim.message.contains(&"00".repeat(32)) && claim.message.contains(&"ab".repeat(32)));
}

#[rstest]
#[case(Found::Waiting("Waits for TrainingTask `base` to be Complete.".into()), "WaitingForModel", Status::Unknown)]
#[case(Found::Failed("TrainingTask `base` failed.".into()), "ModelFailed", Status::False)]
#[case(Found::Missing("artifact 00 is not in the store".into()), "InputNotFound", Status::False)]
fn models_are_waited_for_or_missed(#[case] model: Found, #[case] reason: &str, #[case] status: Status) {
    let recipe = json!({ "taskRef": "base" });
    let spec = with("/spec/trainer/recipe/initFrom", recipe);
    assert_eq!(spec.model.as_ref().map(|(name, _)| *name), Some("init"));
    let claim = refusal(&spec, &held(), Some(&model));
    assert_eq!((claim.reason, claim.status), (reason, status));
}

#[test]
fn files_are_named_after_key_address_or_wish() {
    let name = |spec: TaskSpecView, found: Found| {
        validate::work(&spec, &chain_facts(), "trainer@sha256:00", &found, None).expect("valid").inputs[0]
            .file_name
            .clone()
    };
    assert_eq!(name(spec_of(manifest()), held()), "train.csv.gz");
    let uri = json!({ "uri": "https://example.com/a/digits.npz?x=1", "sha256": "00" });
    assert_eq!(name(with("/spec/dataset", uri), Found::Remote), "digits.npz");
    let wish = json!({ "artifact": { "sha256": "00" }, "fileName": "rows.parquet" });
    assert_eq!(name(with("/spec/dataset", wish), held()), "rows.parquet");
}
