//! The public listener: what tenants call, each call signed.

use std::collections::HashMap;
use std::sync::Arc;

use freehold_core::access::Scope;
use freehold_core::manifest;
use http::{HeaderMap, Method, StatusCode};
use warp::filters::BoxedFilter;
use warp::{Filter, path};

use crate::gateway::Gateway;
use crate::problem::Failure;
use crate::store::Incoming;
use crate::web::{Answer, answer, body, content, empty, json, unrouted, whole};
use crate::{artifacts, auth, logs};

pub fn routes(gateway: Arc<Gateway>) -> BoxedFilter<(warp::reply::Response,)> {
    let idle = gateway.limits.idle();
    let shared = { warp::any().map(move || gateway.clone()) };
    let headers = warp::header::headers_cloned();
    let reads = warp::get().or(warp::head()).unify().and(warp::method());

    let put_manifest = path!("v1" / "leases" / String / "manifest")
        .and(warp::put())
        .and(shared.clone())
        .and(headers)
        .and(body(idle))
        .then(|id, gateway: Arc<Gateway>, headers, body| {
            answer(gateway.clone(), "manifest", put_manifest(gateway, id, headers, body))
        });
    let status = path!("v1" / "leases" / String / "status")
        .and(warp::get())
        .and(shared.clone())
        .and(headers)
        .then(|id, gateway: Arc<Gateway>, headers| answer(gateway.clone(), "status", status(gateway, id, headers)));
    let events = path!("v1" / "leases" / String / "events")
        .and(warp::get())
        .and(shared.clone())
        .and(headers)
        .then(|id, gateway: Arc<Gateway>, headers| answer(gateway.clone(), "events", events(gateway, id, headers)));
    let log = path!("v1" / "leases" / String / "logs")
        .and(warp::get())
        .and(shared.clone())
        .and(headers)
        .and(warp::query::<HashMap<String, String>>())
        .then(|id, gateway: Arc<Gateway>, headers, query| {
            answer(gateway.clone(), "logs", log(gateway, id, headers, query))
        });
    let get_artifact =
        path!("v1" / "leases" / String / "artifacts" / String).and(reads).and(shared.clone()).and(headers).then(
            |id, digest, method, gateway: Arc<Gateway>, headers| {
                answer(gateway.clone(), "artifact", get_artifact(gateway, id, digest, method, headers))
            },
        );
    let put_artifact = path!("v1" / "leases" / String / "artifacts" / String)
        .and(warp::put())
        .and(shared)
        .and(headers)
        .and(body(idle))
        .then(|id, digest, gateway: Arc<Gateway>, headers, body| {
            answer(gateway.clone(), "upload", put_artifact(gateway, id, digest, headers, body))
        });

    let leases = put_manifest.or(status).unify().boxed().or(events).unify().boxed().or(log).unify().boxed();
    // What an ingress asks, and the provider's operator: does the gateway answer under its public address?
    let alive = path!("healthz").and(warp::get()).map(|| empty(StatusCode::OK));
    let all = leases.or(get_artifact).unify().boxed().or(put_artifact).unify().boxed().or(alive).unify().boxed();
    all.recover(unrouted).unify().boxed()
}

async fn put_manifest(gateway: Arc<Gateway>, id: String, headers: HeaderMap, body: Incoming) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::tenant(&gateway, &lease, &headers, Scope::Write)?;
    gateway.take_manifest(&lease, whole(body, manifest::MAX_BYTES).await?).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn status(gateway: Arc<Gateway>, id: String, headers: HeaderMap) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::tenant(&gateway, &lease, &headers, Scope::Read)?;
    json(&gateway.lease_report(&lease).await?)
}

async fn events(gateway: Arc<Gateway>, id: String, headers: HeaderMap) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::tenant(&gateway, &lease, &headers, Scope::Read)?;
    Ok(content("application/x-ndjson", gateway.store.events(lease.id).await?))
}

async fn log(gateway: Arc<Gateway>, id: String, headers: HeaderMap, query: HashMap<String, String>) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::tenant(&gateway, &lease, &headers, Scope::Logs)?;
    logs::serve(gateway, lease, logs::Query::parse(&query)?).await
}

async fn get_artifact(gateway: Arc<Gateway>, id: String, digest: String, method: Method, headers: HeaderMap) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::tenant(&gateway, &lease, &headers, Scope::Read)?;
    artifacts::read(&gateway, &lease, &artifacts::digest(&digest)?, &method, &headers).await
}

async fn put_artifact(gateway: Arc<Gateway>, id: String, digest: String, headers: HeaderMap, body: Incoming) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::tenant(&gateway, &lease, &headers, Scope::Write)?;
    let digest = artifacts::digest(&digest)?;
    if lease.input_of(&digest).is_none() {
        return Err(Failure::unprocessable("not-an-input", format!("the order names no input of the digest {digest}")));
    }
    artifacts::write(&gateway, &lease, &digest, &headers, body).await
}
