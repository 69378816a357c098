//! Tenants' calls to a gateway: `Authorization: Freehold <claims>.<signature>`,
//! EIP-712 typed data signed by the lease's tenant account.

use alloy_primitives::{Address, B256, Signature};
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain, sol};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Name of the scheme in the `Authorization` header.
pub const SCHEME: &str = "Freehold";
/// A token may not outlive this many seconds.
pub const MAX_LIFE: u64 = 600;
/// Longest header value that is read.
const MAX_LENGTH: usize = 2048;

sol! {
    #[derive(Debug, PartialEq, Eq)]
    struct Access {
        bytes32 lease;
        string host;
        string scopes;
        uint64 expiry;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Logs,
    Read,
    Write,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What a token says, before its signature is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Order id.
    pub lease: B256,
    /// Host (and port, where it is not the scheme's own) of the gateway that the token is for.
    pub host: String,
    /// Sorted, separated by one space.
    pub scopes: String,
    /// Unix seconds.
    pub expiry: u64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the Authorization header must be `{SCHEME} <base64url claims>.<base64url signature>`")]
    Malformed,
    #[error("the token is for lease {found}, this is {expected}")]
    OtherLease { found: B256, expected: B256 },
    #[error("the token is for host `{found}`, this is `{expected}`")]
    OtherHost { found: String, expected: String },
    #[error("the token expired at {expiry}; sign a new one")]
    Expired { expiry: u64 },
    #[error("the token expires at {expiry}, more than {MAX_LIFE} s ahead; sign a shorter one")]
    TooLong { expiry: u64 },
    #[error("the token's scopes `{found}` do not hold `{needed}`")]
    Scope { found: String, needed: &'static str },
    #[error("the token's scopes `{0}` are not a sorted list of logs, read, write")]
    Scopes(String),
    #[error("the token was signed by {found}, the lease's tenant is {expected}")]
    OtherSigner { found: Address, expected: Address },
}

/// Sorted, single-space-separated form of `scopes`.
pub fn scopes(scopes: &[Scope]) -> String {
    let mut sorted = scopes.to_vec();
    sorted.sort();
    sorted.dedup();
    sorted.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ")
}

pub fn domain(chain_id: u64, market: Address) -> Eip712Domain {
    eip712_domain! {
        name: "Freehold",
        version: "1",
        chain_id: chain_id,
        verifying_contract: market,
    }
}

impl Claims {
    /// The hash that the tenant's account signs.
    pub fn signing_hash(&self, chain_id: u64, market: Address) -> B256 {
        let access =
            Access { lease: self.lease, host: self.host.clone(), scopes: self.scopes.clone(), expiry: self.expiry };
        access.eip712_signing_hash(&domain(chain_id, market))
    }

    /// Value of the `Authorization` header; `signature` is r ‖ s ‖ v (65 bytes).
    pub fn header(&self, signature: &[u8]) -> Result<String, serde_json::Error> {
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(self)?);
        Ok(format!("{SCHEME} {claims}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// What a gateway expects of a token.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    pub lease: B256,
    pub host: &'a str,
    pub scope: Scope,
    pub tenant: Address,
    pub chain_id: u64,
    pub market: Address,
    /// Unix seconds.
    pub now: u64,
}

/// Checks everything a token can be wrong in; the signer last, since that costs most.
pub fn verify(header: &str, expected: &Expected<'_>) -> Result<Claims, Error> {
    let (claims, signature) = parse(header)?;
    if claims.lease != expected.lease {
        return Err(Error::OtherLease { found: claims.lease, expected: expected.lease });
    }
    if !claims.host.eq_ignore_ascii_case(expected.host) {
        return Err(Error::OtherHost { found: claims.host, expected: expected.host.to_owned() });
    }
    if claims.expiry <= expected.now {
        return Err(Error::Expired { expiry: claims.expiry });
    }
    if claims.expiry > expected.now + MAX_LIFE {
        return Err(Error::TooLong { expiry: claims.expiry });
    }
    check_scopes(&claims.scopes, expected.scope)?;
    let hash = claims.signing_hash(expected.chain_id, expected.market);
    let signer = signature.recover_address_from_prehash(&hash).map_err(|_| Error::Malformed)?;
    if signer != expected.tenant {
        return Err(Error::OtherSigner { found: signer, expected: expected.tenant });
    }
    Ok(claims)
}

fn parse(header: &str) -> Result<(Claims, Signature), Error> {
    if header.len() > MAX_LENGTH {
        return Err(Error::Malformed);
    }
    let token = header.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix(' ')).ok_or(Error::Malformed)?;
    let (claims, signature) = token.split_once('.').ok_or(Error::Malformed)?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Malformed);
    let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| Error::Malformed)?;
    let signature = Signature::try_from(decode(signature)?.as_slice()).map_err(|_| Error::Malformed)?;
    Ok((claims, signature))
}

fn check_scopes(text: &str, needed: Scope) -> Result<(), Error> {
    let named: Option<Vec<Scope>> = text
        .split(' ')
        .map(|name| [Scope::Logs, Scope::Read, Scope::Write].into_iter().find(|s| s.as_str() == name))
        .collect();
    let named = named.ok_or_else(|| Error::Scopes(text.to_owned()))?;
    if scopes(&named) != text {
        return Err(Error::Scopes(text.to_owned()));
    }
    if !named.contains(&needed) {
        return Err(Error::Scope { found: text.to_owned(), needed: needed.as_str() });
    }
    Ok(())
}
