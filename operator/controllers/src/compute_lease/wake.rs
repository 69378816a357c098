//! What the chain says of a lease changed: a reason to look.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use freehold_api::{ComputeLease, labels};
use freehold_core::B256;
use futures::{Stream, StreamExt, stream};
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio_stream::wrappers::IntervalStream;

use super::facts::Chain;
use super::observe;
use crate::context::Views;

/// Looking costs a comparison in memory, so it may be often.
const EVERY: Duration = Duration::from_millis(500);

/// What the chain says of a lease: whether it can be trusted, the newest block, the confirmed one.
pub type Sight = (bool, Chain, Chain);

/// The leases of which it changed. The others are left alone: a pass asks the API server half a dozen times.
pub fn on_changed_orders(
    store: Store<ComputeLease>,
    views: Views,
) -> impl Stream<Item = ObjectRef<ComputeLease>> + Send + 'static {
    let mut seen = HashMap::new();
    let ticks = IntervalStream::new(tokio::time::interval(EVERY));
    ticks.flat_map(move |_| {
        let now = store.state().iter().map(|lease| (ObjectRef::from_obj(&**lease), sight(&views, lease))).collect();
        stream::iter(changed(&mut seen, now))
    })
}

/// Whose value is another than before, or who is new. Remembers what is now.
fn changed<K: Hash + Eq + Clone, V: PartialEq>(seen: &mut HashMap<K, V>, now: HashMap<K, V>) -> Vec<K> {
    let news = now.iter().filter(|(key, value)| seen.get(*key) != Some(*value)).map(|(key, _)| key.clone()).collect();
    *seen = now;
    news
}

pub fn sight(views: &Views, lease: &ComputeLease) -> Option<Sight> {
    let view = views.get(lease.labels().get(labels::ACCOUNT)?)?;
    let id: B256 = lease.spec.order_id.as_str().parse().ok()?;
    let of = |snapshot| observe::chain(&view, snapshot, &id);
    Some((view.health.allows_action(), of(&view.latest), of(&view.confirmed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leases_of_which_something_changed_are_looked_at() {
        let mut seen = HashMap::new();
        let mut look = |now: &[(&'static str, u8)]| {
            let mut news = changed(&mut seen, now.iter().copied().collect());
            news.sort_unstable();
            news
        };
        assert_eq!(look(&[("a", 1), ("b", 1)]), ["a", "b"]);
        assert!(look(&[("a", 1), ("b", 1)]).is_empty());
        assert_eq!(look(&[("a", 1), ("b", 2), ("c", 1)]), ["b", "c"]);
        assert!(look(&[("b", 2)]).is_empty(), "who is gone needs no look");
        assert_eq!(look(&[("a", 1), ("b", 2)]), ["a"]);
    }
}
