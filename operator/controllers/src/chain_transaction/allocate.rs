//! Which goals get the next nonces: what a goal would come to is found out before it costs one.

use std::sync::Arc;

use freehold_api::ChainTransaction;
use freehold_chain::calldata::call_of;
use freehold_chain::failpoint::failpoint;
use freehold_chain::goal::Standing;
use freehold_chain::outbox::Effect;
use freehold_chain::revert::{self, Class};
use freehold_chain::rpc;
use futures::future::try_join_all;
use kube::ResourceExt;

use super::apply::{Error, Pass, Progress, hold};

/// What trying a call showed.
enum Trial {
    Gas(u64),
    Refused(Standing),
}

impl Pass<'_> {
    /// Tries the calls and asks the signer, then stores the nonces of those that both let through:
    /// a goal that either refuses costs no nonce.
    pub(super) async fn allocate(&mut self, effects: &[Effect]) -> Result<Progress, Error> {
        let asked: Vec<(&str, u64)> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Allocate { goal, nonce } => Some((goal.as_str(), *nonce)),
                _ => None,
            })
            .collect();
        let Some(first) = asked.iter().map(|(_, nonce)| *nonce).min() else { return Ok(Progress::None) };
        let objects = asked.iter().map(|(goal, _)| self.goal(goal)).collect::<Result<Vec<_>, _>>()?;
        let trials = try_join_all(objects.iter().map(|object| self.try_call(object))).await?;
        let mut possible = Vec::new();
        for (object, trial) in objects.into_iter().zip(trials) {
            match trial {
                Trial::Gas(gas) => {
                    self.memory.estimates.insert(object.name_any(), gas);
                    possible.push(object);
                }
                Trial::Refused(standing) => {
                    self.memory.reverted.insert(object.name_any(), standing);
                }
            }
        }
        let mut ledger = self.ledger.clone();
        let allowed = self.let_through(possible, first).await?;
        for (nonce, object) in (first..).zip(allowed) {
            hold(&mut ledger, nonce, &object.name_any(), vec![]);
        }
        failpoint("outbox.allocating");
        self.store(ledger).await?;
        failpoint("outbox.allocated");
        Ok(Progress::Made)
    }

    /// Those of the goals that the signer would sign for, at consecutive nonces.
    async fn let_through(
        &mut self,
        objects: Vec<Arc<ChainTransaction>>,
        first: u64,
    ) -> Result<Vec<Arc<ChainTransaction>>, Error> {
        if objects.is_empty() {
            return Ok(objects);
        }
        let requests = (first..)
            .zip(&objects)
            .map(|(nonce, object)| self.request(object, nonce, self.fee))
            .collect::<Result<Vec<_>, _>>()?;
        let refusals = self.account.signer.check(&requests).await?;
        let now = self.now();
        let mut allowed = Vec::new();
        for (object, refusal) in objects.into_iter().zip(refusals) {
            match refusal {
                None => allowed.push(object),
                Some(refusal) => {
                    let goal = object.name_any();
                    tracing::warn!(account = %self.account.name, goal, %refusal, "the signer would refuse");
                    self.memory.refused.remember(&goal, &refusal, now);
                }
            }
        }
        Ok(allowed)
    }

    /// What the chain holds against the call, or the gas that it would use.
    async fn try_call(&self, object: &ChainTransaction) -> Result<Trial, Error> {
        let call = call_of(&object.spec.goal, self.view, self.stored(&object.spec.goal))?;
        match self.account.rpc.estimate_gas(self.view.account, call.to, call.value, &call.data).await {
            Ok(gas) => Ok(Trial::Gas(gas)),
            Err(rpc::Error::Refused { message, data, .. }) => Ok(Trial::Refused(match data {
                Some(data) => {
                    let revert = revert::explain(&data);
                    match revert.class {
                        Class::Never => Standing::Impossible(revert.sentence),
                        Class::Later | Class::Money => Standing::NotYet(revert.sentence),
                    }
                }
                None => Standing::NotYet(message),
            })),
            Err(error) => Err(error.into()),
        }
    }
}
