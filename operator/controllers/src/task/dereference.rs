//! Gathers what a pass needs to know: caches first, then the store, and calls
//! only where the stage of the task asks for them.

use freehold_api::TrainingTask;
use freehold_api::account::Role;
use freehold_api::conditions::{Claim, types};
use freehold_api::task::{ModelSource, Source};
use freehold_chain::view::{ChainView, Health};
use freehold_core::order::OrderState;
use freehold_core::{order, units};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::adoption::{self, Others};
use super::caches::{self, failed_placements};
use super::gateways::Lease;
use super::kind::{TaskFacts, TaskSpecView};
use super::ledger::{self, Stage};
use super::observed::{Account, Attempt, Delivery, Observed, Report, attempts};
use super::plan::{Intent, intent};
use super::reasons::valid;
use super::store;
use super::stored::StoredOrder;
use super::validate::{self, ChainFacts, Found};
use super::{FoundInputs, Shared, collect, outcome, top_up};

/// Seconds that a gateway's report, or a look at inputs that are not there, stays good.
const FRESH_SECONDS: i64 = 5;
/// The same of inputs that are held.
const HELD_SECONDS: i64 = 15;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {what}: {source}")]
    Kube { what: String, source: Box<kube::Error> },
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Nothing, if the task is another release's business.
pub async fn dereference(shared: &Shared, task: TaskFacts, spec: TaskSpecView) -> Result<Option<Observed>, Error> {
    let Some(account) = account(shared, &spec) else { return Ok(None) };
    let name = spec.market.account.as_str();
    let view = account.is_ok().then(|| shared.ctx.views.get(name)).flatten();
    // Tenants cannot read ComputeAccounts: what keeps the chain from being read is said here.
    let unread = view.as_ref().and_then(|view| unread(name, view));
    let view = view.filter(|_| unread.is_none());
    let account = unread.map_or(account, Err);
    let goals = shared.caches.goals.group(&task.uid);
    let failed = failed_placements(goals.iter());
    let limits = account.as_ref().ok().zip(view.as_ref()).map(|(account, _)| validate::limits(&spec, &account.chain));
    let stored = shared.caches.orders.group(&task.uid);
    let found = view.as_ref().map(|view| {
        let raised = caches::raised(goals.iter(), view.decimals);
        attempts(&task.uid, &stored, view, &failed, &raised)
    });
    let mut o = Observed {
        now: shared.ctx.clock.now(),
        checkpoint: shared.store.checkpoint(&task.namespace, &task.uid),
        budgets: shared.caches.budgets_of(&task.namespace, name),
        task,
        spec,
        account,
        view,
        limits,
        attempts: found.unwrap_or_default(),
        goals,
        report: Report::NotAsked,
        delivery: Delivery::None,
        work: None,
        entries: Vec::new(),
        others: Others::default(),
    };
    o.delivery = delivery(shared, &o);
    o.report = report(shared, &o).await;
    let orders = wants_work(&o);
    if orders || top_up::may_be_due(&o) {
        o.entries = entries(shared, &o);
    }
    if orders {
        o.others = others(shared, &o);
        o.work = Some(work(shared, &o).await?);
    }
    Ok(Some(o))
}

/// Why nothing is known of the account's chain yet.
fn unread(name: &str, view: &ChainView) -> Option<Claim> {
    if view.latest.block.number > 0 || view.health.allows_action() {
        return None;
    }
    let (reason, why) = view.health.explain();
    let message = format!("The chain of account `{name}` cannot be used. {why}");
    Some(match view.health {
        Health::Starting => Claim::unknown(types::FUNDED, reason, message),
        _ => Claim::no(types::FUNDED, reason, message),
    })
}

/// The account that pays, or what is wrong with the name; nothing if another release serves it.
fn account(shared: &Shared, spec: &TaskSpecView) -> Option<Result<Account, Claim>> {
    let name = spec.market.account.as_str();
    let settings = &shared.ctx.settings;
    let Some(found) = shared.caches.accounts.get(name) else {
        let known = shared.caches.accounts.names();
        let message = format!(
            "market.account `{name}` names no ComputeAccount; there are: {}. Create the task again with one of them, or ask the platform's admin.",
            list(&known)
        );
        return Some(Err(Claim::no(types::VALID, valid::ACCOUNT_NOT_FOUND, message)));
    };
    if found.role == Role::Provider {
        let message = format!(
            "market.account `{name}` is a provider's account, which pays for no tasks. Create the task again with a tenant's, or ask the platform's admin."
        );
        return Some(Err(Claim::no(types::VALID, valid::ACCOUNT_NOT_FOUND, message)));
    }
    if !caches::serves(&found, &settings.release) {
        return None;
    }
    let window = |text: &str| units::seconds(text).unwrap_or_default();
    let chain = shared.ctx.views.get(name).map(|view| ChainFacts {
        decimals: view.decimals,
        bid_window: window(found.chain.windows.bids.as_str()),
        start_window: window(found.chain.windows.start.as_str()),
        review_window: window(found.chain.windows.review.as_str()),
        allows_http: !settings.allowed_cidrs.is_empty(),
    });
    Some(Ok(Account {
        name: name.to_owned(),
        caps: found.caps.clone(),
        chain: chain.unwrap_or(ChainFacts {
            decimals: 0,
            bid_window: 0,
            start_window: 0,
            review_window: 0,
            allows_http: false,
        }),
        origin: order::origin(&settings.cluster_uid),
        silence: window(found.chain.windows.silence.as_str()),
    }))
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.iter().take(10).cloned().collect::<Vec<_>>().join(", ") }
}

/// Every order of the account, as money.
pub fn entries(shared: &Shared, o: &Observed) -> Vec<ledger::Entry> {
    let (Ok(account), Some(view)) = (&o.account, &o.view) else { return Vec::new() };
    account_entries(&shared.caches, &account.name, view)
}

pub fn account_entries(caches: &caches::Caches, account: &str, view: &ChainView) -> Vec<ledger::Entry> {
    let (failed, raised) = (caches.failed_placements(), caches.raised(view.decimals));
    let of = |order: &StoredOrder| match order.account == account {
        true => [ledger::entry(order, view, &failed), ledger::raise(order, view, &raised)],
        false => [None, None],
    };
    caches.orders.filter_map(|order| Some(of(order))).into_iter().flatten().flatten().collect()
}

/// The lease of the newest attempt at its provider's gateway.
pub fn lease(o: &Observed, attempt: &Attempt) -> Option<Lease> {
    let (Ok(account), Some(view)) = (&o.account, &o.view) else { return None };
    let record = view.providers.get(&attempt.provider()?)?;
    Some(Lease {
        id: attempt.id,
        account: account.name.clone(),
        gateway: record.gateway.clone(),
        chain_id: view.chain_id,
        market: view.market,
    })
}

fn others(shared: &Shared, o: &Observed) -> Others {
    let (Ok(account), Some(view)) = (&o.account, &o.view) else { return Others::default() };
    let stored = shared.caches.orders.filter_map(|order| (order.account == account.name).then(|| order.clone()));
    adoption::others(&o.task, &account.name, &stored, view)
}

/// The gateway is asked while it has something to do or to tell.
async fn report(shared: &Shared, o: &Observed) -> Report {
    let Some(attempt) = o.newest() else { return Report::NotAsked };
    let asks = match attempt.stage {
        Stage::Live(state) => state.is_leased(),
        Stage::Settled(OrderState::Accepted) => matches!(o.delivery, Delivery::Missing),
        // How the work ended decides whether it is tried again.
        Stage::Settled(OrderState::Closed | OrderState::Declined | OrderState::NoShow) => {
            outcome::recorded(o).is_none()
        }
        Stage::Settled(_) | Stage::Settling(_) | Stage::Unplaced | Stage::Lapsed => false,
    };
    if !asks {
        return Report::NotAsked;
    }
    if let Some((_, known)) = shared.reports.get(&attempt.id, o.now, FRESH_SECONDS) {
        return known;
    }
    let report = match lease(o, attempt) {
        None => Report::Unreachable("the provider publishes no address of a gateway".into()),
        Some(lease) => match shared.gateways.status(&lease).await {
            Ok(report) => Report::Says(Box::new(report)),
            Err(error) if error.is_not_found() => Report::NotServed,
            Err(error) => Report::Unreachable(error.to_string()),
        },
    };
    shared.reports.put(attempt.id, o.now, report.clone());
    report
}

fn delivery(shared: &Shared, o: &Observed) -> Delivery {
    let Some(attempt) = o.newest() else { return Delivery::None };
    let delivered = matches!(
        attempt.stage,
        Stage::Live(OrderState::Delivered)
            | Stage::Settling(OrderState::Accepted)
            | Stage::Settled(OrderState::Accepted)
    );
    let Some(order) = attempt.order.as_ref().filter(|_| delivered) else { return Delivery::None };
    collect::inspect(&shared.store, &o.task.namespace, order.result_hash.as_ref(), validate::expected_output(&o.spec))
}

/// Inputs are looked at only where an order may follow.
fn wants_work(o: &Observed) -> bool {
    let free = match o.stage() {
        None | Some(Stage::Lapsed) => true,
        Some(Stage::Settled(state)) => state != OrderState::Accepted,
        Some(Stage::Unplaced | Stage::Live(_) | Stage::Settling(_)) => false,
    };
    free && o.limits().is_some() && intent(o) == Intent::Pursue
}

async fn work(shared: &Shared, o: &Observed) -> Result<Result<validate::Work, Claim>, Error> {
    let key = (o.task.uid.clone(), o.task.generation);
    let held = |(data, model): &FoundInputs| {
        let settled = |found: &Found| matches!(found, Found::Held { .. } | Found::Remote);
        settled(data) && model.as_ref().is_none_or(settled)
    };
    let (data, model) = match shared.inputs.get(&key, o.now, HELD_SECONDS) {
        Some((at, known)) if held(&known) || o.now.as_second() - at.as_second() < FRESH_SECONDS => known,
        _ => {
            let found = (data(shared, o, &o.spec.data.1).await?, model(shared, o).await?);
            shared.inputs.put(key, o.now, found.clone());
            found
        }
    };
    let Ok(account) = &o.account else { return Ok(Err(invalid_account())) };
    Ok(validate::work(&o.spec, &account.chain, &shared.ctx.settings.trainer_image, &data, model.as_ref()))
}

fn invalid_account() -> Claim {
    Claim::unknown(types::VALID, valid::ACCOUNT_NOT_FOUND, "The account is not known.")
}

async fn data(shared: &Shared, o: &Observed, source: &Source) -> Result<Found, Error> {
    let namespace = o.task.namespace.as_str();
    if let Some(key) = &source.config_map_ref {
        return config_map(shared, namespace, key.name.as_str(), &key.key).await;
    }
    Ok(match &source.artifact {
        Some(artifact) => held(shared, namespace, artifact.sha256.as_str()),
        None => Found::Remote,
    })
}

async fn config_map(shared: &Shared, namespace: &str, name: &str, key: &str) -> Result<Found, Error> {
    let api: Api<ConfigMap> = Api::namespaced(shared.ctx.client.clone(), namespace);
    let found = match api.get_opt(name).await {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            return Ok(Found::Missing(forbidden(shared, namespace, name)));
        }
        Err(source) => {
            return Err(Error::Kube { what: format!("ConfigMap {namespace}/{name}"), source: Box::new(source) });
        }
    };
    let Some(map) = found else {
        return Ok(Found::Missing(format!(
            "ConfigMap `{name}` does not exist in namespace `{namespace}`. Create it, or correct the name."
        )));
    };
    let text = map.data.as_ref().and_then(|d| d.get(key)).map(|t| t.as_bytes());
    let bytes = map.binary_data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice()).or(text);
    let Some(bytes) = bytes else {
        let keys: Vec<String> = map
            .data
            .iter()
            .flat_map(|d| d.keys().cloned())
            .chain(map.binary_data.iter().flat_map(|d| d.keys().cloned()))
            .collect();
        return Ok(Found::Missing(format!(
            "ConfigMap `{name}` has no key `{key}`; it has: {}. Correct the key.",
            list(&keys)
        )));
    };
    let sha256 = shared.store.put(namespace, bytes)?;
    Ok(Found::Held { sha256, size: bytes.len() as u64 })
}

fn held(shared: &Shared, namespace: &str, sha256: &str) -> Found {
    match shared.store.size(namespace, sha256) {
        Some(size) => Found::Held { sha256: sha256.to_owned(), size },
        None => Found::Missing(format!(
            "artifact {sha256} is not in the tenant's store for namespace `{namespace}`; artifacts come from tasks that are Complete, see their status.artifacts."
        )),
    }
}

async fn model(shared: &Shared, o: &Observed) -> Result<Option<Found>, Error> {
    let Some((_, source)) = &o.spec.model else { return Ok(None) };
    let namespace = o.task.namespace.as_str();
    let ModelSource { task_ref, artifact } = source;
    if let Some(artifact) = artifact {
        return Ok(Some(held(shared, namespace, artifact.sha256.as_str())));
    }
    let name = task_ref.as_ref().map(|n| n.as_str()).unwrap_or_default();
    let api: Api<TrainingTask> = Api::namespaced(shared.ctx.client.clone(), namespace);
    let found = api
        .get_opt(name)
        .await
        .map_err(|e| Error::Kube { what: format!("TrainingTask {namespace}/{name}"), source: Box::new(e) })?;
    Ok(Some(match found {
        None => {
            Found::Waiting(format!("Waits for TrainingTask `{name}`, which does not exist in namespace `{namespace}`."))
        }
        Some(task) => model_of(shared, namespace, &task),
    }))
}

fn model_of(shared: &Shared, namespace: &str, task: &TrainingTask) -> Found {
    use freehold_api::conditions::{find, is_true};
    let name = task.metadata.name.as_deref().unwrap_or_default();
    let status = task.status.clone().unwrap_or_default();
    if let Some(failed) = find(&status.conditions, types::FAILED).filter(|c| c.status == "True") {
        return Found::Failed(format!(
            "TrainingTask `{name}` failed ({}): there is no model to take. Name another task.",
            failed.reason
        ));
    }
    if !is_true(&status.conditions, types::COMPLETE) {
        return Found::Waiting(format!("Waits for TrainingTask `{name}` to be Complete."));
    }
    match status.artifacts.iter().find(|a| a.name == "model.safetensors") {
        Some(artifact) => held(shared, namespace, artifact.sha256.as_str()),
        None => Found::Failed(format!("TrainingTask `{name}` has no artifact `model.safetensors`. Name another task.")),
    }
}

fn forbidden(shared: &Shared, namespace: &str, name: &str) -> String {
    let release = shared.ctx.settings.release.replace('.', "-");
    format!(
        "The operator may not read ConfigMap `{name}`: bind the ClusterRole `{release}-data` to its service account in namespace `{namespace}`, as examples/tenant.yaml does."
    )
}
