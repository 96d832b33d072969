//! Every endpoint of the specification, asked with dummies, with nothing and with rubbish: none is a server error, and
//! which ones are unknown is written down with reasons (`tests/spec/unknown.txt`).

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use hearth_events::{KeyPair, sign_json};
use hearth_testkit::{Client, SimNetwork, TestServer, openapi};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::spec_files::{Endpoint, endpoints, folder};

/// What is sent to an endpoint beside its dummy.
fn bodies(endpoint: &Endpoint) -> Vec<Bytes> {
    let mut out: Vec<Bytes> = vec![
        Bytes::new(),
        Bytes::from_static(b"{}"),
        Bytes::from_static(b"{\"a\":"),
        Bytes::from_static(b"null"),
        Bytes::from_static(b"[1,\"x\"]"),
        Bytes::from_static(b"{\"a\":\"\xff\"}"),
        Bytes::from_static(b"{\"a\":1e999,\"a\":2}"),
        "[".repeat(1_000).into(),
        format!("{}{}", "{\"a\":".repeat(500), "}".repeat(500)).into(),
    ];
    if let Some(Value::Object(members)) = &endpoint.body {
        for wrong in [
            json!(null),
            json!(-7),
            json!(""),
            json!([]),
            json!({}),
            json!(["\u{0}"]),
        ] {
            let all: Map<String, Value> = members.keys().map(|name| (name.clone(), wrong.clone())).collect();
            out.push(Value::Object(all).to_string().into());
        }
        // One member after the other is missing.
        for left_out in members.keys() {
            let mut rest = members.clone();
            rest.remove(left_out);
            out.push(Value::Object(rest).to_string().into());
        }
    }
    // Last, because it may do what it says.
    out.extend(endpoint.body.as_ref().map(|body| Bytes::from(body.to_string())));
    out
}

/// The endpoints of an API. Servers in examples are the asked one, so that no answer depends on another.
fn endpoints_here(api: &str) -> Vec<Endpoint> {
    fn here(value: &mut Value) {
        match value {
            Value::String(text) => {
                for elsewhere in [
                    "matrix.org",
                    "example.org",
                    "example.com",
                    "localhost",
                    "domain.com",
                ] {
                    *text = text.replace(elsewhere, "hs1");
                }
            }
            Value::Array(list) => list.iter_mut().for_each(here),
            Value::Object(members) => members.values_mut().for_each(here),
            _ => {}
        }
    }
    let mut all = endpoints(api);
    for endpoint in &mut all {
        endpoint.in_path.values_mut().for_each(here);
        endpoint.in_query.values_mut().for_each(here);
        endpoint.body.iter_mut().for_each(here);
    }
    all
}

/// The answers that are wrong, and the endpoints that are unknown.
#[derive(Default)]
struct Report {
    wrong: Vec<String>,
    unknown: BTreeSet<String>,
}

impl Report {
    fn note(&mut self, endpoint: &Endpoint, path: &str, sent: &[u8], status: u16, body: &[u8]) {
        let shown = || {
            let sent = String::from_utf8_lossy(&sent[..sent.len().min(200)]).into_owned();
            let got = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            format!("{} {path} {sent}: {status} {got}", endpoint.method)
        };
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let errcode = answer["errcode"].as_str().unwrap_or_default();
        if status >= 500 {
            self.wrong.push(shown());
        }
        if status >= 400 && !errcode.starts_with("M_") && answer.get("flows").is_none() {
            self.wrong.push(format!("no errcode: {}", shown()));
        }
        if matches!(status, 404 | 405) && errcode == "M_UNRECOGNIZED" {
            self.unknown.insert(endpoint.name());
        }
    }

    /// Compares with what is written down of one API.
    fn check(&self, prefixes: &[&str]) {
        assert!(
            self.wrong.is_empty(),
            "{} wrong answers:\n{}",
            self.wrong.len(),
            self.wrong.join("\n")
        );
        let text =
            std::fs::read_to_string(folder().join("unknown.txt")).expect("the list of unknown endpoints");
        let mut listed = BTreeSet::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (name, reason) = line.split_once(": ").unwrap_or((line, ""));
            assert!(!reason.trim().is_empty(), "{line:?} names no reason");
            let path = name.split(' ').nth(1).unwrap_or_default();
            if prefixes.iter().any(|prefix| path.starts_with(prefix)) {
                listed.insert(name.to_owned());
            }
        }
        let new: Vec<_> = self.unknown.difference(&listed).collect();
        let known: Vec<_> = listed.difference(&self.unknown).collect();
        assert!(
            new.is_empty() && known.is_empty(),
            "unknown and not listed: {new:#?}\nlisted and not unknown: {known:#?}"
        );
    }
}

/// Somebody who asks, with a room of his own.
struct Asker {
    client: Client,
    known: BTreeMap<&'static str, String>,
}

impl Asker {
    async fn new(server: &TestServer, number: usize) -> Self {
        let client = server.register(&format!("u{number}")).await;
        let room = client.room().build().await;
        let event = client.say(&room, "hello").await;
        let known = BTreeMap::from([
            ("roomId", room.clone()),
            ("room_id", room.clone()),
            ("roomIdOrAlias", room),
            ("eventId", event.clone()),
            ("event_id", event),
            ("userId", client.user_id.clone()),
            ("user_id", client.user_id.clone()),
            ("deviceId", client.device_id.clone()),
            ("serverName", "hs1".to_owned()),
            ("server", "hs1".to_owned()),
            ("server_name", "hs1".to_owned()),
            ("via", "hs1".to_owned()),
            ("timeout", "0".to_owned()),
            ("timeout_ms", "0".to_owned()),
        ]);
        Self { client, known }
    }

    /// The paths that are asked: with what there is, with the specification's examples, with rubbish.
    fn paths(&self, endpoint: &Endpoint) -> Vec<String> {
        let waits = |name: &str| ["timeout", "timeout_ms"].contains(&name).then(|| "0".to_owned());
        let here = |name: &str| name.to_lowercase().contains("server").then(|| "hs1".to_owned());
        vec![
            endpoint.filled(&|name| self.known.get(name).cloned()),
            endpoint.filled(&|name| waits(name).or_else(|| here(name))),
            endpoint.filled(&|name| waits(name).or_else(|| Some("\u{0}/%$!@:\u{fffd}".to_owned()))),
            endpoint.filled(&|name| waits(name).or_else(|| Some("x".repeat(2_000)))),
            endpoint
                .path
                .replace("{serverName}", "hs1")
                .replace(['{', '}'], ""),
        ]
    }
}

#[tokio::test]
async fn no_endpoint_of_the_client_server_api_answers_with_a_server_error() {
    let server = TestServer::memory(4).await;
    let mut report = Report::default();
    let mut number = 0;
    for endpoint in endpoints_here("client-server") {
        let mut asker = Asker::new(&server, number).await;
        number += 1;
        let bodies = bodies(&endpoint);
        for at in 0..asker.paths(&endpoint).len() {
            // Rubbish in the path is refused before the body is looked at.
            let bodies = if at == 0 {
                &bodies[..]
            } else {
                &bodies[bodies.len() - 1..]
            };
            for body in bodies {
                let path = asker.paths(&endpoint).swap_remove(at);
                let method = &endpoint.method;
                let call = server.call_bytes(method, &path, Some(&asker.client.token), body.clone());
                let mut answer = call.await;
                if answer.errcode() == "M_UNKNOWN_TOKEN" || answer.errcode() == "M_USER_DEACTIVATED" {
                    // A request before this one ended the session.
                    asker = Asker::new(&server, number).await;
                    number += 1;
                    let path = asker.paths(&endpoint).swap_remove(at);
                    let call = server.call_bytes(method, &path, Some(&asker.client.token), body.clone());
                    answer = call.await;
                }
                // A picture or a file is no JSON.
                let is_json = answer.status >= 400 || answer.body.starts_with(b"{");
                let shown = if is_json { &answer.body[..] } else { b"{}" };
                report.note(&endpoint, &path, body, answer.status, shown);
            }
        }
    }
    report.check(&["/_matrix/client", "/_matrix/media", "/.well-known"]);
}

/// Another server that signs its requests, and whose keys are to be had.
struct OtherServer {
    key: KeyPair,
    router: Router,
}

impl OtherServer {
    fn new(network: &SimNetwork, asked: &TestServer) -> Self {
        let key = KeyPair::from_seed([9; 32], "other").expect("a key");
        let Value::Object(mut document) = json!({
            "server_name": "other",
            "valid_until_ts": 1_700_000_000_000_u64 + 86_400_000,
            "verify_keys": { key.key_id(): { "key": key.public_key_base64() } },
            "old_verify_keys": {},
        }) else {
            unreachable!("it is an object")
        };
        sign_json(&mut document, "other", &key).expect("it can be signed");
        let document = Value::Object(document).to_string();
        let document = move || std::future::ready(document.clone());
        let keys = Router::new().route("/_matrix/key/v2/server", get(document));
        network.add("other", keys);
        let hearth_testkit::Endpoint::Router(router) = asked.endpoint() else {
            unreachable!("a simulated server has no address")
        };
        Self { key, router }
    }

    /// A signed request. What is no JSON object is sent with a signature of its absence.
    async fn ask(&self, method: &str, path: &str, body: &Bytes) -> (u16, Bytes) {
        let mut object = Map::new();
        for (name, value) in [
            ("method", method),
            ("uri", path),
            ("origin", "other"),
            ("destination", "hs1"),
        ] {
            object.insert(name.to_owned(), value.into());
        }
        if let Ok(content @ Value::Object(_)) = serde_json::from_slice::<Value>(body) {
            object.insert("content".to_owned(), content);
        }
        if sign_json(&mut object, "other", &self.key).is_err() {
            // Content that cannot be signed is not JSON for servers.
            object.remove("content");
            sign_json(&mut object, "other", &self.key).expect("it can be signed");
        }
        let signature = object["signatures"]["other"][self.key.key_id()]
            .as_str()
            .expect("a signature");
        let key = self.key.key_id();
        let header =
            format!("X-Matrix origin=\"other\",destination=\"hs1\",key=\"{key}\",sig=\"{signature}\"");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", header);
        let request = request.body(Body::from(body.clone())).expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, answer) = answer.into_parts();
        let status = parts.status.as_u16();
        let answer = answer.collect().await.expect("a body").to_bytes();
        openapi::note(openapi::wrong_answer(
            method,
            path,
            status,
            &parts.headers,
            &answer,
        ));
        openapi::assert_nothing_noted();
        (status, answer)
    }
}

#[tokio::test(start_paused = true)]
async fn no_endpoint_of_the_server_server_api_answers_with_a_server_error() {
    let network = SimNetwork::new(3);
    let server = TestServer::simulated("hs1", 4, 3, &network);
    let other = OtherServer::new(&network, &server);
    let mut asker = Asker::new(&server, 0).await;
    asker.known.insert("userId", "@eve:other".to_owned());
    asker.known.insert("v", asker.known["eventId"].clone());
    let mut report = Report::default();
    for endpoint in endpoints_here("server-server") {
        let bodies = bodies(&endpoint);
        for (at, path) in asker.paths(&endpoint).into_iter().enumerate() {
            let bodies = if at == 0 {
                &bodies[..]
            } else {
                &bodies[bodies.len() - 1..]
            };
            for body in bodies {
                let (status, answer) = other.ask(&endpoint.method, &path, body).await;
                let is_json = status >= 400 || answer.starts_with(b"{") || answer.starts_with(b"[");
                let shown = if is_json { &answer[..] } else { b"{}" };
                report.note(&endpoint, &path, body, status, shown);
            }
        }
    }
    report.check(&[
        "/_matrix/federation",
        "/_matrix/key",
        "/.well-known/matrix/server",
        "/_matrix/policy",
    ]);
}
