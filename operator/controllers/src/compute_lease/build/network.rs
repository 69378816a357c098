//! Nothing comes in, nothing goes out but to the gateway's courier port.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Made;

pub(super) fn policies(made: &Made<'_>) -> Vec<NetworkPolicy> {
    let spec = |egress| NetworkPolicySpec {
        pod_selector: Some(LabelSelector::default()),
        policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
        ingress: None,
        egress,
    };
    let policy = |name, egress| NetworkPolicy { metadata: made.meta(name), spec: Some(spec(egress)) };
    vec![policy("deny-all", None), policy("gateway", Some(vec![to_gateway(made)]))]
}

/// Policies see the pod behind a Service's address, so the port is the pod's.
fn to_gateway(made: &Made<'_>) -> NetworkPolicyEgressRule {
    let labels = |pairs: &[(&str, &str)]| LabelSelector {
        match_labels: Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()),
        match_expressions: None,
    };
    let blueprint = made.blueprint;
    NetworkPolicyEgressRule {
        to: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(labels(&[("kubernetes.io/metadata.name", blueprint.release_namespace())])),
            pod_selector: Some(labels(&[
                ("app.kubernetes.io/name", "freehold"),
                ("app.kubernetes.io/instance", blueprint.release_name()),
                ("app.kubernetes.io/component", "gateway"),
            ])),
            ip_block: None,
        }]),
        ports: Some(vec![NetworkPolicyPort {
            protocol: Some("TCP".into()),
            port: Some(IntOrString::Int(i32::from(blueprint.gateway.port))),
            end_port: None,
        }]),
    }
}
