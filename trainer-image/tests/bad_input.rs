//! What is wrong with a task or its data is said with field, row and column,
//! and with an exit code that says whether a retry can help.
#![allow(clippy::unwrap_used)] // helpers of tests are not tests to clippy

mod common;

use common::{Bench, circle, task};
use rstest::rstest;
use serde_json::{Value, json};

const DATA: u8 = 65;
const USAGE: u8 = 64;

fn fails(data: impl AsRef<[u8]>, task: &Value, code: u8, words: &[&str]) {
    let error = Bench::with("dataset", data).train(task).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.exit_code(), code, "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[rstest]
#[case::no_label("x,y\n1,2\n", &["column `label`", "`x`, `y`", "recipe.data.label"])]
#[case::no_rows("x,y,label\n", &["no rows"])]
#[case::empty("", &["column `label`", "no columns"])]
#[case::too_many_columns("x,y,z,label\n1,2,3,a\n", &["3 feature columns", "asks for 2"])]
#[case::text("x,y,label\n1,2,a\n1,two,b\n", &["row 2", "column `y`", "`two`, not a number"])]
#[case::empty_cell("x,y,label\n1,,a\n", &["row 1", "column `y`", "is empty"])]
#[case::nan("x,y,label\n1,2,a\n3,NaN,b\n", &["row 2", "column `y`", "NaN"])]
#[case::infinite("x,y,label\n1e99,2,a\n", &["row 1", "column `x`", "not a finite number"])]
#[case::short_line("x,y,label\n1,2,a\n1,2\n", &["line 3", "2 fields", "has 3"])]
#[case::empty_label("x,y,label\n1,2,\n", &["row 1", "column `label`", "is empty"])]
#[case::too_many_classes("x,y,label\n1,2,a\n1,2,b\n1,2,c\n", &["3 distinct labels", "2 outputs"])]
#[case::too_few_classes("x,y,label\n1,2,a\n1,2,a\n", &["1 distinct labels", "2 outputs"])]
#[case::number_beyond("x,y,label\n1,2,0\n1,2,1\n1,2,2\n", &["3 distinct labels", "2 outputs"])]
#[case::twice("x,x,label\n1,2,a\n", &["two columns are called `x`"])]
#[case::torn_gzip([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1], &["line 1"])]
#[case::torn_npy(b"\x93NUMPY\x01\x00\x10", &["cannot be unpacked"])]
#[case::torn_parquet(b"PAR1 and then nothing", &["Parquet"])]
#[case::parquet_of_negative_length(&include_bytes!("../../fuzz/regressions/parquet/negative-length")[1..], &["Parquet"])]
#[case::torn_npz(b"PK\x03\x04 and then nothing", &["NPZ"])]
#[case::binary([0xff, 0xfe, 0xff, b'\n', 0xff], &["UTF-8"])]
fn bad_data(#[case] data: impl AsRef<[u8]>, #[case] words: &[&str]) {
    fails(data, &task(json!({})), DATA, words);
}

#[test]
fn a_short_npy_array_is_not_read_past_its_end() {
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 3), }\n";
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    npy.extend([0; 40]);
    fails(npy, &task(json!({})), DATA, &["holds 40 bytes", "means 12000"]);
}

#[test]
fn a_named_column_that_is_missing() {
    let recipe = json!({ "data": { "label": "kind", "features": ["x", "z"] } });
    fails("x,y,kind\n1,2,a\n", &task(recipe), DATA, &["column `z`", "`x`, `y`, `kind`"]);
}

#[test]
fn a_text_that_is_too_short() {
    let recipe = json!({ "model": { "transformer": { "width": 8, "heads": 1, "layers": 1, "context": 64 } } });
    fails("short", &task(recipe), DATA, &["5 bytes", "context of 64 needs at least 129"]);
}

#[rstest]
#[case::optimizer(json!({ "optimizer": { "rmsprop": {} } }), &["recipe.optimizer", "rmsprop", "`sgd`, `adam`, `adamw`"])]
#[case::schedule(json!({ "schedule": { "sawtooth": {} } }), &["recipe.schedule", "sawtooth", "`cosine`"])]
#[case::model(json!({ "model": { "rnn": {} } }), &["recipe.model", "rnn", "`transformer`"])]
#[case::field(json!({ "batchsize": 3 }), &["recipe", "batchsize"])]
#[case::float(json!({ "optimizer": { "sgd": { "learningRate": 0.1 } } }), &["learningRate", "string"])]
#[case::decimal(json!({ "optimizer": { "sgd": { "learningRate": "1e-3" } } }), &["learningRate", "`1e-3`", "0.003"])]
#[case::percent(json!({ "evaluate": { "every": 5, "split": "0.1" } }), &["split", "`0.1`", "10%"])]
#[case::duration(json!({ "checkpoint": { "every": "5 minutes" } }), &["every", "`5 minutes`", "5m"])]
#[case::rate(json!({ "optimizer": { "sgd": { "learningRate": "0" } } }), &["learningRate", "above 0"])]
#[case::beta(json!({ "optimizer": { "adam": { "learningRate": "0.1", "beta2": "1" } } }), &["beta2", "below 1"])]
#[case::layers(json!({ "model": { "mlp": { "layers": [2] } } }), &["model.mlp.layers", "[2]"])]
#[case::kernel(json!({ "model": { "cnn": { "input": [1, 2, 1], "channels": [2], "kernel": 4, "classes": 2 } } }), &["kernel", "odd"])]
#[case::heads(json!({ "model": { "transformer": { "width": 8, "heads": 3, "layers": 1, "context": 8 } } }), &["heads is 3", "divide"])]
#[case::batch(json!({ "batchSize": 0 }), &["batchSize", "at least 1"])]
#[case::early(json!({ "earlyStopping": { "metric": "loss", "patience": 2 } }), &["earlyStopping needs evaluate"])]
#[case::diverged(json!({ "optimizer": { "sgd": { "learningRate": "100000000" } } }), &["diverged", "learningRate"])]
fn bad_recipes(#[case] changes: Value, #[case] words: &[&str]) {
    fails(circle(50), &task(changes), USAGE, words);
}

#[test]
fn too_little_memory_is_told_before_training() {
    let mut task = task(json!({ "model": { "mlp": { "layers": [2, 60000, 60000, 2] } } }));
    task["resources"] = json!({ "cpuMillis": 1000, "memory": 1_u64 << 30 });
    fails(circle(50), &task, USAGE, &["too little memory", "GiB", "resources.memory"]);
}

#[test]
fn missing_inputs_are_named() {
    let error = Bench::new().train(&task(json!({}))).unwrap_err();
    assert_eq!(error.exit_code(), USAGE);
    assert!(error.to_string().contains("input `dataset` is missing"), "{error}");
}

#[test]
fn inference_refuses_what_the_model_does_not_know() {
    let mut bench = Bench::with("dataset", circle(50));
    bench.train(&task(json!({}))).unwrap();
    bench.use_model();
    bench.input("input", "x,z\n1,2\n");
    let error = bench.infer("csv").unwrap_err();
    assert_eq!(error.exit_code(), DATA);
    assert!(error.to_string().contains("column `y`"), "{error}");

    bench.input("model", "no model");
    let error = bench.infer("csv").unwrap_err();
    assert_eq!(error.exit_code(), DATA);
    assert!(error.to_string().contains("cannot be used"), "{error}");
}

#[test]
fn too_little_memory_is_told_before_inference() {
    // The input alone fits: what the middle layer puts out for a batch does not.
    let mut bench = Bench::with("dataset", circle(2000));
    bench.train(&task(json!({ "model": { "mlp": { "layers": [2, 60000, 2] } }, "steps": 1 }))).unwrap();
    bench.use_model();
    bench.input("input", circle(2000));
    let error = bench.infer_within(300 << 20).unwrap_err();
    assert_eq!(error.exit_code(), USAGE);
    let message = error.to_string();
    assert!(message.contains("too little memory: inference") && message.contains("resources.memory"), "{message}");
    assert!(bench.infer_within(2 << 30).is_ok());
}

/// The loss before the only update is finite, and no evaluation comes after it.
#[test]
fn weights_that_are_no_numbers_are_not_delivered() {
    let rate = format!("1{}", "0".repeat(60));
    let mut bench = Bench::with("dataset", circle(50));
    let recipe = json!({ "steps": 1, "optimizer": { "sgd": { "learningRate": rate } } });
    let error = bench.train(&task(recipe)).unwrap_err();
    assert_eq!(error.exit_code(), USAGE);
    let message = error.to_string();
    assert!(message.contains("step 1") && message.contains("optimizer.learningRate"), "{message}");
    assert!(!bench.output("model.safetensors").exists());
}

#[test]
fn the_label_is_no_feature() {
    let recipe = json!({ "data": { "label": "kind", "features": ["x", "kind"] } });
    fails("x,y,kind\n1,2,1\n", &task(recipe), USAGE, &["recipe.data.features", "`kind`", "recipe.data.label"]);
}
