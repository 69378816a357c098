//! A new block, or a change of the chain's health, is a reason to look again.

use std::collections::BTreeMap;
use std::time::Duration;

use freehold_api::ComputeProvider;
use freehold_chain::view::Health;
use freehold_core::B256;
use futures::Stream;
use kube::runtime::reflector::Store;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::IntervalStream;

use crate::context::Views;

/// Looking costs a comparison in memory, so it may be often.
const EVERY: Duration = Duration::from_millis(500);

pub fn on_new_blocks(store: Store<ComputeProvider>, views: Views) -> impl Stream<Item = ()> + Send + 'static {
    let mut seen = BTreeMap::new();
    let ticks = IntervalStream::new(tokio::time::interval(EVERY));
    ticks.filter_map(move |_| {
        let now = heads(&store, &views);
        (std::mem::replace(&mut seen, now) != seen).then_some(())
    })
}

fn heads(store: &Store<ComputeProvider>, views: &Views) -> BTreeMap<String, (B256, Health)> {
    let accounts = store.state().into_iter().map(|provider| provider.spec.account.0.clone());
    let heads = accounts.filter_map(|account| {
        let view = views.get(&account)?;
        Some((account, (view.latest.block.hash, view.health.clone())))
    });
    heads.collect()
}
