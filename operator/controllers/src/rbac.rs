//! What a controller may do, as a table beside the code that does it. The
//! chart's roles are generated from these tables, so nothing is granted that
//! no code asks for.

/// Where a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The release's own namespace.
    Release,
    /// The whole cluster: cluster-scoped kinds, and kinds that tenants keep in namespaces of their own.
    Cluster,
    /// Namespaces of leases (`fh-lease-…`). Their names are not known in advance: granted for the
    /// cluster, and narrowed by the fence (a ValidatingAdmissionPolicy).
    LeaseNamespaces,
}

/// One line of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// API group; `""` is the core group.
    pub group: &'static str,
    /// Plural names, subresources as `name/sub`.
    pub resources: &'static [&'static str],
    pub verbs: &'static [&'static str],
    pub scope: Scope,
}

impl Rule {
    pub const fn new(
        group: &'static str,
        resources: &'static [&'static str],
        verbs: &'static [&'static str],
        scope: Scope,
    ) -> Self {
        Self { group, resources, verbs, scope }
    }
}

/// `get, list, watch`: what a reflector needs.
pub const READ: &[&str] = &["get", "list", "watch"];
