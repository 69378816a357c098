//! What a page says, and that no label can be filled by a stranger.

use std::collections::BTreeSet;

use freehold_api::lease::LeasePhase;
use freehold_api::transaction::{ChainTransactionSpec, ChainTransactionStatus, TransactionState};
use freehold_api::{ChainTransaction, Goal, conditions};
use freehold_chain::outbox::NonceHealth;
use freehold_chain::rpc::Standing;
use freehold_chain::rpc::judge::Verdict;
use freehold_chain::view::{Balances, Block, ChainView, Health, Snapshot};
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderSlot, OrderState, Terms};
use freehold_core::{Address, B256};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::account::{Sight, figures};
use super::*;
use crate::accounts::Report;
use crate::context::KeptFunded;

const NOW: i64 = 1_000_000;
const ME: Address = Address::repeat_byte(1);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

fn order(id: u8, state: OrderState, deadline: u64, slot: OrderSlot) -> Arc<Order> {
    let terms = Terms { startWindow: "600".parse().expect("u40"), window: "1000".parse().expect("u40"), ..terms() };
    let slot = OrderSlot { state, tenant: ME, deadline, ..slot };
    let id = B256::repeat_byte(id);
    Arc::new(Order { id, salt: id, terms, spec: vec![], slot, bids: vec![], result_hash: None, split: None })
}

fn terms() -> Terms {
    Terms {
        token: Address::ZERO,
        maxPrice: 5,
        auditReserve: 0,
        bond: 0,
        noShowPenalty: 0,
        bidBy: Default::default(),
        startWindow: Default::default(),
        duration: Default::default(),
        window: Default::default(),
        holdbackBps: 0,
        class: 0,
        specHash: B256::ZERO,
        rulesHash: B256::ZERO,
        origin: B256::ZERO,
    }
}

fn view() -> ChainView {
    let now = NOW as u64;
    let running = |ends: u64, lasts| OrderSlot {
        started_at: now + ends - lasts,
        end_at: now + ends,
        funds: Amount(2_000_000),
        ..OrderSlot::default()
    };
    let orders = [
        order(1, OrderState::Running, 0, running(3_000, 90_000)),
        // Funded for half an hour in all: near its end from the beginning.
        order(2, OrderState::Running, 0, running(60, 1_800)),
        order(3, OrderState::Awaiting, now + 150, OrderSlot::default()),
        order(4, OrderState::Delivered, now + 900, OrderSlot::default()),
        order(5, OrderState::Closed, 0, OrderSlot::default()),
    ];
    let endpoint = |host: &str, verdict, used| Standing { host: host.into(), verdict, used };
    ChainView {
        health: Health::Stale { head: 7 },
        account: ME,
        decimals: 6,
        latest: Snapshot {
            block: Block { number: 7, hash: B256::repeat_byte(9), timestamp: now },
            orders: orders.into_iter().map(|order| (order.id, order)).collect(),
        },
        balances: Balances { wallet: Amount(1_500_000), gas: 20_000_000_000_000_000, ..Balances::default() },
        endpoints: vec![
            endpoint("https://first.example", Verdict::Unreachable("https://first.example/secret".into()), false),
            endpoint("https://second.example", Verdict::Good, true),
        ],
        ..ChainView::default()
    }
}

fn goal(goal: Goal, state: TransactionState, reason: &'static str, born: i64) -> Arc<ChainTransaction> {
    let mut object = ChainTransaction::new("bid-0xabc", ChainTransactionSpec { account: "team-a".into(), goal });
    object.metadata.creation_timestamp = Some(Time(at(born)));
    let mut status = ChainTransactionStatus { state: Some(state), ..ChainTransactionStatus::default() };
    let claim = conditions::Claim::no(conditions::types::CONFIRMED, reason, "So it is.");
    conditions::set(&mut status.conditions, claim, None, at(born));
    if state == TransactionState::Failed {
        let failed = conditions::Claim::yes(conditions::types::FAILED, reason, "So it is.");
        conditions::set(&mut status.conditions, failed, None, at(born));
    }
    object.status = Some(status);
    Arc::new(object)
}

fn start(state: TransactionState, reason: &'static str, age: i64) -> Arc<ChainTransaction> {
    goal(Goal::Start { order_id: format!("{:#x}", B256::repeat_byte(1)).into() }, state, reason, NOW - age)
}

fn account(goals: &[Arc<ChainTransaction>]) -> Vec<Sample> {
    let nonces = NonceHealth::Foreign { nonce: 3 };
    let report = Report { block: B256::repeat_byte(9), nonces, pending: Amount(500_000), ..Report::default() };
    figures(&Sight {
        name: "team-a",
        view: &view(),
        report: &report,
        goals,
        kept_funded: &KeptFunded::default(),
        now: at(NOW + 12),
    })
}

fn ours() -> Arc<freehold_api::ComputeAccount> {
    let zero = "0x0000000000000000000000000000000000000000";
    let spec = serde_json::json!({
        "role": "Tenant", "market": zero, "providerRegistry": zero, "token": zero, "operator": "ns.release",
        "chain": { "chainId": 1, "rpcUrls": ["http://localhost"], "blockTime": "2s" },
        "signerRef": { "secret": { "name": "key", "key": "key" } },
    });
    Arc::new(freehold_api::ComputeAccount::new("team-a", serde_json::from_value(spec).expect("a spec")))
}

fn everything() -> Vec<Sample> {
    let goals = [
        start(TransactionState::Pending, "GasLow", 400),
        start(TransactionState::Submitted, "Submitted", 90),
        goal(Goal::Void { nonce: 4 }, TransactionState::Pending, "Queued", NOW),
    ];
    let tasks = [
        work::Task { state: Some("Running".into()), deleting: None },
        work::Task { state: Some("a task's own words".into()), deleting: Some(at(NOW - 700)) },
    ];
    let budget = work::Budget { name: "demo/lab".into(), limit: Amount(10), used: Amount(9) };
    let found = Found { orders: Some(1), namespaces: Some(0), terminating: Some(at(NOW - 30)) };
    [
        account(&goals),
        work::tasks("TrainingTask", &tasks, at(NOW)),
        work::budgets(&[budget]),
        work::leases(&[LeasePhase::Running, LeasePhase::Closed]),
        vec![work::rebuilds([None, Some(2), Some(1)].into_iter()), super::account::foreign("team-a", 1)],
        work::found(&found, at(NOW)),
        work::store(850, 1000),
        super::account::ready(&[ours()], "ns.release"),
        vec![work::info(true, false)],
    ]
    .concat()
}

fn page(samples: Vec<Sample>) -> String {
    let mut page = String::new();
    text::encode(&mut page, &registry(samples)).expect("text");
    page
}

fn says(page: &str, line: &str) {
    assert!(page.lines().any(|found| found == format!("freehold_operator_{line}")), "no `{line}` in:\n{page}");
}

/// Read back from the text, so that nothing that is encoded is missed.
fn labels(line: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = line.split_once('{') else { return vec![] };
    let inside = rest.rsplit_once('}').expect("a closing brace").0;
    let pairs = inside.trim_end_matches('"').split("\",").map(|pair| pair.split_once("=\"").expect("a label"));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn every_label_of_the_page_is_one_of_a_fixed_set_or_an_administrators_object() {
    let metrics = Metrics::default();
    metrics.show(|_| everything());
    let page = metrics.page(at(NOW)).expect("a page");
    let mut seen = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name").trim_start_matches("freehold_operator_");
        let figure = CATALOG.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("{line}"));
        let found = labels(line);
        assert_eq!(found.len(), figure.labels.len(), "{line}");
        for ((name, value), label) in found.iter().zip(figure.labels) {
            assert!(name == label.name && label.values.allow(value), "{line}: {name}={value}");
        }
        seen.insert(figure.name);
    }
    let all: BTreeSet<_> = CATALOG.iter().map(|figure| figure.name).collect();
    assert_eq!(seen, all, "a figure that nothing shows");
    assert!(!page.contains("example") && !page.contains("0x") && !page.contains("own words"), "{page}");
}

#[test]
fn the_sets_refuse_what_is_not_theirs() {
    assert!(Values::Object.allow("team-a") && Values::Object.allow("demo/lab"));
    for stranger in ["", "0xabc", "https://host", "a/b/c", "Team A"] {
        assert!(!Values::Object.allow(stranger), "{stranger}");
    }
    assert!(Values::Index.allow("7") && !Values::Index.allow("a"));
    assert!(!Values::OneOf(figure::STATES).allow("Mine"));
}

#[test]
fn the_lists_name_all_that_the_code_can_say() {
    let healths = [
        Health::Fresh,
        Health::Starting,
        Health::Unreachable { error: String::new() },
        Health::Stale { head: 0 },
        Health::WrongChain { expected: 0, found: 1 },
        Health::Diverged { endpoints: String::new() },
        Health::Unwitnessed { endpoints: String::new() },
        Health::WrongMarket { address: ME, error: String::new() },
        Health::WrongContract { field: "x", address: ME, error: String::new() },
    ];
    assert_eq!(healths.map(|health| health.explain().0).as_slice(), figure::HEALTHS);
    let verdicts = [
        Verdict::Good,
        Verdict::Unasked,
        Verdict::Unreachable(String::new()),
        Verdict::Limited,
        Verdict::WrongChain(1),
        Verdict::Stale,
        Verdict::Lagging,
        Verdict::Diverged,
        Verdict::Unwitnessed,
    ];
    assert_eq!(verdicts.map(|verdict| verdict.label()).as_slice(), figure::VERDICTS);
    let phases = [
        LeasePhase::AwaitingInputs,
        LeasePhase::Starting,
        LeasePhase::Running,
        LeasePhase::Finished,
        LeasePhase::Delivered,
        LeasePhase::Failed,
        LeasePhase::Closed,
    ];
    assert_eq!(phases.map(|phase| format!("{phase:?}")).as_slice(), figure::PHASES);
}

#[test]
fn an_account_shows_its_chain_money_and_orders() {
    let page = page(account(&[]));
    says(&page, "chain_health{account=\"team-a\",health=\"Stale\"} 1.0");
    says(&page, "chain_health{account=\"team-a\",health=\"Fresh\"} 0.0");
    says(&page, "endpoint_verdict{account=\"team-a\",endpoint=\"0\",verdict=\"unreachable\"} 1.0");
    says(&page, "endpoint_used{account=\"team-a\",endpoint=\"1\"} 1.0");
    says(&page, "head_age_seconds{account=\"team-a\"} 12.0");
    says(&page, "account_tokens{account=\"team-a\",place=\"wallet\"} 1.5");
    says(&page, "account_gas_coins{account=\"team-a\"} 0.02");
    says(&page, "account_committed_tokens{account=\"team-a\"} 4.5");
    says(&page, "nonce_health{account=\"team-a\",health=\"Foreign\"} 1.0");
    says(&page, "orders{account=\"team-a\",state=\"Running\"} 2.0");
    says(&page, "escrow_ends_seconds{account=\"team-a\"} 3000.0");
    says(&page, "start_window_used_ratio{account=\"team-a\"} 0.75");
    says(&page, "review_ends_seconds{account=\"team-a\"} 900.0");
}

#[test]
fn a_chain_that_was_never_read_shows_no_money() {
    let (view, report) = (ChainView::default(), Report::default());
    let samples = figures(&Sight {
        name: "a",
        view: &view,
        report: &report,
        goals: &[],
        kept_funded: &KeptFunded::default(),
        now: at(NOW),
    });
    let page = page(samples);
    says(&page, "chain_health{account=\"a\",health=\"Starting\"} 1.0");
    assert!(!page.contains("account_tokens") && !page.contains("head_"), "{page}");
}

#[test]
fn an_account_that_nobody_can_serve_is_shown_as_such() {
    let ready = |release| super::account::ready(&[ours()], release);
    assert_eq!(ready("ns.release"), [figure::READY.at(&["team-a"], 0.0)]);
    assert_eq!(ready("ns.another"), []);
}

#[test]
fn the_outbox_shows_how_old_its_goals_are_and_on_whom_they_wait() {
    let page = page(account(&[
        start(TransactionState::Pending, "GasLow", 400),
        start(TransactionState::Pending, "Queued", 30),
        // Waits for a day by design: the review window.
        start(TransactionState::Pending, "Waiting", 80_000),
        start(TransactionState::Mined, "Mined", 900),
        start(TransactionState::Confirmed, "Confirmed", 9_000),
        start(TransactionState::Failed, "SignerRefused", 60),
        start(TransactionState::Failed, "SignerRefused", 7_200),
        start(TransactionState::Failed, "Reverted", 60),
    ]));
    says(&page, "outbox_goals{account=\"team-a\",goal=\"start\",state=\"Pending\"} 2.0");
    says(&page, "outbox_oldest_seconds{account=\"team-a\",state=\"Pending\"} 412.0");
    says(&page, "outbox_oldest_seconds{account=\"team-a\",state=\"Waiting\"} 80012.0");
    says(&page, "outbox_oldest_seconds{account=\"team-a\",state=\"Submitted\"} 0.0");
    says(&page, "outbox_oldest_seconds{account=\"team-a\",state=\"Mined\"} 912.0");
    says(&page, "outbox_waiting_goals{account=\"team-a\",reason=\"GasLow\"} 1.0");
    says(&page, "outbox_waiting_goals{account=\"team-a\",reason=\"SignerRefused\"} 1.0");
    says(&page, "outbox_waiting_goals{account=\"team-a\",reason=\"Reverted\"} 0.0");
}

#[test]
fn work_is_counted_and_what_was_never_looked_for_is_not_zero() {
    let page = page(everything());
    says(&page, "tasks{kind=\"TrainingTask\",state=\"Running\"} 1.0");
    says(&page, "tasks{kind=\"TrainingTask\",state=\"Pending\"} 1.0");
    says(&page, "task_deleting_seconds{kind=\"TrainingTask\"} 700.0");
    says(&page, "budget_used_ratio{budget=\"demo/lab\"} 0.9");
    says(&page, "leases{phase=\"Closed\"} 1.0");
    says(&page, "orphans{kind=\"order\"} 1.0");
    says(&page, "lease_namespace_terminating_seconds 30.0");
    assert_eq!(work::found(&Found::default(), at(NOW)), vec![]);
}

#[tokio::test]
async fn passes_are_counted_by_controller_and_outcome() {
    let metrics = Metrics::default();
    let mut timed = metrics.timed(Controller::ComputeLease, |ok: Arc<bool>, _: Arc<()>| async move {
        if *ok { Ok(kube::runtime::controller::Action::await_change()) } else { Err("no") }
    });
    assert!(timed(Arc::new(true), Arc::new(())).await.is_ok());
    assert!(timed(Arc::new(false), Arc::new(())).await.is_err());
    assert!(timed(Arc::new(false), Arc::new(())).await.is_err());
    let page = metrics.page(at(NOW)).expect("a page");
    says(&page, "passes_total{controller=\"ComputeLease\",outcome=\"Done\"} 1");
    says(&page, "passes_total{controller=\"ComputeLease\",outcome=\"Failed\"} 2");
    says(&page, "pass_seconds_count{controller=\"ComputeLease\"} 3");
}

#[test]
fn the_specimen_holds_every_figure() {
    let page = specimen().expect("a page");
    for figure in CATALOG {
        assert!(page.contains(&format!("\nfreehold_operator_{}", figure.name)), "{}", figure.name);
    }
}
