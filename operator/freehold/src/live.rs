//! `freehold live`: the pre-delete hook of the chart. Exits 1 while the release
//! has something that only its operator can bring to an end, and says what to
//! do about each part of it.

use std::fmt::Write as _;
use std::time::Duration;

use freehold_api::conditions::{self, types};
use freehold_api::task::TaskStatus;
use freehold_api::transaction::TransactionState;
use freehold_api::{
    ChainTransaction, ComputeAccount, ComputeLease, InferenceTask, LIVE_CONFIG_MAP, TrainingTask, labels,
};
use freehold_controllers::accounts::is_ours;
use freehold_controllers::{crossings, goals, live};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::{Api, Client, Config, ResourceExt};
use tokio::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// Namespace of the release.
    #[arg(long, env = "FREEHOLD_NAMESPACE")]
    namespace: String,
    /// The release as `namespace.name`.
    #[arg(long, env = "FREEHOLD_RELEASE")]
    release: String,
    /// Revision that is installed: a rollback to it takes an uninstall back.
    #[arg(long, env = "FREEHOLD_REVISION", default_value_t = 1)]
    revision: u32,
    /// Look at tenants' tasks.
    #[arg(long, env = "FREEHOLD_TENANT", default_value_t = false, action = clap::ArgAction::Set)]
    tenant: bool,
    /// Look at a provider's leases.
    #[arg(long, env = "FREEHOLD_PROVIDER", default_value_t = false, action = clap::ArgAction::Set)]
    provider: bool,
    /// Seconds that transactions which are on their way are waited for.
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster cannot be reached")]
    Kube(#[from] kube::Error),
    #[error("{0}")]
    Live(String),
}

/// A task that holds an order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Task {
    kind: &'static str,
    namespace: String,
    name: String,
    order: String,
    state: String,
}

/// A ComputeLease that is not cleaned up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    name: String,
    order: String,
    phase: String,
}

/// What stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    tasks: Vec<Task>,
    leases: Vec<Lease>,
    /// Transactions that are not final, with what they wait for.
    goals: Vec<String>,
    /// The operator says so, of orders and bids on the chain.
    said: bool,
}

impl Found {
    fn is_live(&self) -> bool {
        self.said || !self.goals.is_empty() || self.is_work()
    }

    /// Something that ends by somebody's decision only.
    fn is_work(&self) -> bool {
        !self.tasks.is_empty() || !self.leases.is_empty()
    }
}

pub async fn run(args: &Args) -> Result<(), Error> {
    let client = crossings::client(Config::infer().await.map_err(kube::Error::InferConfig)?)?;
    let end = Instant::now() + Duration::from_secs(args.patience);
    let mut looks = tokio::time::interval(Duration::from_secs(2));
    loop {
        looks.tick().await;
        let found = look(args, &client).await?;
        if !found.is_live() {
            println!("release {} has no live orders, leases or transactions", args.release);
            return Ok(());
        }
        if found.is_work() || Instant::now() >= end {
            return Err(Error::Live(explain(args, &found)));
        }
    }
}

async fn look(args: &Args, client: &Client) -> Result<Found, Error> {
    let all = ListParams::default();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &args.namespace);
    let said = maps.get_opt(LIVE_CONFIG_MAP).await?.and_then(|map| map.data?.remove(live::KEY));
    let goals = Api::<ChainTransaction>::namespaced(client.clone(), &args.namespace).list(&all).await?.items;
    let mut found = Found {
        said: said.as_deref() == Some("true"),
        goals: goals.iter().filter(|entry| !goals::state(entry).is_final()).map(waits).collect(),
        ..Found::default()
    };
    if args.provider {
        let leases = Api::<ComputeLease>::namespaced(client.clone(), &args.namespace).list(&all).await?.items;
        found.leases = leases.iter().filter_map(lease).collect();
    }
    if args.tenant {
        let accounts = Api::<ComputeAccount>::all(client.clone()).list(&all).await?.items;
        let ours: Vec<String> =
            accounts.iter().filter(|one| is_ours(one, &args.release)).map(ResourceExt::name_any).collect();
        for one in Api::<TrainingTask>::all(client.clone()).list(&all).await?.items {
            let account = one.spec.market.account.as_str();
            found.tasks.extend(task("trainingtask", &ours, account, &one, one.status.as_ref()));
        }
        for one in Api::<InferenceTask>::all(client.clone()).list(&all).await?.items {
            let account = one.spec.market.account.as_str();
            found.tasks.extend(task("inferencetask", &ours, account, &one, one.status.as_ref()));
        }
    }
    Ok(found)
}

fn task(
    kind: &'static str,
    ours: &[String],
    account: &str,
    meta: &impl ResourceExt,
    status: Option<&TaskStatus>,
) -> Option<Task> {
    let held = meta.finalizers().iter().any(|name| name == labels::SETTLE_FINALIZER);
    let text = |part: Option<String>| part.unwrap_or_else(|| "none yet".into());
    (held && ours.iter().any(|name| name == account)).then(|| Task {
        kind,
        namespace: meta.namespace().unwrap_or_default(),
        name: meta.name_any(),
        order: text(status.and_then(|status| Some(status.order_id.as_ref()?.0.clone()))),
        state: status.and_then(|status| Some(status.state.as_ref()?.0.clone())).unwrap_or_else(|| "Pending".into()),
    })
}

fn lease(lease: &ComputeLease) -> Option<Lease> {
    let status = lease.status.clone().unwrap_or_default();
    (!conditions::is_true(&status.conditions, types::CLEANED_UP)).then(|| Lease {
        name: lease.name_any(),
        order: lease.spec.order_id.0.clone(),
        phase: format!("{:?}", status.phase.unwrap_or_default()),
    })
}

fn waits(entry: &ChainTransaction) -> String {
    let conditions = entry.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let why = conditions::find(conditions, types::CONFIRMED).map(|found| found.reason.as_str());
    let state = goals::state(entry);
    let state = if state == TransactionState::Pending { why.unwrap_or("Pending") } else { "is on its way" };
    format!("{} ({state})", entry.name_any())
}

/// Pure: everything that is live, and the commands that end it.
fn explain(args: &Args, found: &Found) -> String {
    let Args { namespace, release, revision, .. } = args;
    let name = release.rsplit('.').next().unwrap_or_default();
    let mut out = format!("release {release} is not over; without its operator money and work would be left behind.\n");
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    if !found.tasks.is_empty() {
        line("Tasks that hold an order (wait for their end, or delete them):".into());
        for Task { kind, namespace, name, order, state } in &found.tasks {
            line(format!("  {state:<10} order {order}   kubectl -n {namespace} delete {kind} {name}"));
        }
    }
    if !found.leases.is_empty() {
        line("Leases (cordon the ComputeProvider and wait for their end, or evict them):".into());
        for Lease { name, order, phase } in &found.leases {
            line(format!("  {phase:<10} order {order}   kubectl freehold evict {name} -n {namespace}"));
        }
    }
    if !found.goals.is_empty() {
        line(
            "Transactions that are not done (they end by themselves; a reason in brackets says what one waits for):"
                .into(),
        );
        for goal in &found.goals {
            line(format!("  {goal}"));
        }
    }
    if found.said && !found.is_work() {
        line(
            "Orders or bids on the chain that are not settled: a delivered result waits for the end of its review"
                .into(),
        );
        line("window, a bid for its validity (cordon the ComputeProvider). See them: freehold audit tenant|provider ADDRESS".into());
    }
    line(format!("Nothing was deleted. Take the uninstall back: helm -n {namespace} rollback {name} {revision}"));
    line(format!("Once all is over: helm -n {namespace} uninstall {name}"));
    line(format!("Whoever accepts the loss: helm -n {namespace} uninstall {name} --no-hooks"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args {
            namespace: "freehold-tenant".into(),
            release: "freehold-tenant.freehold".into(),
            revision: 7,
            tenant: true,
            provider: true,
            patience: 0,
        }
    }

    #[test]
    fn everything_live_is_named_with_the_command_that_ends_it() {
        let task = Task {
            kind: "trainingtask",
            namespace: "demo".into(),
            name: "digits".into(),
            order: "0xab".into(),
            state: "Running".into(),
        };
        let lease = Lease { name: "lease-ab".into(), order: "0xab".into(), phase: "Running".into() };
        let found =
            Found { tasks: vec![task], leases: vec![lease], goals: vec!["closeorder-1 (GasLow)".into()], said: true };
        let text = explain(&args(), &found);
        for part in [
            "kubectl -n demo delete trainingtask digits",
            "kubectl freehold evict lease-ab -n freehold-tenant",
            "closeorder-1 (GasLow)",
            "helm -n freehold-tenant rollback freehold 7",
            "0xab",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn the_operators_word_alone_is_enough_and_nothing_is_nothing() {
        assert!(!Found::default().is_live());
        let said = Found { said: true, ..Found::default() };
        assert!(said.is_live() && !said.is_work());
        assert!(explain(&args(), &said).contains("review"));
    }
}
