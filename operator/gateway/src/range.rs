//! `Range` and `Content-Range`, as far as artifacts need them: one range of bytes.

use std::ops::Range;

/// A piece of an upload: `length` bytes from `start` on, of `total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub start: u64,
    pub length: u64,
    pub total: u64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("Content-Range must be `bytes FIRST-LAST/TOTAL` with FIRST ≤ LAST < TOTAL")]
pub struct BadContentRange;

/// What was asked for lies outside the artifact.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsatisfiable;

/// `bytes 0-99/1000`.
pub fn content_range(value: &str) -> Result<Chunk, BadContentRange> {
    let parsed = || {
        let (span, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let (first, last, total) = (number(first)?, number(last)?, number(total)?);
        (first <= last && last < total).then(|| Chunk { start: first, length: last - first + 1, total })
    };
    parsed().ok_or(BadContentRange)
}

/// The part of `size` bytes that a `Range` header asks for. Other units,
/// several ranges and malformed values are ignored, as RFC 9110 says.
pub fn range(value: &str, size: u64) -> Result<Option<Range<u64>>, Unsatisfiable> {
    let Some((first, last)) = value.trim().strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Ok(None);
    };
    let asked = match (first, last) {
        ("", last) => number(last).map(|count| size.saturating_sub(count)..size),
        (first, "") => number(first).map(|first| first..size),
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Some(first..size.min(last.saturating_add(1))),
            _ => None,
        },
    };
    match asked {
        None => Ok(None),
        Some(range) if range.start < range.end => Ok(Some(range)),
        Some(_) => Err(Unsatisfiable),
    }
}

/// Digits alone: `u64::from_str` would also take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 0-9/10"), Ok(Chunk { start: 0, length: 10, total: 10 }));
        assert_eq!(content_range("bytes 5-5/6"), Ok(Chunk { start: 5, length: 1, total: 6 }));
        for bad in ["", "bytes 0-10/10", "bytes 3-2/10", "bytes */10", "bytes 0-1/*", "bytes +0-1/2", "items 0-1/2"] {
            assert_eq!(content_range(bad), Err(BadContentRange), "{bad}");
        }
        assert_eq!(content_range(&format!("bytes 0-{}/{}", u64::MAX, u64::MAX)), Err(BadContentRange));
    }

    #[test]
    fn ranges() {
        assert_eq!(range("bytes=0-3", 10), Ok(Some(0..4)));
        assert_eq!(range("bytes=4-", 10), Ok(Some(4..10)));
        assert_eq!(range("bytes=-3", 10), Ok(Some(7..10)));
        assert_eq!(range("bytes=-30", 10), Ok(Some(0..10)));
        assert_eq!(range("bytes=8-100", 10), Ok(Some(8..10)));
        assert_eq!(range("bytes=10-", 10), Err(Unsatisfiable));
        assert_eq!(range("bytes=-0", 10), Err(Unsatisfiable));
        assert_eq!(range("bytes=0-", 0), Err(Unsatisfiable));
        for ignored in ["bytes=0-1,4-5", "lines=0-1", "bytes=x-y", "bytes=5-2", "garbage"] {
            assert_eq!(range(ignored, 10), Ok(None), "{ignored}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in ".{0,64}", size: u64) {
            let _ = content_range(&text);
            if let Ok(Some(range)) = range(&text, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn any_numbers_never_panic(first: u64, last: u64, total: u64, size: u64) {
            let valid = content_range(&format!("bytes {first}-{last}/{total}")).is_ok();
            prop_assert_eq!(valid, first <= last && last < total);
            for asked in [format!("bytes={first}-{last}"), format!("bytes={first}-"), format!("bytes=-{last}")] {
                if let Ok(Some(range)) = range(&asked, size) {
                    prop_assert!(range.start < range.end && range.end <= size);
                }
            }
        }

        #[test]
        fn near_misses_never_panic(text in "bytes[ =][0-9*]{0,21}-[0-9*]{0,21}(/[0-9*]{0,21})?", size: u64) {
            if let Ok(chunk) = content_range(&text) {
                prop_assert!(chunk.length > 0 && chunk.start.checked_add(chunk.length).is_some_and(|end| end <= chunk.total));
            }
            if let Ok(Some(range)) = range(&text, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
