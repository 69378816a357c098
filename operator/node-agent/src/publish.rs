//! The GpuNode of this node: made by the agent, kept true, never deleted by it. It goes with the release, as it belongs
//! to the agents' namespace.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use freehold_api::GpuNode;
use freehold_api::conditions::{self, Claim};
use freehold_api::provider::{GpuNodeSpec, GpuNodeStatus};
use freehold_api::scalars::ObjectName;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use crate::health::Reset;

const FIELD_MANAGER: &str = "freehold-agent";
/// What is remembered of health holds for one boot of the node.
const BOOT: &str = "freehold.dev/boot-id";
/// `all` or a GPU's UUID: an operator says that it was repaired.
const RESET: &str = "freehold.dev/reset-health";

/// Utilisation and memory in use change all the time; the metrics have them fresh.
const QUIET: Duration = Duration::from_secs(60);

pub struct Publisher {
    nodes: Api<GpuNode>,
    namespaces: Api<Namespace>,
    spec: GpuNodeSpec,
    boot: String,
    /// The agents' namespace, until it was read.
    namespace: Option<String>,
    owner: Option<OwnerReference>,
    /// The status that the object has, and when the agent wrote one last.
    last: Option<GpuNodeStatus>,
    written: Option<Instant>,
}

/// What the object says that the agent has to know.
#[derive(Debug, Default, PartialEq)]
pub struct Published {
    /// As of this boot of the node.
    pub status: Option<GpuNodeStatus>,
    pub reset: Option<Reset>,
}

impl Publisher {
    /// Without a namespace the object stays when the release goes.
    pub fn new(client: Client, node: &str, release: &str, namespace: Option<String>, boot: String) -> Self {
        let spec = GpuNodeSpec { node_name: ObjectName(node.into()), release: ObjectName(release.into()) };
        let (nodes, namespaces) = (Api::all(client.clone()), Api::all(client));
        Self { nodes, namespaces, spec, boot, namespace, owner: None, last: None, written: None }
    }

    fn name(&self) -> &str {
        self.spec.node_name.as_str()
    }

    /// Makes the object if it is missing, mends what the agent owns of it, and reads the rest. A reset is
    /// taken off it: it is returned once.
    pub async fn refresh(&mut self) -> Result<Published, kube::Error> {
        if let Some(name) = &self.namespace {
            self.owner = self.namespaces.get(name).await?.owner_ref(&());
            self.namespace = None;
        }
        let known = self.nodes.get_opt(self.name()).await?;
        let published = known.as_ref().map(|node| self.read(node)).unwrap_or_default();
        self.nodes.patch(self.name(), &apply(), &Patch::Apply(self.object())).await?;
        if published.reset.is_some() {
            let none = json!({ "metadata": { "annotations": { RESET: null } } });
            self.nodes.patch(self.name(), &PatchParams::default(), &Patch::Merge(none)).await?;
        }
        self.last = known.and_then(|node| node.status);
        Ok(published)
    }

    fn read(&self, node: &GpuNode) -> Published {
        let annotation = |name: &str| node.annotations().get(name).map(String::as_str);
        let this_boot = annotation(BOOT) == Some(self.boot.as_str());
        Published { status: node.status.clone().filter(|_| this_boot), reset: annotation(RESET).map(Reset::parse) }
    }

    fn object(&self) -> GpuNode {
        let mut node = GpuNode::new(self.name(), self.spec.clone());
        node.metadata.annotations = Some(BTreeMap::from([(BOOT.to_owned(), self.boot.clone())]));
        node.metadata.owner_references = self.owner.clone().map(|owner| vec![owner]);
        node
    }

    /// Writes the status if it says something new.
    pub async fn publish(
        &mut self,
        mut status: GpuNodeStatus,
        claims: Vec<Claim>,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        // Conditions go on from what stands there, so that an unchanged one keeps its time.
        status.conditions = self.last.as_ref().map(|last| last.conditions.clone()).unwrap_or_default();
        for claim in claims {
            conditions::set(&mut status.conditions, claim, None, now);
        }
        if !is_due(self.last.as_ref(), &status, self.written.map(|at| at.elapsed())) {
            return Ok(());
        }
        let mut node = GpuNode::new(self.name(), self.spec.clone());
        node.status = Some(status);
        let stored = self.nodes.patch_status(self.name(), &apply(), &Patch::Apply(node)).await;
        if let Err(kube::Error::Api(error)) = &stored
            && error.is_not_found()
        {
            self.last = None; // deleted meanwhile: the next refresh makes it again
        }
        self.last = stored?.status;
        self.written = Some(Instant::now());
        Ok(())
    }
}

fn apply() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

fn is_due(last: Option<&GpuNodeStatus>, now: &GpuNodeStatus, age: Option<Duration>) -> bool {
    let Some(last) = last else { return true };
    if last == now {
        return false;
    }
    age.is_none_or(|age| age >= QUIET) || steady(last) != steady(now)
}

/// Without what changes all the time.
fn steady(status: &GpuNodeStatus) -> GpuNodeStatus {
    let mut status = status.clone();
    for device in &mut status.devices {
        device.utilization = None;
        device.memory_used_bytes = 0;
    }
    status
}

#[cfg(test)]
#[path = "tests/publish.rs"]
pub(crate) mod tests;
