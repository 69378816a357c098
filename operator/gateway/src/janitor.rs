//! Removes what is held of leases that are long gone.

use std::sync::Arc;
use std::time::Duration;

use crate::gateway::Gateway;
use crate::store;

const LOOK: Duration = Duration::from_secs(600);
const DAY: u64 = 86_400;

pub async fn run(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(error) = pass(&gateway).await {
            tracing::warn!(%error, "cannot tidy the store");
        }
    }
}

/// A lease counts as gone from the first pass on that misses it; one that comes back loses the mark.
pub async fn pass(gateway: &Gateway) -> Result<(), store::Error> {
    // Before everything was listed, every lease would look gone.
    if !gateway.leases.synced() {
        return Ok(());
    }
    let now = (gateway.clock)();
    for id in gateway.store.leases().await? {
        let known = gateway.leases.get(id).is_some();
        match (known, gateway.store.gone_since(id).await?) {
            (true, None) => {}
            (true, Some(_)) => gateway.store.mark_gone(id, None).await?,
            (false, None) => gateway.store.mark_gone(id, Some(now)).await?,
            (false, Some(since)) if now.saturating_sub(since) >= gateway.limits.keep_days * DAY => {
                tracing::info!(lease = %id, "removing what was held of a lease");
                gateway.store.remove(id).await?;
            }
            (false, Some(_)) => {}
        }
    }
    Ok(())
}
