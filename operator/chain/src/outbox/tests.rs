use super::*;

mod model;

fn policy() -> Policy {
    Policy { resend_after: 5, replace_after: 20, fees_left: None, tokens_left: None, decimals: 6 }
}

fn entry(name: &str) -> Entry {
    Entry {
        name: name.into(),
        fills: None,
        rank: 2,
        created: 0,
        state: State::Pending,
        nonce: None,
        hashes: vec![],
        max_fee: None,
        signed_at: None,
        sent_at: None,
        reverts: 0,
        refused: None,
        standing: Standing::Possible,
        buildable: true,
        cost: Amount::ZERO,
        gas: 100_000,
    }
}

fn submitted(name: &str, nonce: u64, hash: B256) -> Entry {
    Entry {
        state: State::Submitted,
        nonce: Some(nonce),
        hashes: vec![hash],
        max_fee: Some(100),
        signed_at: Some(0),
        sent_at: Some(0),
        ..entry(name)
    }
}

fn facts() -> Facts {
    Facts { fee: 100, gas: u128::from(u64::MAX), confirmed: 10, ..Facts::default() }
}

fn slot(nonce: u64, goal: &str, hashes: &[B256]) -> Slot {
    Slot { nonce, goal: goal.into(), hashes: hashes.to_vec() }
}

fn hash(n: u8) -> B256 {
    B256::repeat_byte(n)
}

fn receipt(block: u64, success: bool) -> Receipt {
    Receipt { block, block_hash: B256::ZERO, success, gas_used: 50_000, fee: 5 }
}

fn marks(effects: &[Effect]) -> Vec<(&str, State, &'static str)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Mark(mark) => Some((mark.goal.as_str(), mark.state, mark.reason)),
            _ => None,
        })
        .collect()
}

#[test]
fn goals_get_consecutive_nonces_by_rank_and_age() {
    let ledger = Ledger { slots: vec![], next_nonce: Some(4) };
    let entries = [
        Entry { created: 1, ..entry("old") },
        Entry { created: 2, rank: 0, ..entry("approve") },
        Entry { created: 0, rank: 3, ..entry("withdraw") },
    ];
    let effects = plan(&ledger, &entries, &Facts { nonce_latest: 4, ..facts() }, &policy(), 0);
    let expected = [("approve", 4), ("old", 5), ("withdraw", 6)]
        .map(|(goal, nonce)| Effect::Allocate { goal: goal.into(), nonce });
    assert_eq!(effects, expected);
}

#[test]
fn what_has_a_block_makes_room_until_the_list_is_full() {
    let waiting: Vec<Entry> = (0..20).map(|n| entry(&format!("new{n:02}"))).collect();
    let allocated = |slots: u64, mined: u64| {
        let ledger = Ledger {
            slots: (0..slots).map(|n| slot(n, &format!("g{n}"), &[hash(1)])).collect(),
            next_nonce: Some(slots),
        };
        let mut entries = waiting.clone();
        entries.extend((0..slots).map(|n| submitted(&format!("g{n}"), n, hash(1))));
        let effects = plan(&ledger, &entries, &Facts { nonce_latest: mined, ..facts() }, &policy(), 0);
        effects.iter().filter(|effect| matches!(effect, Effect::Allocate { .. })).count()
    };
    assert_eq!(allocated(16, 0), 0);
    assert_eq!(allocated(16, 10), 10);
    assert_eq!(allocated(60, 60), 4);
}

#[test]
fn at_most_sixteen_are_under_way() {
    let entries: Vec<Entry> = (0..20).map(|n| entry(&format!("g{n:02}"))).collect();
    let effects = plan(&Ledger::default(), &entries, &facts(), &policy(), 0);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Allocate { .. })).count(), MAX_IN_FLIGHT);
    assert_eq!(marks(&effects).len(), 4);
}

#[test]
fn what_is_over_costs_no_nonce() {
    let entries = [
        Entry { standing: Standing::Reached("the bid stands".into()), ..entry("a") },
        Entry { standing: Standing::Impossible("the order is Closed".into()), ..entry("b") },
        Entry { standing: Standing::NotYet("the lease has not started".into()), ..entry("c") },
    ];
    let effects = plan(&Ledger::default(), &entries, &facts(), &policy(), 0);
    let expected = vec![
        ("a", State::Obsolete, "AlreadyReached"),
        ("b", State::Failed, "Impossible"),
        ("c", State::Pending, "Waiting"),
    ];
    assert_eq!(marks(&effects), expected);
    assert_eq!(effects.len(), 3);
}

#[test]
fn nothing_is_sent_that_cannot_be_paid() {
    let dear = Entry { cost: Amount(2_000_000), ..entry("order") };
    let reason = |facts: Facts| {
        let effects = plan(&Ledger::default(), std::slice::from_ref(&dear), &facts, &policy(), 0);
        match effects.as_slice() {
            [Effect::Mark(mark)] => (mark.reason, mark.message.clone()),
            other => panic!("{other:?}"),
        }
    };
    let (why, message) = reason(Facts { wallet: Amount(1_500_000), allowance: Amount(1_500_000), ..facts() });
    assert_eq!(why, "InsufficientBalance");
    assert!(message.contains("holds 1.5 tokens") && message.contains("2 are needed"), "{message}");
    let (why, _) = reason(Facts { wallet: Amount(3_000_000), allowance: Amount(1), ..facts() });
    assert_eq!(why, "Waiting");
    let (why, _) = reason(Facts { gas: 1, wallet: Amount(3_000_000), allowance: Amount(3_000_000), ..facts() });
    assert_eq!(why, "GasLow");
}

#[test]
fn money_under_way_is_not_spent_twice() {
    let ledger = Ledger { slots: vec![slot(0, "first", &[hash(1)])], next_nonce: Some(1) };
    let entries =
        [Entry { cost: Amount(2), ..submitted("first", 0, hash(1)) }, Entry { cost: Amount(2), ..entry("second") }];
    let effects = plan(&ledger, &entries, &Facts { wallet: Amount(3), allowance: Amount(9), ..facts() }, &policy(), 0);
    assert_eq!(marks(&effects), vec![("second", State::Pending, "InsufficientBalance")]);
}

#[test]
fn success_is_a_receipt_at_confirmed_depth() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let with = |block, nonce_confirmed, state| {
        let facts = Facts {
            nonce_latest: 1,
            nonce_confirmed,
            receipts: BTreeMap::from([(hash(1), receipt(block, true))]),
            ..facts()
        };
        plan(&ledger, &[Entry { state, ..submitted("g", 0, hash(1)) }], &facts, &policy(), 0)
    };
    assert_eq!(marks(&with(11, 0, State::Submitted)), vec![("g", State::Mined, "Mined")]);
    assert_eq!(with(11, 0, State::Mined), vec![]);
    assert_eq!(marks(&with(10, 1, State::Mined)), vec![("g", State::Confirmed, "Confirmed")]);
    assert_eq!(with(10, 1, State::Confirmed), vec![Effect::Release { nonce: 0 }]);
}

#[test]
fn a_reorganisation_sends_again() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let entry = Entry { state: State::Mined, sent_at: None, ..submitted("g", 0, hash(1)) };
    let effects = plan(&ledger, &[entry], &facts(), &policy(), 1);
    assert_eq!(marks(&effects), vec![("g", State::Submitted, "Reorganised")]);
    assert!(effects.contains(&Effect::Send { goal: "g".into(), nonce: 0, fee: 100 }));
}

#[test]
fn what_a_deep_reorganisation_undid_is_tried_again_once_its_nonce_is_taken() {
    let ledger = Ledger { slots: vec![], next_nonce: Some(5) };
    let over = || Entry { state: State::Confirmed, ..submitted("g", 4, hash(1)) };
    let at = |entry: Entry, facts: Facts, ledger: &Ledger| plan(ledger, &[entry], &facts, &policy(), 1);
    let taken = || Facts { nonce_latest: 5, nonce_confirmed: 5, ..facts() };
    let effects = at(over(), taken(), &ledger);
    assert_eq!(marks(&effects), vec![("g", State::Pending, "Undone")]);
    assert!(matches!(&effects[..], [Effect::Mark(mark)] if mark.reverted), "its nonce is given up");
    // Its transaction is there, or may still come back, or it is needless, or another look at its slot comes first.
    let mined = Facts { receipts: BTreeMap::from([(hash(1), receipt(9, true))]), ..taken() };
    assert_eq!(at(over(), mined, &ledger), vec![]);
    assert_eq!(at(over(), Facts { nonce_confirmed: 4, ..taken() }, &ledger), vec![]);
    for standing in
        [Standing::Reached("it is so".into()), Standing::NotYet("wait".into()), Standing::Impossible("no".into())]
    {
        assert_eq!(at(Entry { standing, ..over() }, taken(), &ledger), vec![]);
    }
    let held = Ledger { slots: vec![slot(4, "g", &[hash(1)])], ..ledger.clone() };
    assert_eq!(at(over(), taken(), &held), vec![Effect::Release { nonce: 4 }]);
    // First of all its nonce has to be taken.
    let open = Facts { nonce_latest: 4, nonce_confirmed: 4, ..facts() };
    assert_eq!(at(over(), open, &ledger), vec![Effect::Void { nonce: 4 }]);
}

#[test]
fn silence_is_repeated_and_then_outbid() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let at = |now| plan(&ledger, &[submitted("g", 0, hash(1))], &facts(), &policy(), now);
    assert_eq!(at(4), vec![]);
    assert_eq!(at(5), vec![Effect::Send { goal: "g".into(), nonce: 0, fee: 100 }]);
    assert_eq!(at(20), vec![Effect::Send { goal: "g".into(), nonce: 0, fee: 126 }]);
    let dear = Entry { max_fee: Some(1_000), ..submitted("g", 0, hash(1)) };
    assert_eq!(
        plan(&ledger, &[dear], &facts(), &policy(), 20),
        vec![Effect::Send { goal: "g".into(), nonce: 0, fee: 1_000 }]
    );
}

#[test]
fn a_revert_is_tried_again_only_while_it_makes_sense() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let with = |standing, reverts| {
        let facts = Facts {
            nonce_latest: 1,
            nonce_confirmed: 1,
            receipts: BTreeMap::from([(hash(1), receipt(9, false))]),
            ..facts()
        };
        plan(&ledger, &[Entry { standing, reverts, ..submitted("g", 0, hash(1)) }], &facts, &policy(), 0)
    };
    assert_eq!(marks(&with(Standing::Reached("so it is".into()), 0)), vec![("g", State::Obsolete, "AlreadyReached")]);
    assert_eq!(marks(&with(Standing::Impossible("it is over".into()), 0)), vec![("g", State::Failed, "Reverted")]);
    assert_eq!(marks(&with(Standing::Possible, 3)), vec![("g", State::Failed, "Reverted")]);
    let again = with(Standing::Possible, 0);
    assert_eq!(again.first(), Some(&Effect::Release { nonce: 0 }));
    assert_eq!(marks(&again), vec![("g", State::Pending, "Reverted")]);
}

#[test]
fn a_nonce_that_nothing_was_signed_for_goes_to_a_void() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[])], next_nonce: Some(1) };
    let over = Entry { standing: Standing::Impossible("the order is Closed".into()), ..entry("g") };
    let effects = plan(&ledger, &[over], &facts(), &policy(), 0);
    assert_eq!(marks(&effects), vec![("g", State::Failed, "Impossible")]);
    assert!(effects.contains(&Effect::Void { nonce: 0 }));
    let effects = plan(&ledger, &[], &facts(), &policy(), 0);
    assert_eq!(effects, vec![Effect::Void { nonce: 0 }]);
}

fn refused(entry: Entry) -> Entry {
    Entry { refused: Some("the signer refused by its rule `spend`: 5; allowed: 4".into()), ..entry }
}

#[test]
fn what_the_signer_refuses_waits_without_a_nonce_and_others_go_on() {
    let entries = [refused(entry("dear")), entry("cheap")];
    let effects = plan(&Ledger::default(), &entries, &facts(), &policy(), 0);
    assert!(effects.contains(&Effect::Allocate { goal: "cheap".into(), nonce: 0 }), "{effects:?}");
    assert_eq!(marks(&effects), [("dear", State::Pending, "SignerRefused")]);
}

#[test]
fn the_nonce_of_a_refused_goal_goes_to_a_void() {
    let ledger = Ledger { slots: vec![slot(3, "dear", &[])], next_nonce: Some(4) };
    let at_three = Facts { nonce_latest: 3, ..facts() };
    let dear = refused(entry("dear"));
    assert_eq!(plan(&ledger, std::slice::from_ref(&dear), &at_three, &policy(), 0), [Effect::Void { nonce: 3 }]);

    let ledger = Ledger { slots: vec![slot(3, "void", &[])], next_nonce: Some(4) };
    let void = Entry { fills: Some(3), ..entry("void") };
    let effects = plan(&ledger, &[void.clone(), dear], &at_three, &policy(), 0);
    assert_eq!(effects[0], Effect::Send { goal: "void".into(), nonce: 3, fee: 100 });
    assert_eq!(marks(&effects), [("dear", State::Pending, "SignerRefused")]);

    let void = refused(void);
    let effects = plan(&ledger, std::slice::from_ref(&void), &at_three, &policy(), 0);
    let [Effect::Mark(mark)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((mark.state, mark.reason), (State::Pending, "SignerRefused"));
    assert!(mark.message.starts_with("Nonce 3 stays open") && mark.message.contains("`spend`"), "{}", mark.message);
    let health = nonce_health(&ledger, &[void], &at_three, &policy(), 0);
    assert!(matches!(health, NonceHealth::Refused { nonce: 3, .. }), "{health:?}");
}

#[test]
fn what_was_signed_before_a_refusal_keeps_its_nonce() {
    let ledger = Ledger { slots: vec![slot(3, "g", &[hash(1)])], next_nonce: Some(4) };
    let at_three = Facts { nonce_latest: 3, ..facts() };
    let goal = refused(submitted("g", 3, hash(1)));
    let effects = plan(&ledger, std::slice::from_ref(&goal), &at_three, &policy(), 4);
    assert_eq!(marks(&effects), [("g", State::Submitted, "SignerRefused")]);
    assert_eq!(effects.len(), 1);
    // Sent again as it is, however long it takes; no fee is raised.
    let effects = plan(&ledger, &[goal], &at_three, &policy(), 1_000);
    assert_eq!(effects[1..], [Effect::Send { goal: "g".into(), nonce: 3, fee: 100 }]);
}

#[test]
fn a_void_that_is_over_is_taken_up_again_where_its_nonce_is_open() {
    let ledger = Ledger { slots: vec![slot(3, "void", &[hash(1)])], next_nonce: Some(4) };
    let facts = Facts { nonce_latest: 3, nonce_confirmed: 3, ..facts() };
    let over = Entry { fills: Some(3), state: State::Obsolete, ..entry("void") };
    let effects = plan(&ledger, std::slice::from_ref(&over), &facts, &policy(), 1);
    assert_eq!(marks(&effects), vec![("void", State::Pending, "Reopened")]);
    let again = Entry { state: State::Pending, ..over };
    let effects = plan(&ledger, &[again], &facts, &policy(), 1);
    assert_eq!(effects, vec![Effect::Send { goal: "void".into(), nonce: 3, fee: 100 }]);
}

#[test]
fn a_signed_goal_keeps_its_nonce_even_when_it_is_over() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let over = Entry {
        standing: Standing::Impossible("the order is Closed".into()),
        sent_at: None,
        ..submitted("g", 0, hash(1))
    };
    assert_eq!(
        plan(&ledger, &[over], &facts(), &policy(), 1),
        vec![Effect::Send { goal: "g".into(), nonce: 0, fee: 100 }]
    );
}

#[test]
fn a_lost_account_status_is_made_again_from_the_goals() {
    let entries = [submitted("g", 3, hash(1)), entry("new")];
    let facts = Facts { nonce_latest: 3, nonce_confirmed: 3, ..facts() };
    let effects = plan(&Ledger::default(), &entries, &facts, &policy(), 1);
    assert_eq!(effects, vec![Effect::Adopt { goal: "g".into(), nonce: 3, hashes: vec![hash(1)] }]);
}

#[test]
fn a_foreign_transaction_is_noticed_and_its_nonce_left() {
    let ledger = Ledger { slots: vec![slot(0, "g", &[hash(1)])], next_nonce: Some(1) };
    let facts = Facts { nonce_latest: 2, nonce_confirmed: 2, ..facts() };
    let entries = [submitted("g", 0, hash(1))];
    assert_eq!(nonce_health(&ledger, &entries, &facts, &policy(), 0), NonceHealth::Foreign { nonce: 1 });
    let effects = plan(&ledger, &entries, &facts, &policy(), 0);
    assert_eq!(effects.first(), Some(&Effect::Release { nonce: 0 }));
    assert_eq!(marks(&effects), vec![("g", State::Pending, "Reverted")]);
    let later = Ledger { slots: vec![], next_nonce: Some(1) };
    let effects = plan(&later, &[entry("g")], &facts, &policy(), 0);
    assert_eq!(effects, vec![Effect::Allocate { goal: "g".into(), nonce: 2 }]);
}
