use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use freehold_core::manifest::ManifestInput;
use freehold_gateway::address::{Policy, Refused};
use freehold_gateway::client::{Error, GatewayClient};
use freehold_gateway::serve;
use freehold_gateway::slots::Slots;
use tokio::net::TcpListener;
use tokio::sync::watch;
use warp::{Filter, Reply};

use crate::world::{World, input, noise, order, until};

/// A server of data sets: `/data` has bytes, `/moved` points to them, `/endless` never stops.
async fn server(data: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plain = warp::path("data").map(move || -> warp::reply::Response { data.clone().into_response() });
    let moved = warp::path("moved").map(|| -> warp::reply::Response {
        let see = warp::reply::with_header(warp::reply(), "location", "/data");
        warp::reply::with_status(see, http::StatusCode::FOUND).into_response()
    });
    let endless = warp::path("endless").map(|| -> warp::reply::Response {
        let stream = futures::stream::repeat_with(|| Ok::<_, Infallible>(bytes::Bytes::from(vec![0; 65536])));
        warp::reply::stream(stream).into_response()
    });
    let routes = plain.or(moved).unify().or(endless).unify().boxed();
    tokio::spawn(async move {
        let (_going, stopped) = watch::channel(false);
        serve::serve(listener, routes, Slots::new(16, 16), stopped).await;
    });
    address
}

fn here() -> Policy {
    Policy { allowed: vec!["127.0.0.0/8".parse().unwrap()], refused: Vec::new() }
}

fn from(uri: String, bytes: &[u8]) -> ManifestInput {
    ManifestInput { uri: Some(uri), ..input("dataset", bytes) }
}

async fn error_of(world: &World) -> String {
    let client = world.client();
    until("the error is reported", || async { !client.status().await.unwrap().input_errors.is_empty() }).await;
    let report = client.status().await.unwrap();
    assert_eq!(report.missing_inputs, Vec::<String>::new(), "the tenant has nothing to upload");
    report.input_errors["dataset"].clone()
}

#[tokio::test]
async fn an_input_with_a_url_is_fetched_from_an_allowed_block() {
    let world = World::start().await;
    let data = noise(50_000);
    let dataset = from(format!("http://{}/data", server(data.clone()).await), &data);
    let manifest = world.lease(std::slice::from_ref(&dataset));
    world.fetch_inputs(here());
    world.client().put_manifest(manifest.into()).await.unwrap();
    let pod = world.courier_pod();
    until("the input is held", || async {
        let report: freehold_core::wire::WorkReport = pod.json("", freehold_core::access::Scope::Read).await.unwrap();
        report.missing_inputs.is_empty() && report.manifest_held
    })
    .await;
    assert_eq!(std::fs::read(world.artifact_file(&dataset.sha256)).unwrap(), data);
    until("it is told", || async {
        world.client().events().await.unwrap().iter().any(|event| event.reason == "InputFetched")
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_had_is_told_with_a_reason() {
    let data = noise(1000);
    let address = server(data.clone()).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let other = vec![9; 1000];
    let cases = [
        (format!("http://{address}/data"), &data, Policy::default(), "AddressRefused: "),
        (format!("https://localhost:{}/data", address.port()), &data, Policy::default(), "AddressRefused: "),
        ("https://169.254.169.254/latest/meta-data".into(), &data, here(), "AddressRefused: "),
        ("ftp://example.org/x".into(), &data, here(), "AddressRefused: "),
        ("not a url".into(), &data, here(), "AddressRefused: "),
        (format!("http://{address}/moved"), &data, here(), "DatasetUnreachable: "),
        (format!("http://{address}/none"), &data, here(), "DatasetUnreachable: "),
        (format!("http://{closed}/data"), &data, here(), "DatasetUnreachable: "),
        (format!("http://{address}/data"), &other, here(), "DigestMismatch: "),
        (format!("http://{address}/endless"), &data, here(), "TooLarge: "),
    ];
    for (uri, promised, policy, prefix) in cases {
        let world = World::start().await;
        let dataset = from(uri.clone(), promised);
        let manifest = world.lease(std::slice::from_ref(&dataset));
        world.fetch_inputs(policy);
        world.client().put_manifest(manifest.into()).await.unwrap();
        let told = error_of(&world).await;
        assert!(told.starts_with(prefix), "{uri}: {told}");
        assert!(!world.artifact_file(&dataset.sha256).exists());
        if prefix.starts_with("DigestMismatch") {
            assert!(told.contains(&dataset.sha256) && told.contains(input("x", &data).sha256.as_str()), "{told}");
        }
        until("it is told once", || async {
            let events = world.client().events().await.unwrap();
            events.iter().filter(|event| event.reason == "InputFetchFailed").count() == 1
        })
        .await;
    }
}

#[tokio::test]
async fn sending_the_manifest_again_asks_for_another_try() {
    let data = noise(100);
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let world = World::start().await;
    let dataset = from(format!("http://{address}/data"), &data);
    let manifest = world.lease(std::slice::from_ref(&dataset));
    world.fetch_inputs(here());
    world.client().put_manifest(manifest.clone().into()).await.unwrap();
    error_of(&world).await;
    // The clock stands still, so without being asked the gateway would not try again.
    let listener = TcpListener::bind(address).await.unwrap();
    let routes = warp::path("data").map(move || -> warp::reply::Response { data.clone().into_response() }).boxed();
    tokio::spawn(async move {
        let (_going, stopped) = watch::channel(false);
        serve::serve(listener, routes, Slots::new(16, 16), stopped).await;
    });
    world.client().put_manifest(manifest.into()).await.unwrap();
    until("the input is held", || async { world.artifact_file(&dataset.sha256).exists() }).await;
    until("the error is gone", || async { world.client().status().await.unwrap().input_errors.is_empty() }).await;
}

#[tokio::test]
async fn tenants_call_public_gateways_only() {
    let world = World::start().await;
    world.lease(&[]);
    let client =
        |url: String, policy: &Policy| GatewayClient::new(&url, order(), world.wallet.clone(), world.clock(), policy);
    let refused = client(format!("http://{}", world.public), &Policy::default()).err();
    assert!(matches!(refused, Some(Error::Refused(Refused::Address { .. }))), "{refused:?}");
    let refused = client("http://gateway.example.org".into(), &Policy::default()).err();
    assert!(matches!(refused, Some(Error::Refused(Refused::Plain { .. }))), "{refused:?}");
    assert!(client("nonsense".into(), &here()).is_err());

    // A name is judged by what it resolves to.
    let other: Policy = Policy { allowed: vec!["192.0.2.0/24".parse().unwrap()], refused: Vec::new() };
    let by_name = client(format!("http://localhost:{}", world.public.port()), &other).unwrap().status().await;
    assert!(matches!(by_name, Err(Error::Refused(Refused::Address { .. }))), "{by_name:?}");
}

#[tokio::test]
async fn a_gateway_that_redirects_or_floods_is_not_believed() {
    let world = World::start().await;
    let address = server(noise(10)).await;
    let client = |path: &str| {
        let url = format!("http://{address}/{path}");
        GatewayClient::new(&url, order(), world.wallet.clone(), world.clock(), &here()).unwrap()
    };
    let moved = client("moved").status().await;
    assert!(matches!(&moved, Err(Error::Malformed(why)) if why.contains("redirect")), "{moved:?}");
    assert!(matches!(client("endless").status().await, Err(Error::TooLarge { .. })));
    assert!(matches!(client("data").status().await, Err(Error::Malformed(_))));
    let to = world.folder.path().join("file");
    let sha256 = input("x", b"x").sha256;
    let flood = client("endless").download_artifact(&sha256, 1 << 20, &to).await;
    assert!(matches!(flood, Err(Error::TooLarge { .. })), "{flood:?}");
    let wrong = client("data").download_artifact(&sha256, 1 << 20, &to).await;
    assert!(wrong.unwrap_err().is_digest_mismatch());
    assert!(!to.exists());
    let _keep = Arc::new(world);
}
