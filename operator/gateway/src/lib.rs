//! Freehold's gateway: a provider's public face, and the store behind it.
//!
//! ```text
//! tenant's operator ──signed calls──▶ public  :8080 ┐
//! pods of leases ────pod tokens─────▶ courier :8081 ├─▶ Store (a folder)
//! provider's operator ──────────────▶ courier :8081 ┘     ▲
//!                          inputs by URL ──▶ fetch ───────┘
//! ```
//!
//! It learns of leases by watching ComputeLeases and writes nothing to the
//! cluster. [`client`] is the tenant's side of the public listener,
//! [`courier`] the pods' side of the other.

pub mod address;
mod args;
pub mod artifacts;
mod auth;
pub mod client;
pub mod courier;
pub mod digest;
pub mod disk;
pub mod fetch;
pub mod gateway;
mod health;
pub mod janitor;
pub mod leases;
pub mod logs;
pub mod metrics;
pub mod problem;
pub mod public;
pub mod range;
pub mod reviews;
pub mod serve;
pub mod slots;
pub mod store;
pub mod transfer;
pub mod web;
pub mod work;

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use args::{GatewayArgs, Limits, cidrs, host_of};

/// Connections of one pod at a time.
const POD_CONNECTIONS: usize = 32;

/// Unix seconds now.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Args(String),
    #[error("the store at {path}: {source}")]
    Store { path: String, source: std::io::Error },
    #[error("no way to the API server: {0}")]
    Kubernetes(#[from] kube::Error),
    #[error("{0}")]
    Listen(String),
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

/// Runs the gateway until SIGTERM or SIGINT.
pub async fn run(args: GatewayArgs) -> Result<(), Error> {
    let policy = args.policy().map_err(Error::Args)?;
    let hosts = args.hosts().map_err(Error::Args)?;
    let path = args.store.display().to_string();
    let store = store::Store::open(&args.store, args.lease_quota).map_err(|source| Error::Store { path, source })?;
    let client = kube::Client::try_default().await?;
    let clock = system_clock();
    let leases = Arc::new(leases::Leases::default());
    let gateway = Arc::new(gateway::Gateway::new(gateway::Parts {
        leases: leases.clone(),
        store,
        reviews: reviews::Reviews::new(
            Arc::new(reviews::ApiServer::new(client.clone(), reviews::AUDIENCE)),
            clock.clone(),
        ),
        pod_logs: Arc::new(logs::Kubelet::new(client.clone())),
        clock,
        hosts,
        operator_account: args.operator_account.clone(),
        folder: Some(args.store.clone()),
        limits: args.limits.clone(),
    }));
    let listeners = (
        serve::bind(args.listen).await.map_err(Error::Listen)?,
        serve::bind(args.courier_listen).await.map_err(Error::Listen)?,
        serve::bind(args.health_listen).await.map_err(Error::Listen)?,
    );
    let (stop, stopped) = watch::channel(false);
    let total = args.limits.connections;
    // Tenants come through an ingress, with its address; pods come with their own.
    let places = |each: usize| slots::Slots::new(total, each.min(total));
    let servers = futures::future::join3(
        serve::serve(listeners.0, public::routes(gateway.clone()), places(total), stopped.clone()),
        serve::serve(listeners.1, work::routes(gateway.clone()), places(POD_CONNECTIONS), stopped.clone()),
        serve::serve(listeners.2, health::routes(gateway.clone()), places(total), stopped),
    );
    let (mut term, mut int) = (
        signal(SignalKind::terminate()).map_err(Error::Signals)?,
        signal(SignalKind::interrupt()).map_err(Error::Signals)?,
    );
    let signals = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::info!("stopping; requests under way may finish");
        stop.send_replace(true);
        std::future::pending::<()>().await
    };
    tracing::info!(public = %args.listen, courier = %args.courier_listen, store = %args.store.display(), "gateway ready");
    tokio::select! {
        _ = servers => {}
        () = leases::follow(client, &args.namespace, leases) => {}
        () = fetch::run(gateway.clone(), policy) => {}
        () = janitor::run(gateway) => {}
        () = signals => {}
    }
    Ok(())
}
