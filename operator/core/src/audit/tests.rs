use super::*;
use alloy_primitives::{Uint, keccak256};

const TENANT: Address = Address::repeat_byte(1);
const PROVIDER: Address = Address::repeat_byte(2);
const STRANGER: Address = Address::repeat_byte(5);
const RESULT: B256 = B256::repeat_byte(3);
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
        entry(230, Event::Delivered { result_hash: RESULT, accrued: Amount(100), review_by: 830 }),
        entry(240, last),
    ]
}

#[test]
fn block_times_of_a_liar_are_findings() {
    let mut entries = life(ended(OrderState::Accepted, TENANT, [100, 200, 900, 0]));
    entries.iter_mut().for_each(|entry| entry.time = u64::MAX - 1);
    let stored = OrderSlot { funds: Amount(u128::MAX), paid: Amount(u128::MAX), ..OrderSlot::default() };
    let report = audit(B256::ZERO, |_, _| B256::ZERO, &entries, &stored).expect("an order");
    assert!(report.findings.iter().any(|finding| finding.contains("after its deadline")), "{:?}", report.findings);
}

/// What storage says after `life` has ended so, with this paid from the funds.
fn slot(state: OrderState, paid: u128) -> OrderSlot {
    OrderSlot {
        state,
        tenant: TENANT,
        provider: PROVIDER,
        price: RATE,
        started_at: 130,
        end_at: 230,
        paid: Amount(paid),
        terms_hash: rules::stored_hash(&terms(), Some(RESULT)),
        ..OrderSlot::default()
    }
}

fn against(entries: &[Entry], slot: &OrderSlot) -> Report {
    audit(B256::ZERO, |_, _| B256::ZERO, entries, slot).unwrap()
}

fn run(entries: &[Entry], state: OrderState) -> Report {
    against(entries, &slot(state, if state == OrderState::Rejected { 80 } else { 100 }))
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
    assert!(report.findings.iter().any(|f| f.contains("the contract says the state Rejected")));
}

/// An end without a result: how far the life went before it, when and by whom it came, and its money.
struct Exit {
    state: OrderState,
    events: usize,
    at: u64,
    by: Address,
    money: [u128; 4],
}

impl Exit {
    fn findings(&self) -> Vec<String> {
        let mut entries = life(ended(self.state, self.by, self.money));
        let last = Entry { time: self.at, block: self.at / 2, ..entries.remove(5) };
        entries.truncate(self.events);
        entries.push(last);
        let (leased, started) = (self.events > 2, self.events > 3);
        let stored = OrderSlot {
            state: self.state,
            tenant: TENANT,
            provider: if leased { PROVIDER } else { Address::ZERO },
            price: if leased { RATE } else { 0 },
            started_at: if started { 130 } else { 0 },
            end_at: if started { 1130 } else { 0 },
            paid: Amount(if leased { self.money[1].saturating_sub(100) } else { 0 }),
            terms_hash: terms().hash(),
            ..OrderSlot::default()
        };
        against(&entries, &stored).findings
    }
}

/// Row by row of the protocol's table: the right money is accepted, and each amount off by one is found.
#[test]
fn each_exit_pays_as_the_table_says() {
    use OrderState::{Cancelled, Closed, Declined, NoShow};
    let exit = |state, events, at, by, money| Exit { state, events, at, by, money };
    for exit in [
        exit(Cancelled, 2, 150, TENANT, [0, 0, 1000, 0]),
        exit(Cancelled, 2, 201, STRANGER, [0, 0, 1000, 0]),
        exit(Cancelled, 3, 150, TENANT, [0, 120, 980, 0]),
        exit(Declined, 3, 420, PROVIDER, [0, 98, 1000, 2]),
        exit(NoShow, 3, 421, STRANGER, [0, 80, 1020, 0]),
        exit(Closed, 4, 230, TENANT, [100, 200, 900, 0]),
        exit(Closed, 4, 230, PROVIDER, [100, 180, 920, 0]),
        exit(Closed, 4, 1131, STRANGER, [1000, 900, 200, 0]),
    ] {
        assert_eq!(exit.findings(), Vec::<String>::new(), "{:?} by {} at {}", exit.state, exit.by, exit.at);
        for index in 0..4 {
            let mut money = exit.money;
            money[index] += 1;
            assert!(!Exit { money, ..exit }.findings().is_empty(), "{:?}: amount {index} is off by one", exit.state);
        }
    }
}

/// The same money, moved by somebody who may not, or at a time that does not allow it.
#[test]
fn who_and_when_are_held_against_the_table() {
    use OrderState::{Cancelled, Closed, Declined, NoShow};
    let exit = |state, events, at, by, money| Exit { state, events, at, by, money };
    for exit in [
        exit(Cancelled, 2, 200, STRANGER, [0, 0, 1000, 0]),
        exit(Cancelled, 3, 500, STRANGER, [0, 120, 980, 0]),
        exit(Declined, 3, 150, STRANGER, [0, 98, 1000, 2]),
        exit(Declined, 3, 421, PROVIDER, [0, 98, 1000, 2]),
        exit(NoShow, 3, 420, TENANT, [0, 80, 1020, 0]),
        exit(Closed, 4, 1130, STRANGER, [1000, 900, 200, 0]),
    ] {
        let found = exit.findings();
        assert!(found.iter().any(|f| f.contains("does not allow")), "{:?} by {}: {found:?}", exit.state, exit.by);
    }
    for (state, by, at, money) in [
        (OrderState::Accepted, PROVIDER, 830, [100, 200, 900, 0]),
        (OrderState::Rejected, STRANGER, 240, [100, 180, 900, 20]),
        (OrderState::Rejected, TENANT, 831, [100, 180, 900, 20]),
    ] {
        let mut entries = life(ended(state, by, money));
        entries[5].time = at;
        assert!(
            run(&entries, state).findings.iter().any(|f| f.contains("does not allow")),
            "{state:?} by {by} at {at}"
        );
    }
    let mut silence = life(ended(OrderState::Accepted, STRANGER, [100, 200, 900, 0]));
    silence[5].time = 831;
    assert_eq!(run(&silence, OrderState::Accepted).findings, Vec::<String>::new());
}

#[test]
fn deadlines_that_events_name_are_computed_again() {
    let accepted = || life(ended(OrderState::Accepted, TENANT, [100, 200, 900, 0]));
    for (index, event) in [
        (3, Event::Started { provider: PROVIDER, end_at: 1131 }),
        (3, Event::Started { provider: STRANGER, end_at: 1130 }),
        (4, Event::Delivered { result_hash: RESULT, accrued: Amount(100), review_by: 829 }),
        (2, Event::Leased { provider: PROVIDER, seq: 1, price: RATE, refund: Amount(1) }),
    ] {
        let mut entries = accepted();
        entries[index].event = event;
        assert!(!run(&entries, OrderState::Accepted).findings.is_empty(), "event {index} was changed");
    }
    let mut late = accepted();
    late[2].time = 171; // the bid had lapsed
    assert!(run(&late, OrderState::Accepted).findings.iter().any(|f| f.contains("after its deadline 170")));
}

#[test]
fn part_payments_and_top_ups_add_up() {
    let mut entries = life(ended(OrderState::Accepted, TENANT, [100, 160, 1400, 0]));
    let part = Event::Settled {
        by: STRANGER,
        accrued: Amount(50),
        to_provider: Amount(40),
        to_tenant: Amount::ZERO,
        burned: Amount::ZERO,
    };
    entries.insert(4, entry(180, part));
    entries.insert(5, entry(190, Event::ToppedUp { amount: Amount(500), end_at: 1630 }));
    assert_eq!(run(&entries, OrderState::Accepted).findings, Vec::<String>::new());
    entries[5].event = Event::ToppedUp { amount: Amount(500), end_at: 1629 };
    assert!(!run(&entries, OrderState::Accepted).findings.is_empty());
}

#[test]
fn losers_take_their_bonds_back_and_winners_do_not() {
    let bid = Event::BidPlaced { provider: STRANGER, price: RATE, valid_until: 170, bond: Amount(100) };
    let back = |provider| Event::Reclaimed { provider, bond: Amount(100) };
    let mut entries = life(ended(OrderState::Accepted, TENANT, [100, 200, 900, 0]));
    entries.insert(1, entry(105, bid));
    entries.insert(4, entry(125, back(STRANGER)));
    assert_eq!(run(&entries, OrderState::Accepted).findings, Vec::<String>::new());
    entries[4].event = back(PROVIDER);
    assert!(run(&entries, OrderState::Accepted).findings.iter().any(|f| f.contains("who won")));
}

/// Terms that were altered together with the split that they would give: storage's hash tells.
#[test]
fn other_terms_with_money_to_match_are_found() {
    let mut entries = life(ended(OrderState::Rejected, TENANT, [100, 190, 900, 10]));
    if let Event::Ordered { terms, .. } = &mut entries[0].event {
        terms.holdbackBps = 1000;
    }
    let found = against(&entries, &slot(OrderState::Rejected, 90)).findings;
    assert!(found.iter().any(|f| f.contains("the terms' hash")), "{found:?}");
    assert_eq!(found.len(), 1, "{found:?}");
}
