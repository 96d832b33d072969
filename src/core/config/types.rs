//! Types of configuration values that are more than a text, a number or a truth value.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

/// A text that is never shown in logs or error messages.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationMode {
    /// Anyone.
    Open,
    /// Whoever has a registration token.
    Token,
    /// Nobody, but by the shared secret or the command line.
    Closed,
}

/// Everyone or administrators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Every user.
    Everyone,
    /// Administrators only.
    Admins,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// The client-server API with media and administration, and the start page.
    Client,
    /// The server-server API and this server's keys.
    Federation,
    /// `/metrics`, for everyone who reaches the listener.
    Metrics,
    /// `/_hearth/health/`.
    Health,
    /// `/.well-known/matrix/`.
    WellKnown,
}

/// An address to listen on and what is served there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// `address:port`.
    pub address: String,
    /// What it serves.
    pub apis: Vec<Api>,
    /// Whether it speaks TLS.
    #[serde(default)]
    pub tls: bool,
    /// Its own certificate chain.
    pub tls_certificate: Option<PathBuf>,
    /// Its own private key.
    pub tls_key: Option<PathBuf>,
}

/// A signing key that is not used any more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerKey {
    /// Its id, such as `ed25519:a_1`.
    pub id: String,
    /// The public key in unpadded base64.
    pub key: String,
    /// When it was used last, in milliseconds since 1970.
    pub expired_ts: u64,
}

/// A policy to be accepted at registration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// A short name for programs.
    pub id: String,
    /// The version; a new one has to be accepted anew.
    pub version: String,
    /// Its title.
    pub name: String,
    /// Its text.
    pub url: String,
    /// The language of name and text.
    #[serde(default = "english")]
    pub language: String,
}

fn english() -> String {
    "en".to_owned()
}

/// A person to turn to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct SupportContact {
    /// What for, such as `m.role.admin` or `m.role.security`.
    pub role: String,
    /// A Matrix user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<String>,
    /// An e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second in the long run.
    pub per_second: f64,
    /// Requests at once.
    #[serde(deserialize_with = "whole_number")]
    pub burst: u32,
}

/// The schema's defaults can only write maps of one number type, so whole floats are taken too.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = f64::deserialize(deserializer)?;
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    if fits {
        Ok(number as u32)
    } else {
        Err(de::Error::custom("burst must be a whole number"))
    }
}

/// An address or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads `10.0.0.1` or `10.0.0.0/8`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|p| *p <= longest)?,
            None => longest,
        };
        Some(Self { address, prefix })
    }

    /// Whether the address lies in the network. An IPv4 address written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(other)) => {
                let differs = Ipv4Addr::to_bits(net) ^ Ipv4Addr::to_bits(other);
                differs.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(net), IpAddr::V6(other)) => {
                let differs = Ipv6Addr::to_bits(net) ^ Ipv6Addr::to_bits(other);
                differs.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("{text:?} is not an address or a network like 10.0.0.0/8"))
        })
    }
}

/// Reads a number of bytes, or a text such as "50 MiB".
pub(super) fn byte_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(deserializer) {
        Ok(Written::Number(bytes)) => Ok(bytes),
        Ok(Written::Text(text)) => parse_bytes(&text)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is not a size like 1048576 or \"50 MiB\""))),
        Err(_) => Err(de::Error::custom("expected a size like 1048576 or \"50 MiB\"")),
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1,
        "kb" => 1_000,
        "kib" | "k" => 1 << 10,
        "mb" => 1_000_000,
        "mib" | "m" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" | "g" => 1 << 30,
        "tb" => 1_000_000_000_000,
        "tib" | "t" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("50 MiB", Some(50 << 20)),
            ("1gib", Some(1 << 30)),
            ("2 kB", Some(2_000)),
            ("-1", None),
            ("1.5 MiB", None),
            ("5 apples", None),
            ("99999999999 TiB", None),
            ("", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn networks() {
        let cases = [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::1", "::1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
            ("0.0.0.0/0", "203.0.113.9", true),
        ];
        for (network, address, inside) in cases {
            let network = Network::parse(network).expect("a network");
            assert_eq!(
                network.contains(address.parse().expect("an address")),
                inside,
                "{network:?} {address}"
            );
        }
        for bad in ["", "10.0.0.0/33", "example.org", "10.0.0.0/x"] {
            assert_eq!(Network::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        assert!(!format!("{:?}", Secret::new("hush")).contains("hush"));
    }
}
