//! NumPy's NPY: one array of numbers.
//!
//! tch has a reader too, but it hands the bytes to libtorch without comparing
//! their number with the shape, so a truncated file would be read past its end.

use std::io::{Read, Write};

use super::table::{Builder, check_width};
use super::{Guard, Table, Wanted, unreadable};
use crate::error::{Error, Result};

/// An array, its values in C order as f64 (exact for every kind up to 32 bits).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    Bool,
    Signed(usize),
    Unsigned(usize),
    Float(usize),
}

#[derive(Clone, Debug, PartialEq)]
struct Header {
    element: Element,
    big_endian: bool,
    column_major: bool,
    shape: Vec<usize>,
}

/// Reads a table from a two-dimensional array; with a label wanted, one of its columns is that.
pub(super) fn read(source: impl Read, wanted: &Wanted, guard: Guard) -> Result<Table> {
    let array = read_array(source, guard)?;
    let [rows, columns] = array.shape[..] else {
        return Err(Error::Data(format!("the array has shape {:?}: give rows × columns", array.shape)));
    };
    let label = label_column(wanted, columns)?;
    check_width(columns - usize::from(label.is_some()), wanted)?;
    let mut table = Builder::new(None, wanted, guard);
    for row in 0..rows {
        for column in 0..columns {
            let value = array.values[row * columns + column];
            if Some(column) == label {
                table.numeric_label(value)?;
            } else {
                table.value(value as f32, &column.to_string())?;
            }
        }
        table.end_row()?;
    }
    Ok(table.finish())
}

/// An array has no column names: a label is a column's number, or the last column.
fn label_column(wanted: &Wanted, columns: usize) -> Result<Option<usize>> {
    let Some(name) = wanted.label else { return Ok(None) };
    let position = if name == "label" { columns.checked_sub(1) } else { name.parse().ok() };
    position.filter(|position| *position < columns).map(Some).ok_or_else(|| {
        Error::Data(format!(
            "an NPY array has no column `{name}`: set recipe.data.label to a column's number, 0 to {}",
            columns.saturating_sub(1)
        ))
    })
}

/// The shape alone, without the values.
pub(super) fn read_shape(mut source: impl Read) -> Result<Vec<usize>> {
    Ok(Header::parse(&read_header(&mut source)?)?.shape)
}

pub(super) fn read_array(mut source: impl Read, guard: Guard) -> Result<Array> {
    let header = Header::parse(&read_header(&mut source)?)?;
    let count = header.shape.iter().try_fold(1_usize, |product, edge| product.checked_mul(*edge));
    let count = count.filter(|count| *count < 1 << 48).ok_or_else(|| malformed("its shape is too large"))?;
    guard.check(count as u64 * (8 + header.element.size() as u64))?;
    let expected = count * header.element.size();
    let mut bytes = Vec::new();
    // One more tells that there is more; all of it could be endless.
    source.take(expected as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > expected {
        return Err(malformed(&format!("it goes on after the {expected} bytes of values that its shape means")));
    }
    if bytes.len() < expected {
        return Err(malformed(&format!("it holds {} bytes of values where its shape means {expected}", bytes.len())));
    }
    let values = bytes.chunks_exact(header.element.size()).map(|chunk| header.decode(chunk)).collect();
    let values = if header.column_major { to_row_major(values, &header.shape) } else { values };
    Ok(Array { shape: header.shape, values })
}

fn read_header(source: &mut impl Read) -> Result<String> {
    let mut start = [0_u8; 8];
    source.read_exact(&mut start).map_err(unreadable)?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(malformed("it does not begin as NPY"));
    }
    let mut length = [0_u8; 4];
    let digits = if start[6] == 1 { 2 } else { 4 };
    source.read_exact(&mut length[..digits]).map_err(unreadable)?;
    let mut header = String::new();
    source.take(u64::from(u32::from_le_bytes(length)).min(65_536)).read_to_string(&mut header).map_err(unreadable)?;
    Ok(header)
}

impl Header {
    /// Parses the dictionary that NumPy writes: `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str) -> Result<Self> {
        let descr = after(text, "'descr':")?.trim_start_matches('\'').split('\'').next().unwrap_or_default();
        let shape = after(text, "'shape':")?.trim_start_matches('(').split(')').next().unwrap_or_default();
        let shape = shape
            .split(',')
            .map(str::trim)
            .filter(|edge| !edge.is_empty())
            .map(|edge| edge.parse().map_err(|_| malformed(&format!("`{edge}` in its shape is no size"))))
            .collect::<Result<Vec<usize>>>()?;
        let column_major = after(text, "'fortran_order':")?.starts_with("True");
        Ok(Self { element: Element::parse(descr)?, big_endian: descr.starts_with('>'), column_major, shape })
    }

    fn decode(&self, chunk: &[u8]) -> f64 {
        // Widened to eight little-endian bytes, so that one conversion serves each kind.
        let mut wide = [0_u8; 8];
        for (index, byte) in chunk.iter().enumerate() {
            wide[if self.big_endian { chunk.len() - 1 - index } else { index }] = *byte;
        }
        let bits = u64::from_le_bytes(wide);
        match self.element {
            Element::Bool => f64::from(u8::from(bits != 0)),
            Element::Unsigned(_) => bits as f64,
            Element::Signed(size) => ((bits << (64 - 8 * size)) as i64 >> (64 - 8 * size)) as f64,
            Element::Float(4) => f64::from(f32::from_bits(bits as u32)),
            Element::Float(_) => f64::from_bits(bits),
        }
    }
}

impl Element {
    fn parse(descr: &str) -> Result<Self> {
        let kind = descr.trim_start_matches(['<', '>', '|', '=']);
        Ok(match kind {
            "b1" => Self::Bool,
            "i1" | "i2" | "i4" | "i8" => Self::Signed(digit(kind)),
            "u1" | "u2" | "u4" | "u8" => Self::Unsigned(digit(kind)),
            "f4" | "f8" => Self::Float(digit(kind)),
            _ => return Err(malformed(&format!("its kind is `{descr}`: save it as float32, float64 or an integer"))),
        })
    }

    fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Signed(size) | Self::Unsigned(size) | Self::Float(size) => size,
        }
    }
}

fn digit(kind: &str) -> usize {
    kind.bytes().last().map_or(0, |byte| usize::from(byte - b'0'))
}

fn after<'a>(text: &'a str, key: &str) -> Result<&'a str> {
    let (_, rest) = text.split_once(key).ok_or_else(|| malformed(&format!("its header lacks {key}")))?;
    Ok(rest.trim_start())
}

fn to_row_major(values: Vec<f64>, shape: &[usize]) -> Vec<f64> {
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    (0..values.len())
        .map(|mut index| {
            let mut source = 0;
            for axis in (0..shape.len()).rev() {
                source += (index % shape[axis]) * strides[axis];
                index /= shape[axis];
            }
            values[source]
        })
        .collect()
}

fn malformed(what: &str) -> Error {
    Error::Data(format!("the NPY array cannot be read: {what}"))
}

/// Writes an array of records; `descr` is NumPy's list of fields, `records` the packed bytes.
pub fn write_records(out: &mut dyn Write, descr: &str, count: usize, records: &[u8]) -> std::io::Result<()> {
    let mut header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': ({count},), }}");
    // The values begin at a multiple of 64, as NumPy itself writes them.
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(records)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn no_more_is_read_than_the_shape_means() {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n";
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        let mut endless = std::io::repeat(0).take(1 << 20);
        let stop = AtomicBool::new(false);
        let error = read_array(file.chain(&mut endless), Guard { stop: &stop, limit: None }).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains("goes on after the 8 bytes"), "{error}");
        assert!(endless.limit() > (1 << 20) - 1024, "it has read {} bytes", (1 << 20) - endless.limit());
    }
}
