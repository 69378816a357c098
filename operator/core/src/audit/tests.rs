use super::*;
use alloy_primitives::{Uint, keccak256};

const TENANT: Address = Address::repeat_byte(1);
const PROVIDER: Address = Address::repeat_byte(2);
const RATE: u128 = 1_000_000_000_000; // one unit a second

fn terms() -> Terms {
    Terms {
        token: Address::repeat_byte(9),
        maxPrice: 1000,
        auditReserve: 0,
        bond: 100,
        noShowPenalty: 20,
        bidBy: Uint::from(200u64),
        startWindow: Uint::from(300u64),
        duration: Uint::from(3600u64),
        window: Uint::from(600u64),
        holdbackBps: 2000,
        class: 0,
        specHash: keccak256(b"{}"),
        rulesHash: B256::ZERO,
        origin: B256::ZERO,
    }
}

fn entry(time: u64, event: Event) -> Entry {
    Entry { block: time / 2, time, transaction: B256::repeat_byte(7), event }
}

fn ended(state: OrderState, by: Address, [accrued, to_provider, to_tenant, burned]: [u128; 4]) -> Event {
    Event::Ended(Settlement {
        state,
        by,
        accrued: Amount(accrued),
        to_provider: Amount(to_provider),
        to_tenant: Amount(to_tenant),
        burned: Amount(burned),
    })
}

fn life(last: Event) -> Vec<Entry> {
    vec![
        entry(100, Event::Ordered { tenant: TENANT, salt: B256::ZERO, terms: Box::new(terms()), spec: b"{}".to_vec() }),
        entry(110, Event::BidPlaced { provider: PROVIDER, price: RATE, valid_until: 170, bond: Amount(100) }),
        entry(120, Event::Leased { provider: PROVIDER, seq: 1, price: RATE, refund: Amount::ZERO }),
        entry(130, Event::Started { provider: PROVIDER, end_at: 1130 }),
        entry(230, Event::Delivered { result_hash: B256::repeat_byte(3), accrued: Amount(100), review_by: 830 }),
        entry(240, last),
    ]
}

fn slot(state: OrderState) -> OrderSlot {
    OrderSlot { state, tenant: TENANT, provider: PROVIDER, ..OrderSlot::default() }
}

fn run(entries: &[Entry], state: OrderState) -> Report {
    audit(B256::ZERO, |_, _| B256::ZERO, entries, &slot(state)).unwrap()
}

#[test]
fn an_accepted_lease_balances() {
    let report = run(&life(ended(OrderState::Accepted, TENANT, [100, 200, 900, 0])), OrderState::Accepted);
    assert_eq!(report.findings, Vec::<String>::new());
    assert_eq!((report.totals.paid.as_str(), report.totals.refunded.as_str()), ("100", "900"));
}

#[test]
fn a_rejected_lease_burns_the_holdback() {
    let report = run(&life(ended(OrderState::Rejected, TENANT, [100, 180, 900, 20])), OrderState::Rejected);
    assert_eq!(report.findings, Vec::<String>::new());
    assert_eq!(report.totals.burned, "20");
}

/// Any single amount that is changed by one is found.
#[test]
fn one_wrong_amount_is_found() {
    for index in 0..4 {
        let mut amounts = [100, 200, 900, 0];
        amounts[index] += 1;
        let report = run(&life(ended(OrderState::Accepted, TENANT, amounts)), OrderState::Accepted);
        assert!(!report.findings.is_empty(), "amount {index} changed without a finding");
    }
    let mut entries = life(ended(OrderState::Accepted, TENANT, [100, 200, 900, 0]));
    if let Event::Ordered { terms, .. } = &mut entries[0].event {
        terms.maxPrice += 1;
    }
    assert!(!run(&entries, OrderState::Accepted).findings.is_empty());
    let mut entries = life(ended(OrderState::Accepted, TENANT, [100, 200, 900, 0]));
    if let Event::BidPlaced { bond, .. } = &mut entries[1].event {
        *bond = Amount(101);
    }
    assert!(!run(&entries, OrderState::Accepted).findings.is_empty());
}

#[test]
fn events_out_of_order_are_found() {
    let mut entries = life(ended(OrderState::Accepted, TENANT, [100, 200, 900, 0]));
    entries.remove(3);
    assert!(run(&entries, OrderState::Accepted).findings.iter().any(|f| f.contains("follows state")));
}

#[test]
fn storage_that_disagrees_is_found() {
    let report = run(&life(ended(OrderState::Accepted, TENANT, [100, 200, 900, 0])), OrderState::Rejected);
    assert!(report.findings.iter().any(|f| f.contains("the contract says Rejected")));
}
