//! Every input format gives the same table, and every output format the same
//! predictions.
#![allow(clippy::unwrap_used)] // helpers of tests are not tests to clippy

mod common;

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{Bench, circle, task};
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use freehold_trainer::data::{Guard, Table, Wanted, read_table};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArrayType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rstest::rstest;
use serde_json::{Value, json};

const CSV: &str = "a,b,label\n1,2.5,0\n-3,4,1\n5,6,0\n";

fn read(name: &str, bytes: &[u8]) -> Table {
    let bench = Bench::with(name, bytes);
    let stop = AtomicBool::new(false);
    let wanted = Wanted { label: Some("label"), features: None, width: 2, width_from: "the test" };
    read_table(&bench.path().join("in").join(name), &wanted, Guard { stop: &stop, limit: None }).unwrap()
}

fn expect_rows(table: &Table) {
    assert_eq!(table.rows, 3);
    assert_eq!(table.values, [1.0, 2.5, -3.0, 4.0, 5.0, 6.0]);
    let labels = table.labels.as_ref().unwrap();
    assert_eq!(labels.names, ["0", "1"]);
    assert_eq!(labels.of_row, [0, 1, 0]);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn npy(descr: &str, column_major: bool, shape: &str, values: &[u8]) -> Vec<u8> {
    let order = if column_major { "True" } else { "False" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

fn packed<const N: usize>(values: &[f64], to: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| to(*value)).collect()
}

const ROWS: [f64; 9] = [1.0, 2.5, 0.0, -3.0, 4.0, 1.0, 5.0, 6.0, 0.0];
const COLUMNS: [f64; 9] = [1.0, -3.0, 5.0, 2.5, 4.0, 6.0, 0.0, 1.0, 0.0];

#[rstest]
#[case::plain(CSV.into())]
#[case::gzip(gzip(CSV.as_bytes()))]
#[case::windows(format!("\u{feff}{}", CSV.replace('\n', "\r\n")).into_bytes())]
#[case::spaces(CSV.replace(',', " , ").into_bytes())]
fn csv(#[case] bytes: Vec<u8>) {
    let table = read("data", &bytes);
    expect_rows(&table);
    assert_eq!(table.features.unwrap(), ["a", "b"]);
}

#[rstest]
#[case::f64(npy("<f8", false, "(3, 3)", &packed(&ROWS, f64::to_le_bytes)))]
#[case::f32(npy("<f4", false, "(3, 3)", &packed(&ROWS, |v| (v as f32).to_le_bytes())))]
#[case::big_endian(npy(">f8", false, "(3, 3)", &packed(&ROWS, f64::to_be_bytes)))]
#[case::column_major(npy("<f8", true, "(3, 3)", &packed(&COLUMNS, f64::to_le_bytes)))]
fn npy_with_the_label_in_the_last_column(#[case] bytes: Vec<u8>) {
    expect_rows(&read("data", &bytes));
}

#[test]
fn npz_with_an_array_of_features_and_one_of_labels() {
    let features = packed(&[1.0, 2.5, -3.0, 4.0, 5.0, 6.0], f64::to_le_bytes);
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, array) in
        [("images", npy("<f8", false, "(3, 1, 2)", &features)), ("label", npy("|u1", false, "(3,)", &[0, 1, 0]))]
    {
        zip.start_file(format!("{name}.npy"), stored).unwrap();
        zip.write_all(&array).unwrap();
    }
    expect_rows(&read("data", &zip.finish().unwrap().into_inner()));
}

#[test]
fn signed_labels_of_every_width_are_numbers() {
    for (descr, labels) in [("|i1", vec![0, 1, 0]), ("<i2", vec![0, 0, 1, 0, 0, 0]), (">i2", vec![0, 0, 0, 1, 0, 0])] {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let features = packed(&[1.0, 2.5, -3.0, 4.0, 5.0, 6.0], f64::to_le_bytes);
        for (name, array) in
            [("x", npy("<f8", false, "(3, 2)", &features)), ("label", npy(descr, false, "(3,)", &labels))]
        {
            zip.start_file(format!("{name}.npy"), zip::write::FileOptions::default()).unwrap();
            zip.write_all(&array).unwrap();
        }
        expect_rows(&read("data", &zip.finish().unwrap().into_inner()));
    }
}

#[rstest]
#[case::plain(Compression::UNCOMPRESSED)]
#[case::snappy(Compression::SNAPPY)]
#[case::gzip(Compression::GZIP(GzipLevel::default()))]
#[case::zstd(Compression::ZSTD(ZstdLevel::default()))]
fn parquet_with_text_labels(#[case] compression: Compression) {
    let schema = "message rows { required double a; required binary label (UTF8); required double b; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let write_numbers = |column: &mut parquet::file::writer::SerializedColumnWriter, values: &[f64]| {
        column.typed::<DoubleType>().write_batch(values, None, None).unwrap();
    };
    let mut column = group.next_column().unwrap().unwrap();
    write_numbers(&mut column, &[1.0, -3.0, 5.0]);
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&["0".into(), "1".into(), "0".into()], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    write_numbers(&mut column, &[2.5, 4.0, 6.0]);
    column.close().unwrap();
    group.close().unwrap();
    let table = read("data", &writer.into_inner().unwrap());
    expect_rows(&table);
    assert_eq!(table.features.unwrap(), ["a", "b"]);
}

fn trained() -> Bench {
    let mut bench = Bench::with("dataset", circle(200));
    bench.train(&task(json!({ "steps": 300 }))).unwrap();
    bench.use_model();
    // The middle of the circle and a corner; columns in another order, one more, no label.
    bench.input("input", "note,y,x\n7,0,0\n7,0.95,-0.95\n");
    bench
}

#[test]
fn predictions_as_csv() {
    let mut bench = trained();
    assert_eq!(bench.infer("csv").unwrap().rows, 2);
    let text = fs::read_to_string(bench.output("predictions.csv")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "row,prediction,probability");
    assert!(lines[1].starts_with("1,in,0.") || lines[1].starts_with("1,in,1."), "{text}");
    assert!(lines[2].starts_with("2,out,"), "{text}");
}

#[test]
fn predictions_as_jsonl() {
    let mut bench = trained();
    bench.infer("jsonl").unwrap();
    let text = fs::read_to_string(bench.output("predictions.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[0]["row"].as_u64(), lines[0]["prediction"].as_str()), (Some(1), Some("in")));
    let probability = lines[1]["probability"].as_f64().unwrap();
    assert!(probability > 0.5 && probability <= 1.0, "{text}");
}

#[test]
fn predictions_as_npy() {
    let mut bench = trained();
    bench.infer("npy").unwrap();
    let bytes = fs::read(bench.output("predictions.npy")).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..start]);
    assert!(header.contains("('row', '<u8'), ('prediction', '<U3'), ('probability', '<f8')"), "{header}");
    assert_eq!(start % 64, 0);
    // A record: 8 bytes of row, 3 letters of 4 bytes, 8 bytes of probability.
    assert_eq!(bytes.len() - start, 2 * (8 + 12 + 8));
    assert_eq!(&bytes[start + 8..start + 16], b"i\0\0\0n\0\0\0");
}

#[test]
fn a_transformer_continues_lines() {
    let recipe = json!({
        "model": { "transformer": { "width": 32, "heads": 2, "layers": 1, "context": 8 } },
        "steps": 300,
    });
    let mut bench = Bench::with("dataset", "abcdef\nuvwxyz\n".repeat(60));
    bench.train(&task(recipe)).unwrap();
    bench.use_model();
    bench.input("input", "abc\nuv\n");
    bench.infer("jsonl").unwrap();
    let text = fs::read_to_string(bench.output("predictions.jsonl")).unwrap();
    assert!(text.contains(r#""row":1,"prediction":"def""#), "{text}");
    assert!(text.contains(r#""row":2,"prediction":"wxyz""#), "{text}");
    assert_eq!(bench.infer("npy").unwrap_err().exit_code(), 64);
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, array) in arrays {
        zip.start_file(format!("{name}.npy"), zip::write::FileOptions::default()).unwrap();
        zip.write_all(array).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn an_npz_that_trained_a_model_is_predicted_whatever_its_labels_are_called() {
    let points: Vec<f64> = (0..20).map(|row| f64::from(row % 7) - 3.0).collect();
    let points = npy("<f8", false, "(10, 2)", &packed(&points, f64::to_le_bytes));
    let classes = npy("|u1", false, "(10,)", &[0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
    let both = npz(&[("points", points.clone()), ("kind", classes.clone())]);
    let mut bench = Bench::with("dataset", &both);
    bench.train(&task(json!({ "data": { "label": "kind" } }))).unwrap();
    bench.use_model();
    bench.input("input", &both);
    assert_eq!(bench.infer("csv").unwrap().rows, 10);

    bench.input("input", npz(&[("points", points.clone()), ("others", points), ("kind", classes)]));
    let error = bench.infer("csv").unwrap_err();
    assert_eq!(error.exit_code(), 65);
    let message = error.to_string();
    assert!(message.contains("`others`") && message.contains("2 numbers a row"), "{message}");
}

#[test]
fn inference_tells_its_progress_once_a_second() {
    let mut bench = trained();
    bench.input("input", circle(5000));
    let before = bench.progress().len();
    bench.infer("csv").unwrap();
    let lines = bench.progress().split_off(before);
    let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1024, 5000]);
    bench.tick = jiff::SignedDuration::from_secs(1);
    bench.infer("csv").unwrap();
    assert_eq!(bench.progress().len(), before + 2 + 5);
}
