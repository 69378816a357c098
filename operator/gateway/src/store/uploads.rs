//! Uploads in pieces. Each piece is an object of its own, named by its
//! offset, so that whatever arrived is still there after a crash; the artifact
//! appears at once, after its digest was checked.

use bytes::Bytes;
use freehold_core::B256;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};
use sha2::{Digest as _, Sha256};

use super::{Claims, Error, Incoming, Store, artifact, at};
use crate::digest::Digest;
use crate::range::Chunk;

/// Parts of one object that are written at a time.
const WRITES: usize = 2;

#[derive(Debug, PartialEq, Eq)]
pub enum Appended {
    Complete,
    /// Where the next chunk starts.
    Partial {
        offset: u64,
    },
}

/// The right to add to one artifact, for as long as it lives.
struct Claim {
    claims: Claims,
    key: (B256, Digest),
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Ok(mut claims) = self.claims.lock() {
            claims.remove(&self.key);
        }
    }
}

impl Store {
    /// Where an unfinished upload stands.
    pub async fn offset(&self, lease: B256, digest: &Digest) -> Result<u64, Error> {
        Ok(self.pieces(lease, digest).await?.last().map_or(0, |(start, size)| start + size))
    }

    /// Adds a chunk; the last one completes the artifact.
    pub async fn append(&self, lease: B256, digest: &Digest, chunk: Chunk, body: Incoming) -> Result<Appended, Error> {
        if self.artifact_size(lease, digest).await?.is_some() {
            return Ok(Appended::Complete);
        }
        let _claim = self.claim(lease, digest, chunk.length).await?;
        let offset = self.offset(lease, digest).await?;
        if chunk.start != offset {
            return Err(Error::Offset { expected: offset });
        }
        let end = chunk.start.saturating_add(chunk.length);
        if chunk.total > self.quota || end > chunk.total {
            return Err(Error::TooLarge { limit: self.quota.min(chunk.total) });
        }
        if chunk.length > 0 {
            self.write_piece(&piece(lease, digest, offset), offset, chunk.length, body).await?;
        }
        if end < chunk.total {
            return Ok(Appended::Partial { offset: end });
        }
        self.assemble(lease, digest).await?;
        Ok(Appended::Complete)
    }

    /// Takes a whole artifact from a source that cannot be resumed.
    pub async fn ingest(&self, lease: B256, digest: &Digest, limit: u64, body: Incoming) -> Result<u64, Error> {
        if let Some(size) = self.artifact_size(lease, digest).await? {
            return Ok(size);
        }
        let _claim = self.claim(lease, digest, limit).await?;
        let bounded = bound(body, limit);
        self.write_checked(lease, digest, bounded).await
    }

    /// Reserves room for `needed` bytes and keeps others from the same artifact.
    async fn claim(&self, lease: B256, digest: &Digest, needed: u64) -> Result<Claim, Error> {
        let used = self.used(lease).await?;
        let key = (lease, digest.clone());
        let mut claims = self.claims.lock().map_err(|_| Error::Busy)?;
        if claims.contains_key(&key) {
            return Err(Error::Busy);
        }
        let pending: u64 = claims.iter().filter(|((of, _), _)| *of == lease).map(|(_, bytes)| *bytes).sum();
        let used = used.saturating_add(pending);
        if used.saturating_add(needed) > self.quota {
            return Err(Error::Quota { quota: self.quota, used, needed });
        }
        claims.insert(key.clone(), needed);
        Ok(Claim { claims: self.claims.clone(), key })
    }

    /// Offsets and sizes, without a gap from 0 on.
    async fn pieces(&self, lease: B256, digest: &Digest) -> Result<Vec<(u64, u64)>, Error> {
        let folder = at(lease, "uploads").join(digest.as_str());
        let listed: Vec<_> = self.objects.list(Some(&folder)).try_collect().await?;
        let start = |path: &Path| path.filename()?.parse::<u64>().ok();
        let mut found: Vec<(u64, u64)> =
            listed.iter().filter_map(|meta| Some((start(&meta.location)?, meta.size))).collect();
        found.sort_unstable();
        let mut end = 0;
        found.retain(|(start, size)| {
            let follows = *start == end;
            end = if follows { start + size } else { end };
            follows
        });
        Ok(found)
    }

    /// Keeps what arrived even if the sender stops in the middle.
    async fn write_piece(&self, path: &Path, offset: u64, length: u64, mut body: Incoming) -> Result<(), Error> {
        let mut writer = WriteMultipart::new(self.objects.put_multipart(path).await?);
        let mut received = 0;
        let cut = loop {
            match body.next().await {
                None => break received < length,
                Some(Err(_)) => break true,
                Some(Ok(bytes)) if received + bytes.len() as u64 > length => {
                    writer.abort().await?;
                    return Err(Error::TooLarge { limit: length });
                }
                Some(Ok(bytes)) => {
                    received += bytes.len() as u64;
                    writer.wait_for_capacity(WRITES).await?;
                    writer.put(bytes);
                }
            }
        };
        if received == 0 {
            writer.abort().await?;
        } else {
            writer.finish().await?;
        }
        if cut { Err(Error::Cut { offset: offset + received }) } else { Ok(()) }
    }

    async fn assemble(&self, lease: B256, digest: &Digest) -> Result<(), Error> {
        let pieces = self.pieces(lease, digest).await?;
        let paths: Vec<Path> = pieces.iter().map(|(start, _)| piece(lease, digest, *start)).collect();
        let objects = self.objects.clone();
        let bytes = futures::stream::iter(paths.clone())
            .then(move |path| {
                let objects = objects.clone();
                async move { Ok::<_, object_store::Error>(objects.get(&path).await?.into_stream()) }
            })
            .try_flatten()
            .map_err(Error::from)
            .boxed();
        let written = self.write_checked(lease, digest, bytes).await;
        // After a mismatch nothing of it is worth keeping; a fault of the disk leaves the pieces for another try.
        if matches!(written, Ok(_) | Err(Error::Digest { .. })) {
            for path in &paths {
                self.delete(path).await?;
            }
        }
        written.map(|_| ())
    }

    /// Writes the artifact under its name only if it is what the name says.
    async fn write_checked(
        &self,
        lease: B256,
        digest: &Digest,
        mut bytes: futures::stream::BoxStream<'_, Result<Bytes, Error>>,
    ) -> Result<u64, Error> {
        let mut writer = WriteMultipart::new(self.objects.put_multipart(&artifact(lease, digest)).await?);
        let (mut hasher, mut size) = (Sha256::new(), 0u64);
        loop {
            match bytes.next().await {
                None => break,
                Some(Err(e)) => {
                    writer.abort().await?;
                    return Err(e);
                }
                Some(Ok(bytes)) => {
                    size += bytes.len() as u64;
                    hasher.update(&bytes);
                    writer.wait_for_capacity(WRITES).await?;
                    writer.put(bytes);
                }
            }
        }
        let found = Digest::finish(hasher);
        if found != *digest {
            writer.abort().await?;
            return Err(Error::Digest { expected: digest.clone(), found });
        }
        writer.finish().await?;
        Ok(size)
    }
}

fn piece(lease: B256, digest: &Digest, offset: u64) -> Path {
    at(lease, "uploads").join(digest.as_str()).join(format!("{offset:020}"))
}

fn bound(body: Incoming, limit: u64) -> futures::stream::BoxStream<'static, Result<Bytes, Error>> {
    let mut received = 0u64;
    body.map(move |item| match item {
        Err(_) => Err(Error::Cut { offset: 0 }),
        Ok(bytes) => {
            received = received.saturating_add(bytes.len() as u64);
            if received > limit { Err(Error::TooLarge { limit }) } else { Ok(bytes) }
        }
    })
    .boxed()
}
