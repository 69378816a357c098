//! The operator's own calls to the gateway of its release: what is held of a
//! lease, its manifest, and where its log is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use freehold_chain::failpoint::crossing;
use freehold_core::B256;
use freehold_core::manifest;
use freehold_core::wire::{Problem, WorkReport};

/// A token of the operator's service account, renewed by the kubelet.
pub const TOKEN_FILE: &str = "/var/run/secrets/freehold/gateway-token";
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the gateway token {path}: {source}")]
    Token { path: PathBuf, source: std::io::Error },
    #[error("the gateway does not answer: {0}")]
    Http(#[from] reqwest::Error),
    #[error("the gateway answers {status}: {detail}")]
    Refused { status: u16, detail: String },
    #[error("the gateway sent a manifest of more than {} bytes", manifest::MAX_BYTES)]
    TooLong,
}

/// What the operator asks of a gateway.
#[async_trait]
pub trait WorkStore: Send + Sync {
    async fn report(&self, order: &B256) -> Result<WorkReport, Error>;
    async fn manifest(&self, order: &B256) -> Result<Vec<u8>, Error>;
    async fn append_log(&self, order: &B256, bytes: Vec<u8>) -> Result<(), Error>;
}

pub struct HttpWorkStore {
    client: reqwest::Client,
    base: String,
    token: PathBuf,
}

impl HttpWorkStore {
    pub fn new(base: &str, token: &Path) -> Result<Self, reqwest::Error> {
        let client =
            reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token: token.to_owned() })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Error> {
        let read = tokio::fs::read_to_string(&self.token).await;
        let token = read.map_err(|source| Error::Token { path: self.token.clone(), source })?;
        let response = crossing(|| "gateway.work".into(), request.bearer_auth(token.trim()).send()).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let problem: Problem = response.json().await.unwrap_or_default();
        Err(Error::Refused { status: status.as_u16(), detail: problem.detail.unwrap_or(problem.title) })
    }

    fn url(&self, order: &B256, rest: &str) -> String {
        format!("{}/v1/work/{order}{rest}", self.base)
    }
}

#[async_trait]
impl WorkStore for HttpWorkStore {
    async fn report(&self, order: &B256) -> Result<WorkReport, Error> {
        Ok(self.send(self.client.get(self.url(order, ""))).await?.json::<WorkReport>().await?.bounded())
    }

    async fn manifest(&self, order: &B256) -> Result<Vec<u8>, Error> {
        let response = self.send(self.client.get(self.url(order, "/manifest"))).await?;
        if response.content_length().is_some_and(|length| length > manifest::MAX_BYTES as u64) {
            return Err(Error::TooLong);
        }
        Ok(response.bytes().await?.to_vec())
    }

    async fn append_log(&self, order: &B256, bytes: Vec<u8>) -> Result<(), Error> {
        self.send(self.client.post(self.url(order, "/logs")).body(bytes)).await?;
        Ok(())
    }
}
