//! The server-server API, asked by another server: signatures, refusals, users, directory, media.

use async_trait::async_trait;
use hearth_core::http::{Outbound, OutboundRequest, OutboundResponse, TransportError};
use hearth_events::sign_json;
use serde_json::Map;

use super::*;

pub(super) const V1: &str = "/_matrix/federation/v1";
pub(super) const V2: &str = "/_matrix/federation/v2";

/// A server under test and another server that asks it.
pub(super) struct Asked {
    pub(super) server: Server,
    pub(super) key: Arc<KeyPair>,
}

/// Gives the other server's keys to whoever asks for them.
struct Keys(Arc<KeyPair>);

#[async_trait]
impl Outbound for Keys {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        if !request.path_and_query.starts_with("/_matrix/key/v2/server") {
            return Err(TransportError::Unreachable("only keys are to be had".to_owned()));
        }
        let document = json!({
            "server_name": "other",
            "valid_until_ts": 1_700_000_000_000_u64 + 86_400_000,
            "verify_keys": { self.0.key_id(): { "key": self.0.public_key_base64() } },
            "old_verify_keys": {},
        });
        let Value::Object(mut document) = document else {
            unreachable!("it is an object")
        };
        sign_json(&mut document, "other", &self.0).expect("it can be signed");
        Ok(OutboundResponse {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Value::Object(document).to_string().into(),
        })
    }
}

impl Asked {
    pub(super) fn new() -> Self {
        Self::with(|_| {}, Registrations::default())
    }

    pub(super) fn with(configure: impl FnOnce(&mut Config), appservices: Registrations) -> Self {
        let key = Arc::new(KeyPair::from_seed([9; 32], "other").expect("a key"));
        let server = Server::reaching(configure, appservices, Arc::new(Keys(key.clone())));
        Self { server, key }
    }

    /// A request of the other server; without a body if `body` is null.
    pub(super) async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask_as(method, path, body, &self.key).await
    }

    async fn ask_as(&self, method: &str, path: &str, body: Value, key: &KeyPair) -> Answer {
        let mut object = Map::new();
        for (name, value) in [
            ("method", method),
            ("uri", path),
            ("origin", "other"),
            ("destination", "hs1"),
        ] {
            object.insert(name.to_owned(), value.into());
        }
        if !body.is_null() {
            object.insert("content".to_owned(), body.clone());
        }
        sign_json(&mut object, "other", key).expect("it can be signed");
        let signature = object["signatures"]["other"][key.key_id()]
            .as_str()
            .expect("a signature");
        let header = format!(
            "X-Matrix origin=\"other\",destination=\"hs1\",key=\"{}\",sig=\"{signature}\"",
            key.key_id()
        );
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", header);
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        self.server.send(request.body(body).expect("a request")).await
    }

    /// With a body that no value can be read from.
    pub(super) async fn ask_text(&self, method: &str, path: &str, body: String) -> Answer {
        let signed = format!(
            r#"{{"content":{body},"destination":"hs1","method":"{method}","origin":"other","uri":"{path}"}}"#
        );
        let header = format!(
            "X-Matrix origin=\"other\",destination=\"hs1\",key=\"{}\",sig=\"{}\"",
            self.key.key_id(),
            hearth_events::base64_encode(&self.key.sign(signed.as_bytes()))
        );
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", header);
        self.server
            .send(request.body(Body::from(body)).expect("a request"))
            .await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, Value::Null).await
    }

    /// A public room of alice's.
    pub(super) async fn room(&self, alice: &str, more: Value) -> String {
        let mut body = json!({ "preset": "public_chat" });
        let more = more.as_object().cloned().unwrap_or_default();
        body.as_object_mut().expect("an object").extend(more);
        let made = self
            .server
            .post(&format!("{V3}/createRoom"), alice, body)
            .await
            .ok();
        made["room_id"].as_str().expect("a room id").to_owned()
    }
}

#[tokio::test]
async fn nobody_asks_without_a_signature() {
    let asked = Asked::new();
    let room = "!r:hs1";
    let paths = [
        ("GET", format!("{V1}/event/$e")),
        ("GET", format!("{V1}/state/{room}?event_id=$e")),
        ("GET", format!("{V1}/state_ids/{room}?event_id=$e")),
        ("GET", format!("{V1}/event_auth/{room}/$e")),
        ("GET", format!("{V1}/backfill/{room}?v=$e&limit=1")),
        ("POST", format!("{V1}/get_missing_events/{room}")),
        ("GET", format!("{V1}/timestamp_to_event/{room}?ts=1&dir=f")),
        ("GET", format!("{V1}/make_join/{room}/@eve:other")),
        ("GET", format!("{V1}/make_leave/{room}/@eve:other")),
        ("GET", format!("{V1}/make_knock/{room}/@eve:other")),
        ("PUT", format!("{V1}/send_join/{room}/$e")),
        ("PUT", format!("{V2}/send_join/{room}/$e")),
        ("PUT", format!("{V1}/send_leave/{room}/$e")),
        ("PUT", format!("{V2}/send_leave/{room}/$e")),
        ("PUT", format!("{V1}/send_knock/{room}/$e")),
        ("PUT", format!("{V1}/invite/{room}/$e")),
        ("PUT", format!("{V2}/invite/{room}/$e")),
        ("PUT", format!("{V1}/exchange_third_party_invite/{room}")),
        ("GET", format!("{V1}/publicRooms")),
        ("POST", format!("{V1}/publicRooms")),
        ("GET", format!("{V1}/hierarchy/{room}")),
        ("GET", format!("{V1}/query/profile?user_id=@alice:hs1")),
        ("GET", format!("{V1}/query/directory?room_alias=%23a:hs1")),
        ("GET", format!("{V1}/user/devices/@alice:hs1")),
        ("POST", format!("{V1}/user/keys/query")),
        ("POST", format!("{V1}/user/keys/claim")),
        ("PUT", format!("{V1}/send/1")),
        ("GET", format!("{V1}/media/download/x")),
        ("GET", format!("{V1}/media/thumbnail/x?width=1&height=1")),
    ];
    let wrong = KeyPair::from_seed([8; 32], "other").expect("a key");
    for (method, path) in paths {
        let body = if method == "GET" { Value::Null } else { json!({}) };
        let unsigned = asked.server.call(method, &path, None, body.clone()).await;
        unsigned.refused(401, "M_UNAUTHORIZED");
        let forged = asked.ask_as(method, &path, body, &wrong).await;
        forged.refused(401, "M_UNAUTHORIZED");
    }
    let version = asked
        .server
        .call("GET", &format!("{V1}/version"), None, Value::Null)
        .await;
    assert_eq!(version.ok()["server"]["name"], "Hearth");
}

#[tokio::test]
async fn own_keys_are_given_with_and_without_what_older_servers_add() {
    let server = Server::new();
    for path in ["", "/", "/ed25519:auto"] {
        let path = format!("/_matrix/key/v2/server{path}");
        let document = server.call("GET", &path, None, Value::Null).await.ok();
        assert_eq!(document["server_name"], "hs1", "{path}");
        assert!(
            !document["verify_keys"].as_object().expect("keys").is_empty(),
            "{path}"
        );
    }
}

#[tokio::test]
async fn whose_openid_token_it_is() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let path = format!("{V3}/user/@alice:hs1/openid/request_token");
    let token = asked.server.post(&path, &alice, json!({})).await.ok()["access_token"].clone();
    let of = async |query: String| {
        let path = format!("{V1}/openid/userinfo{query}");
        asked.server.call("GET", &path, None, Value::Null).await
    };
    let token = token.as_str().expect("a token");
    assert_eq!(
        of(format!("?access_token={token}")).await.ok(),
        json!({ "sub": "@alice:hs1" })
    );
    of("?access_token=x".to_owned())
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    of(String::new()).await.refused(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn profiles_and_keys() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let name = format!("{V3}/profile/@alice:hs1/displayname");
    asked
        .server
        .put(&name, &alice, json!({ "displayname": "Alice" }))
        .await
        .ok();
    let query = |rest: &str| format!("{V1}/query/profile?user_id={rest}");
    let profile = asked.get(&query("@alice:hs1")).await.ok();
    assert_eq!(profile, json!({ "displayname": "Alice" }));
    let one = asked.get(&query("@alice:hs1&field=displayname")).await.ok();
    assert_eq!(one, json!({ "displayname": "Alice" }));
    for unset in ["avatar_url", "x.y"] {
        asked
            .get(&query(&format!("@alice:hs1&field={unset}")))
            .await
            .refused(404, "M_NOT_FOUND");
    }
    asked.get(&query("@nobody:hs1")).await.refused(404, "M_NOT_FOUND");
    asked
        .get(&query("@alice:elsewhere"))
        .await
        .refused(400, "M_INVALID_PARAM");
    asked
        .get(&query("@user1:localhost:http"))
        .await
        .refused(400, "M_INVALID_PARAM");

    let keys = json!({
        "user_id": "@alice:hs1", "device_id": "A", "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": { "curve25519:A": "x" }, "signatures": {},
    });
    let upload = json!({ "device_keys": keys, "one_time_keys": { "signed_curve25519:1": { "key": "k" } } });
    asked
        .server
        .post(&format!("{V3}/keys/upload"), &alice, upload)
        .await
        .ok();
    let devices = asked.get(&format!("{V1}/user/devices/@alice:hs1")).await.ok();
    assert_eq!(devices["user_id"], "@alice:hs1");
    assert_eq!(devices["devices"][0]["device_id"], "A");
    assert_eq!(devices["devices"][0]["keys"]["keys"], keys["keys"]);
    assert!(devices["stream_id"].is_u64());
    asked
        .get(&format!("{V1}/user/devices/@nobody:hs1"))
        .await
        .refused(404, "M_NOT_FOUND");
    let body = json!({ "device_keys": { "@alice:hs1": [], "@nobody:hs1": [], "@eve:other": [] } });
    let found = asked
        .ask("POST", &format!("{V1}/user/keys/query"), body)
        .await
        .ok();
    assert_eq!(found["device_keys"]["@alice:hs1"]["A"]["keys"], keys["keys"]);
    assert_eq!(found["device_keys"].as_object().map(Map::len), Some(1));
    let body = json!({ "one_time_keys": { "@alice:hs1": { "A": "signed_curve25519" } } });
    let path = format!("{V1}/user/keys/claim");
    let claimed = asked.ask("POST", &path, body.clone()).await.ok();
    assert_eq!(
        claimed["one_time_keys"]["@alice:hs1"]["A"],
        json!({ "signed_curve25519:1": { "key": "k" } })
    );
    assert_eq!(
        asked.ask("POST", &path, body).await.ok(),
        json!({ "one_time_keys": {} })
    );
}

#[tokio::test]
async fn directory_and_spaces() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let more = json!({ "visibility": "public", "name": "Fish", "room_alias_name": "fish" });
    let fish = asked.room(&alice, more).await;
    let page = asked.get(&format!("{V1}/publicRooms?limit=0")).await.ok();
    assert_eq!(page["chunk"][0]["room_id"], fish.as_str());
    let search = async |term: &str| {
        let body = json!({ "filter": { "generic_search_term": term } });
        let page = asked.ask("POST", &format!("{V1}/publicRooms"), body).await.ok();
        page["chunk"].as_array().expect("a chunk").len()
    };
    assert_eq!((search("fish").await, search("bird").await), (1, 0));
    let first = asked.get(&format!("{V1}/publicRooms?since=")).await.ok();
    assert_eq!(first["chunk"], page["chunk"], "an empty token is none");
    let path = format!("{V1}/publicRooms");
    let first = asked.ask("POST", &path, json!({ "since": "" })).await.ok();
    assert_eq!(first["chunk"], page["chunk"]);
    let alias = |alias: &str| format!("{V1}/query/directory?room_alias={alias}");
    let found = asked.get(&alias("%23fish:hs1")).await.ok();
    assert_eq!(found, json!({ "room_id": fish, "servers": ["hs1"] }));
    asked.get(&alias("%23bird:hs1")).await.refused(404, "M_NOT_FOUND");

    let more = json!({ "creation_content": { "type": "m.space" }, "name": "Animals" });
    let space = asked.room(&alice, more).await;
    let secret = asked.room(&alice, json!({ "preset": "private_chat" })).await;
    for child in [&fish, &secret, &"!unknown:elsewhere".to_owned()] {
        let path = format!("{V3}/rooms/{space}/state/m.space.child/{child}");
        asked
            .server
            .put(&path, &alice, json!({ "via": ["hs1"] }))
            .await
            .ok();
    }
    let tree = asked.get(&format!("{V1}/hierarchy/{space}")).await.ok();
    assert_eq!(tree["room"]["room_id"], space.as_str());
    assert_eq!(tree["room"]["room_type"], "m.space");
    assert_eq!(tree["room"]["children_state"].as_array().map(Vec::len), Some(3));
    assert_eq!(tree["children"].as_array().map(Vec::len), Some(1));
    assert_eq!(tree["children"][0]["room_id"], fish.as_str());
    assert_eq!(tree["inaccessible_children"], json!([secret]));
    let none = asked
        .get(&format!("{V1}/hierarchy/{space}?suggested_only=true"))
        .await
        .ok();
    assert_eq!(none["children"], json!([]));
    asked
        .get(&format!("{V1}/hierarchy/{secret}"))
        .await
        .refused(404, "M_NOT_FOUND");
    asked
        .get(&format!("{V1}/hierarchy/!unknown:hs1"))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn media() {
    let asked = Asked::new();
    let alice = asked.server.user("alice", "A").await;
    let request = Request::builder()
        .method("POST")
        .uri("/_matrix/media/v3/upload?filename=a.txt")
        .header("authorization", format!("Bearer {alice}"))
        .header("content-type", "text/plain")
        .body(Body::from("hello"))
        .expect("a request");
    let uploaded = asked.server.send(request).await.ok();
    let uri = uploaded["content_uri"].as_str().expect("a URI");
    let id = uri.rsplit('/').next().expect("an id");
    let answer = asked.get(&format!("{V1}/media/download/{id}")).await;
    assert_eq!(answer.status, 200);
    let kind = answer.headers["content-type"].to_str().expect("text").to_owned();
    let boundary = kind
        .strip_prefix("multipart/mixed; boundary=")
        .expect("a boundary");
    let text = String::from_utf8(answer.body.to_vec()).expect("text");
    let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 4, "{text}");
    assert_eq!(parts[1], "\r\nContent-Type: application/json\r\n\r\n{}\r\n");
    assert!(
        parts[2].starts_with("\r\nContent-Type: text/plain\r\nContent-Disposition: "),
        "{text}"
    );
    assert!(
        parts[2].contains("a.txt") && parts[2].ends_with("\r\n\r\nhello\r\n"),
        "{text}"
    );
    asked
        .get(&format!("{V1}/media/download/unknown"))
        .await
        .refused(404, "M_NOT_FOUND");
    let thumbnail = format!("{V1}/media/thumbnail/{id}?width=10&height=10");
    asked.get(&thumbnail).await.refused(400, "M_UNKNOWN");
}
