//! Counters of the gateway, in the Prometheus text format.

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::disk::Disk;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    status: u16,
}

#[derive(Default)]
pub struct Metrics {
    answers: Family<Answered, Counter>,
    received: Counter,
    sent: Counter,
    fetched: Counter,
}

impl Metrics {
    pub fn answered(&self, route: &'static str, status: StatusCode) {
        self.answers.get_or_create(&Answered { route, status: status.as_u16() }).inc();
    }

    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    pub fn fetched(&self, bytes: u64) {
        self.fetched.inc_by(bytes);
    }

    pub fn render(&self, leases: usize, disk: Option<Disk>) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("freehold_gateway");
        registry.register("answers", "Requests answered, by route and status", self.answers.clone());
        registry.register("received_bytes", "Bytes of artifacts taken", self.received.clone());
        registry.register("sent_bytes", "Bytes of artifacts served", self.sent.clone());
        registry.register("fetched_bytes", "Bytes of inputs fetched from elsewhere", self.fetched.clone());
        registry.register("leases", "ComputeLeases known", gauge(leases as u64));
        if let Some(disk) = disk {
            registry.register("store_used_bytes", "Bytes in use on the store's filesystem", gauge(disk.used));
            registry.register("store_limit_bytes", "Bytes of the store's filesystem", gauge(disk.limit));
        }
        let mut page = String::new();
        text::encode(&mut page, &registry)?;
        Ok(page)
    }
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

/// A page on which each metric appears once: what can be exported.
pub fn specimen() -> Result<String, std::fmt::Error> {
    let metrics = Metrics::default();
    metrics.answered("healthz", StatusCode::OK);
    metrics.render(0, Some(Disk { used: 0, limit: 1 }))
}
