//! Which addresses may be connected to: those of the public internet, and what the operator allows.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use hearth_core::config::Network;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Networks that are not the public internet: loopback, private use, link-local, carrier NAT,
/// documentation, benchmarks, multicast, reserved; and IPv6 ways to write IPv4 addresses that could
/// hide one of them (Teredo, 6to4, NAT64).
static NOT_PUBLIC: LazyLock<Vec<Network>> = LazyLock::new(|| {
    const NETWORKS: &[&str] = &[
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ];
    NETWORKS
        .iter()
        .map(|text| Network::parse(text).expect("the list holds networks"))
        .collect()
});

/// Whether an address is part of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    !NOT_PUBLIC.iter().any(|network| network.contains(address))
}

/// A name has no address that we may connect to.
#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
pub(crate) struct NotPublic;

/// Looks names up, and leaves out addresses to which we may not connect.
#[derive(Clone, Debug)]
pub(crate) struct GuardedResolver {
    pub(crate) allow_private: bool,
    /// Networks that are allowed though they are not public.
    pub(crate) allow: Arc<[Network]>,
}

impl GuardedResolver {
    /// Whether we may connect to an address.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.allow_private || is_public(address) || self.allow.iter().any(|network| network.contains(address))
    }

    /// The addresses of a host with this port.
    pub(crate) async fn lookup(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found = tokio::net::lookup_host((host, port)).await?;
        let found: Vec<SocketAddr> = found.collect();
        let any = !found.is_empty();
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| self.allows(address.ip()))
            .collect();
        if any && allowed.is_empty() {
            return Err(NotPublic.into());
        }
        Ok(allowed)
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let allowed = guard.lookup(name.as_str(), 0).await?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses() {
        let cases = [
            ("1.1.1.1", true),
            ("8.8.8.8", true),
            ("172.32.0.1", true),
            ("2606:4700::1111", true),
            ("10.1.2.3", false),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:1.1.1.1", true),
            ("::127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ];
        for (address, public) in cases {
            assert_eq!(
                is_public(address.parse().expect("an address")),
                public,
                "{address}"
            );
        }
    }
}
