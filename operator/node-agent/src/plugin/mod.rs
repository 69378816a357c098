//! The kubelet's device-plugin API (v1beta1), served for whole GPUs and for each MIG profile.
//!
//! A plugin is a socket in the kubelet's folder, announced to `kubelet.sock`; the kubelet then dials back
//! and keeps one stream open. When the kubelet restarts it empties the folder and says nothing, so
//! `kubelet.sock` is looked at once a second, and everything is bound and announced anew when it is
//! another one.

mod kubelet;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::inventory::Offer;
use kubelet::Identity;

/// How often the kubelet's folder is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Our sockets begin so; it tells them from NVIDIA's (`nvidia-gpu.sock`).
const SOCKET_PREFIX: &str = "freehold-";

/// Resource names and their devices.
pub type Offers = BTreeMap<String, Vec<Offer>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginState {
    /// Not registered, and why.
    Waiting(String),
    Registered,
    /// Another plugin serves these GPUs, and which.
    Conflict(String),
}

#[derive(Clone, Debug)]
pub struct Config {
    /// The kubelet's `device-plugins`.
    pub folder: PathBuf,
    /// The kubelet's `plugins_registry`, where DRA drivers announce themselves.
    pub registry: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("socket {} cannot be bound: {source}; is the device-plugin folder mounted writable?", path.display())]
    Bind { path: PathBuf, source: std::io::Error },
    #[error("the kubelet does not answer on {}: {source}", path.display())]
    Dial { path: PathBuf, source: tonic::transport::Error },
    #[error("the kubelet refused {resource}: {source}")]
    Refused { resource: String, source: Box<tonic::Status> },
}

/// Serves until `stop`, then takes its sockets away.
pub async fn run(
    config: Config,
    offers: watch::Receiver<Offers>,
    state: watch::Sender<PluginState>,
    stop: CancellationToken,
) {
    let mut plugin = Plugin { config, offers, serving: None, contested: false };
    loop {
        let now = plugin.pass().await;
        state.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                tracing::info!(state = ?now, "device plugin");
                *before = now;
            }
            changed
        });
        tokio::select! {
            () = stop.cancelled() => break,
            _ = plugin.offers.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    plugin.withdraw().await;
}

struct Plugin {
    config: Config,
    offers: watch::Receiver<Offers>,
    serving: Option<Serving>,
    /// Another plugin was there in the last pass.
    contested: bool,
}

/// What has been announced, and to which kubelet.
struct Serving {
    kubelet: Identity,
    servers: BTreeMap<String, server::Server>,
}

impl Plugin {
    async fn pass(&mut self) -> PluginState {
        // Whoever registered last has the resource, and leaving would mark it unhealthy for the other
        // plugin too: so what is served goes on being served, but nothing is announced.
        if let Some(other) = kubelet::other_plugin(&self.config) {
            self.contested = true;
            return PluginState::Conflict(other);
        }
        let socket = self.config.folder.join("kubelet.sock");
        let kubelet = match Identity::of(&socket) {
            Ok(kubelet) => kubelet,
            Err(error) => return PluginState::Waiting(format!("no kubelet at {}: {error}", socket.display())),
        };
        // The other plugin may have taken the resource over, and has left it marked unhealthy.
        if std::mem::take(&mut self.contested) || self.is_stale(kubelet) {
            self.withdraw().await;
        }
        match self.announce(kubelet, &socket).await {
            Ok(()) if self.serving.as_ref().is_some_and(|s| !s.servers.is_empty()) => PluginState::Registered,
            Ok(()) => PluginState::Waiting("no device was found yet".into()),
            Err(error) => PluginState::Waiting(error.to_string()),
        }
    }

    /// The kubelet is another one, or it has removed our sockets.
    fn is_stale(&self, kubelet: Identity) -> bool {
        self.serving.as_ref().is_some_and(|serving| {
            serving.kubelet != kubelet || serving.servers.values().any(|server| !server.socket().exists())
        })
    }

    /// Binds and registers each resource that has devices and is not served yet. A resource whose devices
    /// are gone stays, empty.
    async fn announce(&mut self, kubelet: Identity, socket: &Path) -> Result<(), Error> {
        let wanted: Vec<String> = self.offers.borrow_and_update().keys().cloned().collect();
        let serving = self.serving.get_or_insert_with(|| Serving { kubelet, servers: BTreeMap::new() });
        for resource in wanted {
            if serving.servers.contains_key(&resource) {
                continue;
            }
            let endpoint = self.config.folder.join(socket_name(&resource));
            let server = server::Server::start(endpoint, &resource, self.offers.clone())?;
            kubelet::register(socket, server.socket(), &resource).await?;
            serving.servers.insert(resource, server);
        }
        Ok(())
    }

    async fn withdraw(&mut self) {
        for server in self.serving.take().into_iter().flat_map(|serving| serving.servers.into_values()) {
            server.stop().await;
        }
    }
}

/// `nvidia.com/mig-1g.10gb` → `freehold-mig-1g.10gb.sock`
fn socket_name(resource: &str) -> String {
    let name = resource.rsplit('/').next().unwrap_or(resource);
    format!("{SOCKET_PREFIX}{name}.sock")
}
