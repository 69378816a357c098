//! Runs from the task to the model file: what is learnt, and that an
//! interrupted run ends with the same bytes as an undisturbed one.
#![allow(clippy::unwrap_used)] // helpers of tests are not tests to clippy

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Bench, circle, spread, task};
use jiff::SignedDuration;
use rstest::rstest;
use serde_json::{Value, json};

/// Images of 6 × 6 with a bright row or a bright column.
fn stripes(rows: usize) -> String {
    let mut text: String = (0..36).map(|pixel| format!("p{pixel},")).collect();
    text.push_str("label\n");
    for row in 0..rows {
        let at = (spread(row, 13) * 6.0) as usize;
        let upright = row % 2;
        for pixel in 0..36 {
            let on = at == if upright == 1 { pixel % 6 } else { pixel / 6 };
            text.push_str(&format!("{},", if on { 9.0 } else { spread(row * 36 + pixel, 17) }));
        }
        text.push_str(&format!("{upright}\n"));
    }
    text
}

fn cnn() -> Value {
    json!({ "cnn": { "input": [1, 6, 6], "channels": [4, 8], "kernel": 3, "hidden": 8, "classes": 2 } })
}

fn transformer() -> Value {
    json!({ "transformer": { "width": 16, "heads": 2, "layers": 1, "context": 8 } })
}

#[rstest]
#[case::mlp(circle(200), json!({ "steps": 300 }), 0.9)]
#[case::mlp_bf16(circle(200), json!({ "steps": 300, "precision": "bf16" }), 0.85)]
#[case::mlp_sgd(circle(200), json!({ "steps": 400, "optimizer": { "sgd": { "learningRate": "0.1", "momentum": "0.9" } } }), 0.9)]
#[case::cnn(stripes(80), json!({ "model": cnn(), "steps": 60 }), 0.95)]
#[case::transformer("the cat sat on the mat\n".repeat(40), json!({ "model": transformer(), "steps": 250 }), 0.8)]
fn each_family_learns(#[case] data: String, #[case] recipe: Value, #[case] accuracy: f64) {
    let mut bench = Bench::with("dataset", data);
    let mut recipe = recipe;
    recipe["evaluate"] = json!({ "every": 1000, "split": "20%" });
    let summary = bench.train(&task(recipe)).unwrap();
    assert!(summary.metrics["accuracy"] >= accuracy, "{summary:?}");
}

/// Recipes whose resumption is not trivial: momentum, moments, two
/// micro-batches, evaluations, early stopping with best weights, text.
#[rstest]
#[case::sgd(circle(50), json!({ "optimizer": { "sgd": { "learningRate": "0.1", "momentum": "0.9" } } }))]
#[case::adam(circle(50), json!({ "optimizer": { "adam": { "learningRate": "0.02" } }, "gradientAccumulation": 2 }))]
#[case::adamw(circle(50), json!({
    "schedule": { "cosine": { "warmup": 10, "floor": "10%" } },
    "evaluate": { "every": 7 },
    "earlyStopping": { "metric": "accuracy", "patience": 5 },
}))]
#[case::bf16(circle(50), json!({ "precision": "bf16" }))]
#[case::cnn(stripes(30), json!({ "model": cnn(), "steps": 20 }))]
#[case::transformer("to be or not to be ".repeat(20), json!({ "model": transformer(), "steps": 20, "evaluate": { "every": 5 } }))]
fn an_interrupted_run_ends_with_the_same_bytes(#[case] data: String, #[case] recipe: Value) {
    let task = task(recipe);
    let undisturbed = Bench::with("dataset", &data).train(&task).unwrap();
    for stop_at in [6, 15, 38] {
        let mut bench = Bench::with("dataset", &data);
        bench.stop_at = Some(stop_at);
        let error = bench.train(&task).unwrap_err();
        assert_eq!(error.exit_code(), 75, "{error}");
        let stopped = bench.progress().last().unwrap()["step"].as_u64().unwrap();
        bench.stop_at = None;
        let resumed = bench.train(&task).unwrap();
        assert_eq!(resumed.resumed_from, Some(stopped));
        assert_eq!(resumed.model.sha256, undisturbed.model.sha256, "stopped at step {stopped}");
        assert_eq!((resumed.loss, &resumed.metrics), (undisturbed.loss, &undisturbed.metrics));
    }
}

/// Wherever the clock is read, the last evaluation included, a stop must not change what is delivered.
#[test]
fn a_stop_in_the_last_evaluation_delivers_its_figures_all_the_same() {
    let task = task(json!({ "steps": 6, "evaluate": { "every": 3 }, "checkpoint": { "keepBest": 1 } }));
    let mut whole = Bench::with("dataset", circle(50));
    let undisturbed = whole.train(&task).unwrap();
    let mut in_the_last_evaluation = 0;
    for stop_at in 3..25 {
        let mut bench = Bench::with("dataset", circle(50));
        bench.stop_at = Some(stop_at);
        let delivered = match bench.train(&task) {
            Ok(summary) => summary,
            Err(error) => {
                assert_eq!(error.exit_code(), 75, "{error}");
                let last = bench.progress().pop();
                in_the_last_evaluation += usize::from(last.is_some_and(|line| line["step"] == 6));
                bench.stop_at = None;
                bench.train(&task).unwrap()
            }
        };
        assert_eq!(delivered.model.sha256, undisturbed.model.sha256, "stopped at reading {stop_at}");
        assert_eq!(delivered.metrics, undisturbed.metrics, "stopped at reading {stop_at}");
        assert_eq!(delivered.last.unwrap().step, 6);
        let last = |bench: &Bench| fs::read(bench.checkpoint(6)).unwrap();
        assert_eq!(last(&bench), last(&whole), "the last checkpoint lacks its evaluation");
    }
    assert!(in_the_last_evaluation > 0, "no stop hit the last evaluation: the case shows nothing");
}

#[test]
fn a_resumed_run_repeats_no_step() {
    let mut bench = Bench::with("dataset", circle(50));
    bench.stop_at = Some(30);
    bench.train(&task(json!({}))).unwrap_err();
    let lines = bench.progress().len();
    let stopped = bench.progress()[lines - 1]["step"].as_u64().unwrap();
    bench.stop_at = None;
    bench.train(&task(json!({}))).unwrap();
    assert!(stopped > 0 && stopped < 60);
    assert_eq!(bench.progress()[lines]["step"], stopped + 1);
    assert!(bench.said.iter().any(|said| said.contains(&format!("resumed from the checkpoint at step {stopped}"))));
}

#[test]
fn a_finished_run_that_is_started_again_only_writes_its_outputs() {
    let mut bench = Bench::with("dataset", circle(50));
    let first = bench.train(&task(json!({}))).unwrap();
    fs::remove_dir_all(bench.path().join("out")).unwrap();
    let second = bench.train(&task(json!({}))).unwrap();
    assert_eq!(second.resumed_from, Some(60));
    assert_eq!(first.model.sha256, second.model.sha256);
}

#[test]
fn checkpoints_that_are_not_whole_are_skipped() {
    let recipe = task(json!({ "checkpoint": { "everySteps": 10, "keepLast": 6 } }));
    let mut bench = Bench::with("dataset", circle(50));
    let undisturbed = bench.train(&recipe).unwrap();
    assert_eq!(bench.checkpoints().len(), 6);
    let torn = fs::read(bench.checkpoint(60)).unwrap();
    fs::write(bench.checkpoint(60), &torn[..torn.len() - 9]).unwrap();
    let mut flipped = fs::read(bench.checkpoint(50)).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(bench.checkpoint(50), flipped).unwrap();
    fs::write(bench.path().join("checkpoints/notes.txt"), "not a checkpoint at all").unwrap();
    fs::write(bench.path().join("checkpoints/.step-000099.safetensors.tmp"), "half").unwrap();

    let resumed = bench.train(&recipe).unwrap();
    assert_eq!(resumed.resumed_from, Some(40));
    assert_eq!(resumed.model.sha256, undisturbed.model.sha256);
    for file in ["step-000060", "step-000050", "notes.txt"] {
        assert!(bench.said.iter().any(|said| said.starts_with("skipped") && said.contains(file)), "{:?}", bench.said);
    }
    assert!(!bench.path().join("checkpoints/.step-000099.safetensors.tmp").exists());
}

#[test]
fn a_checkpoint_of_another_recipe_is_skipped() {
    let mut bench = Bench::with("dataset", circle(50));
    bench.train(&task(json!({}))).unwrap();
    let other = bench.train(&task(json!({ "seed": 8 }))).unwrap();
    assert_eq!(other.resumed_from, None);
    assert!(bench.said.iter().any(|said| said.contains("another recipe")), "{:?}", bench.said);
}

#[test]
fn older_checkpoints_of_another_recipe_are_neither_counted_nor_removed() {
    let keep = |seed: u64, steps: u64| {
        let keep = json!({ "everySteps": 10, "keepLast": 6, "keepBest": 1 });
        task(json!({ "seed": seed, "steps": steps, "evaluate": { "every": 10 }, "checkpoint": keep }))
    };
    let mut bench = Bench::with("dataset", circle(50));
    bench.train(&keep(8, 30)).unwrap();
    let foreign: Vec<PathBuf> =
        bench.checkpoints().iter().map(|name| bench.path().join("checkpoints").join(name)).collect();
    assert_eq!(foreign.len(), 3);
    for path in &foreign {
        fs::rename(path, path.with_extension("old")).unwrap();
    }
    let few = |mut task: Value| {
        task["recipe"]["checkpoint"] = json!({ "everySteps": 10, "keepLast": 1 });
        task
    };
    bench.stop_at = Some(90);
    bench.train(&few(keep(7, 60))).unwrap_err();
    bench.stop_at = None;
    assert!(bench.train(&few(keep(7, 60))).unwrap().resumed_from.is_some_and(|step| step > 30));
    let names = bench.checkpoints();
    assert_eq!(names, ["step-000010.old", "step-000020.old", "step-000030.old", "step-000060.safetensors"]);
}

/// By hand no manifest states a digest, so that only the files themselves tell.
#[test]
fn other_data_or_other_starting_weights_begin_a_new_run() {
    let mut bench = Bench::with("dataset", circle(50));
    bench.train(&task(json!({}))).unwrap();
    bench.input("dataset", circle(60));
    assert_eq!(bench.train(&task(json!({}))).unwrap().resumed_from, None);

    let more = task(json!({ "initFrom": { "taskRef": "base" } }));
    fs::copy(bench.output("model.safetensors"), bench.path().join("in/init")).unwrap();
    assert_eq!(bench.train(&more).unwrap().resumed_from, None);
    assert_eq!(bench.train(&more).unwrap().resumed_from, Some(60));
    fs::copy(bench.output("model.safetensors"), bench.path().join("in/init")).unwrap();
    assert_eq!(bench.train(&more).unwrap().resumed_from, None);
}

#[test]
fn a_checkpoint_may_have_any_name() {
    let mut bench = Bench::with("dataset", circle(50));
    bench.train(&task(json!({}))).unwrap();
    fs::rename(bench.checkpoint(60), bench.path().join("checkpoints/checkpoint")).unwrap();
    assert_eq!(bench.train(&task(json!({}))).unwrap().resumed_from, Some(60));
}

#[test]
fn the_newest_and_the_best_checkpoints_are_kept() {
    let mut bench = Bench::with("dataset", circle(60));
    let recipe = json!({
        "evaluate": { "every": 10, "metrics": ["loss"], "split": "30%" },
        "checkpoint": { "everySteps": 5, "keepLast": 2, "keepBest": 1 },
        // Too fast to stay good: the best evaluation is not the last one.
        "optimizer": { "sgd": { "learningRate": "3", "momentum": "0.9" } },
    });
    let summary = bench.train(&task(recipe)).unwrap();
    let best = summary.best.unwrap().step;
    let mut expected = vec![best, 55, 60];
    expected.sort_unstable();
    expected.dedup();
    let expected: Vec<String> = expected.iter().map(|step| format!("step-{step:06}.safetensors")).collect();
    assert!(best < 55, "the case shows nothing if the best is among the newest: {best}");
    assert_eq!(bench.checkpoints(), expected);
}

#[test]
fn checkpoints_are_written_by_the_clock() {
    let mut bench = Bench::with("dataset", circle(50));
    bench.tick = SignedDuration::from_secs(1);
    bench.train(&task(json!({ "checkpoint": { "every": "45s", "keepLast": 9 } }))).unwrap();
    let count = bench.checkpoints().len();
    assert!((2..9).contains(&count), "{count} checkpoints");
}

#[test]
fn early_stopping_ends_the_run_and_delivers_the_best_model() {
    // Labels without any relation to the point: nothing to learn but the noise.
    let mut data = String::from("x,y,label\n");
    for row in 0..60 {
        data.push_str(&format!("{},{},{}\n", spread(row, 37), spread(row, 61), (spread(row, 83) * 7.0) as u32 % 2));
    }
    let mut bench = Bench::with("dataset", data);
    let recipe = json!({
        "steps": 5000,
        "model": { "mlp": { "layers": [2, 64, 2] } },
        "evaluate": { "every": 10, "split": "30%" },
        "earlyStopping": { "metric": "loss", "patience": 3 },
    });
    let summary = bench.train(&task(recipe)).unwrap();
    assert!(summary.stopped_early && summary.step < 5000, "{summary:?}");
    let best = summary.best.unwrap();
    assert_eq!(summary.step, best.step + 30);
    assert_eq!(summary.model.step, best.step);
    assert_eq!(summary.metrics, best.metrics);
}

#[test]
fn training_goes_on_from_another_model() {
    let mut bench = Bench::with("dataset", circle(200));
    let first = bench.train(&task(json!({ "steps": 300, "evaluate": { "every": 300 } }))).unwrap();
    fs::copy(bench.output("model.safetensors"), bench.path().join("in/init")).unwrap();
    let more = json!({ "steps": 1, "initFrom": { "taskRef": "base" }, "evaluate": { "every": 1 } });
    let second = bench.train(&task(more)).unwrap();
    assert!(second.metrics["loss"] < 1.2 * first.metrics["loss"], "{first:?} then {second:?}");

    let other = json!({ "model": { "mlp": { "layers": [2, 9, 2] } }, "initFrom": { "taskRef": "base" } });
    let error = bench.train(&task(other)).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().contains("`layers.0.weight` has shape [8, 2]"), "{error}");
}

#[test]
fn progress_lines_hold_what_the_contract_says() {
    let mut bench = Bench::with("dataset", circle(50));
    bench.train(&task(json!({ "evaluate": { "every": 20 } }))).unwrap();
    let lines = bench.progress();
    assert_eq!(lines[0]["step"], 1);
    let last = lines.last().unwrap();
    assert_eq!((last["step"].as_u64(), last["steps"].as_u64()), (Some(60), Some(60)));
    assert!(last["loss"].as_f64().unwrap() > 0.0);
    assert!(last["metrics"]["accuracy"].as_f64().unwrap() > 0.0);
    assert!(last["at"].as_str().unwrap().starts_with("1970-01-01T00:00:00"), "{last}");
}
