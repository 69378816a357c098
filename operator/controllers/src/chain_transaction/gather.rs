//! What the rules are fed: stored objects and the chain's answers as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freehold_api::account::{Caps, ComputeAccountStatus, InFlight};
use freehold_api::scalars::Bytes32;
use freehold_api::transaction::{ChainTransactionStatus, TransactionState};
use freehold_api::{ChainTransaction, ComputeAccount, Goal};
use freehold_chain::calldata::{StoredOrder, call_of};
use freehold_chain::goal::{Standing, cost_of, status_of};
use freehold_chain::outbox::{Entry, Facts, Ledger, Policy, Slot, rank};
use freehold_chain::rpc::{self, Rpc};
use freehold_chain::view::ChainView;
use freehold_core::B256;
use freehold_core::money::Amount;
use freehold_core::order::Order;
use freehold_core::units::seconds;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::goals;

/// Decimals of the chain's own coin.
pub const COIN_DECIMALS: u8 = 18;
/// Receipts asked for at a time.
const RECEIPT_REQUESTS: usize = 8;

fn hashes_of(texts: &[Bytes32]) -> Vec<B256> {
    texts.iter().filter_map(|text| text.as_str().parse().ok()).collect()
}

/// What the account's status stores of its nonces.
pub fn ledger(status: Option<&ComputeAccountStatus>) -> Ledger {
    let Some(status) = status else { return Ledger::default() };
    let slot =
        |held: &InFlight| Slot { nonce: held.nonce, goal: held.goal.to_string(), hashes: hashes_of(&held.hashes) };
    Ledger { slots: status.in_flight.iter().map(slot).collect(), next_nonce: status.next_nonce }
}

/// The same, as it is stored.
pub fn in_flight(ledger: &Ledger) -> Vec<InFlight> {
    let text = |hash: &B256| Bytes32::from(hash.to_string());
    let held = |slot: &Slot| InFlight {
        nonce: slot.nonce,
        goal: slot.goal.clone().into(),
        hashes: slot.hashes.iter().map(text).collect(),
    };
    ledger.slots.iter().map(held).collect()
}

/// What the worker remembers of a goal.
#[derive(Default)]
pub struct Remembered<'a> {
    /// The call was tried at this block and reverted: this overrules what the chain's state says.
    pub reverted: Option<&'a Standing>,
    /// Why the signer refuses it, as long as it is not to be asked again.
    pub refused: Option<&'a str>,
    /// Unix seconds of the last broadcast.
    pub sent_at: Option<u64>,
}

/// A goal as the rules see it.
pub fn entry(
    object: &ChainTransaction,
    view: &ChainView,
    stored: Option<&StoredOrder>,
    remembered: &Remembered<'_>,
) -> Entry {
    let goal = &object.spec.goal;
    let empty = ChainTransactionStatus::default();
    let status = object.status.as_ref().unwrap_or(&empty);
    let standing = match remembered.reverted {
        Some(standing) => standing.clone(),
        None => status_of(goal, view, stored)
            .map_or_else(|error| Standing::Impossible(error.to_string()), |status| status.verdict()),
    };
    let call = call_of(goal, view, stored);
    Entry {
        name: object.name_any(),
        fills: fills(goal),
        rank: rank(goal),
        created: object.creation_timestamp().map_or(0, |time| time.0.as_second()),
        state: goals::state(object),
        nonce: status.nonce,
        hashes: hashes_of(&status.hashes),
        max_fee: status.max_fee_per_gas.map(u128::from),
        signed_at: status.sent_at.as_ref().and_then(|text| second_of(text.as_str())),
        sent_at: remembered.sent_at,
        reverts: status.reverts.unwrap_or(0),
        refused: remembered.refused.map(str::to_owned),
        standing,
        buildable: call.is_ok(),
        cost: cost_of(goal, view, stored).unwrap_or_default(),
        gas: call.map_or(0, |call| call.gas),
    }
}

/// Over according to its status, and still to be done according to the chain. Such are asked about: a reorganisation may
/// have gone deeper than the confirmed depth. Of an account's own affairs (approvals, withdrawals) the next one is asked
/// for anyway, and an order that is gone is placed again when its time is over.
pub fn is_doubtful(object: &ChainTransaction, view: &ChainView) -> bool {
    let goal = &object.spec.goal;
    let confirmed = view.confirmed.block.number;
    let seen = |block: u64| block <= confirmed;
    let undone = || {
        let status = status_of(goal, view, None);
        status.is_ok_and(|status| [&status.latest, &status.confirmed].iter().all(|now| **now == Standing::Possible))
    };
    goals::state(object) == TransactionState::Confirmed
        && goal.order_id().is_some()
        && object.status.as_ref().and_then(|status| status.block).is_some_and(seen)
        && undone()
}

fn second_of(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

fn fills(goal: &Goal) -> Option<u64> {
    match goal {
        Goal::Void { nonce } => Some(*nonce),
        _ => None,
    }
}

/// What the chain says of the account, at the blocks of the view.
pub async fn facts(rpc: &Rpc, view: &ChainView, ledger: &Ledger, entries: &[Entry]) -> Result<Facts, rpc::Error> {
    let (latest, confirmed) = (view.latest.block, view.confirmed.block);
    let (nonce_latest, nonce_confirmed, fee) = futures::try_join!(
        rpc.nonce(view.account, latest.hash),
        rpc.nonce(view.account, confirmed.hash),
        fee(rpc, latest.hash),
    )?;
    Ok(Facts {
        nonce_latest,
        nonce_confirmed,
        confirmed: confirmed.number,
        receipts: receipts(rpc, view, asked(ledger, entries, nonce_latest)).await?,
        fee,
        gas: view.balances.gas,
        free: view.balances.free,
        wallet: view.balances.wallet,
        allowance: view.balances.allowance,
    })
}

/// Hashes that may have a receipt: nonces above the account's cannot.
fn asked(ledger: &Ledger, entries: &[Entry], nonce_latest: u64) -> BTreeSet<B256> {
    let slots = ledger.slots.iter().filter(|slot| slot.nonce < nonce_latest).flat_map(|slot| slot.hashes.iter());
    let asked = |entry: &&Entry| {
        let open = !entry.state.is_final() || entry.state == TransactionState::Confirmed;
        open && entry.nonce.is_some_and(|nonce| nonce < nonce_latest)
    };
    let goals = entries.iter().filter(asked).flat_map(|entry| entry.hashes.iter());
    slots.chain(goals).copied().collect()
}

async fn receipts(
    rpc: &Rpc,
    view: &ChainView,
    hashes: BTreeSet<B256>,
) -> Result<BTreeMap<B256, rpc::Receipt>, rpc::Error> {
    let found: Vec<Option<(B256, rpc::Receipt)>> = stream::iter(hashes)
        .map(|hash| async move { rpc.agreed_receipt(hash).await.map(|receipt| receipt.map(|receipt| (hash, receipt))) })
        .buffer_unordered(RECEIPT_REQUESTS)
        .try_collect()
        .await?;
    // A receipt from a block that the view has not seen yet belongs to a later pass.
    Ok(found.into_iter().flatten().filter(|(_, receipt)| receipt.block <= view.latest.block.number).collect())
}

/// What to offer a unit of gas, in wei: twice the base fee lasts six full blocks, and a tenth of the
/// whole goes to the block's maker.
async fn fee(rpc: &Rpc, latest: B256) -> Result<u128, rpc::Error> {
    let base = rpc.header_by_hash(latest).await?.map_or(0, |header| header.base_fee);
    let tip = match rpc.priority_fee().await {
        Ok(tip) => tip,
        // Not every endpoint has an opinion.
        Err(error) if error.is_refusal() => 1_000_000_000,
        Err(error) => return Err(error),
    };
    Ok((base.saturating_mul(2).saturating_add(tip)).max(tip.saturating_mul(10)).max(10))
}

/// The part of a fee that goes to the block's maker. A function of the whole, so
/// that signing again gives the same transaction.
pub fn tip_of(fee: u128) -> u128 {
    fee / 10
}

/// How patient the outbox is, and what the account's caps leave.
pub fn policy(
    account: &ComputeAccount,
    block_time: u64,
    view: &ChainView,
    objects: &[Arc<ChainTransaction>],
    now: Timestamp,
) -> Policy {
    let caps = account.spec.caps.as_ref();
    Policy {
        resend_after: (block_time * 3).max(5),
        replace_after: (block_time * 15).max(30),
        fees_left: caps.and_then(|caps| fees_left(caps, objects, now)),
        tokens_left: caps.and_then(|caps| tokens_left(caps, view, objects, now)),
        decimals: view.decimals,
    }
}

fn period(caps: &Caps) -> u64 {
    seconds(caps.period.as_str()).unwrap_or(0)
}

fn fees_left(caps: &Caps, objects: &[Arc<ChainTransaction>], now: Timestamp) -> Option<u128> {
    let cap = Amount::limit(caps.fees.as_ref()?.as_str(), COIN_DECIMALS);
    let since = now.as_second().saturating_sub(i64::try_from(period(caps)).unwrap_or(i64::MAX));
    let recent =
        |object: &&Arc<ChainTransaction>| object.creation_timestamp().is_some_and(|time| time.0.as_second() >= since);
    let fee = |object: &Arc<ChainTransaction>| {
        Amount::parse(object.status.as_ref()?.fee.as_ref()?.as_str(), COIN_DECIMALS).ok()
    };
    let spent: Amount = objects.iter().filter(recent).filter_map(fee).sum();
    Some(cap.saturating_sub(spent).0)
}

/// Orders whose time for bids ended within the period, or is to come: what they hold, or cost. Of older ones, what was
/// added to them in the period.
fn tokens_left(caps: &Caps, view: &ChainView, objects: &[Arc<ChainTransaction>], now: Timestamp) -> Option<Amount> {
    let cap = Amount::limit(caps.tokens.as_ref()?.as_str(), view.decimals);
    let since = u64::try_from(now.as_second()).unwrap_or(0).saturating_sub(period(caps));
    let recent = |order: &Order| order.terms.bidBy.to::<u64>() >= since;
    let orders = view.latest.orders.values().filter(|order| order.slot.tenant == view.account && recent(order));
    let held = orders.map(|order| match order.slot.state.is_settled() {
        true => order.cost(),
        false => order.escrow(),
    });
    let added = |object: &Arc<ChainTransaction>| {
        let Goal::TopUp { order_id, amount, .. } = &object.spec.goal else { return None };
        let order = view.order(&order_id.as_str().parse().ok()?);
        let made = object.creation_timestamp().and_then(|time| u64::try_from(time.0.as_second()).ok())?;
        let mined = matches!(goals::state(object), TransactionState::Mined | TransactionState::Confirmed);
        let counts = mined && made >= since && order.is_none_or(|order| !recent(order));
        counts.then(|| Amount::limit(amount.as_str(), view.decimals))
    };
    let spent: Amount = held.chain(objects.iter().filter_map(added)).sum();
    Some(cap.saturating_sub(spent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use freehold_api::transaction::ChainTransactionSpec;
    use freehold_chain::view::Snapshot;
    use freehold_core::Address;
    use freehold_core::order::{OrderSlot, OrderState};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rstest::rstest;

    const NOW: i64 = 1_000_000;

    fn order(id: u8, bid_by: u64, held: u128) -> (B256, Arc<Order>) {
        let terms = freehold_testkit::chain::terms(Address::ZERO, held, bid_by, b"{}");
        let slot = OrderSlot { state: OrderState::Running, funds: Amount(held), ..OrderSlot::default() };
        let id = B256::repeat_byte(id);
        let order = Order { id, salt: id, terms, spec: vec![], slot, bids: vec![], result_hash: None, split: None };
        (id, Arc::new(order))
    }

    fn top_up(id: u8, at: i64, state: TransactionState) -> Arc<ChainTransaction> {
        let order_id = B256::repeat_byte(id).to_string().into();
        let goal = Goal::TopUp { order_id, amount: "0.000002".into(), escrow: "5".into() };
        let mut object = ChainTransaction::new("g", ChainTransactionSpec { account: "a".into(), goal });
        object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(at).expect("time")));
        object.status = Some(ChainTransactionStatus { state: Some(state), ..Default::default() });
        Arc::new(object)
    }

    #[rstest]
    #[case::undone(100, OrderState::Running, OrderState::Running, true)]
    #[case::still_there(100, OrderState::Delivered, OrderState::Delivered, false)]
    #[case::still_there_in_the_confirmed_block(100, OrderState::Delivered, OrderState::Running, false)]
    #[case::there_again(100, OrderState::Running, OrderState::Delivered, false)]
    #[case::the_view_is_older(151, OrderState::Running, OrderState::Running, false)]
    fn a_goal_is_doubtful_if_the_chain_says_twice_that_it_is_to_be_done(
        #[case] block: u64,
        #[case] confirmed: OrderState,
        #[case] latest: OrderState,
        #[case] doubtful: bool,
    ) {
        let goal = |order: u8| Goal::Deliver {
            order_id: B256::repeat_byte(order).to_string().into(),
            result_hash: B256::repeat_byte(9).to_string().into(),
        };
        let object = |goal, state, block| {
            let mut object = ChainTransaction::new("g", ChainTransactionSpec { account: "a".into(), goal });
            object.status =
                Some(ChainTransactionStatus { state: Some(state), block: Some(block), ..Default::default() });
            object
        };
        let snapshot = |number, state| {
            let (id, order) = order(1, NOW as u64, 7);
            let mut order = Arc::unwrap_or_clone(order);
            order.slot = OrderSlot { state, provider: Address::repeat_byte(2), ..order.slot };
            let mut snapshot = Snapshot { orders: BTreeMap::from([(id, Arc::new(order))]), ..Snapshot::default() };
            snapshot.block.number = number;
            snapshot
        };
        let view = ChainView {
            account: Address::repeat_byte(2),
            confirmed: snapshot(150, confirmed),
            latest: snapshot(153, latest),
            ..ChainView::default()
        };
        let is = |goal, state, block| is_doubtful(&object(goal, state, block), &view);
        assert_eq!(is(goal(1), TransactionState::Confirmed, block), doubtful);
        assert!(!is(goal(1), TransactionState::Obsolete, block), "it never had a block");
        assert!(!is(goal(2), TransactionState::Confirmed, block), "nothing is known of the order");
    }

    #[test]
    fn a_top_up_counts_in_the_period_in_which_it_was_made_however_old_its_order_is() {
        let caps = Caps { period: "1h".into(), tokens: Some("0.0001".into()), fees: None };
        let now = u64::try_from(NOW).expect("positive");
        let orders = BTreeMap::from([order(1, now, 7), order(2, now - 7_200, 50)]);
        let view =
            ChainView { decimals: 6, latest: Snapshot { orders, ..Snapshot::default() }, ..ChainView::default() };
        let left = |objects: &[Arc<ChainTransaction>]| {
            tokens_left(&caps, &view, objects, Timestamp::from_second(NOW).expect("time")).expect("capped").0
        };
        use TransactionState::{Confirmed, Failed, Mined};
        assert_eq!(left(&[]), 93, "the old order no longer counts");
        assert_eq!(left(&[top_up(2, NOW, Mined), top_up(2, NOW - 10, Confirmed)]), 89);
        assert_eq!(left(&[top_up(2, NOW - 3_601, Confirmed), top_up(2, NOW, Failed)]), 93);
        assert_eq!(left(&[top_up(1, NOW, Confirmed)]), 93, "what a new order holds is counted there");
    }
}
