//! A JSON-RPC endpoint that can be made to misbehave: it stands before a real
//! node and passes everything on, until a fault is set. Counts the answers that
//! a fault changed, so that a test can tell a fault that mattered from one that
//! nobody met.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy::primitives::{B256, keccak256};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use warp::Filter;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::chain::{Error, install_tls};

/// What the endpoint does instead of answering truly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    #[default]
    None,
    /// Connections are closed without an answer.
    Dead,
    /// Requests are taken and never answered.
    Stalled,
    /// Every second request meets a closed connection.
    Flapping,
    /// Answers come late.
    Slow {
        millis: u64,
    },
    /// HTTP 429; `seconds` is its Retry-After.
    Limited {
        seconds: u64,
    },
    /// HTTP 200 with something that is no JSON.
    Garbage,
    /// Its head is so many blocks behind.
    Lagging {
        blocks: u64,
    },
    /// Its head is the block that was the head when the fault was set.
    Frozen {
        at: u64,
    },
    /// Its head is a block far ahead that does not exist.
    WrongHead,
    /// Every block that is named by number has another hash.
    OtherHashes,
    /// Receipts claim the opposite of what happened.
    WrongReceipt,
    OtherChain {
        id: u64,
    },
    /// Transactions are taken and thrown away.
    LosesTransactions,
    /// Blocks and the node's advice claim fees so many times the true ones.
    FeeSpike {
        times: u64,
    },
}

struct State {
    upstream: String,
    http: reqwest::Client,
    fault: Mutex<Fault>,
    requests: AtomicU64,
    changed: AtomicU64,
}

/// A running proxy; it ends with this value.
pub struct Proxy {
    pub url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Listens at `address` before the node at `upstream`.
    pub async fn start(address: SocketAddr, upstream: &str) -> Result<Self, Error> {
        install_tls();
        let spawn = |source| Error::Spawn { what: format!("a listener at {address}"), source };
        let listener = TcpListener::bind(address).await.map_err(spawn)?;
        let url = format!("http://{}", listener.local_addr().map_err(spawn)?);
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?,
            fault: Mutex::default(),
            requests: AtomicU64::new(0),
            changed: AtomicU64::new(0),
        });
        let task = tokio::spawn(listen(listener, state.clone()));
        Ok(Self { url, state, task })
    }

    pub fn set(&self, fault: Fault) {
        self.state.set(fault);
    }

    /// Answers that a fault changed so far.
    pub fn changed(&self) -> u64 {
        self.state.changed.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Until the process ends.
    pub async fn serve(mut self) {
        let _ = (&mut self.task).await;
    }
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, state.clone()));
    }
}

/// One connection; it is cut off where the fault says so.
async fn connection(stream: TcpStream, state: Arc<State>) {
    let cut = Arc::new(Notify::new());
    let service = TowerToHyperService::new(warp::service(routes(state, cut.clone())));
    let builder = Builder::new(TokioExecutor::new()).http1_only();
    let served = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    tokio::select! {
        _ = served => {}
        () = cut.notified() => {}
    }
}

fn routes(state: Arc<State>, cut: Arc<Notify>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let with = {
        let state = state.clone();
        warp::any().map(move || state.clone())
    };
    let rpc = warp::post()
        .and(warp::path::end())
        .and(with.clone())
        .and(warp::any().map(move || cut.clone()))
        .and(warp::body::json())
        .then(answer);
    let set = warp::put().and(warp::path!("fault")).and(with.clone()).and(warp::body::json()).map(
        |state: Arc<State>, fault: Fault| {
            state.set(fault);
            reply(StatusCode::OK, json!({}))
        },
    );
    let counts = warp::get().and(warp::path!("counts")).and(with).map(|state: Arc<State>| {
        let (requests, changed) = (state.requests.load(Ordering::Relaxed), state.changed.load(Ordering::Relaxed));
        reply(StatusCode::OK, json!({ "requests": requests, "changed": changed, "fault": state.fault() }))
    });
    rpc.or(set).unify().or(counts).unify()
}

fn reply(status: StatusCode, body: Value) -> Response {
    let mut response = Response::new(body.to_string().into());
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", warp::http::HeaderValue::from_static("application/json"));
    response
}

impl State {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    async fn ask(&self, request: &Value) -> Result<Value, reqwest::Error> {
        self.http.post(&self.upstream).json(request).send().await?.json().await
    }

    async fn head(&self) -> u64 {
        let asked = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": [] });
        let answer = self.ask(&asked).await.unwrap_or_default();
        number(&answer["result"])
    }
}

async fn answer(state: Arc<State>, cut: Arc<Notify>, request: Value) -> Response {
    let count = state.requests.fetch_add(1, Ordering::Relaxed);
    let fault = state.fault();
    let id = request["id"].clone();
    match fault {
        Fault::Dead => return cut_off(&state, &cut).await,
        Fault::Flapping if count.is_multiple_of(2) => return cut_off(&state, &cut).await,
        Fault::Stalled => {
            state.changed.fetch_add(1, Ordering::Relaxed);
            return std::future::pending().await;
        }
        Fault::Slow { millis } => {
            state.changed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        Fault::Limited { seconds } => {
            state.changed.fetch_add(1, Ordering::Relaxed);
            let mut response = reply(StatusCode::TOO_MANY_REQUESTS, json!({}));
            *response.body_mut() = "slow down".into();
            response.headers_mut().insert("retry-after", seconds.into());
            return response;
        }
        Fault::Garbage => {
            state.changed.fetch_add(1, Ordering::Relaxed);
            let mut response = reply(StatusCode::OK, json!({}));
            *response.body_mut() = "{\"jsonrpc\":\"2.0\",\"id\":".into();
            return response;
        }
        Fault::LosesTransactions if request["method"] == "eth_sendRawTransaction" => {
            state.changed.fetch_add(1, Ordering::Relaxed);
            let raw = request["params"][0].as_str().and_then(|text| text.strip_prefix("0x")).unwrap_or_default();
            let bytes = alloy::primitives::hex::decode(raw).unwrap_or_default();
            return reply(StatusCode::OK, json!({ "jsonrpc": "2.0", "id": id, "result": keccak256(bytes) }));
        }
        _ => {}
    }
    let asked = twist_request(&state, fault, &request).await;
    let Ok(mut answer) = state.ask(&asked).await else {
        return reply(StatusCode::BAD_GATEWAY, json!({}));
    };
    let before = answer.clone();
    twist_answer(fault, &request, &mut answer);
    if asked != request || answer != before {
        state.changed.fetch_add(1, Ordering::Relaxed);
    }
    answer["id"] = id;
    reply(StatusCode::OK, answer)
}

async fn cut_off(state: &State, cut: &Notify) -> Response {
    state.changed.fetch_add(1, Ordering::Relaxed);
    cut.notify_one();
    std::future::pending().await
}

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()).unwrap_or(0)
}

/// A late endpoint is a true one that is asked for older blocks.
async fn twist_request(state: &State, fault: Fault, request: &Value) -> Value {
    let mut asked = request.clone();
    if request["method"] != "eth_getBlockByNumber" {
        return asked;
    }
    let head = match fault {
        Fault::Lagging { blocks } => state.head().await.saturating_sub(blocks),
        Fault::Frozen { at } => at,
        _ => return asked,
    };
    let named = &request["params"][0];
    if named == "latest" {
        asked["params"][0] = json!(format!("{head:#x}"));
    } else if number(named) > head {
        // A block that does not exist yet.
        asked["params"][0] = json!("0xffffffffff");
    }
    asked
}

fn twist_answer(fault: Fault, request: &Value, answer: &mut Value) {
    let method = request["method"].as_str().unwrap_or_default();
    let Some(result) = answer.get_mut("result") else { return };
    match (fault, method) {
        (Fault::OtherChain { id }, "eth_chainId") => *result = json!(format!("{id:#x}")),
        (Fault::WrongHead, "eth_getBlockByNumber") if request["params"][0] == "latest" && result.is_object() => {
            result["number"] = json!(format!("{:#x}", number(&result["number"]) + 100_000));
            result["hash"] = json!(other(&result["hash"]));
        }
        (Fault::OtherHashes, "eth_getBlockByNumber") if result.is_object() => {
            result["hash"] = json!(other(&result["hash"]));
        }
        (Fault::WrongReceipt, "eth_getTransactionReceipt") if result.is_object() => {
            let success = result["status"] == "0x1";
            result["status"] = json!(if success { "0x0" } else { "0x1" });
        }
        (Fault::FeeSpike { times }, "eth_getBlockByNumber" | "eth_getBlockByHash") if result.is_object() => {
            result["baseFeePerGas"] = json!(format!("{:#x}", number(&result["baseFeePerGas"]).saturating_mul(times)));
        }
        (Fault::FeeSpike { times }, "eth_maxPriorityFeePerGas") => {
            *result = json!(format!("{:#x}", number(result).max(1_000_000_000).saturating_mul(times)));
        }
        _ => {}
    }
}

/// Another hash, always the same for one.
fn other(hash: &Value) -> B256 {
    keccak256(hash.as_str().unwrap_or_default())
}
