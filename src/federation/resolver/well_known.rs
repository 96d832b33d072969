//! Delegation: `https://<host>/.well-known/matrix/server`, and for how long its answer counts.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hearth_core::SharedClock;
use hearth_core::http::{Destination, OutboundRequest, OutboundResponse, SharedOutbound};
use http::header::{CACHE_CONTROL, EXPIRES, LOCATION};
use http::{HeaderMap, Method, Uri};
use quick_cache::sync::Cache;
use serde::Deserialize;

use super::name::HostPort;

const PATH: &str = "/.well-known/matrix/server";
/// The document has one short member.
const DOCUMENT_MAX_BYTES: usize = 50 << 10;
/// All redirects together take no longer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Redirects that are followed; a loop ends here.
const REDIRECTS_MAX: usize = 5;
/// The longest address that is followed.
const LOCATION_MAX_BYTES: usize = 2_048;
/// Without a word of the server its answer is kept for a day, as the specification recommends,
const DEFAULT_MS: u64 = 24 * HOUR_MS;
/// at most for two,
const LONGEST_MS: u64 = 48 * HOUR_MS;
/// and for five minutes whatever it says, so that busy servers are not asked before every request.
const SHORTEST_MS: u64 = 5 * 60 * 1000;
/// An error is kept for a minute at first, doubling
const ERROR_FIRST_MS: u64 = 60 * 1000;
/// up to an hour.
const ERROR_LONGEST_MS: u64 = HOUR_MS;
const HOUR_MS: u64 = 60 * 60 * 1000;
/// Hosts whose answers are remembered.
const HOSTS_MAX: usize = 20_000;

/// The well-known documents of other servers.
pub(super) struct WellKnown {
    outbound: SharedOutbound,
    clock: SharedClock,
    cache: Cache<String, Entry>,
}

/// What was found at a host.
#[derive(Clone, Debug)]
struct Entry {
    /// To whom it delegates.
    delegate: Option<HostPort>,
    /// Until when that counts without asking again.
    until_ms: u64,
    /// Until when a delegation counts though asking again fails.
    good_until_ms: u64,
    /// How long the last error was kept; 0 after an answer.
    error_ms: u64,
}

/// The document.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "m.server")]
    server: String,
}

impl WellKnown {
    pub(super) fn new(outbound: SharedOutbound, clock: SharedClock) -> Self {
        Self {
            outbound,
            clock,
            cache: Cache::new(HOSTS_MAX),
        }
    }

    /// To whom a host delegates, if it does.
    pub(super) async fn delegate(&self, host: &str) -> Option<HostPort> {
        let cached = self.cache.get(host);
        let now_ms = self.clock.now_ms();
        if let Some(entry) = &cached
            && now_ms < entry.until_ms
        {
            return entry.delegate.clone();
        }
        let fetched = match tokio::time::timeout(TIMEOUT, self.fetch(host)).await {
            Ok(fetched) => fetched,
            Err(_) => Err("it took too long".to_owned()),
        };
        let now_ms = self.clock.now_ms();
        let entry = match fetched {
            Ok((delegate, keep_ms)) => Entry {
                delegate: Some(delegate),
                until_ms: now_ms.saturating_add(keep_ms),
                good_until_ms: now_ms.saturating_add(LONGEST_MS),
                error_ms: 0,
            },
            Err(error) => {
                tracing::debug!(host, error, "no delegation");
                after_error(cached.as_ref(), now_ms)
            }
        };
        self.cache.insert(host.to_owned(), entry.clone());
        entry.delegate
    }

    /// The delegation and for how long it is kept.
    async fn fetch(&self, host: &str) -> Result<(HostPort, u64), String> {
        let mut base = format!("https://{host}");
        let mut path = PATH.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.get(&base, &path).await?;
            if response.status.is_redirection() {
                (base, path) = redirect(&base, &path, &response.headers)?;
                continue;
            }
            if response.status != 200 {
                return Err(format!("status {}", response.status.as_u16()));
            }
            let delegate = read_well_known(&response.body)?;
            return Ok((delegate, keep_ms(&response.headers, self.clock.now_ms())));
        }
        Err("too many redirects".to_owned())
    }

    async fn get(&self, base: &str, path: &str) -> Result<OutboundResponse, String> {
        let request = OutboundRequest {
            destination: Destination::Url(base.to_owned()),
            method: Method::GET,
            path_and_query: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: TIMEOUT,
            max_response_bytes: DOCUMENT_MAX_BYTES,
        };
        self.outbound
            .send(request)
            .await
            .map_err(|error| error.to_string())
    }
}

/// The entry after an error: a delegation that counted a while ago still does, so that a web server that is down does not
/// cut off the homeserver beside it.
fn after_error(before: Option<&Entry>, now_ms: u64) -> Entry {
    let error_ms = match before.map_or(0, |entry| entry.error_ms) {
        0 => ERROR_FIRST_MS,
        last_ms => last_ms.saturating_mul(2).min(ERROR_LONGEST_MS),
    };
    let good = before.filter(|entry| now_ms < entry.good_until_ms);
    Entry {
        delegate: good.and_then(|entry| entry.delegate.clone()),
        until_ms: now_ms.saturating_add(error_ms),
        good_until_ms: good.map_or(0, |entry| entry.good_until_ms),
        error_ms,
    }
}

/// Reads a document at `/.well-known/matrix/server`: the name that it delegates to.
///
/// # Errors
/// Says what is wrong with it.
pub fn read_well_known(body: &[u8]) -> Result<HostPort, String> {
    let document: Document = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    HostPort::parse(&document.server).ok_or_else(|| "m.server is no server name".to_owned())
}

/// Where a redirect leads: another https address, or another path of the same one.
fn redirect(base: &str, path: &str, headers: &HeaderMap) -> Result<(String, String), String> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location
        .filter(|location| location.len() <= LOCATION_MAX_BYTES)
        .ok_or("a redirect leads nowhere")?;
    let location = location.split('#').next().unwrap_or_default();
    if let Some(rest) = location.strip_prefix("//") {
        return split(&format!("https://{rest}"));
    }
    if location.starts_with('/') {
        return Ok((base.to_owned(), location.to_owned()));
    }
    // An address in a query, behind the path, does not make the whole one.
    let reference = location.split('?').next().unwrap_or_default();
    if reference.contains("://") {
        return split(location);
    }
    // Relative to the folder of the current path.
    let folder = path.split('?').next().unwrap_or_default();
    let folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok((base.to_owned(), format!("{folder}/{location}")))
}

fn split(location: &str) -> Result<(String, String), String> {
    let uri: Uri = location.parse().map_err(|_| "a redirect leads to no address")?;
    let authority = uri
        .authority()
        .filter(|authority| !authority.as_str().contains('@'));
    let (Some("https"), Some(authority)) = (uri.scheme_str(), authority) else {
        return Err("a redirect leads to no https address".to_owned());
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((format!("https://{authority}"), path.to_owned()))
}

/// For how long an answer is kept, by its headers.
fn keep_ms(headers: &HeaderMap, now_ms: u64) -> u64 {
    let asked = cache_control_ms(headers).or_else(|| expires_ms(headers, now_ms));
    asked.unwrap_or(DEFAULT_MS).clamp(SHORTEST_MS, LONGEST_MS)
}

fn cache_control_ms(headers: &HeaderMap) -> Option<u64> {
    let mut max_age = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or_default().split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            if matches!(directive.as_str(), "no-store" | "no-cache") {
                return Some(0);
            }
            if let Some(seconds) = directive.strip_prefix("max-age=") {
                let seconds: Option<u64> = seconds.trim_matches('"').parse().ok();
                max_age = seconds.map(|seconds| seconds.saturating_mul(1000)).or(max_age);
            }
        }
    }
    max_age
}

fn expires_ms(headers: &HeaderMap, now_ms: u64) -> Option<u64> {
    let value = headers.get(EXPIRES)?;
    // A date that cannot be read, like the common "0", lies in the past (RFC 9111, 5.3).
    let date = value
        .to_str()
        .ok()
        .and_then(|text| httpdate::parse_http_date(text).ok());
    let at_ms = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
    let at_ms = at_ms.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
    Some(at_ms.saturating_sub(now_ms))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn how_long_answers_are_kept() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        const NOW_MS: u64 = 784_111_777_000;
        let check = |pairs: &[(&'static str, &'static str)], expected_ms: u64| {
            assert_eq!(keep_ms(&headers(pairs), NOW_MS), expected_ms, "{pairs:?}");
        };
        check(&[], DEFAULT_MS);
        check(&[("cache-control", "max-age=3600")], HOUR_MS);
        check(&[("cache-control", "public, MAX-AGE=\"7200\"")], 2 * HOUR_MS);
        check(&[("cache-control", "max-age=99999999999999999999")], DEFAULT_MS);
        check(&[("cache-control", "max-age=9999999999")], LONGEST_MS);
        check(&[("cache-control", "max-age=-1")], DEFAULT_MS);
        check(&[("cache-control", "max-age=0")], SHORTEST_MS);
        check(&[("cache-control", "max-age=3600, no-store")], SHORTEST_MS);
        check(&[("expires", "Sun, 06 Nov 1994 10:49:37 GMT")], 2 * HOUR_MS);
        check(&[("expires", "Sun, 06 Nov 1994 01:49:37 GMT")], SHORTEST_MS);
        check(&[("expires", "0")], SHORTEST_MS);
        let both = [
            ("cache-control", "max-age=3600"),
            ("expires", "Sun, 06 Nov 1994 10:49:37 GMT"),
        ];
        check(&both, HOUR_MS);
    }

    #[test]
    fn where_redirects_lead() {
        let check = |location: &'static str, expected: Option<(&str, &str)>| {
            let led = redirect(
                "https://a.example",
                "/one/two?x",
                &headers(&[("location", location)]),
            );
            let expected = expected.map(|(base, path)| (base.to_owned(), path.to_owned()));
            assert_eq!(led.ok(), expected, "{location}");
        };
        check("https://b.example/x?y=1#z", Some(("https://b.example", "/x?y=1")));
        check("https://b.example:81", Some(("https://b.example:81", "/")));
        check("/x", Some(("https://a.example", "/x")));
        check("x", Some(("https://a.example", "/one/x")));
        check(
            "/x?to=https://b.example/",
            Some(("https://a.example", "/x?to=https://b.example/")),
        );
        check(
            "x?to=https://b.example/",
            Some(("https://a.example", "/one/x?to=https://b.example/")),
        );
        check("//b.example/x", Some(("https://b.example", "/x")));
        check("http://b.example/x", None);
        check("https://user@b.example/", None);
        check("ftp://b.example/", None);
        check("https://", None);
        assert!(redirect("https://a.example", "/", &HeaderMap::new()).is_err());
    }

    #[test]
    fn documents() {
        let good = read_well_known(br#"{"m.server":"b.example:1", "more": []}"#).unwrap();
        assert_eq!(good.to_string(), "b.example:1");
        for wrong in [
            &b""[..],
            b"[]",
            b"{}",
            b"null",
            br#"{"m.server": 1}"#,
            br#"{"m.server": ""}"#,
            br#"{"m.server": "a/b"}"#,
            b"<html>",
        ] {
            assert!(
                read_well_known(wrong).is_err(),
                "{}",
                String::from_utf8_lossy(wrong)
            );
        }
    }

    proptest! {
        #[test]
        fn any_document_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(read_well_known(&body));
        }

        #[test]
        fn any_name_in_a_document_is_read_or_refused(server in ".{0,60}") {
            let body = serde_json::json!({"m.server": server}).to_string();
            let parsed = read_well_known(body.as_bytes()).ok();
            prop_assert_eq!(parsed, HostPort::parse(&server));
        }

        #[test]
        fn any_header_is_read(value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                for name in [CACHE_CONTROL, EXPIRES, LOCATION] {
                    headers.insert(name, value.clone());
                }
                let kept_ms = keep_ms(&headers, 1_000);
                prop_assert!((SHORTEST_MS..=LONGEST_MS).contains(&kept_ms));
                if let Ok((base, path)) = redirect("https://a.example", "/x", &headers) {
                    prop_assert!(base.starts_with("https://") && path.starts_with('/'));
                }
            }
        }
    }
}
