//! `kubectl freehold evict LEASE`: the provider gives a lease up. An annotation
//! on the ComputeLease, written with the caller's own rights; the operator does
//! the rest.

use freehold_api::conditions::types;
use freehold_api::lease::LeasePhase;
use freehold_api::{ComputeLease, labels};
use freehold_controllers::crossings;
use kube::api::{Patch, PatchParams};
use kube::{Api, Config, ResourceExt};
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    /// Name of the ComputeLease.
    lease: String,
    /// Namespace of the provider's release; the kubeconfig's where it is not named.
    #[arg(short, long)]
    namespace: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster cannot be reached: set KUBECONFIG, or the context with kubectl config use-context")]
    Config(#[from] kube::config::InferConfigError),
    #[error("the ComputeLease {name} of namespace {namespace} cannot be evicted")]
    Kube { name: String, namespace: String, source: Box<kube::Error> },
    #[error("the cluster cannot be reached")]
    Client(#[from] kube::Error),
}

pub async fn run(args: &Args) -> Result<(), Error> {
    let config = Config::infer().await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let api: Api<ComputeLease> = Api::namespaced(crossings::client(config)?, &namespace);
    let failed =
        |source| Error::Kube { name: args.lease.clone(), namespace: namespace.clone(), source: Box::new(source) };
    let patch = json!({ "metadata": { "annotations": { labels::EVICT_ANNOTATION: "true" } } });
    let lease = api.patch(&args.lease, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(failed)?;
    println!("{}", follows(&lease, &namespace));
    Ok(())
}

/// What the operator will do about it.
fn follows(lease: &ComputeLease, namespace: &str) -> String {
    let name = lease.name_any();
    let phase = lease.status.as_ref().and_then(|status| status.phase).unwrap_or_default();
    let what = match phase {
        LeasePhase::AwaitingInputs | LeasePhase::Starting => "the lease is declined, at the cost of the decline fee",
        LeasePhase::Running => {
            "the trainer saves a checkpoint, then the lease is closed: what accrued is paid, less the holdback"
        }
        LeasePhase::Finished => "the work is done: its result is delivered",
        LeasePhase::Delivered => "nothing: the work is done, and the order settles when its review window ends",
        LeasePhase::Failed => "nothing: the lease is being closed already",
        LeasePhase::Closed => "nothing: the lease is over already",
    };
    let closed = types::CLOSED;
    format!(
        "computelease/{name} is evicted. What follows: {what}.\nWait for it: kubectl -n {namespace} wait --for=condition={closed} --timeout=10m computelease/{name}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_follows() {
        let lease = |phase: &str| -> ComputeLease {
            let zero = format!("0x{}", "0".repeat(64));
            let address = format!("0x{}", "0".repeat(40));
            serde_json::from_value(json!({
                "apiVersion": "freehold.dev/v1alpha1", "kind": "ComputeLease", "metadata": { "name": "lease-1" },
                "spec": {
                    "orderId": zero, "tenant": address, "provider": "p", "providerAddress": address, "chainId": 1,
                    "market": address, "rate": "1", "spec": "{}", "manifestSha256": "00", "namespace": "fh-lease-1",
                },
                "status": { "phase": phase },
            }))
            .expect("a lease")
        };
        assert!(follows(&lease("Running"), "ns").contains("saves a checkpoint"));
        assert!(follows(&lease("Starting"), "ns").contains("declined"));
        assert!(follows(&lease("Closed"), "ns").contains("over already"));
    }
}
