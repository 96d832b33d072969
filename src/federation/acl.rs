//! Which servers a room lets take part: `m.room.server_acl` (server-server API, "Server Access Control Lists (ACLs)";
//! client-server API, "m.room.server_acl").

use std::net::{Ipv4Addr, Ipv6Addr};

use ruma::ServerName;
use serde_json::{Map, Value};

/// The patterns of one list that are looked at: an event holds at most 64 KiB, which is less than this.
const PATTERNS_MAX: usize = 40_000;

/// A room's list, ready for questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerAcl {
    allow_ip_literals: bool,
    allow: Vec<String>,
    deny: Vec<String>,
}

impl ServerAcl {
    /// Reads the content of the event. What is not of the right type counts as absent: an `allow` that is missing allows
    /// nobody.
    pub fn parse(content: &Map<String, Value>) -> Self {
        let patterns = |key: &str| -> Vec<String> {
            let list = content.get(key).and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .take(PATTERNS_MAX)
                .map(str::to_lowercase)
                .collect()
        };
        Self {
            allow_ip_literals: content
                .get("allow_ip_literals")
                .and_then(Value::as_bool)
                .unwrap_or(true),
            allow: patterns("allow"),
            deny: patterns("deny"),
        }
    }

    /// Whether a server may take part. A port in its name does not count.
    pub fn allows(&self, server: &ServerName) -> bool {
        let host = without_port(server.as_str()).to_lowercase();
        if !self.allow_ip_literals && is_ip_literal(&host) {
            return false;
        }
        let matches = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, &host));
        !matches(&self.deny) && matches(&self.allow)
    }
}

fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => name,
    }
}

fn is_ip_literal(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok(),
    }
}

/// Whether a pattern, in which `*` stands for any text and `?` for any character, covers the whole text. The time is at
/// most the product of the lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut place) = (0, 0);
    // Where the last star stood, and the text that it covers so far.
    let mut star: Option<(usize, usize)> = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[place] => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((star_at, covered)) = star else {
                    return false;
                };
                star = Some((star_at, covered + 1));
                at = star_at + 1;
                place = covered + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists() {
        #[track_caller]
        fn check(content: Value, server: &str, allowed: bool) {
            let acl = ServerAcl::parse(content.as_object().unwrap());
            let name = ServerName::parse(server).unwrap();
            assert_eq!(acl.allows(&name), allowed, "{content} {server}");
        }
        let open = json!({"allow": ["*"]});
        check(open.clone(), "a.example", true);
        check(open.clone(), "1.2.3.4", true);
        check(open, "[::1]:8448", true);
        check(json!({}), "a.example", false);
        check(json!({"allow": []}), "a.example", false);
        check(json!({"allow": "*"}), "a.example", false);
        check(json!({"allow": [1, null, "a.example"]}), "a.example", true);
        let one = json!({"allow": ["*"], "deny": ["evil.example", "*.Evil.example"]});
        check(one.clone(), "evil.example", false);
        check(one.clone(), "EVIL.example:8448", false);
        check(one.clone(), "sub.evil.example", false);
        check(one.clone(), "sub.sub.EVIL.EXAMPLE", false);
        check(one.clone(), "notevil.example", true);
        check(one, "evil.example.org", true);
        let no_ips = json!({"allow": ["*"], "allow_ip_literals": false});
        check(no_ips.clone(), "1.2.3.4", false);
        check(no_ips.clone(), "1.2.3.4:80", false);
        check(no_ips.clone(), "[::1]", false);
        check(no_ips.clone(), "[::1]:80", false);
        check(no_ips, "1.2.3.4.example", true);
        check(
            json!({"allow": ["*"], "allow_ip_literals": "no"}),
            "1.2.3.4",
            true,
        );
        check(json!({"allow": ["*"], "deny": ["*"]}), "a.example", false);
        check(json!({"allow": ["a?.example"]}), "ab.example", true);
        check(json!({"allow": ["a?.example"]}), "a.example", false);
        check(json!({"allow": ["a.example:8448"]}), "a.example:8448", false);
        check(json!({"allow": ["[::1]"]}), "[::1]:8448", true);
    }

    #[test]
    fn patterns() {
        let cases = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "abc", true),
            ("?", "", false),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*a*b*c", "xaxbxc", true),
            ("*a*b*c", "xaxcxb", false),
            ("*.b", "a.b.b", true),
            ("a.b", "axb", false),
            ("[a]", "a", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
        let slow = "*a".repeat(100) + "b";
        assert!(!glob(&slow, &"a".repeat(10_000)));
    }
}
