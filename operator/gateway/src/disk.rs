//! How full the filesystem of a folder is.

use std::path::Path;

/// Bytes of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub used: u64,
    pub limit: u64,
}

/// `None` where the folder cannot be asked. What is kept for root counts as used: it cannot be written.
pub fn of(folder: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(folder).ok()?;
    let limit = found.f_blocks.saturating_mul(found.f_frsize);
    Some(Disk { used: limit.saturating_sub(found.f_bavail.saturating_mul(found.f_frsize)), limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_shows_its_filesystem_and_no_folder_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let before = of(folder.path()).unwrap();
        assert!(before.limit > 0 && before.used <= before.limit);
        assert_eq!(of(&folder.path().join("none")), None);
    }
}
