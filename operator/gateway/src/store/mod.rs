//! What the gateway holds of each lease, on disk and nowhere else: after a
//! restart it goes on where it was.
//!
//! ```text
//! leases/<order id>/manifest
//!                   artifacts/<sha256>          complete, digest checked
//!                   uploads/<sha256>/<offset>   pieces of an unfinished upload
//!                   checkpoints, progress, result, events, log
//!                   gone                        when the lease was first missed
//! ```

mod records;
mod uploads;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use freehold_core::B256;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};

use crate::digest::Digest;

pub use records::LOG;
pub use uploads::Appended;

/// Bytes as they come in; the error only says that no more will come.
pub type Incoming = BoxStream<'static, Result<Bytes, Interrupted>>;

/// Bytes of an artifact.
pub type Outgoing = BoxStream<'static, Result<Bytes, object_store::Error>>;

#[derive(Debug, thiserror::Error)]
#[error("the sender stopped: {0}")]
pub struct Interrupted(pub String);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the upload stands at byte {expected}; send from there on")]
    Offset { expected: u64 },
    #[error("the upload was cut at byte {offset}; send from there on")]
    Cut { offset: u64 },
    #[error("expected SHA-256 {expected}, received bytes have {found}; the upload is discarded")]
    Digest { expected: Digest, found: Digest },
    #[error("{needed} more bytes do not fit: {used} of the lease's {quota} bytes are used")]
    Quota { quota: u64, used: u64, needed: u64 },
    #[error("more than the {limit} bytes that were announced or are allowed")]
    TooLarge { limit: u64 },
    #[error("this artifact is being uploaded by another request; try again in a second")]
    Busy,
    #[error("not held yet, or of another size: {}; upload first", .0.join(", "))]
    Missing(Vec<String>),
    #[error("store: {0}")]
    Backend(#[from] object_store::Error),
    #[error("store: a record cannot be read: {0}")]
    Record(#[from] serde_json::Error),
}

/// Bytes that are on their way in, by lease and artifact.
type Claims = Arc<Mutex<HashMap<(B256, Digest), u64>>>;

#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Bytes that one lease may hold.
    quota: u64,
    claims: Claims,
    /// Held while a record is read, changed and written back.
    records: Arc<tokio::sync::Mutex<()>>,
}

impl Store {
    /// A store in a folder of this machine.
    pub fn open(folder: &FilePath, quota: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let leases = folder.join("leases");
        if leases.is_dir() {
            remove_staged(&leases)?;
        }
        let files = LocalFileSystem::new_with_prefix(folder)
            .map_err(std::io::Error::other)?
            .with_automatic_cleanup(true)
            .with_fsync(true);
        Ok(Self::new(Arc::new(files), quota))
    }

    pub fn new(objects: Arc<dyn ObjectStore>, quota: u64) -> Self {
        Self { objects, quota, claims: Claims::default(), records: Arc::default() }
    }

    pub fn quota(&self) -> u64 {
        self.quota
    }

    pub async fn manifest(&self, lease: B256) -> Result<Option<Bytes>, Error> {
        self.read(&at(lease, "manifest")).await
    }

    pub async fn put_manifest(&self, lease: B256, bytes: Bytes) -> Result<(), Error> {
        self.objects.put(&at(lease, "manifest"), bytes.into()).await?;
        Ok(())
    }

    /// Size of a complete artifact.
    pub async fn artifact_size(&self, lease: B256, digest: &Digest) -> Result<Option<u64>, Error> {
        match self.objects.head(&artifact(lease, digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub async fn artifact(&self, lease: B256, digest: &Digest, range: Range<u64>) -> Result<Outgoing, Error> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let options = GetOptions::new().with_range(Some(range));
        Ok(self.objects.get_opts(&artifact(lease, digest), options).await?.into_stream())
    }

    /// Bytes that the lease holds, finished or not.
    pub async fn used(&self, lease: B256) -> Result<u64, Error> {
        let sizes = self.objects.list(Some(&folder(lease))).map_ok(|meta| meta.size);
        Ok(sizes.try_fold(0u64, |sum, size| async move { Ok(sum.saturating_add(size)) }).await?)
    }

    /// Leases that the store holds anything of.
    pub async fn leases(&self) -> Result<Vec<B256>, Error> {
        let listed = self.objects.list_with_delimiter(Some(&Path::from("leases"))).await?;
        let parse = |path: &Path| freehold_core::canonical::b256_of_hex(path.parts().next_back()?.as_ref());
        Ok(listed.common_prefixes.iter().filter_map(parse).collect())
    }

    pub async fn remove(&self, lease: B256) -> Result<(), Error> {
        let paths = self.objects.list(Some(&folder(lease))).map_ok(|meta| meta.location).boxed();
        self.objects.delete_stream(paths).try_for_each(|_| async { Ok(()) }).await?;
        Ok(())
    }

    async fn read(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        match self.objects.get(path).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn delete(&self, path: &Path) -> Result<(), Error> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

fn folder(lease: B256) -> Path {
    Path::from_iter(["leases".to_owned(), hex::encode(lease)])
}

fn at(lease: B256, name: &'static str) -> Path {
    folder(lease).join(name)
}

fn artifact(lease: B256, digest: &Digest) -> Path {
    at(lease, "artifacts").join(digest.as_str())
}

/// Removes what a killed process was in the middle of writing: files are
/// staged as `<name>#<n>` and renamed when complete.
fn remove_staged(folder: &FilePath) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            remove_staged(&entry.path())?;
        } else if kind.is_file() && entry.file_name().to_string_lossy().contains('#') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
