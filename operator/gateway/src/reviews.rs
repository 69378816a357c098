//! Who calls with a service account's token: the API server says whose it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Api;
use kube::api::PostParams;

use crate::Clock;
use crate::digest::Digest;

/// Audience of the courier's and the operator's projected tokens.
pub const AUDIENCE: &str = "freehold-gateway";
/// Name of the courier's service account in each lease namespace.
pub const COURIER: &str = "courier";
/// Seconds that a verdict is believed.
const FRESH: u64 = 30;
/// Verdicts that are remembered.
const REMEMBERED: usize = 4096;
/// Longest token that is sent on for review.
const LONGEST: usize = 8192;

#[derive(Debug, thiserror::Error)]
#[error("the API server cannot review a token: {0}")]
pub struct Unavailable(pub String);

/// Says whose a token is: `system:serviceaccount:<namespace>:<name>`, or nobody's.
#[async_trait::async_trait]
pub trait ReviewTokens: Send + Sync {
    async fn user_of(&self, token: &str) -> Result<Option<String>, Unavailable>;
}

pub struct ApiServer {
    client: kube::Client,
    audience: &'static str,
}

impl ApiServer {
    /// Believes tokens that are for `audience`.
    pub fn new(client: kube::Client, audience: &'static str) -> Self {
        Self { client, audience }
    }
}

#[async_trait::async_trait]
impl ReviewTokens for ApiServer {
    async fn user_of(&self, token: &str) -> Result<Option<String>, Unavailable> {
        let spec = TokenReviewSpec { audiences: Some(vec![self.audience.into()]), token: Some(token.into()) };
        let review = TokenReview { spec, ..Default::default() };
        let answer = Api::<TokenReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|e| Unavailable(e.to_string()))?;
        let status = answer.status.unwrap_or_default();
        // A server that does not know audiences would accept tokens that are meant for itself.
        let ours = status.audiences.unwrap_or_default().iter().any(|audience| audience == self.audience);
        let known = status.authenticated.unwrap_or_default() && ours;
        Ok(status.user.filter(|_| known).and_then(|user| user.username))
    }
}

/// Remembers verdicts for a while: a courier calls once a second.
pub struct Reviews {
    reviewer: Arc<dyn ReviewTokens>,
    clock: Clock,
    /// By the token's digest, so that no token is kept.
    verdicts: Mutex<HashMap<Digest, (u64, Option<String>)>>,
}

impl Reviews {
    pub fn new(reviewer: Arc<dyn ReviewTokens>, clock: Clock) -> Self {
        Self { reviewer, clock, verdicts: Mutex::default() }
    }

    pub async fn user_of(&self, token: &str) -> Result<Option<String>, Unavailable> {
        if token.is_empty() || token.len() > LONGEST {
            return Ok(None);
        }
        let (key, now) = (Digest::of(token.as_bytes()), (self.clock)());
        if let Some(user) = self.remembered(&key, now) {
            return Ok(user);
        }
        let user = self.reviewer.user_of(token).await?;
        let mut verdicts = self.verdicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        verdicts.retain(|_, (at, _)| now.saturating_sub(*at) < FRESH);
        if verdicts.len() < REMEMBERED {
            verdicts.insert(key, (now, user.clone()));
        }
        Ok(user)
    }

    fn remembered(&self, key: &Digest, now: u64) -> Option<Option<String>> {
        let verdicts = self.verdicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        verdicts.get(key).filter(|(at, _)| now.saturating_sub(*at) < FRESH).map(|(_, user)| user.clone())
    }
}
