use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use freehold_api::lease::{Exit, LeasePhase};
use freehold_core::access::{Claims, Expected, MAX_LIFE, Scope, scopes, verify};
use freehold_core::wire::Problem;
use freehold_core::{Address, B256};
use freehold_gateway::client::Error;
use freehold_gateway::gateway::Side;
use freehold_gateway::leases::{Lease, Leases};
use freehold_gateway::{public, work};
use proptest::prelude::*;

use crate::world::{NOW, OPERATOR, World, input, market, order};

struct Answer {
    status: u16,
    problem: Problem,
}

async fn ask(world: &World, method: &str, path: &str, authorization: Option<&str>) -> Answer {
    let mut request = warp::test::request().method(method).path(path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let response = request.reply(&public::routes(world.gateway.clone())).await;
    let problem: Problem = serde_json::from_slice(response.body()).unwrap_or_default();
    if response.status().as_u16() >= 400 && method != "HEAD" {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(problem.status, response.status().as_u16());
    }
    Answer { status: response.status().as_u16(), problem }
}

fn status_path() -> String {
    format!("/v1/leases/{}/status", order())
}

#[tokio::test]
async fn every_fault_of_a_token_is_told() {
    let world = World::start().await;
    world.lease(&[]);
    let good = world.claims(&[Scope::Read]);
    assert_eq!(ask(&world, "GET", &status_path(), Some(&world.wallet.header(&good))).await.status, 200);

    let other = |change: &dyn Fn(&mut Claims)| {
        let mut claims = good.clone();
        change(&mut claims);
        world.wallet.header(&claims)
    };
    let cases: Vec<(u16, &str, String)> = vec![
        (401, "is for lease", other(&|c| c.lease = B256::repeat_byte(9))),
        (401, "is for host `elsewhere.example.org`", other(&|c| c.host = "elsewhere.example.org".into())),
        (401, "expired", other(&|c| c.expiry = NOW)),
        (401, "sign a shorter one", other(&|c| c.expiry = NOW + MAX_LIFE + 1)),
        (403, "do not hold `read`", other(&|c| c.scopes = scopes(&[Scope::Logs, Scope::Write]))),
        (401, "not a sorted list", other(&|c| c.scopes = "write read".into())),
        (403, "was signed by", crate::world::Wallet::new(8).header(&good)),
        (401, "must be `Freehold", "Bearer abc".into()),
        (401, "must be `Freehold", "Freehold e30.AAAA".into()),
        (401, "must be `Freehold", format!("Freehold {}", "A".repeat(5000))),
    ];
    for (status, said, header) in cases {
        let answer = ask(&world, "GET", &status_path(), Some(&header)).await;
        let detail = answer.problem.detail.unwrap_or_default();
        assert_eq!(answer.status, status, "{detail}");
        assert!(detail.contains(said), "`{detail}` should hold `{said}`");
    }
    assert_eq!(ask(&world, "GET", &status_path(), None).await.status, 401);

    // Either of the gateway's names will do, in any case of letters.
    let by_name = other(&|c| c.host = "Gateway.Example.org".into());
    assert_eq!(ask(&world, "GET", &status_path(), Some(&by_name)).await.status, 200);
    // The same token is worth nothing once it has run out.
    world.pass_time(400);
    assert_eq!(ask(&world, "GET", &status_path(), Some(&world.wallet.header(&good))).await.status, 401);
}

#[tokio::test]
async fn a_token_of_another_market_or_chain_is_refused() {
    let world = World::start().await;
    world.lease(&[]);
    let header = world.wallet.header(&world.claims(&[Scope::Read]));
    let lease = (*world.leases.get(order()).unwrap()).clone();
    world.leases.insert(Lease { market: Address::repeat_byte(1), ..lease.clone() });
    assert_eq!(ask(&world, "GET", &status_path(), Some(&header)).await.status, 403);
    world.leases.insert(Lease { chain_id: 1, market: market(), ..lease });
    assert_eq!(ask(&world, "GET", &status_path(), Some(&header)).await.status, 403);
}

#[tokio::test]
async fn unknown_leases_paths_and_methods() {
    let world = World::start().await;
    world.lease(&[]);
    let header = world.wallet.header(&world.claims(&[Scope::Read]));
    for path in [
        format!("/v1/leases/{}/status", B256::repeat_byte(1)),
        format!("/v1/leases/{}/status", hex::encode(order())),
        "/v1/leases/..%2f..%2fetc/status".into(),
        "/v1/nothing".into(),
        "/".into(),
    ] {
        assert_eq!(ask(&world, "GET", &path, Some(&header)).await.status, 404, "{path}");
    }
    assert_eq!(ask(&world, "DELETE", &status_path(), Some(&header)).await.status, 405);
    let odd = format!("/v1/leases/{}/artifacts/{}", order(), "Z".repeat(64));
    assert_eq!(ask(&world, "GET", &odd, Some(&header)).await.status, 400);
}

#[tokio::test]
async fn the_public_address_says_that_it_is_alive() {
    let world = World::start().await;
    assert_eq!(ask(&world, "GET", "/healthz", None).await.status, 200);
}

#[tokio::test]
async fn no_lease_is_unknown_before_all_were_listed() {
    let mut world = World::start().await;
    let header = world.wallet.header(&world.claims(&[Scope::Read]));
    assert_eq!(ask(&world, "GET", &status_path(), Some(&header)).await.status, 404);
    world.leases = Arc::new(Leases::default());
    world.restart().await;
    assert_eq!(ask(&world, "GET", &status_path(), Some(&header)).await.status, 503);
}

#[tokio::test]
async fn too_many_requests_are_slowed() {
    let world = World::start().await;
    world.lease(&[]);
    let header = world.wallet.header(&world.claims(&[Scope::Read]));
    // Strangers and pods do not use up what is the tenant's.
    let forged = crate::world::Wallet::new(8).header(&world.claims(&[Scope::Read]));
    assert_eq!(ask(&world, "GET", &status_path(), Some(&forged)).await.status, 403);
    for _ in 0..100_000 {
        world.gateway.count(order(), Side::Pods).unwrap();
    }
    for _ in 0..99_999 {
        world.gateway.count(order(), Side::Tenant).unwrap();
    }
    assert_eq!(ask(&world, "GET", &status_path(), Some(&header)).await.status, 200);
    assert_eq!(ask(&world, "GET", &status_path(), Some(&header)).await.status, 429);
    world.pass_time(1);
    assert_eq!(ask(&world, "GET", &status_path(), Some(&header)).await.status, 200);
}

#[tokio::test]
async fn only_the_manifest_of_the_order_is_taken() {
    let world = World::start().await;
    let manifest = world.lease(&[input("dataset", b"1,2\n")]);
    let client = world.client();
    let before = client.status().await.unwrap();
    assert_eq!((before.manifest_held, before.missing_inputs.as_slice()), (false, &["dataset".to_owned()][..]));

    let mut forged = manifest.clone();
    forged.push(b' ');
    match client.put_manifest(forged.clone().into()).await {
        Err(Error::Answer { status: 422, slug, detail }) => {
            assert_eq!(slug, "digest-mismatch");
            let (ours, theirs) = (sha(&manifest), sha(&forged));
            assert!(detail.contains(&ours) && detail.contains(&theirs), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    let huge = vec![b' '; 300 * 1024];
    assert!(matches!(client.put_manifest(huge.into()).await, Err(Error::Answer { status: 413, .. })));

    client.put_manifest(manifest.clone().into()).await.unwrap();
    client.put_manifest(manifest.into()).await.unwrap();
    let after = client.status().await.unwrap();
    assert_eq!((after.manifest_held, after.phase.as_str()), (true, "AwaitingInputs"));
    let events = client.events().await.unwrap();
    let reasons: Vec<&str> = events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["ManifestReceived"]);
    assert_eq!(events[0].at, "2027-01-15T08:00:00Z");
}

#[tokio::test]
async fn a_manifest_with_other_inputs_than_the_order_is_refused() {
    let world = World::start().await;
    let manifest = world.lease(&[input("dataset", b"1,2\n")]);
    let lease = (*world.leases.get(order()).unwrap()).clone();
    world.leases.insert(Lease { inputs: Vec::new(), ..lease });
    match world.client().put_manifest(manifest.into()).await {
        Err(Error::Answer { status: 422, slug, .. }) => assert_eq!(slug, "other-inputs"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn how_the_trainer_ended_is_passed_on() {
    let world = World::start().await;
    world.lease(&[]);
    let lease = (*world.leases.get(order()).unwrap()).clone();
    let exit = |code, reason: &str| Some(Exit { code, reason: reason.into(), message: None, failures: 1 });
    world.leases.insert(Lease { exit: exit(65, "BadData"), phase: LeasePhase::Failed, ..lease.clone() });
    let report = world.client().status().await.unwrap();
    assert_eq!((report.phase.as_str(), report.exit.map(|e| (e.code, e.terminal))), ("Failed", Some((65, true))));
    world.leases.insert(Lease { exit: exit(137, "OutOfMemory"), phase: LeasePhase::Failed, ..lease });
    assert_eq!(world.client().status().await.unwrap().exit.map(|e| e.terminal), Some(false));
}

#[tokio::test]
async fn pods_and_operator_are_told_apart() {
    let world = World::start().await;
    world.lease(&[]);
    let path = format!("/v1/work/{}", order());
    let ask = |token: &'static str, method: &'static str, path: String| {
        let routes = work::routes(world.gateway.clone());
        async move {
            let request = warp::test::request().method(method).path(&path).body("hello\n");
            request.header("authorization", format!("Bearer {token}")).reply(&routes).await.status().as_u16()
        }
    };
    let pod = "user:system:serviceaccount:fh-lease-1:courier";
    let operator: &'static str = Box::leak(format!("user:{OPERATOR}").into_boxed_str());
    assert_eq!(ask(pod, "GET", path.clone()).await, 200);
    assert_eq!(ask(operator, "GET", path.clone()).await, 200);
    assert_eq!(ask("user:system:serviceaccount:fh-lease-2:courier", "GET", path.clone()).await, 403);
    assert_eq!(ask("user:system:serviceaccount:fh-lease-1:default", "GET", path.clone()).await, 403);
    assert_eq!(ask("nobody", "GET", path.clone()).await, 401);
    assert_eq!(ask("broken", "GET", path.clone()).await, 503);
    assert_eq!(ask(pod, "POST", format!("{path}/logs")).await, 403);
    assert_eq!(ask(operator, "POST", format!("{path}/logs")).await, 204);
    assert_eq!(ask(pod, "POST", format!("{path}/progress")).await, 400);
    assert_eq!(ask(pod, "POST", format!("{path}/other")).await, 404);
}

fn sha(bytes: &[u8]) -> String {
    freehold_core::canonical::sha256_hex(bytes)
}

proptest! {
    #[test]
    fn no_header_makes_verifying_panic_or_succeed(garbage in ".{0,200}", claims in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
        let expected = Expected {
            lease: order(),
            host: "gateway.example.org",
            scope: Scope::Read,
            tenant: Address::ZERO,
            chain_id: 1,
            market: market(),
            now: NOW,
        };
        let near = format!("Freehold {}.{}", BASE64.encode(&claims), BASE64.encode(&signature));
        for header in [garbage.clone(), format!("Freehold {garbage}"), near] {
            prop_assert!(verify(&header, &expected).is_err());
        }
    }

    #[test]
    fn no_signature_but_the_tenants_will_do(signature in proptest::array::uniform32(any::<u8>()), v in any::<u8>(), expiry: u64) {
        let claims = Claims { lease: order(), host: "h".into(), scopes: "read".into(), expiry };
        let bytes: Vec<u8> = signature.iter().chain(&signature).copied().chain([v]).collect();
        let expected = Expected {
            lease: order(), host: "h", scope: Scope::Read, tenant: Address::ZERO, chain_id: 1, market: market(), now: NOW,
        };
        prop_assert!(verify(&claims.header(&bytes).unwrap(), &expected).is_err());
    }
}
