//! A Freehold signer elsewhere ([`super::wire`]). It judges what it is asked for by a
//! policy of its own; here its signatures are put to what was asked, and checked.

use std::path::{Path, PathBuf};

use alloy::primitives::Address;
use async_trait::async_trait;
use freehold_core::access::Claims;
use freehold_core::wire::Problem;
use reqwest::{Client, Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{Account, Check, Checked, Refusal, Refused, SignAccess, SignTransaction, SignatureOf};
use super::{Error, SignRequest, Signed, Signer, assemble, believe, call, http, origin, reason, short, signature};

pub struct RemoteSigner {
    api: Api,
    address: Address,
}

impl RemoteSigner {
    /// Asks the signer at `url` whose key it holds. `token` is the file of the projected token; it is
    /// read for each call, since the kubelet renews it.
    pub async fn connect(url: &str, token: &Path) -> Result<Self, Error> {
        let api = Api::new(url, token)?;
        let account: Account = api.get("v1/address").await?;
        Ok(Self { api, address: account.address })
    }
}

#[async_trait]
impl Signer for RemoteSigner {
    fn address(&self) -> Address {
        self.address
    }

    async fn check(&self, requests: &[SignRequest<'_>]) -> Result<Vec<Option<Refusal>>, Error> {
        let transactions = requests.iter().map(asked).collect();
        let checked: Checked = self.api.post("checks", "v1/checks", &Check { transactions }).await?;
        match checked.refusals {
            refusals if refusals.len() == requests.len() => Ok(refusals),
            refusals => Err(Error::Failed(format!(
                "it judged {} transactions of {} that it was asked about",
                refusals.len(),
                requests.len()
            ))),
        }
    }

    async fn sign_transaction(&self, request: SignRequest<'_>) -> Result<Signed, Error> {
        let answer: SignatureOf = self.api.post(request.goal.name(), "v1/transactions", &asked(&request)).await?;
        assemble(request.transaction, signature(&answer.signature)?, self.address)
    }

    async fn sign_access(&self, claims: &Claims, chain_id: u64, market: Address) -> Result<[u8; 65], Error> {
        let request = SignAccess { claims: claims.clone(), chain_id, market };
        let answer: SignatureOf = self.api.post("gateway token", "v1/access", &request).await?;
        let signature = signature(&answer.signature)?;
        believe(&claims.signing_hash(chain_id, market), &signature, self.address)?;
        Ok(signature.as_bytes())
    }
}

fn asked(request: &SignRequest<'_>) -> SignTransaction {
    SignTransaction { goal: request.goal.clone(), transaction: request.transaction.clone() }
}

struct Api {
    url: Url,
    http: Client,
    token: PathBuf,
}

impl Api {
    fn new(url: &str, token: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Unreachable { url: url.to_owned(), reason };
        // A last segment without a slash would be replaced by the path.
        let url = Url::parse(&format!("{}/", url.trim_end_matches('/'))).map_err(|error| wrong(error.to_string()))?;
        let http = http(&url).map_err(|error| wrong(reason(&error)))?;
        Ok(Self { url, http, token: token.to_owned() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call("address", Method::GET, path, None::<&()>).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(what, Method::POST, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let url = self.url.join(path).map_err(|error| self.unreachable(error.to_string()))?;
        let token = tokio::fs::read_to_string(&self.token).await.map_err(|error| {
            self.unreachable(format!("the operator's token at {} cannot be read: {error}", self.token.display()))
        })?;
        let mut request = self.http.request(method, url).bearer_auth(token.trim());
        if let Some(body) = body {
            request = request.json(body);
        }
        let name = path.trim_start_matches("v1/");
        let (status, bytes) = call(name, request).await.map_err(|reason| self.unreachable(reason))?;
        answered(&self.url, what, status, &bytes)
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { url: origin(&self.url), reason }
    }
}

/// What the signer's bytes say.
pub fn answered<T: DeserializeOwned>(
    url: &Url,
    what: &'static str,
    status: StatusCode,
    bytes: &[u8],
) -> Result<T, Error> {
    if status == StatusCode::OK {
        return serde_json::from_slice(bytes).map_err(|error| Error::Failed(short(&error)));
    }
    if let Ok(Refused { refusal: Refusal { rule, value, limit }, .. }) = serde_json::from_slice(bytes) {
        return Err(Error::Refused { what, refusal: Refusal::new(&rule, value, limit) });
    }
    let detail = serde_json::from_slice::<Problem>(bytes).ok().and_then(|problem| problem.detail);
    let reason = detail.map_or_else(|| status.to_string(), |detail| format!("{status}: {}", short(&detail)));
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized { url: origin(url), reason },
        _ => Error::Unreachable { url: origin(url), reason },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_signer_says_at_length_is_told_in_short() {
        let url = Url::parse("http://signer:8080").expect("URL");
        let long = "x".repeat(1 << 19);
        let refused = serde_json::json!({
            "type": "t", "title": "t", "status": 403, "rule": long, "value": long, "limit": long,
        });
        let problem = serde_json::json!({ "type": "t", "title": "t", "status": 503, "detail": long });
        for (status, body) in [
            (StatusCode::FORBIDDEN, refused.to_string()),
            (StatusCode::SERVICE_UNAVAILABLE, problem.to_string()),
            (StatusCode::OK, serde_json::json!({ "address": long }).to_string()),
        ] {
            let error = answered::<Account>(&url, "gateway token", status, body.as_bytes()).expect_err("no account");
            assert!(error.to_string().len() < 2048, "{status}: {} bytes", error.to_string().len());
        }
    }
}
