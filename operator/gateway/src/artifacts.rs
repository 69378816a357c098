//! Artifacts over HTTP: the same on both listeners.

use std::sync::Arc;

use freehold_core::wire::CHUNK;
use http::{HeaderMap, Method, StatusCode, header};

use crate::digest::Digest;
use crate::gateway::Gateway;
use crate::leases::Lease;
use crate::problem::Failure;
use crate::range::{Chunk, content_range, range};
use crate::store::{Appended, Incoming};
use crate::web::{Answer, empty, set, streamed, with_rest};

pub const UPLOAD_OFFSET: &str = "upload-offset";

pub fn digest(segment: &str) -> Result<Digest, Failure> {
    segment.parse().map_err(|e: crate::digest::Malformed| Failure::bad_request(e.to_string()))
}

/// GET serves a complete artifact; HEAD also says how far an upload has come.
pub async fn read(gateway: &Gateway, lease: &Lease, digest: &Digest, method: &Method, headers: &HeaderMap) -> Answer {
    let Some(size) = gateway.store.artifact_size(lease.id, digest).await? else {
        return unfinished(gateway, lease, digest, method).await;
    };
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let part = match asked.map(|value| range(value, size)).transpose() {
        Ok(part) => part.flatten(),
        Err(_) => {
            let detail = format!("the artifact has {size} bytes");
            let failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, "range-not-satisfiable", detail);
            return Err(failure.with("content-range", format!("bytes */{size}")));
        }
    };
    let span = part.clone().unwrap_or(0..size);
    let mut response = if *method == Method::HEAD {
        empty(StatusCode::OK)
    } else {
        gateway.metrics.sent(span.end - span.start);
        streamed("application/octet-stream", gateway.store.artifact(lease.id, digest, span.clone()).await?)
    };
    set(&mut response, "etag", format_args!("\"{digest}\""));
    set(&mut response, "accept-ranges", "bytes");
    set(&mut response, "content-length", span.end - span.start);
    set(&mut response, "cache-control", "private, immutable");
    if *method == Method::HEAD {
        set(&mut response, UPLOAD_OFFSET, size);
    }
    if part.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut response, "content-range", format_args!("bytes {}-{}/{size}", span.start, span.end - 1));
    }
    Ok(response)
}

async fn unfinished(gateway: &Gateway, lease: &Lease, digest: &Digest, method: &Method) -> Answer {
    if *method != Method::HEAD {
        return Err(Failure::not_found("no complete artifact of this digest is held"));
    }
    let mut response = empty(StatusCode::NO_CONTENT);
    set(&mut response, UPLOAD_OFFSET, gateway.store.offset(lease.id, digest).await?);
    Ok(response)
}

/// PUT takes a whole artifact or, with Content-Range, the next piece of one.
pub async fn write(
    gateway: &Arc<Gateway>,
    lease: &Lease,
    digest: &Digest,
    headers: &HeaderMap,
    body: Incoming,
) -> Answer {
    let (body, rest) = with_rest(body);
    let answer = take(gateway, lease, digest, headers, body).await;
    if answer.is_err() {
        rest.drain().await;
    }
    answer
}

async fn take(gateway: &Arc<Gateway>, lease: &Lease, digest: &Digest, headers: &HeaderMap, body: Incoming) -> Answer {
    let slot = gateway.upload_slot(lease.id)?;
    let chunk = chunk(headers)?;
    if let Some(input) = lease.input_of(digest)
        && input.size > 0
        && input.size != chunk.total
    {
        let detail = format!("input `{}` has {} bytes, this is {}", input.name, input.size, chunk.total);
        return Err(Failure::unprocessable("other-size", detail));
    }
    // A task of its own: when the sender goes away the request is dropped, but what came must still be kept.
    let (store, id, name) = (gateway.store.clone(), lease.id, digest.clone());
    let appending = tokio::spawn(async move {
        let _slot = slot;
        store.append(id, &name, chunk, body).await
    });
    let appended = appending.await.map_err(Failure::internal)??;
    gateway.metrics.received(chunk.length);
    match appended {
        Appended::Partial { offset } => {
            let mut response = empty(StatusCode::ACCEPTED);
            set(&mut response, UPLOAD_OFFSET, offset);
            Ok(response)
        }
        Appended::Complete => {
            if let Some(input) = lease.input_of(digest) {
                gateway.tell(lease, "InputReceived", format!("input `{}` {digest}", input.name)).await;
            }
            let mut response = empty(StatusCode::CREATED);
            set(&mut response, UPLOAD_OFFSET, chunk.total);
            Ok(response)
        }
    }
}

/// The piece that a PUT announces.
pub fn chunk(headers: &HeaderMap) -> Result<Chunk, Failure> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let chunk = match headers.contains_key(header::CONTENT_RANGE) {
        true => {
            let value = text(header::CONTENT_RANGE).unwrap_or_default();
            content_range(value).map_err(|e| Failure::bad_request(e.to_string()))?
        }
        false => {
            let length = text(header::CONTENT_LENGTH).and_then(|value| value.parse().ok());
            let length = length.ok_or_else(|| {
                Failure::new(StatusCode::LENGTH_REQUIRED, "length-required", "send Content-Range or Content-Length")
            })?;
            Chunk { start: 0, length, total: length }
        }
    };
    if chunk.length > CHUNK {
        return Err(Failure::too_large(format!("a chunk has at most {CHUNK} bytes, this one {}", chunk.length)));
    }
    Ok(chunk)
}
