//! Carries a plan's effects out, one after the other. Each is safe to repeat.
//! What goes wrong at a gateway is the task's news, not an error of the pass.

use freehold_api::conditions::{Claim, types};
use freehold_api::transaction::TransactionState;
use freehold_api::{ChainTransaction, Goal, labels};
use freehold_chain::view::ChainView;
use freehold_core::B256;
use freehold_core::money::Amount;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::funding::{self, Asks, Question};
use super::kind::TaskKind;
use super::ledger::Money;
use super::observed::{Account, Observed};
use super::plan::Effect;
use super::reasons::{result, running, valid};
use super::stored::{MANIFEST, StoredOrder, name_of};
use super::{Shared, adoption, caches, collect, dereference, gateways, handover, order, stored, top_up};
use crate::goals;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action}: {source}")]
    Kube { action: String, source: Box<kube::Error> },
    #[error(transparent)]
    Goal(#[from] goals::Error),
    #[error(transparent)]
    Stored(#[from] stored::Error),
    #[error(transparent)]
    Canonical(#[from] freehold_core::canonical::Error),
}

fn kube_error(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
    let action = action.into();
    move |source| Error::Kube { action, source: Box::new(source) }
}

/// Claims that came of the effects; they overrule the plan's.
pub async fn apply<K: TaskKind>(shared: &Shared, o: &Observed, effects: &[Effect]) -> Result<Vec<Claim>, Error> {
    let mut claims = Vec::new();
    for effect in effects {
        match effect {
            Effect::AddFinalizer => hold::<K>(shared, o, true).await?,
            Effect::RemoveFinalizer => hold::<K>(shared, o, false).await?,
            Effect::Adopt { order, attempt } => adopt(shared, o, order, *attempt).await?,
            Effect::Fund { attempt } => claims.extend(fund(shared, o, *attempt).await?),
            Effect::Ensure(goal) => ensure(shared, o, goal).await?,
            Effect::TopUp { order, amount, escrow } => {
                claims.extend(add(shared, o, order, *amount, *escrow).await?);
            }
            Effect::Revoke { order } => revoke(shared, o, order).await?,
            Effect::HandOver { manifest, inputs } => claims.extend(hand_over(shared, o, *manifest, inputs).await?),
            Effect::SaveCheckpoint(note) => save_checkpoint(shared, o, note).await,
            Effect::Collect { result_hash } => claims.extend(collect_result(shared, o, result_hash).await),
            Effect::DeleteTask => delete::<K>(shared, o).await?,
        }
    }
    Ok(claims)
}

async fn hold<K: TaskKind>(shared: &Shared, o: &Observed, held: bool) -> Result<(), Error> {
    let api: Api<K> = Api::namespaced(shared.ctx.client.clone(), &o.task.namespace);
    let action = || kube_error(format!("change the finalizers of {}", o.task.name));
    let Some(task) = api.get_opt(&o.task.name).await.map_err(action())? else { return Ok(()) };
    if task.uid().as_deref() != Some(o.task.uid.as_str()) {
        return Ok(());
    }
    let mut finalizers: Vec<String> =
        task.finalizers().iter().filter(|f| *f != labels::SETTLE_FINALIZER).cloned().collect();
    if held {
        finalizers.push(labels::SETTLE_FINALIZER.to_owned());
    }
    // The version makes the change fail, and the pass repeat, if somebody else changed the list meanwhile.
    let mut metadata = json!({ "resourceVersion": task.resource_version(), "finalizers": finalizers });
    if held {
        metadata["annotations"] = json!({ labels::ORDERED_AS_ANNOTATION: adoption::ordered_as(&o.task) });
    }
    let patch = json!({ "metadata": metadata });
    match api.patch_metadata(&o.task.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(|_| ()).map_err(action()),
    }
}

/// Goals that the cache knows are not asked for again.
async fn ensure(shared: &Shared, o: &Observed, goal: &Goal) -> Result<(), Error> {
    if o.goals.iter().any(|fact| fact.goal == *goal) {
        return Ok(());
    }
    goals::ensure(&shared.ctx, o.spec.market.account.as_str(), goal.clone(), Some(&o.task.reference())).await?;
    Ok(())
}

/// One decision at a time for an account, each knowing the orders of those before it.
async fn fund(shared: &Shared, o: &Observed, attempt: u32) -> Result<Option<Claim>, Error> {
    let (Ok(account), Some(view), Some(limits), Some(Ok(work))) = (&o.account, &o.view, o.limits(), &o.work) else {
        return Ok(None);
    };
    let lock = shared.locks.of(&account.name);
    let _alone = lock.lock().await;
    let entries = dereference::entries(shared, o);
    let Some(question) = Question::of(o, Asks::Order, o.next_cap(), &entries) else { return Ok(None) };
    let id = stored::id_of(view.chain_id, view.market, view.account, &o.task.uid, attempt);
    if entries.iter().any(|entry| entry.id == id) {
        return Ok(None);
    }
    if let Err(claim) = funding::decide(&question) {
        return Ok(Some(claim));
    }
    let draft = match order::build(&site(view, account), limits, work, &job(o, attempt)) {
        Ok(draft) => draft,
        Err(error) => return Ok(Some(Claim::no(types::VALID, valid::INVALID_SPEC, format!("{error}.")))),
    };
    write_down(shared, o, &account.name, &draft).await?;
    Ok(None)
}

/// The same for more escrow: what was decided just before counts, though no watch has told of it yet.
async fn add(
    shared: &Shared,
    o: &Observed,
    order: &B256,
    amount: Amount,
    escrow: Amount,
) -> Result<Option<Claim>, Error> {
    let (Ok(account), Some(view)) = (&o.account, &o.view) else { return Ok(None) };
    let lock = shared.locks.of(&account.name);
    let _alone = lock.lock().await;
    let entries = dereference::entries(shared, o);
    let Some(question) = Question::of(o, Asks::TopUp, amount, &entries) else { return Ok(None) };
    // One that is on its way already is not asked for beside itself.
    if entries.iter().any(|entry| entry.id == *order && matches!(entry.money, Money::Raise(_))) {
        return Ok(None);
    }
    if let Err(claim) = funding::decide(&question) {
        return Ok(Some(claim));
    }
    let goal = top_up::goal(order, amount, escrow, view.decimals);
    let made = goals::ensure(&shared.ctx, &account.name, goal, Some(&o.task.reference())).await?;
    if let Some((uid, fact)) = caches::read_goal(&made) {
        let name = format!("{}/{}", shared.ctx.settings.namespace, made.name_any());
        shared.caches.goals.insert_fresh(&name, &uid, fact);
    }
    Ok(None)
}

fn site(view: &ChainView, account: &Account) -> order::Site {
    order::Site {
        chain_id: view.chain_id,
        market: view.market,
        token: view.token,
        account: view.account,
        origin: account.origin,
        now: view.latest.block.timestamp,
        block_time: view.block_time,
    }
}

fn job<'a>(o: &'a Observed, attempt: u32) -> order::Job<'a> {
    order::Job {
        kind: o.task.kind,
        uid: &o.task.uid,
        namespace: &o.task.namespace,
        name: &o.task.name,
        attempt,
        backoff_limit: o.spec.backoff_limit,
        failures: o.failures(),
        duration: o.seconds_left(),
        cap: o.next_cap(),
        resume: o.checkpoint.as_ref(),
    }
}

/// From here on the order is the task's, as if it had placed it.
async fn adopt(shared: &Shared, o: &Observed, id: &B256, attempt: u32) -> Result<(), Error> {
    let (Ok(account), Some(order)) = (&o.account, o.view.as_ref().and_then(|view| view.order(id))) else {
        return Ok(());
    };
    let lock = shared.locks.of(&account.name);
    let _alone = lock.lock().await;
    let namespace = &shared.ctx.settings.namespace;
    let map = adoption::record(order, attempt).config_map(namespace, &account.name, &o.task.reference())?;
    let api: Api<ConfigMap> = Api::namespaced(shared.ctx.client.clone(), namespace);
    let name = name_of(id);
    let made = match api.create(&PostParams::default(), &map).await {
        // The record of the object before.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            api.patch(&name, &PatchParams::default(), &Patch::Merge(stored::take_over(&map))).await
        }
        other => other,
    };
    remember(shared, o, &made.map_err(kube_error(format!("take over the order {name}")))?);
    Ok(())
}

async fn write_down(shared: &Shared, o: &Observed, account: &str, draft: &stored::Draft) -> Result<(), Error> {
    let name = keep(shared, o, account, draft).await?;
    let goal = Goal::PlaceOrder { order_id: format!("{:#x}", draft.id).into(), order: name.into() };
    goals::ensure(&shared.ctx, account, goal, Some(&o.task.reference())).await?;
    Ok(())
}

/// The name of the ConfigMap.
async fn keep(shared: &Shared, o: &Observed, account: &str, draft: &stored::Draft) -> Result<String, Error> {
    let namespace = &shared.ctx.settings.namespace;
    let map = draft.config_map(namespace, account, &o.task.reference())?;
    let api: Api<ConfigMap> = Api::namespaced(shared.ctx.client.clone(), namespace);
    let name = name_of(&draft.id);
    let made = match api.create(&PostParams::default(), &map).await {
        // Written before a crash: what was decided then stands.
        Err(kube::Error::Api(status)) if status.is_already_exists() => api.get(&name).await,
        other => other,
    };
    remember(shared, o, &made.map_err(kube_error(format!("write down the order {name}")))?);
    Ok(name)
}

/// The next pass must not wait for the watch.
fn remember(shared: &Shared, o: &Observed, made: &ConfigMap) {
    if let Some(order) = StoredOrder::read(made) {
        let key = format!("{}/{}", shared.ctx.settings.namespace, made.name_any());
        shared.caches.orders.insert_fresh(&key, &o.task.uid, order);
    }
}

/// Only while no transaction was made: the outbox's entry is deleted as it was read, so a nonce given to it meanwhile wins.
async fn revoke(shared: &Shared, o: &Observed, id: &B256) -> Result<(), Error> {
    let account = o.spec.market.account.as_str();
    let lock = shared.locks.of(account);
    let _alone = lock.lock().await;
    let namespace = &shared.ctx.settings.namespace;
    let goal = Goal::PlaceOrder { order_id: format!("{id:#x}").into(), order: name_of(id).into() };
    let entry = goals::name(account, &goal)?;
    let outbox: Api<ChainTransaction> = Api::namespaced(shared.ctx.client.clone(), namespace);
    if let Some(found) = outbox.get_opt(&entry).await.map_err(kube_error(format!("read the goal {entry}")))? {
        let untouched = goals::state(&found) == TransactionState::Pending
            && found.status.as_ref().is_none_or(|s| s.nonce.is_none());
        if !untouched {
            return Ok(());
        }
        let exactly = Preconditions { resource_version: found.resource_version(), uid: found.uid() };
        gone(outbox.delete(&entry, &DeleteParams::default().preconditions(exactly)).await)
            .map_err(kube_error(format!("take back the goal {entry}")))?;
        shared.caches.goals.remove(&format!("{namespace}/{entry}"));
    }
    let maps: Api<ConfigMap> = Api::namespaced(shared.ctx.client.clone(), namespace);
    let name = name_of(id);
    gone(maps.delete(&name, &DeleteParams::default()).await)
        .map_err(kube_error(format!("take back the order {name}")))?;
    shared.caches.orders.remove(&format!("{namespace}/{name}"));
    Ok(())
}

fn gone<T>(answer: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn hand_over(shared: &Shared, o: &Observed, manifest: bool, inputs: &[String]) -> Result<Option<Claim>, Error> {
    let Some((attempt, lease)) = o.newest().and_then(|a| Some((a, dereference::lease(o, a)?))) else { return Ok(None) };
    let maps: Api<ConfigMap> = Api::namespaced(shared.ctx.client.clone(), &shared.ctx.settings.namespace);
    let name = name_of(&attempt.id);
    let map = maps.get(&name).await.map_err(kube_error(format!("read the order {name}")))?;
    let bytes = map.data.as_ref().and_then(|d| d.get(MANIFEST)).cloned().unwrap_or_default();
    let done = handover::hand_over(
        shared.gateways.as_ref(),
        &lease,
        &shared.store,
        &o.task.namespace,
        bytes.as_bytes(),
        manifest,
        inputs,
    );
    let outcome = done.await;
    shared.reports.forget(&attempt.id);
    Ok(outcome.err().map(|error| {
        Claim::no(
            types::RUNNING,
            running::PROVIDER_UNREACHABLE,
            format!("The hand-over does not succeed: {error}. Goes on trying."),
        )
    }))
}

async fn save_checkpoint(shared: &Shared, o: &Observed, note: &freehold_core::wire::CheckpointNote) {
    let Some(lease) = o.newest().and_then(|a| dereference::lease(o, a)) else { return };
    let (namespace, uid) = (&o.task.namespace, &o.task.uid);
    if let Err(error) =
        collect::save_checkpoint(shared.gateways.as_ref(), &lease, &shared.store, namespace, uid, note).await
    {
        tracing::warn!(task = format!("{namespace}/{}", o.task.name), lease = %lease.id, %error, step = note.step, "a checkpoint was not copied; goes on trying");
    }
}

async fn collect_result(shared: &Shared, o: &Observed, hash: &B256) -> Option<Claim> {
    let lease = o.newest().and_then(|a| dereference::lease(o, a))?;
    let error =
        collect::collect(shared.gateways.as_ref(), &lease, &shared.store, &o.task.namespace, hash).await.err()?;
    let mismatch = matches!(&error, collect::Error::Gateway(gateways::Error::Call(call)) if call.is_digest_mismatch());
    let reason = if mismatch { result::DIGEST_MISMATCH } else { result::UPLOAD_INCOMPLETE };
    Some(Claim::no(
        types::RESULT_SUBMITTED,
        reason,
        format!("The result cannot be fetched: {error}. Goes on trying for three quarters of the review window."),
    ))
}

async fn delete<K: TaskKind>(shared: &Shared, o: &Observed) -> Result<(), Error> {
    let api: Api<K> = Api::namespaced(shared.ctx.client.clone(), &o.task.namespace);
    let exactly = Preconditions { uid: Some(o.task.uid.clone()), resource_version: None };
    gone(api.delete(&o.task.name, &DeleteParams::default().preconditions(exactly)).await)
        .map_err(kube_error(format!("delete {} after its ttl", o.task.name)))
}
