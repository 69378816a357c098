//! Parquet with flat columns.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
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
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let reader = SerializedFileReader::new(file).map_err(explain)?;
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
