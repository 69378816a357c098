//! What is left over: namespaces without a lease, and leases that ended long
//! ago. Pure.

use std::sync::Arc;

use freehold_api::conditions::{find, types};
use freehold_api::{ComputeLease, labels};
use freehold_chain::view::{ChainView, Snapshot};
use freehold_core::B256;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;

use super::names::{self, NAMESPACE_PREFIX};

/// An ended lease can be looked at for a day, as long as there are not too many.
const KEPT_SECONDS: i64 = 24 * 3600;
const KEPT: usize = 200;

/// Namespaces whose order is not live at confirmed depth, and that no
/// ComputeLease looks after. Where the chain cannot be seen, nothing is.
pub fn orphans(
    namespaces: &[Namespace],
    view_of: impl Fn(&str) -> Option<Arc<ChainView>>,
    has_lease: impl Fn(&str) -> bool,
) -> Vec<&Namespace> {
    let is_orphan = |namespace: &&Namespace| {
        let account = namespace.labels().get(labels::ACCOUNT).map(String::as_str);
        let view = account.and_then(&view_of).filter(|view| view.health.allows_action());
        let order = namespace.annotations().get(labels::ORDER_ANNOTATION).and_then(|id| id.parse::<B256>().ok());
        let (Some(view), Some(order)) = (view, order) else { return false };
        namespace.name_any().starts_with(NAMESPACE_PREFIX)
            && namespace.metadata.deletion_timestamp.is_none()
            && !has_lease(&names::lease(&order))
            && !is_live(&view, &view.latest, &order)
            && !is_live(&view, &view.confirmed, &order)
    };
    namespaces.iter().filter(is_orphan).collect()
}

/// Since when the namespace that has been terminating for longest does so.
pub fn terminating_since(namespaces: &[Namespace]) -> Option<Timestamp> {
    namespaces.iter().filter_map(|namespace| Some(namespace.metadata.deletion_timestamp.as_ref()?.0)).min()
}

fn is_live(view: &ChainView, snapshot: &Snapshot, id: &B256) -> bool {
    snapshot.orders.get(id).is_some_and(|order| order.slot.provider == view.account && order.slot.state.is_leased())
}

/// Names of ComputeLeases that were cleaned up and need not be kept longer.
pub fn expired(leases: &[Arc<ComputeLease>], now: Timestamp) -> Vec<String> {
    let mut done: Vec<(Timestamp, String)> =
        leases.iter().filter_map(|lease| Some((cleaned_up(lease)?, lease.name_any()))).collect();
    done.sort();
    let surplus = done.len().saturating_sub(KEPT);
    let old = |at: &Timestamp| now.as_second() - at.as_second() > KEPT_SECONDS;
    done.into_iter().enumerate().filter(|(i, (at, _))| *i < surplus || old(at)).map(|(_, (_, name))| name).collect()
}

fn cleaned_up(lease: &ComputeLease) -> Option<Timestamp> {
    let conditions = &lease.status.as_ref()?.conditions;
    let condition = find(conditions, types::CLEANED_UP).filter(|c| c.status == "True")?;
    lease.metadata.deletion_timestamp.is_none().then_some(condition.last_transition_time.0)
}

#[cfg(test)]
#[path = "tests/sweep.rs"]
mod tests;
