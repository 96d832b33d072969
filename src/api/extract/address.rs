//! Who is at the other end of the connection.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use hearth_core::config::Network;
use http::HeaderMap;
use http::request::Parts;

use crate::app::App;
use crate::edge::PeerAddress;

/// The client's address, if the connection has one.
///
/// `X-Forwarded-For` counts only when the connection comes from a trusted proxy: anybody else could
/// write what he likes into it.
#[derive(Clone, Copy, Debug)]
pub struct Address(pub Option<IpAddr>);

impl FromRequestParts<Arc<App>> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<PeerAddress>().map(|peer| peer.0);
        Ok(Self(peer.map(|peer| {
            forwarded(&parts.headers, peer, &app.config.trusted_proxies)
        })))
    }
}

/// The address nearest to us in the chain of proxies that is not one of ours.
fn forwarded(headers: &HeaderMap, peer: IpAddr, proxies: &[Network]) -> IpAddr {
    let trusted = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
    let mut nearest = peer;
    let chain = headers.get_all("x-forwarded-for").iter().rev();
    for entry in chain
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.rsplit(','))
    {
        let Some(address) = entry.trim().parse().ok().filter(|_| trusted(nearest)) else {
            break;
        };
        nearest = address;
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses() {
        let proxies = ["127.0.0.1", "10.0.0.0/8"].map(|text| Network::parse(text).expect("a network"));
        let check = |peer: &str, header: Option<&'static str>, expected: &str| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("x-forwarded-for", header.parse().expect("a header"));
            }
            let got = forwarded(&headers, peer.parse().expect("an address"), &proxies);
            assert_eq!(
                got,
                expected.parse::<IpAddr>().expect("an address"),
                "{peer} {header:?}"
            );
        };
        check("127.0.0.1", None, "127.0.0.1");
        check("127.0.0.1", Some("198.51.100.4"), "198.51.100.4");
        check("10.0.0.9", Some("203.0.113.1, 198.51.100.4"), "198.51.100.4");
        check("10.0.0.9", Some("198.51.100.4, 10.0.0.7"), "198.51.100.4");
        check("127.0.0.1", Some("nonsense"), "127.0.0.1");
        check("192.0.2.1", Some("198.51.100.4"), "192.0.2.1");
    }
}
