use super::*;

fn at(step: u64, second: u32) -> Progress {
    Progress { step, steps: 100, at: Some(format!("2026-01-01T00:00:{second:02}Z").into()), ..Progress::default() }
}

#[test]
fn progress_is_told_once_in_ten_seconds_and_at_the_end() {
    assert!(!is_due(&at(10, 0), &at(20, 9)));
    assert!(is_due(&at(10, 0), &at(20, 10)));
    assert!(is_due(&at(10, 0), &at(100, 1)), "the last step");
    assert!(is_due(&at(10, 30), &at(20, 1)), "a clock that went back");
    assert!(is_due(&at(10, 0), &Progress { step: 20, steps: 100, ..Progress::default() }), "an image without times");
}

#[test]
fn cost_is_rounded_to_the_minute() {
    use crate::compute_provider::fixtures::{NOW, leased, view};
    let money_at = |seconds: u64| {
        let mut order = leased(1, 1, OrderState::Running);
        (order.slot.started_at, order.slot.end_at) = (NOW, NOW + 7200);
        let mut view = view(vec![order.clone()]);
        view.latest.block.timestamp = NOW + seconds;
        let mut out = ComputeLeaseStatus::default();
        money(&mut out, &view, &order);
        (out.accrued.unwrap().0, out.rate_per_hour.unwrap().0)
    };
    assert_eq!(money_at(59), ("0".into(), "0.5".into()));
    assert_eq!(money_at(60), money_at(119));
    assert_eq!(money_at(3600).0, "0.499999");
}

#[test]
fn work_that_the_provider_lost_is_counted_once_a_loss() {
    let rebuilding = Claim::no(types::RUNNING, REBUILDING, "made again");
    let training = Claim::yes(types::RUNNING, "Training", "The trainer runs.");
    let mut out = ComputeLeaseStatus::default();
    let counts = [&training, &rebuilding, &rebuilding, &training, &rebuilding].map(|claim| {
        say(&mut out, std::slice::from_ref(claim), None, Timestamp::UNIX_EPOCH);
        out.rebuilds
    });
    assert_eq!(counts, [None, Some(1), Some(1), Some(1), Some(2)]);
}

#[test]
fn a_patch_names_what_goes() {
    use serde_json::json;
    let known = json!({ "phase": "Running", "exit": { "code": 1 }, "notes": { "Running": "x", "Closed": "y" } });
    let wanted = json!({ "phase": "Running", "notes": { "Closed": "z" }, "gpus": ["a"] });
    let patch = json!({ "exit": null, "notes": { "Running": null, "Closed": "z" }, "gpus": ["a"] });
    assert_eq!(merge_patch(&known, &wanted), patch);
    assert_eq!(merge_patch(&wanted, &wanted), json!({}));
}
