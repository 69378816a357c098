//! The worker of one account: gather, plan, carry out; again on each block and
//! each new goal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use freehold_api::transaction::TransactionState;
use freehold_api::{ChainTransaction, ComputeAccount, Goal};
use freehold_chain::calldata::{self, StoredOrder};
use freehold_chain::outbox::{Effect, Entry, Ledger, Mark, NonceHealth, Policy, nonce_health, plan};
use freehold_chain::view::{ChainView, ViewReceiver};
use freehold_core::money::Amount;
use freehold_core::units::seconds;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use tokio::time::Instant;

use super::apply::{Error, Memory, Pass, Progress};
use super::{gather, retention, status};
use crate::accounts::{Account, Report};
use crate::context::Context;
use crate::goals;
use crate::metrics::Controller;

/// A pass without a reason.
const RESYNC: Duration = Duration::from_secs(15);
const MIN_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// Plans in one pass; a plan that still makes progress then goes on in the next pass.
const ROUNDS: usize = 8;
/// Statuses of waiting goals that one pass writes at most.
const WAITS: usize = 64;
/// Long enough for the cache to have seen what was deleted the last time.
const RETENTION: Duration = Duration::from_secs(2);
/// A foreign transaction is told of for so long.
const FOREIGN: Duration = Duration::from_secs(3_600);

pub async fn work(ctx: Context, account: Arc<Account>) {
    let mut worker = Worker { ctx, account, memory: Memory::default(), tidied: None, foreign: None };
    let mut changes = worker.ctx.outbox.changes();
    let mut delay = MIN_DELAY;
    loop {
        // Whatever comes from here on wakes, also what comes during the pass.
        let mut view = worker.ctx.views.receiver(&worker.account.name);
        if let Some(view) = &mut view {
            view.mark_unchanged();
        }
        let metrics = worker.ctx.metrics.clone();
        match metrics.pass(Controller::ChainTransaction, worker.pass()).await {
            Ok(()) => {
                delay = MIN_DELAY;
                wake(view, &mut changes).await;
            }
            Err(error) => {
                // A conflict is an ordinary race; anything else may last.
                if error.is_conflict() {
                    tracing::debug!(account = %worker.account.name, %error, "looking again");
                } else {
                    tracing::warn!(account = %worker.account.name, %error, "the outbox could not go on; trying again");
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_DELAY);
            }
        }
    }
}

/// Until the chain or the goals change, or it is time to look anyway.
async fn wake(view: Option<ViewReceiver>, changes: &mut tokio::sync::watch::Receiver<u64>) {
    let block = async {
        match view {
            Some(mut view) => view.changed().await.is_ok(),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = block => {}
        _ = changes.changed() => {}
        () = tokio::time::sleep(RESYNC) => {}
    }
}

struct Worker {
    ctx: Context,
    account: Arc<Account>,
    memory: Memory,
    tidied: Option<Instant>,
    /// The last foreign transaction that was found, and when.
    foreign: Option<(NonceHealth, Instant)>,
}

impl Worker {
    async fn pass(&mut self) -> Result<(), Error> {
        let Some(view) = self.ctx.views.get(&self.account.name).filter(|view| view.health.allows_action()) else {
            return Ok(());
        };
        if self.memory.tried_at != view.latest.block.hash {
            self.memory.reverted.clear();
            self.memory.tried_at = view.latest.block.hash;
        }
        let api: Api<ComputeAccount> = Api::all(self.ctx.client.clone());
        let object = api
            .get(&self.account.name)
            .await
            .map_err(Error::kube(format!("account {} cannot be read", self.account.name)))?;
        let ledger = gather::ledger(object.status.as_ref());
        let objects = self.objects();
        self.memory.refused.retain(|goal| objects.contains_key(goal));
        let open =
            |object: &Arc<ChainTransaction>| !goals::state(object).is_final() || gather::is_doubtful(object, &view);
        if !objects.values().any(open) && ledger.slots.is_empty() {
            let nonces = idle_health(&self.account, &view, &ledger).await?;
            self.report(Report { block: view.latest.block.hash, nonces, ..Report::default() });
            return self.tidy(&object, &view, &objects).await;
        }
        self.load_orders(&objects).await?;
        let mut pass = Pass {
            ctx: &self.ctx,
            account: &self.account,
            view: &view,
            object,
            ledger,
            fee: 0,
            objects,
            memory: &mut self.memory,
        };
        let report = run(&mut pass).await;
        let (object, objects) = (pass.object, pass.objects);
        self.report(report?);
        self.tidy(&object, &view, &objects).await
    }

    /// The account's goals: the cache, or an own write that is newer.
    fn objects(&mut self) -> BTreeMap<String, Arc<ChainTransaction>> {
        let mut all: BTreeMap<String, _> =
            self.ctx.outbox.of(&self.account.name).into_iter().map(|object| (object.name_any(), object)).collect();
        self.memory.written.retain(|name, written| match all.get(name) {
            Some(cached) if version(cached) < version(written) => true,
            Some(_) => false,
            // Made just now, or deleted: a made one shows up in the cache soon.
            None => written.status.is_none(),
        });
        all.extend(self.memory.written.clone());
        all
    }

    /// Orders that are still to be placed, as they were stored.
    async fn load_orders(&mut self, objects: &BTreeMap<String, Arc<ChainTransaction>>) -> Result<(), Error> {
        let wanted: Vec<&str> = objects
            .values()
            .filter(|object| !goals::state(object).is_final())
            .filter_map(|object| match &object.spec.goal {
                Goal::PlaceOrder { order, .. } => Some(order.as_str()),
                _ => None,
            })
            .collect();
        self.memory.stored.retain(|name, _| wanted.contains(&name.as_str()));
        let api: Api<ConfigMap> = Api::namespaced(self.ctx.client.clone(), &self.ctx.settings.namespace);
        for name in wanted {
            if self.memory.stored.contains_key(name) {
                continue;
            }
            let map = api.get_opt(name).await.map_err(Error::kube(format!("ConfigMap {name} cannot be read")))?;
            match map.map(|map| StoredOrder::from_data(&map.data.unwrap_or_default())) {
                Some(Ok(stored)) => {
                    self.memory.stored.insert(name.to_owned(), Arc::new(stored));
                }
                Some(Err(error)) => tracing::warn!(configmap = name, %error, "the stored order cannot be read"),
                None => {}
            }
        }
        Ok(())
    }

    fn report(&mut self, mut report: Report) {
        match &report.nonces {
            NonceHealth::Foreign { .. } => self.foreign = Some((report.nonces.clone(), Instant::now())),
            NonceHealth::Healthy => {
                let recent = self.foreign.as_ref().filter(|(_, at)| at.elapsed() < FOREIGN);
                report.nonces = recent.map(|(found, _)| found.clone()).unwrap_or_default();
            }
            NonceHealth::Stuck { .. } | NonceHealth::Refused { .. } => {}
        }
        self.account.report.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
    }

    /// Deletes finished goals that nobody needs any more.
    async fn tidy(
        &mut self,
        object: &ComputeAccount,
        view: &ChainView,
        objects: &BTreeMap<String, Arc<ChainTransaction>>,
    ) -> Result<(), Error> {
        if self.tidied.is_some_and(|at| at.elapsed() < RETENTION) {
            return Ok(());
        }
        self.tidied = Some(Instant::now());
        let held = gather::ledger(object.status.as_ref()).slots.into_iter().map(|slot| slot.goal).collect();
        let period = object.spec.caps.as_ref().and_then(|caps| seconds(caps.period.as_str())).unwrap_or(0);
        let all: Vec<_> = objects.values().cloned().collect();
        let api: Api<ChainTransaction> = Api::namespaced(self.ctx.client.clone(), &self.ctx.settings.namespace);
        for name in retention::expired(&all, &held, view, period, self.ctx.clock.now()) {
            match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(Error::kube(format!("{name} cannot be deleted"))(error)),
            }
        }
        Ok(())
    }
}

/// Resource versions of one kind are ordered numbers.
fn version(object: &ChainTransaction) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn run(pass: &mut Pass<'_>) -> Result<Report, Error> {
    let facts = gather::facts(&pass.account.rpc, pass.view, &pass.ledger, &entries(pass)).await?;
    pass.fee = facts.fee;
    // Before new nonces go on top of it: afterwards a foreign one could not be told from them.
    let found = nonce_health(&pass.ledger, &entries(pass), &facts, &policy(pass), now(pass));
    for _ in 0..ROUNDS {
        let effects = plan(&pass.ledger, &entries(pass), &facts, &policy(pass), now(pass));
        let (waits, acts): (Vec<Effect>, Vec<Effect>) = effects.into_iter().partition(only_waits);
        if pass.carry_out(&acts).await? == Progress::None {
            // What merely says why a goal waits comes last, and a long queue over several passes.
            let marks: Vec<&Mark> = waits
                .iter()
                .filter_map(|effect| match effect {
                    Effect::Mark(mark) => Some(mark),
                    _ => None,
                })
                .collect();
            pass.mark(&marks, WAITS).await?;
            break;
        }
    }
    Ok(report(pass, found))
}

/// With nothing under way, the chain's count of transactions is the one that is stored.
async fn idle_health(account: &Account, view: &ChainView, ledger: &Ledger) -> Result<NonceHealth, Error> {
    let used = account.rpc.nonce(view.account, view.latest.block.hash).await?;
    Ok(match ledger.next_nonce {
        Some(next) if used > next => NonceHealth::Foreign { nonce: next },
        _ => NonceHealth::Healthy,
    })
}

fn only_waits(effect: &Effect) -> bool {
    matches!(effect, Effect::Mark(mark) if mark.state == TransactionState::Pending && !mark.reverted)
}

fn now(pass: &Pass<'_>) -> u64 {
    u64::try_from(pass.ctx.clock.now().as_second()).unwrap_or(0)
}

fn policy(pass: &Pass<'_>) -> Policy {
    let objects: Vec<_> = pass.objects.values().cloned().collect();
    gather::policy(&pass.object, pass.account.block_time, pass.view, &objects, pass.ctx.clock.now())
}

/// Open goals, and finished ones that still hold a nonce or that the chain knows nothing of.
fn entries(pass: &Pass<'_>) -> Vec<Entry> {
    let held = |name: &str| pass.ledger.slots.iter().any(|slot| slot.goal == name);
    pass.objects
        .iter()
        .filter(|(name, object)| {
            !goals::state(object).is_final() || held(name) || gather::is_doubtful(object, pass.view)
        })
        .map(|(name, object)| {
            let remembered = pass.memory.of(name, now(pass));
            gather::entry(object, pass.view, pass.stored(&object.spec.goal), &remembered)
        })
        .collect()
}

fn report(pass: &Pass<'_>, nonces: NonceHealth) -> Report {
    let entries = entries(pass);
    if nonces != NonceHealth::Healthy {
        tracing::warn!(account = %pass.account.name, ?nonces, "nonces");
    }
    let costs = costs(pass, &entries);
    let funds = pass.view.balances.free.saturating_add(pass.view.balances.wallet);
    Report {
        block: pass.view.latest.block.hash,
        nonces,
        pending: costs.iter().copied().sum(),
        affordable: affordable(&costs, funds),
    }
}

/// Tokens that goals take which no block holds yet, in the order in which the goals are served.
fn costs(pass: &Pass<'_>, entries: &[Entry]) -> Vec<Amount> {
    let goal = |entry: &Entry| pass.objects.get(&entry.name).map(|object| &object.spec.goal);
    let waits = |entry: &&Entry| {
        !entry.state.is_final()
            && goal(entry).is_some_and(|goal| status::takes_tokens(goal) && !is_taken(pass.view, goal))
    };
    let mut waiting: Vec<&Entry> = entries.iter().filter(waits).collect();
    waiting.sort_by(|a, b| (a.rank, a.created, &a.name).cmp(&(b.rank, b.created, &b.name)));
    waiting.into_iter().map(|entry| entry.cost).collect()
}

/// A block has taken the tokens already: they are in an order's escrow.
fn is_taken(view: &ChainView, goal: &Goal) -> bool {
    let Some(order) = calldata::order_of(goal).ok().flatten().and_then(|id| view.order(&id)) else { return false };
    match goal {
        Goal::PlaceOrder { .. } => true,
        Goal::TopUp { escrow, .. } => escrow.parse().is_ok_and(|before: u128| order.escrow().0 > before),
        _ => false,
    }
}

fn affordable(costs: &[Amount], funds: Amount) -> Amount {
    costs.iter().fold(Amount::ZERO, |sum, cost| {
        let more = sum.saturating_add(*cost);
        if more <= funds { more } else { sum }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_paid_is_passed_over() {
        assert_eq!(affordable(&[Amount(4), Amount(9), Amount(5)], Amount(10)), Amount(9));
        assert_eq!(affordable(&[Amount(11)], Amount(10)), Amount::ZERO);
    }
}
