//! A goal's status as the rules' marks make it. Pure.

use freehold_api::conditions::{self, Claim, types};
use freehold_api::scalars::Bytes32;
use freehold_api::transaction::{ChainTransactionStatus, TransactionState};
use freehold_api::{ChainTransaction, Goal};
use freehold_chain::outbox::Mark;
use freehold_core::B256;
use freehold_core::money::Amount;
use jiff::Timestamp;

use super::gather::COIN_DECIMALS;

fn of(object: &ChainTransaction) -> ChainTransactionStatus {
    let mut status = object.status.clone().unwrap_or_default();
    status.goal = Some(object.spec.goal.name().into());
    status
}

/// The status after `mark`; `None` if it says so already.
pub fn marked(object: &ChainTransaction, mark: &Mark, now: Timestamp) -> Option<ChainTransactionStatus> {
    let mut status = of(object);
    status.state = Some(mark.state);
    if let Some((hash, receipt)) = &mark.mined {
        // What an earlier signature settled is for the audit to tell: it reads the transaction's own events.
        if status.hashes.last() != Some(&text(hash)) || !receipt.success {
            status.settles.clear();
        }
        status.hash = Some(text(hash));
        status.block = Some(receipt.block);
        status.gas_used = Some(receipt.gas_used);
        status.fee = Some(Amount(receipt.fee).format(COIN_DECIMALS).into());
    }
    if mark.state == TransactionState::Submitted {
        (status.block, status.gas_used, status.fee) = (None, None, None);
    }
    if mark.reverted {
        if mark.mined.is_none() {
            (status.hash, status.block, status.gas_used, status.fee) = (None, None, None, None);
        }
        status.nonce = None;
        status.hashes.clear();
        status.settles.clear();
        status.max_fee_per_gas = None;
        status.sent_at = None;
        status.reverts = Some(status.reverts.unwrap_or(0) + 1);
    }
    claim(&mut status, mark, now);
    (object.status.as_ref() != Some(&status)).then_some(status)
}

fn claim(status: &mut ChainTransactionStatus, mark: &Mark, now: Timestamp) {
    let confirmed = match mark.state {
        TransactionState::Confirmed | TransactionState::Obsolete => {
            Claim::yes(types::CONFIRMED, mark.reason, &mark.message)
        }
        TransactionState::Pending
        | TransactionState::Submitted
        | TransactionState::Mined
        | TransactionState::Failed => Claim::no(types::CONFIRMED, mark.reason, &mark.message),
    };
    conditions::set(&mut status.conditions, confirmed, None, now);
    if mark.state == TransactionState::Failed {
        conditions::set(&mut status.conditions, Claim::yes(types::FAILED, mark.reason, &mark.message), None, now);
    }
}

/// The status that is stored before a transaction is broadcast. `settles` are the leases that it settles on its way.
pub fn signed(
    object: &ChainTransaction,
    nonce: u64,
    hash: B256,
    fee: u128,
    settles: &[B256],
    now: Timestamp,
) -> ChainTransactionStatus {
    let mut status = of(object);
    let hash = text(&hash);
    let new = !status.hashes.contains(&hash);
    if new {
        status.hashes.push(hash.clone());
        status.sent_at = Some(now.to_string().into());
    }
    // Sent again as it was, it says of itself what it said before.
    if new || status.state != Some(TransactionState::Submitted) {
        let message = format!("Nonce {nonce}; waits for a block.");
        conditions::set(&mut status.conditions, Claim::no(types::CONFIRMED, "Submitted", message), None, now);
    }
    status.state = Some(TransactionState::Submitted);
    status.nonce = Some(nonce);
    status.hash = Some(hash);
    status.settles = settles.iter().map(text).collect();
    status.max_fee_per_gas = Some(u64::try_from(fee).unwrap_or(u64::MAX));
    status
}

fn text(hash: &B256) -> Bytes32 {
    hash.to_string().into()
}

/// Goals that take tokens.
pub fn takes_tokens(goal: &Goal) -> bool {
    matches!(goal, Goal::PlaceOrder { .. } | Goal::Bid { .. } | Goal::TopUp { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use freehold_api::transaction::ChainTransactionSpec;
    use freehold_chain::rpc::Receipt;

    fn object() -> ChainTransaction {
        ChainTransaction::new("g", ChainTransactionSpec { account: "a".into(), goal: Goal::Void { nonce: 1 } })
    }

    fn mark(state: TransactionState) -> Mark {
        Mark { goal: "g".into(), state, reason: "Waiting", message: "So it is.".into(), mined: None, reverted: false }
    }

    #[test]
    fn saying_the_same_again_writes_nothing() {
        let mut object = object();
        let now = Timestamp::UNIX_EPOCH;
        object.status = marked(&object, &mark(TransactionState::Pending), now);
        assert!(object.status.is_some());
        let later = Timestamp::from_second(100).expect("time");
        assert_eq!(marked(&object, &mark(TransactionState::Pending), later), None);
    }

    #[test]
    fn a_confirmed_goal_shows_block_fee_and_hash() {
        let mined = Some((
            B256::repeat_byte(1),
            Receipt {
                block: 7,
                block_hash: B256::repeat_byte(7),
                success: true,
                gas_used: 50_000,
                fee: 1_500_000_000_000,
            },
        ));
        let status = marked(&object(), &Mark { mined, ..mark(TransactionState::Confirmed) }, Timestamp::UNIX_EPOCH)
            .expect("changed");
        assert_eq!(status.block, Some(7));
        assert_eq!(status.fee, Some("0.0000015".into()));
        assert!(conditions::is_true(&status.conditions, types::CONFIRMED));
    }

    #[test]
    fn which_leases_a_withdrawal_settled_is_said_of_the_transaction_that_was_mined() {
        let mut object = object();
        let (first, second) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let (a, b) = (B256::repeat_byte(0xa), B256::repeat_byte(0xb));
        object.status = Some(signed(&object, 3, first, 9, &[a, b], Timestamp::UNIX_EPOCH));
        object.status = Some(signed(&object, 3, second, 12, &[a], Timestamp::UNIX_EPOCH));
        let settled = |hash, success| {
            let receipt = Receipt { block: 7, block_hash: B256::ZERO, success, gas_used: 1, fee: 1 };
            let mark = Mark { mined: Some((hash, receipt)), ..mark(TransactionState::Confirmed) };
            marked(&object, &mark, Timestamp::UNIX_EPOCH).expect("changed").settles
        };
        assert_eq!(settled(second, true), [text(&a)]);
        assert!(settled(first, true).is_empty(), "what the first one carried is not known any more");
        assert!(settled(second, false).is_empty(), "it reverted");
    }

    #[test]
    fn a_goal_to_be_tried_again_forgets_its_nonce() {
        let mut object = object();
        object.status = Some(signed(&object, 3, B256::repeat_byte(1), 9, &[], Timestamp::UNIX_EPOCH));
        let again = Mark { reverted: true, ..mark(TransactionState::Pending) };
        let status = marked(&object, &again, Timestamp::UNIX_EPOCH).expect("changed");
        assert_eq!((status.nonce, status.hashes.len(), status.reverts), (None, 0, Some(1)));
    }

    #[test]
    fn signing_the_same_again_does_not_look_like_a_new_signature() {
        let mut object = object();
        object.status = Some(signed(&object, 3, B256::repeat_byte(1), 9, &[], Timestamp::UNIX_EPOCH));
        let later = Timestamp::from_second(100).expect("time");
        assert_eq!(Some(signed(&object, 3, B256::repeat_byte(1), 9, &[], later)), object.status);
    }
}
