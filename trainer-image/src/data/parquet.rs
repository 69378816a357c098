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
const LARGEST_PAGE: u32 = 64 << 20;
/// Bytes at the end of a file that are no page: the length of the metadata, and the format's name.
const FOOTER: u64 = 8;

/// A file whose pages claim no more than they can hold, and that can be read to its end but not beyond. The library passes
/// over what it does not know by reading it, and takes an end for more: a list of two thousand million entries would last for hours.
struct Ending(File);

impl Ending {
    /// The library asks for a reader, not for bytes, where it expects the header of a page (or the footer).
    fn check_page(&self, start: u64) -> parquet::errors::Result<()> {
        let mut header = Vec::new();
        self.0.get_read(start)?.take(Claim::LONGEST).read_to_end(&mut header)?;
        judge(&header).map_err(|what| ParquetError::General(format!("the page at byte {start} {what}")))
    }
}

fn judge(header: &[u8]) -> std::result::Result<(), String> {
    let Claim { unpacked, dictionary } = Claim::of(header).ok_or("has no header: write the file anew")?;
    if unpacked > LARGEST_PAGE {
        return Err(format!("says that it unpacks to {unpacked} bytes, more than {LARGEST_PAGE}: write smaller pages"));
    }
    // Each value of a dictionary takes a byte or more; of other pages, one that is repeated takes none.
    match dictionary.filter(|values| *values > unpacked) {
        Some(values) => {
            Err(format!("says that it is a dictionary of {values} values in {unpacked} bytes: write the file anew"))
        }
        None => Ok(()),
    }
}

/// What a page's header makes the library set aside.
#[derive(Debug, PartialEq)]
struct Claim {
    /// Bytes.
    unpacked: u32,
    /// Values, where the page is a dictionary.
    dictionary: Option<u32>,
}

impl Claim {
    /// Bytes up to the count of values: five numbers of up to five bytes each, a byte before each, and one for the structure.
    const LONGEST: u64 = 5 * 6 + 1;

    /// Reads Thrift's compact form: a field is a byte with its distance from the last one and its type, then the value. A
    /// page's fields are its type, sizes unpacked and packed, perhaps a checksum, and a structure by the page's type,
    /// which begins with the count of its values.
    fn of(header: &[u8]) -> Option<Self> {
        const NUMBER: u8 = 5;
        const STRUCTURE: u8 = 12;
        const DICTIONARY: u8 = 7;
        let mut bytes = header.iter();
        let (mut id, mut unpacked) = (0, None);
        loop {
            let field = *bytes.next()?;
            let distance = field >> 4;
            id += distance;
            match field & 0x0f {
                _ if distance == 0 => return None,
                NUMBER if id <= 4 => {
                    let value = number(&mut bytes)?;
                    unpacked = if id == 2 { Some(value) } else { unpacked };
                }
                STRUCTURE if id != DICTIONARY => return Some(Self { unpacked: unpacked?, dictionary: None }),
                STRUCTURE => {
                    bytes.next().filter(|field| **field == 1 << 4 | NUMBER)?;
                    return Some(Self { unpacked: unpacked?, dictionary: Some(number(&mut bytes)?) });
                }
                _ => return None,
            }
        }
    }
}

/// Seven bits a byte, the lowest first, as a zigzag number: a negative one is odd, and no size.
fn number(bytes: &mut std::slice::Iter<u8>) -> Option<u32> {
    let mut zigzag = 0_u64;
    for place in 0..5 {
        let byte = *bytes.next()?;
        zigzag |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return u32::try_from(zigzag / 2).ok().filter(|_| zigzag.is_multiple_of(2));
        }
    }
    None
}

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
        if start.saturating_add(FOOTER) < Length::len(self) {
            self.check_page(start)?;
        }
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

    use super::*;

    #[test]
    fn a_dictionary_larger_than_its_page_is_refused_before_it_is_unpacked() {
        // An input of the fuzzer's: a byte for its own use, then the file.
        let found = &include_bytes!("../../../fuzz/regressions/parquet/dictionary-larger-than-memory")[1..];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        std::fs::write(&path, found).unwrap();
        let wanted = Wanted { label: Some("label"), features: None, width: 2, width_from: "model.mlp.layers" };
        let said = read(&path, &wanted, Guard { stop: &AtomicBool::new(false), limit: None }).unwrap_err().to_string();
        assert!(said.contains("the page at byte 4 has no header"), "{said}");
    }

    #[test]
    fn a_page_claims_no_more_than_it_can_hold() {
        let largest = [0x15, 0x00, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0x20, 0x5c];
        assert!(judge(&largest).unwrap_err().contains("2147483647 bytes"));
        assert!(
            judge(&[0x15, 0x04, 0x15, 0x20, 0x15, 0x20, 0x4c, 0x15, 0x22]).unwrap_err().contains("17 values in 16")
        );
        assert_eq!(judge(&[0x15, 0x04, 0x15, 0x20, 0x15, 0x20, 0x4c, 0x15, 0x20]), Ok(()));
        assert_eq!(judge(&[0x15, 0x00, 0x15, 0x20, 0x15, 0x20, 0x2c, 0x15, 0x22]), Ok(()), "rows may be repeated");
    }

    #[test]
    fn a_claim_is_read_wherever_writers_put_it() {
        let claim = |unpacked, dictionary| Some(Claim { unpacked, dictionary });
        assert_eq!(Claim::of(&[0x15, 0x04, 0x15, 0x20, 0x15, 0x20, 0x4c, 0x15, 0x06]), claim(16, Some(3)));
        assert_eq!(Claim::of(&[0x15, 0x00, 0x15, 0x20, 0x15, 0x20, 0x15, 0x02, 0x1c, 0x15, 0x06]), claim(16, None));
        for torn in [
            &[][..],
            &[0x15],
            &[0x15, 0x80, 0x80, 0x80, 0x80, 0x80, 0x15, 0],
            &[0x15, 0x04, 0x15, 0x21, 0x15, 0x20, 0x4c, 0x15, 0x06],
            &[0x15, 0x04, 0x25, 0x20, 0x4c, 0x15, 0x06],
            &[0x15, 0x04, 0x15, 0x20, 0x05, 0x0a, 0x15, 0x20],
        ] {
            assert_eq!(Claim::of(torn), None, "{torn:?}");
        }
    }
}
