//! The agent of one GPU node: tells the cluster what NVML says about its devices (GpuNode), serves the
//! kubelet's device-plugin API if asked to, and watches the devices' health.
//!
//! One loop: every few seconds, and at once after an event, it reads NVML and the kubelet anew and acts on
//! what it sees. Only the record of Xids is carried from one pass to the next (`health`).

mod agent;
pub mod cdi;
pub mod health;
pub mod inventory;
pub mod isolation;
pub mod metrics;
pub mod nvml;
pub mod plugin;
pub mod pod_resources;
pub mod proto;
mod publish;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use inventory::PluginMode;
pub use isolation::{ProbeArgs, probe};

/// The agent of one GPU node.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentArgs {
    /// Name of the Node that the agent runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Release that the node belongs to, as `namespace.name`.
    #[arg(long, env = "FREEHOLD_RELEASE")]
    pub release: String,
    /// Namespace of the agents; the GpuNode goes when it goes.
    #[arg(long, env = "FREEHOLD_NAMESPACE")]
    pub namespace: Option<String>,
    /// NVML's library. With an absolute path, the driver's other libraries are looked for beside it.
    #[arg(long, env = "FREEHOLD_NVML_LIBRARY", default_value = "libnvidia-ml.so.1")]
    pub nvml_library: PathBuf,
    /// Folder of the device files, by the node's own path.
    #[arg(long, env = "FREEHOLD_DEV_ROOT", default_value = "/dev")]
    pub dev_root: PathBuf,
    /// Where the runtime reads CDI specs.
    #[arg(long, env = "FREEHOLD_CDI_DIR", default_value = "/var/run/cdi")]
    pub cdi_dir: PathBuf,
    /// The kubelet's folder of device-plugin sockets.
    #[arg(long, env = "FREEHOLD_DEVICE_PLUGIN_DIR", default_value = "/var/lib/kubelet/device-plugins")]
    pub device_plugin_dir: PathBuf,
    /// Where DRA drivers announce themselves; looked at for NVIDIA's, if it is mounted.
    #[arg(long, env = "FREEHOLD_PLUGINS_REGISTRY", default_value = "/var/lib/kubelet/plugins_registry")]
    pub plugins_registry: PathBuf,
    /// The kubelet's pod-resources socket.
    #[arg(long, env = "FREEHOLD_POD_RESOURCES", default_value = "/var/lib/kubelet/pod-resources/kubelet.sock")]
    pub pod_resources: PathBuf,
    /// What the isolation probe in the agent's pod has seen.
    #[arg(long, env = "FREEHOLD_ISOLATION_REPORT", default_value = "/run/freehold/isolation/report")]
    pub isolation_report: PathBuf,
    /// Who hands GPUs to pods.
    #[arg(long, env = "FREEHOLD_GPU_PLUGIN", default_value = "external")]
    pub plugin: PluginMode,
    /// Name of the extended resource for whole GPUs.
    #[arg(long, env = "FREEHOLD_GPU_RESOURCE", default_value = "nvidia.com/gpu", value_parser = resource_name)]
    pub resource: String,
    /// Seconds between two passes.
    #[arg(long, env = "FREEHOLD_GPU_INTERVAL", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=300))]
    pub interval: u64,
    /// Address of /healthz and /metrics.
    #[arg(long, env = "FREEHOLD_LISTEN", default_value = "0.0.0.0:8083")]
    pub listen: SocketAddr,
}

fn resource_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((domain, name)) if domain.contains('.') && !name.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not the name of an extended resource, such as nvidia.com/gpu")),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the API server cannot be used: {0}")]
    Client(#[source] kube::Error),
    #[error("no client configuration was found in the cluster or in KUBECONFIG: {0}")]
    Config(#[from] kube::config::InferConfigError),
    #[error("{listen} cannot be listened on: {source}; choose another --listen")]
    Listen { listen: SocketAddr, source: std::io::Error },
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

/// Runs until SIGTERM or SIGINT. What is unavailable (driver, kubelet, API server) is waited for.
pub async fn run(args: AgentArgs) -> Result<(), Error> {
    let config = kube::Config::infer().await?;
    let client = kube::Client::try_from(config).map_err(Error::Client)?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;

    let metrics = metrics::Metrics::default();
    let limit = Duration::from_secs(args.interval * 3 + 60);
    let server = metrics::serve(args.listen, metrics.clone(), limit, stop.clone());
    let listen = args.listen;
    let work = agent::run(args, client, metrics, stop.clone());
    let (served, ()) = tokio::join!(
        async {
            let served = server.await;
            stop.cancel(); // without its probe the agent would be killed without a word
            served
        },
        work
    );
    served.map_err(|source| Error::Listen { listen, source })
}

fn stop_on_signal(stop: CancellationToken) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(())
}
