//! What the agent measures, and its own state, for Prometheus; and the liveness probe.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use freehold_api::provider::{DeviceState, GpuDevice};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use warp::Filter;
use warp::http::{Response, StatusCode};

use crate::health::Severity;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Gpu {
    uuid: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GpuState {
    uuid: String,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum State {
    Healthy,
    XidError,
    EccError,
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GpuXid {
    uuid: String,
    severity: XidSeverity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum XidSeverity {
    Critical,
    Application,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pass {
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    Published,
    Failed,
}

type Integers<L> = Family<L, Gauge<i64, AtomicI64>>;

#[derive(Clone, Default)]
pub struct Metrics {
    utilization: Integers<Gpu>,
    memory_used: Integers<Gpu>,
    memory: Integers<Gpu>,
    processes: Integers<Gpu>,
    ecc_errors: Integers<Gpu>,
    allocated: Integers<Gpu>,
    state: Integers<GpuState>,
    xids: Family<GpuXid, Counter<u64, AtomicU64>>,
    passes: Family<Pass, Counter<u64, AtomicU64>>,
    last_pass: Arc<Mutex<Option<Instant>>>,
}

impl Metrics {
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("freehold_gpu");
        registry.register("utilization_percent", "Share of time a kernel ran, by NVML", self.utilization.clone());
        registry.register("memory_used_bytes", "Memory in use", self.memory_used.clone());
        registry.register("memory_bytes", "Memory", self.memory.clone());
        registry.register("processes", "Processes that NVML sees", self.processes.clone());
        registry.register("ecc_uncorrected_errors", "Uncorrected since the driver was loaded", self.ecc_errors.clone());
        registry.register("allocated", "1 if a pod holds the device", self.allocated.clone());
        registry.register("state", "1 for the state that the device is in", self.state.clone());
        registry.register("xids", "Xid events seen", self.xids.clone());
        registry.register("agent_passes", "Passes of the agent", self.passes.clone());
        registry
    }

    /// Devices that are gone leave their gauges.
    pub fn devices(&self, devices: &[GpuDevice]) {
        let gauges =
            [&self.utilization, &self.memory_used, &self.memory, &self.processes, &self.ecc_errors, &self.allocated];
        gauges.iter().for_each(|gauge| gauge.clear());
        self.state.clear();
        let integer = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for device in devices {
            let gpu = Gpu { uuid: device.uuid.clone() };
            if let Some(utilization) = device.utilization {
                self.utilization.get_or_create(&gpu).set(utilization.into());
            }
            self.memory_used.get_or_create(&gpu).set(integer(device.memory_used_bytes));
            self.memory.get_or_create(&gpu).set(integer(device.memory_bytes));
            self.processes.get_or_create(&gpu).set(device.processes.into());
            self.ecc_errors.get_or_create(&gpu).set(integer(device.uncorrected_ecc_errors));
            self.allocated.get_or_create(&gpu).set(device.pod.is_some().into());
            let state = match device.state {
                DeviceState::Healthy => State::Healthy,
                DeviceState::XidError => State::XidError,
                DeviceState::EccError => State::EccError,
                DeviceState::Lost => State::Lost,
            };
            self.state.get_or_create(&GpuState { uuid: gpu.uuid, state }).set(1);
        }
    }

    pub fn xid(&self, gpu: &str, severity: Severity) {
        let severity = match severity {
            Severity::Critical => XidSeverity::Critical,
            Severity::Application => XidSeverity::Application,
        };
        self.xids.get_or_create(&GpuXid { uuid: gpu.to_owned(), severity }).inc();
    }

    pub fn passed(&self, outcome: Outcome) {
        self.passes.get_or_create(&Pass { outcome }).inc();
        *self.last_pass.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// A pass that failed is a pass: killing the agent would not mend the API server. One that hangs is not.
    fn is_live(&self, within: Duration) -> bool {
        let last = *self.last_pass.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|last| last.elapsed() < within)
    }

    fn render(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry())?;
        Ok(page)
    }
}

/// Serves `/healthz` and `/metrics` until `stop`. Alive means a pass within `limit`.
pub async fn serve(
    listen: SocketAddr,
    metrics: Metrics,
    limit: Duration,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let live = metrics.clone();
    let healthz = warp::path!("healthz").map(move || match live.is_live(limit) {
        true => answer(StatusCode::OK, "text/plain", "ok\n".into()),
        false => answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "no pass has ended for too long\n".into()),
    });
    let page = warp::path!("metrics").map(move || match metrics.render() {
        Ok(page) => answer(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", page),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    });
    let stopped = async move { stop.cancelled().await };
    warp::serve(warp::get().and(healthz.or(page))).incoming(listener).graceful(stopped).run().await;
    Ok(())
}

/// A page on which each metric appears once: what can be exported.
pub fn specimen() -> Result<String, std::fmt::Error> {
    let metrics = Metrics::default();
    metrics.devices(&[GpuDevice { uuid: "GPU".into(), utilization: Some(0), ..GpuDevice::default() }]);
    metrics.xid("GPU", Severity::Critical);
    metrics.passed(Outcome::Published);
    metrics.render()
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", warp::http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_appear_by_uuid_and_leave_when_gone() {
        let metrics = Metrics::default();
        let device =
            GpuDevice { uuid: "GPU-a".into(), utilization: Some(42), state: DeviceState::Lost, ..GpuDevice::default() };
        metrics.devices(&[device]);
        metrics.xid("GPU-a", Severity::Critical);
        let page = metrics.render().unwrap();
        assert!(page.contains("freehold_gpu_utilization_percent{uuid=\"GPU-a\"} 42"), "{page}");
        assert!(page.contains("freehold_gpu_state{uuid=\"GPU-a\",state=\"Lost\"} 1"), "{page}");
        assert!(page.contains("freehold_gpu_xids_total{uuid=\"GPU-a\",severity=\"Critical\"} 1"), "{page}");
        metrics.devices(&[]);
        assert!(!metrics.render().unwrap().contains("freehold_gpu_utilization_percent{"));
    }

    #[test]
    fn an_agent_that_hangs_is_not_alive() {
        let metrics = Metrics::default();
        assert!(metrics.is_live(Duration::ZERO), "it has not begun yet");
        metrics.passed(Outcome::Failed);
        assert!(metrics.is_live(Duration::from_secs(60)));
        assert!(!metrics.is_live(Duration::ZERO));
    }
}
