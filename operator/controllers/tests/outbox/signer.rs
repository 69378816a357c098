//! A signer elsewhere: its real TokenReview, its policy, its absence.

use std::net::{IpAddr, SocketAddr};

use freehold_api::conditions::types;
use freehold_chain::signer::wire::AUDIENCE;
use freehold_gateway::reviews::{ApiServer, Reviews};
use freehold_gateway::slots::Slots;
use freehold_gateway::{serve, system_clock};
use freehold_signer::journal::Journal;
use freehold_signer::server::{Parts, Server, routes};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

/// A signer that can be stopped and started on the same address.
struct Elsewhere {
    address: SocketAddr,
    running: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Elsewhere {
    async fn new() -> Self {
        let free = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("an address");
        Self { address: free.local_addr().expect("address"), running: None }
    }

    fn reference(&self) -> SignerRef {
        SignerRef { url: Some(format!("http://{}", self.address).into()), ..SignerRef::default() }
    }

    async fn start(&mut self, site: &Site) {
        let folder = site.folder.path();
        let (journal, state) = Journal::open(&folder.join("journal.jsonl")).expect("journal");
        let server = Arc::new(Server::new(Parts {
            key: ACCOUNTS[1].1.parse().expect("key"),
            policy: folder.join("policy.json"),
            journal,
            state,
            reviews: Reviews::new(Arc::new(ApiServer::new(site.ctx.client.clone(), AUDIENCE)), system_clock()),
            operator: format!("system:serviceaccount:{}:operator", site.name),
            clock: system_clock(),
        }));
        let listener = serve::bind(self.address).await.expect("listens");
        let (stop, stopped) = watch::channel(false);
        let places = Slots::<IpAddr>::new(64, 64);
        self.running = Some((stop, tokio::spawn(serve::serve(listener, routes(server), places, stopped))));
    }

    async fn stop(&mut self) {
        if let Some((stop, serving)) = self.running.take() {
            stop.send_replace(true);
            serving.await.expect("the signer ends");
        }
    }
}

impl Site {
    /// A token of the operator's service account, as the kubelet would project it.
    async fn project_token(&self) {
        let api: Api<ServiceAccount> = self.api();
        let named = ObjectMeta { name: Some("operator".into()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata: named, ..ServiceAccount::default() };
        api.create(&PostParams::default(), &account).await.expect("service account");
        let spec = TokenRequestSpec { audiences: vec![AUDIENCE.into()], ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = api.create_token_request("operator", &PostParams::default(), &request).await.expect("token");
        std::fs::write(self.token(), answer.status.expect("status").token).expect("token");
    }

    fn allow(&self, goals: &[&str], tokens: &str) {
        let contracts = self.anvil.contracts;
        let policy = json!({
            "chainId": CHAIN_ID, "market": contracts.market, "providerRegistry": contracts.provider_registry,
            "token": { "address": contracts.token, "decimals": 6 }, "goals": goals, "period": "24h",
            "tokens": tokens, "fees": "1", "allowance": "1000", "signaturesPerMinute": 1000,
        });
        std::fs::write(self.folder.path().join("policy.json"), policy.to_string()).expect("policy");
    }

    async fn account_says(&self, type_: &str) -> Option<(String, String)> {
        let status = self.status().await;
        let found = conditions::find(&status.conditions, type_)?;
        Some((found.reason.clone(), found.message.clone()))
    }

    /// Reason and message of a goal's condition.
    async fn goal_says(&self, name: &str) -> Option<(String, String)> {
        let status = self.goal(name).await.status?;
        let found = conditions::find(&status.conditions, types::CONFIRMED)?;
        Some((found.reason.clone(), found.message.clone()))
    }

    async fn waits_for_the_signer(&self, goal: &str, rule: &str) -> bool {
        let named = format!("`{rule}`");
        self.goal_says(goal)
            .await
            .is_some_and(|(reason, message)| reason == "SignerRefused" && message.contains(&named))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with Freehold's CRDs (KUBECONFIG)"]
async fn a_signer_elsewhere_signs_what_its_policy_allows() {
    let mut signer = Elsewhere::new().await;
    let site = Site::with("signer", signer.reference()).await;
    site.project_token().await;
    site.allow(&Goal::NAMES, "1");
    let first = site.nonce().await;
    let says =
        async |type_: &str, reason: &str| site.account_says(type_).await.is_some_and(|(found, _)| found == reason);
    let away = async || says(types::SIGNER_REACHABLE, "Unreachable").await;
    site.run_until("", "the account says that the signer is away", away).await;

    // The period allows one order: the second waits and says why, and others go on.
    signer.start(&site).await;
    let (one, two) = (site.place(0).await, site.place(1).await);
    let waits = async || {
        let (a, b) =
            (site.is(&one, TransactionState::Confirmed).await, site.is(&two, TransactionState::Confirmed).await);
        let other = if a { &two } else { &one };
        a != b && site.waits_for_the_signer(other, "spend").await
    };
    site.run_until("", "one order is placed, the other waits", waits).await;
    let (placed, waiting) = if site.is(&one, TransactionState::Confirmed).await { (&one, &two) } else { (&two, &one) };
    assert_eq!(site.goal(waiting).await.status.and_then(|status| status.nonce), None, "no nonce is wasted");
    let order_id = site.goal(placed).await.spec.goal.order_id().expect("an order").clone();
    let cancel = goals::ensure(&site.ctx, &site.name, Goal::CancelOrder { order_id }, None).await.expect("goal");
    let cancelled = async || site.is(&cancel.name_any(), TransactionState::Confirmed).await;
    site.run_until("", "the order is cancelled meanwhile", cancelled).await;
    assert_eq!(site.nonce().await - first, 3, "an approval, an order and its end: no void");

    // Another policy: the goal is tried again without being touched.
    site.allow(&Goal::NAMES, "2");
    let both = async || site.is(waiting, TransactionState::Confirmed).await;
    site.run_until("", "the other order is placed too", both).await;

    // The signer goes away under a running operator: nothing is lost, and it goes on when it is back.
    site.allow(&Goal::NAMES, "3");
    signer.stop().await;
    let third = site.place(2).await;
    site.run_until("", "the account says that the signer is away", away).await;
    assert!(!goals::state(&site.goal(&third).await).is_final());
    signer.start(&site).await;
    let back = async || {
        site.is(&third, TransactionState::Confirmed).await
            && says(types::SIGNER_REACHABLE, "Answers").await
            && site.status().await.in_flight.is_empty()
    };
    site.run_until("", "the third order is placed", back).await;
    assert_eq!(site.nonce().await - first, 5);
    site.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with Freehold's CRDs (KUBECONFIG)"]
async fn a_refused_goal_that_has_a_nonce_leaves_no_gap() {
    let mut signer = Elsewhere::new().await;
    let site = Site::with("refused", signer.reference()).await;
    site.project_token().await;
    site.allow(&Goal::NAMES, "9");
    signer.start(&site).await;
    let first = site.nonce().await;
    let goal = site.place(0).await;
    // Dies twice: with the approval's nonce, and with the order's.
    let mut operator = site.operator("outbox.allocated");
    tokio::time::timeout(PATIENCE, operator.wait()).await.expect("dies in time").expect("operator dies");
    let held = site.status().await.in_flight;
    assert_eq!(held.iter().map(|held| (held.nonce, held.hashes.len())).collect::<Vec<_>>(), vec![(first, 0)]);

    // The policy turns against whatever has the nonce, and even against a void.
    site.allow(&[], "9");
    let blocked = async || {
        let says = site.account_says(types::NONCE_HEALTHY).await;
        says.is_some_and(|(reason, message)| reason == "SignerRefused" && message.contains("`goal`"))
    };
    site.run_until("", "the account says that nothing may fill the nonce", blocked).await;
    let goals: Api<ChainTransaction> = site.api();
    let all = goals.list(&Default::default()).await.expect("goals").items;
    let void = all.iter().find(|object| matches!(object.spec.goal, Goal::Void { .. })).expect("a void").name_any();
    assert!(site.waits_for_the_signer(&void, "goal").await);
    assert_eq!(site.nonce().await, first);

    // With a void allowed the account goes on, with all allowed the order stands.
    site.allow(&["void"], "9");
    let filled = async || site.is(&void, TransactionState::Confirmed).await;
    site.run_until("", "the nonce is filled", filled).await;
    site.allow(&Goal::NAMES, "9");
    let placed = async || site.is(&goal, TransactionState::Confirmed).await && site.status().await.in_flight.is_empty();
    site.run_until("", "the order is placed", placed).await;
    assert_eq!(site.nonce().await - first, 3, "a void, an approval and an order");
    site.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with Freehold's CRDs (KUBECONFIG)"]
async fn killed_around_the_signers_answers_an_order_is_placed_and_counted_once() {
    let mut signer = Elsewhere::new().await;
    let site = Site::with("killed-signed", signer.reference()).await;
    site.project_token().await;
    // What counted twice would be refused.
    site.allow(&Goal::NAMES, "1");
    signer.start(&site).await;
    let first = site.nonce().await;
    let goal = site.place(0).await;
    let points: Vec<String> = ["address", "checks", "transactions"]
        .iter()
        .flat_map(|call| ["asked", "answered"].map(|side| format!("signer.{call}.{side}")))
        .collect();
    let released =
        async || site.is(&goal, TransactionState::Confirmed).await && site.status().await.in_flight.is_empty();
    let deaths = site.run_until(&points.join(","), "the order is confirmed", released).await;
    assert_eq!(deaths as usize, points.len(), "died at each of {points:?}");
    assert_eq!(site.wallet().await, 9 * TOKENS, "funded once");
    assert_eq!(site.nonce().await - first, 2, "one approval and one order");
    site.clean().await;
}
