//! Answers whose words the specification prescribes and that no other test asks for. That every answer has the form of
//! its schema is checked by the test kit itself.

use std::sync::Arc;

use hearth_core::config::{Secret, SupportContact};
use hearth_testkit::client::text;
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::accounts::confirmed;
use crate::federation::public_room;
use crate::federation_hostile::peer::{Answer, NOW_MS, Peer, json_of, rules_of};

/// Element Web makes keys for cross-signing when somebody registers, and asks the directory for rooms or spaces only,
/// where it finds these flags; it does not look at the versions.
#[tokio::test]
async fn clients_find_the_flags_that_they_look_for() {
    let server = TestServer::memory(1).await;
    let alice = server.register("alice").await;
    let versions = alice.get("/_matrix/client/versions").await.ok();
    for flag in ["org.matrix.e2e_cross_signing", "org.matrix.msc3827.stable"] {
        assert_eq!(versions["unstable_features"][flag], true, "{flag}");
    }
}

#[tokio::test]
async fn clients_are_told_of_the_turn_server() {
    let server = TestServer::memory_with(1, |config| {
        config.turn.uris = vec!["turn:turn.hs1?transport=udp".to_owned()];
        config.turn.shared_secret = Some(Secret::new("secret"));
        config.turn.ttl_seconds = 600;
    })
    .await;
    let alice = server.register("alice").await;
    let answer = alice.get("/voip/turnServer").await.ok();
    assert_eq!(answer["uris"], json!(["turn:turn.hs1?transport=udp"]));
    assert_eq!(answer["ttl"], 600);
    let name = answer["username"].as_str().expect("a name");
    assert!(name.ends_with(":@alice:hs1"), "{name}");
    // 20 bytes in padded base64.
    let password = answer["password"].as_str().expect("a password");
    assert_eq!((password.len(), password.ends_with('=')), (28, true));

    let server = TestServer::memory_with(1, |config| {
        config.turn.uris = vec!["turns:turn.hs1".to_owned()];
        config.turn.username = Some("everybody".to_owned());
        config.turn.password = Some(Secret::new("word"));
    })
    .await;
    let answer = server.register("alice").await.get("/voip/turnServer").await.ok();
    assert_eq!(
        (&answer["username"], &answer["password"]),
        (&json!("everybody"), &json!("word"))
    );
}

/// A refusal of another server.
fn refusal(errcode: &'static str) -> Answer {
    Answer::Judged(Arc::new(move |_, _| {
        (
            400,
            json!({ "errcode": errcode, "error": "No.", "room_version": "11" }),
        )
    }))
}

async fn invites(ann: &Client, room: &str) -> (u16, String) {
    let answer = ann.act(room, "invite", json!({ "user_id": "@eve:evil" })).await;
    (answer.status, answer.errcode())
}

async fn joins(ann: &Client) -> (u16, String) {
    let answer = ann.post("/join/!room:evil?via=evil", json!({})).await;
    (answer.status, answer.errcode())
}

/// What another server finds wrong with an event of this one is not handed on as if the client had sent it.
#[tokio::test(start_paused = true)]
async fn refusals_of_other_servers_in_the_words_for_clients() {
    let network = SimNetwork::new(4);
    let server = TestServer::simulated("hs1", 4, 4, &network);
    let ann = server.register("ann").await;
    let room = public_room(&ann, "11").await;
    let peer = Peer::new("evil", &network);
    for (errcode, expected) in [
        ("M_INCOMPATIBLE_ROOM_VERSION", (400, "M_UNSUPPORTED_ROOM_VERSION")),
        ("M_INVALID_PARAM", (502, "M_UNKNOWN")),
    ] {
        peer.says("/_matrix/federation/v2/invite/", refusal(errcode));
        let (status, found) = invites(&ann, &room).await;
        assert_eq!((status, found.as_str()), expected, "{errcode}");
    }
    let template = json!({
        "room_version": "11",
        "event": { "type": "m.room.member", "room_id": "!room:evil", "sender": "@ann:hs1", "state_key": "@ann:hs1",
            "content": { "membership": "join" }, "prev_events": [], "auth_events": [], "depth": 5,
            "origin_server_ts": 1 },
    });
    peer.says("/_matrix/federation/v2/send_join/", refusal("M_MISSING_PARAM"));
    for (made, expected) in [
        (
            refusal("M_INCOMPATIBLE_ROOM_VERSION"),
            (400, "M_INCOMPATIBLE_ROOM_VERSION"),
        ),
        (refusal("M_UNABLE_TO_GRANT_JOIN"), (400, "M_UNABLE_TO_GRANT_JOIN")),
        (Answer::Json(template), (502, "M_UNKNOWN")),
    ] {
        peer.says("/_matrix/federation/v1/make_join/", made);
        let (status, found) = joins(&ann).await;
        assert_eq!((status, found.as_str()), expected);
    }
}

/// Endpoints that no other test asks with success: the test kit compares their answers.
#[tokio::test]
async fn accounts_and_settings() {
    let server = TestServer::memory_with(4, |config| {
        config.admins = vec!["@admin:hs1".to_owned()];
        config.well_known.server = Some("matrix.hs1:443".to_owned());
        config.well_known.support_page = Some("https://hs1/help".to_owned());
        config.well_known.support_contacts = vec![SupportContact {
            role: "m.role.admin".to_owned(),
            matrix_id: Some("@admin:hs1".to_owned()),
            email_address: None,
        }];
    })
    .await;
    let (admin, alice) = (server.register("admin").await, server.register("alice").await);
    for (what, state) in [("lock", "locked"), ("suspend", "suspended")] {
        let path = format!("/_matrix/client/v1/admin/{what}/@alice:hs1");
        for is_so in [true, false] {
            admin.put(&path, json!({ state: is_so })).await.ok();
            assert_eq!(admin.get(&path).await.ok(), json!({ state: is_so }));
        }
    }
    for document in ["client", "server", "support"] {
        let path = format!("/.well-known/matrix/{document}");
        server.call("GET", &path, None, Value::Null).await.ok();
    }
    server.login("alice", "OLD").await;
    confirmed(&alice, "/delete_devices", json!({ "devices": ["OLD"] })).await;
    confirmed(&alice, "/_matrix/client/v1/login/get_token", json!({})).await;
    let rule = "/pushrules/global/override/.m.rule.master/actions";
    alice.put(rule, json!({ "actions": ["notify"] })).await.ok();
    let actions = alice.get(rule).await.ok();
    assert_eq!(actions["actions"], json!(["notify"]));
    let since = text(&alice.sync("timeout=0").await, "next_batch");
    let until = text(&alice.sync_since(&json!(since)).await, "next_batch");
    let query = format!("from={}&to={}", encode(&since), encode(&until));
    alice.get(&format!("/keys/changes?{query}")).await.ok();
}

#[tokio::test]
async fn key_backups() {
    let server = TestServer::memory(4).await;
    let alice = server.register("alice").await;
    let algorithm = "m.megolm_backup.v1.curve25519-aes-sha2";
    let backup = json!({ "algorithm": algorithm, "auth_data": { "public_key": "abc", "signatures": {} } });
    let made = alice.post("/room_keys/version", backup.clone()).await.ok();
    let version = text(&made, "version");
    let path = format!("/room_keys/version/{version}");
    alice.get(&path).await.ok();
    alice.put(&path, backup).await.ok();
    let sealed = json!({ "ciphertext": "abc", "mac": "def", "ephemeral": "ghi" });
    let key = json!({ "first_message_index": 1, "forwarded_count": 0, "is_verified": true, "session_data": sealed });
    let sessions = json!({ "sessions": { "one": key } });
    let rooms = json!({ "rooms": { "!room:hs1": sessions } });
    for (place, keys) in [
        ("/!room:hs1/one", key.clone()),
        ("/!room:hs1", sessions),
        ("", rooms),
    ] {
        let path = format!("/room_keys/keys{place}?version={version}");
        assert_eq!(alice.put(&path, keys.clone()).await.ok()["count"], 1);
        assert_eq!(alice.get(&path).await.ok(), keys);
        assert_eq!(alice.delete(&path).await.ok()["count"], 0);
    }
    alice.delete(&path).await.ok();
}

#[tokio::test]
async fn files() {
    let server = TestServer::memory(4).await;
    let alice = server.register("alice").await;
    let made = alice.post("/_matrix/media/v1/create", Value::Null).await.ok();
    let id = text(&made, "content_uri").replace("mxc://", "");
    let upload = format!("/_matrix/media/v3/upload/{id}");
    alice.put(&upload, json!({ "a": 1 })).await.ok();
    alice
        .put(&upload, json!({}))
        .await
        .refused(409, "M_CANNOT_OVERWRITE_MEDIA");
    let file = alice
        .get(&format!("/_matrix/client/v1/media/download/{id}"))
        .await;
    assert_eq!((file.status, file.text()), (200, "{\"a\":1}".to_owned()));
    for header in ["content-type", "content-disposition"] {
        assert!(file.headers.contains_key(header), "{header}");
    }
    let thumbnail = format!("/_matrix/client/v1/media/thumbnail/{id}?width=10&height=10");
    alice.get(&thumbnail).await.refused(400, "M_UNKNOWN");
    let broken = format!("/_matrix/client/v1/media/thumbnail/{id}?width=-1&height=x");
    assert_eq!(alice.get(&broken).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn what_servers_ask_each_other_rarely() {
    let network = SimNetwork::new(5);
    let server = TestServer::simulated("hs1", 4, 5, &network);
    let ann = server.register("ann").await;
    let room = public_room(&ann, "11").await;
    let peer = Peer::new("evil", &network);
    let known = peer.join("hs1", &room, "11").await;
    let (room, event) = (encode(&room), encode(known.join.event_id.as_str()));
    let ts = known.join.origin_server_ts();
    let picture = hearth_events::base64_decode(PICTURE).expect("a picture");
    let path = "/_matrix/media/v3/upload?filename=dot.png";
    let made = server
        .call_bytes("POST", path, Some(&ann.token), picture)
        .await
        .ok();
    let picture = text(&made, "content_uri").replace("mxc://hs1/", "");
    let token = format!("/user/{}/openid/request_token", encode(&ann.user_id));
    let token = text(&ann.post(&token, json!({})).await.ok(), "access_token");
    for path in [
        format!("event_auth/{room}/{event}"),
        format!("timestamp_to_event/{room}?ts={ts}&dir=b"),
        "publicRooms?limit=1".to_owned(),
        "version".to_owned(),
        format!("openid/userinfo?access_token={token}"),
        format!("state/{room}?event_id={event}"),
        format!("hierarchy/{room}"),
        format!("media/download/{picture}"),
        format!("media/thumbnail/{picture}?width=32&height=32"),
    ] {
        let path = format!("/_matrix/federation/v1/{path}");
        let (status, answer) = peer.call("hs1", "GET", &path, None).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
}

/// A picture of one pixel.
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg";

/// Servers that know nothing newer invite as in the oldest rooms.
#[tokio::test(start_paused = true)]
async fn an_invitation_by_the_older_endpoint() {
    let network = SimNetwork::new(6);
    let server = TestServer::simulated("hs1", 4, 6, &network);
    let ann = server.register("ann").await;
    let peer = Peer::new("evil", &network);
    let room_id = ruma::owned_room_id!("!room:evil");
    let sender = peer.user("mallory");
    let references = [ruma::owned_event_id!("$before:evil")];
    let draft = hearth_events::Draft {
        room_id: Some(&room_id),
        sender: &sender,
        kind: "m.room.member",
        state_key: Some("@ann:hs1"),
        content: br#"{"membership":"invite"}"#,
        origin_server_ts: NOW_MS,
        depth: 3,
        prev_events: &references,
        auth_events: &references,
        redacts: None,
    };
    let invite = peer.sign(rules_of("1"), &draft);
    let mut body = json_of(&invite);
    let name =
        json!({ "type": "m.room.name", "state_key": "", "sender": sender, "content": { "name": "Old" } });
    body["unsigned"] = json!({ "invite_room_state": [name] });
    let place = format!(
        "{}/{}",
        encode(room_id.as_str()),
        encode(invite.event_id.as_str())
    );
    let path = format!("/_matrix/federation/v1/invite/{place}");
    let (status, answer) = peer.call("hs1", "PUT", &path, Some(body)).await;
    assert_eq!((status, &answer[0]), (200, &json!(200)), "{answer}");
    let signatures = answer[1]["event"]["signatures"].as_object().expect("signatures");
    assert!(
        signatures.contains_key("evil") && signatures.contains_key("hs1"),
        "{answer}"
    );
    let news = ann.sync("timeout=0").await;
    let shown = &news["rooms"]["invite"][room_id.as_str()]["invite_state"]["events"];
    let has_name = |event: &Value| event["content"]["name"] == "Old";
    assert!(
        shown.as_array().is_some_and(|all| all.iter().any(has_name)),
        "{news}"
    );
}

/// What another server's directory has of other types than clients expect is left out.
#[tokio::test(start_paused = true)]
async fn a_directory_that_makes_no_sense() {
    let network = SimNetwork::new(7);
    let server = TestServer::simulated("hs1", 4, 7, &network);
    let ann = server.register("ann").await;
    let peer = Peer::new("evil", &network);
    let good = json!({ "room_id": "!good:evil", "name": "Good", "num_joined_members": 5, "world_readable": true,
        "guest_can_join": false, "join_rule": "public" });
    let page = json!({ "next_batch": "more", "total_room_count_estimate": 3,
        "chunk": [good, { "room_id": 5 }, { "room_id": "!bad:evil", "name": ["Bad"], "topic": null,
            "num_joined_members": "many", "world_readable": 1, "canonical_alias": "no alias" }, "room"] });
    peer.says("/_matrix/federation/v1/publicRooms", Answer::Json(page));
    for answer in [
        ann.get("/publicRooms?server=evil").await.ok(),
        ann.post("/publicRooms?server=evil", json!({ "limit": 2 }))
            .await
            .ok(),
    ] {
        let bad = json!({ "room_id": "!bad:evil", "num_joined_members": 0, "world_readable": false,
            "guest_can_join": false });
        assert_eq!(answer["chunk"], json!([good, bad]));
        assert_eq!(
            (&answer["next_batch"], &answer["total_room_count_estimate"]),
            (&json!("more"), &json!(3))
        );
    }
    // Between servers a limit of 0 is none, so that the other one is not asked for it.
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (noted, page) = (
        asked.clone(),
        json!({ "chunk": [good], "total_room_count_estimate": 3 }),
    );
    let give = move |_: &str, body: &Value| {
        noted.lock().push(body["limit"].clone());
        page.clone()
    };
    peer.says("/_matrix/federation/v1/publicRooms", Answer::Made(Arc::new(give)));
    for (answer, expected) in [
        (
            ann.get("/publicRooms?server=evil&limit=0").await.ok(),
            json!({ "chunk": [], "total_room_count_estimate": 3 }),
        ),
        (
            ann.post(
                "/publicRooms?server=evil",
                json!({ "limit": 0, "since": "there" }),
            )
            .await
            .ok(),
            json!({ "chunk": [], "total_room_count_estimate": 3, "next_batch": "there" }),
        ),
    ] {
        assert_eq!(answer, expected);
    }
    assert!(asked.lock().iter().all(|limit| *limit == 1), "{asked:?}");
    peer.says(
        "/_matrix/federation/v1/publicRooms",
        Answer::Json(json!({ "chunk": "none" })),
    );
    let answer = ann.get("/publicRooms?server=evil").await;
    assert_eq!((answer.status, answer.errcode().as_str()), (502, "M_UNKNOWN"));
}
