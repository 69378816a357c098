//! Exact runs: an interrupted one ends with the roots of an undisturbed one, each segment is computed again from the state
//! before it, and whatever is not of the run is refused with words.
#![allow(clippy::unwrap_used)] // helpers of tests are not tests to clippy

mod common;

use std::fs;

use common::{Bench, circle, task};
use freehold_trainer::exact::checkpoint::Checkpoint;
use freehold_trainer::exact::trace;
use freehold_trainer::summary::Commitments;
use rstest::rstest;
use serde_json::{Value, json};

/// 23 steps in five segments, the last of them shorter.
fn exact(changes: Value) -> Value {
    let mut recipe = json!({
        "precision": "exact-i8",
        "steps": 23,
        "segmentSteps": 5,
        "evaluate": { "every": 10, "split": "20%" },
        "checkpoint": { "keepLast": 100 },
    });
    for (key, value) in changes.as_object().unwrap() {
        recipe[key] = value.clone();
    }
    task(recipe)
}

fn read(bench: &Bench, name: &str) -> Vec<u8> {
    fs::read(bench.output(name)).unwrap()
}

/// A run to its end, and what it came to.
fn trained(data: &str, task: &Value) -> (Bench, Commitments) {
    let mut bench = Bench::with("dataset", data);
    let exact = bench.train(task).unwrap().exact.unwrap();
    (bench, exact)
}

fn cnn() -> Value {
    json!({ "cnn": { "input": [1, 1, 2], "channels": [3], "kernel": 3, "hidden": 8, "classes": 2 } })
}

fn transformer() -> Value {
    json!({ "transformer": { "width": 16, "heads": 2, "layers": 1, "context": 8 } })
}

#[rstest]
#[case::i8(circle(200), json!({ "steps": 250 }), 0.85)]
#[case::wide(circle(200), json!({ "steps": 250, "precision": "exact-wide" }), 0.85)]
#[case::transformer("the cat sat on the mat\n".repeat(40), json!({ "model": transformer(), "steps": 60, "precision": "exact-wide" }), 0.6)]
fn it_learns(#[case] data: String, #[case] changes: Value, #[case] accuracy: f64) {
    let mut changes = changes;
    changes["segmentSteps"] = json!(100);
    let summary = Bench::with("dataset", data).train(&exact(changes)).unwrap();
    assert!(summary.metrics["accuracy"] >= accuracy, "{summary:?}");
}

#[rstest]
#[case::adamw(circle(60), json!({ "schedule": { "cosine": { "warmup": 4, "floor": "10%" } } }))]
#[case::sgd(circle(60), json!({
    "optimizer": { "sgd": { "learningRate": "0.1", "momentum": "0.9" } }, "gradientAccumulation": 2, "precision": "exact-wide",
}))]
#[case::transformer("to be or not to be ".repeat(20), json!({ "model": transformer() }))]
fn an_interrupted_run_ends_with_the_same_roots(#[case] data: String, #[case] changes: Value) {
    let task = exact(changes);
    let (undisturbed, expected) = trained(&data, &task);
    let mut bench = Bench::with("dataset", &data);
    let mut stops = Vec::new();
    for readings in [9, 12] {
        bench.stop_at = Some(readings);
        let error = bench.train(&task).unwrap_err();
        assert_eq!(error.exit_code(), 75, "{error}");
        stops.push(bench.progress().last().unwrap()["step"].as_u64().unwrap());
    }
    assert!(0 < stops[0] && stops[0] < stops[1], "{stops:?}");
    bench.stop_at = None;
    let resumed = bench.train(&task).unwrap();
    assert_eq!(resumed.resumed_from, Some(stops[1]));
    assert_eq!(resumed.exact.unwrap(), expected, "stopped at {stops:?}");
    for file in ["model.safetensors", "state.safetensors", "trace.json"] {
        assert!(read(&bench, file) == read(&undisturbed, file), "{file} differs");
    }
}

#[test]
fn threads_change_no_root() {
    let task = exact(json!({ "model": cnn() }));
    let (_, one) = trained(&circle(60), &task);
    let mut bench = Bench::with("dataset", circle(60));
    tch::set_num_threads(2);
    assert_eq!(bench.train(&task).unwrap().exact.unwrap(), one);
}

#[test]
fn another_seed_recipe_or_row_is_another_run() {
    let of = |data: String, changes| trained(&data, &exact(changes)).1;
    let usual = of(circle(60), json!({ "steps": 5 }));
    let seed = of(circle(60), json!({ "steps": 5, "seed": 8 }));
    assert_eq!(seed.program_id, usual.program_id);
    assert!(seed.seed != usual.seed && seed.init_root != usual.init_root && seed.state_root != usual.state_root);
    let rate = of(circle(60), json!({ "steps": 5, "optimizer": { "adamw": { "learningRate": "0.021" } } }));
    assert_eq!((&rate.data_root, &rate.init_root), (&usual.data_root, &usual.init_root));
    assert!(rate.program_id != usual.program_id && rate.state_root != usual.state_root);
    let moved = of(circle(60).replacen("0.", "0.9", 1), json!({ "steps": 5 }));
    assert_eq!(moved.program_id, usual.program_id);
    assert!(moved.data_root != usual.data_root && moved.state_root != usual.state_root);
}

#[test]
fn each_segment_is_computed_again() {
    let task = exact(json!({}));
    let (mut bench, made) = trained(&circle(60), &task);
    assert_eq!((made.segments, made.segment_steps), (5, 5));
    assert_eq!(bench.checkpoints().len(), 5);
    for segment in 1..=5 {
        bench.said.clear();
        let sentence = bench.replay(&task, segment, segment == 1).unwrap();
        let by = if segment == 1 { "the interpreter" } else { "libtorch" };
        assert!(sentence.contains(&format!("segment {segment}, steps")) && sentence.contains(by), "{sentence}");
        let begins = match segment {
            1 => "begins with the first state".to_owned(),
            _ => format!("begins with the checkpoint at step {}", (segment - 1) * 5),
        };
        assert!(bench.said.contains(&begins), "{:?}", bench.said);
    }
    let error = bench.replay(&task, 6, false).unwrap_err();
    assert!(error.exit_code() == 64 && error.to_string().contains("1 to 5"), "{error}");
    // Without the checkpoint before it, from the one before that; without any, from the first state.
    fs::remove_file(bench.checkpoint(10)).unwrap();
    bench.replay(&task, 3, false).unwrap();
    assert!(bench.said.contains(&"begins with the checkpoint at step 5".to_owned()), "{:?}", bench.said);
    fs::remove_dir_all(bench.path().join("checkpoints")).unwrap();
    assert!(bench.replay(&task, 3, false).unwrap().contains("segment 3"));
}

#[test]
fn a_trace_that_is_not_the_runs_is_refused() {
    let task = exact(json!({}));
    let (mut bench, _) = trained(&circle(60), &task);
    let path = bench.output("trace.json");
    let whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut with = |change: &dyn Fn(&mut Value)| {
        let mut changed = whole.clone();
        change(&mut changed);
        fs::write(&path, changed.to_string()).unwrap();
        let error = bench.replay(&task, 3, false).unwrap_err();
        (error.exit_code(), error.to_string())
    };
    let rooted = |trace: &mut Value| {
        let states: Vec<_> = serde_json::from_value(trace["states"].clone()).unwrap();
        trace["root"] = json!(trace::root(&states).unwrap());
    };
    let states = |trace: &mut Value| trace["states"].as_array_mut().unwrap().clone();
    let zero = format!("0x{}", "0".repeat(64));

    let (code, text) = with(&|trace| trace["states"] = json!(states(trace)[..4]));
    assert!(code == 65 && text.contains("number of states is 4") && text.contains("6"), "{code}: {text}");
    let (code, text) = with(&|trace| trace["states"].as_array_mut().unwrap().swap(2, 3));
    assert!(code == 65 && text.contains("do not have the root"), "{code}: {text}");
    for field in ["programId", "dataRoot", "seed"] {
        let (code, text) = with(&|trace| trace[field] = json!(zero));
        assert!(code == 65 && text.contains(&format!("its {field} is 0x00")), "{code}: {text}");
    }
    // Whole in itself, and wrong: only to compute tells.
    let (code, text) = with(&|trace| {
        trace["states"].as_array_mut().unwrap().swap(2, 3);
        rooted(trace);
    });
    assert!(code == 1 && text.contains("before step 10") && text.contains("the checkpoint has"), "{code}: {text}");
    let (code, text) = with(&|trace| {
        trace["states"][3] = json!(zero);
        rooted(trace);
    });
    assert!(code == 1 && text.contains("segment 3, steps 10 to 15") && text.contains("0x00"), "{code}: {text}");
    fs::write(&path, &whole.to_string()[..300]).unwrap();
    assert_eq!(bench.replay(&task, 3, false).unwrap_err().exit_code(), 65);
}

#[test]
fn checkpoints_that_are_not_whole_or_not_the_runs_are_passed_over() {
    let task = exact(json!({}));
    let (mut bench, made) = trained(&circle(60), &task);
    let (mut other, _) = trained(&circle(60), &exact(json!({ "seed": 8 })));
    fs::copy(other.checkpoint(23), bench.path().join("checkpoints/another-seed")).unwrap();
    other.input("dataset", circle(60).replacen("0.", "0.9", 1));
    other.train(&task).unwrap();
    fs::copy(other.checkpoint(23), bench.path().join("checkpoints/another-data")).unwrap();
    other.train(&exact(json!({ "steps": 22 }))).unwrap();
    fs::copy(other.checkpoint(22), bench.path().join("checkpoints/another-program")).unwrap();
    fs::write(bench.path().join("checkpoints/notes.txt"), "not a checkpoint at all").unwrap();

    let torn = fs::read(bench.checkpoint(23)).unwrap();
    fs::write(bench.checkpoint(23), &torn[..torn.len() - 9]).unwrap();
    let mut flipped = fs::read(bench.checkpoint(20)).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(bench.checkpoint(20), flipped).unwrap();
    fs::copy(bench.checkpoint(10), bench.checkpoint(15)).unwrap();

    let resumed = bench.train(&task).unwrap();
    assert_eq!(resumed.resumed_from, Some(10), "the copy is of step 10, too, whatever its name is");
    assert_eq!(resumed.exact.unwrap(), made);
    for (file, why) in [
        ("another-seed", "its seed is"),
        ("another-data", "its dataRoot is"),
        ("another-program", "its programId is"),
        ("notes.txt", "header"),
        ("step-000023", ""),
        ("step-000020", "that it states"),
    ] {
        let told = |said: &String| said.starts_with("skipped") && said.contains(file) && said.contains(why);
        assert!(bench.said.iter().any(told), "{file}: {:?}", bench.said);
    }
}

/// A checkpoint that is whole in itself, and not what the steps before it come to.
#[test]
fn a_forged_checkpoint_does_not_pass_a_replay() {
    let task = exact(json!({}));
    let (mut bench, _) = trained(&circle(60), &task);
    let plan = bench.plan(&task).unwrap();
    let mut forged = Checkpoint::read(&bench.checkpoint(10), &plan).unwrap();
    let shape = forged.state[0].shape().to_vec();
    let mut values = forged.state[0].clone().into_values();
    values[0] += 1;
    forged.state[0] = freehold_exact::tensor::Tensor::new(shape, values).unwrap();
    forged.root = plan.state_root(10, &forged.state);
    *forged.roots.last_mut().unwrap() = forged.root;
    forged.write(&bench.checkpoint(10), &plan).unwrap();
    let error = bench.replay(&task, 3, false).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(
        error.to_string().contains("before step 10") && error.to_string().contains(&forged.root.to_string()),
        "{error}"
    );
}

#[test]
fn progress_and_summary_carry_the_roots() {
    let task = exact(json!({}));
    let (bench, made) = trained(&circle(60), &task);
    let lines = bench.progress();
    let first = &lines[0]["exact"];
    assert_eq!((&first["initRoot"], &first["stateRoot"]), (&json!(made.init_root), &json!(made.init_root)));
    let last = &lines.last().unwrap()["exact"];
    let summary: Value = serde_json::from_slice(&read(&bench, "metrics.json")).unwrap();
    assert_eq!(last, &summary["exact"]);
    assert_eq!(last["stateRoot"], json!(made.state_root));
    assert_eq!((&last["segments"], &last["segmentSteps"]), (&json!(5), &json!(5)));
    let trace: Value = serde_json::from_slice(&read(&bench, "trace.json")).unwrap();
    assert_eq!((&trace["states"][0], &trace["states"][5]), (&last["initRoot"], &last["stateRoot"]));
}

#[test]
fn the_length_of_segments_follows_from_the_program() {
    let mut bench = Bench::with("dataset", circle(60));
    let of = |steps: u32| json!({ "steps": steps, "segmentSteps": null });
    let (long, again) = (bench.plan(&exact(of(40_000))).unwrap(), bench.plan(&exact(of(40_000))).unwrap());
    assert_eq!(long.segment_steps, again.segment_steps);
    assert!((1_000..40_000).contains(&long.segment_steps), "{}", long.segment_steps);
    assert_eq!(bench.plan(&exact(of(10))).unwrap().segment_steps, 10);
}

#[test]
fn a_perceptron_is_served_in_floats_and_a_transformer_is_not() {
    let (mut bench, _) = trained(&circle(200), &exact(json!({ "steps": 250, "segmentSteps": 250 })));
    bench.use_model();
    bench.input("input", circle(200));
    bench.infer("csv").unwrap();
    let predictions = String::from_utf8(read(&bench, "predictions.csv")).unwrap();
    let of = |text: &str, column: usize| -> Vec<String> {
        text.lines().skip(1).map(|line| line.split(',').nth(column).unwrap().to_owned()).collect()
    };
    let right = of(&predictions, 1).iter().zip(of(&circle(200), 2)).filter(|(found, label)| *found == label).count();
    assert!(right >= 170, "{right} of 200 right");

    let (mut bench, _) =
        trained(&"to be or not to be ".repeat(20), &exact(json!({ "model": transformer(), "steps": 1 })));
    bench.use_model();
    bench.input("input", "to be");
    let error = bench.infer("csv").unwrap_err();
    assert!(error.exit_code() == 65 && error.to_string().contains("exact"), "{error}");
}

#[rstest]
#[case::evaluate(json!({ "evaluate": null }), &["recipe.evaluate is missing", "evaluate.every"])]
#[case::early(json!({ "earlyStopping": { "metric": "loss", "patience": 2 } }), &["recipe.earlyStopping", "remove it"])]
#[case::init(json!({ "initFrom": { "taskRef": "base" } }), &["recipe.initFrom", "seed"])]
#[case::best(json!({ "checkpoint": { "keepBest": 2 } }), &["recipe.checkpoint.keepBest is 2", "remove it"])]
#[case::batch(json!({ "batchSize": 512, "gradientAccumulation": 16 }), &["batchSize times gradientAccumulation is 8192", "at most 4096"])]
#[case::steps(json!({ "steps": 2_000_000 }), &["recipe.steps is 2000000", "at most 1000000"])]
#[case::width(json!({ "model": { "mlp": { "layers": [2, 5000, 2] } } }), &["recipe.model.mlp.layers is 5000", "at most 4096"])]
#[case::kernel(json!({ "model": { "cnn": { "input": [1, 1, 2], "channels": [2], "kernel": 7, "classes": 2 } } }), &["recipe.model.cnn.kernel is 7", "at most 5"])]
#[case::decay(json!({ "optimizer": { "adam": { "learningRate": "0.1", "weightDecay": "0.1" } } }), &["optimizer.adam.weightDecay is 0.1", "adamw"])]
#[case::rate(json!({ "optimizer": { "sgd": { "learningRate": "12345" } } }), &["optimizer.learningRate is 12345"])]
#[case::high_rate(json!({ "optimizer": { "sgd": { "learningRate": "99.5" } } }), &["recipe.optimizer.learningRate is 99.5", "at most 32"])]
#[case::growing(json!({ "schedule": { "step": { "every": 1, "factor": "1.5" } } }), &["recipe.schedule.step.factor is 1.5", "at most 1"])]
#[case::no_segment(json!({ "segmentSteps": 0 }), &["recipe.segmentSteps is 0", "at least 1"])]
#[case::segments_of_floats(json!({ "precision": "f32" }), &["segmentSteps is 5", "exact-i8"])]
#[case::precision(json!({ "precision": "exact" }), &["recipe.precision", "`exact`", "`exact-wide`"])]
fn what_no_exact_run_does_is_refused_by_its_field(#[case] changes: Value, #[case] words: &[&str]) {
    let error = Bench::with("dataset", circle(50)).train(&exact(changes)).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.exit_code(), 64, "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

/// A velocity of 28 bits times a rate of 29.
#[test]
fn a_recipe_that_could_overflow_names_operator_shape_and_bits() {
    let changes = json!({ "optimizer": { "sgd": { "learningRate": "31", "momentum": "0.9" } } });
    let error = Bench::with("dataset", circle(50)).train(&exact(changes)).unwrap_err().to_string();
    for word in ["cannot be computed exactly", "operator", "shape [", "bits"] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn too_little_memory_is_told_before_training() {
    let mut task = exact(json!({ "model": { "mlp": { "layers": [2, 4000, 4000, 2] } } }));
    task["resources"] = json!({ "cpuMillis": 1000, "memory": 1_u64 << 29 });
    let error = Bench::with("dataset", circle(50)).train(&task).unwrap_err();
    assert!(error.exit_code() == 64 && error.to_string().contains("too little memory: exact training"), "{error}");
}
