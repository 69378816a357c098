//! One resource's plugin: a gRPC server on a socket of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Error, Offers};
use crate::cdi;
use crate::inventory::Offer;
use crate::proto::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use crate::proto::deviceplugin::{
    AllocateRequest, AllocateResponse, CdiDevice, ContainerAllocateResponse, Device, DevicePluginOptions, Empty,
    ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse,
};

/// For a kubelet that hangs.
const GRACE: Duration = Duration::from_secs(2);

pub struct Server {
    socket: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens from the moment this returns: the kubelet dials back while it registers.
    pub fn start(socket: PathBuf, resource: &str, offers: watch::Receiver<Offers>) -> Result<Self, Error> {
        // What an agent that was killed has left behind.
        let bound = match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(&socket),
        };
        let listener = bound.map_err(|source| Error::Bind { path: socket.clone(), source })?;
        let stop = CancellationToken::new();
        let service = Service { resource: resource.to_owned(), offers, stop: stop.clone() };
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(DevicePluginServer::new(service));
            let incoming = UnixListenerStream::new(listener);
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped.cancelled()).await {
                tracing::error!(%error, "device plugin server ended");
            }
        });
        Ok(Self { socket, stop, task })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends the streams, so the kubelet knows at once, and takes the socket away.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(GRACE, &mut self.task).await;
        let _ = std::fs::remove_file(&self.socket); // the kubelet may have been faster
    }
}

/// A server that was never registered, or whose owner was dropped, ends as well.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Service {
    resource: String,
    offers: watch::Receiver<Offers>,
    stop: CancellationToken,
}

fn of(offers: &Offers, resource: &str) -> Vec<Offer> {
    offers.get(resource).cloned().unwrap_or_default()
}

fn list(offers: &[Offer]) -> ListAndWatchResponse {
    let health = |healthy| if healthy { "Healthy" } else { "Unhealthy" };
    let device =
        |offer: &Offer| Device { id: offer.uuid.clone(), health: health(offer.healthy).into(), topology: None };
    ListAndWatchResponse { devices: offers.iter().map(device).collect() }
}

/// One container's devices: by CDI name for the runtime, and by UUID in the variable that NVIDIA's runtime
/// and programs read.
fn allocate(offers: &[Offer], ids: &[String]) -> Result<ContainerAllocateResponse, String> {
    for id in ids {
        match offers.iter().find(|offer| offer.uuid == *id) {
            None => return Err(format!("device {id} does not exist on this node")),
            Some(offer) if !offer.healthy => return Err(format!("device {id} is not healthy")),
            Some(_) => {}
        }
    }
    let mut response = ContainerAllocateResponse::default();
    response.envs.insert("NVIDIA_VISIBLE_DEVICES".into(), ids.join(","));
    response.cdi_devices = ids.iter().map(|id| CdiDevice { name: cdi::qualified(id) }).collect();
    Ok(response)
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = ReceiverStream<Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    /// The devices now, and again whenever they change.
    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (to_kubelet, stream) = mpsc::channel(1);
        let (mut offers, resource, stop) = (self.offers.clone(), self.resource.clone(), self.stop.clone());
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let now = of(&offers.borrow_and_update(), &resource);
                if told.as_ref() != Some(&now) {
                    if to_kubelet.send(Ok(list(&now))).await.is_err() {
                        return; // the kubelet has hung up
                    }
                    told = Some(now);
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = to_kubelet.closed() => return,
                    changed = offers.changed() => if changed.is_err() { return },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let offers = of(&self.offers.borrow(), &self.resource);
        let containers = request.into_inner().container_requests;
        let responses: Result<Vec<_>, _> = containers.iter().map(|c| allocate(&offers, &c.devices_ids)).collect();
        let container_responses = responses.map_err(Status::failed_precondition)?;
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Err(Status::unimplemented("not offered in the options"))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Err(Status::unimplemented("not offered in the options"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers() -> Vec<Offer> {
        vec![Offer { uuid: "GPU-a".into(), healthy: true }, Offer { uuid: "GPU-b".into(), healthy: false }]
    }

    #[test]
    fn a_container_gets_its_devices_by_uuid_and_by_cdi_name() {
        let response = allocate(&offers(), &["GPU-a".into()]).unwrap();
        assert_eq!(response.envs["NVIDIA_VISIBLE_DEVICES"], "GPU-a");
        assert_eq!(response.cdi_devices, [CdiDevice { name: "freehold.dev/gpu=GPU-a".into() }]);
    }

    #[test]
    fn a_sick_or_unknown_device_is_refused_by_name() {
        assert!(allocate(&offers(), &["GPU-b".into()]).unwrap_err().contains("GPU-b is not healthy"));
        assert!(allocate(&offers(), &["GPU-c".into()]).unwrap_err().contains("GPU-c does not exist"));
    }
}
