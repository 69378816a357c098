//! Parquet with flat columns.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::panic::AssertUnwindSafe;
use std::path::Path;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::record::Field;

use super::table::{Builder, Columns, bad_cell};
use super::{Guard, Table, Wanted};
use crate::error::{Error, Result};

/// The library panics on some malformed files. Whoever gave the file is told the same as of any other flaw in it.
pub(super) fn read(path: &Path, wanted: &Wanted, guard: Guard) -> Result<Table> {
    let rows = std::panic::catch_unwind(AssertUnwindSafe(|| rows(path, wanted, guard)));
    rows.unwrap_or_else(|_| Err(Error::Data("the data cannot be read as Parquet: it is torn or malformed".into())))
}

fn rows(path: &Path, wanted: &Wanted, guard: Guard) -> Result<Table> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let reader = SerializedFileReader::new(Ending(file)).map_err(explain)?;
    let schema = reader.metadata().file_metadata().schema();
    let header: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let columns = Columns::select(&header, wanted)?;
    let names = columns.features.iter().map(|position| header[*position].clone()).collect();
    let mut table = Builder::new(Some(names), wanted, guard);
    for row in reader.get_row_iter(None).map_err(explain)? {
        let row = row.map_err(explain)?;
        let cells: Vec<&Field> = row.get_column_iter().map(|(_, field)| field).collect();
        for position in &columns.features {
            let name = &header[*position];
            let value = number(cells[*position]).map_err(|what| bad_cell(table.row(), name, &what))?;
            table.value(value as f32, name)?;
        }
        if let Some(position) = columns.label {
            match cells[position] {
                Field::Str(text) => table.label(text)?,
                other => {
                    let value = number(other).map_err(|what| bad_cell(table.row(), &header[position], &what))?;
                    table.numeric_label(value)?;
                }
            }
        }
        table.end_row()?;
    }
    Ok(table.finish())
}

/// A file that can be read to its end but not beyond. The library passes over what it does not
/// know by reading it, and takes an end for more: a list that claims two thousand million entries would last for hours.
struct Ending(File);

struct Once<T> {
    reader: T,
    ended: bool,
}

impl Length for Ending {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for Ending {
    type T = Once<<File as ChunkReader>::T>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(Once { reader: self.0.get_read(start)?, ended: false })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}

impl<T: Read> Read for Once<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let ends = read == 0 && !buffer.is_empty();
        if ends && self.ended {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.ended |= ends;
        Ok(read)
    }
}

fn number(field: &Field) -> std::result::Result<f64, String> {
    Ok(match field {
        Field::Bool(value) => f64::from(u8::from(*value)),
        Field::Byte(value) => f64::from(*value),
        Field::Short(value) => f64::from(*value),
        Field::Int(value) => f64::from(*value),
        Field::Long(value) => *value as f64,
        Field::UByte(value) => f64::from(*value),
        Field::UShort(value) => f64::from(*value),
        Field::UInt(value) => f64::from(*value),
        Field::ULong(value) => *value as f64,
        Field::Float16(value) => value.to_f64(),
        Field::Float(value) => f64::from(*value),
        Field::Double(value) => *value,
        Field::Null => return Err("is empty".into()),
        other => return Err(format!("is `{other}`, not a number")),
    })
}

fn explain(error: ParquetError) -> Error {
    Error::Data(format!("the data cannot be read as Parquet: {error}"))
}
