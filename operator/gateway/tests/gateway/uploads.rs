use std::io::{Read, Write};
use std::net::TcpStream;

use freehold_api::lease::LeasePhase;
use freehold_core::access::Scope;
use freehold_core::result::{OutputFile, ResultFile};
use freehold_core::wire::CheckpointNote;
use freehold_gateway::client::{Error, Source};
use freehold_gateway::digest::Digest;
use freehold_gateway::{janitor, public};
use reqwest::Method;

use crate::world::{NOW, QUOTA, World, input, noise, order, until};

/// Sends the head of an upload and only some of its bytes, then hangs up.
fn send_part(world: &World, digest: &str, total: usize, bytes: &[u8]) {
    let token = world.wallet.header(&world.claims(&[Scope::Read, Scope::Write]));
    let mut stream = TcpStream::connect(world.public).unwrap();
    let head = format!(
        "PUT /v1/leases/{}/artifacts/{digest} HTTP/1.1\r\nhost: {}\r\nauthorization: {token}\r\n\
         content-range: bytes 0-{}/{total}\r\ncontent-length: {total}\r\n\r\n",
        order(),
        world.public,
        total - 1,
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

async fn offset(world: &World, digest: &str) -> u64 {
    world.gateway.store.offset(order(), &digest.parse().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_cut_goes_on_where_it_stopped() {
    let mut world = World::start().await;
    let data = noise(100_000);
    let dataset = input("dataset", &data);
    world.lease(std::slice::from_ref(&dataset));
    tokio::task::block_in_place(|| send_part(&world, &dataset.sha256, data.len(), &data[..40_000]));
    until("the bytes that came are kept", || async { offset(&world, &dataset.sha256).await == 40_000 }).await;
    assert!(!world.artifact_file(&dataset.sha256).exists());

    // Not even a restart loses them.
    world.restart().await;
    assert_eq!(offset(&world, &dataset.sha256).await, 40_000);
    let client = world.client().with_chunk(25_000);
    client.upload_artifact(&dataset.sha256, &Source::Bytes(data.clone().into())).await.unwrap();
    assert_eq!(std::fs::read(world.artifact_file(&dataset.sha256)).unwrap(), data);
    assert_eq!(client.status().await.unwrap().missing_inputs, Vec::<String>::new());
    // Sent again, it is held already.
    client.upload_artifact(&dataset.sha256, &Source::Bytes(data.into())).await.unwrap();
    assert_eq!(offset(&world, &dataset.sha256).await, 0, "pieces are gone");
}

#[tokio::test]
async fn a_chunk_elsewhere_than_at_the_end_is_told_where_that_is() {
    let world = World::start().await;
    let dataset = input("dataset", &noise(100));
    world.lease(std::slice::from_ref(&dataset));
    let path = format!("/v1/leases/{}/artifacts/{}", order(), dataset.sha256);
    let token = world.wallet.header(&world.claims(&[Scope::Read, Scope::Write]));
    let put = |range: &'static str, length: usize| {
        let request = warp::test::request().method("PUT").path(&path).header("authorization", &token);
        let request = request.header("content-range", range).body(&noise(100)[..length]);
        let routes = public::routes(world.gateway.clone());
        async move { request.reply(&routes).await }
    };
    let first = put("bytes 0-9/100", 10).await;
    assert_eq!((first.status().as_u16(), first.headers()["upload-offset"].to_str().unwrap()), (202, "10"));
    let gap = put("bytes 20-29/100", 10).await;
    assert_eq!((gap.status().as_u16(), gap.headers()["upload-offset"].to_str().unwrap()), (409, "10"));
    assert_eq!(put("bytes 10-5/100", 10).await.status(), 400);
    assert_eq!(put("bytes 10-19/200", 10).await.status(), 422, "another size than the order's");
    assert_eq!(put("bytes 10-67108874/67108875", 10).await.status(), 413, "a chunk of more than 64 MiB");
    let long = put("bytes 10-14/100", 10).await;
    assert_eq!(long.status(), 413, "more bytes than announced");
    let head = warp::test::request().method("HEAD").path(&path).header("authorization", &token);
    let head = head.reply(&public::routes(world.gateway.clone())).await;
    assert_eq!((head.status().as_u16(), head.headers()["upload-offset"].to_str().unwrap()), (204, "10"));
}

#[tokio::test]
async fn a_wrong_digest_discards_the_upload_and_names_both() {
    let world = World::start().await;
    let (promised, sent) = (noise(1000), vec![7; 1000]);
    let dataset = input("dataset", &promised);
    world.lease(std::slice::from_ref(&dataset));
    let error = world.client().upload_artifact(&dataset.sha256, &Source::Bytes(sent.clone().into())).await.unwrap_err();
    assert!(error.is_digest_mismatch() && !error.is_transient());
    let said = error.to_string();
    assert!(said.contains(&dataset.sha256) && said.contains(Digest::of(&sent).as_str()), "{said}");
    assert_eq!(offset(&world, &dataset.sha256).await, 0);
    assert!(!world.artifact_file(&dataset.sha256).exists());
    world.client().upload_artifact(&dataset.sha256, &Source::Bytes(promised.into())).await.unwrap();
}

#[tokio::test]
async fn tenants_upload_inputs_only() {
    let world = World::start().await;
    world.lease(&[]);
    let other = noise(10);
    match world.client().upload_artifact(Digest::of(&other).as_str(), &Source::Bytes(other.into())).await {
        Err(Error::Answer { status: 422, slug, .. }) => assert_eq!(slug, "not-an-input"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lease_holds_no_more_than_its_quota() {
    let world = World::start().await;
    world.lease(&[]);
    let pod = world.courier_pod();
    let (half, rest, empty) = (noise(QUOTA as usize * 2 / 3), vec![1; QUOTA as usize / 2], Vec::new());
    pod.upload(&Digest::of(&half), &Source::Bytes(half.clone().into())).await.unwrap();
    match pod.upload(&Digest::of(&rest), &Source::Bytes(rest.into())).await {
        Err(Error::Answer { status: 413, slug, .. }) => assert_eq!(slug, "quota-exceeded"),
        other => panic!("{other:?}"),
    }
    // More than sockets buffer: the answer comes while the sender is still sending.
    let huge = vec![2; QUOTA as usize + (8 << 20)];
    let refused = pod.upload(&Digest::of(&huge), &Source::Bytes(huge.into())).await;
    assert!(matches!(refused, Err(Error::Answer { status: 413, .. })), "{refused:?}");
    // Nothing at all still fits.
    pod.upload(&Digest::of(&empty), &Source::Bytes(empty.into())).await.unwrap();
}

#[tokio::test]
async fn artifacts_are_served_in_parts() {
    let world = World::start().await;
    let data = noise(1000);
    let dataset = input("dataset", &data);
    world.lease(std::slice::from_ref(&dataset));
    world.client().upload_artifact(&dataset.sha256, &Source::Bytes(data.clone().into())).await.unwrap();
    let path = format!("/v1/leases/{}/artifacts/{}", order(), dataset.sha256);
    let token = world.wallet.header(&world.claims(&[Scope::Read]));
    let get = |method: &'static str, range: Option<&'static str>| {
        let mut request = warp::test::request().method(method).path(&path).header("authorization", &token);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let routes = public::routes(world.gateway.clone());
        async move { request.reply(&routes).await }
    };
    let whole = get("GET", None).await;
    assert_eq!((whole.status().as_u16(), &whole.body()[..]), (200, &data[..]));
    assert_eq!(whole.headers()["etag"].to_str().unwrap(), format!("\"{}\"", dataset.sha256));
    let middle = get("GET", Some("bytes=10-19")).await;
    assert_eq!((middle.status().as_u16(), &middle.body()[..]), (206, &data[10..20]));
    assert_eq!(middle.headers()["content-range"], "bytes 10-19/1000");
    assert_eq!(get("GET", Some("bytes=-1")).await.body()[..], data[999..]);
    let beyond = get("GET", Some("bytes=1000-")).await;
    assert_eq!((beyond.status().as_u16(), beyond.headers()["content-range"].to_str().unwrap()), (416, "bytes */1000"));
    assert_eq!(get("GET", Some("bytes=0-1,5-6")).await.status(), 200, "several ranges: the whole");
    let head = get("HEAD", None).await;
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "1000"));
    assert_eq!(head.headers()["upload-offset"], "1000");

    // A download goes on from what came before, and notices what was changed meanwhile.
    let to = world.folder.path().join("copy");
    let part = freehold_gateway::transfer::part_of(&to);
    std::fs::write(&part, &data[..600]).unwrap();
    assert_eq!(world.client().download_artifact(&dataset.sha256, 1000, &to).await.unwrap(), 1000);
    assert_eq!(std::fs::read(&to).unwrap(), data);
    std::fs::write(&part, vec![0; 600]).unwrap();
    assert!(world.client().download_artifact(&dataset.sha256, 1000, &to).await.unwrap_err().is_digest_mismatch());
    assert!(!part.exists());
    std::fs::write(&part, &data).unwrap();
    assert_eq!(world.client().download_artifact(&dataset.sha256, 1000, &to).await.unwrap(), 1000);
    let small = world.client().download_artifact(&dataset.sha256, 999, &to).await;
    assert!(matches!(small, Err(Error::TooLarge { limit: 999, .. })));
    assert!(matches!(world.client().read_artifact(&dataset.sha256, 10).await, Err(Error::TooLarge { .. })));
}

async fn store_checkpoint(world: &World, step: u64) -> CheckpointNote {
    let bytes = noise(1000 + step as usize);
    let note = CheckpointNote {
        step,
        sha256: Digest::of(&bytes).to_string(),
        size: bytes.len() as u64,
        file_name: format!("step-{step}.safetensors"),
    };
    let pod = world.courier_pod();
    pod.upload(&note.sha256.parse().unwrap(), &Source::Bytes(bytes.into())).await.unwrap();
    let body = serde_json::to_vec(&note).unwrap();
    pod.put(Method::POST, "/checkpoints", body.into()).await.unwrap();
    note
}

#[tokio::test]
async fn the_newest_two_checkpoints_are_kept_over_a_restart() {
    let mut world = World::start().await;
    world.lease(&[]);
    let first = store_checkpoint(&world, 10).await;
    let second = store_checkpoint(&world, 20).await;
    let third = store_checkpoint(&world, 30).await;
    assert!(!world.artifact_file(&first.sha256).exists());
    world.restart().await;
    assert_eq!(world.client().status().await.unwrap().checkpoints, [second.clone(), third]);
    assert!(world.artifact_file(&second.sha256).exists());

    let unheld = CheckpointNote { sha256: "0".repeat(64), ..second.clone() };
    let odd = CheckpointNote { file_name: "../x".into(), ..second.clone() };
    let spaced = CheckpointNote { file_name: "step 20.pt".into(), ..second };
    for (note, status) in [(unheld, 409), (odd, 400), (spaced, 400)] {
        let body = serde_json::to_vec(&note).unwrap();
        let refused = world.courier_pod().put(Method::POST, "/checkpoints", body.into()).await;
        assert!(matches!(refused, Err(Error::Answer { status: found, .. }) if found == status), "{refused:?}");
    }
}

#[tokio::test]
async fn a_result_needs_every_output_and_then_stays() {
    let mut world = World::start().await;
    world.lease(&[]);
    let model = noise(500);
    let digest = Digest::of(&model);
    let output = OutputFile { name: "model.safetensors".into(), sha256: digest.to_string(), size: 500 };
    let file = ResultFile { outputs: vec![output], ..Default::default() };
    let bytes = file.to_bytes().unwrap();
    let pod = world.courier_pod();
    match pod.put(Method::POST, "/result", bytes.clone().into()).await {
        Err(error @ Error::Answer { status: 409, .. }) => {
            assert!(error.is_transient() && error.to_string().contains("model.safetensors"));
        }
        other => panic!("{other:?}"),
    }
    pod.upload(&digest, &Source::Bytes(model.into())).await.unwrap();
    pod.put(Method::POST, "/result", bytes.clone().into()).await.unwrap();
    world.enter(LeasePhase::Finished);
    world.restart().await;
    pod.put(Method::POST, "/result", bytes.clone().into()).await.unwrap();
    let other = ResultFile::default().to_bytes().unwrap();
    assert!(matches!(
        pod.put(Method::POST, "/result", other.into()).await,
        Err(Error::Answer { status: 409, slug, .. }) if slug == "result-fixed"
    ));
    let report = world.client().status().await.unwrap();
    let sha256 = Digest::of(&bytes).to_string();
    assert_eq!(report.result.as_deref(), Some(sha256.as_str()));
    assert_eq!(world.client().read_artifact(&sha256, 1 << 16).await.unwrap(), bytes);
}

#[tokio::test]
async fn what_is_held_of_a_lease_goes_a_week_after_it() {
    let world = World::start().await;
    let data = noise(100);
    let dataset = input("dataset", &data);
    world.lease(std::slice::from_ref(&dataset));
    world.client().upload_artifact(&dataset.sha256, &Source::Bytes(data.into())).await.unwrap();
    let lease = (*world.leases.get(order()).unwrap()).clone();
    world.leases.remove(order());
    janitor::pass(&world.gateway).await.unwrap();
    world.pass_time(6 * 86_400);
    janitor::pass(&world.gateway).await.unwrap();
    assert!(world.artifact_file(&dataset.sha256).exists());
    // A lease that comes back starts anew.
    world.leases.insert(lease);
    janitor::pass(&world.gateway).await.unwrap();
    world.leases.remove(order());
    world.pass_time(2 * 86_400);
    janitor::pass(&world.gateway).await.unwrap();
    assert!(world.artifact_file(&dataset.sha256).exists());
    world.pass_time(7 * 86_400);
    janitor::pass(&world.gateway).await.unwrap();
    assert!(!world.artifact_file(&dataset.sha256).exists());
    assert_eq!(world.gateway.store.leases().await.unwrap(), Vec::<freehold_core::B256>::new());
    assert!((world.clock())() > NOW);
}

#[tokio::test]
async fn files_of_a_killed_gateway_are_cleared() {
    let mut world = World::start().await;
    let data = noise(100);
    let dataset = input("dataset", &data);
    world.lease(std::slice::from_ref(&dataset));
    world.client().upload_artifact(&dataset.sha256, &Source::Bytes(data.into())).await.unwrap();
    let staged = world.artifact_file(&format!("{}#1", "a".repeat(64)));
    std::fs::write(&staged, "half").unwrap();
    world.restart().await;
    assert!(!staged.exists());
    assert!(world.artifact_file(&dataset.sha256).exists());
}
