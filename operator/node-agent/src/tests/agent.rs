//! The whole loop: fake NVML library, a kubelet's pod resources on a socket, an API server for one object.

use std::sync::Mutex;

use freehold_api::conditions::is_true;
use freehold_api::provider::{DeviceState, GpuNodeStatus};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::proto::podresources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use crate::proto::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};
use crate::publish::tests::Server;

#[path = "../../tests/fake/mod.rs"]
mod fake;
use fake::Fake;

const FIRST: &str = "GPU-3a1f6c52-88d4-4c1e-9b07-52e0d9c4f101";

/// Devices by pod.
#[derive(Clone, Default)]
struct Pods(Arc<Mutex<Vec<(String, String)>>>);

fn gpus(ids: &[&str]) -> Vec<ContainerDevices> {
    let device_ids = ids.iter().map(ToString::to_string).collect();
    vec![ContainerDevices { resource_name: "nvidia.com/gpu".into(), device_ids, topology: None }]
}

#[tonic::async_trait]
impl PodResourcesLister for Pods {
    async fn list(&self, _: Request<ListPodResourcesRequest>) -> Result<Response<ListPodResourcesResponse>, Status> {
        let pod = |(name, device): &(String, String)| PodResources {
            name: name.clone(),
            namespace: "fh-lease-1".into(),
            containers: vec![ContainerResources {
                name: "trainer".into(),
                devices: gpus(&[device]),
                ..Default::default()
            }],
        };
        let pod_resources = self.0.lock().unwrap().iter().map(pod).collect();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        Ok(Response::new(AllocatableResourcesResponse { devices: gpus(&[FIRST]), ..Default::default() }))
    }

    async fn get(&self, _: Request<GetPodResourcesRequest>) -> Result<Response<GetPodResourcesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A node without an agent.
struct Node {
    folder: TempDir,
    fake: Fake,
    pods: Pods,
    api: Server,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pods = Pods::default();
        let listener = UnixListener::bind(folder.path().join("pods.sock")).unwrap();
        let server = tonic::transport::Server::builder().add_service(PodResourcesListerServer::new(pods.clone()));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { folder, fake: Fake::new("two-h100"), pods, api: Server::default() }
    }

    fn agent(&self) -> (CancellationToken, JoinHandle<()>) {
        let path = |name: &str| self.folder.path().join(name);
        let args = AgentArgs {
            node_name: "n".into(),
            release: "freehold-provider.freehold".into(),
            namespace: None,
            nvml_library: self.fake.library(),
            dev_root: path("dev"),
            cdi_dir: path(""),
            device_plugin_dir: path("absent"),
            plugins_registry: path("absent"),
            pod_resources: path("pods.sock"),
            isolation_report: path("isolation"),
            plugin: PluginMode::Builtin,
            resource: "nvidia.com/gpu".into(),
            interval: 1,
            listen: ([127, 0, 0, 1], 0).into(),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(args, self.api.client(), Metrics::default(), stop.clone()));
        (stop, task)
    }

    async fn until(&self, what: &str, holds: impl Fn(&GpuNodeStatus) -> bool) -> GpuNodeStatus {
        let poll = async {
            loop {
                if let Some(status) = self.api.object().and_then(|node| node.status).filter(&holds) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), poll).await;
        waited.unwrap_or_else(|_| panic!("{what} was not published: {:?}", self.api.object()))
    }
}

fn first(status: &GpuNodeStatus) -> DeviceState {
    status.devices[0].state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_on_the_node_is_published() {
    let node = Node::new();
    let (stop, task) = node.agent();
    let status = node.until("the inventory", |status| status.free == Some(2)).await;
    assert!(is_true(&status.conditions, "Healthy") && is_true(&status.conditions, "Sellable"));
    assert!(!is_true(&status.conditions, "PluginReady"), "there is no kubelet to register with");
    let spec = std::fs::read_to_string(node.folder.path().join("freehold.dev-gpu.json")).unwrap();
    assert!(spec.contains(FIRST) && spec.contains("/dev/nvidia1"), "{spec}");

    node.pods.0.lock().unwrap().push(("task".into(), FIRST.into()));
    let status = node.until("the pod", |status| status.free == Some(1)).await;
    assert_eq!(status.devices[0].pod.as_ref().unwrap().name, "task");

    node.fake.control(&["lose", "0"]);
    let status = node.until("the loss", |status| first(status) == DeviceState::Lost).await;
    assert_eq!(status.devices[0].uuid, FIRST);
    assert_eq!(status.devices[0].pod.as_ref().unwrap().name, "task", "the lease can be told");
    node.fake.control(&["restore", "0"]);
    node.until("the return", |status| first(status) == DeviceState::Healthy).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_xid_outlives_the_agent_until_somebody_clears_it() {
    let node = Node::new();
    let (stop, task) = node.agent();
    node.fake.control(&["xid", "0", "79"]);
    let status = node.until("the Xid", |status| first(status) == DeviceState::XidError).await;
    assert_eq!(status.devices[0].xid, Some(79));
    stop.cancel();
    task.await.unwrap();

    // The driver tells an event once; here it is forgotten by hand. The next agent has its own record.
    node.fake.control(&["clear"]);
    let (stop, task) = node.agent();
    node.fake.control(&["lose", "1"]);
    let status = node.until("a pass of the next agent", |status| status.devices[1].state == DeviceState::Lost).await;
    assert_eq!(first(&status), DeviceState::XidError);
    stop.cancel();
    task.await.unwrap();

    node.api.annotate("freehold.dev/reset-health", FIRST);
    let (stop, task) = node.agent();
    let status = node.until("the reset", |status| first(status) == DeviceState::Healthy).await;
    assert_eq!(status.devices[1].state, DeviceState::Lost);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_comes_late_is_found() {
    let node = Node::new();
    let (library, away) = (node.fake.library(), node.folder.path().join("away"));
    std::fs::rename(&library, &away).unwrap();
    let (stop, task) = node.agent();
    let status = node.until("the absence", |status| status.total == Some(0)).await;
    assert_eq!(status.health.unwrap().0, "NVML unavailable");
    let sellable = freehold_api::conditions::find(&status.conditions, "Sellable").unwrap();
    assert_eq!(sellable.reason, "NvmlUnavailable");
    assert!(sellable.message.contains("--nvml-library"), "{}", sellable.message);
    std::fs::rename(&away, &library).unwrap();
    node.until("the devices", |status| status.total == Some(2)).await;
    stop.cancel();
    task.await.unwrap();
}
