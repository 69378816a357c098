//! The example of an image of one's own follows the same contract.
#![allow(clippy::unwrap_used)] // helpers of tests are not tests to clippy

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::Bench;
use serde_json::Value;

fn program(bench: &Bench, steps: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/custom-image/train.py");
    let mut command = Command::new("python3");
    command.arg(script).args(["--steps", steps]).env("FREEHOLD_ROOT", bench.path()).stderr(Stdio::piped());
    command
}

fn digits() -> Bench {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/digits-train.csv.gz");
    Bench::with("dataset", fs::read(data).unwrap())
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn it_learns_and_resumes_after_sigterm_as_if_undisturbed() {
    let undisturbed = digits();
    let output = program(&undisturbed, "120").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    let metrics: Value = serde_json::from_slice(&fs::read(undisturbed.output("metrics.json")).unwrap()).unwrap();
    assert!(metrics["metrics"]["trainingAccuracy"].as_f64().unwrap() > 0.85, "{metrics}");

    let bench = digits();
    let child = program(&bench, "120").spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bench.paths().progress.exists() {
        assert!(Instant::now() < deadline, "no progress within a minute");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", message(&output));
    // A newer one that was cut short must not hide it.
    fs::write(bench.path().join("checkpoints/step-000999.json"), "{\"step\": 999, \"weigh").unwrap();
    let output = program(&bench, "120").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    assert!(message(&output).contains("resumed from the checkpoint"), "{}", message(&output));
    let model = |bench: &Bench| fs::read(bench.output("model.json")).unwrap();
    assert_eq!(model(&bench), model(&undisturbed));
}

#[test]
fn it_says_what_is_wrong_and_that_a_retry_cannot_help() {
    let output = program(&Bench::with("dataset", "x,label\n1,a\nx,b\n"), "5").output().unwrap();
    assert_eq!(output.status.code(), Some(65));
    assert!(message(&output).contains("row 2, column `x`"), "{}", message(&output));
    for steps in ["many", "0"] {
        assert_eq!(program(&digits(), steps).output().unwrap().status.code(), Some(64));
    }
}

fn refused(data: &[u8], words: &str) {
    let output = program(&Bench::with("dataset", data), "5").output().unwrap();
    let text = message(&output);
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert!(text.contains(words) && !text.contains("Traceback") && text.lines().count() == 1, "{text}");
}

#[test]
fn data_that_cannot_be_read_is_told_in_a_sentence() {
    let whole = fs::read(digits().path().join("in/dataset")).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() - 6] ^= 0xff; // the checksum
    refused(&whole[..whole.len() / 2], "cannot be read");
    refused(&flipped, "cannot be read");
    refused(b"\x1f\x8bno gzip at all", "cannot be read");
    refused(b"x,label\n\xff\xfe,a\n", "UTF-8");
    refused(b"label,x\na,1\n\n,2\n", "row 2 has no label");
    refused(b"x,label\n1,a\n2\n", "row 2 has no label");
    refused(b"x,label\n1,a\n2,b,c\n", "row 2 has more fields");
    refused(b"label\na\n", "no column but `label`");
    refused(&[b"x,label\n".to_vec(), vec![b'1'; 200_000], b",a\n".to_vec()].concat(), "cannot be read");

    let output = program(&Bench::new(), "5").output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", message(&output));
    assert!(message(&output).contains("dataset") && !message(&output).contains("Traceback"));
}
