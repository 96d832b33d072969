//! The grammar of server names (appendices, "Server Name").

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name of a host.
const HOST_MAX_BYTES: usize = 255;

/// The first part of a server name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP literal.
    Ip(IpAddr),
    /// A name, in lower case.
    Name(String),
}

/// A server name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, where there is one.
    pub port: Option<u16>,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => self.host.fmt(f),
        }
    }
}

impl HostPort {
    /// Takes a server name apart; `None` if it is none, or has a port that nobody can connect to.
    pub fn parse(name: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = name.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':')?),
            };
            (Host::Ip(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)), port)
        } else {
            let (host, port) = match name.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (name, None),
            };
            (parse_host(host)?, port)
        };
        let port = match port {
            Some(port) => Some(parse_port(port)?),
            None => None,
        };
        Some(Self { host, port })
    }
}

fn parse_host(host: &str) -> Option<Host> {
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Some(Host::Ip(IpAddr::V4(address)));
    }
    let fits = (1..=HOST_MAX_BYTES).contains(&host.len())
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
    fits.then(|| Host::Name(host.to_ascii_lowercase()))
}

fn parse_port(port: &str) -> Option<u16> {
    let fits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port != 0)?;
    fits.then_some(port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("a.example", Some(("a.example", None))),
            ("A.Example:8448", Some(("a.example", Some(8448)))),
            ("1.2.3.4", Some(("1.2.3.4", None))),
            ("1.2.3.4:80", Some(("1.2.3.4", Some(80)))),
            ("[::1]", Some(("[::1]", None))),
            ("[2001:db8::1]:1", Some(("[2001:db8::1]", Some(1)))),
            ("1.2.3.4.5", Some(("1.2.3.4.5", None))),
            ("a:65535", Some(("a", Some(65535)))),
            ("a:00080", Some(("a", Some(80)))),
            ("", None),
            (":1", None),
            ("a:", None),
            ("a:0", None),
            ("a:65536", None),
            ("a:000080", None),
            ("a:+80", None),
            ("a:1:2", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::1]:", None),
            ("[1.2.3.4]", None),
            ("[fe80::1%eth0]", None),
            ("a_b", None),
            ("a b", None),
            ("a/b", None),
            ("user@a", None),
            ("ä.example", None),
        ];
        for (text, expected) in cases {
            let parsed = HostPort::parse(text);
            let parts = parsed.as_ref().map(|name| (name.host.to_string(), name.port));
            assert_eq!(
                parts,
                expected.map(|(host, port)| (host.to_owned(), port)),
                "{text}"
            );
        }
        assert_eq!(HostPort::parse(&"a".repeat(256)), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Some(name) = HostPort::parse(&text) {
                prop_assert_eq!(HostPort::parse(&name.to_string()), Some(name));
            }
        }

        #[test]
        fn what_looks_like_a_name_comes_back(text in "[a-z0-9.:\\[\\]-]{1,24}") {
            if let Some(name) = HostPort::parse(&text) {
                prop_assert_eq!(HostPort::parse(&name.to_string()), Some(name));
            }
        }
    }
}
