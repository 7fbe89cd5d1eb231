//! Which addresses an HTTP step may reach from the operator's network.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// An address that a tenant must not reach through the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is an address of the operator's own host or link: HTTP steps may not ask it")]
pub(super) struct Refused(pub(super) String);

/// Whether an address leads to the operator's own host or link, where services trust whoever can reach them (the
/// metadata service of clouds among them).
pub fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_local_v4(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| is_local_v6(v6), is_local_v4),
    }
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first == 0 || address.is_loopback() || address.is_link_local() || address.is_broadcast() || address.is_multicast()
}

fn is_local_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // `::a.b.c.d` and 6to4, NAT64 carry a v4 address that some hosts route to.
    let embedded = match segments {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    };
    let metadata = address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || (segments[0] & 0xffc0) == 0xfe80
        || metadata
        || embedded.is_some_and(is_local_v4)
}

/// Checks a host that is written as an address; names are checked when they are resolved.
pub(super) fn check_literal(url: &reqwest::Url) -> Result<(), Refused> {
    let host = url.host_str().unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) if is_local(address) => Err(Refused(host.to_owned())),
        _ => Ok(()),
    }
}

/// Resolves names, and leaves out what [`is_local`]: the check is made on the very addresses that are connected to.
pub(super) struct Guard;

impl Guard {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let good: Vec<SocketAddr> = all.iter().copied().filter(|address| !is_local(address.ip())).collect();
            match all.first() {
                Some(first) if good.is_empty() => Err(Refused(format!("{name} ({})", first.ip())).into()),
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_own_host_and_link_are_local_however_they_are_written() {
        for local in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fd00:ec2::254",
            "::127.0.0.1",
        ] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["10.96.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
        for url in ["http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]:8080/"] {
            assert!(check_literal(&url.parse().unwrap()).is_err(), "{url}");
        }
    }
}
