//! The loop, and everything it holds on to.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cdi::{self, DriverFiles};
use crate::health::{Health, Severity, UNKNOWN_XID};
use crate::inventory::{self, PluginMode, Seen};
use crate::isolation::Isolation;
use crate::metrics::{Metrics, Outcome};
use crate::nvml::{Device, Error as NvmlError, Event, Gpus, Inventory, NvmlGpus};
use crate::plugin::{self, Offers, PluginState};
use crate::publish::Publisher;
use crate::{AgentArgs, pod_resources};

/// How often the GpuNode is read: somebody may have changed or deleted it.
const REFRESH: Duration = Duration::from_secs(30);
/// Failures of NVML in a row after which the library is loaded anew, as after an update of the driver.
const RELOAD_AFTER: u32 = 3;

pub async fn run(args: AgentArgs, client: kube::Client, metrics: Metrics, stop: CancellationToken) {
    let (offers, offered) = watch::channel(Offers::new());
    let (state, plugin) = watch::channel(PluginState::Waiting("the agent has just started".into()));
    let (tell, mut events) = mpsc::channel(64);
    let config = plugin::Config { folder: args.device_plugin_dir.clone(), registry: args.plugins_registry.clone() };
    let serving = match args.plugin {
        PluginMode::Builtin => Some(tokio::spawn(plugin::run(config, offered, state, stop.clone()))),
        PluginMode::External => None,
    };
    let interval = Duration::from_secs(args.interval);
    let mut agent = Agent {
        publisher: Publisher::new(client, &args.node_name, &args.release, args.namespace.clone(), boot_id()),
        args,
        library: Library { tell, stop: stop.clone(), loaded: None, failures: 0 },
        health: Health::default(),
        devices: Vec::new(),
        silent: BTreeSet::new(),
        offers,
        plugin,
        refreshed: None,
    };
    let mut plugin = agent.plugin.clone();
    loop {
        let outcome = match agent.pass(&metrics).await {
            Ok(()) => Outcome::Published,
            Err(error) => {
                tracing::warn!(%error, "GpuNode cannot be written");
                Outcome::Failed
            }
        };
        metrics.passed(outcome);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(interval) => {}
            Some(event) = events.recv() => agent.hear(&event, &metrics),
            Ok(()) = plugin.changed() => {}
        }
        while let Ok(event) = events.try_recv() {
            agent.hear(&event, &metrics);
        }
    }
    if let Some(serving) = serving {
        let _ = serving.await; // it takes its sockets away
    }
}

struct Agent {
    args: AgentArgs,
    publisher: Publisher,
    library: Library,
    health: Health,
    /// As of the last pass, lost ones included.
    devices: Vec<Device>,
    /// GPUs that NVML counted in the last pass and could not reach.
    silent: BTreeSet<u32>,
    offers: watch::Sender<Offers>,
    plugin: watch::Receiver<PluginState>,
    refreshed: Option<Instant>,
}

impl Agent {
    /// Reads, then tells kubelet, Prometheus and cluster. The API server comes last: without it pods still
    /// learn of a lost device.
    async fn pass(&mut self, metrics: &Metrics) -> Result<(), kube::Error> {
        let refreshed = self.refresh().await;
        let reading = self.library.read(&self.args.nvml_library).await.map_err(|error| error.to_string());
        if let Ok(inventory) = &reading {
            self.devices = inventory::with_lost(inventory, &self.devices);
            self.silent = inventory.silent.clone();
            self.health.observe(&self.devices);
        }
        self.offer();
        let domain = self.args.resource.split('/').next().unwrap_or_default();
        let allocations = pod_resources::list(&self.args.pod_resources, domain).await.map_err(|e| e.to_string());
        let plugin = self.plugin.borrow().clone();
        let isolation = Isolation::read(&self.args.isolation_report, SystemTime::now());
        let seen = Seen {
            nvml: reading.as_ref().map_err(Clone::clone),
            devices: &self.devices,
            health: &self.health,
            allocations: allocations.as_ref().map_err(Clone::clone),
            mode: self.args.plugin,
            plugin: &plugin,
            isolation: &isolation,
        };
        let (status, claims) = inventory::status(&seen);
        metrics.devices(&status.devices);
        refreshed?;
        self.publisher.publish(status, claims, Timestamp::now()).await
    }

    /// Where the agent was restarted, its own last word on this boot is where it goes on.
    async fn refresh(&mut self) -> Result<(), kube::Error> {
        if self.refreshed.is_some_and(|at| at.elapsed() < REFRESH) {
            return Ok(());
        }
        let published = self.publisher.refresh().await?;
        if let Some(status) = published.status.filter(|_| self.refreshed.is_none()) {
            let mut health = Health::remembered(&status.devices);
            health.adopt(std::mem::take(&mut self.health));
            self.health = health;
            if self.devices.is_empty() {
                self.devices = inventory::remembered(&status.devices);
            }
        }
        if let Some(reset) = published.reset {
            tracing::info!(?reset, "health is reset");
            self.health.reset(&reset);
            // One that NVML does not even count any more is given up. The others keep their name.
            let given_up = |device: &Device| device.lost && !self.silent.contains(&device.index);
            self.devices.retain(|device| !(given_up(device) && reset.covers(device.gpu())));
        }
        self.refreshed = Some(Instant::now());
        Ok(())
    }

    /// The CDI file first: a device that is offered must be found there.
    fn offer(&self) {
        if self.args.plugin == PluginMode::External {
            return;
        }
        let driver = DriverFiles::find(&self.args.dev_root, &self.args.nvml_library);
        if let Err(error) = cdi::write(&self.args.cdi_dir, &cdi::spec(&self.devices, &driver)) {
            tracing::error!(%error, "devices are not offered");
            return;
        }
        let now = inventory::resources(&self.devices, &self.health, &self.args.resource);
        self.offers.send_if_modified(|offers| {
            let changed = *offers != now;
            *offers = now;
            changed
        });
    }

    /// What has changed, the next pass will see by itself.
    fn hear(&mut self, event: &Event, metrics: &Metrics) {
        let Event::Xid { gpu, code } = event else { return };
        let xid = code.unwrap_or(UNKNOWN_XID);
        let severity = self.health.xid(gpu, xid);
        metrics.xid(gpu, severity);
        match severity {
            Severity::Critical => tracing::error!(gpu, xid, "critical Xid"),
            Severity::Application => tracing::warn!(gpu, xid, "Xid of a program"),
        }
    }
}

/// NVML as it is loaded now, if it is.
struct Library {
    tell: mpsc::Sender<Event>,
    stop: CancellationToken,
    loaded: Option<Loaded>,
    failures: u32,
}

struct Loaded {
    gpus: Arc<NvmlGpus>,
    /// Ends the thread that waits for events.
    end: CancellationToken,
}

impl Library {
    async fn read(&mut self, path: &Path) -> Result<Inventory, NvmlError> {
        let gpus = match &self.loaded {
            Some(loaded) => loaded.gpus.clone(),
            None => self.load(path).await?,
        };
        let reading = blocking(move || gpus.inventory()).await;
        self.failures = if reading.is_ok() { 0 } else { self.failures + 1 };
        if self.failures >= RELOAD_AFTER
            && let Some(loaded) = self.loaded.take()
        {
            self.failures = 0;
            loaded.end.cancel();
        }
        reading
    }

    async fn load(&mut self, path: &Path) -> Result<Arc<NvmlGpus>, NvmlError> {
        let path = path.to_owned();
        let gpus = Arc::new(blocking(move || NvmlGpus::load(&path)).await?);
        let end = self.stop.child_token();
        std::thread::spawn({
            let (gpus, tell, end) = (gpus.clone(), self.tell.clone(), end.clone());
            move || watch_events(gpus.as_ref(), &tell, &end)
        });
        self.loaded = Some(Loaded { gpus: gpus.clone(), end });
        Ok(gpus)
    }
}

/// A thread of its own: it waits for as long as the library is loaded.
fn watch_events(gpus: &dyn Gpus, tell: &mpsc::Sender<Event>, end: &CancellationToken) {
    while !end.is_cancelled() {
        let watched = gpus.watch(&mut |event| {
            if let Some(event) = event {
                let _ = tell.blocking_send(event); // fails only when the agent is gone
            }
            if end.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Err(error) = watched {
            tracing::warn!(%error, "no Xid events for now");
            std::thread::sleep(Duration::from_secs(5));
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Changes with each boot of the node; containers see the node's.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
#[path = "tests/agent.rs"]
mod tests;
