//! Which pod holds which device, as the kubelet says (pod-resources API, v1).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use freehold_api::provider::PodRef;
use tonic::transport::{Channel, Endpoint};

use crate::proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use crate::proto::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse,
};

/// The kubelet answers from memory; longer means that it hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Pods by the UUID of the device.
    pub pods: BTreeMap<String, PodRef>,
    /// A plugin offers resources of the domain.
    pub offered: bool,
    /// One device is offered several times over.
    pub shared: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{socket} is not a path that gRPC can dial: {source}")]
    Path { socket: String, source: tonic::transport::Error },
    #[error("the kubelet does not answer on {socket}: {source}; is the pod-resources folder mounted?")]
    Connect { socket: String, source: tonic::transport::Error },
    #[error("the kubelet cannot list pod resources: {0}")]
    List(#[from] Box<tonic::Status>),
}

/// Asks the kubelet about all resources of `domain`, such as `nvidia.com`.
pub async fn list(socket: &Path, domain: &str) -> Result<Allocations, Error> {
    let mut kubelet = PodResourcesListerClient::new(dial(socket).await?).max_decoding_message_size(16 << 20);
    let pods = kubelet.list(ListPodResourcesRequest {}).await.map_err(Box::new)?;
    let offers = kubelet.get_allocatable_resources(AllocatableResourcesRequest {}).await.map_err(Box::new)?;
    Ok(allocations(pods.get_ref(), offers.get_ref(), domain))
}

async fn dial(socket: &Path) -> Result<Channel, Error> {
    let name = socket.display().to_string();
    let endpoint = Endpoint::new(format!("unix://{name}"))
        .map_err(|source| Error::Path { socket: name.clone(), source })?
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT);
    endpoint.connect().await.map_err(|source| Error::Connect { socket: name, source })
}

fn allocations(list: &ListPodResourcesResponse, offers: &AllocatableResourcesResponse, domain: &str) -> Allocations {
    let ours = |resource: &str| resource.split_once('/').is_some_and(|(of, _)| of == domain);
    let mut allocations = Allocations::default();
    for pod in &list.pod_resources {
        for container in &pod.containers {
            for id in container.devices.iter().filter(|d| ours(&d.resource_name)).flat_map(|d| &d.device_ids) {
                allocations.shared |= is_replica(id);
                // An init container and the main one may share a device; the first names it.
                allocations.pods.entry(uuid(id).to_owned()).or_insert_with(|| PodRef {
                    namespace: pod.namespace.clone(),
                    name: pod.name.clone(),
                    container: Some(container.name.clone()),
                });
            }
        }
    }
    for offer in offers.devices.iter().filter(|d| ours(&d.resource_name)) {
        allocations.offered = true;
        allocations.shared |=
            offer.resource_name.ends_with(".shared") || offer.device_ids.iter().any(|id| is_replica(id));
    }
    allocations
}

/// NVIDIA's plugin tells replicas of one device apart by `<uuid>::<n>`.
fn is_replica(id: &str) -> bool {
    id.contains("::")
}

fn uuid(id: &str) -> &str {
    id.split_once("::").map_or(id, |(uuid, _)| uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::podresources::{ContainerDevices, ContainerResources, PodResources};

    fn devices(resource: &str, ids: &[&str]) -> ContainerDevices {
        ContainerDevices {
            resource_name: resource.into(),
            device_ids: ids.iter().map(ToString::to_string).collect(),
            topology: None,
        }
    }

    fn pod(name: &str, devices: Vec<ContainerDevices>) -> PodResources {
        let trainer = ContainerResources { name: "trainer".into(), devices, ..ContainerResources::default() };
        PodResources { name: name.into(), namespace: "fh-lease-1".into(), containers: vec![trainer] }
    }

    fn read(pods: Vec<PodResources>, offers: Vec<ContainerDevices>) -> Allocations {
        let list = ListPodResourcesResponse { pod_resources: pods };
        let offers = AllocatableResourcesResponse { devices: offers, ..AllocatableResourcesResponse::default() };
        allocations(&list, &offers, "nvidia.com")
    }

    #[test]
    fn each_device_of_the_domain_names_its_pod() {
        let pods = vec![
            pod("a", vec![devices("nvidia.com/gpu", &["GPU-1", "GPU-2"])]),
            pod("b", vec![devices("nvidia.com/mig-1g.10gb", &["MIG-1"]), devices("example.com/nic", &["eth7"])]),
            pod("c", vec![]),
        ];
        let seen = read(pods, vec![devices("nvidia.com/gpu", &["GPU-1", "GPU-2"])]);
        let names: Vec<_> = seen.pods.iter().map(|(uuid, pod)| (uuid.as_str(), pod.name.as_str())).collect();
        assert_eq!(names, [("GPU-1", "a"), ("GPU-2", "a"), ("MIG-1", "b")]);
        assert_eq!(seen.pods["MIG-1"].container.as_deref(), Some("trainer"));
        assert!(seen.offered && !seen.shared);
    }

    #[test]
    fn time_slicing_is_seen_before_any_pod_uses_it() {
        assert!(read(vec![], vec![devices("nvidia.com/gpu", &["GPU-1::0", "GPU-1::1"])]).shared);
        assert!(read(vec![], vec![devices("nvidia.com/gpu.shared", &["GPU-1"])]).shared);
        let seen = read(vec![pod("a", vec![devices("nvidia.com/gpu", &["GPU-1::3"])])], vec![]);
        assert!(seen.shared && seen.pods.contains_key("GPU-1"));
    }

    #[test]
    fn other_domains_offer_nothing() {
        assert!(!read(vec![], vec![devices("amd.com/gpu", &["0"])]).offered);
    }
}
