//! `kubectl freehold adopt ORDER`: an order of the account that was placed from
//! elsewhere, by a cluster that was restored or by an object of before, becomes
//! a task's, or is brought to its end. An annotation, written with the caller's
//! own rights: on the task (which takes the right `spend`), or on the
//! ComputeAccount.

use freehold_api::{ComputeAccount, InferenceTask, TrainingTask, labels};
use freehold_controllers::crossings;
use freehold_core::B256;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Config, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["task", "end"])))]
pub struct Args {
    /// Id of the order.
    order: B256,
    /// The task that takes it over, as kind/name: trainingtask/digits.
    #[arg(long)]
    task: Option<TaskName>,
    /// Namespace of the task; the kubeconfig's where it is not named.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Cancel or close the order instead; what is not spent comes back.
    #[arg(long, requires = "account")]
    end: bool,
    /// The ComputeAccount that paid for it.
    #[arg(long)]
    account: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TaskName {
    Training(String),
    Inference(String),
}

impl std::str::FromStr for TaskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some(("trainingtask" | "trainingtasks" | "tt", name)) if !name.is_empty() => {
                Ok(Self::Training(name.into()))
            }
            Some(("inferencetask" | "inferencetasks" | "it", name)) if !name.is_empty() => {
                Ok(Self::Inference(name.into()))
            }
            _ => Err(format!("`{text}` is not trainingtask/NAME or inferencetask/NAME")),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster cannot be reached: set KUBECONFIG, or the context with kubectl config use-context")]
    Config(#[from] kube::config::InferConfigError),
    #[error("{what} cannot be changed")]
    Kube { what: String, source: Box<kube::Error> },
    #[error("the cluster cannot be reached")]
    Client(#[from] kube::Error),
}

pub async fn run(args: &Args) -> Result<(), Error> {
    let config = Config::infer().await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = crossings::client(config)?;
    let id = format!("{:#x}", args.order);
    match (&args.task, &args.account) {
        (Some(TaskName::Training(name)), _) => {
            let api: Api<TrainingTask> = Api::namespaced(client, &namespace);
            take(&api, "trainingtask", name, &namespace, &id).await
        }
        (Some(TaskName::Inference(name)), _) => {
            let api: Api<InferenceTask> = Api::namespaced(client, &namespace);
            take(&api, "inferencetask", name, &namespace, &id).await
        }
        (None, account) => end(client, account.as_deref().unwrap_or_default(), &id).await,
    }
}

async fn take<K>(api: &Api<K>, kind: &str, name: &str, namespace: &str, id: &str) -> Result<(), Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let patch = json!({ "metadata": { "annotations": { labels::ADOPT_ANNOTATION: id } } });
    let done = api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    done.map_err(|source| Error::Kube {
        what: format!("{kind}/{name} of namespace {namespace}"),
        source: Box::new(source),
    })?;
    println!(
        "{kind}/{name} takes over order {id}, if it is for the same work. See: kubectl -n {namespace} describe {kind} {name}"
    );
    Ok(())
}

async fn end(client: Client, account: &str, id: &str) -> Result<(), Error> {
    let api: Api<ComputeAccount> = Api::all(client);
    let failed = |source| Error::Kube { what: format!("computeaccount/{account}"), source: Box::new(source) };
    let known = api.get(account).await.map_err(failed)?;
    let ids = with(known.annotations().get(labels::END_ANNOTATION).map(String::as_str), id);
    // The version keeps an order from being forgotten that somebody else names at the same moment.
    let metadata =
        json!({ "resourceVersion": known.resource_version(), "annotations": { labels::END_ANNOTATION: ids } });
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    api.patch_metadata(account, &PatchParams::default(), &patch).await.map_err(failed)?;
    println!("order {id} is cancelled or closed within two minutes, unless a task of this cluster stands for it");
    Ok(())
}

/// The list with the order in it, once.
fn with(list: Option<&str>, id: &str) -> String {
    let known = list.unwrap_or_default().split_whitespace().filter(|known| *known != id);
    known.chain([id]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let id = format!("0x{}", "ab".repeat(32));
        Line::try_parse_from(["adopt", &id].into_iter().chain(line.split_whitespace())).map(|line| line.args)
    }

    #[test]
    fn a_task_or_an_end_is_asked_for() {
        assert_eq!(parse("--task tt/digits -n demo").expect("parses").task, Some(TaskName::Training("digits".into())));
        assert!(parse("--end --account team-a").expect("parses").end);
        for wrong in ["", "--end", "--task digits", "--task pod/x", "--task tt/x --end --account a"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_order_is_listed_once() {
        assert_eq!(with(None, "0x1"), "0x1");
        assert_eq!(with(Some("0x1 0x2"), "0x1"), "0x2 0x1");
    }
}
