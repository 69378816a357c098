//! What the chain says of a lease changed: a reason to look.

use std::collections::BTreeMap;
use std::time::Duration;

use freehold_api::{ComputeLease, labels};
use freehold_core::B256;
use futures::Stream;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::IntervalStream;

use super::facts::Chain;
use super::observe;
use crate::context::Views;

/// Looking costs a comparison in memory, so it may be often.
const EVERY: Duration = Duration::from_millis(500);

/// What the chain says of a lease: whether it can be trusted, the newest block, the confirmed one.
pub type Sight = (bool, Chain, Chain);

pub fn on_changed_orders(store: Store<ComputeLease>, views: Views) -> impl Stream<Item = ()> + Send + 'static {
    let mut seen: BTreeMap<String, Option<Sight>> = BTreeMap::new();
    let ticks = IntervalStream::new(tokio::time::interval(EVERY));
    ticks.filter_map(move |_| {
        let leases = store.state();
        let now = leases.iter().map(|lease| (lease.name_any(), sight(&views, lease))).collect();
        (std::mem::replace(&mut seen, now) != seen).then_some(())
    })
}

pub fn sight(views: &Views, lease: &ComputeLease) -> Option<Sight> {
    let view = views.get(lease.labels().get(labels::ACCOUNT)?)?;
    let id: B256 = lease.spec.order_id.as_str().parse().ok()?;
    let of = |snapshot| observe::chain(&view, snapshot, &id);
    Some((view.health.allows_action(), of(&view.latest), of(&view.confirmed)))
}
