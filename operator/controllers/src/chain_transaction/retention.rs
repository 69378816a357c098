//! Finished goals are kept for a day, and the newest of them whatever their age. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use freehold_api::ChainTransaction;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::goals;

/// Seconds that a finished goal is kept for.
const LIFE: i64 = 24 * 3600;
/// Finished goals of an account that are kept however old they are.
const KEEP: usize = 200;

/// Names of the goals that can go. `held` are those with a nonce under way;
/// `period` seconds of fees count against a cap.
pub fn expired(objects: &[Arc<ChainTransaction>], held: &BTreeSet<String>, period: u64, now: Timestamp) -> Vec<String> {
    let born = |object: &Arc<ChainTransaction>| object.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second());
    let over = |object: &&Arc<ChainTransaction>| goals::state(object).is_final() && !held.contains(&object.name_any());
    let mut finished: Vec<_> = objects.iter().filter(over).collect();
    finished.sort_by_key(|object| std::cmp::Reverse(born(object)));
    let life = LIFE.max(i64::try_from(period).unwrap_or(i64::MAX));
    let deadline = now.as_second().saturating_sub(life);
    finished.into_iter().skip(KEEP).filter(|object| born(object) < deadline).map(|object| object.name_any()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use freehold_api::Goal;
    use freehold_api::transaction::{ChainTransactionSpec, ChainTransactionStatus, TransactionState};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn goal(name: &str, born: i64, state: TransactionState) -> Arc<ChainTransaction> {
        let spec = ChainTransactionSpec { account: "a".into(), goal: Goal::Void { nonce: 1 } };
        let mut object = ChainTransaction::new(name, spec);
        object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(born).expect("time")));
        object.status = Some(ChainTransactionStatus { state: Some(state), ..Default::default() });
        Arc::new(object)
    }

    #[test]
    fn only_old_finished_goals_beyond_the_newest_go() {
        let mut objects: Vec<_> =
            (0..KEEP as i64 + 3).map(|n| goal(&format!("g{n}"), n, TransactionState::Confirmed)).collect();
        objects.push(goal("open", 0, TransactionState::Submitted));
        let now = Timestamp::from_second(LIFE + 1_000).expect("time");
        let held = BTreeSet::from(["g0".to_owned()]);
        assert_eq!(expired(&objects, &held, 0, now), vec!["g2", "g1"]);
        assert!(expired(&objects, &held, 0, Timestamp::from_second(LIFE).expect("time")).is_empty());
        assert!(expired(&objects, &held, 10 * LIFE as u64, now).is_empty());
    }
}
