//! What a trainer finds in its container: the task, checkpoints and models, tables of data.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use freehold_trainer::checkpoint::Checkpoint;
use freehold_trainer::data::{Guard, Table, Wanted, read_table};
use freehold_trainer::description::Description;
use freehold_trainer::memory::{self, Side};
use freehold_trainer::recipe::Recipe;
use freehold_trainer::task::Task;
use freehold_trainer::{Error, schedule, tensors as files};
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::bytes::Bytes;

/// Bytes that a container of the smallest size may use.
const LIMIT: u64 = 256 << 20;

/// Bytes of a table: a few hundred of a file can say the same row a thousand million times, which is neither wrong nor news.
const TABLE: u64 = memory::RUNTIME + (16 << 20);

/// A recipe that passes its checks can be reckoned with, and is printed as it is read.
pub fn recipe(data: &[u8]) {
    let task = match Task::parse(data) {
        Ok(task) => task,
        Err(error) => return told(&error),
    };
    let recipe = match task.recipe() {
        Ok(recipe) => recipe,
        Err(error) => return told(&error),
    };
    let printed = serde_json::to_vec(recipe).expect("a recipe is printed");
    let again: Recipe = serde_json::from_slice(&printed).expect("what was printed is read");
    assert_eq!(&again, recipe);
    for (side, rows) in [(Side::Cpu, 1_000_000), (Side::Gpu, 1_000_000)] {
        let bytes = memory::RUNTIME.saturating_add(memory::training(recipe, 1 << 32, rows, side));
        let _ = memory::require("training", bytes, Some(LIMIT), "batchSize");
    }
    let _ = memory::inference(&recipe.model, 4096);
    let steps = u64::from(recipe.steps);
    for step in [0, 1, steps / 2, steps.saturating_sub(1)] {
        let rate = schedule::rate(&recipe.schedule, recipe.optimizer.learning_rate(), step, steps);
        // Too large a one ends the run in words of its own.
        assert!(rate >= 0.0, "the learning rate of step {step} is {rate}");
    }
    assert!(recipe.checkpoint.every().as_secs() <= i64::MAX as u64, "a clock can be moved by it");
    assert!(recipe.model.classes() > 0 && recipe.model.features() != Some(0));
}

/// A failure that no other run can mend says so, in words.
fn told(error: &Error) {
    assert!([64, 65].contains(&error.exit_code()), "exit code {} for {error}", error.exit_code());
    assert!(!error.to_string().is_empty());
}

/// A file whose tensors and metadata are read as a whole, or not at all.
pub fn tensors(data: &[u8]) {
    let data = &Bytes(data).safetensors()[..];
    let path = written(data);
    let metadata = files::read_metadata(&path);
    if let Ok((named, found)) = files::read(&path) {
        assert_eq!(metadata.as_ref().ok(), Some(&found), "the header alone says the same");
        let held: usize = named.values().map(|stored| stored.bytes.len()).sum();
        assert!(held <= data.len());
        for stored in named.values() {
            let count = stored.shape.iter().try_fold(1_usize, |product, edge| product.checked_mul(*edge));
            assert_eq!(count.and_then(|count| count.checked_mul(4)), Some(stored.bytes.len()), "{:?}", stored.shape);
        }
    }
    if let Ok(Some(text)) = metadata
        && let Ok(description) = Description::parse(&text)
    {
        let _ = memory::inference(&description.model, 4096);
        assert!(description.model.classes() > 0);
    }
    if let Ok(checkpoint) = Checkpoint::read(&path) {
        let _ = (checkpoint.header.step, checkpoint.tensors.len());
    }
}

/// The file that is read, in memory where `TMPDIR` is.
fn written(data: &[u8]) -> PathBuf {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));
    let name = format!("{:?}", std::thread::current().id());
    let path = FOLDER.path().join(name.replace(['(', ')'], "-"));
    std::fs::write(&path, data).expect("a file");
    path
}

fn table(path: &Path, wanted: &Wanted) {
    let stop = AtomicBool::new(false);
    match read_table(path, wanted, Guard { stop: &stop, limit: Some(TABLE) }) {
        Ok(table) => whole(&table, wanted),
        Err(error) => told(&error),
    }
}

/// Every row has all its values and, where one is wanted, its label.
fn whole(table: &Table, wanted: &Wanted) {
    assert!(table.rows > 0);
    assert_eq!(table.values.len(), table.rows * wanted.width);
    assert!(table.values.iter().all(|value| value.is_finite()));
    assert_eq!(table.labels.is_some(), wanted.label.is_some());
    if let Some(labels) = &table.labels {
        assert_eq!(labels.of_row.len(), table.rows);
        assert!(labels.of_row.iter().all(|label| (*label as usize) < labels.names.len()));
    }
}

/// The first byte says how many features are wanted, and whether a label is.
fn wanted(shape: u8) -> Wanted<'static> {
    let label = (shape & 0x80 != 0).then_some("label");
    Wanted { label, features: None, width: usize::from(shape & 0x0f).max(1), width_from: "model.mlp.layers" }
}

pub fn csv(data: &[u8]) {
    let Some((shape, file)) = data.split_first() else { return };
    // Whatever else it looks like, other formats have targets of their own.
    if file.starts_with(b"PAR1") || file.starts_with(b"PK\x03\x04") || file.starts_with(b"\x93NUM") {
        return;
    }
    table(&written(file), &wanted(*shape));
}

/// An array alone, or two in an archive: a checksum would keep a fuzzer out of it.
pub fn arrays(data: &[u8]) {
    let Some((shape, file)) = data.split_first() else { return };
    if shape & 0x40 == 0 {
        return if file.starts_with(b"\x93NUM") {
            table(&written(file), &wanted(*shape))
        };
    }
    let mut file = Bytes(file);
    let length = file.u16();
    let (first, second) = (file.take(length.into()), file.0);
    table(&written(&archive(&[("x.npy", first), ("label.npy", second)])), &wanted(*shape));
}

pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let stored = FileOptions::default().compression_method(CompressionMethod::Stored);
        archive.start_file(*name, stored).expect("an archive");
        archive.write_all(bytes).expect("an archive");
    }
    archive.finish().expect("an archive").into_inner()
}

pub fn parquet(data: &[u8]) {
    let Some((shape, file)) = data.split_first() else { return };
    if file.starts_with(b"PAR1") {
        table(&written(file), &wanted(*shape));
    }
}
