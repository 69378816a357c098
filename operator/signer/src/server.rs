//! The signer over HTTP: who asks, what the policy says, the journal, and only then the key.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy::primitives::Address;
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use freehold_chain::signer::wire::{
    Account, Check, Checked, MAX_CHECKS, Refusal, Refused, SignAccess, SignTransaction, SignatureOf,
};
use freehold_gateway::Clock;
use freehold_gateway::problem::Failure;
use freehold_gateway::reviews::Reviews;
use freehold_gateway::store::Incoming;
use freehold_gateway::web::{Answer, body, content, empty, json, unrouted, whole};
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use warp::filters::BoxedFilter;
use warp::{Filter, path};

use crate::config::Policy;
use crate::journal::{Entry, Journal};
use crate::policy::{self, Decision, Request};
use crate::state::State;

/// Largest body: a check of every transaction that an account may have under way.
const LARGEST: usize = 1 << 20;
const REQUEST: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(5);
/// Decisions a minute, refusals included: nobody fills the journal's volume by asking.
const DECISIONS: u32 = 1_200;

/// What a signer is made of.
pub struct Parts {
    pub key: PrivateKeySigner,
    pub policy: PathBuf,
    pub journal: Journal,
    pub state: State,
    pub reviews: Reviews,
    /// User name of the one that may ask.
    pub operator: String,
    pub clock: Clock,
}

pub struct Server {
    key: PrivateKeySigner,
    policy: PathBuf,
    desk: Mutex<Desk>,
    reviews: Reviews,
    operator: String,
    clock: Clock,
}

/// Decisions are made one at a time.
struct Desk {
    journal: Journal,
    state: State,
    /// The current minute, and the decisions in it.
    minute: (u64, u32),
}

/// A request that is held by nobody else.
enum Asked {
    Transaction(SignTransaction),
    Access(SignAccess),
}

impl Asked {
    fn request(&self) -> Request<'_> {
        match self {
            Self::Transaction(asked) => Request::Transaction(asked),
            Self::Access(asked) => Request::Access(asked),
        }
    }
}

/// Why nothing is signed.
#[derive(Debug)]
enum No {
    Policy(Refusal),
    Failure(Failure),
}

impl From<Failure> for No {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Server {
    pub fn new(parts: Parts) -> Self {
        let desk = Desk { journal: parts.journal, state: parts.state, minute: (0, 0) };
        Self {
            key: parts.key,
            policy: parts.policy,
            desk: Mutex::new(desk),
            reviews: parts.reviews,
            operator: parts.operator,
            clock: parts.clock,
        }
    }

    pub fn address(&self) -> Address {
        self.key.address()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn policy(&self) -> Result<Policy, Failure> {
        Policy::read(&self.policy).map_err(|error| {
            tracing::error!(%error, "nothing is signed before the policy can be read");
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, "no-policy", error.to_string())
        })
    }

    /// Judges, records, and says what to sign.
    fn decide(&self, caller: &str, request: Request<'_>) -> Result<Decision, No> {
        let policy = self.policy()?;
        let now = (self.clock)();
        let mut desk = self.desk();
        desk.count(now)?;
        let outcome = policy::judge(&policy, self.address(), &desk.state, request, now);
        desk.journal.append(&Entry::new(caller, request, &outcome, now)).map_err(|error| {
            tracing::error!(%error, "nothing is signed before it is recorded");
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, "no-journal", error.to_string())
        })?;
        let decision = outcome.map_err(No::Policy)?;
        desk.state.record(&decision, now);
        Ok(decision)
    }

    fn sign(&self, caller: &str, request: Request<'_>) -> Result<SignatureOf, No> {
        let decision = self.decide(caller, request)?;
        let signature = self.key.sign_hash_sync(&decision.hash).map_err(Failure::internal)?;
        Ok(SignatureOf { signature: signature.as_bytes().into() })
    }

    /// What would be refused, were all of it signed in this order.
    fn check(&self, asked: &[SignTransaction]) -> Result<Vec<Option<Refusal>>, Failure> {
        let policy = self.policy()?;
        let now = (self.clock)();
        let mut state = self.desk().state.clone();
        let judged = asked.iter().map(|transaction| {
            let request = Request::Transaction(transaction);
            let decision = policy::judge(&policy, self.address(), &state, request, now);
            decision.map(|decision| state.record(&decision, now)).err()
        });
        Ok(judged.collect())
    }

    /// The caller's name, if it is the operator's.
    async fn caller(&self, headers: &HeaderMap) -> Result<String, Failure> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| unauthorized("send `Authorization: Bearer <token>`"))?;
        let user = self.reviews.user_of(token.trim()).await.map_err(|unavailable| {
            tracing::warn!(%unavailable, "cannot review a token");
            Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "review-unavailable",
                "tokens cannot be reviewed now; try again",
            )
            .with("retry-after", "2")
        })?;
        match user {
            Some(user) if user == self.operator => Ok(user),
            Some(user) => {
                tracing::warn!(user, "a stranger asked for a signature");
                Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", format!("{user} may not ask this signer")))
            }
            None => Err(unauthorized("the token is not valid for this signer")),
        }
    }
}

impl Desk {
    fn count(&mut self, now: u64) -> Result<(), Failure> {
        let minute = now / 60;
        if self.minute.0 != minute {
            self.minute = (minute, 0);
        }
        self.minute.1 += 1;
        match self.minute.1 {
            count if count > DECISIONS => Err(Failure::busy(format!("more than {DECISIONS} requests in a minute"))),
            _ => Ok(()),
        }
    }
}

fn unauthorized(detail: &str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).with("www-authenticate", "Bearer")
}

/// The operator's listener.
pub fn routes(server: Arc<Server>) -> BoxedFilter<(warp::reply::Response,)> {
    let shared = warp::any().map(move || server.clone());
    let called = shared.and(warp::header::headers_cloned());
    let posted = warp::post().and(called.clone()).and(body(IDLE));
    let address = path!("v1" / "address").and(warp::get()).and(called).then(|server: Arc<Server>, headers| {
        answered(async move {
            server.caller(&headers).await?;
            json(&Account { address: server.address() })
        })
    });
    let transactions = path!("v1" / "transactions").and(posted.clone()).then(|server: Arc<Server>, headers, body| {
        answered(async move {
            let (caller, asked) = asked(&server, &headers, body).await?;
            signed(server, caller, Asked::Transaction(asked)).await
        })
    });
    let access = path!("v1" / "access").and(posted.clone()).then(|server: Arc<Server>, headers, body| {
        answered(async move {
            let (caller, asked) = asked(&server, &headers, body).await?;
            signed(server, caller, Asked::Access(asked)).await
        })
    });
    let checks = path!("v1" / "checks").and(posted).then(|server: Arc<Server>, headers, body| {
        answered(async move {
            let (_, asked): (_, Check) = asked(&server, &headers, body).await?;
            if asked.transactions.len() > MAX_CHECKS {
                return Err(Failure::too_large(format!("at most {MAX_CHECKS} transactions are judged at once")));
            }
            json(&Checked { refusals: server.check(&asked.transactions)? })
        })
    });
    address.or(transactions).unify().or(access).unify().or(checks).unify().recover(unrouted).unify().boxed()
}

/// The kubelet's listener: ready while there is a policy to judge by.
pub fn health(server: Arc<Server>) -> BoxedFilter<(warp::reply::Response,)> {
    let alive = path!("healthz").and(warp::get()).map(|| empty(StatusCode::OK));
    let ready = path!("readyz").and(warp::get()).map(move || match server.policy() {
        Ok(_) => empty(StatusCode::OK),
        Err(failure) => failure.into_response(),
    });
    alive.or(ready).unify().recover(unrouted).unify().boxed()
}

async fn answered(handler: impl Future<Output = Answer>) -> warp::reply::Response {
    let late = || Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long; try again");
    let outcome = tokio::time::timeout(REQUEST, handler).await.unwrap_or_else(|_| Err(late()));
    outcome.unwrap_or_else(Failure::into_response)
}

/// Who asks, and for what; a stranger's body is not read.
async fn asked<T: DeserializeOwned>(
    server: &Server,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(String, T), Failure> {
    let caller = server.caller(headers).await?;
    let bytes = whole(body, LARGEST).await?;
    let asked = serde_json::from_slice(&bytes).map_err(|error| Failure::bad_request(error.to_string()))?;
    Ok((caller, asked))
}

async fn signed(server: Arc<Server>, caller: String, asked: Asked) -> Answer {
    // The journal waits for the disk.
    let signing = tokio::task::spawn_blocking(move || server.sign(&caller, asked.request()));
    match signing.await.map_err(Failure::internal)? {
        Ok(signature) => json(&signature),
        Err(No::Failure(failure)) => Err(failure),
        Err(No::Policy(refusal)) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Answer {
    let problem = Failure::new(StatusCode::FORBIDDEN, "refused", refusal.to_string()).document();
    let bytes = serde_json::to_vec(&Refused { problem, refusal }).map_err(Failure::internal)?;
    let mut response = content("application/problem+json", bytes.into());
    *response.status_mut() = StatusCode::FORBIDDEN;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use alloy::consensus::TxEip1559;
    use alloy::primitives::{Address, B256, TxKind};
    use freehold_api::Goal;
    use freehold_gateway::reviews::{ReviewTokens, Unavailable};

    use super::*;

    struct Nobody;

    #[async_trait::async_trait]
    impl ReviewTokens for Nobody {
        async fn user_of(&self, _: &str) -> Result<Option<String>, Unavailable> {
            Ok(None)
        }
    }

    fn server(folder: &std::path::Path, journal: Journal) -> Server {
        let policy = folder.join("policy.json");
        let text = serde_json::json!({
            "chainId": 1, "market": Address::ZERO, "providerRegistry": Address::ZERO,
            "token": { "address": Address::ZERO, "decimals": 6 }, "goals": ["void"], "period": "24h",
            "tokens": "0", "fees": "1", "signaturesPerMinute": 10_000,
        });
        std::fs::write(&policy, text.to_string()).expect("policy");
        let clock: Clock = Arc::new(|| 1_800_000_000);
        Server::new(Parts {
            key: PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).expect("key"),
            policy,
            journal,
            state: State::default(),
            reviews: Reviews::new(Arc::new(Nobody), clock.clone()),
            operator: "operator".into(),
            clock,
        })
    }

    fn void(server: &Server) -> SignTransaction {
        let transaction = TxEip1559 { chain_id: 1, to: TxKind::Call(server.address()), ..TxEip1559::default() };
        SignTransaction { goal: Goal::Void { nonce: 0 }, transaction }
    }

    fn slug(no: No) -> &'static str {
        match no {
            No::Failure(failure) => failure.slug,
            No::Policy(refusal) => panic!("{refusal}"),
        }
    }

    #[test]
    fn nothing_is_signed_that_is_not_recorded() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("journal");
        std::fs::write(&path, "").expect("file");
        let server = server(folder.path(), Journal::unwritable(&path));
        let asked = void(&server);
        let no = server.sign("operator", Request::Transaction(&asked)).expect_err("refused");
        assert_eq!(slug(no), "no-journal");
        let decision = policy::judge(
            &server.policy().expect("policy"),
            server.address(),
            &State::default(),
            Request::Transaction(&asked),
            1,
        );
        assert!(!server.desk().state.knows(&decision.expect("allowed").hash), "and it does not count");
    }

    #[test]
    fn nobody_fills_the_journal_by_asking() {
        let folder = tempfile::tempdir().expect("folder");
        let (journal, _) = Journal::open(&folder.path().join("journal")).expect("journal");
        let server = server(folder.path(), journal);
        server.desk().minute = (1_800_000_000 / 60, DECISIONS - 1);
        let asked = void(&server);
        assert!(server.sign("operator", Request::Transaction(&asked)).is_ok());
        let no = server.sign("operator", Request::Transaction(&asked)).expect_err("refused");
        assert_eq!(slug(no), "busy");
    }
}
