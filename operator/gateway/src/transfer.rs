//! Calls to a gateway, from the side that makes them: artifacts in pieces that
//! can be resumed, small documents with bounded size.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use freehold_core::access::Scope;
use freehold_core::wire::{CHUNK, Problem};
use futures::{Stream, StreamExt};
use http::StatusCode;
use reqwest::{Method, RequestBuilder, Response, Url};
use sha2::{Digest as _, Sha256};

use crate::address::{self, Refused};
use crate::digest::Digest;
use crate::problem::TYPES;

/// Largest JSON document that a gateway's answer may be.
pub const DOCUMENT: u64 = 1 << 20;
/// Bytes that are read from a file at a time.
const PIECE: u64 = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{url} cannot be reached: {cause}")]
    Unreachable { url: String, cause: String },
    #[error("the gateway answers {status}: {detail}")]
    Answer { status: u16, slug: String, detail: String },
    #[error("{what}: expected SHA-256 {expected}, found {found}")]
    Digest { what: String, expected: Digest, found: Digest },
    #[error("{what} is larger than the {limit} bytes that were announced or are allowed")]
    TooLarge { what: String, limit: u64 },
    #[error("the gateway's answer cannot be read: {0}")]
    Malformed(String),
    #[error("the call cannot be signed: {0}")]
    Sign(String),
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
}

impl Error {
    /// The same call may succeed later, with nothing changed on this side.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Sign(_) => true,
            Self::Answer { status, slug, .. } => {
                matches!(status, 401 | 403 | 404 | 408 | 429 | 500..=599)
                    || matches!(slug.as_str(), "incomplete" | "offset-mismatch" | "malformed")
            }
            Self::Refused(_) | Self::Digest { .. } | Self::TooLarge { .. } | Self::Malformed(_) | Self::File { .. } => {
                false
            }
        }
    }

    /// Bytes are not what they should be, on whichever side it was noticed.
    pub fn is_digest_mismatch(&self) -> bool {
        match self {
            Self::Digest { .. } => true,
            Self::Answer { slug, .. } => slug == "digest-mismatch",
            _ => false,
        }
    }

    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { path: path.display().to_string(), source }
    }
}

/// Value of the `Authorization` header of a call.
#[async_trait::async_trait]
pub trait Authorize: Send + Sync {
    async fn header(&self, scopes: &[Scope]) -> Result<String, Error>;
}

/// What is uploaded.
#[derive(Clone)]
pub enum Source {
    Bytes(Bytes),
    /// Read by position, so that one open file serves every attempt.
    File(Arc<File>),
}

impl Source {
    pub fn open(path: &Path) -> Result<Self, Error> {
        File::open(path).map(|file| Self::File(Arc::new(file))).map_err(Error::file(path))
    }

    pub fn size(&self) -> std::io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => file.metadata().map(|meta| meta.len()),
        }
    }

    fn piece(&self, start: u64, length: u64) -> std::io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.slice(start as usize..(start + length) as usize)),
            Self::File(file) => {
                let mut buffer = vec![0; length as usize];
                file.read_exact_at(&mut buffer, start)?;
                Ok(buffer.into())
            }
        }
    }

    fn stream(self, start: u64, end: u64) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        futures::stream::try_unfold((self, start), move |(source, at)| async move {
            let length = PIECE.min(end - at);
            if length == 0 {
                return Ok(None);
            }
            let reading = source.clone();
            let bytes = blocking(move || reading.piece(at, length)).await?;
            Ok(Some((bytes, (source, at + length))))
        })
    }

    /// Digest and size of the whole.
    pub async fn measure(&self) -> std::io::Result<(Digest, u64)> {
        let source = self.clone();
        blocking(move || {
            let (size, mut hasher, mut at) = (source.size()?, Sha256::new(), 0);
            while at < size {
                let bytes = source.piece(at, PIECE.min(size - at))?;
                hasher.update(&bytes);
                at += bytes.len() as u64;
            }
            Ok((Digest::finish(hasher), size))
        })
        .await
    }
}

/// One lease at one gateway, on either listener.
pub struct Remote {
    http: reqwest::Client,
    /// Ends in the lease's id.
    base: String,
    auth: Arc<dyn Authorize>,
    chunk: u64,
}

impl Remote {
    /// `listener` is `leases` or `work`.
    pub fn new(http: reqwest::Client, gateway: &Url, listener: &str, lease: &str, auth: Arc<dyn Authorize>) -> Self {
        let base = format!("{}/v1/{listener}/{lease}", gateway.as_str().trim_end_matches('/'));
        Self { http, base, auth, chunk: CHUNK }
    }

    /// Sends smaller pieces than a gateway would take.
    pub fn with_chunk(mut self, chunk: u64) -> Self {
        self.chunk = chunk.clamp(1, CHUNK);
        self
    }

    pub async fn request(&self, method: Method, path: &str, scopes: &[Scope]) -> Result<RequestBuilder, Error> {
        let authorization = self.auth.header(scopes).await?;
        Ok(self.http.request(method, format!("{}{path}", self.base)).header("authorization", authorization))
    }

    /// The answer, if it is a good one.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status.is_redirection() {
            return Err(Error::Malformed("a redirect, which is not followed".into()));
        }
        let problem: Problem = match self.bounded(response, 16 * 1024).await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Problem::default(),
        };
        let slug = problem.kind.strip_prefix(TYPES).unwrap_or_default().chars().take(64).collect();
        let detail = problem.detail.unwrap_or_else(|| "no explanation".into());
        Err(Error::Answer { status: status.as_u16(), slug, detail: detail.chars().take(512).collect() })
    }

    /// A whole body of at most `limit` bytes.
    pub async fn bounded(&self, response: Response, limit: u64) -> Result<Bytes, Error> {
        let too_large = || Error::TooLarge { what: "the answer".into(), limit };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = response.bytes_stream();
        let mut read = bytes::BytesMut::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| self.unreachable(&e))?;
            if (read.len() + piece.len()) as u64 > limit {
                return Err(too_large());
            }
            read.extend_from_slice(&piece);
        }
        Ok(read.freeze())
    }

    pub async fn json<T: serde::de::DeserializeOwned>(&self, path: &str, scope: Scope) -> Result<T, Error> {
        let bytes = self.get(path, scope, DOCUMENT).await?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Malformed(e.to_string()))
    }

    pub async fn get(&self, path: &str, scope: Scope, limit: u64) -> Result<Bytes, Error> {
        let request = self.request(Method::GET, path, &[scope]).await?;
        let response = self.send(request).await?;
        self.bounded(response, limit).await
    }

    /// Sends a small document.
    pub async fn put(&self, method: Method, path: &str, body: Bytes) -> Result<(), Error> {
        let request = self.request(method, path, &[Scope::Write]).await?.body(body);
        self.send(request).await.map(|_| ())
    }

    /// Uploads what is not held yet, from where an earlier attempt stopped.
    pub async fn upload(&self, digest: &Digest, source: &Source) -> Result<(), Error> {
        let path = format!("/artifacts/{digest}");
        let total = source.size().map_err(Error::file(Path::new("upload")))?;
        let Some(mut offset) = self.upload_offset(&path).await? else { return Ok(()) };
        loop {
            let end = total.min(offset.saturating_add(self.chunk));
            let body = reqwest::Body::wrap_stream(source.clone().stream(offset.min(end), end));
            let mut request = self.request(Method::PUT, &path, &[Scope::Read, Scope::Write]).await?;
            request = request.header("content-length", end.saturating_sub(offset)).body(body);
            if total > 0 {
                let last = end.saturating_sub(1);
                request = request.header("content-range", format!("bytes {offset}-{last}/{total}"));
            }
            let response = self.send(request).await?;
            if response.status() != StatusCode::ACCEPTED {
                return Ok(());
            }
            offset = offset_of(&response)
                .filter(|next| *next > offset)
                .ok_or_else(|| Error::Malformed("an upload that does not move on".into()))?;
        }
    }

    /// Where to go on; nothing if the artifact is held.
    async fn upload_offset(&self, path: &str) -> Result<Option<u64>, Error> {
        let request = self.request(Method::HEAD, path, &[Scope::Read]).await?;
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::NO_CONTENT => {
                offset_of(&response).map(Some).ok_or_else(|| Error::Malformed("no offset".into()))
            }
            _ => Ok(None),
        }
    }

    /// Brings an artifact of at most `limit` bytes to `to`, which appears only
    /// when the digest is right; `<to>.part` keeps what came so far.
    pub async fn download(&self, digest: &Digest, limit: u64, to: &Path) -> Result<u64, Error> {
        let part = part_of(to);
        let held = tokio::fs::metadata(&part).await.map_or(0, |meta| meta.len());
        let mut request = self.request(Method::GET, &format!("/artifacts/{digest}"), &[Scope::Read]).await?;
        if held > 0 {
            request = request.header("range", format!("bytes={held}-"));
        }
        match self.send(request).await {
            Ok(response) => self.receive(response, limit, &part).await?,
            // Everything came before: only the check was missed.
            Err(Error::Answer { status: 416, .. }) if held > 0 => {}
            Err(error) => return Err(error),
        }
        let (found, size) = Source::open(&part)?.measure().await.map_err(Error::file(&part))?;
        if found != *digest {
            let _ = tokio::fs::remove_file(&part).await;
            return Err(Error::Digest { what: to.display().to_string(), expected: digest.clone(), found });
        }
        tokio::fs::rename(&part, to).await.map_err(Error::file(to))?;
        Ok(size)
    }

    async fn receive(&self, response: Response, limit: u64, part: &Path) -> Result<(), Error> {
        let resumes = response.status() == StatusCode::PARTIAL_CONTENT;
        let mut options = File::options();
        options.create(true).write(true).append(resumes).truncate(!resumes);
        let file = Arc::new(options.open(part).map_err(Error::file(part))?);
        let mut size = file.metadata().map_err(Error::file(part))?.len();
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| self.unreachable(&e))?;
            size += piece.len() as u64;
            if size > limit {
                let _ = tokio::fs::remove_file(part).await;
                return Err(Error::TooLarge { what: part.display().to_string(), limit });
            }
            let writing = file.clone();
            blocking(move || (&*writing).write_all(&piece)).await.map_err(Error::file(part))?;
        }
        Ok(())
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        if let Some(refused) = address::refusal_of(error) {
            return refused.into();
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Error::Unreachable { url: self.base.clone(), cause: cause.to_string() }
    }
}

pub fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn offset_of(response: &Response) -> Option<u64> {
    response.headers().get(crate::artifacts::UPLOAD_OFFSET)?.to_str().ok()?.parse().ok()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
