//! Counters of the gateway, in the Prometheus text format.

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

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

    pub fn render(&self, leases: usize) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("freehold_gateway");
        registry.register("answers", "Requests answered, by route and status", self.answers.clone());
        registry.register("received_bytes", "Bytes of artifacts taken", self.received.clone());
        registry.register("sent_bytes", "Bytes of artifacts served", self.sent.clone());
        registry.register("fetched_bytes", "Bytes of inputs fetched from elsewhere", self.fetched.clone());
        let known = prometheus_client::metrics::gauge::Gauge::<i64>::default();
        known.set(i64::try_from(leases).unwrap_or(i64::MAX));
        registry.register("leases", "ComputeLeases known", known);
        let mut page = String::new();
        text::encode(&mut page, &registry)?;
        Ok(page)
    }
}
