//! `freehold operator`: the controllers of the release's roles in one process.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use freehold_controllers::context::{Context, Roles, Settings, SystemClock};
use freehold_controllers::metrics::work;
use freehold_controllers::rbac::{Rule, Scope};
use freehold_controllers::task::http::ApiServer;
use freehold_controllers::task::store::Store;
use freehold_controllers::{
    chain_transaction, compute_account, compute_lease, compute_provider, crossings, live, task,
};
use freehold_gateway::disk;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config};
use tokio::task::JoinSet;
use warp::Filter as _;
use warp::http::{Response, StatusCode};

use crate::schema;

/// What the process itself asks for, beside its controllers.
pub const RULES: &[Rule] = &[
    // The UID of kube-system marks this cluster's orders.
    Rule::new("", &["namespaces"], &["get"], Scope::Cluster),
    Rule::new("events.k8s.io", &["events"], &["create", "patch"], Scope::Cluster),
    // The schema annotation of the kinds.
    Rule::new("apiextensions.k8s.io", &["customresourcedefinitions"], &["get"], Scope::Cluster),
];

#[derive(clap::Args)]
pub struct Args {
    /// Namespace of the release.
    #[arg(long, env = "FREEHOLD_NAMESPACE")]
    namespace: String,
    /// The release as `namespace.name`, as ComputeAccounts name their operator.
    #[arg(long, env = "FREEHOLD_RELEASE")]
    release: String,
    /// Serve tenants' tasks.
    #[arg(long, env = "FREEHOLD_TENANT", default_value_t = false, action = clap::ArgAction::Set)]
    tenant: bool,
    /// Serve a provider's leases.
    #[arg(long, env = "FREEHOLD_PROVIDER", default_value_t = false, action = clap::ArgAction::Set)]
    provider: bool,
    /// This binary's image, by digest: the pods of leases run the courier from it.
    #[arg(long, env = "FREEHOLD_IMAGE")]
    image: String,
    /// Image of the built-in trainer, by digest (tenants).
    #[arg(long, env = "FREEHOLD_TRAINER_IMAGE", default_value = "")]
    trainer_image: String,
    /// Folder of the tenant's artifacts.
    #[arg(long, env = "FREEHOLD_STORE", default_value = "/store")]
    store: PathBuf,
    /// Private networks on which gateways may be called.
    #[arg(long, env = "FREEHOLD_ALLOWED_CIDRS", value_delimiter = ',')]
    allowed_cidrs: Vec<String>,
    /// The gateway's courier listener (providers), as `http://host:port`.
    #[arg(long, env = "FREEHOLD_GATEWAY_COURIER_URL", default_value = "")]
    gateway_courier_url: String,
    /// Extended resource of the device plugin (providers).
    #[arg(long, env = "FREEHOLD_GPU_RESOURCE", default_value = "nvidia.com/gpu")]
    gpu_resource: String,
    /// Who serves the devices: builtin or external (providers).
    #[arg(long, env = "FREEHOLD_GPU_PLUGIN", default_value = "external")]
    gpu_plugin: String,
    /// File of the projected token that a signer elsewhere knows this operator by.
    #[arg(long, env = "FREEHOLD_SIGNER_TOKEN", default_value = "/var/run/secrets/freehold/signer-token")]
    signer_token: PathBuf,
    /// Address of health and artifacts.
    #[arg(long, env = "FREEHOLD_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Address of metrics: one of its own, so that a NetworkPolicy can tell who reads them.
    #[arg(long, env = "FREEHOLD_METRICS_LISTEN", default_value = "0.0.0.0:8082")]
    metrics_listen: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("neither --tenant nor --provider is true: nothing to do")]
    NoRole,
    #[error("the cluster cannot be reached")]
    Kube(#[from] kube::Error),
    #[error("namespace kube-system has no UID")]
    NoClusterUid,
    #[error(transparent)]
    Schema(#[from] schema::Error),
    #[error("--gateway-courier-url `{url}` must be http://host:port of a host that resolves: {reason}")]
    GatewayUrl { url: String, reason: String },
    #[error("controller {name} failed: {reason}")]
    Controller { name: &'static str, reason: String },
}

type Running = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

pub async fn run(args: Args) -> Result<(), Error> {
    if !args.tenant && !args.provider {
        return Err(Error::NoRole);
    }
    let client = crossings::client(Config::infer().await.map_err(kube::Error::InferConfig)?)?;
    schema::check(&client).await?;
    let settings = settings(&args, &client).await?;
    let ctx = Context::new(client, settings, Arc::new(SystemClock));
    let mut running = JoinSet::new();
    for controller in controllers(&args, &ctx) {
        running.spawn(controller);
    }
    let artifacts = task::http::routes(Store::new(&args.store), Arc::new(ApiServer(ctx.clone())));
    let routes = health().or(artifacts);
    running.spawn(async move {
        warp::serve(routes).run(args.listen).await;
        Ok(())
    });
    show(&args, &ctx);
    running.spawn(async move {
        warp::serve(metrics(ctx)).run(args.metrics_listen).await;
        Ok(())
    });
    // All of them run until the process is told to stop; one that ends early is a fault of the whole.
    tokio::select! {
        ended = running.join_next() => match ended {
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) => Err(Error::Controller { name: "operator", reason: error.to_string() }),
            None => Ok(()),
        },
        () = stopped() => Ok(()),
    }
}

fn controllers(args: &Args, ctx: &Context) -> Vec<Running> {
    let mut out: Vec<Running> = vec![
        named("ComputeAccount", compute_account::run(ctx.clone())),
        named("ChainTransaction", chain_transaction::run(ctx.clone())),
        named("live", live::run(ctx.clone())),
    ];
    if args.tenant {
        out.push(named("TrainingTask, InferenceTask and ComputeBudget", task::run(ctx.clone())));
    }
    if args.provider {
        out.push(named("ComputeProvider", compute_provider::run(ctx.clone())));
        out.push(named("ComputeLease", compute_lease::run(ctx.clone())));
    }
    out
}

fn named<E: std::fmt::Display>(
    name: &'static str,
    run: impl Future<Output = Result<(), E>> + Send + 'static,
) -> Running {
    Box::pin(async move { run.await.map_err(|error| Error::Controller { name, reason: error.to_string() }) })
}

async fn settings(args: &Args, client: &Client) -> Result<Settings, Error> {
    let system = Api::<Namespace>::all(client.clone()).get("kube-system").await?;
    let gateway_pod_ip = match args.provider {
        true => Some(resolve(&args.gateway_courier_url).await?),
        false => None,
    };
    Ok(Settings {
        namespace: args.namespace.clone(),
        release: args.release.clone(),
        roles: Roles { tenant: args.tenant, provider: args.provider },
        trainer_image: args.trainer_image.clone(),
        courier_image: args.image.clone(),
        gateway_internal_url: args.gateway_courier_url.clone(),
        gateway_pod_url: args.gateway_courier_url.clone(),
        gateway_pod_ip,
        store: args.store.clone(),
        allowed_cidrs: args.allowed_cidrs.iter().filter(|cidr| !cidr.is_empty()).cloned().collect(),
        gpu_resource: args.gpu_resource.clone(),
        gpu_plugin: args.gpu_plugin.clone(),
        signer_token: args.signer_token.clone(),
        cluster_uid: system.metadata.uid.ok_or(Error::NoClusterUid)?,
    })
}

/// Address of the courier listener's Service: pods of leases have no DNS and get it as a host alias.
async fn resolve(url: &str) -> Result<String, Error> {
    let wrong = |reason: String| Error::GatewayUrl { url: url.to_owned(), reason };
    let authority = url.strip_prefix("http://").ok_or_else(|| wrong("it does not begin with http://".into()))?;
    let mut addresses = tokio::net::lookup_host(authority).await.map_err(|error| wrong(error.to_string()))?;
    let address = addresses.next().ok_or_else(|| wrong("the host has no address".into()))?;
    Ok(address.ip().to_string())
}

fn health() -> impl warp::Filter<Extract = (&'static str,), Error = warp::Rejection> + Clone {
    warp::path!("healthz").or(warp::path!("readyz")).unify().and(warp::get()).map(|| "ok\n")
}

/// What belongs to no controller.
fn show(args: &Args, ctx: &Context) {
    let (tenant, provider) = (args.tenant, args.provider);
    let store = args.store.clone();
    ctx.metrics.show(move |_| {
        let disk = if tenant { disk::of(&store) } else { None };
        let stored = disk.map(|disk| work::store(disk.used, disk.limit)).unwrap_or_default();
        stored.into_iter().chain([work::info(tenant, provider)]).collect()
    });
}

fn metrics(ctx: Context) -> impl warp::Filter<Extract = (impl warp::Reply,), Error = warp::Rejection> + Clone {
    warp::path!("metrics").and(warp::get()).map(move || match ctx.metrics.page(ctx.clock.now()) {
        Ok(page) => Response::builder()
            .header("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(page),
        Err(error) => Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).body(error.to_string()),
    })
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
