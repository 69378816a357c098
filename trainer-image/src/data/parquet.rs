//! Parquet with flat columns.

use std::fs::File;
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::record::Field;

use super::table::{Builder, Columns, bad_cell};
use super::thrift::Walk;
use super::{Guard, Table, Wanted};
use crate::error::{Error, Result};

/// The library panics on some malformed files. Whoever gave the file is told the same as of any other flaw in it.
pub(super) fn read(path: &Path, wanted: &Wanted, guard: Guard) -> Result<Table> {
    let rows = std::panic::catch_unwind(AssertUnwindSafe(|| rows(path, wanted, guard)));
    rows.unwrap_or_else(|_| Err(Error::Data("the data cannot be read as Parquet: it is torn or malformed".into())))
}

fn rows(path: &Path, wanted: &Wanted, guard: Guard) -> Result<Table> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    check_description(&file).map_err(|what| Error::Data(format!("the data cannot be read as Parquet: {what}")))?;
    let reader = SerializedFileReader::new(Pages(file)).map_err(explain)?;
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
            let value = cell(cells[*position]).map_err(|what| bad_cell(table.row(), name, &what))?;
            table.value(value as f32, name)?;
        }
        if let Some(position) = columns.label {
            match cells[position] {
                Field::Str(text) => table.label(text)?,
                other => {
                    let value = cell(other).map_err(|what| bad_cell(table.row(), &header[position], &what))?;
                    table.numeric_label(value)?;
                }
            }
        }
        table.end_row()?;
    }
    Ok(table.finish())
}

/// Bytes of a page once it is unpacked. Writers end a page at about a mebibyte; the library makes room for what a page's
/// header claims, two gibibytes if it says so, before it unpacks anything.
const LARGEST_PAGE: u64 = 64 << 20;
/// At the end of a file: the length of its description in bytes, and the format's name.
const FOOTER: u64 = 8;

/// The description at the file's end says nothing that cannot be.
fn check_description(file: &File) -> std::result::Result<(), String> {
    let length = Length::len(file);
    let footer = length.checked_sub(FOOTER).and_then(|at| file.get_bytes(at, 4).ok());
    let described = footer.map_or(0, |bytes| u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])));
    let start = length.checked_sub(FOOTER + described).ok_or("it is shorter than its description")?;
    Walk::new(reader(file, start)?, described).structure()
}

/// The header of the page there claims no more than the page can hold.
fn check_page(file: &File, start: u64) -> std::result::Result<(), String> {
    const UNPACKED: (u64, u64) = (2, 0);
    const VALUES_OF_A_DICTIONARY: (u64, u64) = (7, 1);
    let mut walk = Walk::new(reader(file, start)?, Length::len(file).saturating_sub(start));
    walk.structure()?;
    // Zigzag: a negative number is odd, and the library refuses it.
    let of =
        |field| walk.found.iter().find(|(outer, inner, _)| (*outer, *inner) == field).map(|(.., number)| number / 2);
    let unpacked = of(UNPACKED).ok_or("it does not say how long it is")?;
    if unpacked > LARGEST_PAGE {
        return Err(format!(
            "it says that it unpacks to {unpacked} bytes, more than {LARGEST_PAGE}: write smaller pages"
        ));
    }
    // Each value of a dictionary takes a byte or more; of other pages, one that is repeated takes none.
    match of(VALUES_OF_A_DICTIONARY).filter(|values| *values > unpacked) {
        Some(values) => Err(format!("it says that it is a dictionary of {values} values in {unpacked} bytes")),
        None => Ok(()),
    }
}

fn reader(file: &File, start: u64) -> std::result::Result<impl Read, String> {
    file.get_read(start).map_err(|error| error.to_string())
}

/// A file whose pages are looked at before the library reads them.
struct Pages(File);

impl Length for Pages {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for Pages {
    type T = <File as ChunkReader>::T;

    /// The library asks for a reader, not for bytes, where it expects the header of a page (or the footer).
    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        if start.saturating_add(FOOTER) < Length::len(self) {
            check_page(&self.0, start)
                .map_err(|what| ParquetError::General(format!("the page at byte {start} cannot be read: {what}")))?;
        }
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}

fn cell(field: &Field) -> std::result::Result<f64, String> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use rstest::rstest;

    use super::*;

    /// Inputs of the fuzzer's (a byte for its own use, then the file) that took two gibibytes, or seconds.
    #[rstest]
    #[case::dictionary(include_bytes!("../../../fuzz/regressions/parquet/dictionary-larger-than-memory"))]
    #[case::booleans(include_bytes!("../../../fuzz/regressions/parquet/list-of-booleans"))]
    fn what_a_file_claims_is_checked_before_it_is_believed(#[case] input: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        std::fs::write(&path, &input[1..]).unwrap();
        let said = check_description(&File::open(&path).unwrap()).unwrap_err();
        let wanted = Wanted { label: Some("label"), features: None, width: 2, width_from: "model.mlp.layers" };
        let error = read(&path, &wanted, Guard { stop: &AtomicBool::new(false), limit: None }).unwrap_err();
        assert_eq!(error.to_string(), format!("the data cannot be read as Parquet: {said}"));
    }

    #[rstest]
    #[case::largest(&[0x15, 0x00, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0x20, 0x5c, 0, 0], Some("2147483647 bytes"))]
    #[case::dictionary(&[0x15, 0x04, 0x15, 0x20, 0x15, 0x20, 0x4c, 0x15, 0x22, 0, 0], Some("17 values in 16"))]
    #[case::full_dictionary(&[0x15, 0x04, 0x15, 0x20, 0x15, 0x20, 0x4c, 0x15, 0x20, 0, 0], None)]
    #[case::repeated_rows(&[0x15, 0x00, 0x15, 0x20, 0x15, 0x20, 0x2c, 0x15, 0x22, 0, 0], None)]
    #[case::no_length(&[0x15, 0x00, 0], Some("how long"))]
    fn a_page_claims_no_more_than_it_can_hold(#[case] header: &[u8], #[case] why: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        std::fs::write(&path, header).unwrap();
        let said = check_page(&File::open(path).unwrap(), 0).err();
        assert_eq!(said.is_some(), why.is_some(), "{said:?}");
        assert!(why.is_none_or(|why| said.unwrap_or_default().contains(why)));
    }
}
