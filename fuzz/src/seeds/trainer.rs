use std::sync::Arc;

use freehold_trainer::checkpoint::{Checkpoint, History, Store};
use freehold_trainer::tensors::{self, Named, Stored};
use parquet::data_type::{ByteArrayType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

pub fn seeds(take: &mut impl FnMut(&'static str, &'static str, Vec<u8>)) {
    for (name, model) in [
        ("mlp", json!({ "mlp": { "layers": [64, 32, 10] } })),
        ("cnn", json!({ "cnn": { "input": [1, 8, 8], "channels": [8, 16], "classes": 10 } })),
        ("transformer", json!({ "transformer": { "width": 64, "heads": 4, "layers": 2, "context": 32 } })),
    ] {
        let task = json!({
            "kind": "TrainingTask", "inputs": [{ "name": "dataset", "sha256": "0".repeat(64) }],
            "resources": { "cpuMillis": 1000, "memory": 1 << 30, "gpu": { "count": 1 } },
            "recipe": {
                "model": model, "optimizer": { "adamw": { "learningRate": "0.003", "weightDecay": "0.1" } },
                "schedule": { "step": { "warmup": 10, "every": 50, "factor": "0.5" } }, "batchSize": 32, "steps": 2500,
                "seed": 7, "evaluate": { "every": 500, "metrics": ["loss", "accuracy"], "split": "20%" },
                "earlyStopping": { "metric": "loss", "patience": 5 },
                "checkpoint": { "every": "1m30s", "everySteps": 100, "keepLast": 2, "keepBest": 1 },
            },
        });
        take("recipe", name, task.to_string().into_bytes());
    }
    take("recipe", "infer", br#"{"kind":"InferenceTask","output":{"format":"npy"},"inputs":[]}"#.to_vec());
    files(take);
    tables(take);
}

fn files(take: &mut impl FnMut(&'static str, &'static str, Vec<u8>)) {
    let folder = tempfile::tempdir().expect("a folder");
    let named = || Named::from([("parameter/w".to_owned(), Stored::of_vector(&[1.0, 2.0]))]);
    let description = json!({
        "format": "freehold.dev/model/v1", "model": { "mlp": { "layers": [2, 2] } }, "precision": "f32",
        "classes": ["0", "1"], "features": ["a", "b"],
    });
    let path = folder.path().join("model");
    tensors::write(&path, &named(), description.to_string()).expect("a model");
    take("tensors", "model", [vec![0], std::fs::read(&path).expect("a model")].concat());
    let described = json!({ "__metadata__": { "freehold": description.to_string() } });
    take("tensors", "description", [&[1][..], described.to_string().as_bytes()].concat());
    let history = History { loss: Some(0.5), ..History::default() };
    let checkpoint = Checkpoint::new(7, "print", Some(0.9), &history, named());
    let mut store = Store::open(folder.path(), 1, 1, &mut |_| ()).expect("a folder");
    let path = store.save(&checkpoint).expect("a checkpoint");
    take("tensors", "checkpoint", [vec![0], std::fs::read(path).expect("a checkpoint")].concat());
}

fn tables(take: &mut impl FnMut(&'static str, &'static str, Vec<u8>)) {
    take("csv", "labels", b"\x82a,label,b\n1,x,2.5\n-3,y,4\n5e0,x,6\n".to_vec());
    take("csv", "quoted", b"\x02\"a\",b\r\n\" 1 \",2\r\n".to_vec());
    let mut gzip = vec![0x82];
    gzip.extend_from_slice(&[
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 0xff, 0x4b, 0xd4, 0x49, 0xd2, 0xc9, 0x49, 0x4c, 0x4a, 0xcd, 0xe1, 0x32, 0xd4,
    ]);
    take("csv", "torn-gzip", gzip);
    let array = |descr: &str, order: &str, shape: &str, values: &[u8]| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
    };
    let floats: Vec<u8> = [1.0_f64, 2.5, -3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let alone = array("<f8", "False", "(2, 2)", &floats);
    take("arrays", "floats", [&[2][..], &alone].concat());
    take("arrays", "labelled", [&[0x81][..], &array("<f8", "True", "(2, 2)", &[0; 32])].concat());
    take("arrays", "small", [&[2][..], &array(">i2", "False", "(1, 2)", &[0, 1, 0, 2])].concat());
    let labels = array("|i1", "False", "(2,)", &[0, 1]);
    take("arrays", "archive", [&[0xc2][..], &(alone.len() as u16).to_be_bytes(), &alone, &labels].concat());
    take("parquet", "labels", [&[0x82][..], &parquet()].concat());
}

fn parquet() -> Vec<u8> {
    let schema = "message rows { required double a; required binary label (UTF8); optional double b; }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).expect("a file");
    let mut group = writer.next_row_group().expect("a group");
    let mut column = group.next_column().expect("a column").expect("a column");
    column.typed::<DoubleType>().write_batch(&[1.0, -3.0], None, None).expect("values");
    column.close().expect("a column");
    let mut column = group.next_column().expect("a column").expect("a column");
    column.typed::<ByteArrayType>().write_batch(&["x".into(), "y".into()], None, None).expect("values");
    column.close().expect("a column");
    let mut column = group.next_column().expect("a column").expect("a column");
    column.typed::<DoubleType>().write_batch(&[2.5, 4.0], Some(&[1, 1]), None).expect("values");
    column.close().expect("a column");
    group.close().expect("a group");
    writer.into_inner().expect("a file")
}
