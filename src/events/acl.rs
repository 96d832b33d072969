use ruma::ServerName;

use crate::json::{elements, get, string};

/// The servers that an `m.room.server_acl` event lets into a room (client-server API, "Server Access Control Lists (ACLs) for rooms").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAcl {
    allow_ip_literals: bool,
    /// Globs in lower case.
    allow: Vec<String>,
    deny: Vec<String>,
}

impl ServerAcl {
    /// Reads the content of the event. What cannot be read counts as missing: without an `allow` list nobody is let in.
    pub fn parse(content: &[u8]) -> ServerAcl {
        let globs = |name: &str| {
            get(content, name)
                .into_iter()
                .flat_map(elements)
                .filter_map(|glob| string(glob).map(|glob| glob.to_ascii_lowercase()))
                .collect()
        };
        ServerAcl {
            allow_ip_literals: get(content, "allow_ip_literals") != Some(b"false"),
            allow: globs("allow"),
            deny: globs("deny"),
        }
    }

    /// Whether a server may take part. Its port does not count.
    pub fn allows(&self, server: &ServerName) -> bool {
        if !self.allow_ip_literals && server.is_ip_literal() {
            return false;
        }
        let host = server.host().to_ascii_lowercase();
        let any = |globs: &[String]| globs.iter().any(|glob| matches(glob.as_bytes(), host.as_bytes()));
        !any(&self.deny) && any(&self.allow)
    }
}

/// Whether a glob (`*` for any number of characters, `?` for one) fits the whole text, in time that grows with the product of their lengths at
/// the most.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // After the last star, and where in the text the part behind it was tried last.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at + 1, from));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || *wanted == text[from] => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((behind, tried)) => {
                    star = Some((behind, tried + 1));
                    (at, from) = (behind, tried + 1);
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("*.evil.com", "a.evil.com", true),
            ("*.evil.com", "evil.com", false),
            ("evil.com", "evil.com", true),
            ("evil.com", "evil.com.org", false),
            ("e?il.*", "evil.org", true),
            ("e?il.*", "eil.org", false),
            ("*a*b*c", "xxaybzabc", true),
            ("*a*b*c", "xxaybzacd", false),
            ("a**", "a", true),
        ] {
            assert_eq!(
                matches(glob.as_bytes(), text.as_bytes()),
                expected,
                "{glob} {text}"
            );
        }
    }

    #[test]
    fn a_hostile_glob_ends_soon() {
        let glob = "*a".repeat(120);
        let text = "a".repeat(119) + &"b".repeat(100);
        assert!(!matches(glob.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn who_is_let_in() {
        let check = |content: &str, server: &str, expected: bool| {
            let server = ServerName::parse(server).unwrap();
            let found = ServerAcl::parse(content.as_bytes()).allows(&server);
            assert_eq!(found, expected, "{content} {server}");
        };
        let all = r#"{"allow":["*"],"allow_ip_literals":false,"deny":["evil.com","*.Evil.COM"]}"#;
        for (server, expected) in [
            ("good.com", true),
            ("evil.com", false),
            ("EVIL.com:8448", false),
            ("sub.evil.com", false),
            ("1.2.3.4", false),
            ("1.2.3.4:8448", false),
            ("[::1]:8448", false),
        ] {
            check(all, server, expected);
        }
        check(r#"{"allow":["*"]}"#, "1.2.3.4", true);
        check(r#"{"allow":["*"],"allow_ip_literals":"false"}"#, "1.2.3.4", true);
        check(r#"{"allow":["Good.com"]}"#, "gOOD.com:1", true);
        check("{}", "good.com", false);
        check(r#"{"allow":"*"}"#, "good.com", false);
        check(r#"{"allow":[7,null,{},"good.com"],"deny":7}"#, "good.com", true);
        check("[]", "good.com", false);
        check("", "good.com", false);
    }
}
