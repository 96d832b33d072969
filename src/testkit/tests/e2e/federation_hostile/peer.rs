//! A server that keeps to no rules: it signs what it likes and answers what it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use bytes::Bytes;
use hearth_core::http::{Destination, OutboundRequest, SharedOutbound};
use hearth_events::{Draft, KeyPair, Pdu, Rules};
use hearth_testkit::{SimNetwork, encode};
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId};
use serde_json::{Map, Value, json};

/// The time of the simulation is close to this.
pub const NOW_MS: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Makes an answer of a request's path and body.
pub type Make = Arc<dyn Fn(&str, &Value) -> Value + Send + Sync>;

/// Makes a status and an answer of a request's path and body.
pub type Judge = Arc<dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync>;

/// What the peer says to requests whose path begins in some way.
#[derive(Clone)]
pub enum Answer {
    Json(Value),
    /// The same after a while.
    Slow(Duration, Value),
    /// Something that follows from the path and the body.
    Made(Make),
    /// The same after a while.
    Late(Duration, Make),
    /// The same, with a status.
    Judged(Judge),
}

#[derive(Default)]
struct Answers {
    by_prefix: BTreeMap<String, Answer>,
    asked: Vec<String>,
}

/// The hostile server.
#[derive(Clone)]
pub struct Peer {
    pub name: String,
    pub key: Arc<KeyPair>,
    outbound: SharedOutbound,
    answers: Arc<Mutex<Answers>>,
}

/// A room that the peer is in.
pub struct Known {
    pub id: OwnedRoomId,
    pub rules: &'static Rules,
    pub user: OwnedUserId,
    /// The state before its join, and the join.
    pub state: Vec<Pdu>,
    pub join: Pdu,
}

impl Peer {
    pub fn new(name: &str, network: &SimNetwork) -> Self {
        let key = KeyPair::from_seed([name.as_bytes()[0]; 32], "1").expect("a key");
        let answers: Arc<Mutex<Answers>> = Arc::default();
        let served = answers.clone();
        let router = Router::new().fallback(move |request: Request| {
            let served = served.clone();
            async move { answer(&served, request).await }
        });
        network.add(name, router);
        let peer = Self {
            name: name.to_owned(),
            key: Arc::new(key),
            outbound: network.link(name),
            answers,
        };
        peer.says(
            "/_matrix/key/v2/server",
            Answer::Json(peer.document(&peer.name, &peer.key)),
        );
        peer
    }

    /// A document of keys.
    pub fn document(&self, name: &str, key: &KeyPair) -> Value {
        let document = json!({ "server_name": name, "valid_until_ts": NOW_MS + DAY_MS, "old_verify_keys": {},
            "verify_keys": { key.key_id(): { "key": key.public_key_base64() } } });
        let mut document = object(document);
        hearth_events::sign_json(&mut document, name, key).expect("it can be signed");
        Value::Object(document)
    }

    pub fn user(&self, name: &str) -> OwnedUserId {
        OwnedUserId::try_from(format!("@{name}:{}", self.name)).expect("a user id")
    }

    /// Sets what it says to requests whose path begins so.
    pub fn says(&self, prefix: &str, answer: Answer) {
        self.answers.lock().by_prefix.insert(prefix.to_owned(), answer);
    }

    /// How often it was asked since it was last counted.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.answers.lock().asked)
    }

    /// A signed request.
    pub async fn call(&self, to: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_as(&self.name, &self.key, to, method, path, body).await
    }

    /// A request in the name of any server, signed with any key.
    pub async fn call_as(
        &self,
        origin: &str,
        key: &KeyPair,
        to: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut signed = Map::new();
        for (name, value) in [
            ("method", method),
            ("uri", path),
            ("origin", origin),
            ("destination", to),
        ] {
            signed.insert(name.to_owned(), json!(value));
        }
        if let Some(body) = &body {
            signed.insert("content".to_owned(), body.clone());
        }
        let message = hearth_events::signing_bytes(&signed).expect("it can be signed");
        let signature = hearth_events::base64_encode(&key.sign(&message));
        let header = format!(
            "X-Matrix origin=\"{origin}\",destination=\"{to}\",key=\"{}\",sig=\"{signature}\"",
            key.key_id()
        );
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", header.parse().expect("a header"));
        headers.insert("content-type", "application/json".parse().expect("a header"));
        let request = OutboundRequest {
            destination: Destination::Server(to.to_owned()),
            method: method.parse().expect("a method"),
            path_and_query: path.to_owned(),
            headers,
            body: body.map_or(Bytes::new(), |body| Bytes::from(body.to_string())),
            timeout: Duration::from_secs(600),
            max_response_bytes: 64 << 20,
        };
        let answer = self.outbound.send(request).await.expect("an answer");
        let body = serde_json::from_slice(&answer.body).unwrap_or_default();
        (answer.status.as_u16(), body)
    }

    /// Joins a room as any server does.
    pub async fn join(&self, through: &str, room: &str, version: &str) -> Known {
        let user = self.user("mallory");
        let rules = rules_of(version);
        let place = format!("{}/{}", encode(room), encode(user.as_str()));
        let path = format!("/_matrix/federation/v1/make_join/{place}?ver={version}");
        let (status, made) = self.call(through, "GET", &path, None).await;
        assert_eq!(status, 200, "{made}");
        let ids = |field: &str| -> Vec<OwnedEventId> {
            let list = made["event"][field].as_array().cloned().unwrap_or_default();
            list.iter()
                // In room versions 1 and 2 a hash stands beside each.
                .map(|id| id.as_str().or_else(|| id[0].as_str()).expect("an id"))
                .map(|id| OwnedEventId::try_from(id).expect("an id"))
                .collect()
        };
        let id = OwnedRoomId::try_from(room).expect("a room id");
        let (prev, auth) = (ids("prev_events"), ids("auth_events"));
        let draft = Draft {
            room_id: Some(&id),
            sender: &user,
            kind: "m.room.member",
            state_key: Some(user.as_str()),
            content: br#"{"membership":"join"}"#,
            origin_server_ts: NOW_MS,
            depth: made["event"]["depth"].as_u64().expect("a depth"),
            prev_events: &prev,
            auth_events: &auth,
            redacts: None,
        };
        let join = self.sign(rules, &draft);
        let place = format!("{}/{}", encode(room), encode(join.event_id.as_str()));
        let path = format!("/_matrix/federation/v2/send_join/{place}");
        let (status, sent) = self.call(through, "PUT", &path, Some(json_of(&join))).await;
        assert_eq!(status, 200, "{sent}");
        let state = sent["state"].as_array().cloned().unwrap_or_default();
        let read = |event: &Value| Pdu::parse(rules, event.to_string().as_bytes()).expect("an event");
        Known {
            id,
            rules,
            user,
            state: state.iter().map(read).collect(),
            join,
        }
    }

    pub fn sign(&self, rules: &Rules, draft: &Draft<'_>) -> Pdu {
        self.sign_named(rules, draft, "event")
    }

    /// As [`Self::sign`], with a name that is part of the event's id in room versions 1 and 2.
    pub fn sign_named(&self, rules: &Rules, draft: &Draft<'_>, name: &str) -> Pdu {
        let unsigned = hearth_events::build(rules, draft, Some(name)).expect("an event");
        let name = ruma::ServerName::parse(&self.name).expect("a server name");
        unsigned.sign(&self.key, &name)
    }

    /// Sends events in a transaction, and gives what is said of each.
    pub async fn send(&self, to: &str, txn: &str, pdus: &[Value]) -> Value {
        let body = json!({ "origin": self.name, "origin_server_ts": NOW_MS, "pdus": pdus });
        let path = format!("/_matrix/federation/v1/send/{txn}");
        let (status, answer) = self.call(to, "PUT", &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        answer["pdus"].clone()
    }
}

impl Known {
    /// The ids of the events that authorize an event of the peer's user.
    pub fn auth(&self) -> Vec<OwnedEventId> {
        let wanted = |pdu: &&Pdu| {
            let key = (pdu.kind(), pdu.state_key());
            let create = key == ("m.room.create", Some("")) && !self.rules.room_id_is_create_hash();
            create || key == ("m.room.power_levels", Some(""))
        };
        let mut ids: Vec<OwnedEventId> = self
            .state
            .iter()
            .filter(wanted)
            .map(|pdu| pdu.event_id.clone())
            .collect();
        ids.push(self.join.event_id.clone());
        ids
    }

    /// A message of the peer's user that follows some events.
    pub fn message(&self, peer: &Peer, body: &str, prev: &[OwnedEventId], depth: u64) -> Pdu {
        self.message_of(peer, &json!({ "body": body, "msgtype": "m.text" }), prev, depth)
    }

    /// The same with any content.
    pub fn message_of(&self, peer: &Peer, content: &Value, prev: &[OwnedEventId], depth: u64) -> Pdu {
        let content = hearth_events::canonical::to_bytes(content, true);
        let content = content.expect("canonical JSON");
        let auth = self.auth();
        let draft = Draft {
            room_id: Some(&self.id),
            sender: &self.user,
            kind: "m.room.message",
            state_key: None,
            content: &content,
            origin_server_ts: NOW_MS,
            depth,
            prev_events: prev,
            auth_events: &auth,
            redacts: None,
        };
        peer.sign(self.rules, &draft)
    }
}

impl Known {
    /// A redaction by the peer's user, in room versions 1 and 2.
    pub fn redaction(
        &self,
        peer: &Peer,
        name: &str,
        redacts: &EventId,
        prev: &[OwnedEventId],
        depth: u64,
    ) -> Pdu {
        let auth = self.auth();
        let draft = Draft {
            room_id: Some(&self.id),
            sender: &self.user,
            kind: "m.room.redaction",
            state_key: None,
            content: b"{}",
            origin_server_ts: NOW_MS,
            depth,
            prev_events: prev,
            auth_events: &auth,
            redacts: Some(redacts),
        };
        peer.sign_named(self.rules, &draft, name)
    }
}

pub fn rules_of(version: &str) -> &'static Rules {
    let version = RoomVersionId::try_from(version).expect("a room version");
    hearth_events::rules(&version).expect("a known version")
}

pub fn json_of(pdu: &Pdu) -> Value {
    serde_json::from_slice(&pdu.json).expect("JSON")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

async fn answer(answers: &Mutex<Answers>, request: Request) -> axum::response::Response {
    let path = request
        .uri()
        .path_and_query()
        .map_or(String::new(), ToString::to_string);
    let line = format!("{} {path}", request.method());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20)
        .await
        .unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let found = {
        let mut answers = answers.lock();
        answers.asked.push(line);
        let fitting = answers
            .by_prefix
            .iter()
            .filter(|(prefix, _)| path.starts_with(prefix.as_str()));
        fitting
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, answer)| answer.clone())
    };
    match found {
        Some(Answer::Json(value)) => axum::Json(value).into_response(),
        Some(Answer::Slow(after, value)) => {
            tokio::time::sleep(after).await;
            axum::Json(value).into_response()
        }
        Some(Answer::Late(after, make)) => {
            let answer = make(&path, &body);
            tokio::time::sleep(after).await;
            axum::Json(answer).into_response()
        }
        Some(Answer::Made(make)) => axum::Json(make(&path, &body)).into_response(),
        Some(Answer::Judged(judge)) => {
            let (status, answer) = judge(&path, &body);
            let status = http::StatusCode::from_u16(status).expect("a status");
            (status, axum::Json(answer)).into_response()
        }
        None => (
            http::StatusCode::NOT_FOUND,
            axum::Json(json!({ "errcode": "M_NOT_FOUND", "error": "no" })),
        )
            .into_response(),
    }
}
