//! The tenant's artifact store: files named by their SHA-256, a folder a
//! namespace, so that knowing a digest (digests are public on the chain) opens
//! nothing that belongs to another namespace.

use std::io::Write;
use std::path::{Path, PathBuf};

use freehold_core::canonical::sha256_hex;
use freehold_core::wire::CheckpointNote;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {path} in the artifact store: {source}; check the store's volume")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("`{0}` cannot be a name in the artifact store")]
    Name(String),
}

#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the artifact is, or will be.
    pub fn path(&self, namespace: &str, sha256: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join(checked(namespace)?).join("sha256").join(checked(sha256)?))
    }

    /// The same, with its folder made: what a transfer writes to.
    pub fn destination(&self, namespace: &str, sha256: &str) -> Result<PathBuf, Error> {
        let path = self.path(namespace, sha256)?;
        if let Some(folder) = path.parent() {
            make(folder)?;
        }
        Ok(path)
    }

    pub fn size(&self, namespace: &str, sha256: &str) -> Option<u64> {
        let found = std::fs::metadata(self.path(namespace, sha256).ok()?).ok()?;
        found.is_file().then_some(found.len())
    }

    pub fn has(&self, namespace: &str, sha256: &str) -> bool {
        self.size(namespace, sha256).is_some()
    }

    /// The bytes of an artifact that is known to be small.
    pub fn get(&self, namespace: &str, sha256: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(namespace, sha256)?;
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { action: "read", path, source }),
        }
    }

    /// Stores bytes under their digest, which is returned.
    pub fn put(&self, namespace: &str, bytes: &[u8]) -> Result<String, Error> {
        let digest = sha256_hex(bytes);
        if self.size(namespace, &digest) == Some(bytes.len() as u64) {
            return Ok(digest);
        }
        let path = self.destination(namespace, &digest)?;
        let fresh = path.with_extension("new");
        write_synced(&fresh, bytes)?;
        std::fs::rename(&fresh, &path).map_err(|source| Error::Io { action: "publish", path, source })?;
        Ok(digest)
    }

    /// The newest checkpoint of a task that the store holds.
    pub fn checkpoint(&self, namespace: &str, task_uid: &str) -> Option<CheckpointNote> {
        let bytes = std::fs::read(self.note(namespace, task_uid).ok()?).ok()?;
        let note: CheckpointNote = serde_json::from_slice(&bytes).ok()?;
        self.has(namespace, &note.sha256).then_some(note)
    }

    /// Remembers a checkpoint that is held, and forgets the one before it.
    pub fn remember_checkpoint(&self, namespace: &str, task_uid: &str, note: &CheckpointNote) -> Result<(), Error> {
        let before = self.checkpoint(namespace, task_uid);
        let path = self.note(namespace, task_uid)?;
        if let Some(folder) = path.parent() {
            make(folder)?;
        }
        let fresh = path.with_extension("new");
        let bytes = serde_json::to_vec(note).map_err(|e| Error::Io {
            action: "write",
            path: path.clone(),
            source: std::io::Error::other(e),
        })?;
        write_synced(&fresh, &bytes)?;
        std::fs::rename(&fresh, &path).map_err(|source| Error::Io { action: "publish", path, source })?;
        match before {
            Some(before) if before.sha256 != note.sha256 => remove(&self.path(namespace, &before.sha256)?),
            _ => Ok(()),
        }
    }

    fn note(&self, namespace: &str, task_uid: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join(checked(namespace)?).join("checkpoints").join(format!("{}.json", checked(task_uid)?)))
    }
}

/// A part of a path that cannot leave its folder.
fn checked(name: &str) -> Result<&str, Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if name.is_empty() || name.len() > 253 || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(Error::Name(name.chars().take(80).collect()));
    }
    Ok(name)
}

fn make(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { action: "make", path: folder.into(), source })
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.into(), source: error })
        }
        _ => Ok(()),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = std::fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| Error::Io { action: "write", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        (folder, store)
    }

    #[test]
    fn bytes_come_back_under_their_digest_in_their_namespace_only() {
        let (_folder, store) = store();
        let digest = store.put("team-a", b"weights").expect("stores");
        assert_eq!(digest, sha256_hex(b"weights"));
        assert_eq!(store.get("team-a", &digest).expect("reads"), Some(b"weights".to_vec()));
        assert_eq!(store.put("team-a", b"weights").expect("again"), digest);
        assert_eq!(store.get("team-b", &digest).expect("reads"), None, "a digest opens no other namespace");
    }

    #[test]
    fn names_stay_in_their_folder() {
        let (_folder, store) = store();
        for bad in ["", "..", "a/b", "/etc", ".hidden", "a\\b"] {
            assert!(matches!(store.path(bad, "00"), Err(Error::Name(_))), "{bad}");
            assert!(matches!(store.path("a", bad), Err(Error::Name(_))), "{bad}");
        }
    }

    #[test]
    fn the_newest_checkpoint_replaces_the_one_before() {
        let (_folder, store) = store();
        let note = |step, sha256: &str| CheckpointNote {
            step,
            sha256: sha256.into(),
            size: 3,
            file_name: format!("step-{step:06}.safetensors"),
        };
        let first = store.put("a", b"one").expect("stores");
        store.remember_checkpoint("a", "uid", &note(1, &first)).expect("notes");
        assert_eq!(store.checkpoint("a", "uid"), Some(note(1, &first)));
        let second = store.put("a", b"two").expect("stores");
        store.remember_checkpoint("a", "uid", &note(2, &second)).expect("notes");
        assert_eq!(store.checkpoint("a", "uid"), Some(note(2, &second)));
        assert!(!store.has("a", &first));
        std::fs::remove_file(store.path("a", &second).expect("path")).expect("removes");
        assert_eq!(store.checkpoint("a", "uid"), None, "a note without its bytes is none");
    }
}
