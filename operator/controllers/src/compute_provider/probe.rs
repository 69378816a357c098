//! Whether tenants can reach the gateway: asked as they would ask, now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use freehold_chain::failpoint::crossing;

const EVERY: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(5);

type Answer = Result<(), String>;

/// Remembers the last answer of each gateway.
#[derive(Clone)]
pub struct Probe {
    client: reqwest::Client,
    answers: Arc<Mutex<HashMap<String, (Instant, Answer)>>>,
}

impl Probe {
    pub fn new() -> Result<Self, reqwest::Error> {
        let client =
            reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { client, answers: Arc::default() })
    }

    pub async fn ask(&self, gateway: &str, now: Instant) -> Answer {
        if let Some(answer) = self.remembered(gateway, now) {
            return answer;
        }
        let answer = self.get(gateway).await;
        if let Ok(mut answers) = self.answers.lock() {
            answers.insert(gateway.to_owned(), (now, answer.clone()));
        }
        answer
    }

    fn remembered(&self, gateway: &str, now: Instant) -> Option<Answer> {
        let answers = self.answers.lock().ok()?;
        let (at, answer) = answers.get(gateway)?;
        (now.saturating_duration_since(*at) < EVERY).then(|| answer.clone())
    }

    async fn get(&self, gateway: &str) -> Answer {
        let url = format!("{}/healthz", gateway.trim_end_matches('/'));
        let answer = crossing(|| "gateway.health".into(), self.client.get(url).send()).await;
        let response = answer.map_err(|error| cause(&error))?;
        // Health has a listener of its own, so the public one may not know the path; that it answers is enough.
        if response.status().is_server_error() { Err(format!("answered {}", response.status())) } else { Ok(()) }
    }
}

/// The innermost cause says what is wrong; the outer ones repeat the address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
