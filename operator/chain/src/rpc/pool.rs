//! What is shared of the endpoints: which one is used, what is thought of the
//! others, and who asked for a pause.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alloy::rpc::client::RpcClient;
use tokio::time::Instant;

use super::Error;
use super::judge::Verdict;

/// Pause where an endpoint asks for one and does not say how long.
const PAUSE: Duration = Duration::from_secs(2);

pub struct Endpoint {
    /// Without path and query, which may hold a key.
    pub host: String,
    pub client: RpcClient,
    paused: Mutex<Option<Instant>>,
}

impl Endpoint {
    pub fn new(http: &reqwest::Client, url: &str) -> Result<Self, Error> {
        let parsed: reqwest::Url = url.parse().map_err(|error| Error::Url {
            url: url.to_owned(),
            reason: format!("{error}; write http(s)://host[:port][/path]"),
        })?;
        let host = format!("{}://{}", parsed.scheme(), parsed.authority().rsplit('@').next().unwrap_or_default());
        Ok(Self::over(host, RpcClient::new_http_with_client(http.clone(), parsed)))
    }

    pub fn over(host: String, client: RpcClient) -> Self {
        Self { host, client, paused: Mutex::default() }
    }

    pub fn pause(&self, now: Instant, asked: Option<Duration>) {
        if let Ok(mut paused) = self.paused.lock() {
            *paused = Some(now + asked.unwrap_or(PAUSE));
        }
    }

    pub fn paused(&self, now: Instant) -> bool {
        self.paused.lock().is_ok_and(|paused| paused.is_some_and(|until| now < until))
    }
}

/// What is thought of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub host: String,
    pub verdict: Verdict,
    pub used: bool,
}

struct Judged {
    verdicts: Vec<Verdict>,
    quorum: usize,
}

pub struct Pool {
    pub endpoints: Vec<Endpoint>,
    current: AtomicUsize,
    judged: Mutex<Judged>,
}

impl Pool {
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        let verdicts = vec![Verdict::Unasked; endpoints.len()];
        Self { endpoints, current: AtomicUsize::new(0), judged: Mutex::new(Judged { verdicts, quorum: 1 }) }
    }

    pub fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.endpoints.len()
    }

    /// Another one is used from now on, if one is thought good.
    pub fn turn_from(&self, failed: usize) {
        let (usable, _) = self.usable();
        let next = usable.iter().find(|at| **at > failed).or_else(|| usable.iter().find(|at| **at != failed));
        if let Some(next) = next {
            // Whoever failed at the same time has turned away already.
            let _ = self.current.compare_exchange(failed, *next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Takes in what a survey found.
    pub fn judged(&self, verdicts: Vec<Verdict>, used: Option<usize>, quorum: usize) {
        if let Some(used) = used {
            self.current.store(used, Ordering::Relaxed);
        }
        if let Ok(mut judged) = self.judged.lock() {
            *judged = Judged { verdicts, quorum };
        }
    }

    /// Endpoints that are thought good, or the current one where none is; and how many must agree.
    pub fn usable(&self) -> (Vec<usize>, usize) {
        let Ok(judged) = self.judged.lock() else { return (vec![self.current()], 1) };
        let good: Vec<usize> =
            judged.verdicts.iter().enumerate().filter(|(_, v)| **v == Verdict::Good).map(|(at, _)| at).collect();
        (if good.is_empty() { vec![self.current()] } else { good }, judged.quorum)
    }

    pub fn standings(&self) -> Vec<Standing> {
        let current = self.current();
        let Ok(judged) = self.judged.lock() else { return vec![] };
        let all = self.endpoints.iter().zip(&judged.verdicts).enumerate();
        all.map(|(at, (endpoint, verdict))| Standing {
            host: endpoint.host.clone(),
            verdict: verdict.clone(),
            used: at == current && *verdict == Verdict::Good,
        })
        .collect()
    }
}
