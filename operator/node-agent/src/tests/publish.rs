use std::sync::{Arc, Mutex};

use freehold_api::provider::{DeviceState, GpuDevice};
use http::{Method, Request, Response};
use kube::client::Body;

use super::*;

fn status(state: DeviceState, utilization: u32) -> GpuNodeStatus {
    let device = GpuDevice { state, utilization: Some(utilization), ..GpuDevice::default() };
    GpuNodeStatus { devices: vec![device], ..GpuNodeStatus::default() }
}

#[test]
fn only_news_is_written() {
    let before = status(DeviceState::Healthy, 5);
    let soon = Some(Duration::from_secs(5));
    assert!(is_due(None, &before, None));
    assert!(!is_due(Some(&before), &before, Some(QUIET)));
    assert!(is_due(Some(&before), &status(DeviceState::Lost, 5), soon));
    assert!(!is_due(Some(&before), &status(DeviceState::Healthy, 90), soon));
    assert!(is_due(Some(&before), &status(DeviceState::Healthy, 90), Some(QUIET)));
}

/// An API server for one object: answers GET, keeps the status that is applied, and notes each write.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<(Option<GpuNode>, Vec<String>)>>);

impl Server {
    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                Ok::<_, std::convert::Infallible>(server.answer(&parts, &body))
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &http::request::Parts, body: &[u8]) -> Response<Body> {
        let (object, writes) = &mut *self.0.lock().unwrap();
        let is_status = request.uri.path().ends_with("/status");
        if request.method == Method::PATCH {
            let kind = request.headers["content-type"].to_str().unwrap();
            let kind = kind.trim_start_matches("application/").split('-').next().unwrap();
            writes.push(format!("{kind} {}", if is_status { "status" } else { "object" }));
            if kind == "apply" {
                let applied: GpuNode = serde_json::from_slice(body).unwrap();
                let node = object.get_or_insert_with(|| GpuNode::new("n", applied.spec.clone()));
                if is_status {
                    node.status = applied.status;
                } else {
                    node.annotations_mut().extend(applied.annotations().clone());
                }
            } else if let Some(node) = object {
                node.annotations_mut().remove(RESET);
            }
        }
        let (code, body) = match object {
            Some(node) => (200, serde_json::to_vec(node)),
            None => (404, Ok(br#"{"kind":"Status","code":404,"reason":"NotFound","message":"no"}"#.to_vec())),
        };
        Response::builder().status(code).body(Body::from(body.unwrap())).unwrap()
    }

    pub(crate) fn object(&self) -> Option<GpuNode> {
        self.0.lock().unwrap().0.clone()
    }

    pub(crate) fn annotate(&self, name: &str, value: &str) {
        self.0.lock().unwrap().0.as_mut().unwrap().annotations_mut().insert(name.into(), value.into());
    }

    fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

fn publisher(server: &Server, boot: &str) -> Publisher {
    Publisher::new(server.client(), "n", "freehold-provider.freehold", None, boot.into())
}

fn claims() -> Vec<Claim> {
    vec![Claim::yes("Sellable", "Sellable", "")]
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[tokio::test]
async fn the_object_is_made_once_and_written_on_news_alone() {
    let server = Server::default();
    let mut publisher = publisher(&server, "boot-1");
    assert_eq!(publisher.refresh().await.unwrap(), Published::default());
    publisher.publish(status(DeviceState::Healthy, 1), claims(), at(1)).await.unwrap();
    assert_eq!(server.writes(), ["apply object", "apply status"]);

    publisher.publish(status(DeviceState::Healthy, 2), claims(), at(2)).await.unwrap();
    assert_eq!(server.writes(), Vec::<String>::new());
    publisher.publish(status(DeviceState::Lost, 2), claims(), at(3)).await.unwrap();
    assert_eq!(server.writes(), ["apply status"]);
    let stored = server.object().unwrap().status.unwrap();
    assert_eq!(stored.devices[0].state, DeviceState::Lost);
    assert_eq!(stored.conditions[0].last_transition_time.0, at(1), "its status has not changed");
}

#[tokio::test]
async fn what_others_write_or_delete_is_mended() {
    let server = Server::default();
    let mut publisher = publisher(&server, "boot-1");
    publisher.refresh().await.unwrap();
    publisher.publish(status(DeviceState::Healthy, 1), claims(), at(1)).await.unwrap();
    server.0.lock().unwrap().0.as_mut().unwrap().status.as_mut().unwrap().free = Some(77);
    server.writes();
    publisher.refresh().await.unwrap();
    publisher.publish(status(DeviceState::Healthy, 1), claims(), at(2)).await.unwrap();
    assert_eq!(server.writes(), ["apply object", "apply status"]);

    server.0.lock().unwrap().0 = None;
    publisher.refresh().await.unwrap();
    publisher.publish(status(DeviceState::Healthy, 1), claims(), at(3)).await.unwrap();
    assert!(server.object().unwrap().status.is_some());
}

#[tokio::test]
async fn memory_holds_for_one_boot() {
    let server = Server::default();
    let mut first = publisher(&server, "boot-1");
    first.refresh().await.unwrap();
    first.publish(status(DeviceState::XidError, 1), claims(), at(1)).await.unwrap();
    let again = publisher(&server, "boot-1").refresh().await.unwrap();
    assert_eq!(again.status.unwrap().devices[0].state, DeviceState::XidError);
    assert_eq!(publisher(&server, "boot-2").refresh().await.unwrap().status, None);
}

#[tokio::test]
async fn a_reset_is_told_once() {
    let server = Server::default();
    let mut publisher = publisher(&server, "boot-1");
    publisher.refresh().await.unwrap();
    server.annotate(RESET, "GPU-a");
    server.writes();
    assert_eq!(publisher.refresh().await.unwrap().reset, Some(Reset::Gpu("GPU-a".into())));
    assert_eq!(server.writes(), ["apply object", "merge object"]);
    assert_eq!(publisher.refresh().await.unwrap().reset, None);
}
