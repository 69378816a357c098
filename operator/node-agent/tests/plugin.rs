//! The device plugin against a kubelet of our own: real sockets, real gRPC, no sleeping.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may

mod fake;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fake::Fake;
use freehold_node_agent::health::Health;
use freehold_node_agent::inventory::{Offer, resources, with_lost};
use freehold_node_agent::nvml::{Device, Gpus, NvmlGpus};
use freehold_node_agent::plugin::{self, Config, Offers, PluginState};
use freehold_node_agent::proto::deviceplugin::device_plugin_client::DevicePluginClient;
use freehold_node_agent::proto::deviceplugin::registration_server::{Registration, RegistrationServer};
use freehold_node_agent::proto::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, Empty, ListAndWatchResponse, RegisterRequest,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

fn load(fake: &Fake) -> NvmlGpus {
    NvmlGpus::load(&fake.library()).unwrap()
}

/// For anything that should happen; far more than it takes.
const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, event).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

struct Registrar(mpsc::UnboundedSender<RegisterRequest>);

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(Empty {}))
    }
}

/// The registration server of a kubelet that has just started: it empties its folder first.
struct Kubelet {
    requests: mpsc::UnboundedReceiver<RegisterRequest>,
    server: tokio::task::JoinHandle<()>,
}

impl Kubelet {
    fn start(folder: &Path) -> Self {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            std::fs::remove_file(entry.path()).unwrap();
        }
        let listener = UnixListener::bind(folder.join("kubelet.sock")).unwrap();
        let (tell, requests) = mpsc::unbounded_channel();
        let server = tonic::transport::Server::builder().add_service(RegistrationServer::new(Registrar(tell)));
        let server = tokio::spawn(async move {
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Self { requests, server }
    }

    async fn registered(&mut self) -> RegisterRequest {
        soon("a registration", self.requests.recv()).await.unwrap()
    }

    fn restart(self, folder: &Path) -> Self {
        self.server.abort();
        Self::start(folder)
    }
}

/// A plugin that runs, and both ends of what it is told and tells.
struct Running {
    folder: TempDir,
    offers: watch::Sender<Offers>,
    state: watch::Receiver<PluginState>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(folder: TempDir, offers: Offers) -> Self {
        let (offers, offered) = watch::channel(offers);
        let (tell, state) = watch::channel(PluginState::Waiting("not begun".into()));
        let stop = CancellationToken::new();
        let registry = folder.path().join("registry");
        let config = Config { folder: folder.path().to_owned(), registry };
        let task = tokio::spawn(plugin::run(config, offered, tell, stop.clone()));
        Self { folder, offers, state, stop, task }
    }

    async fn is(&mut self, what: &str, state: impl Fn(&PluginState) -> bool) {
        soon(what, self.state.wait_for(|now| state(now))).await.unwrap();
    }

    async fn dial(&self, endpoint: &str) -> DevicePluginClient<Channel> {
        let socket = self.folder.path().join(endpoint);
        let endpoint = Endpoint::new(format!("unix://{}", socket.display())).unwrap();
        DevicePluginClient::new(soon("a connection", endpoint.connect()).await.unwrap())
    }

    async fn watch(&self, endpoint: &str) -> Devices {
        let stream = self.dial(endpoint).await.list_and_watch(Empty {}).await.unwrap();
        Devices(stream.into_inner())
    }
}

struct Devices(Streaming<ListAndWatchResponse>);

impl Devices {
    async fn next(&mut self) -> Option<Vec<(String, String)>> {
        let list = soon("a list of devices", self.0.message()).await.ok().flatten()?;
        Some(list.devices.into_iter().map(|device| (device.id, device.health)).collect())
    }
}

fn offers(devices: &[(&str, bool)]) -> Offers {
    let offer = |(uuid, healthy): &(&str, bool)| Offer { uuid: uuid.to_string(), healthy: *healthy };
    BTreeMap::from([("nvidia.com/gpu".into(), devices.iter().map(offer).collect())])
}

fn list(devices: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    Some(devices.iter().map(|(id, health)| (id.to_string(), health.to_string())).collect())
}

#[tokio::test]
async fn registers_follows_a_lost_device_and_outlives_the_kubelet() {
    let fake = Fake::new("two-h100");
    let gpus = load(&fake);
    let health = Health::default();
    let mut known: Vec<Device> = Vec::new();
    let mut look = || {
        known = with_lost(&gpus.inventory().unwrap(), &known);
        resources(&known, &health, "nvidia.com/gpu")
    };
    let (a, b) = ("GPU-3a1f6c52-88d4-4c1e-9b07-52e0d9c4f101", "GPU-c7e90b14-2d6a-4f83-8a55-0fb2e617d902");

    let folder = tempfile::tempdir().unwrap();
    let mut kubelet = Kubelet::start(folder.path());
    let mut plugin = Running::start(folder, look());
    let request = kubelet.registered().await;
    assert_eq!((request.version.as_str(), request.resource_name.as_str()), ("v1beta1", "nvidia.com/gpu"));
    assert_eq!(request.endpoint, "freehold-gpu.sock");
    plugin.is("being registered", |state| *state == PluginState::Registered).await;

    let mut devices = plugin.watch(&request.endpoint).await;
    assert_eq!(devices.next().await, list(&[(a, "Healthy"), (b, "Healthy")]));
    fake.control(&["lose", "0"]);
    plugin.offers.send_replace(look());
    assert_eq!(devices.next().await, list(&[(a, "Unhealthy"), (b, "Healthy")]));

    kubelet = kubelet.restart(plugin.folder.path());
    let request = kubelet.registered().await;
    assert_eq!(devices.next().await, None, "the old stream has ended");
    let mut devices = plugin.watch(&request.endpoint).await;
    assert_eq!(devices.next().await, list(&[(a, "Unhealthy"), (b, "Healthy")]));
    fake.control(&["restore", "0"]);
    plugin.offers.send_replace(look());
    assert_eq!(devices.next().await, list(&[(a, "Healthy"), (b, "Healthy")]));

    plugin.stop.cancel();
    soon("the end", plugin.task).await.unwrap();
    assert_eq!(devices.next().await, None);
    assert!(!plugin.folder.path().join("freehold-gpu.sock").exists());
}

#[tokio::test]
async fn a_container_is_given_what_it_was_promised_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut kubelet = Kubelet::start(folder.path());
    let plugin = Running::start(folder, offers(&[("GPU-a", true), ("GPU-b", true), ("GPU-c", false)]));
    let mut client = plugin.dial(&kubelet.registered().await.endpoint).await;
    let ask = |ids: &[&str]| {
        let container = ContainerAllocateRequest { devices_ids: ids.iter().map(ToString::to_string).collect() };
        AllocateRequest { container_requests: vec![container] }
    };
    let given = client.allocate(ask(&["GPU-a", "GPU-b"])).await.unwrap().into_inner();
    let container = &given.container_responses[0];
    assert_eq!(container.envs["NVIDIA_VISIBLE_DEVICES"], "GPU-a,GPU-b");
    let names: Vec<_> = container.cdi_devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["freehold.dev/gpu=GPU-a", "freehold.dev/gpu=GPU-b"]);
    assert!(container.devices.is_empty() && container.mounts.is_empty(), "CDI does it");

    let refused = client.allocate(ask(&["GPU-c"])).await.unwrap_err();
    assert!(refused.message().contains("GPU-c is not healthy"), "{refused}");
}

#[tokio::test]
async fn each_mig_profile_is_a_resource_of_its_own() {
    let fake = Fake::new("a100-mig");
    let inventory = load(&fake).inventory().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut kubelet = Kubelet::start(folder.path());
    let plugin = Running::start(folder, resources(&inventory.devices, &Health::default(), "nvidia.com/gpu"));
    let request = kubelet.registered().await;
    assert_eq!(request.resource_name, "nvidia.com/mig-1g.10gb");
    assert_eq!(plugin.watch(&request.endpoint).await.next().await.unwrap().len(), 7);

    // Another profile appears, and the first is taken apart.
    let offer = vec![Offer { uuid: "MIG-x".into(), healthy: true }];
    plugin.offers.send_replace(BTreeMap::from([("nvidia.com/mig-1g.10gb.me".into(), offer)]));
    let second = kubelet.registered().await;
    assert_eq!(second.resource_name, "nvidia.com/mig-1g.10gb.me");
    assert_eq!(plugin.watch(&request.endpoint).await.next().await, Some(vec![]));
}

async fn refuses_beside(other: impl Fn(&Path) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut kubelet = Kubelet::start(folder.path());
    let other = other(folder.path());
    std::fs::create_dir_all(other.parent().unwrap()).unwrap();
    std::fs::write(&other, "").unwrap();
    let mut plugin = Running::start(folder, offers(&[("GPU-a", true)]));
    let name = other.file_name().unwrap().to_str().unwrap().to_owned();
    plugin.is("a conflict", |state| matches!(state, PluginState::Conflict(why) if why.contains(&name))).await;
    assert!(kubelet.requests.try_recv().is_err(), "nothing is registered");
    assert!(!plugin.folder.path().join("freehold-gpu.sock").exists());

    std::fs::remove_file(&other).unwrap();
    assert_eq!(kubelet.registered().await.resource_name, "nvidia.com/gpu");
}

#[tokio::test]
async fn refuses_beside_nvidia_s_plugin_until_it_is_gone() {
    refuses_beside(|folder| folder.join("nvidia-gpu.sock")).await;
}

#[tokio::test]
async fn refuses_beside_nvidia_s_dra_driver_until_it_is_gone() {
    refuses_beside(|folder| folder.join("registry/gpu.nvidia.com-reg.sock")).await;
}

#[tokio::test]
async fn registers_again_when_a_later_plugin_has_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut kubelet = Kubelet::start(folder.path());
    let mut plugin = Running::start(folder, offers(&[("GPU-a", true)]));
    let endpoint = kubelet.registered().await.endpoint;
    let mut devices = plugin.watch(&endpoint).await;
    assert!(devices.next().await.is_some());
    let other = plugin.folder.path().join("nvidia-gpu.sock");
    std::fs::write(&other, "").unwrap();
    plugin.is("a conflict", |state| matches!(state, PluginState::Conflict(_))).await;
    // What is served goes on meanwhile.
    plugin.offers.send_replace(offers(&[("GPU-a", false)]));
    assert_eq!(devices.next().await, list(&[("GPU-a", "Unhealthy")]));
    std::fs::remove_file(&other).unwrap();
    kubelet.registered().await;
}

#[tokio::test]
async fn waits_for_a_kubelet_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut plugin = Running::start(folder, offers(&[("GPU-a", true)]));
    plugin.is("waiting", |state| matches!(state, PluginState::Waiting(why) if why.contains("kubelet.sock"))).await;
    let mut kubelet = Kubelet::start(plugin.folder.path());
    kubelet.registered().await;
}
