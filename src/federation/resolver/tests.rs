//! Every branch of "Resolving server names", against made-up name servers and web servers.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use hearth_core::clock::ManualClock;
use hearth_core::http::{Destination, Outbound, OutboundRequest, OutboundResponse, TransportError};
use hearth_core::random::SeededRandom;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::*;

const NOW_MS: u64 = 1_700_000_000_000;

/// A web: by URL the status, a header, and the body.
#[derive(Default)]
struct Web {
    pages: Mutex<BTreeMap<String, (u16, String, String)>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Outbound for Web {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let Destination::Url(base) = &request.destination else {
            panic!("resolving needs no resolved name");
        };
        let url = format!("{base}{}", request.path_and_query);
        self.asked.lock().push(url.clone());
        let Some((status, header, body)) = self.pages.lock().get(&url).cloned() else {
            return Err(TransportError::Unreachable("nobody there".to_owned()));
        };
        if body.len() > request.max_response_bytes {
            return Err(TransportError::TooLarge);
        }
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header.split_once(": ") {
            headers.insert(
                http::HeaderName::try_from(name).unwrap(),
                http::HeaderValue::from_str(value).unwrap(),
            );
        }
        Ok(OutboundResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::from(body),
        })
    }
}

/// SRV records by name; names in `broken` cannot be looked up, those in `silent` never answer.
#[derive(Default)]
struct Records {
    srv: BTreeMap<String, Vec<Srv>>,
    broken: Vec<String>,
    silent: Vec<String>,
    asked: Mutex<usize>,
}

#[async_trait]
impl Dns for Records {
    async fn srv(&self, name: &str) -> Result<Vec<Srv>, String> {
        *self.asked.lock() += 1;
        let is_in = |list: &[String]| list.iter().any(|host| name.ends_with(&format!(".{host}.")));
        if is_in(&self.silent) {
            std::future::pending::<()>().await;
        }
        if is_in(&self.broken) {
            return Err("SERVFAIL".to_owned());
        }
        Ok(self.srv.get(name).cloned().unwrap_or_default())
    }
}

struct World {
    resolver: Resolver,
    web: Arc<Web>,
    dns: Arc<Records>,
    clock: Arc<ManualClock>,
}

fn srv(priority: u16, weight: u16, target: &str, port: u16) -> Srv {
    Srv {
        priority,
        weight,
        port,
        target: target.to_owned(),
    }
}

fn world(pages: &[(&str, u16, &str, &str)], dns: Records) -> World {
    let web = Arc::new(Web::default());
    for (url, status, header, body) in pages {
        web.set(url, *status, header, body);
    }
    let dns = Arc::new(dns);
    let clock = Arc::new(ManualClock::new(NOW_MS));
    World {
        resolver: Resolver::new(
            web.clone(),
            dns.clone(),
            clock.clone(),
            Arc::new(SeededRandom::new(1)),
        ),
        web,
        dns,
        clock,
    }
}

impl Web {
    fn set(&self, url: &str, status: u16, header: &str, body: &str) {
        let page = (status, header.to_owned(), body.to_owned());
        self.pages.lock().insert(url.to_owned(), page);
    }
}

impl World {
    /// The endpoints, the `Host` header and the name for TLS, as a line.
    async fn resolve(&self, server: &str) -> String {
        match self.resolver.route(server).await {
            None => "refused".to_owned(),
            Some(Route::Port { host, port, header }) => format!("{host} {port} host={header} tls={host}"),
            Some(Route::Name(host)) => {
                let endpoints = self.resolver.endpoints(&host).await;
                let ends: Vec<_> = endpoints
                    .iter()
                    .map(|end| format!("{} {}", end.host, end.port))
                    .collect();
                format!("{} host={host} tls={host}", ends.join(", "))
            }
        }
    }
}

fn records() -> Records {
    let mut records = Records::default();
    let mut add = |name: &str, list: Vec<Srv>| records.srv.insert(name.to_owned(), list);
    add(
        "_matrix-fed._tcp.new.example.",
        vec![srv(0, 1, "target.example.", 1000)],
    );
    add(
        "_matrix._tcp.old.example.",
        vec![srv(0, 1, "target.example.", 2000)],
    );
    add(
        "_matrix-fed._tcp.both.example.",
        vec![srv(0, 1, "new.target.example", 1000)],
    );
    add(
        "_matrix._tcp.both.example.",
        vec![srv(0, 1, "old.target.example", 2000)],
    );
    add("_matrix-fed._tcp.none.example.", vec![srv(0, 0, ".", 0)]);
    add(
        "_matrix-fed._tcp.order.example.",
        vec![
            srv(20, 1, "last.example.", 3),
            srv(10, 0, "zero.example.", 2),
            srv(10, 65535, "heavy.example.", 1),
        ],
    );
    add(
        "_matrix-fed._tcp.with-port.example.",
        vec![srv(0, 1, "wrong.example.", 9)],
    );
    records.broken.push("broken.example".to_owned());
    records.silent.push("silent.example".to_owned());
    records
}

const WELL_KNOWN: &str = "/.well-known/matrix/server";

#[tokio::test(start_paused = true)]
async fn every_branch() {
    let pages: Vec<(String, String)> = [
        ("d-ip", "1.2.3.4"),
        ("d-ip-port", "1.2.3.4:5"),
        ("d-ip6", "[2001:db8::1]"),
        ("d-ip6-port", "[2001:db8::1]:5"),
        ("d-port", "with-port.example:5"),
        ("d-new", "new.example"),
        ("d-old", "old.example"),
        ("d-both", "both.example"),
        ("d-plain", "Plain.example"),
        ("d-bad", "not a name"),
    ]
    .into_iter()
    .map(|(host, to)| {
        let url = format!("https://{host}.example{WELL_KNOWN}");
        (url, serde_json::json!({"m.server": to}).to_string())
    })
    .collect();
    let pages: Vec<_> = pages
        .iter()
        .map(|(url, body)| (url.as_str(), 200, "", body.as_str()))
        .collect();
    let world = world(&pages, records());
    let cases = [
        // 1: IP literals.
        ("1.2.3.4", "1.2.3.4 8448 host=1.2.3.4 tls=1.2.3.4"),
        ("1.2.3.4:5", "1.2.3.4 5 host=1.2.3.4:5 tls=1.2.3.4"),
        ("[::1]", "[::1] 8448 host=[::1] tls=[::1]"),
        ("[::1]:5", "[::1] 5 host=[::1]:5 tls=[::1]"),
        // 2: a port; neither well-known nor SRV records count.
        (
            "with-port.example:5",
            "with-port.example 5 host=with-port.example:5 tls=with-port.example",
        ),
        (
            "d-new.example:5",
            "d-new.example 5 host=d-new.example:5 tls=d-new.example",
        ),
        (
            "host.docker.internal:41234",
            "host.docker.internal 41234 host=host.docker.internal:41234 tls=host.docker.internal",
        ),
        // 3.1: delegated to an IP literal.
        ("d-ip.example", "1.2.3.4 8448 host=1.2.3.4 tls=1.2.3.4"),
        ("d-ip-port.example", "1.2.3.4 5 host=1.2.3.4:5 tls=1.2.3.4"),
        (
            "d-ip6.example",
            "[2001:db8::1] 8448 host=[2001:db8::1] tls=[2001:db8::1]",
        ),
        (
            "d-ip6-port.example",
            "[2001:db8::1] 5 host=[2001:db8::1]:5 tls=[2001:db8::1]",
        ),
        // 3.2: delegated to a name with a port.
        (
            "d-port.example",
            "with-port.example 5 host=with-port.example:5 tls=with-port.example",
        ),
        // 3.3 and 3.4: delegated to a name with SRV records.
        (
            "d-new.example",
            "target.example 1000 host=new.example tls=new.example",
        ),
        (
            "d-old.example",
            "target.example 2000 host=old.example tls=old.example",
        ),
        (
            "d-both.example",
            "new.target.example 1000 host=both.example tls=both.example",
        ),
        // 3.5: delegated to a name alone.
        (
            "d-plain.example",
            "plain.example 8448 host=plain.example tls=plain.example",
        ),
        // A document that says nothing counts as none.
        (
            "d-bad.example",
            "d-bad.example 8448 host=d-bad.example tls=d-bad.example",
        ),
        // 4 and 5: SRV records.
        (
            "new.example",
            "target.example 1000 host=new.example tls=new.example",
        ),
        (
            "old.example",
            "target.example 2000 host=old.example tls=old.example",
        ),
        (
            "both.example",
            "new.target.example 1000 host=both.example tls=both.example",
        ),
        (
            "order.example",
            "heavy.example 1, zero.example 2, last.example 3 host=order.example tls=order.example",
        ),
        // 6: nothing but a name.
        (
            "plain.example",
            "plain.example 8448 host=plain.example tls=plain.example",
        ),
        ("hs1", "hs1 8448 host=hs1 tls=hs1"),
        ("HS1", "hs1 8448 host=hs1 tls=hs1"),
        (
            "none.example",
            "none.example 8448 host=none.example tls=none.example",
        ),
        (
            "broken.example",
            "broken.example 8448 host=broken.example tls=broken.example",
        ),
        (
            "silent.example",
            "silent.example 8448 host=silent.example tls=silent.example",
        ),
        // No names at all.
        ("", "refused"),
        ("a b", "refused"),
        ("a:99999", "refused"),
    ];
    for (server, expected) in cases {
        assert_eq!(world.resolve(server).await, expected, "{server}");
    }
}

#[tokio::test]
async fn redirects_end() {
    let found = r#"{"m.server": "found.example:1"}"#;
    let a = format!("https://a.example{WELL_KNOWN}");
    let looping = format!("https://loop.example{WELL_KNOWN}");
    let back = format!("location: {looping}");
    let down = format!("https://down.example{WELL_KNOWN}");
    let long = format!("https://long.example{WELL_KNOWN}");
    let blank = " ".repeat(60_000) + found;
    let pages = [
        (a.as_str(), 301, "location: https://b.example/x?y", ""),
        ("https://b.example/x?y", 307, "location: z", ""),
        ("https://b.example/z", 200, "", found),
        (looping.as_str(), 302, back.as_str(), ""),
        (down.as_str(), 302, "location: http://b.example/z", ""),
        (long.as_str(), 200, "", blank.as_str()),
    ];
    let world = world(&pages, Records::default());
    assert_eq!(
        world.resolve("a.example").await,
        "found.example 1 host=found.example:1 tls=found.example"
    );
    for host in ["loop.example", "down.example", "long.example"] {
        assert_eq!(
            world.resolve(host).await,
            format!("{host} 8448 host={host} tls={host}")
        );
    }
    assert!(world.web.asked.lock().len() < 15);
}

#[tokio::test]
async fn answers_are_kept_as_long_as_they_say() {
    let url = format!("https://a.example{WELL_KNOWN}");
    let to = |port: u16| format!(r#"{{"m.server": "b.example:{port}"}}"#);
    let world = world(
        &[(url.as_str(), 200, "cache-control: max-age=3600", &to(1))],
        Records::default(),
    );
    let asked = || world.web.asked.lock().len();
    let line = |port: u16| format!("b.example {port} host=b.example:{port} tls=b.example");
    assert_eq!(world.resolve("a.example").await, line(1));
    world.web.set(&url, 200, "", &to(2));
    world.clock.advance(3_599_000);
    assert_eq!(world.resolve("a.example").await, line(1));
    assert_eq!(asked(), 1);
    world.clock.advance(1_000);
    assert_eq!(world.resolve("a.example").await, line(2));
    // A delegation outlives errors for a while; errors are asked about less and less often.
    world.clock.advance(24 * 3_600_000);
    world.web.set(&url, 500, "", "");
    let before = asked();
    for wait_ms in [59_999, 1, 119_999, 1] {
        assert_eq!(world.resolve("a.example").await, line(2));
        world.clock.advance(wait_ms);
    }
    assert_eq!(asked(), before + 2);
    world.clock.advance(24 * 3_600_000);
    assert_eq!(
        world.resolve("a.example").await,
        "a.example 8448 host=a.example tls=a.example"
    );
}

#[tokio::test]
async fn errors_are_kept_for_at_most_an_hour() {
    let world = world(&[], Records::default());
    for _ in 0..20 {
        world.resolve("a.example").await;
        world.clock.advance(3_600_000);
    }
    assert_eq!(world.web.asked.lock().len(), 20);
    world.resolve("a.example").await;
    world.resolve("a.example").await;
    assert_eq!(world.web.asked.lock().len(), 21);
}

#[tokio::test]
async fn a_name_server_that_fails_is_left_alone() {
    let world = world(&[], records());
    for _ in 0..3 {
        assert_eq!(
            world.resolver.endpoints("broken.example").await[0].port,
            DEFAULT_PORT
        );
    }
    assert_eq!(*world.dns.asked.lock(), 2);
    world.clock.advance(3_600_000);
    world.resolver.endpoints("broken.example").await;
    assert_eq!(*world.dns.asked.lock(), 4);
}
