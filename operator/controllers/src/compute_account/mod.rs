//! ComputeAccount: who pays. Finds the signer, keeps a reader of the chain for each
//! account that the release serves, says what it holds and owes, and asks for
//! the approvals and withdrawals that its orders need.

mod runtime;
mod signers;
mod spending;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use freehold_api::ComputeAccount;
use freehold_chain::view::ChainView;
use freehold_core::order;
use futures::{FutureExt, StreamExt};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use tokio::sync::Mutex;
use tokio_stream::wrappers::IntervalStream;

use self::runtime::Runtime;
use self::status::Observed;
pub(crate) use self::status::committed;
use crate::accounts::is_ours;
use crate::context::Context;
use crate::goals;
use crate::live;
use crate::metrics;
use crate::rbac::{READ, Rule, Scope};

const GROUP: &str = freehold_api::GROUP;

pub const RULES: &[Rule] = &[
    Rule::new(GROUP, &["computeaccounts"], READ, Scope::Cluster),
    Rule::new(GROUP, &["computeaccounts/status"], &["patch"], Scope::Cluster),
    Rule::new(GROUP, &["chaintransactions"], &["get", "list", "watch", "create"], Scope::Release),
    // The key's Secret is named by the chart's values, so the chart grants it: that one and no other.
];

/// All accounts are looked at this often; a look that finds nothing new writes nothing.
const LOOK: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("apply: {0}")]
    Goal(#[from] goals::Error),
    #[error("status: {0}")]
    Status(Box<kube::Error>),
}

struct Shared {
    ctx: Context,
    runtimes: Mutex<BTreeMap<String, Runtime>>,
}

/// Serves the release's accounts until the task is dropped.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let api: Api<ComputeAccount> = Api::all(ctx.client.clone());
    let controller = Controller::new(api, watcher::Config::default());
    metrics::account::show(&ctx, controller.store());
    count_live(&ctx, controller.store());
    let timed = ctx.metrics.timed(metrics::Controller::ComputeAccount, reconcile);
    let shared = Arc::new(Shared { ctx, runtimes: Mutex::default() });
    let (served, known) = (shared.clone(), controller.store());
    let looks = IntervalStream::new(tokio::time::interval(LOOK)).then(move |_| {
        let (served, known) = (served.clone(), known.clone());
        async move { forget_deleted(&served, &known).await }
    });
    controller
        .reconcile_all_on(looks)
        .run(timed, error_policy, shared)
        .for_each(|outcome| async {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a look at an account failed");
            }
        })
        .await;
    Ok(())
}

/// A deleted account has no pass of its own any more.
async fn forget_deleted(shared: &Shared, known: &Store<ComputeAccount>) {
    let mut runtimes = shared.runtimes.lock().await;
    runtimes.retain(|name, _| {
        let kept = known.get(&ObjectRef::new(name)).is_some();
        if !kept {
            tracing::info!(account = name, "deleted; the chain is no longer read for it");
            runtime::forget(&shared.ctx, name);
        }
        kept
    });
}

/// What the chain holds of the release's accounts; nothing while one of them has not been read.
fn count_live(ctx: &Context, accounts: Store<ComputeAccount>) {
    let (views, release, origin) =
        (ctx.views.clone(), ctx.settings.release.clone(), order::origin(&ctx.settings.cluster_uid));
    ctx.live.count(move || {
        accounts.wait_until_ready().now_or_never()?.ok()?;
        let ours = accounts.state().into_iter().filter(|account| is_ours(account, &release));
        let counts: Vec<_> =
            ours.map(|account| views.get(&account.name_any()).and_then(|view| live::on_chain(&view, origin))).collect();
        let known: usize = counts.iter().flatten().sum();
        (known > 0 || counts.iter().all(Option::is_some)).then_some(known)
    });
}

async fn reconcile(account: Arc<ComputeAccount>, shared: Arc<Shared>) -> Result<Action, Error> {
    let ctx = &shared.ctx;
    let name = account.name_any();
    let mut runtimes = shared.runtimes.lock().await;
    if !is_ours(&account, &ctx.settings.release) || account.meta().deletion_timestamp.is_some() {
        if runtimes.remove(&name).is_some() {
            runtime::forget(ctx, &name);
        }
        return Ok(Action::await_change());
    }
    // dereference and validate: the key, and a reader that fits the spec
    let runtime = runtimes.entry(name.clone()).or_default();
    let signer = runtime.keep(ctx, &account).await;
    drop(runtimes);
    let view = ctx.views.get(&name);
    // plan and apply: approve, withdraw
    if let Some(view) = view.as_ref().filter(|view| view.health.allows_action() && signer.is_ok()) {
        ask(ctx, &name, &account, view).await?;
    }
    // status
    let report = ctx.accounts.get(&name).map(|served| served.report.borrow().clone()).unwrap_or_default();
    let observed = Observed {
        signer,
        view: view.as_deref(),
        report,
        open: ctx.outbox.open(&name),
        foreign: ctx.foreign.of(&name),
        now: ctx.clock.now(),
    };
    write_status(ctx, &account, &observed).await?;
    Ok(Action::await_change())
}

async fn ask(ctx: &Context, name: &str, account: &ComputeAccount, view: &ChainView) -> Result<(), Error> {
    let Some(served) = ctx.accounts.get(name) else { return Ok(()) };
    let affordable = served.report.borrow().affordable;
    for goal in spending::plan(account, view, &ctx.outbox.open(name), affordable) {
        tracing::info!(account = name, goal = goal.name(), "asked for");
        goals::ensure(ctx, name, goal, None).await?;
    }
    Ok(())
}

async fn write_status(ctx: &Context, account: &ComputeAccount, observed: &Observed<'_>) -> Result<(), Error> {
    let Some(patch) = status::patch(account, observed) else { return Ok(()) };
    let api: Api<ComputeAccount> = Api::all(ctx.client.clone());
    api.patch_status(&account.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(|_| ())
        .map_err(|error| Error::Status(Box::new(error)))
}

fn error_policy(account: Arc<ComputeAccount>, error: &Error, _: Arc<Shared>) -> Action {
    tracing::warn!(account = account.name_any(), %error, "the account could not be served; trying again");
    Action::requeue(RETRY)
}
