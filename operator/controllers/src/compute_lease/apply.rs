//! Carries a plan out: goals, objects, the stop of a Job, the end of a
//! namespace. Dull on purpose.

use std::fmt::Debug;

use freehold_api::ComputeLease;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::build::{self, Blueprint, Gateway, JOB, STOPPED_AT_ANNOTATION, STOPPED_BECAUSE_ANNOTATION};
use super::dereference::Observed;
use super::exit::Stop;
use super::gateway::WorkStore;
use super::plan::Effect;
use super::{logs, names};
use crate::context::Context;
use crate::goals;

const MANAGER: &str = "freehold-compute-lease";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write {what}: {source}")]
    Kube { what: String, source: Box<kube::Error> },
    #[error(transparent)]
    Goal(#[from] goals::Error),
    #[error(transparent)]
    Logs(#[from] logs::Error),
    #[error("the pods' gateway URL `{0}` is not http://host:port, or no address is known for its host")]
    GatewayUrl(String),
    #[error("the API server gave the lease's root ConfigMap no UID")]
    NoUid,
}

pub async fn apply(
    ctx: &Context,
    store: &dyn WorkStore,
    lease: &ComputeLease,
    observed: &Observed,
    effects: &[Effect],
) -> Result<(), Error> {
    for effect in effects {
        match effect {
            Effect::Ask(goal) => {
                goals::ensure(ctx, &observed.account, goal.clone(), None).await?;
            }
            Effect::Create => create(ctx, lease, observed).await?,
            Effect::Stop(stop) => {
                keep_logs(ctx, store, observed).await;
                suspend(ctx, lease, *stop, observed.facts.now).await?;
            }
            Effect::ArchiveLogs => keep_logs(ctx, store, observed).await,
            Effect::DeleteNamespace => delete_namespace(ctx, observed).await?,
        }
    }
    Ok(())
}

/// A log is worth keeping, but not worth keeping GPUs or a namespace for.
async fn keep_logs(ctx: &Context, store: &dyn WorkStore, observed: &Observed) {
    if let Err(error) = logs::archive(ctx, store, &observed.facts.order, &observed.pods).await {
        tracing::warn!(lease = %observed.facts.order, %error, "the trainer's log was not kept");
    }
}

async fn create(ctx: &Context, lease: &ComputeLease, observed: &Observed) -> Result<(), Error> {
    let (Some(work), Some(room)) = (&observed.work, &observed.room) else { return Ok(()) };
    let settings = &ctx.settings;
    let order = observed.view.order(&observed.facts.order);
    let blueprint = Blueprint {
        order: observed.facts.order,
        account: observed.account.clone(),
        provider: lease.spec.provider.0.clone(),
        release: settings.release.clone(),
        courier_image: settings.courier_image.clone(),
        gpu_resource: settings.gpu_resource.clone(),
        gateway: gateway(&settings.gateway_pod_url, settings.gateway_pod_ip.as_deref())?,
        work: work.clone(),
        start_window: order.map_or(0, |order| order.terms.startWindow.to::<u64>()),
        duration: order.map_or(0, |order| order.terms.duration.to::<u64>()),
        node: room.placement.node.clone(),
        nodes: room.nodes.clone(),
    };
    build_up(ctx, &blueprint).await
}

/// The address that pods find under the URL's host.
pub fn gateway(url: &str, ip: Option<&str>) -> Result<Gateway, Error> {
    let wrong = || Error::GatewayUrl(url.to_owned());
    let parsed = reqwest::Url::parse(url).map_err(|_| wrong())?;
    let host = parsed.host_str().ok_or_else(wrong)?.to_owned();
    let port = parsed.port_or_known_default().ok_or_else(wrong)?;
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    // Pods resolve no names: what is not an address has to come with one.
    let alias = match ip {
        Some(ip) if !is_address => Some((host, ip.to_owned())),
        None if !is_address => return Err(wrong()),
        Some(_) | None => None,
    };
    Ok(Gateway { url: url.trim_end_matches('/').to_owned(), port, alias })
}

/// Walls before work: the Job comes last.
async fn build_up(ctx: &Context, blueprint: &Blueprint) -> Result<(), Error> {
    put(&Api::all(ctx.client.clone()), &build::namespace(blueprint)).await?;
    let namespace = names::namespace(&blueprint.order);
    let root: ConfigMap = put(&Api::namespaced(ctx.client.clone(), &namespace), &build::root(blueprint)).await?;
    let objects = build::objects(blueprint, &root.uid().ok_or(Error::NoUid)?);
    for policy in &objects.policies {
        put_in(ctx, &namespace, policy).await?;
    }
    put_in(ctx, &namespace, &objects.quota).await?;
    put_in(ctx, &namespace, &objects.account).await?;
    put_in(ctx, &namespace, &objects.log_readers).await?;
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    match jobs.create(&params, &objects.job).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(source) => Err(failed("the Job", source)),
    }
}

async fn put_in<K>(ctx: &Context, namespace: &str, object: &K) -> Result<(), Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    put(&Api::namespaced(ctx.client.clone(), namespace), object).await.map(|_| ())
}

/// Forced server-side apply: these are our children, and nobody else's.
async fn put<K>(api: &Api<K>, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let name = object.meta().name.clone().unwrap_or_default();
    let params = PatchParams::apply(MANAGER).force();
    let what = || format!("{} {name}", K::kind(&()));
    api.patch(&name, &params, &Patch::Apply(object)).await.map_err(|source| failed(&what(), source))
}

/// The Job controller sends SIGTERM; the trainer saves, the courier uploads.
async fn suspend(ctx: &Context, lease: &ComputeLease, stop: Stop, now: u64) -> Result<(), Error> {
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), lease.spec.namespace.as_str());
    let patch = serde_json::json!({
        "metadata": { "annotations": {
            STOPPED_BECAUSE_ANNOTATION: stop.as_str(),
            STOPPED_AT_ANNOTATION: now.to_string(),
        } },
        "spec": { "suspend": true },
    });
    api.patch(JOB, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(|source| failed("the Job", source))?;
    Ok(())
}

/// The UID makes sure that it is the namespace that was looked at.
async fn delete_namespace(ctx: &Context, observed: &Observed) -> Result<(), Error> {
    let Some(namespace) = &observed.namespace else { return Ok(()) };
    delete(ctx, namespace).await
}

pub async fn delete(ctx: &Context, namespace: &Namespace) -> Result<(), Error> {
    let name = namespace.name_any();
    let same = Preconditions { uid: namespace.uid(), resource_version: None };
    let params = DeleteParams::background().preconditions(same);
    match Api::<Namespace>::all(ctx.client.clone()).delete(&name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(failed(&format!("the end of namespace {name}"), source)),
    }
}

fn failed(what: &str, source: kube::Error) -> Error {
    Error::Kube { what: what.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_find_the_gateway_without_dns() {
        let made = |url, ip| gateway(url, ip).ok().map(|gateway| (gateway.port, gateway.alias));
        let alias = Some(("gateway.freehold".to_owned(), "10.102.7.7".to_owned()));
        assert_eq!(made("http://gateway.freehold:8081/", Some("10.102.7.7")), Some((8081, alias)));
        assert_eq!(made("http://10.102.7.7:8081", Some("10.102.7.7")), Some((8081, None)));
        assert_eq!(made("http://10.102.7.7:8081", None), Some((8081, None)));
        assert_eq!(made("http://gateway.freehold:8081", None), None);
        assert_eq!(made("gateway", Some("10.102.7.7")), None);
    }
}
