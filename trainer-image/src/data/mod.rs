//! Reading inputs: a table of finite numbers with optional labels, or bytes.
//!
//! The format is told from the file's first bytes, never from its name, so a
//! misnamed file still reads, and a foreign one is refused by its reader.

mod csv;
mod npy;
mod npz;
mod parquet;
mod table;
mod thrift;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::MultiGzDecoder;

pub use self::npy::write_records;
pub use self::table::{Labels, Table};
use crate::error::{Error, Result};
use crate::memory;

/// Which columns the reader takes.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Column with the class; none for inference.
    pub label: Option<&'a str>,
    /// Feature columns in order; all but the label where absent.
    pub features: Option<&'a [String]>,
    /// How many features the model takes, and where it says so.
    pub width: usize,
    pub width_from: &'a str,
}

/// Ends a long read when the process must stop or memory would not do.
#[derive(Clone, Copy)]
pub struct Guard<'a> {
    pub stop: &'a AtomicBool,
    /// Bytes that the container may use, where known.
    pub limit: Option<u64>,
}

impl Guard<'_> {
    /// `bytes` is what the data read so far occupies.
    pub fn check(&self, bytes: u64) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted("stopped by SIGTERM while reading the data".into()));
        }
        memory::require("the data alone", memory::RUNTIME + bytes, self.limit, "the data's size")
    }
}

/// Reads the rows of a file.
pub fn read_table(path: &Path, wanted: &Wanted, guard: Guard) -> Result<Table> {
    let magic = first_bytes(path)?;
    let table = match &magic[..] {
        [0x1f, 0x8b, ..] => csv::read(MultiGzDecoder::new(open(path)?), wanted, guard),
        [b'P', b'A', b'R', b'1', ..] => parquet::read(path, wanted, guard),
        [0x93, b'N', b'U', b'M', ..] => npy::read(open(path)?, wanted, guard),
        [b'P', b'K', 3, 4, ..] => npz::read(path, wanted, guard),
        _ => csv::read(open(path)?, wanted, guard),
    }?;
    if table.rows == 0 {
        return Err(Error::Data("the data has no rows".into()));
    }
    Ok(table)
}

/// Reads a file as bytes, unpacked if it is compressed with gzip.
pub fn read_bytes(path: &Path, guard: Guard) -> Result<Vec<u8>> {
    let mut reader: Box<dyn Read> = match &first_bytes(path)?[..] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(open(path)?)),
        _ => Box::new(open(path)?),
    };
    let mut bytes = Vec::new();
    loop {
        let read = (&mut reader).take(1 << 20).read_to_end(&mut bytes).map_err(unreadable)?;
        guard.check(bytes.len() as u64)?;
        if read == 0 {
            return Ok(bytes);
        }
    }
}

fn open(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).map_err(Error::io("read", path))?))
}

fn first_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut magic = Vec::new();
    open(path)?.take(4).read_to_end(&mut magic).map_err(Error::io("read", path))?;
    Ok(magic)
}

/// A read that fails inside a format is the data's fault: a torn or corrupt file.
fn unreadable(error: std::io::Error) -> Error {
    Error::Data(format!("the data cannot be unpacked: {error}"))
}
