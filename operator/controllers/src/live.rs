//! Whether the release still has something on the chain or in the cluster that
//! nobody else would bring to its end. It is said in a ConfigMap, which policies
//! take as their parameter: while it is so, neither the release's namespace nor
//! a CRD can be deleted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use freehold_api::LIVE_CONFIG_MAP;
use freehold_chain::view::ChainView;
use freehold_core::B256;
use freehold_core::order::{Order, OrderState};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::context::Context;
use crate::rbac::{Rule, Scope};

/// The chart makes the ConfigMap, and takes it away.
pub const RULES: &[Rule] = &[Rule::new("", &["configmaps"], &["patch"], Scope::Release)];

/// Key of the ConfigMap.
pub const KEY: &str = "live";

/// A look costs some comparisons in memory.
const LOOK: Duration = Duration::from_secs(2);

type Source = Box<dyn Fn() -> Option<usize> + Send + Sync>;

/// Those who know of something that is live.
#[derive(Clone, Default)]
pub struct Live(Arc<Mutex<Vec<Source>>>);

impl Live {
    /// Asks `source` at each look from now on: how much it knows of, or nothing while it cannot tell.
    pub fn count(&self, source: impl Fn() -> Option<usize> + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    fn verdict(&self) -> Option<bool> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        verdict(sources.iter().map(|source| source()))
    }
}

/// One that knows of something is enough; that there is nothing, all have to know.
fn verdict(counts: impl Iterator<Item = Option<usize>>) -> Option<bool> {
    let mut all_know = true;
    for count in counts {
        match count {
            Some(1..) => return Some(true),
            Some(0) => {}
            None => all_know = false,
        }
    }
    all_know.then_some(false)
}

/// Orders, leases and bids of the account that are not over at confirmed depth; nothing where none is seen and the chain
/// cannot be trusted. Orders that were placed from elsewhere are not this release's to end.
pub fn on_chain(view: &ChainView, origin: B256) -> Option<usize> {
    let seen = [&view.latest, &view.confirmed].into_iter().flat_map(|snapshot| snapshot.orders.values());
    let ours: BTreeSet<B256> = seen.filter(|order| is_ours(view, origin, order)).map(|order| order.id).collect();
    let over = |id: &B256| view.confirmed_order(id).is_some_and(|order| order.slot.state.is_settled());
    let live = ours.iter().filter(|id| !over(id)).count();
    (live > 0 || view.health.allows_action()).then_some(live)
}

fn is_ours(view: &ChainView, origin: B256, order: &Order) -> bool {
    let bids = || order.bids.iter().any(|bid| bid.provider == view.account);
    match order.slot.state {
        OrderState::Open if bids() => true,
        _ if order.slot.tenant == view.account => order.terms.origin == origin,
        _ => order.slot.provider == view.account,
    }
}

/// Keeps the ConfigMap true for as long as it is polled. It is written where the answer changes, never for a block.
pub async fn run(ctx: Context) -> Result<(), std::convert::Infallible> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let mut written = None;
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        let Some(live) = ctx.live.verdict().filter(|live| written != Some(*live)) else { continue };
        let patch = json!({ "data": { KEY: live.to_string() } });
        match api.patch(LIVE_CONFIG_MAP, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => written = Some(live),
            Err(error) => tracing::warn!(
                %error,
                "cannot write ConfigMap {LIVE_CONFIG_MAP}, which keeps the release's namespace from being deleted; helm upgrade makes it again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use freehold_chain::view::Health;
    use freehold_core::Address;
    use freehold_core::order::Bid;
    use proptest::prelude::*;

    const US: Address = Address::repeat_byte(1);
    const ORIGIN: B256 = B256::repeat_byte(9);

    fn order(state: OrderState, change: impl FnOnce(&mut Order)) -> Arc<Order> {
        let mut order = crate::compute_provider::fixtures::open(7, 1);
        (order.slot.state, order.slot.tenant, order.slot.provider) = (state, Address::ZERO, Address::ZERO);
        order.bids.clear();
        change(&mut order);
        Arc::new(order)
    }

    fn count(latest: Option<Arc<Order>>, confirmed: Option<Arc<Order>>, health: Health) -> Option<usize> {
        let mut view = ChainView { account: US, health, ..ChainView::default() };
        view.latest.orders = latest.into_iter().map(|order| (order.id, order)).collect();
        view.confirmed.orders = confirmed.into_iter().map(|order| (order.id, order)).collect();
        on_chain(&view, ORIGIN)
    }

    fn placed(state: OrderState, origin: B256) -> Arc<Order> {
        order(state, |order| (order.slot.tenant, order.terms.origin) = (US, origin))
    }

    #[test]
    fn what_is_not_over_at_depth_counts() {
        let fresh = |latest, confirmed| count(latest, confirmed, Health::Fresh);
        let (open, closed) = (placed(OrderState::Open, ORIGIN), placed(OrderState::Closed, ORIGIN));
        assert_eq!(fresh(None, None), Some(0));
        assert_eq!(fresh(Some(open.clone()), None), Some(1), "a new one");
        assert_eq!(fresh(Some(closed.clone()), Some(open.clone())), Some(1), "not confirmed");
        assert_eq!(fresh(None, Some(open)), Some(1), "a reorganisation is under way");
        assert_eq!(fresh(Some(closed.clone()), Some(closed)), Some(0));
        assert_eq!(fresh(Some(placed(OrderState::Running, B256::ZERO)), None), Some(0), "another cluster's");
    }

    #[test]
    fn leases_and_bids_of_a_provider_count() {
        let fresh = |latest| count(Some(latest), None, Health::Fresh);
        assert_eq!(fresh(order(OrderState::Awaiting, |order| order.slot.provider = US)), Some(1));
        assert_eq!(fresh(order(OrderState::Awaiting, |_| ())), Some(0), "somebody else's");
        let bid = Bid { provider: US, price: 1, bond: Default::default(), valid_until: 0 };
        assert_eq!(fresh(order(OrderState::Open, |order| order.bids.push(bid))), Some(1), "it may be accepted");
        assert_eq!(fresh(order(OrderState::Open, |_| ())), Some(0));
    }

    #[test]
    fn the_blind_do_not_say_that_there_is_nothing() {
        assert_eq!(count(None, None, Health::Starting), None);
        let open = placed(OrderState::Open, ORIGIN);
        assert_eq!(count(Some(open), None, Health::Stale { head: 1 }), Some(1));
    }

    proptest! {
        #[test]
        fn nothing_is_said_to_be_live_unless_one_knows_and_nothing_to_be_over_unless_all_do(
            counts in prop::collection::vec(prop::option::of(0usize..3), 0..6)
        ) {
            let expected = match (counts.iter().any(|c| c.is_some_and(|n| n > 0)), counts.iter().all(Option::is_some)) {
                (true, _) => Some(true),
                (false, true) => Some(false),
                (false, false) => None,
            };
            prop_assert_eq!(verdict(counts.into_iter()), expected);
        }
    }
}
