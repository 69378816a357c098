//! Leases that nobody asked to look at: new ones, lost ones, old ones.

use std::sync::Arc;
use std::time::Duration;

use freehold_api::{ComputeLease, ComputeProvider, labels};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::reflector::{ObjectRef, Store, reflector, store};
use kube::runtime::{WatchStreamExt, watcher};

use super::{adopt, apply, sweep};
use crate::context::Context;

const ADOPT_EVERY: Duration = Duration::from_millis(500);
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Runs until dropped. `leases` is the controller's own cache.
pub async fn run(ctx: &Context, leases: &Store<ComputeLease>) {
    let api: Api<ComputeProvider> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let (providers, writer) = store();
    let watch = reflector(writer, watcher(api, watcher::Config::default()));
    let kept_true = watch.default_backoff().touched_objects().for_each(|_| std::future::ready(()));
    tokio::select! {
        () = kept_true => {}
        () = adopt_all(ctx, leases, &providers) => {}
        () = sweep_all(ctx, leases) => {}
    }
}

async fn adopt_all(ctx: &Context, leases: &Store<ComputeLease>, providers: &Store<ComputeProvider>) {
    // What is not listed yet would look missing.
    if leases.wait_until_ready().await.is_err() {
        return;
    }
    let mut ticks = tokio::time::interval(ADOPT_EVERY);
    loop {
        ticks.tick().await;
        for provider in providers.state() {
            adopt(ctx, leases, &provider).await;
        }
    }
}

/// One lease that cannot be recorded keeps no other from it.
async fn adopt(ctx: &Context, leases: &Store<ComputeLease>, provider: &ComputeProvider) {
    let Some(view) = ctx.views.get(provider.spec.account.as_str()) else { return };
    let namespace = &ctx.settings.namespace;
    let exists = |name: &str| leases.get(&ObjectRef::new(name).within(namespace)).is_some();
    let api: Api<ComputeLease> = Api::namespaced(ctx.client.clone(), namespace);
    for lease in adopt::missing(&view, provider, namespace, &ctx.settings.release, exists) {
        match api.create(&PostParams::default(), &lease).await {
            Ok(_) => tracing::info!(lease = %lease.spec.order_id, "lease adopted"),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => tracing::warn!(lease = %lease.spec.order_id, %error, "cannot record a lease"),
        }
    }
}

async fn sweep_all(ctx: &Context, leases: &Store<ComputeLease>) {
    if leases.wait_until_ready().await.is_err() {
        return;
    }
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep_once(ctx, leases).await {
            tracing::warn!(%error, "cannot sweep");
        }
    }
}

async fn sweep_once(
    ctx: &Context,
    leases: &Store<ComputeLease>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let ours = ListParams::default().labels(&format!("{}={}", labels::RELEASE, ctx.settings.release));
    let namespaces = Api::<Namespace>::all(ctx.client.clone()).list(&ours).await?.items;
    let namespace = &ctx.settings.namespace;
    // One that was cleaned up looks after nothing any more.
    let has_lease = |name: &str| {
        leases.get(&ObjectRef::new(name).within(namespace)).is_some_and(|lease| !super::is_cleaned(&lease))
    };
    let orphans = sweep::orphans(&namespaces, |account| ctx.views.get(account), has_lease);
    ctx.metrics.found(|found| {
        found.namespaces = Some(orphans.len());
        found.terminating = sweep::terminating_since(&namespaces);
    });
    for orphan in orphans {
        let lease = orphan.annotations().get(labels::ORDER_ANNOTATION).map(String::as_str);
        tracing::info!(lease, namespace = orphan.metadata.name, "deleting the namespace of a lease that is over");
        apply::delete(ctx, orphan).await?;
    }
    let known: Vec<Arc<ComputeLease>> = leases.state();
    let api: Api<ComputeLease> = Api::namespaced(ctx.client.clone(), namespace);
    for name in sweep::expired(&known, ctx.clock.now()) {
        api.delete(&name, &DeleteParams::default()).await?;
    }
    Ok(())
}
