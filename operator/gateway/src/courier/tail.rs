//! The newest line of `progress.jsonl`, whatever else is in the file.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use freehold_core::progress::{self, MAX_LINE, ProgressLine};

use super::files;

/// Bytes that one look reads at most: a file that grows faster is read from its end.
const WINDOW: u64 = 256 * 1024;

#[derive(Default)]
pub struct Tail {
    offset: u64,
    /// Beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Tail {
    /// The last well-formed line since the last look.
    pub fn read(&mut self, root: &Path) -> io::Result<Option<ProgressLine>> {
        let file = match files::open(root, "progress.jsonl") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let size = file.metadata()?.len();
        if size < self.offset {
            *self = Self::default();
        }
        if size - self.offset > WINDOW {
            self.offset = size - WINDOW;
            self.rest.clear();
        }
        let mut fresh = vec![0; (size - self.offset) as usize];
        file.read_exact_at(&mut fresh, self.offset)?;
        self.offset = size;
        Ok(self.take(&fresh))
    }

    /// The last well-formed line of those that end in `fresh`.
    pub fn take(&mut self, fresh: &[u8]) -> Option<ProgressLine> {
        self.rest.extend_from_slice(fresh);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n')?;
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        // A line that never ends is not kept: it would be refused anyway.
        if self.rest.len() > MAX_LINE {
            self.rest.clear();
        }
        whole.rsplit(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()).find_map(progress::parse)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(line: Option<ProgressLine>) -> Option<u64> {
        line.map(|line| line.step)
    }

    #[test]
    fn reads_what_is_new_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.jsonl");
        let mut tail = Tail::default();
        assert_eq!(step(tail.read(dir.path()).unwrap()), None);
        std::fs::write(&path, "noise\n{\"step\":1,\"steps\":9}\n{\"step\":2,").unwrap();
        assert_eq!(step(tail.read(dir.path()).unwrap()), Some(1));
        std::fs::write(&path, "noise\n{\"step\":1,\"steps\":9}\n{\"step\":2,\"steps\":9}\n").unwrap();
        assert_eq!(step(tail.read(dir.path()).unwrap()), Some(2));
        assert_eq!(step(tail.read(dir.path()).unwrap()), None);
        // Begun anew by another run.
        std::fs::write(&path, "{\"step\":7,\"steps\":9}\n").unwrap();
        assert_eq!(step(tail.read(dir.path()).unwrap()), Some(7));
    }

    #[test]
    fn floods_and_pipes_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.jsonl");
        let mut flood = "x".repeat(4 * WINDOW as usize);
        flood.push_str("\n{\"step\":5,\"steps\":9}\n");
        std::fs::write(&path, flood).unwrap();
        let mut tail = Tail::default();
        assert_eq!(step(tail.read(dir.path()).unwrap()), Some(5));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(tail.read(dir.path()).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut tail = Tail::default();
            for piece in pieces {
                let _ = tail.take(&piece);
            }
        }
    }
}
