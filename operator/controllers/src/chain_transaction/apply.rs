//! Carries the rules' effects out, each so that a crash after any line leaves
//! something that the next plan goes on from: what is stored comes before what
//! it is about, and every write names the version that it was decided on.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy::consensus::TxEip1559;
use alloy::primitives::TxKind;
use freehold_api::transaction::ChainTransactionStatus;
use freehold_api::{ChainTransaction, ComputeAccount, Goal};
use freehold_chain::calldata::{self, StoredOrder, call_of};
use freehold_chain::failpoint::failpoint;
use freehold_chain::goal::Standing;
use freehold_chain::outbox::{Effect, Ledger, MAX_HASHES, Mark, Slot};
use freehold_chain::rpc;
use freehold_chain::signer::{self, SignRequest, Signed};
use freehold_chain::view::ChainView;
use freehold_core::B256;
use futures::stream::{self, StreamExt};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::gather::Remembered;
use super::refusals::Refusals;
use super::{gather, status};
use crate::accounts::Account;
use crate::context::Context;
use crate::goals;

/// Writes at a time.
const CONCURRENT: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Kube { what: String, source: Box<kube::Error> },
    #[error(transparent)]
    Rpc(#[from] rpc::Error),
    #[error(transparent)]
    Signer(#[from] signer::Error),
    #[error(transparent)]
    Call(#[from] calldata::Error),
    #[error(transparent)]
    Goal(#[from] goals::Error),
    #[error("{0} is not in the cache yet")]
    Uncached(String),
}

impl Error {
    pub fn kube(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Kube { what, source: Box::new(source) }
    }

    /// Somebody wrote in between: looking again is all there is to do.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube { source, .. } if matches!(source.as_ref(), kube::Error::Api(status) if status.is_conflict()))
    }
}

/// What a worker remembers; losing it costs a repeated broadcast, nothing else.
#[derive(Default)]
pub struct Memory {
    /// Unix seconds of the last broadcast, by goal.
    pub sent: BTreeMap<String, u64>,
    /// Calls that reverted when they were tried on top of the block `tried_at`.
    pub reverted: BTreeMap<String, Standing>,
    pub tried_at: B256,
    /// Goals that the signer refuses.
    pub refused: Refusals,
    /// Gas that a trial used, by goal.
    pub estimates: BTreeMap<String, u64>,
    /// Own writes that the cache may not have yet.
    pub written: BTreeMap<String, Arc<ChainTransaction>>,
    /// Orders to place, by ConfigMap.
    pub stored: BTreeMap<String, Arc<StoredOrder>>,
}

impl Memory {
    pub fn of(&self, goal: &str, now: u64) -> Remembered<'_> {
        Remembered {
            reverted: self.reverted.get(goal),
            refused: self.refused.of(goal, now),
            sent_at: self.sent.get(goal).copied(),
        }
    }
}

/// Whether anything was changed, so that there may be more to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    None,
    Made,
}

impl std::ops::BitOrAssign for Progress {
    fn bitor_assign(&mut self, other: Self) {
        if other == Self::Made {
            *self = other;
        }
    }
}

/// One pass over one account.
pub struct Pass<'a> {
    pub ctx: &'a Context,
    pub account: &'a Account,
    pub view: &'a ChainView,
    /// As read at the start of the pass, with own writes since.
    pub object: ComputeAccount,
    pub ledger: Ledger,
    /// What to offer a unit of gas, in wei.
    pub fee: u128,
    pub objects: BTreeMap<String, Arc<ChainTransaction>>,
    pub memory: &'a mut Memory,
}

/// A transaction that is about to be stored and broadcast.
struct Outgoing {
    object: Arc<ChainTransaction>,
    nonce: u64,
    fee: u128,
    signed: Signed,
}

impl Pass<'_> {
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.ctx.clock.now().as_second()).unwrap_or(0)
    }

    pub(super) fn goal(&self, name: &str) -> Result<Arc<ChainTransaction>, Error> {
        self.objects.get(name).cloned().ok_or_else(|| Error::Uncached(name.to_owned()))
    }

    pub fn stored(&self, goal: &Goal) -> Option<&StoredOrder> {
        match goal {
            Goal::PlaceOrder { order, .. } => self.memory.stored.get(order.as_str()).map(AsRef::as_ref),
            _ => None,
        }
    }

    /// Carries a whole plan out, each kind of effect together: nonces that are let
    /// go or found again, then what is said of goals, then transactions under way,
    /// then new ones. Nothing in a later step speaks of a nonce of an earlier one.
    pub async fn carry_out(&mut self, effects: &[Effect]) -> Result<Progress, Error> {
        let mut progress = self.tidy_nonces(effects).await?;
        let marks: Vec<&Mark> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Mark(mark) => Some(mark),
                _ => None,
            })
            .collect();
        progress |= self.mark(&marks, usize::MAX).await?;
        progress |= self.send(effects).await?;
        for effect in effects {
            if let Effect::Void { nonce } = effect {
                progress |= self.void(*nonce).await?;
            }
        }
        progress |= self.allocate(effects).await?;
        Ok(progress)
    }

    async fn tidy_nonces(&mut self, effects: &[Effect]) -> Result<Progress, Error> {
        let mut ledger = self.ledger.clone();
        for effect in effects {
            match effect {
                Effect::Release { nonce } => ledger.slots.retain(|slot| slot.nonce != *nonce),
                Effect::Adopt { goal, nonce, hashes } => {
                    tracing::warn!(account = %self.account.name, goal, nonce, "nonce restored from its goal");
                    hold(&mut ledger, *nonce, goal, hashes.clone());
                }
                Effect::Allocate { .. } | Effect::Send { .. } | Effect::Void { .. } | Effect::Mark(_) => {}
            }
        }
        let progress = self.store(ledger).await?;
        if progress == Progress::Made {
            failpoint("outbox.released");
        }
        Ok(progress)
    }

    /// Signs, stores the hashes with account and goals, and only then broadcasts. What the signer
    /// refuses is left to the next plan.
    async fn send(&mut self, effects: &[Effect]) -> Result<Progress, Error> {
        let (mut outgoing, mut refused) = (Vec::new(), Progress::None);
        for effect in effects {
            let Effect::Send { goal, nonce, fee } = effect else { continue };
            let object = self.goal(goal)?;
            let request = self.request(&object, *nonce, *fee)?;
            match self.account.signer.sign_transaction(request).await {
                Ok(signed) => {
                    if !is_known(&object, &signed) {
                        self.memory.refused.forget(goal);
                    }
                    outgoing.push(Outgoing { object, nonce: *nonce, fee: *fee, signed });
                }
                Err(signer::Error::Refused { refusal, .. }) => {
                    tracing::warn!(account = %self.account.name, goal, nonce, %refusal, "the signer refused");
                    let now = self.now();
                    self.memory.refused.remember(goal, &refusal, now);
                    self.memory.sent.insert(goal.clone(), now);
                    refused = Progress::Made;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if outgoing.is_empty() {
            return Ok(refused);
        }
        outgoing.sort_by_key(|transaction| transaction.nonce);
        failpoint("outbox.signed");
        self.store_hashes(&mut outgoing).await?;
        failpoint("outbox.hashed");
        let now = self.ctx.clock.now();
        let mut statuses = Vec::new();
        for sent in &outgoing {
            let settles = calldata::to_settle(&sent.object.spec.goal, self.view)?;
            let settles: Vec<B256> = settles.iter().map(|order| order.id).collect();
            let status = status::signed(&sent.object, sent.nonce, sent.signed.hash, sent.fee, &settles, now);
            if sent.object.status.as_ref() != Some(&status) {
                statuses.push((sent.object.clone(), status));
            }
        }
        self.write(statuses).await?;
        failpoint("outbox.persisted");
        for sent in outgoing {
            self.broadcast(&sent).await?;
            failpoint("outbox.broadcast");
        }
        Ok(Progress::Made)
    }

    async fn broadcast(&mut self, sent: &Outgoing) -> Result<(), Error> {
        let (goal, nonce, tx) = (sent.object.name_any(), sent.nonce, sent.signed.hash);
        let (task, lease) = goals::about(&sent.object);
        let outcome = self.account.rpc.send_raw(&sent.signed.raw).await;
        self.memory.sent.insert(goal.clone(), self.now());
        match outcome {
            Ok(()) => {
                tracing::info!(account = %self.account.name, goal, task, lease, %tx, nonce, fee = sent.fee, "broadcast")
            }
            // The next pass decides whether to repeat it or to offer more.
            Err(error) if error.is_refusal() => {
                tracing::warn!(account = %self.account.name, goal, task, lease, %tx, nonce, %error, "the broadcast was refused")
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The goal's transaction; a function of what is stored, so that signing again gives the same.
    pub(super) fn request<'b>(
        &'b self,
        object: &'b ChainTransaction,
        nonce: u64,
        fee: u128,
    ) -> Result<SignRequest<'b>, Error> {
        let goal = &object.spec.goal;
        let stored = self.stored(goal);
        let call = call_of(goal, self.view, stored)?;
        // Where the chain asks for more than was ever measured, what it asks for plus a quarter.
        let estimate = self.memory.estimates.get(&object.name_any()).map_or(0, |gas| gas + gas / 4);
        let transaction = TxEip1559 {
            chain_id: self.view.chain_id,
            nonce,
            gas_limit: call.gas.max(estimate),
            max_fee_per_gas: fee,
            max_priority_fee_per_gas: gather::tip_of(fee),
            to: TxKind::Call(call.to),
            value: call.value,
            input: call.data,
            ..TxEip1559::default()
        };
        Ok(SignRequest { goal, stored, transaction })
    }

    /// Drops those whose nonce has as many signatures as may be stored.
    async fn store_hashes(&mut self, outgoing: &mut Vec<Outgoing>) -> Result<(), Error> {
        let mut ledger = self.ledger.clone();
        let now = self.now();
        let memory = &mut *self.memory;
        outgoing.retain(|sent| {
            let goal = sent.object.name_any();
            let slot = ledger.slots.iter_mut().find(|slot| slot.nonce == sent.nonce && slot.goal == goal);
            let Some(slot) =
                slot.filter(|slot| slot.hashes.contains(&sent.signed.hash) || slot.hashes.len() < MAX_HASHES)
            else {
                let (task, lease) = goals::about(&sent.object);
                tracing::warn!(
                    goal,
                    task,
                    lease,
                    tx = %sent.signed.hash,
                    nonce = sent.nonce,
                    "no more signatures for this nonce; the last ones wait for a block"
                );
                memory.sent.insert(goal, now);
                return false;
            };
            if !slot.hashes.contains(&sent.signed.hash) {
                slot.hashes.push(sent.signed.hash);
            }
            true
        });
        self.store(ledger).await.map(|_| ())
    }

    /// Makes the goal that fills the nonce, and gives the nonce to it.
    async fn void(&mut self, nonce: u64) -> Result<Progress, Error> {
        let object = goals::ensure(self.ctx, &self.account.name, Goal::Void { nonce }, None).await?;
        failpoint("outbox.voiding");
        let name = object.name_any();
        tracing::warn!(account = %self.account.name, nonce, goal = name, "an open nonce is filled");
        self.remember(object);
        let mut ledger = self.ledger.clone();
        hold(&mut ledger, nonce, &name, vec![]);
        self.store(ledger).await
    }

    /// Compare-and-swap on the account's status.
    pub(super) async fn store(&mut self, ledger: Ledger) -> Result<Progress, Error> {
        if ledger == self.ledger {
            return Ok(Progress::None);
        }
        let api: Api<ComputeAccount> = Api::all(self.ctx.client.clone());
        let patch = json!({
            "metadata": { "resourceVersion": self.object.resource_version() },
            "status": {
                "inFlight": gather::in_flight(&ledger),
                "inFlightCount": ledger.slots.len(),
                "nextNonce": ledger.next_nonce,
            },
        });
        let what = format!("the nonces of account {} cannot be stored", self.account.name);
        self.object = api
            .patch_status(&self.account.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(Error::kube(what))?;
        self.ledger = ledger;
        Ok(Progress::Made)
    }

    /// Writes what is said of goals, where it is new; at most `limit` of it.
    pub async fn mark(&mut self, marks: &[&Mark], limit: usize) -> Result<Progress, Error> {
        let now = self.ctx.clock.now();
        let mut statuses = Vec::new();
        for mark in marks {
            let object = self.goal(&mark.goal)?;
            let Some(status) = status::marked(&object, mark, now) else { continue };
            if object.status.as_ref().and_then(|status| status.state) != Some(mark.state) {
                let (task, lease) = goals::about(&object);
                let tx = status.hash.as_ref().map(|hash| hash.as_str());
                tracing::info!(account = %self.account.name, goal = mark.goal, task, lease, tx, state = ?mark.state, reason = mark.reason, "{}", mark.message);
            }
            if mark.state.is_final() || mark.reverted {
                self.memory.sent.remove(&mark.goal);
                self.memory.estimates.remove(&mark.goal);
                self.memory.refused.forget(&mark.goal);
            }
            statuses.push((object, status));
            if statuses.len() >= limit {
                break;
            }
        }
        if statuses.is_empty() {
            return Ok(Progress::None);
        }
        self.write(statuses).await?;
        failpoint("outbox.marked");
        Ok(Progress::Made)
    }

    async fn write(&mut self, statuses: Vec<(Arc<ChainTransaction>, ChainTransactionStatus)>) -> Result<(), Error> {
        let api: Api<ChainTransaction> = Api::namespaced(self.ctx.client.clone(), &self.ctx.settings.namespace);
        let mut writes = stream::iter(statuses)
            .map(|(object, status)| write(api.clone(), object, status))
            .buffer_unordered(CONCURRENT);
        let mut failed = None;
        // Those that were written are remembered even if another one was not.
        while let Some(outcome) = writes.next().await {
            match outcome {
                Ok(written) => {
                    let written = Arc::new(written);
                    self.objects.insert(written.name_any(), written.clone());
                    self.memory.written.insert(written.name_any(), written);
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn remember(&mut self, object: ChainTransaction) {
        let (name, object) = (object.name_any(), Arc::new(object));
        self.objects.insert(name.clone(), object.clone());
        self.memory.written.insert(name, object);
    }
}

/// The nonce is the goal's from now on; hashes that are there already stay.
pub(super) fn hold(ledger: &mut Ledger, nonce: u64, goal: &str, hashes: Vec<B256>) {
    match ledger.slots.iter_mut().find(|slot| slot.nonce == nonce) {
        Some(slot) => goal.clone_into(&mut slot.goal),
        None => ledger.slots.push(Slot { nonce, goal: goal.to_owned(), hashes }),
    }
    ledger.slots.sort_by_key(|slot| slot.nonce);
    ledger.next_nonce = Some(ledger.next_nonce.unwrap_or(0).max(nonce + 1));
}

/// Signed once more, rather than anew.
fn is_known(object: &ChainTransaction, signed: &Signed) -> bool {
    let hash = signed.hash.to_string();
    object.status.as_ref().is_some_and(|status| status.hashes.iter().any(|known| known.as_str() == hash))
}

async fn write(
    api: Api<ChainTransaction>,
    object: Arc<ChainTransaction>,
    status: ChainTransactionStatus,
) -> Result<ChainTransaction, Error> {
    let name = object.name_any();
    let patch = json!({
        "metadata": { "resourceVersion": object.resource_version() },
        "status": merge(object.status.as_ref(), &status),
    });
    let what = format!("the status of {name} cannot be written");
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(Error::kube(what))
}

/// A merge patch that makes `new` of `old`: what is gone has to be named.
fn merge(old: Option<&ChainTransactionStatus>, new: &ChainTransactionStatus) -> serde_json::Value {
    let mut patch = json!(new);
    if let (Some(patch), Some(old)) = (patch.as_object_mut(), json!(old).as_object()) {
        for field in old.keys() {
            patch.entry(field.clone()).or_insert(serde_json::Value::Null);
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_named_in_the_patch() {
        let old = ChainTransactionStatus { nonce: Some(3), block: Some(7), ..Default::default() };
        let new = ChainTransactionStatus { block: Some(8), ..Default::default() };
        assert_eq!(merge(Some(&old), &new), json!({ "block": 8, "nonce": null }));
        assert_eq!(merge(None, &new), json!({ "block": 8 }));
    }
}
