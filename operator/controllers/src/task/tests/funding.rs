//! Who may order: budgets, caps and balances.

use freehold_api::account::ComputeBudgetSpec;
use freehold_api::conditions::Claim;
use freehold_chain::view::Balances;
use freehold_core::B256;
use freehold_core::money::Amount;
use proptest::prelude::*;
use serde_json::json;

use super::world::*;
use crate::task::funding::{Asks, Question, decide};
use crate::task::ledger::{Entry, Money};
use crate::task::validate::{self, Limits};

const NOW: u64 = START as u64;

fn limits() -> Limits {
    validate::limits(&spec_of(manifest()), &chain_facts()).expect("valid")
}

fn entry(namespace: &str, money: Money) -> Entry {
    Entry { id: B256::ZERO, namespace: namespace.into(), task_uid: "other".into(), money }
}

struct Case {
    asks: Asks,
    cap: Amount,
    budgets: Vec<(String, ComputeBudgetSpec)>,
    caps: Option<freehold_api::account::Caps>,
    entries: Vec<Entry>,
    balances: Balances,
}

impl Case {
    fn new(limit: &str) -> Self {
        Self {
            asks: Asks::Order,
            cap: Amount(1_000_000),
            budgets: vec![("team".into(), budget(limit))],
            caps: None,
            entries: Vec::new(),
            balances: Balances { wallet: Amount(50_000_000), gas: 10u128.pow(18), ..Balances::default() },
        }
    }

    fn decide(&self) -> Result<(), Claim> {
        decide(&Question {
            account: "team-a",
            namespace: "demo",
            limits: &limits(),
            asks: self.asks,
            cap: self.cap,
            budgets: &self.budgets,
            caps: self.caps.as_ref(),
            entries: &self.entries,
            balances: self.balances,
            address: freehold_core::Address::repeat_byte(3),
            decimals: DECIMALS,
            now: NOW,
        })
    }

    fn reason(&self) -> &'static str {
        self.decide().expect_err("refused").reason
    }
}

fn with_budget(field: &str, value: serde_json::Value) -> Case {
    let mut spec = json!({ "accountRef": { "name": "team-a" }, "limit": "10" });
    spec[field] = value;
    let mut case = Case::new("10");
    case.budgets = vec![("team".into(), serde_json::from_value(spec).expect("a budget"))];
    case
}

#[test]
fn without_a_budget_nothing_is_spent() {
    let mut case = Case::new("10");
    assert_eq!(case.decide(), Ok(()));
    case.budgets.clear();
    assert_eq!(case.reason(), "NoBudget");
}

#[test]
fn the_limit_counts_what_is_committed_and_what_was_spent_in_the_period() {
    let mut case = Case::new("3");
    case.entries = vec![
        entry("demo", Money::Escrowed(Amount(1_000_000))),
        entry("demo", Money::Spent { amount: Amount(1_000_000), at: NOW - 10 }),
    ];
    assert_eq!(case.decide(), Ok(()), "exactly the limit");
    case.entries.push(entry("demo", Money::Promised(Amount(1))));
    let claim = case.decide().expect_err("refused");
    assert_eq!(claim.reason, "BudgetExceeded");
    for figure in ["1.000001", "limit 3", "1 spent"] {
        assert!(claim.message.contains(figure), "{figure}: {}", claim.message);
    }
    case.entries = vec![entry("demo", Money::Spent { amount: Amount(3_000_000), at: NOW - 31 * 86_400 })];
    assert_eq!(case.decide(), Ok(()), "the period is over");
    case.entries = vec![entry("elsewhere", Money::Escrowed(Amount(3_000_000)))];
    assert_eq!(case.decide(), Ok(()), "other namespaces have budgets of their own");
}

#[test]
fn limits_of_one_task_and_of_orders_at_once() {
    assert_eq!(with_budget("maxPerTask", "1.99".into()).reason(), "BudgetExceeded");
    assert_eq!(with_budget("maxPerTask", "2".into()).decide(), Ok(()));
    assert_eq!(with_budget("maxRatePerHour", "0.49".into()).reason(), "BudgetExceeded");
    assert_eq!(with_budget("maxRatePerHour", "0.5".into()).decide(), Ok(()));
    let mut case = with_budget("maxConcurrent", 1.into());
    assert_eq!(case.decide(), Ok(()));
    case.entries = vec![entry("demo", Money::Escrowed(Amount(1)))];
    assert_eq!(case.reason(), "BudgetExceeded");
}

#[test]
fn every_budget_of_the_account_must_allow_it() {
    let mut case = Case::new("10");
    case.budgets.push(("tight".into(), budget("0.5")));
    assert!(case.decide().expect_err("refused").message.contains("`tight`"));
}

#[test]
fn the_account_must_be_able_to_pay() {
    let mut case = Case::new("100");
    case.balances.wallet = Amount(400_000);
    case.balances.free = Amount(600_000);
    assert_eq!(case.decide(), Ok(()), "free tokens in the market count");
    case.entries = vec![entry("elsewhere", Money::Promised(Amount(1)))];
    let claim = case.decide().expect_err("refused");
    assert_eq!(claim.reason, "InsufficientBalance");
    assert!(claim.message.contains("0.000001 more"), "{}", claim.message);
    case.entries = vec![entry("elsewhere", Money::Escrowed(Amount(9_000_000)))];
    assert_eq!(case.decide(), Ok(()), "what is in escrow was paid");
    case.balances.gas = 1;
    assert_eq!(case.reason(), "GasLow");
}

#[test]
fn the_accounts_caps_bind_all_namespaces_together() {
    let mut case = Case::new("100");
    case.caps = Some(serde_json::from_value(json!({ "period": "24h", "tokens": "2" })).expect("caps"));
    case.entries = vec![entry("elsewhere", Money::Escrowed(Amount(1_000_001)))];
    assert_eq!(case.reason(), "BudgetExceeded");
    case.entries = vec![entry("elsewhere", Money::Spent { amount: Amount(5_000_000), at: NOW - 90_000 })];
    assert_eq!(case.decide(), Ok(()));
}

proptest! {
    /// Tasks that ask one after the other never pass the limit together, whatever they ask for.
    #[test]
    fn decisions_in_a_row_keep_the_limit(caps in prop::collection::vec(1u128..3_000_000, 1..20)) {
        let mut case = Case::new("5");
        case.balances.wallet = Amount(u128::MAX / 2);
        for cap in caps {
            case.cap = Amount(cap);
            if case.decide().is_ok() {
                case.entries.push(entry("demo", Money::Promised(Amount(cap))));
            }
        }
        let sum: u128 = case.entries.iter().map(|e| match e.money { Money::Promised(a) => a.0, _ => 0 }).sum();
        prop_assert!(sum <= 5_000_000);
    }
}

/// Two tasks that fit the budget singly, not together: one is funded, and raising the budget releases the other.
#[test]
fn of_two_tasks_that_do_not_fit_together_one_is_funded() {
    let mut case = Case::new("1.5");
    assert_eq!(case.decide(), Ok(()));
    case.entries.push(entry("demo", Money::Promised(case.cap)));
    assert_eq!(case.reason(), "BudgetExceeded");
    case.budgets = vec![("team".into(), budget("2"))];
    assert_eq!(case.decide(), Ok(()));
}
