//! The program itself: its exit codes, SIGTERM, and the digits.
#![allow(clippy::unwrap_used)] // helpers of tests are not tests to clippy

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, circle, task};
use freehold_trainer::exact::trace;
use freehold_trainer::recipe::Recipe;
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn program(bench: &Bench, task: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freehold-trainer"));
    let paths = bench.paths();
    command.env("OMP_NUM_THREADS", "1").arg("--task").arg(task).arg("--in").arg(paths.inputs);
    command.arg("--out").arg(paths.outputs).arg("--checkpoints").arg(paths.checkpoints);
    command.arg("--progress").arg(paths.progress).stderr(Stdio::piped());
    command
}

fn write_task(bench: &Bench, task: &Value) -> PathBuf {
    let path = bench.path().join("task.json");
    fs::write(&path, task.to_string()).unwrap();
    path
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wait_for_step(bench: &Bench, child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(bench.paths().progress).is_ok_and(|text| text.contains("\"step\":")) {
        assert!(child.try_wait().unwrap().is_none(), "the trainer ended before its first step");
        assert!(Instant::now() < deadline, "no progress within a minute");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn sigterm_writes_a_checkpoint_and_the_next_run_goes_on() {
    let steps = json!({ "steps": 2000 });
    let mut undisturbed = Bench::with("dataset", circle(50));
    let expected = undisturbed.train(&task(steps.clone())).unwrap().model.sha256;

    let bench = Bench::with("dataset", circle(50));
    let path = write_task(&bench, &task(steps));
    let mut child = program(&bench, &path).arg("train").spawn().unwrap();
    wait_for_step(&bench, &mut child);
    let sent = Instant::now();
    let kill = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", message(&output));
    assert!(sent.elapsed() < Duration::from_secs(5));
    assert!(message(&output).contains("the checkpoint at step"), "{}", message(&output));
    assert_eq!(bench.checkpoints().len(), 1);

    let output = program(&bench, &path).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    assert!(message(&output).contains("resumed from the checkpoint at step"), "{}", message(&output));
    let metrics: Value = serde_json::from_slice(&fs::read(bench.output("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics["model"]["sha256"], Value::String(expected));
}

#[test]
fn exit_codes_tell_whether_a_retry_can_help() {
    let run = |data: &str, task: &Value, more: &[&str]| {
        let bench = Bench::with("dataset", data);
        let path = write_task(&bench, task);
        let output = program(&bench, &path).args(more).output().unwrap();
        (output.status.code().unwrap(), message(&output))
    };
    let good = task(json!({}));
    assert_eq!(run(&circle(50), &good, &[]).0, 0);
    let (code, text) = run("x,y,label\n1,nan,a\n", &good, &["train"]);
    assert!(code == 65 && text.contains("row 1, column `y`"), "{code}: {text}");
    let (code, text) = run(&circle(50), &good, &["infer"]);
    assert!(code == 64 && text.contains("kind TrainingTask"), "{code}: {text}");
    assert_eq!(run(&circle(50), &good, &["--fast"]).0, 64);
    if !tch::Cuda::is_available() {
        let (code, text) = run(&circle(50), &good, &["--device", "cuda"]);
        assert!(code == 69 && text.contains("--device cuda"), "{code}: {text}");
    }
}

#[test]
fn an_exact_run_is_replayed_and_its_program_shown() {
    let bench = Bench::with("dataset", circle(50));
    let recipe = json!({ "precision": "exact-i8", "steps": 6, "segmentSteps": 3, "evaluate": { "every": 6 } });
    let path = write_task(&bench, &task(recipe));
    let run = |arguments: &[&str]| {
        let output = program(&bench, &path).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap(), message(&output), said)
    };
    assert_eq!(run(&["train"]).0, 0);
    let (code, text, _) = run(&["replay", "--segment", "2", "--interpreter"]);
    assert!(code == 0 && text.contains("is that of the trace, computed by the interpreter"), "{code}: {text}");

    let file = bench.output("trace.json");
    let mut changed: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let id = changed["programId"].as_str().unwrap().to_owned();
    changed["states"][2] = changed["states"][1].clone();
    let states: Vec<_> = serde_json::from_value(changed["states"].clone()).unwrap();
    changed["root"] = json!(trace::root(&states).unwrap());
    let other = bench.path().join("other.json");
    fs::write(&other, changed.to_string()).unwrap();
    let (code, text, _) = run(&["replay", "--segment", "2", "--trace", other.to_str().unwrap()]);
    assert!(code == 1 && text.contains("segment 2, steps 3 to 6"), "{code}: {text}");

    for (what, found) in [("show", "matmul"), ("range", "would fit"), ("bench", "ms a step")] {
        let (code, text, said) = run(&["program", what]);
        assert!(code == 0 && said.contains(found), "{what}: {code}: {text}{said}");
        assert!(text.contains(&id), "{text}");
    }
    let (code, text, _) = run(&["replay"]);
    assert!(code == 64 && text.contains("--segment"), "{code}: {text}");
}

#[test]
fn the_recipe_of_the_example_task_is_the_one_tried_here() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).unwrap();
    let manifest: Value = serde_saphyr::from_str(&read("examples/training-task.yaml")).unwrap();
    let example: Recipe = serde_json::from_value(manifest["spec"]["trainer"]["recipe"].clone()).unwrap();
    let task: Value = serde_json::from_str(&read("trainer-image/examples/train.json")).unwrap();
    let tried: Recipe = serde_json::from_value(task["recipe"].clone()).unwrap();
    // When checkpoints are written changes nothing in what is learnt.
    assert_eq!(
        Recipe { checkpoint: Default::default(), ..example },
        Recipe { checkpoint: Default::default(), ..tried }
    );
}

#[test]
fn the_digits_are_read() {
    let bench = Bench::new();
    let data = repository().join("examples/data");
    fs::copy(data.join("digits-train.csv.gz"), bench.path().join("in/dataset.csv.gz")).unwrap();
    fs::copy(data.join("digits-test.csv.gz"), bench.path().join("in/input.csv.gz")).unwrap();
    for task in ["train.json", "infer.json"] {
        let output = program(&bench, &repository().join("trainer-image/examples").join(task)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", message(&output));
        bench.use_model();
    }
    let predictions = fs::read_to_string(bench.output("predictions.csv")).unwrap();
    let labels = fs::read_to_string(data.join("digits-test-labels.csv")).unwrap();
    let second = |line: &str| line.split(',').nth(1).unwrap().to_owned();
    let pairs: Vec<(String, String)> =
        predictions.lines().map(second).zip(labels.lines().map(second)).skip(1).collect();
    let right = pairs.iter().filter(|(prediction, label)| prediction == label).count();
    assert_eq!(pairs.len(), 359);
    assert!(right as f64 >= 0.95 * 359.0, "{right} of 359 right");
}

#[test]
fn the_log_says_what_computes_and_a_broken_cuda_library_ends_a_gpu_task() {
    let bench = Bench::with("dataset", circle(50));
    let mut given = task(json!({}));
    given["resources"] = json!({ "gpu": { "count": 1 } });
    let path = write_task(&bench, &given);
    let libraries = bench.path().join("libraries");
    fs::create_dir(&libraries).unwrap();
    let search = format!("{}:{}", libraries.display(), std::env::var("LD_LIBRARY_PATH").unwrap_or_default());
    let run = |more: &[&str]| {
        let output = program(&bench, &path).env("LD_LIBRARY_PATH", &search).args(more).output().unwrap();
        (output.status.code().unwrap(), message(&output))
    };
    if !tch::Cuda::is_available() {
        let (code, text) = run(&[]);
        assert!(
            code == 0 && text.contains("computing on the CPU, although the task was given a GPU"),
            "{code}: {text}"
        );
    }
    fs::write(libraries.join("libtorch_cuda.so"), "no library").unwrap();
    let (code, text) = run(&[]);
    assert!(code == 69 && text.contains("libtorch_cuda.so") && text.contains("does not load"), "{code}: {text}");
    let (code, text) = run(&["--device", "cpu"]);
    assert!(code == 0 && text.contains("computing on the CPU"), "{code}: {text}");
}
