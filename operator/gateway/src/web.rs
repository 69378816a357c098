//! Between warp and the handlers: bodies, replies, and what every request is held to.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use freehold_core::wire::CHUNK;
use futures::{Stream, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use warp::filters::BoxedFilter;
use warp::reject::{MethodNotAllowed, Rejection};
use warp::{Filter, Reply};

use crate::gateway::Gateway;
use crate::problem::Failure;
use crate::store::{Incoming, Interrupted};

/// How long the rest of a refused body is taken.
const DRAIN: Duration = Duration::from_secs(10);

pub type Answer = Result<warp::reply::Response, Failure>;

/// The body as it comes in; a sender that falls silent counts as gone.
pub fn body(idle: Duration) -> BoxedFilter<(Incoming,)> {
    warp::body::stream().map(move |stream| incoming(stream, idle)).boxed()
}

fn incoming<B: Buf>(stream: impl Stream<Item = Result<B, warp::Error>> + Send + 'static, idle: Duration) -> Incoming {
    let pieces = stream.map(|piece| match piece {
        Ok(mut buffer) => Ok(buffer.copy_to_bytes(buffer.remaining())),
        Err(error) => Err(Interrupted(error.to_string())),
    });
    futures::stream::unfold(Some(pieces.boxed()), move |pieces| async move {
        let mut pieces = pieces?;
        match tokio::time::timeout(idle, pieces.next()).await {
            Ok(piece) => piece.map(|piece| (piece, Some(pieces))),
            Err(_) => Some((Err(Interrupted(format!("nothing came for {} s", idle.as_secs()))), None)),
        }
    })
    .boxed()
}

/// What is left of a body that somebody else reads.
pub struct Rest(Arc<tokio::sync::Mutex<Incoming>>);

/// The body, and a way to read on when its reader gives up.
pub fn with_rest(body: Incoming) -> (Incoming, Rest) {
    // Fused: it may have been read to its end before the refusal.
    let body = Arc::new(tokio::sync::Mutex::new(body.fuse().boxed()));
    let pieces = futures::stream::unfold(body.clone(), |body| async move {
        let piece = body.lock().await.next().await?;
        Some((piece, body))
    });
    (pieces.boxed(), Rest(body))
}

impl Rest {
    /// Takes what a refused sender is still sending, within bounds. Were the connection closed under it, it would
    /// see a broken pipe instead of the answer, and try again for ever.
    pub async fn drain(self) {
        let draining = async {
            let (mut body, mut left) = (self.0.lock().await, CHUNK);
            while let Some(Ok(piece)) = body.next().await {
                left = left.saturating_sub(piece.len() as u64);
                if left == 0 {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN, draining).await;
    }
}

/// The whole body, if it is no longer than `limit`.
pub async fn whole(mut body: Incoming, limit: usize) -> Result<Bytes, Failure> {
    let mut read = BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| Failure::bad_request(e.to_string()))?;
        if read.len() + piece.len() > limit {
            return Err(Failure::too_large(format!("at most {limit} bytes are taken here")));
        }
        read.extend_from_slice(&piece);
    }
    Ok(read.freeze())
}

/// Runs a handler within the time of a request and turns failures into problem documents.
pub async fn answer(
    gateway: Arc<Gateway>,
    route: &'static str,
    handler: impl Future<Output = Answer>,
) -> warp::reply::Response {
    let outcome = tokio::time::timeout(gateway.limits.request(), handler).await.unwrap_or_else(|_| {
        Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long; send smaller pieces"))
    });
    let response = outcome.unwrap_or_else(Failure::into_response);
    gateway.metrics.answered(route, response.status());
    response
}

/// Paths and methods that no route takes.
pub async fn unrouted(rejection: Rejection) -> Result<warp::reply::Response, Infallible> {
    let failure = if rejection.is_not_found() {
        Failure::not_found("there is nothing at this path")
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path does not take this method")
    } else {
        Failure::bad_request("the request cannot be read")
    };
    Ok(failure.into_response())
}

pub fn empty(status: StatusCode) -> warp::reply::Response {
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = status;
    response
}

pub fn json<T: Serialize>(value: &T) -> Answer {
    let bytes = serde_json::to_vec(value).map_err(Failure::internal)?;
    Ok(content("application/json", bytes.into()))
}

pub fn content(kind: &'static str, bytes: Bytes) -> warp::reply::Response {
    let mut response = Response::new(bytes.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Nothing that a workload wrote is a page of this host.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub fn streamed<E>(
    kind: &'static str,
    stream: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
) -> warp::reply::Response
where
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let mut response = warp::reply::stream(Shared(Mutex::new(stream))).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub fn set(response: &mut warp::reply::Response, name: &'static str, value: impl std::fmt::Display) {
    if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
        response.headers_mut().insert(name, value);
    }
}

/// warp asks streams to be `Sync`, though it never shares them.
struct Shared<S>(Mutex<S>);

impl<S: Stream + Unpin> Stream for Shared<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(cx)
    }
}
