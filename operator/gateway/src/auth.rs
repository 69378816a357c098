//! Who may do what: tenants by their wallet's signature, pods and the
//! operator by their service account's token.

use freehold_core::access::{self, Expected, Scope};
use http::{HeaderMap, StatusCode, header};

use crate::gateway::{Gateway, Side};
use crate::leases::Lease;
use crate::problem::Failure;
use crate::reviews::COURIER;

/// Who calls the courier listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A pod of the lease.
    Pod,
    /// The provider's operator.
    Operator,
}

/// Refuses a call that the lease's tenant did not sign for this gateway and scope.
pub fn tenant(gateway: &Gateway, lease: &Lease, headers: &HeaderMap, scope: Scope) -> Result<(), Failure> {
    let token = authorization(headers)?;
    let check = |host: &String| {
        let expected = Expected {
            lease: lease.id,
            host,
            scope,
            tenant: lease.tenant,
            chain_id: lease.chain_id,
            market: lease.market,
            now: (gateway.clock)(),
        };
        access::verify(token, &expected)
    };
    let mut first = None;
    for host in &gateway.hosts {
        match check(host) {
            Ok(_) => return gateway.count(lease.id, Side::Tenant),
            Err(access::Error::OtherHost { found, expected }) => {
                first.get_or_insert(access::Error::OtherHost { found, expected });
            }
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(refused(&first.unwrap_or(access::Error::Malformed)))
}

/// Who the service-account token says is calling about `lease`.
pub async fn caller(gateway: &Gateway, lease: &Lease, headers: &HeaderMap) -> Result<Caller, Failure> {
    let token = authorization(headers)?.strip_prefix("Bearer ").ok_or_else(|| unauthorized("send `Bearer <token>`"))?;
    let user = gateway.reviews.user_of(token.trim()).await.map_err(|unavailable| {
        tracing::warn!(%unavailable, "cannot review a token");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "review-unavailable", "tokens cannot be reviewed now; try again")
            .with("retry-after", "2")
    })?;
    let user = user.ok_or_else(|| unauthorized("the token is not valid for this gateway"))?;
    if user == gateway.operator_account {
        Ok(Caller::Operator)
    } else if user == format!("system:serviceaccount:{}:{COURIER}", lease.namespace) {
        gateway.count(lease.id, Side::Pods).map(|()| Caller::Pod)
    } else {
        Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", "this service account has no part in the lease"))
    }
}

fn authorization(headers: &HeaderMap) -> Result<&str, Failure> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| unauthorized("the Authorization header is missing"))
}

fn refused(error: &access::Error) -> Failure {
    match error {
        access::Error::Scope { .. } | access::Error::OtherSigner { .. } => {
            Failure::new(StatusCode::FORBIDDEN, "forbidden", error.to_string())
        }
        access::Error::Malformed
        | access::Error::OtherLease { .. }
        | access::Error::OtherHost { .. }
        | access::Error::Expired { .. }
        | access::Error::TooLong { .. }
        | access::Error::Scopes(_) => unauthorized(error.to_string()),
    }
}

fn unauthorized(detail: impl Into<String>) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).with("www-authenticate", access::SCHEME)
}
