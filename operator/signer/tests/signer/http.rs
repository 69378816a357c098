use alloy::primitives::{Address, B256, TxKind};
use freehold_api::Goal;
use freehold_chain::signer::{Error, LocalSigner, Signer};
use freehold_core::access::Claims;
use freehold_core::wire::Problem;

use crate::world::{CHAIN, CONTRACTS, NOW, OPERATOR, World, policy, request, transaction};

/// The rule that was broken.
fn rule<T: std::fmt::Debug>(outcome: Result<T, Error>) -> String {
    match outcome {
        Err(Error::Refused { refusal, .. }) => refusal.rule,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_signed_is_what_the_key_would_have_signed_and_is_recorded() {
    let world = World::start().await;
    let operator = world.operator().await;
    assert_eq!(operator.address(), world.key.address());
    let void = transaction(Goal::Void { nonce: 3 }, 3, world.key.address(), vec![]);
    let signed = operator.sign_transaction(request(&void)).await.expect("signs");
    let local = LocalSigner::from(world.key.clone()).sign_transaction(request(&void)).await.expect("signs");
    assert_eq!(signed, local);
    let lines = world.lines();
    assert_eq!(lines.len(), 1);
    for (field, expected) in [("caller", OPERATOR), ("goal", "void"), ("decision", "signed")] {
        assert_eq!(lines[0][field], expected);
    }
    assert_eq!((lines[0]["nonce"].clone(), lines[0]["fee"]["amount"].clone()), (3.into(), "200000000000000".into()));
}

#[tokio::test]
async fn a_gateway_token_is_signed_for_the_policys_market() {
    let world = World::start().await;
    let operator = world.operator().await;
    let claims = Claims {
        lease: B256::repeat_byte(1),
        host: "gateway.example".into(),
        scopes: "read".into(),
        expiry: NOW + 300,
    };
    let signature = operator.sign_access(&claims, CHAIN, CONTRACTS.market).await.expect("signs");
    let local = LocalSigner::from(world.key.clone());
    assert_eq!(signature, local.sign_access(&claims, CHAIN, CONTRACTS.market).await.expect("signs"));
    assert_eq!(rule(operator.sign_access(&claims, CHAIN, Address::repeat_byte(9)).await), "contract");
    let long = Claims { expiry: NOW + 86_400, ..claims };
    assert_eq!(rule(operator.sign_access(&long, CHAIN, CONTRACTS.market).await), "expiry");
    let decisions: Vec<_> = world.lines().iter().map(|line| line["decision"].clone()).collect();
    assert_eq!(decisions, ["signed", "refused", "refused"]);
}

/// The operator was taken over: its token is good, its will is not.
#[tokio::test]
async fn a_compromised_operator_pays_nobody_else() {
    let world = World::start().await;
    let operator = world.operator().await;
    let thief = Address::repeat_byte(0xee);

    let withdrawal = world.withdraw(thief);
    assert_eq!(rule(operator.sign_transaction(request(&withdrawal)).await), "recipient");
    let own = world.withdraw(world.key.address());
    assert!(operator.sign_transaction(request(&own)).await.is_ok());

    let mut elsewhere = world.place(0, 1);
    elsewhere.transaction.to = TxKind::Call(thief);
    assert_eq!(rule(operator.sign_transaction(request(&elsewhere)).await), "contract");
    let mut coins = transaction(Goal::Void { nonce: 1 }, 1, thief, vec![]);
    coins.transaction.value = alloy::primitives::U256::from(1);
    assert_eq!(rule(operator.sign_transaction(request(&coins)).await), "value");
    let mut disguised = world.withdraw(thief);
    disguised.goal = Goal::Void { nonce: 0 };
    assert_eq!(rule(operator.sign_transaction(request(&disguised)).await), "contract");

    let refused = world.lines().into_iter().filter(|line| line["decision"] == "refused");
    let rules: Vec<_> = refused.map(|line| line["rule"].clone()).collect();
    assert_eq!(rules, ["recipient", "contract", "value", "contract"]);
}

#[tokio::test]
async fn a_periods_spending_survives_a_restart() {
    let mut world = World::start().await;
    let operator = world.operator().await;
    for n in 0..2 {
        let order = world.place(n, 4);
        operator.sign_transaction(request(&order)).await.expect("within the cap");
    }
    // The process dies in the middle of a line.
    world.stop().await;
    let mut journal = std::fs::read(world.journal()).expect("journal");
    journal.extend_from_slice(br#"{"time":"2027-01-15T08:00:00Z","caller":"#);
    std::fs::write(world.journal(), journal).expect("journal");
    world.restart().await;

    let third = world.place(2, 4);
    let Err(Error::Refused { refusal, what }) = operator.sign_transaction(request(&third)).await else {
        panic!("the third order is above the cap")
    };
    assert_eq!((what, refusal.rule.as_str()), ("placeOrder", "spend"));
    assert_eq!(refusal.value, "4 tokens, 12 with the rest of the period");
    // What was signed is signed again.
    let first = world.place(0, 4);
    assert!(operator.sign_transaction(request(&first)).await.is_ok());
    world.pass_time(86_401);
    assert!(operator.sign_transaction(request(&third)).await.is_ok(), "a new period");
    assert_eq!(world.lines().len(), 5);
}

#[tokio::test]
async fn a_check_adds_up_and_counts_nothing() {
    let world = World::start().await;
    let operator = world.operator().await;
    let orders: Vec<_> = (0..3).map(|n| world.place(n, 4)).collect();
    let requests: Vec<_> = orders.iter().map(request).collect();
    for _ in 0..2 {
        let refusals = operator.check(&requests).await.expect("judged");
        let rules: Vec<_> = refusals.iter().map(|refusal| refusal.as_ref().map(|r| r.rule.as_str())).collect();
        assert_eq!(rules, [None, None, Some("spend")]);
    }
    assert_eq!(std::fs::read(world.journal()).expect("journal"), b"");
}

#[tokio::test]
async fn a_changed_policy_counts_at_once_and_a_broken_one_signs_nothing() {
    let world = World::start().await;
    let operator = world.operator().await;
    let dear = world.place(0, 11);
    assert_eq!(rule(operator.sign_transaction(request(&dear)).await), "spend");
    world.set_policy("tokens: much");
    let outcome = operator.sign_transaction(request(&dear)).await;
    assert!(matches!(&outcome, Err(Error::Unreachable { reason, .. }) if reason.contains("policy")), "{outcome:?}");
    world.set_policy(&policy(CONTRACTS, "12"));
    assert!(operator.sign_transaction(request(&dear)).await.is_ok());
}

#[tokio::test]
async fn strangers_are_told_nothing() {
    let world = World::start().await;
    for token in ["user:system:serviceaccount:freehold-tenant:default", "forged"] {
        let outcome = world.client(token).await.err();
        assert!(matches!(outcome, Some(Error::Unauthorized { .. })), "{token}: {outcome:?}");
    }
    let outcome = world.client("broken").await.err();
    assert!(matches!(&outcome, Some(Error::Unreachable { .. })), "an API server that is away comes back: {outcome:?}");
    assert_eq!(std::fs::read(world.journal()).expect("journal"), b"");
}

async fn post(world: &World, path: &str, token: &str, body: Vec<u8>) -> (u16, Problem) {
    let client = reqwest::Client::builder().tls_certs_only(std::iter::empty()).build().expect("client");
    let request = client.post(format!("{}{path}", world.url())).bearer_auth(token).body(body);
    let response = request.send().await.expect("answer");
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    (status, response.json().await.expect("a problem document"))
}

#[tokio::test]
async fn what_cannot_be_read_is_a_problem_document() {
    let world = World::start().await;
    let operator = format!("user:{OPERATOR}");
    let void = transaction(Goal::Void { nonce: 3 }, 3, world.key.address(), vec![]);
    let mut unknown = serde_json::to_value(&void).expect("JSON");
    unknown["bytes"] = "0x1234".into();
    for (path, body, status, slug) in [
        ("/v1/transactions", b"{".to_vec(), 400, "malformed"),
        ("/v1/transactions", serde_json::to_vec(&unknown).expect("JSON"), 400, "malformed"),
        ("/v1/transactions", vec![b' '; (1 << 20) + 1], 413, "too-large"),
        // There is no way to have bytes signed.
        ("/v1/sign", b"0x1234".to_vec(), 404, "not-found"),
        ("/v1/address", vec![], 405, "method-not-allowed"),
    ] {
        let (found, problem) = post(&world, path, &operator, body).await;
        assert_eq!((found, problem.status), (status, status), "{path}: {problem:?}");
        assert_eq!(problem.kind, format!("https://freehold.dev/problems/{slug}"));
    }
    let (status, problem) = post(&world, "/v1/transactions", "forged", serde_json::to_vec(&void).expect("JSON")).await;
    assert_eq!((status, problem.kind.as_str()), (401, "https://freehold.dev/problems/unauthorized"));
}

/// The standard's own example of a keystore.
#[test]
fn a_keystore_opens_with_its_password_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let (keystore, password) = (folder.path().join("key.json"), folder.path().join("password"));
    let file = serde_json::json!({
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
            "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "kdf": "pbkdf2",
            "kdfparams": {
                "c": 262_144, "dklen": 32, "prf": "hmac-sha256",
                "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
            },
            "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3,
    });
    std::fs::write(&keystore, file.to_string()).expect("keystore");
    std::fs::write(&password, "testpassword\n").expect("password");
    let key = freehold_signer::open(&keystore, &password).expect("opens");
    let expected: B256 = "0x7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d".parse().expect("key");
    assert_eq!(key.to_bytes(), expected);
    std::fs::write(&password, "another").expect("password");
    let error = freehold_signer::open(&keystore, &password).expect_err("refused").to_string();
    assert!(error.contains("key.json") && !error.contains("another"), "{error}");
}
