//! Which goals can go: of those that are over the newest are kept, of the rest what may still be asked about. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use freehold_api::transaction::TransactionState;
use freehold_api::{ChainTransaction, Goal};
use freehold_chain::view::ChainView;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::compute_provider::plan::goal_order;
use crate::goals;

/// Seconds that a finished goal is kept for, if its order lives on or it came to nothing.
const LIFE: i64 = 24 * 3600;
/// Seconds that a goal waits for an order that is not on the chain. If it comes back after all, it is asked for anew.
const LOST: i64 = 3_600;
/// Finished goals of an account that are kept whatever became of them. With those of some fifty live orders, and what a
/// few blocks can add before the next look, an account has no more than 200.
const KEEP: usize = 100;

/// Names of the goals that can go. `held` are those with a nonce under way; `period` seconds of fees and top-ups count
/// against a cap. Beyond the newest, a goal that was reached goes once its order is settled for good: nothing is planned
/// for such an order any more, so nobody asks whether it was done. One that failed tells why for a day.
pub fn expired(
    objects: &[Arc<ChainTransaction>],
    held: &BTreeSet<String>,
    view: &ChainView,
    period: u64,
    now: Timestamp,
) -> Vec<String> {
    let born = |object: &Arc<ChainTransaction>| object.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second());
    let over = |object: &&Arc<ChainTransaction>| goals::state(object).is_final() && !held.contains(&object.name_any());
    let mut finished: Vec<_> = objects.iter().filter(over).collect();
    finished.sort_by_key(|object| std::cmp::Reverse(born(object)));
    let period = i64::try_from(period).unwrap_or(i64::MAX);
    let goes = |object: &&Arc<ChainTransaction>| {
        let life = if is_done_with(object, view) { period } else { LIFE.max(period) };
        born(object) < now.as_second().saturating_sub(life)
    };
    let lost = |object: &&Arc<ChainTransaction>| {
        let free = !held.contains(&object.name_any()) && is_lost(object, view);
        free && born(object) < now.as_second().saturating_sub(LOST)
    };
    let gone = finished.into_iter().skip(KEEP).filter(goes).chain(objects.iter().filter(lost));
    gone.map(|object| object.name_any()).collect()
}

/// Nothing was signed for it, and a reorganisation took the order that it is about.
fn is_lost(object: &ChainTransaction, view: &ChainView) -> bool {
    let status = object.status.as_ref();
    let unsigned = status.is_none_or(|status| status.nonce.is_none() && status.hashes.is_empty());
    let places = matches!(object.spec.goal, Goal::PlaceOrder { .. });
    let gone = |id| view.order(&id).is_none() && view.confirmed_order(&id).is_none();
    goals::state(object) == TransactionState::Pending
        && unsigned
        && !places
        && goal_order(&object.spec.goal).is_some_and(gone)
}

/// Reached, and its order, if it has one, is settled at confirmed depth. An order that the view has forgotten was
/// somebody else's business in the end.
fn is_done_with(object: &ChainTransaction, view: &ChainView) -> bool {
    let settled = |id| view.confirmed_order(&id).is_none_or(|order| order.slot.state.is_settled());
    goals::state(object) == TransactionState::Confirmed && goal_order(&object.spec.goal).is_none_or(settled)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use freehold_api::transaction::{ChainTransactionSpec, ChainTransactionStatus};
    use freehold_chain::view::Snapshot;
    use freehold_core::order::{Order, OrderSlot, OrderState};
    use freehold_core::{Address, B256};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rstest::rstest;

    const LIVE: u8 = 1;
    const SETTLED: u8 = 2;
    const FORGOTTEN: u8 = 3;

    fn second(at: i64) -> Timestamp {
        Timestamp::from_second(at).expect("time")
    }

    fn of(name: &str, born: i64, state: TransactionState, goal: Goal) -> Arc<ChainTransaction> {
        let mut object = ChainTransaction::new(name, ChainTransactionSpec { account: "a".into(), goal });
        object.metadata.creation_timestamp = Some(Time(second(born)));
        object.status = Some(ChainTransactionStatus { state: Some(state), ..Default::default() });
        Arc::new(object)
    }

    fn about(order: u8, name: &str, born: i64, state: TransactionState) -> Arc<ChainTransaction> {
        of(name, born, state, Goal::CloseOrder { order_id: B256::repeat_byte(order).to_string().into() })
    }

    /// Goals that nobody would miss, newer than all others.
    fn newest(count: usize) -> Vec<Arc<ChainTransaction>> {
        (0..count).map(|n| about(SETTLED, &format!("new{n}"), LIFE, TransactionState::Confirmed)).collect()
    }

    fn view() -> ChainView {
        let order = |id: u8, state| {
            let terms = freehold_testkit::chain::terms(Address::ZERO, 1, 1, b"{}");
            let slot = OrderSlot { state, ..OrderSlot::default() };
            let id = B256::repeat_byte(id);
            let order = Order { id, salt: id, terms, spec: vec![], slot, bids: vec![], result_hash: None, split: None };
            (id, Arc::new(order))
        };
        let confirmed = BTreeMap::from([order(LIVE, OrderState::Running), order(SETTLED, OrderState::Accepted)]);
        // The latest block already has both settled: it may be replaced.
        let latest = BTreeMap::from([order(LIVE, OrderState::Closed), order(SETTLED, OrderState::Accepted)]);
        ChainView {
            confirmed: Snapshot { orders: confirmed, ..Snapshot::default() },
            latest: Snapshot { orders: latest, ..Snapshot::default() },
            ..ChainView::default()
        }
    }

    fn gone(objects: &[Arc<ChainTransaction>], period: i64, now: i64) -> Vec<String> {
        expired(objects, &BTreeSet::from(["held".to_owned()]), &view(), period as u64, second(now))
    }

    #[rstest]
    #[case::its_order_is_settled(about(SETTLED, "g", 0, TransactionState::Confirmed), true)]
    #[case::its_order_is_forgotten(about(FORGOTTEN, "g", 0, TransactionState::Confirmed), true)]
    #[case::it_has_no_order(of("g", 0, TransactionState::Confirmed, Goal::Void { nonce: 1 }), true)]
    #[case::its_order_is_live(about(LIVE, "g", 0, TransactionState::Confirmed), false)]
    #[case::it_failed(about(SETTLED, "g", 0, TransactionState::Failed), false)]
    #[case::it_became_needless(about(SETTLED, "g", 0, TransactionState::Obsolete), false)]
    #[case::it_is_pursued(about(SETTLED, "g", 0, TransactionState::Mined), false)]
    #[case::it_holds_a_nonce(about(SETTLED, "held", 0, TransactionState::Confirmed), false)]
    fn beyond_the_newest_a_goal_goes_within_a_day_if(#[case] object: Arc<ChainTransaction>, #[case] goes: bool) {
        let name = object.name_any();
        let mut objects = newest(KEEP);
        objects.push(object);
        assert_eq!(gone(&objects, 0, LIFE - 1), if goes { vec![name] } else { vec![] });
    }

    #[rstest]
    #[case::its_order_is_gone(about(FORGOTTEN, "g", 0, TransactionState::Pending), true)]
    #[case::its_order_lives(about(LIVE, "g", 0, TransactionState::Pending), false)]
    #[case::it_was_sent(about(FORGOTTEN, "g", 0, TransactionState::Submitted), false)]
    #[case::it_holds_a_nonce(about(FORGOTTEN, "held", 0, TransactionState::Pending), false)]
    #[case::it_has_no_order(of("g", 0, TransactionState::Pending, Goal::Void { nonce: 1 }), false)]
    #[case::it_places_the_order(of("g", 0, TransactionState::Pending, Goal::PlaceOrder {
        order_id: B256::repeat_byte(FORGOTTEN).to_string().into(), order: "stored".into(),
    }), false)]
    fn after_an_hour_an_open_goal_goes_if(#[case] object: Arc<ChainTransaction>, #[case] goes: bool) {
        let name = object.name_any();
        assert!(gone(std::slice::from_ref(&object), 0, LOST).is_empty(), "the order may come back");
        assert_eq!(gone(&[object], 0, LOST + 1), if goes { vec![name] } else { vec![] });
    }

    #[test]
    fn the_newest_stay_and_after_a_day_all_others_go() {
        let old = |name, state| about(LIVE, name, 0, state);
        let mut objects = newest(KEEP - 1);
        objects.push(old("old", TransactionState::Failed));
        assert!(gone(&objects, 0, 10 * LIFE).is_empty());
        objects.extend(newest(1));
        assert!(gone(&objects, 0, LIFE).is_empty());
        assert_eq!(gone(&objects, 0, LIFE + 1), vec!["old"]);
    }

    #[test]
    fn what_counts_against_a_cap_stays_for_its_period() {
        let mut objects = newest(KEEP);
        objects.push(about(SETTLED, "g", 0, TransactionState::Confirmed));
        assert!(gone(&objects, 3_600, 3_600).is_empty());
        assert_eq!(gone(&objects, 3_600, 3_601), vec!["g"]);
    }
}
