use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use freehold_api::lease::LeasePhase;
use freehold_core::manifest::ManifestInput;
use freehold_core::result::ResultFile;
use freehold_core::wire::{CheckpointNote, LeaseReport};
use freehold_gateway::client::Source;
use freehold_gateway::courier::{FetchArgs, Processes, PublishArgs, WatchArgs, fetch, publish, watch};
use freehold_gateway::digest::Digest;
use reqwest::Method;
use tokio::sync::oneshot;

use crate::world::{World, input, noise, until};

const FETCH: FetchArgs = FetchArgs { seconds: 60, look_millis: 10 };
const WATCH: WatchArgs = WatchArgs { look_millis: 10, quiet_seconds: 1, last_seconds: 30 };
const PUBLISH: PublishArgs = PublishArgs { seconds: 60, wait_millis: 10 };

fn root(world: &World) -> PathBuf {
    let root = world.folder.path().join("pod");
    for folder in ["in", "out", "checkpoints"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    root
}

async fn report(world: &World) -> LeaseReport {
    world.client().status().await.unwrap()
}

async fn checkpoint(world: &World, step: u64, bytes: &[u8]) -> CheckpointNote {
    let digest = Digest::of(bytes);
    let note = CheckpointNote {
        step,
        sha256: digest.to_string(),
        size: bytes.len() as u64,
        file_name: format!("step-{step}.safetensors"),
    };
    let pod = world.courier_pod();
    pod.upload(&digest, &Source::Bytes(bytes.to_vec().into())).await.unwrap();
    pod.put(Method::POST, "/checkpoints", serde_json::to_vec(&note).unwrap().into()).await.unwrap();
    note
}

#[tokio::test]
async fn fetch_brings_the_task_and_waits_for_the_lease_to_start() {
    let mut world = World::start().await;
    let (data, old) = (noise(70_000), noise(300));
    let resume = ManifestInput { file_name: "step-5.safetensors".into(), ..input("checkpoint", &old) };
    let inputs = [input("dataset", &data), resume];
    let manifest = world.lease(&inputs);
    let root = root(&world);
    let pod = world.courier_pod();
    let (fetching, place) = (FETCH, root.clone());
    let running = tokio::spawn(async move { fetch(&pod, &place, &fetching).await });

    let client = world.client();
    client.put_manifest(manifest.clone().into()).await.unwrap();
    // The gateway may go away meanwhile.
    world.restart().await;
    client.upload_artifact(&inputs[0].sha256, &Source::Bytes(data.clone().into())).await.unwrap();
    client.upload_artifact(&inputs[1].sha256, &Source::Bytes(old.clone().into())).await.unwrap();
    until("the task is there", || async { root.join("task.json").exists() }).await;
    assert_eq!(std::fs::read(root.join("task.json")).unwrap(), manifest);
    assert_eq!(std::fs::read(root.join("in/dataset")).unwrap(), data);
    assert_eq!(std::fs::read(root.join("checkpoints/step-5.safetensors")).unwrap(), old);
    assert!(!root.join("in/checkpoint").exists());
    assert!(!running.is_finished(), "the lease has not started");
    world.enter(LeasePhase::Running);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_furthest_checkpoint_wins() {
    for (given, expected) in [(5, "step-9.safetensors"), (20, "step-20.safetensors")] {
        let world = World::start().await;
        let old = noise(300);
        let resume = ManifestInput { file_name: format!("step-{given}.safetensors"), ..input("checkpoint", &old) };
        let manifest = world.lease(std::slice::from_ref(&resume));
        let client = world.client();
        client.put_manifest(manifest.into()).await.unwrap();
        client.upload_artifact(&resume.sha256, &Source::Bytes(old.into())).await.unwrap();
        checkpoint(&world, 9, &noise(999)).await;
        world.enter(LeasePhase::Running);
        let root = root(&world);
        fetch(&world.courier_pod(), &root, &FETCH).await.unwrap();
        let found: Vec<_> =
            std::fs::read_dir(root.join("checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(found, [expected]);
    }
}

#[tokio::test]
async fn a_damaged_input_stops_the_pod_for_good() {
    let world = World::start().await;
    let data = noise(1000);
    let dataset = input("dataset", &data);
    let manifest = world.lease(std::slice::from_ref(&dataset));
    let client = world.client();
    client.put_manifest(manifest.into()).await.unwrap();
    client.upload_artifact(&dataset.sha256, &Source::Bytes(data.into())).await.unwrap();
    std::fs::write(world.artifact_file(&dataset.sha256), &noise(1001)[1..]).unwrap();
    let error = fetch(&world.courier_pod(), &root(&world), &FETCH).await.unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
}

#[tokio::test]
async fn a_fetch_that_waits_too_long_may_be_tried_again() {
    let mut world = World::start().await;
    world.lease(&[]);
    world.stop().await;
    let args = FetchArgs { seconds: 0, look_millis: 1 };
    let error = fetch(&world.courier_pod(), &root(&world), &args).await.unwrap_err();
    assert_eq!(error.exit_code(), 75, "{error}");
}

/// What the sidecar sees of the pod's processes: 0 none can be seen, 1 the trainer runs, 2 it has ended.
struct Trainer(Arc<AtomicU8>);

impl Processes for Trainer {
    fn others(&self) -> Option<bool> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            state => Some(state == 1),
        }
    }
}

struct Sidecar {
    stop: Option<oneshot::Sender<()>>,
    trainer: Arc<AtomicU8>,
    task: tokio::task::JoinHandle<Result<(), freehold_gateway::courier::Error>>,
}

fn sidecar(world: &World, trainer: u8) -> Sidecar {
    let (stop, stopped) = oneshot::channel::<()>();
    let trainer = Arc::new(AtomicU8::new(trainer));
    let (pod, root, seen) = (world.courier_pod(), root(world), Trainer(trainer.clone()));
    let task = tokio::spawn(async move {
        let stop = async {
            let _ = stopped.await;
        };
        watch(&pod, &root, &WATCH, stop, &seen).await
    });
    Sidecar { stop: Some(stop), trainer, task }
}

#[tokio::test]
async fn the_sidecar_reports_progress_and_stores_checkpoints() {
    let world = World::start().await;
    world.lease(&[]);
    let root = root(&world);
    let mut sidecar = sidecar(&world, 1);
    std::fs::write(root.join("progress.jsonl"), "junk\n{\"step\":3,\"steps\":10,\"loss\":0.5}\n").unwrap();
    until("progress arrives", || async { report(&world).await.progress.is_some_and(|line| line.step == 3) }).await;

    let first = noise(60_000);
    std::fs::write(root.join("checkpoints/.step-3.safetensors.tmp"), &first).unwrap();
    std::fs::rename(root.join("checkpoints/.step-3.safetensors.tmp"), root.join("checkpoints/step-3.safetensors"))
        .unwrap();
    until("the checkpoint is stored", || async { report(&world).await.checkpoints.len() == 1 }).await;
    let note = report(&world).await.checkpoints.remove(0);
    assert_eq!((note.step, note.file_name.as_str()), (3, "step-3.safetensors"));
    assert_eq!(note.sha256, Digest::of(&first).to_string());
    // A name without a number takes the step that was last reported.
    std::fs::write(root.join("checkpoints/last.pt"), noise(10)).unwrap();
    until("it has the step of the progress", || async {
        report(&world).await.checkpoints.last().is_some_and(|note| note.file_name == "last.pt" && note.step == 3)
    })
    .await;

    // Told to stop while the trainer still writes: it serves on.
    sidecar.stop.take().unwrap().send(()).unwrap();
    std::fs::write(root.join("progress.jsonl"), "{\"step\":9,\"steps\":10}\n").unwrap();
    until("it still serves", || async { report(&world).await.progress.is_some_and(|line| line.step == 9) }).await;
    assert!(!sidecar.task.is_finished());
    std::fs::write(root.join("checkpoints/step-10.safetensors"), noise(500)).unwrap();
    std::fs::write(root.join("progress.jsonl"), "{\"step\":9,\"steps\":10}\n{\"step\":10,\"steps\":10}\n").unwrap();
    sidecar.trainer.store(2, Ordering::SeqCst);
    sidecar.task.await.unwrap().unwrap();
    let last = report(&world).await;
    assert_eq!(last.progress.map(|line| line.step), Some(10));
    assert_eq!(last.checkpoints.last().map(|note| note.step), Some(10));
}

#[tokio::test]
async fn without_sight_of_processes_quiet_files_end_the_sidecar() {
    let world = World::start().await;
    world.lease(&[]);
    let root = root(&world);
    let mut sidecar = sidecar(&world, 0);
    sidecar.stop.take().unwrap().send(()).unwrap();
    std::fs::write(root.join("checkpoints/step-1.bin"), noise(20)).unwrap();
    sidecar.task.await.unwrap().unwrap();
    assert_eq!(report(&world).await.checkpoints.len(), 1);
}

#[tokio::test]
async fn the_last_checkpoint_survives_a_gateway_that_is_away() {
    let mut world = World::start().await;
    world.lease(&[]);
    let root = root(&world);
    let mut sidecar = sidecar(&world, 1);
    world.stop().await;
    std::fs::write(root.join("checkpoints/step-7.bin"), noise(2000)).unwrap();
    sidecar.trainer.store(2, Ordering::SeqCst);
    sidecar.stop.take().unwrap().send(()).unwrap();
    world.restart().await;
    sidecar.task.await.unwrap().unwrap();
    assert_eq!(report(&world).await.checkpoints.first().map(|note| note.step), Some(7));
}

#[tokio::test]
async fn publish_delivers_through_an_outage() {
    let mut world = World::start().await;
    world.lease(&[]);
    let root = root(&world);
    std::fs::create_dir(root.join("out/plots")).unwrap();
    std::fs::write(root.join("out/model.safetensors"), noise(90_000)).unwrap();
    std::fs::write(root.join("out/plots/loss.csv"), "1,0.5\n").unwrap();
    std::fs::write(root.join("out/empty"), "").unwrap();
    std::fs::write(root.join("out/metrics.json"), r#"{"metrics":{"accuracy":0.975}}"#).unwrap();
    world.stop().await;
    let (pod, place) = (world.courier_pod(), root.clone());
    let running = tokio::spawn(async move { publish(&pod, &place, &PUBLISH).await });
    // Long enough to be refused a few times.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!running.is_finished());
    world.restart().await;
    running.await.unwrap().unwrap();

    let sha256 = report(&world).await.result.unwrap();
    let file = ResultFile::parse(&world.client().read_artifact(&sha256, 1 << 16).await.unwrap()).unwrap();
    let names: Vec<&str> = file.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["empty", "metrics.json", "model.safetensors", "plots/loss.csv"]);
    assert_eq!(file.metrics.get("accuracy").map(String::as_str), Some("0.975"));
    let to = world.folder.path().join("model");
    let model = &file.outputs[2];
    assert_eq!(world.client().download_artifact(&model.sha256, model.size, &to).await.unwrap(), 90_000);
    assert_eq!(std::fs::read(to).unwrap(), noise(90_000));
    // Run again, it finds everything held.
    publish(&world.courier_pod(), &root, &PUBLISH).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_delivered_is_bad_data_or_worth_another_try() {
    let mut world = World::start().await;
    world.lease(&[]);
    let root = root(&world);
    std::os::unix::fs::symlink("/etc/passwd", root.join("out/link")).unwrap();
    let error = publish(&world.courier_pod(), &root, &PUBLISH).await.unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    std::fs::remove_file(root.join("out/link")).unwrap();
    std::fs::write(root.join("out/huge"), vec![0; crate::world::QUOTA as usize + 1]).unwrap();
    let error = publish(&world.courier_pod(), &root, &PUBLISH).await.unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    std::fs::remove_file(root.join("out/huge")).unwrap();
    world.stop().await;
    let error = publish(&world.courier_pod(), &root, &PublishArgs { seconds: 0, wait_millis: 10 }).await.unwrap_err();
    assert_eq!(error.exit_code(), 75, "{error}");
}
