//! Listeners: a bound on connections, on the time to send a request's head and
//! on a connection's life, so that nobody can hold the gateway by being slow.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use warp::filters::BoxedFilter;

use crate::slots::{Slot, Slots};

const HEAD: Duration = Duration::from_secs(15);
const CONNECTION: Duration = Duration::from_secs(2 * 3600);
/// For requests that are under way at the end.
const FAREWELL: Duration = Duration::from_secs(10);

pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| format!("cannot listen on {address}: {e}"))
}

/// Serves until `stop` turns true, then lets requests finish. Connections are
/// bounded in all and from one address; those beyond are closed at once.
pub async fn serve(
    listener: TcpListener,
    routes: BoxedFilter<(warp::reply::Response,)>,
    connections: Slots<IpAddr>,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some((stream, slot)) = accepted else { continue };
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
        let service = TowerToHyperService::new(warp::service(routes.clone()));
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let _slot = slot;
            let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION, connection).await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    let _ = tokio::time::timeout(FAREWELL, graceful.shutdown()).await;
}

async fn accept(listener: &TcpListener, connections: &Slots<IpAddr>) -> Option<(TcpStream, Slot<IpAddr>)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            let slot = connections.take(peer.ip())?;
            let _ = stream.set_nodelay(true);
            Some((stream, slot))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            // Out of file descriptors, most likely: they come back with time.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
