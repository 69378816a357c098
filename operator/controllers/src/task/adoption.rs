//! Orders of the account that another object placed. A task that is restored
//! from a backup has a new UID, and so no order of its own: while an order of
//! the object before it may still cost something, no second one is placed. It
//! can be taken over, or be ended. Pure.

use std::sync::Arc;

use freehold_api::conditions::{Claim, types};
use freehold_chain::view::ChainView;
use freehold_core::B256;
use freehold_core::order::{Order, OrderState};
use freehold_core::spec::OrderSpec;

use super::kind::TaskFacts;
use super::ledger::{self, Stage};
use super::observed::Observed;
use super::order;
use super::reasons::funded;
use super::stored::{self, Draft, StoredOrder};
use super::validate::Work;
use crate::goals::TaskRef;

/// What a task's annotations and the account's records say of orders that are not its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Others {
    /// Not over, of an earlier object of the task's name; `None` if it is not on the chain yet.
    pub former: Vec<(B256, OrderState)>,
    pub wanted: Option<Wanted>,
}

/// The order that the task is to take over.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As the annotation has it.
    pub id: String,
    /// As of the latest block.
    pub order: Option<Arc<Order>>,
    /// The task that it was recorded for.
    pub holder: Option<TaskRef>,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// `namespace/name/uid`: what is written on a task before it orders.
pub fn ordered_as(task: &TaskFacts) -> String {
    format!("{}/{}/{}", task.namespace, task.name, task.uid)
}

/// `stored`: every record of the account.
pub fn others(task: &TaskFacts, account: &str, stored: &[StoredOrder], view: &ChainView) -> Others {
    let own = |order: &&StoredOrder| order.task.uid == task.uid;
    // Labels are cut, and so are the names in records.
    let name: String = task.name.chars().take(63).collect();
    let same_name = |of: &TaskRef| of.namespace == task.namespace && of.name == name;
    let recorded = stored.iter().filter(|order| !own(order) && order.account == account && same_name(&order.task));
    let recorded = recorded.filter_map(|order| {
        let failed = Default::default();
        match ledger::stage(Some(order), &order.id, view, &failed) {
            Stage::Unplaced => Some((order.id, OrderState::None)),
            Stage::Live(state) | Stage::Settling(state) => Some((order.id, state)),
            Stage::Lapsed | Stage::Settled(_) => None,
        }
    });
    let mut former: Vec<(B256, OrderState)> = recorded.collect();
    let adopted = |id: &B256| stored.iter().any(|order| own(&order) && order.id == *id);
    former.extend(derived(task, view).filter(|(id, _)| !adopted(id)));
    // Of a delivered one nothing is left to lose.
    former.retain(|(_, state)| *state != OrderState::Delivered);
    former.sort();
    former.dedup();
    let wanted = task.adopts.clone().filter(|id| !id.parse().is_ok_and(|id| adopted(&id))).map(|id| {
        let known: Option<B256> = id.parse().ok();
        let order = known.and_then(|id| view.order(&id).cloned());
        let record = stored.iter().find(|order| Some(order.id) == known && !own(order));
        Wanted { holder: record.map(|order| order.task.clone()).filter(|of| !same_name(of)), order, id }
    });
    Others { former, wanted }
}

/// Orders whose ids follow from the UID of the object that this one is a copy of.
fn derived(task: &TaskFacts, view: &ChainView) -> impl Iterator<Item = (B256, OrderState)> {
    let before = task.ordered_as.as_deref().and_then(|text| {
        let (name, uid) = text.rsplit_once('/')?;
        let ours = format!("{}/{}", task.namespace, task.name);
        (name == ours && uid != task.uid).then(|| uid.to_owned())
    });
    let found = before.into_iter().flat_map(move |uid| {
        (0..).map_while(move |attempt| {
            let id = stored::id_of(view.chain_id, view.market, view.account, &uid, attempt);
            view.order(&id).map(|order| (id, order.slot.state))
        })
    });
    found.filter(|(id, _)| !view.confirmed_order(id).is_some_and(|order| order.slot.state.is_settled()))
}

/// What comes before an order of one's own: an order to take over, or a claim that says why there is none yet.
pub fn before_ordering(o: &Observed, work: &Work) -> Option<Result<B256, Claim>> {
    if let Some(wanted) = &o.others.wanted {
        let refused = |why| {
            let message = format!("{why} Correct or remove the annotation freehold.dev/adopt.");
            Claim::no(types::FUNDED, funded::ADOPTION_REFUSED, message)
        };
        return Some(judge(o, wanted, work).map(|order| order.id).map_err(refused));
    }
    let (id, state) = o.others.former.first()?;
    let (kind, account) = (o.task.kind.to_ascii_lowercase(), o.spec.market.account.as_str());
    let where_it_is = if *state == OrderState::None { "on its way" } else { state.name() };
    let message = format!(
        "Order {id:#x} of an earlier object of this name is {where_it_is}; no second one is placed beside it. Take it over: kubectl freehold adopt {id:#x} --task {kind}/{} -n {}. Or end it: kubectl freehold adopt {id:#x} --end --account {account}. One of this cluster is ended by itself after ten minutes.",
        o.task.name, o.task.namespace
    );
    Some(Err(Claim::no(types::FUNDED, funded::FOREIGN_ORDER, message)))
}

fn judge<'a>(o: &Observed, wanted: &'a Wanted, work: &Work) -> Result<&'a Arc<Order>, String> {
    let id = &wanted.id;
    let account = o.view.as_ref().map(|view| view.account).unwrap_or_default();
    let Some(order) = wanted.order.as_ref().filter(|order| order.slot.tenant == account) else {
        return Err(format!("The chain knows no order `{id}` of account {account}."));
    };
    if order.slot.state.is_settled() {
        return Err(format!("Order {id} is over ({}).", order.slot.state.name()));
    }
    if let Some(holder) = &wanted.holder {
        return Err(format!("Order {id} belongs to the task {}/{}.", holder.namespace, holder.name));
    }
    match difference(o.task.kind, order, work) {
        Some(what) => Err(format!("Order {id} is for other work than the task's: {what} differs.")),
        None => Ok(order),
    }
}

/// The first thing in which the order's spec is not what the task would order; its checkpoint and its time aside.
fn difference(kind: &'static str, order: &Order, work: &Work) -> Option<&'static str> {
    let Ok(ordered) = OrderSpec::parse(&order.spec) else { return Some("its spec cannot be read, so it") };
    let Ok(wanted) = order::spec_of(work, kind, None, &[]) else { return Some("the task's spec") };
    let data = |spec: &OrderSpec| {
        spec.inputs.iter().filter(|input| input.name != order::CHECKPOINT).cloned().collect::<Vec<_>>()
    };
    [
        ("its kind", ordered.kind == wanted.kind),
        ("its class", ordered.class == wanted.class),
        ("its image", ordered.image == wanted.image),
        ("its recipe", ordered.recipe == wanted.recipe),
        ("its resources", ordered.resources == wanted.resources),
        ("an input", data(&ordered) == data(&wanted)),
    ]
    .into_iter()
    .find_map(|(what, same)| (!same).then_some(what))
}

/// The record that makes the order the task's. Its manifest lies where it was placed from.
pub fn record(order: &Order, attempt: u32) -> Draft {
    Draft {
        id: order.id,
        salt: order.salt,
        attempt,
        failures: 0,
        terms: order.terms.clone(),
        spec: order.spec.clone(),
        manifest: None,
        adopted: true,
    }
}
