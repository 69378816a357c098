//! Passes against an API server of a few lines: what is written, in which
//! order, and what a crash between two writes leaves behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use freehold_api::labels;
use freehold_api::{ChainTransaction, ComputeAccount, ComputeBudget, TrainingTask};
use freehold_chain::view::ChainView;
use freehold_core::canonical::sha256_hex;
use freehold_core::money::{Amount, Rate};
use freehold_core::order::{Order, OrderSlot, OrderState};
use freehold_core::wire::LeaseReport;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::world::{self, World};
use crate::context::{Clock, Context, Roles, Settings};
use crate::task::gateways::{self, Gateways, Lease};
use crate::task::stored::name_of;
use crate::task::{Shared, caches, reconcile};

const RELEASE: &str = "freehold-tenant";

/// Objects by path; enough of the API's manners for one controller.
#[derive(Clone, Default)]
struct Cluster {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// `METHOD path` of every write.
    writes: Arc<Mutex<Vec<String>>>,
    /// The next write whose line holds this text fails once.
    fail: Arc<Mutex<Option<String>>>,
}

impl Cluster {
    fn client(&self) -> kube::Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let cluster = cluster.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let kind =
                    parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
                let (status, answer) = cluster.answer(parts.method.as_str(), parts.uri.path(), &kind, body);
                let bytes = serde_json::to_vec(&answer).expect("JSON");
                Ok::<_, std::convert::Infallible>(
                    http::Response::builder().status(status).body(Body::from(bytes)).expect("a response"),
                )
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, method: &str, path: &str, kind: &str, body: Value) -> (u16, Value) {
        if method != "GET" {
            let line = format!("{method} {path}");
            let mut fail = self.fail.lock().expect("lock");
            if fail.as_ref().is_some_and(|text| line.contains(text.as_str())) {
                *fail = None;
                return refusal(500, "InternalError");
            }
            self.writes.lock().expect("lock").push(line);
        }
        if path.contains("/events") {
            return (201, body);
        }
        let mut objects = self.objects.lock().expect("lock");
        match method {
            "GET" => objects.get(path).cloned().map_or_else(|| refusal(404, "NotFound"), |object| (200, object)),
            "POST" => create(&mut objects, path, body),
            "PATCH" => patch(&mut objects, path, kind, body),
            "DELETE" => delete(&mut objects, path, &body),
            other => panic!("{other}"),
        }
    }

    fn put(&self, path: &str, object: Value) {
        self.objects.lock().expect("lock").insert(path.into(), object);
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().expect("lock").get(path).cloned()
    }

    fn of(&self, folder: &str) -> Vec<Value> {
        let prefix = format!("/{folder}/");
        self.objects
            .lock()
            .expect("lock")
            .iter()
            .filter(|(path, _)| path.contains(&prefix))
            .map(|(_, o)| o.clone())
            .collect()
    }

    fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.writes.lock().expect("lock"))
    }
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason }),
    )
}

fn create(objects: &mut BTreeMap<String, Value>, path: &str, mut body: Value) -> (u16, Value) {
    let name = body["metadata"]["name"].as_str().expect("a name").to_owned();
    let path = format!("{path}/{name}");
    if objects.contains_key(&path) {
        return refusal(409, "AlreadyExists");
    }
    body["metadata"]["uid"] = json!(format!("uid of {name}"));
    body["metadata"]["resourceVersion"] = json!("1");
    body["metadata"]["creationTimestamp"] = json!("2027-01-15T08:00:00Z");
    objects.insert(path, body.clone());
    (201, body)
}

fn patch(objects: &mut BTreeMap<String, Value>, path: &str, kind: &str, body: Value) -> (u16, Value) {
    let (path, part) = path.strip_suffix("/status").map_or((path, "metadata"), |path| (path, "status"));
    let Some(object) = objects.get_mut(path) else { return refusal(404, "NotFound") };
    let version = &body["metadata"]["resourceVersion"];
    if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
        return refusal(409, "Conflict");
    }
    if part == "status" {
        assert!(kind.contains("apply-patch"), "{kind}");
        object["status"] = body["status"].clone();
    } else {
        object["metadata"]["finalizers"] = body["metadata"]["finalizers"].clone();
    }
    bump(object);
    let object = object.clone();
    let gone = !object["metadata"]["deletionTimestamp"].is_null()
        && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
    if gone {
        objects.remove(path);
    }
    (200, object)
}

fn bump(object: &mut Value) {
    let version: u64 = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0);
    object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
}

fn delete(objects: &mut BTreeMap<String, Value>, path: &str, options: &Value) -> (u16, Value) {
    let Some(object) = objects.get(path) else { return refusal(404, "NotFound") };
    let wanted = &options["preconditions"]["resourceVersion"];
    if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
        return refusal(409, "Conflict");
    }
    let object = objects.remove(path).expect("there");
    (200, object)
}

/// A gateway that keeps what it gets.
#[derive(Default)]
struct Keeper {
    got: Mutex<Vec<String>>,
    report: Mutex<LeaseReport>,
}

#[async_trait]
impl Gateways for Keeper {
    async fn status(&self, _: &Lease) -> Result<LeaseReport, gateways::Error> {
        Ok(self.report.lock().expect("lock").clone())
    }

    async fn put_manifest(&self, _: &Lease, bytes: Vec<u8>) -> Result<(), gateways::Error> {
        self.got.lock().expect("lock").push(format!("manifest {}", sha256_hex(&bytes)));
        Ok(())
    }

    async fn upload(&self, _: &Lease, sha256: &str, from: &Path) -> Result<(), gateways::Error> {
        assert_eq!(sha256_hex(&std::fs::read(from).expect("the file")), sha256);
        self.got.lock().expect("lock").push(format!("artifact {sha256}"));
        Ok(())
    }

    async fn download(&self, _: &Lease, _: &str, _: u64, _: &Path) -> Result<(), gateways::Error> {
        Err(gateways::Error::NoSigner("team-a".into()))
    }
}

struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).expect("a time")
    }
}

struct Scene {
    cluster: Cluster,
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    view: watch::Sender<Arc<ChainView>>,
    _store: tempfile::TempDir,
}

fn task_path(name: &str) -> String {
    format!("/apis/freehold.dev/v1alpha1/namespaces/demo/trainingtasks/{name}")
}

impl Scene {
    fn new(limit: &str) -> Self {
        let cluster = Cluster::default();
        let store = tempfile::tempdir().expect("a folder");
        let settings = Settings {
            namespace: RELEASE.into(),
            release: "freehold-tenant.freehold".into(),
            roles: Roles { tenant: true, provider: false },
            trainer_image: format!("freehold.dev/trainer@sha256:{}", "00".repeat(32)),
            courier_image: String::new(),
            gateway_internal_url: String::new(),
            gateway_pod_url: String::new(),
            gateway_pod_ip: None,
            store: store.path().into(),
            allowed_cidrs: Vec::new(),
            gpu_resource: "nvidia.com/gpu".into(),
            gpu_plugin: "builtin".into(),
            signer_token: std::path::PathBuf::new(),
            cluster_uid: "kube-system-uid".into(),
        };
        let clock = Arc::new(Hand(AtomicI64::new(world::START)));
        let ctx = Context::new(cluster.client(), settings, clock);
        let (view, receiver) = watch::channel(Arc::new(World::new().view()));
        ctx.views.insert("team-a", receiver);
        let keeper = Arc::new(Keeper::default());
        let shared = Arc::new(Shared::new(ctx, keeper.clone()));
        let scene = Self { cluster, shared, keeper, view, _store: store };
        scene.furnish(limit);
        scene
    }

    fn furnish(&self, limit: &str) {
        let account = json!({
            "metadata": { "name": "team-a" },
            "spec": {
                "role": "Tenant",
                "chain": { "chainId": 31337, "rpcUrls": ["http://chain"], "blockTime": "2s", "windows": { "bids": "20s", "start": "5m", "review": "10m" } },
                "market": "0x0101010101010101010101010101010101010101",
                "providerRegistry": "0x0101010101010101010101010101010101010101",
                "token": "0x0202020202020202020202020202020202020202",
                "signerRef": { "secret": { "name": "key", "key": "key" } },
                "operator": "freehold-tenant.freehold"
            }
        });
        let account: ComputeAccount = serde_json::from_value(account).expect("an account");
        self.shared
            .caches
            .accounts
            .apply(Event::Apply(account), |a: &ComputeAccount| Some((String::new(), a.spec.clone())));
        self.budget(limit);
        let map =
            json!({ "metadata": { "name": "digits", "namespace": "demo" }, "data": { "train.csv.gz": "1,2,3\n" } });
        self.cluster.put("/api/v1/namespaces/demo/configmaps/digits", map);
    }

    fn budget(&self, limit: &str) {
        let budget = json!({ "metadata": { "name": "team", "namespace": "demo" }, "spec": { "accountRef": { "name": "team-a" }, "limit": limit } });
        let budget: ComputeBudget = serde_json::from_value(budget).expect("a budget");
        self.shared.caches.budgets.apply(Event::Apply(budget), |b: &ComputeBudget| {
            Some((
                "demo".into(),
                caches::Budget { name: "team".into(), namespace: "demo".into(), spec: b.spec.clone() },
            ))
        });
    }

    fn task(&self, name: &str) {
        self.apply(name, world::manifest());
    }

    /// The same, funded in slices of ten minutes.
    fn sliced_task(&self, name: &str) {
        let mut task = world::manifest();
        task["spec"]["market"]["topUp"] = json!({ "slice": "10m" });
        self.apply(name, task);
    }

    fn apply(&self, name: &str, mut task: Value) {
        task["metadata"]["name"] = json!(name);
        task["metadata"]["uid"] = json!(format!("uid-{name}"));
        task["metadata"]["resourceVersion"] = json!("1");
        self.cluster.put(&task_path(name), task);
    }

    async fn pass(&self, name: &str) -> Result<(), crate::task::Error> {
        let Some(object) = self.cluster.get(&task_path(name)) else { return Ok(()) };
        let task: TrainingTask = serde_json::from_value(object).expect("a task");
        reconcile(Arc::new(DeserializeGuard(Ok(task))), self.shared.clone()).await.map(|_| ())
    }

    /// Every order that was written down runs on the chain, and its escrow ends in a minute.
    fn run_out_soon(&self) {
        let mut view = World::new().view();
        for stored in self.shared.caches.orders.filter_map(|order| Some(order.clone())) {
            let rate = Rate::per_hour(Amount(400_000));
            let (end, escrow) = (world::START as u64 + 60, stored.terms.cap());
            let slot = OrderSlot {
                state: OrderState::Running,
                tenant: view.account,
                provider: world::PROVIDER,
                price: rate.0,
                deadline: end,
                started_at: end - rate.lasts(escrow),
                end_at: end,
                funds: escrow,
                ..OrderSlot::default()
            };
            let (id, terms) = (stored.id, stored.terms);
            let order = Order { id, salt: id, terms, spec: vec![], slot, bids: vec![], result_hash: None, split: None };
            let order = Arc::new(order);
            view.latest.orders.insert(id, order.clone());
            view.confirmed.orders.insert(id, order);
        }
        self.view.send_replace(Arc::new(view));
    }

    fn top_ups(&self) -> usize {
        self.cluster.of("chaintransactions").iter().filter(|o| o["spec"]["goal"]["topUp"].is_object()).count()
    }

    /// What the watches would tell.
    fn sync(&self) {
        for object in self.cluster.of("configmaps").into_iter().filter(|o| o["metadata"]["namespace"] == RELEASE) {
            let map: ConfigMap = serde_json::from_value(object).expect("a ConfigMap");
            self.shared.caches.orders.apply(Event::Apply(map), caches::read_order);
        }
        for object in self.cluster.of("chaintransactions") {
            let entry: ChainTransaction = serde_json::from_value(object).expect("a goal");
            self.shared.caches.goals.apply(Event::Apply(entry), caches::read_goal);
        }
    }

    fn reason(&self, name: &str, type_: &str) -> String {
        let task = self.cluster.get(&task_path(name)).expect("the task");
        let conditions = task["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == type_);
        found.and_then(|c| c["reason"].as_str()).unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn finalizer_order_goal_and_status_are_written_in_this_order() {
    let scene = Scene::new("10");
    scene.task("digits");
    scene.pass("digits").await.expect("a pass");
    let writes: Vec<String> = scene.cluster.writes().into_iter().filter(|w| !w.contains("/events")).collect();
    let order =
        scene.cluster.of("configmaps").into_iter().find(|o| o["metadata"]["namespace"] == RELEASE).expect("an order");
    assert_eq!(
        writes,
        [
            format!("PATCH {}", task_path("digits")),
            format!("POST /api/v1/namespaces/{RELEASE}/configmaps"),
            format!("POST /apis/freehold.dev/v1alpha1/namespaces/{RELEASE}/chaintransactions"),
            format!("PATCH {}/status", task_path("digits")),
        ]
    );
    assert_eq!(order["metadata"]["labels"][labels::TASK_UID], "uid-digits");
    let task = scene.cluster.get(&task_path("digits")).expect("the task");
    assert_eq!(task["metadata"]["finalizers"], json!([labels::SETTLE_FINALIZER]));
    assert_eq!(task["status"]["state"], "Pending");
    scene.sync();
    scene.pass("digits").await.expect("a pass");
    let again: Vec<String> =
        scene.cluster.writes().into_iter().filter(|w| w.contains("POST") && !w.contains("/events")).collect();
    assert!(again.is_empty(), "{again:?}");
}

#[tokio::test]
async fn a_crash_between_order_and_goal_leaves_one_order() {
    let scene = Scene::new("10");
    scene.task("digits");
    *scene.cluster.fail.lock().expect("lock") =
        Some("POST /apis/freehold.dev/v1alpha1/namespaces/freehold-tenant/chaintransactions".into());
    assert!(scene.pass("digits").await.is_err());
    assert_eq!(scene.cluster.of("chaintransactions").len(), 0);
    // A new process knows only what its watches list.
    scene.shared.caches.orders.apply(Event::<ConfigMap>::Init, caches::read_order);
    scene.shared.caches.orders.apply(Event::<ConfigMap>::InitDone, caches::read_order);
    scene.sync();
    scene.pass("digits").await.expect("a pass");
    assert_eq!(scene.cluster.of("chaintransactions").len(), 1);
    assert_eq!(scene.cluster.of("configmaps").iter().filter(|o| o["metadata"]["namespace"] == RELEASE).count(), 1);
}

#[tokio::test]
async fn a_failed_write_of_the_order_says_so_in_no_other_way_than_by_trying_again() {
    let scene = Scene::new("10");
    scene.task("digits");
    *scene.cluster.fail.lock().expect("lock") = Some("configmaps".into());
    assert!(scene.pass("digits").await.is_err());
    assert_eq!(scene.reason("digits", "Funded"), "PlacingOrder", "status is written also on failure");
    scene.pass("digits").await.expect("a pass");
    assert_eq!(scene.cluster.of("chaintransactions").len(), 1);
}

#[tokio::test]
async fn of_two_tasks_at_once_exactly_one_is_funded_and_a_raised_budget_releases_the_other() {
    let scene = Scene::new("1.5");
    scene.task("one");
    scene.task("two");
    let (first, second) = tokio::join!(scene.pass("one"), scene.pass("two"));
    first.expect("a pass");
    second.expect("a pass");
    assert_eq!(scene.cluster.of("chaintransactions").len(), 1);
    scene.sync();
    let mut reasons = [scene.reason("one", "Funded"), scene.reason("two", "Funded")];
    reasons.sort();
    assert_eq!(reasons, ["BudgetExceeded", "PlacingOrder"]);
    for _ in 0..3 {
        scene.pass("one").await.expect("a pass");
        scene.pass("two").await.expect("a pass");
    }
    assert_eq!(scene.cluster.of("chaintransactions").len(), 1);
    scene.budget("2");
    scene.pass("one").await.expect("a pass");
    scene.pass("two").await.expect("a pass");
    assert_eq!(scene.cluster.of("chaintransactions").len(), 2);
}

#[tokio::test]
async fn of_two_leases_that_need_more_at_once_one_is_topped_up_where_the_budget_has_room_for_one() {
    let scene = Scene::new("0.25");
    for name in ["one", "two"] {
        scene.sliced_task(name);
        scene.pass(name).await.expect("a pass");
    }
    scene.sync();
    scene.run_out_soon();
    let (first, second) = tokio::join!(scene.pass("one"), scene.pass("two"));
    first.expect("a pass");
    second.expect("a pass");
    assert_eq!(scene.top_ups(), 1, "each holds 0.083333, a slice more is 0.066667");
    let mut reasons = [scene.reason("one", "Funded"), scene.reason("two", "Funded")];
    reasons.sort();
    assert_eq!(reasons, ["BudgetExceeded", "Funded"]);
    // Neither a watch that tells of it late nor a new pass makes another of it.
    for _ in 0..3 {
        scene.pass("one").await.expect("a pass");
        scene.pass("two").await.expect("a pass");
        scene.sync();
    }
    assert_eq!(scene.top_ups(), 1);
    scene.budget("0.35");
    scene.pass("one").await.expect("a pass");
    scene.pass("two").await.expect("a pass");
    assert_eq!(scene.top_ups(), 2);
}

#[tokio::test]
async fn a_crash_before_a_top_up_is_recorded_leaves_one() {
    let scene = Scene::new("10");
    scene.sliced_task("one");
    scene.pass("one").await.expect("a pass");
    scene.sync();
    scene.run_out_soon();
    *scene.cluster.fail.lock().expect("lock") = Some("chaintransactions".into());
    assert!(scene.pass("one").await.is_err());
    assert_eq!(scene.top_ups(), 0);
    for _ in 0..3 {
        scene.pass("one").await.expect("a pass");
    }
    assert_eq!(scene.top_ups(), 1);
}

#[tokio::test]
async fn deletion_takes_an_unsent_order_back_and_leaves_a_sent_one() {
    let scene = Scene::new("10");
    scene.task("digits");
    scene.pass("digits").await.expect("a pass");
    scene.sync();
    let mut task = scene.cluster.get(&task_path("digits")).expect("the task");
    task["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
    scene.cluster.put(&task_path("digits"), task.clone());
    // The outbox has given the goal a nonce: a transaction may be under way.
    let mut goal = scene.cluster.of("chaintransactions").remove(0);
    let goal_path = format!(
        "/apis/freehold.dev/v1alpha1/namespaces/{RELEASE}/chaintransactions/{}",
        goal["metadata"]["name"].as_str().expect("a name")
    );
    let untouched = goal.clone();
    goal["status"] = json!({ "state": "Submitted", "nonce": 3 });
    scene.cluster.put(&goal_path, goal);
    scene.pass("digits").await.expect("a pass");
    assert!(scene.cluster.get(&goal_path).is_some());
    assert_eq!(scene.reason("digits", "Deleting"), "ClosingLease");
    scene.cluster.put(&goal_path, untouched);
    scene.pass("digits").await.expect("a pass");
    assert!(scene.cluster.get(&goal_path).is_none());
    scene.pass("digits").await.expect("a pass");
    assert!(scene.cluster.get(&task_path("digits")).is_none(), "the finalizer is gone, and the task with it");
}

#[tokio::test]
async fn manifest_and_data_reach_the_gateway_as_they_were_ordered() {
    let scene = Scene::new("10");
    scene.task("digits");
    scene.pass("digits").await.expect("a pass");
    scene.sync();
    // The order stands and is leased.
    let mut world = World::new();
    world.until("Open", |w| w.order().is_some());
    world.bid(400_000);
    world.until("leased", |w| w.order().is_some_and(|o| o.slot.state == freehold_core::order::OrderState::Awaiting));
    let mut order = world.order().expect("an order").clone();
    let mut view = world.view();
    order.id = scene.shared.caches.orders.group("uid-digits")[0].id;
    view.latest.orders = BTreeMap::from([(order.id, Arc::new(order.clone()))]);
    scene.view.send_replace(Arc::new(view));
    scene.cluster.put(
        "/api/v1/namespaces/demo/configmaps/digits",
        json!({ "metadata": { "name": "digits" }, "data": { "train.csv.gz": "changed" } }),
    );
    scene.pass("digits").await.expect("a pass");
    let name = name_of(&order.id);
    let stored = scene.cluster.get(&format!("/api/v1/namespaces/{RELEASE}/configmaps/{name}")).expect("stored");
    let manifest = stored["data"]["manifest.json"].as_str().expect("a manifest").as_bytes();
    let got = scene.keeper.got.lock().expect("lock").clone();
    assert_eq!(got, [format!("manifest {}", sha256_hex(manifest)), format!("artifact {}", sha256_hex(b"1,2,3\n"))]);
}

#[tokio::test]
async fn tasks_of_other_releases_are_left_alone_and_unknown_accounts_named() {
    let scene = Scene::new("10");
    scene.task("digits");
    let mut task = scene.cluster.get(&task_path("digits")).expect("the task");
    task["spec"]["market"]["account"] = json!("team-z");
    scene.cluster.put(&task_path("digits"), task);
    scene.pass("digits").await.expect("a pass");
    assert_eq!(scene.reason("digits", "Valid"), "AccountNotFound");
    scene.cluster.writes();
    let mut foreign = scene.shared.caches.accounts.get("team-a").expect("an account");
    foreign.operator = "elsewhere.freehold".into();
    scene.shared.caches.accounts.insert_fresh("team-z", "", foreign);
    scene.pass("digits").await.expect("a pass");
    assert!(scene.cluster.writes().is_empty());
}
