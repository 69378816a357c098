//! What the operator shows to Prometheus. A scrape asks what the process holds
//! anyway (views, reports, caches) and computes the figures there and then; only
//! passes are counted as they happen. Nothing here asks the API server.

pub mod account;
pub mod figure;
pub mod work;

use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use self::figure::{CATALOG, Figure, Sample, Values};

const PREFIX: &str = "freehold_operator";
/// Seconds. A pass is some answers of an API server, or a hand-over that lasts up to minutes.
const BUCKETS: [f64; 9] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

/// Who makes passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Controller {
    ComputeAccount,
    ChainTransaction,
    TrainingTask,
    InferenceTask,
    ComputeBudget,
    ComputeProvider,
    ComputeLease,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Done,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    controller: Controller,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pass {
    controller: Controller,
    outcome: Outcome,
}

/// What sweeps found when they last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub orders: Option<usize>,
    pub namespaces: Option<usize>,
    /// Since when the lease namespace that has been terminating for longest does so.
    pub terminating: Option<Timestamp>,
}

type Source = Box<dyn Fn(Timestamp) -> Vec<Sample> + Send + Sync>;
type Timed<E> = BoxFuture<'static, Result<kube::runtime::controller::Action, E>>;

struct Inner {
    sources: Mutex<Vec<Source>>,
    found: Mutex<Found>,
    passes: Family<Pass, Counter<u64, AtomicU64>>,
    seconds: Family<By, Histogram>,
}

/// Shared by all controllers of the process.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Inner {
            sources: Mutex::default(),
            found: Mutex::default(),
            passes: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }))
    }
}

impl Metrics {
    /// Asks `source` at each scrape from now on. It answers from memory.
    pub fn show(&self, source: impl Fn(Timestamp) -> Vec<Sample> + Send + Sync + 'static) {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    pub fn found(&self, change: impl FnOnce(&mut Found)) {
        change(&mut self.0.found.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The same reconcile function, counted and timed.
    pub fn timed<K, C, E, F, R>(
        &self,
        controller: Controller,
        mut reconcile: R,
    ) -> impl FnMut(Arc<K>, Arc<C>) -> Timed<E> + use<K, C, E, F, R>
    where
        R: FnMut(Arc<K>, Arc<C>) -> F,
        F: Future<Output = Result<kube::runtime::controller::Action, E>> + Send + 'static,
    {
        let metrics = self.clone();
        move |object, context| {
            let (metrics, pass) = (metrics.clone(), reconcile(object, context));
            async move { metrics.pass(controller, pass).await }.boxed()
        }
    }

    /// One pass, counted and timed.
    pub async fn pass<T, E>(&self, controller: Controller, pass: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let began = Instant::now();
        let done = pass.await;
        self.0.seconds.get_or_create(&By { controller }).observe(began.elapsed().as_secs_f64());
        let outcome = if done.is_ok() { Outcome::Done } else { Outcome::Failed };
        self.0.passes.get_or_create(&Pass { controller, outcome }).inc();
        done
    }

    /// The page that Prometheus reads.
    pub fn page(&self, now: Timestamp) -> Result<String, std::fmt::Error> {
        let found = *self.0.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut samples = work::found(&found, now);
        for source in self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            samples.extend(source(now));
        }
        let mut registry = registry(samples);
        registry.register("passes", "Passes of each controller", self.0.passes.clone());
        registry.register("pass_seconds", "How long passes took", self.0.seconds.clone());
        let mut page = String::new();
        text::encode(&mut page, &registry)?;
        Ok(page)
    }
}

type Gauges = Family<Vec<(&'static str, String)>, Gauge<f64, AtomicU64>>;

/// Pure: samples by figure, in the catalogue's order.
fn registry(samples: Vec<Sample>) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    for figure in CATALOG {
        let series: Vec<&Sample> = samples.iter().filter(|sample| std::ptr::eq(sample.of, *figure)).collect();
        let Some(first) = series.first() else { continue };
        // A family would write `name{}`.
        if figure.labels.is_empty() {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(first.value);
            registry.register(figure.name, figure.help, gauge);
            continue;
        }
        let gauges = Gauges::default();
        for sample in series {
            gauges.get_or_create(&labels(figure, sample)).set(sample.value);
        }
        registry.register(figure.name, figure.help, gauges);
    }
    registry
}

fn labels(figure: &Figure, sample: &Sample) -> Vec<(&'static str, String)> {
    figure.labels.iter().zip(&sample.labels).map(|(label, value)| (label.name, value.clone())).collect()
}

/// A page on which each metric appears once: what can be exported, for the list that the chart's rules are held against.
pub fn specimen() -> Result<String, std::fmt::Error> {
    let value = |values: Values| match values {
        Values::OneOf(all) => all.first().copied().unwrap_or_default(),
        Values::Object => "name",
        Values::Index => "0",
    };
    let metrics = Metrics::default();
    metrics.0.passes.get_or_create(&Pass { controller: Controller::ComputeAccount, outcome: Outcome::Done }).inc();
    metrics.0.seconds.get_or_create(&By { controller: Controller::ComputeAccount }).observe(0.0);
    metrics.show(move |_| {
        let one = |figure: &&'static Figure| {
            let labels: Vec<&str> = figure.labels.iter().map(|label| value(label.values)).collect();
            figure.at(&labels, 0.0)
        };
        CATALOG.iter().map(one).collect()
    });
    metrics.page(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
