//! The tenant's artifact endpoint:
//! `GET /v1/namespaces/{ns}/{trainingtasks|inferencetasks}/{name}/artifacts/{artifact}`
//! with a Kubernetes bearer token. Who may `get` the task may read its results.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use freehold_api::task::Artifact;
use freehold_api::{GROUP, InferenceTask, TrainingTask};
use freehold_core::wire::Problem;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use warp::http::{Response, StatusCode, header};
use warp::{Filter, Rejection, Reply};

use super::store::Store;
use crate::context::Context;

/// Longest bearer token that is sent on for review.
const MAX_TOKEN: usize = 8192;
const CHUNK: usize = 256 * 1024;

/// Which task is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: String,
    /// Plural name of the kind.
    pub resource: String,
    pub name: String,
}

/// Who asks, as the API server knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("the API server cannot be asked: {0}")]
pub struct Unavailable(pub String);

/// What the endpoint asks the API server.
#[async_trait]
pub trait Reviewer: Send + Sync {
    /// Whose a token is; nobody's if it is not good.
    async fn user(&self, token: &str) -> Result<Option<User>, Unavailable>;
    /// May the user `get` the task?
    async fn may_get(&self, user: &User, target: &Target) -> Result<bool, Unavailable>;
    /// The task's artifacts; nothing if there is no such task.
    async fn artifacts(&self, target: &Target) -> Result<Option<Vec<Artifact>>, Unavailable>;
}

/// The API server itself.
pub struct ApiServer(pub Context);

#[async_trait]
impl Reviewer for ApiServer {
    async fn user(&self, token: &str) -> Result<Option<User>, Unavailable> {
        let spec = TokenReviewSpec { token: Some(token.into()), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.0.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(|e| Unavailable(e.to_string()))?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user.and_then(|u| Some(User { name: u.username?, uid: u.uid, groups: u.groups.unwrap_or_default() })))
    }

    async fn may_get(&self, user: &User, target: &Target) -> Result<bool, Unavailable> {
        let attributes = ResourceAttributes {
            group: Some(GROUP.into()),
            resource: Some(target.resource.clone()),
            namespace: Some(target.namespace.clone()),
            name: Some(target.name.clone()),
            verb: Some("get".into()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api: Api<SubjectAccessReview> = Api::all(self.0.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(|e| Unavailable(e.to_string()))?;
        Ok(answer.status.is_some_and(|s| s.allowed && s.denied != Some(true)))
    }

    async fn artifacts(&self, target: &Target) -> Result<Option<Vec<Artifact>>, Unavailable> {
        let (client, namespace) = (self.0.client.clone(), target.namespace.as_str());
        let failed = |e: kube::Error| Unavailable(e.to_string());
        let status = match target.resource.as_str() {
            "trainingtasks" => {
                let found =
                    Api::<TrainingTask>::namespaced(client, namespace).get_opt(&target.name).await.map_err(failed)?;
                found.map(|task| task.status)
            }
            _ => {
                let found =
                    Api::<InferenceTask>::namespaced(client, namespace).get_opt(&target.name).await.map_err(failed)?;
                found.map(|task| task.status)
            }
        };
        Ok(status.map(|status| status.unwrap_or_default().artifacts))
    }
}

/// A refusal, as a problem document.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    slug: &'static str,
    detail: String,
}

impl Refusal {
    fn new(status: StatusCode, slug: &'static str, detail: impl Into<String>) -> Self {
        Self { status, slug, detail: detail.into() }
    }

    fn respond(self) -> Response<bytes::Bytes> {
        let problem = Problem {
            kind: format!("https://freehold.dev/problems/{}", self.slug),
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            status: self.status.as_u16(),
            detail: Some(self.detail),
        };
        let mut answer = Response::new(Bytes::from(serde_json::to_vec(&problem).unwrap_or_default()));
        *answer.status_mut() = self.status;
        let kind = header::HeaderValue::from_static("application/problem+json");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

/// The endpoint, over a store and a reviewer.
pub fn routes(
    store: Store,
    reviewer: Arc<dyn Reviewer>,
) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    warp::get()
        .and(warp::path!("v1" / "namespaces" / String / String / String / "artifacts" / ..))
        .and(warp::path::tail())
        .and(warp::header::optional::<String>("authorization"))
        .then(move |namespace, resource, name, artifact: warp::path::Tail, token: Option<String>| {
            let (store, reviewer) = (store.clone(), reviewer.clone());
            async move {
                let target = Target { namespace, resource, name };
                match serve(&store, reviewer.as_ref(), &target, artifact.as_str(), token.as_deref()).await {
                    Ok(response) => response,
                    Err(refusal) => refusal.respond().into_response(),
                }
            }
        })
}

async fn serve(
    store: &Store,
    reviewer: &dyn Reviewer,
    target: &Target,
    artifact: &str,
    token: Option<&str>,
) -> Result<warp::reply::Response, Refusal> {
    authorize(reviewer, target, token).await?;
    let found = reviewer.artifacts(target).await.map_err(unavailable)?;
    let Some(artifacts) = found else {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "no-task",
            format!("there is no {} {}/{}", target.resource, target.namespace, target.name),
        ));
    };
    let Some(known) = artifacts.iter().find(|a| a.name == artifact) else {
        let names: Vec<&str> = artifacts.iter().map(|a| a.name.as_str()).collect();
        let has = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "no-artifact",
            format!("the task has no artifact `{artifact}`; it has: {has}"),
        ));
    };
    let path = store
        .path(&target.namespace, known.sha256.as_str())
        .map_err(|e| Refusal::new(StatusCode::NOT_FOUND, "no-artifact", e.to_string()))?;
    stream(path, known).await
}

async fn authorize(reviewer: &dyn Reviewer, target: &Target, token: Option<&str>) -> Result<(), Refusal> {
    let needed = || {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "no-token",
            "send `Authorization: Bearer <Kubernetes token>`, such as one of `kubectl create token`",
        )
    };
    let token = token
        .and_then(|t| t.strip_prefix("Bearer "))
        .map(str::trim)
        .filter(|t| !t.is_empty() && t.len() <= MAX_TOKEN)
        .ok_or_else(needed)?;
    if !["trainingtasks", "inferencetasks"].contains(&target.resource.as_str()) {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "no-kind",
            format!("`{}` is neither trainingtasks nor inferencetasks", target.resource),
        ));
    }
    let Some(user) = reviewer.user(token).await.map_err(unavailable)? else { return Err(needed()) };
    if reviewer.may_get(&user, target).await.map_err(unavailable)? {
        return Ok(());
    }
    let detail = format!("{} may not get {} {}/{}", user.name, target.resource, target.namespace, target.name);
    Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", detail))
}

fn unavailable(error: Unavailable) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())
}

async fn stream(path: PathBuf, artifact: &Artifact) -> Result<warp::reply::Response, Refusal> {
    let lost = |e: std::io::Error| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "lost",
            format!("the artifact {} is not in the store any more: {e}", artifact.sha256),
        )
    };
    let file = tokio::fs::File::open(&path).await.map_err(lost)?;
    let size = file.metadata().await.map_err(lost)?.len();
    let pieces = tokio_util::io::ReaderStream::with_capacity(file, CHUNK);
    let mut response = warp::reply::stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(size));
    if let Ok(tag) = header::HeaderValue::from_str(&format!("\"{}\"", artifact.sha256)) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}
