//! CSV with a header line.

use std::io::Read;

use csv::{ErrorKind, ReaderBuilder, StringRecord, Trim};

use super::table::{Builder, Columns, bad_cell};
use super::{Guard, Table, Wanted};
use crate::error::{Error, Result};

pub(super) fn read(source: impl Read, wanted: &Wanted, guard: Guard) -> Result<Table> {
    let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(source);
    let header = header_of(reader.headers().map_err(explain)?);
    let columns = Columns::select(&header, wanted)?;
    let names = columns.features.iter().map(|position| header[*position].clone()).collect();
    let mut table = Builder::new(Some(names), wanted, guard);
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(explain)? {
        for position in &columns.features {
            let cell = &record[*position];
            let value = number(cell).ok_or_else(|| bad_cell(table.row(), &header[*position], &describe(cell)))?;
            table.value(value, &header[*position])?;
        }
        if let Some(position) = columns.label {
            table.label(&record[position])?;
        }
        table.end_row()?;
    }
    Ok(table.finish())
}

/// Column names; a byte order mark is the editor's, not the first column's.
fn header_of(record: &StringRecord) -> Vec<String> {
    record.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect()
}

/// A number; `nan` and `inf` pass here and are refused with their own message.
fn number(cell: &str) -> Option<f32> {
    cell.parse().ok()
}

fn describe(cell: &str) -> String {
    const SHOWN: usize = 40;
    match cell.char_indices().nth(SHOWN) {
        _ if cell.is_empty() => "is empty".into(),
        Some((end, _)) => format!("is `{}…`, not a number", &cell[..end]),
        None => format!("is `{cell}`, not a number"),
    }
}

fn explain(error: csv::Error) -> Error {
    let line = error.position().map_or(1, |position| position.line());
    Error::Data(match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("line {line} has {len} fields, but the header line has {expected_len}")
        }
        ErrorKind::Utf8 { .. } => {
            format!("line {line} is not text in UTF-8: formats are CSV (also .gz), NPY, NPZ and Parquet")
        }
        _ => format!("the data cannot be read as CSV, line {line}: {error}"),
    })
}
