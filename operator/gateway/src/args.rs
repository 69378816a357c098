//! What the gateway is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::{Cidr, Policy};

#[derive(Clone, Debug, clap::Args)]
pub struct GatewayArgs {
    /// Where tenants call.
    #[arg(long, env = "FREEHOLD_GATEWAY_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where pods of leases and the provider's operator call.
    #[arg(long, env = "FREEHOLD_GATEWAY_COURIER_LISTEN", default_value = "0.0.0.0:8081")]
    pub courier_listen: SocketAddr,
    /// Health and metrics.
    #[arg(long, env = "FREEHOLD_GATEWAY_HEALTH_LISTEN", default_value = "0.0.0.0:8082")]
    pub health_listen: SocketAddr,
    /// Folder of everything that is held of leases.
    #[arg(long, env = "FREEHOLD_STORE")]
    pub store: PathBuf,
    /// The gateway's public addresses, separated by commas: tokens must be for one of these hosts.
    #[arg(long, env = "FREEHOLD_PUBLIC_URL")]
    pub public_url: String,
    /// Namespace of the release, in which the ComputeLeases are.
    #[arg(long, env = "FREEHOLD_NAMESPACE")]
    pub namespace: String,
    /// User name of the provider's operator, such as `system:serviceaccount:freehold-provider:freehold-operator`.
    #[arg(long, env = "FREEHOLD_OPERATOR_ACCOUNT")]
    pub operator_account: String,
    /// Private blocks, separated by commas, from which inputs may be fetched, over plain http too. Development only.
    #[arg(long, env = "FREEHOLD_ALLOWED_CIDRS", default_value = "")]
    pub allowed_cidrs: String,
    /// Public blocks, separated by commas, that belong to the cluster and are never fetched from.
    #[arg(long, env = "FREEHOLD_REFUSED_CIDRS", default_value = "")]
    pub refused_cidrs: String,
    /// Bytes that one lease may hold.
    #[arg(long, env = "FREEHOLD_LEASE_QUOTA", default_value_t = 20 << 30)]
    pub lease_quota: u64,
    #[command(flatten)]
    pub limits: Limits,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Limits {
    /// Seconds that one request may take, streams aside.
    #[arg(long, env = "FREEHOLD_REQUEST_SECONDS", default_value_t = 600)]
    pub request_seconds: u64,
    /// Seconds without a byte after which an upload counts as cut.
    #[arg(long, env = "FREEHOLD_IDLE_SECONDS", default_value_t = 30)]
    pub idle_seconds: u64,
    /// Seconds that a followed log may last.
    #[arg(long, env = "FREEHOLD_FOLLOW_SECONDS", default_value_t = 3600)]
    pub follow_seconds: u64,
    /// Uploads at a time.
    #[arg(long, env = "FREEHOLD_UPLOADS", default_value_t = 16)]
    pub uploads: usize,
    /// Followed logs at a time.
    #[arg(long, env = "FREEHOLD_FOLLOWS", default_value_t = 64)]
    pub follows: usize,
    /// Connections at a time, a listener.
    #[arg(long, env = "FREEHOLD_CONNECTIONS", default_value_t = 512)]
    pub connections: usize,
    /// Requests a second, a lease.
    #[arg(long, env = "FREEHOLD_RATE", default_value_t = 50)]
    pub rate: u32,
    /// Days that a lease's files are kept after the ComputeLease is gone.
    #[arg(long, env = "FREEHOLD_KEEP_DAYS", default_value_t = 7)]
    pub keep_days: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_seconds: 600,
            idle_seconds: 30,
            follow_seconds: 3600,
            uploads: 16,
            follows: 64,
            connections: 512,
            rate: 50,
            keep_days: 7,
        }
    }
}

impl Limits {
    pub fn request(&self) -> Duration {
        Duration::from_secs(self.request_seconds)
    }

    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    pub fn follow(&self) -> Duration {
        Duration::from_secs(self.follow_seconds)
    }
}

impl GatewayArgs {
    pub fn policy(&self) -> Result<Policy, String> {
        Ok(Policy { allowed: cidrs(&self.allowed_cidrs)?, refused: cidrs(&self.refused_cidrs)? })
    }

    /// The hosts that tokens may be for.
    pub fn hosts(&self) -> Result<Vec<String>, String> {
        let hosts: Result<Vec<String>, String> = listed(&self.public_url)
            .map(|text| {
                let url = reqwest::Url::parse(text).map_err(|e| format!("public URL `{text}`: {e}"))?;
                host_of(&url).ok_or_else(|| format!("public URL `{text}` has no host"))
            })
            .collect();
        match hosts? {
            hosts if hosts.is_empty() => Err("set --public-url to the address that tenants call".into()),
            hosts => Ok(hosts),
        }
    }
}

pub fn cidrs(text: &str) -> Result<Vec<Cidr>, String> {
    listed(text).map(str::parse).collect()
}

/// Host, with the port where it is not the scheme's own: what a token is for.
pub fn host_of(url: &reqwest::Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        gateway: GatewayArgs,
    }

    #[test]
    fn starts_with_what_the_chart_gives() {
        use clap::Parser;
        let args = ["gateway", "--store", "/store", "--public-url", "https://gw.example.org,http://10.101.0.1:30080"];
        let more =
            ["--namespace", "provider", "--operator-account", "system:serviceaccount:provider:freehold-operator"];
        let args = Program::try_parse_from(args.into_iter().chain(more)).map_err(|e| e.to_string()).unwrap().gateway;
        assert_eq!(args.hosts(), Ok(vec!["gw.example.org".into(), "10.101.0.1:30080".into()]));
        assert_eq!((args.listen.port(), args.courier_listen.port(), args.health_listen.port()), (8080, 8081, 8082));
        assert_eq!(args.policy().map(|policy| policy.allowed.len()), Ok(0));
        let defaults = Limits::default();
        assert_eq!(format!("{:?}", args.limits), format!("{defaults:?}"));
    }

    #[test]
    fn lists_may_be_empty_and_hosts_keep_their_port() {
        assert_eq!(cidrs(""), Ok(Vec::new()));
        assert_eq!(cidrs("10.0.0.0/8, fd00::/8").map(|list| list.len()), Ok(2));
        assert!(cidrs("10.0.0.0/8,x").is_err());
        let host = |text: &str| host_of(&reqwest::Url::parse(text).unwrap());
        assert_eq!(host("https://gw.example.org:443/"), Some("gw.example.org".into()));
        assert_eq!(host("http://10.101.0.1:30080"), Some("10.101.0.1:30080".into()));
    }
}
