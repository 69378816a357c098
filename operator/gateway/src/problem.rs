//! Errors as callers see them: RFC 9457 problem documents. What went wrong
//! inside is logged here and not told.

use freehold_core::wire::Problem;
use http::{HeaderValue, Response, StatusCode, header};

use crate::store;

/// Prefix of problem types.
pub const TYPES: &str = "https://freehold.dev/problems/";

#[derive(Clone, Debug)]
pub struct Failure {
    pub status: StatusCode,
    /// Stable name of the kind of problem.
    pub slug: &'static str,
    pub detail: String,
    headers: Vec<(&'static str, String)>,
}

impl Failure {
    pub fn new(status: StatusCode, slug: &'static str, detail: impl Into<String>) -> Self {
        Self { status, slug, detail: detail.into(), headers: Vec::new() }
    }

    pub fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    pub fn conflict(slug: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, slug, detail)
    }

    pub fn unprocessable(slug: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, slug, detail)
    }

    pub fn digest(expected: &str, found: &str) -> Self {
        Self::unprocessable("digest-mismatch", format!("expected SHA-256 {expected}, received bytes have {found}"))
    }

    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).with("retry-after", "1")
    }

    /// Logs the cause, tells nothing of it.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed inside");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this could not be done; try again later")
            .with("retry-after", "2")
    }

    pub fn document(&self) -> Problem {
        let mut title = self.slug.replace('-', " ");
        title[..1].make_ascii_uppercase();
        Problem {
            kind: format!("{TYPES}{}", self.slug),
            title,
            status: self.status.as_u16(),
            detail: Some(self.detail.clone()),
        }
    }

    pub fn into_response(self) -> warp::reply::Response {
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::Offset { expected } => {
                let offset = expected.to_string();
                Self::conflict("offset-mismatch", error.to_string()).with("upload-offset", offset)
            }
            store::Error::Cut { offset } => {
                let offset = offset.to_string();
                Self::bad_request(error.to_string()).with("upload-offset", offset)
            }
            store::Error::Digest { expected, found } => Self::digest(expected.as_str(), found.as_str()),
            store::Error::Quota { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "quota-exceeded", error.to_string()),
            store::Error::TooLarge { .. } => Self::too_large(error.to_string()),
            store::Error::Busy => Self::busy(error.to_string()),
            store::Error::Missing(_) => Self::conflict("incomplete", error.to_string()),
            store::Error::Backend(_) | store::Error::Record(_) => Self::internal(error),
        }
    }
}
