//! Who may do what in the namespace: its pods nothing, gateway and operator read their logs.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};

use super::{Blueprint, Made, SERVICE_ACCOUNT};

/// An identity for the gateway alone; it is bound to no role.
pub(super) fn service_account(made: &Made<'_>) -> ServiceAccount {
    ServiceAccount {
        metadata: made.meta(SERVICE_ACCOUNT),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The chart's ClusterRole for logs, bound here to the gateway of this release.
pub(super) fn log_readers(made: &Made<'_>) -> RoleBinding {
    let blueprint = made.blueprint;
    let name = blueprint.release_name();
    RoleBinding {
        metadata: made.meta("gateway-logs"),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "ClusterRole".into(),
            name: format!("{}-lease-logs", cluster_name(blueprint.release_namespace(), name)),
        },
        // The gateway follows them for the tenant, the operator keeps their end.
        subjects: Some(["gateway", "operator"].map(|who| subject(blueprint, who)).to_vec()),
    }
}

fn subject(blueprint: &Blueprint, who: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".into(),
        name: format!("{}-{who}", blueprint.release_name()),
        namespace: Some(blueprint.release_namespace().to_owned()),
        api_group: None,
    }
}

/// How the chart names cluster-scoped objects of a release.
fn cluster_name(namespace: &str, name: &str) -> String {
    let mut joined = format!("{namespace}-{name}");
    joined.truncate(50);
    joined.strip_suffix('-').map(str::to_owned).unwrap_or(joined)
}
