//! Which addresses may be called on a stranger's behalf.
//!
//! A URL in a task, or in a provider's registration, was written by someone
//! else. So names are resolved here, and connections go to exactly the
//! addresses that were judged: a name that means something else a moment
//! later gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A block of addresses, such as `10.101.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    length: u8,
}

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                u32::from(base) & mask == u32::from(address) & mask
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                u128::from(base) & mask == u128::from(address) & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a block of addresses such as 10.0.0.0/8 or fd00::/8");
        let (base, length) = text.trim().split_once('/').ok_or_else(refused)?;
        let base: IpAddr = base.parse().map_err(|_| refused())?;
        let length: u8 = length.parse().map_err(|_| refused())?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        if length > longest { Err(refused()) } else { Ok(Self { base, length }) }
    }
}

/// Why a URL is not called.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("`{0}` is not an http or https URL with a host")]
    Url(String),
    #[error("`{host}` resolves to {address}, which is not a public address")]
    Address { host: String, address: IpAddr },
    #[error("`{host}` is plain http; use https")]
    Plain { host: String },
}

/// Public addresses by https; those in `allowed` by http too; those in `refused` never.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub allowed: Vec<Cidr>,
    /// Public blocks that belong to the cluster itself.
    pub refused: Vec<Cidr>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("cannot make an HTTP client: {0}")]
    Build(#[from] reqwest::Error),
}

impl Policy {
    pub fn admits(&self, address: IpAddr, plain: bool) -> bool {
        let address = unmapped(address);
        if self.allowed.iter().any(|block| block.contains(address)) {
            return true;
        }
        !plain && is_public(address) && !self.refused.iter().any(|block| block.contains(address))
    }

    /// What can be said of a URL without asking DNS; true if it is plain http.
    pub fn judge(&self, url: &Url) -> Result<bool, Refused> {
        let plain = match url.scheme() {
            "http" => true,
            "https" => false,
            _ => return Err(Refused::Url(shown(url))),
        };
        let host = url.host_str().ok_or_else(|| Refused::Url(shown(url)))?;
        // Literal addresses never reach the resolver.
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>()
            && !self.admits(address, plain)
        {
            return Err(self.refusal(host, address, plain));
        }
        // Without a block to allow it nothing is reachable by plain http: say so without asking DNS.
        if plain && self.allowed.is_empty() {
            return Err(Refused::Plain { host: host.to_owned() });
        }
        Ok(plain)
    }

    /// A client for this URL's host and scheme that follows no redirect, uses
    /// no proxy and connects to admitted addresses only.
    pub fn client(&self, url: &Url) -> Result<reqwest::Client, ClientError> {
        let plain = self.judge(url)?;
        let builder = reqwest::Client::builder()
            .dns_resolver(Arc::new(Guard { policy: self.clone(), plain }))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60));
        Ok(trust(builder, plain).build()?)
    }

    fn refusal(&self, host: &str, address: IpAddr, plain: bool) -> Refused {
        let host = host.to_owned();
        if plain && is_public(unmapped(address)) { Refused::Plain { host } } else { Refused::Address { host, address } }
    }
}

/// Plain http needs no certificates; without this, a container that has none could not even make the client.
pub(crate) fn trust(builder: reqwest::ClientBuilder, plain: bool) -> reqwest::ClientBuilder {
    if plain { builder.tls_certs_only(std::iter::empty()) } else { builder.https_only(true) }
}

/// The URL without what may be secret in it.
pub fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path()).chars().take(256).collect()
}

/// A refusal among an error's causes.
pub fn refusal_of(error: &(dyn std::error::Error + 'static)) -> Option<Refused> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return Some(refused.clone());
        }
        cause = current.source();
    }
    None
}

struct Guard {
    policy: Policy,
    plain: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, plain) = (self.policy.clone(), self.plain);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let admitted: Vec<SocketAddr> = found.iter().copied().filter(|a| policy.admits(a.ip(), plain)).collect();
            match (admitted.is_empty(), found.first()) {
                (true, Some(address)) => Err(policy.refusal(name.as_str(), address.ip(), plain).into()),
                _ => Ok(Box::new(admitted.into_iter()) as Addrs),
            }
        })
    }
}

fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Global unicast, and nothing that a translator would turn into something else.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // 2000::/3 is all that is handed out; in it lie Teredo, 6to4 and documentation.
    a & 0xe000 == 0x2000 && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)) && a != 0x2002 && a != 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn public_addresses_alone_are_public() {
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "100.63.0.1", "198.20.0.1"] {
            assert!(Policy::default().admits(ip(public), false), "{public}");
        }
        let inner = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
            "2001:0:1::1",
            "fec0::1",
        ];
        for address in inner {
            assert!(!Policy::default().admits(ip(address), false), "{address}");
        }
    }

    #[test]
    fn blocks_admit_and_refuse() {
        let policy =
            Policy { allowed: vec!["10.101.0.0/16".parse().unwrap()], refused: vec!["34.0.0.0/8".parse().unwrap()] };
        assert!(policy.admits(ip("10.101.3.4"), true));
        assert!(policy.admits(ip("::ffff:10.101.3.4"), true));
        assert!(!policy.admits(ip("10.102.0.1"), false));
        assert!(!policy.admits(ip("34.1.2.3"), false));
        assert!(!policy.admits(ip("1.1.1.1"), true), "public addresses are for https alone");
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(ip("9.9.9.9")));
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn literal_addresses_and_plain_http_are_judged_at_once() {
        let client = |text: &str| {
            Policy::default().client(&Url::parse(text).unwrap()).map(|_| ()).map_err(|e| match e {
                ClientError::Refused(refused) => Some(refused),
                ClientError::Build(_) => None,
            })
        };
        assert!(matches!(client("https://127.0.0.1/x"), Err(Some(Refused::Address { .. }))));
        assert!(matches!(client("https://[::ffff:10.0.0.1]/x"), Err(Some(Refused::Address { .. }))));
        assert!(matches!(client("https://2130706433/"), Err(Some(Refused::Address { .. }))), "127.0.0.1 as one number");
        assert!(matches!(client("http://1.1.1.1/x"), Err(Some(Refused::Plain { .. }))));
        assert!(matches!(client("http://example.org/x"), Err(Some(Refused::Plain { .. }))));
        assert!(matches!(client("ftp://example.org/x"), Err(Some(Refused::Url(_)))));
        assert!(matches!(client("file:///etc/passwd"), Err(Some(Refused::Url(_)))));
    }
}
