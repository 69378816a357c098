//! Thrift's compact form, walked before a library reads it: what a file claims is held against what there is.
//!
//! The library passes over what it does not know without asking whether it can be: a list of two thousand million
//! booleans takes it no byte each, and seconds. Parquet's own structures have no list of booleans, and no map.

use std::io::Read;

/// Structures within structures; Parquet's own are a handful deep.
const DEPTH: u32 = 32;
const SECOND: u32 = DEPTH - 1;

/// A number of a structure, or of a structure in it: their fields' ids, 0 for none.
pub(super) type Found = (u64, u64, u64);

pub(super) struct Walk<R> {
    from: R,
    /// Bytes that there are.
    left: u64,
    /// Numbers as they are written, zigzag, of the first two levels.
    pub found: Vec<Found>,
}

type Step<T = ()> = std::result::Result<T, String>;

impl<R: Read> Walk<R> {
    pub fn new(from: R, left: u64) -> Self {
        Self { from, left, found: Vec::new() }
    }

    /// The structure that begins here.
    pub fn structure(&mut self) -> Step {
        self.fields(DEPTH, 0)
    }

    fn fields(&mut self, depth: u32, within: u64) -> Step {
        deep(depth)?;
        let mut id = 0_u64;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Ok(());
            }
            id = match header >> 4 {
                0 => self.number()? / 2,
                distance => id.saturating_add(distance.into()),
            };
            let kind = header & 0x0f;
            // In a field the type of a boolean is its value.
            if !matches!(kind, 1 | 2) {
                self.value(kind, depth, within, id)?;
            }
        }
    }

    fn value(&mut self, kind: u8, depth: u32, within: u64, id: u64) -> Step {
        match kind {
            3 => self.byte().map(|_| ()),
            4..=6 => {
                let number = self.number()?;
                // Of lists, and of what is deeper, nobody asks.
                match (depth, within) {
                    (DEPTH, _) => self.found.push((id, 0, number)),
                    (SECOND, 1..) => self.found.push((within, id, number)),
                    _ => {}
                }
                Ok(())
            }
            7 => self.pass(8),
            8 => {
                let length = self.number()?;
                self.pass(length)
            }
            9 | 10 => self.list(depth - 1),
            12 => self.fields(depth - 1, id),
            _ => Err(format!("it has a value of type {kind}, which no Parquet file has")),
        }
    }

    fn list(&mut self, depth: u32) -> Step {
        deep(depth)?;
        let header = self.byte()?;
        let (kind, short) = (header & 0x0f, header >> 4);
        let count = if short == 15 { self.number()? } else { short.into() };
        if count > self.left {
            return Err(format!("it has a list of {count} entries in {} bytes", self.left));
        }
        if count > 0 && matches!(kind, 1 | 2) {
            return Err("it has a list of booleans, which no Parquet file has".into());
        }
        (0..count).try_for_each(|_| self.value(kind, depth, 0, 0))
    }

    fn byte(&mut self) -> Step<u8> {
        let mut byte = [0];
        self.left = self.left.checked_sub(1).ok_or("it ends too soon")?;
        self.from.read_exact(&mut byte).map_err(|_| "it ends too soon")?;
        Ok(byte[0])
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Step<u64> {
        let mut number = 0;
        for place in 0..10 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("it has a number of more than ten bytes".into())
    }

    fn pass(&mut self, bytes: u64) -> Step {
        self.left =
            self.left.checked_sub(bytes).ok_or_else(|| format!("it has {bytes} bytes where {} are left", self.left))?;
        let passed = std::io::copy(&mut self.from.by_ref().take(bytes), &mut std::io::sink());
        if passed.is_ok_and(|passed| passed == bytes) { Ok(()) } else { Err("it ends too soon".into()) }
    }
}

fn deep(left: u32) -> Step {
    if left == 0 { Err(format!("it is more than {DEPTH} structures deep")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn walked(bytes: &[u8]) -> Step<Vec<Found>> {
        let mut walk = Walk::new(bytes, bytes.len() as u64);
        walk.structure().map(|()| walk.found)
    }

    #[test]
    fn numbers_are_found_by_their_fields() {
        let page = [0x15, 0x04, 0x15, 0x20, 0x15, 0x20, 0x4c, 0x15, 0x06, 0x15, 0, 0, 0];
        assert_eq!(walked(&page), Ok(vec![(1, 0, 4), (2, 0, 32), (3, 0, 32), (7, 1, 6), (7, 2, 0)]));
        // A long id, and fields that are passed over: a string, a list of numbers, a list of structures, a boolean.
        let other = [0x05, 0x0a, 0x02, 0x18, 0x02, b'a', b'b', 0x19, 0x25, 1, 2, 0x19, 0x1c, 0x15, 8, 0, 0x11, 0];
        assert_eq!(walked(&other), Ok(vec![(5, 0, 2)]));
    }

    #[rstest]
    #[case::nothing(&[], "ends too soon")]
    #[case::no_end(&[0x15, 0x04], "ends too soon")]
    #[case::booleans(&[0x19, 0x22, 0, 0, 0], "list of booleans")]
    #[case::long_list(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 0x07, 1, 0], "a list of 2147483647 entries in 2 bytes")]
    #[case::long_string(&[0x18, 0x7f, b'a', 0], "127 bytes where 2 are left")]
    #[case::map(&[0x1b, 0x01, 0x55, 1, 1, 0], "type 11")]
    #[case::long_number(&[0x15, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, 0], "more than ten bytes")]
    #[case::deep(&[0x1c; 40], "structures deep")]
    #[case::deep_lists(&[0x19; 100_000], "structures deep")]
    fn what_cannot_be_is_refused(#[case] bytes: &[u8], #[case] why: &str) {
        let said = walked(bytes).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
}
