//! The listener for the kubelet and for Prometheus.

use std::sync::Arc;

use http::StatusCode;
use warp::filters::BoxedFilter;
use warp::{Filter, path};

use crate::disk;
use crate::gateway::Gateway;
use crate::problem::Failure;
use crate::web::{content, empty, unrouted};

pub fn routes(gateway: Arc<Gateway>) -> BoxedFilter<(warp::reply::Response,)> {
    let shared = warp::any().map(move || gateway.clone());
    let alive = path!("healthz").and(warp::get()).map(|| empty(StatusCode::OK));
    // Without the list of leases every call would be answered 404.
    let ready = path!("readyz").and(warp::get()).and(shared.clone()).map(|gateway: Arc<Gateway>| {
        empty(if gateway.leases.synced() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
    });
    let metrics = path!("metrics").and(warp::get()).and(shared).map(|gateway: Arc<Gateway>| {
        match gateway.metrics.render(gateway.leases.all().len(), gateway.folder.as_deref().and_then(disk::of)) {
            Ok(page) => content("application/openmetrics-text; version=1.0.0; charset=utf-8", page.into()),
            Err(error) => Failure::internal(error).into_response(),
        }
    });
    alive.or(ready).unify().or(metrics).unify().recover(unrouted).unify().boxed()
}
