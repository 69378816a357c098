//! The courier listener: what the lease's pods and the provider's operator call.

use std::sync::Arc;

use freehold_api::lease::LeasePhase;
use freehold_core::progress;
use freehold_core::result::{self, ResultFile};
use freehold_core::spec::is_file_name;
use freehold_core::wire::CheckpointNote;
use http::{HeaderMap, Method, StatusCode};
use warp::filters::BoxedFilter;
use warp::{Filter, path};

use crate::auth::Caller;
use crate::digest::Digest;
use crate::gateway::Gateway;
use crate::leases::Lease;
use crate::problem::Failure;
use crate::store::{Incoming, LOG};
use crate::web::{Answer, answer, body, content, empty, json, set, unrouted, whole};
use crate::{artifacts, auth};

/// Largest small document (progress, checkpoint).
const NOTE: usize = 16 * 1024;

pub fn routes(gateway: Arc<Gateway>) -> BoxedFilter<(warp::reply::Response,)> {
    let idle = gateway.limits.idle();
    let shared = { warp::any().map(move || gateway.clone()) };
    let headers = warp::header::headers_cloned();
    let reads = warp::get().or(warp::head()).unify().and(warp::method());

    let report = path!("v1" / "work" / String)
        .and(warp::get())
        .and(shared.clone())
        .and(headers)
        .then(|id, gateway: Arc<Gateway>, headers| answer(gateway.clone(), "work", report(gateway, id, headers)));
    let manifest = path!("v1" / "work" / String / "manifest").and(warp::get()).and(shared.clone()).and(headers).then(
        |id, gateway: Arc<Gateway>, headers| answer(gateway.clone(), "work-manifest", manifest(gateway, id, headers)),
    );
    let get_artifact =
        path!("v1" / "work" / String / "artifacts" / String).and(reads).and(shared.clone()).and(headers).then(
            |id, digest, method, gateway: Arc<Gateway>, headers| {
                answer(gateway.clone(), "work-artifact", get_artifact(gateway, id, digest, method, headers))
            },
        );
    let put_artifact = path!("v1" / "work" / String / "artifacts" / String)
        .and(warp::put())
        .and(shared.clone())
        .and(headers)
        .and(body(idle))
        .then(|id, digest, gateway: Arc<Gateway>, headers, body| {
            answer(gateway.clone(), "work-upload", put_artifact(gateway, id, digest, headers, body))
        });
    let post = path!("v1" / "work" / String / String).and(warp::post()).and(shared).and(headers).and(body(idle)).then(
        |id, what, gateway: Arc<Gateway>, headers, body| {
            answer(gateway.clone(), "work-post", post(gateway, id, what, headers, body))
        },
    );

    let all = report.or(manifest).unify().boxed().or(get_artifact).unify().boxed();
    let all = all.or(put_artifact).unify().boxed().or(post).unify().boxed();
    all.recover(unrouted).unify().boxed()
}

async fn report(gateway: Arc<Gateway>, id: String, headers: HeaderMap) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::caller(&gateway, &lease, &headers).await?;
    json(&gateway.work_report(&lease).await?)
}

async fn manifest(gateway: Arc<Gateway>, id: String, headers: HeaderMap) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::caller(&gateway, &lease, &headers).await?;
    let bytes = gateway.store.manifest(lease.id).await?.ok_or_else(|| Failure::not_found("no manifest is held yet"))?;
    let mut response = content("application/json", bytes);
    set(&mut response, "etag", format_args!("\"{}\"", lease.manifest));
    Ok(response)
}

async fn get_artifact(gateway: Arc<Gateway>, id: String, digest: String, method: Method, headers: HeaderMap) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::caller(&gateway, &lease, &headers).await?;
    artifacts::read(&gateway, &lease, &artifacts::digest(&digest)?, &method, &headers).await
}

async fn put_artifact(gateway: Arc<Gateway>, id: String, digest: String, headers: HeaderMap, body: Incoming) -> Answer {
    let lease = gateway.lease(&id)?;
    auth::caller(&gateway, &lease, &headers).await?;
    artifacts::write(&gateway, &lease, &artifacts::digest(&digest)?, &headers, body).await
}

async fn post(gateway: Arc<Gateway>, id: String, what: String, headers: HeaderMap, body: Incoming) -> Answer {
    let lease = gateway.lease(&id)?;
    let caller = auth::caller(&gateway, &lease, &headers).await?;
    match (what.as_str(), caller) {
        ("progress", _) => take_progress(&gateway, &lease, body).await?,
        ("checkpoints", _) => take_checkpoint(&gateway, &lease, body).await?,
        ("result", _) => take_result(&gateway, &lease, body).await?,
        ("logs", Caller::Operator) => gateway.store.append_log(lease.id, &whole(body, LOG).await?).await?,
        ("logs", Caller::Pod) => {
            let detail = "logs are stored by the provider's operator";
            return Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        _ => return Err(Failure::not_found("there is nothing at this path")),
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn take_progress(gateway: &Gateway, lease: &Lease, body: Incoming) -> Result<(), Failure> {
    let bytes = whole(body, NOTE).await?;
    let line = std::str::from_utf8(&bytes).ok().and_then(progress::parse);
    let line = line.ok_or_else(|| Failure::bad_request("this is not a line of progress"))?;
    Ok(gateway.store.put_progress(lease.id, &line).await?)
}

async fn take_checkpoint(gateway: &Gateway, lease: &Lease, body: Incoming) -> Result<(), Failure> {
    let note: CheckpointNote =
        serde_json::from_slice(&whole(body, NOTE).await?).map_err(|e| Failure::bad_request(e.to_string()))?;
    if !is_file_name(&note.file_name) {
        return Err(Failure::bad_request(
            "a checkpoint's fileName is of A-Z, a-z, 0-9, ., - and _, with no . in front",
        ));
    }
    if !note.fits() {
        return Err(Failure::bad_request(
            "a checkpoint has at most 10^12 steps, 10^15 bytes and a SHA-256 in lower case",
        ));
    }
    let inputs: Vec<Digest> = lease.inputs.iter().filter_map(|input| input.sha256.as_str().parse().ok()).collect();
    let message = format!("step {}, {} bytes, {}", note.step, note.size, note.sha256);
    let known = gateway.store.checkpoints(lease.id).await?.contains(&note);
    gateway.store.note_checkpoint(lease.id, note, &inputs).await?;
    if !known {
        gateway.tell(lease, "CheckpointStored", message).await;
    }
    Ok(())
}

async fn take_result(gateway: &Gateway, lease: &Lease, body: Incoming) -> Result<(), Failure> {
    let bytes = whole(body, result::MAX_BYTES).await?;
    let digest = Digest::of(&bytes);
    if let Some(known) = gateway.store.result(lease.id).await? {
        if known == digest {
            return Ok(());
        }
        // Its hash may be on the chain by now.
        if matches!(lease.phase, LeasePhase::Finished | LeasePhase::Delivered | LeasePhase::Closed) {
            return Err(Failure::conflict("result-fixed", format!("the lease has the result {known}; it stays")));
        }
    }
    let parsed = ResultFile::parse(&bytes).map_err(|e| Failure::unprocessable("bad-result", e.to_string()))?;
    gateway.store.put_result(lease.id, bytes, &parsed).await?;
    gateway.tell(lease, "ResultReceived", format!("{} outputs, result {digest}", parsed.outputs.len())).await;
    Ok(())
}
