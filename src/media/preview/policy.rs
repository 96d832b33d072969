//! Which hosts may be asked for a preview.

use url::Url;

use crate::error::Error;

/// The operator's lists of hosts. A name in them stands for itself and for all names below it.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The only hosts that may be asked; empty means all.
    pub allow: Vec<String>,
    /// Hosts that may not be asked; it wins over the other list.
    pub deny: Vec<String>,
}

impl Policy {
    /// Refuses what is not to be asked. It holds for every hop of a redirect.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Error> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::Invalid("Only http and https URLs have previews"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Invalid(
                "A URL with a user name or a password has no preview",
            ));
        }
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        if host.is_empty() {
            return Err(Error::Invalid("The URL has no host"));
        }
        let listed = |list: &[String]| list.iter().any(|name| is_below(host, name));
        if listed(&self.deny) || !(self.allow.is_empty() || listed(&self.allow)) {
            return Err(Error::NotAllowed("This server makes no previews of that host"));
        }
        Ok(())
    }
}

/// Whether a host is the one named, or one below it. Hosts come out of a parsed URL in small letters.
fn is_below(host: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    host.strip_suffix(name.as_str())
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let check = |allow: &[&str], deny: &[&str], url: &str, allowed: bool| {
            let policy = Policy {
                allow: list(allow),
                deny: list(deny),
            };
            let url = Url::parse(url).expect("a URL");
            assert_eq!(policy.check(&url).is_ok(), allowed, "{allow:?} {deny:?} {url}");
        };
        check(&[], &[], "https://example.org/x", true);
        check(&[], &[], "http://example.org:8080/", true);
        check(&[], &[], "ftp://example.org/", false);
        check(&[], &[], "file:///etc/passwd", false);
        check(&[], &[], "data:text/html,x", false);
        check(&[], &[], "https://user@example.org/", false);
        check(&[], &[], "https://:secret@example.org/", false);
        check(&[], &["example.org"], "https://example.org/", false);
        check(&[], &["example.org"], "https://EXAMPLE.org/", false);
        check(&[], &["Example.org"], "https://example.org./", false);
        check(&[], &["example.org"], "https://a.example.org/", false);
        check(&[], &["example.org"], "https://badexample.org/", true);
        check(&[], &["192.0.2.1"], "https://192.0.2.1/", false);
        check(&[], &["192.0.2.1"], "https://0xc0000201/", false);
        check(&["example.org"], &[], "https://www.example.org/", true);
        check(&["example.org"], &[], "https://example.com/", false);
        check(
            &["example.org"],
            &["private.example.org"],
            "https://private.example.org/",
            false,
        );
        check(
            &["example.org"],
            &["private.example.org"],
            "https://example.org/",
            true,
        );
    }
}
