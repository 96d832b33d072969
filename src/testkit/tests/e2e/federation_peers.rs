//! What a server gives to others, byte by byte: a peer that only records looks at it.

use std::sync::Arc;
use std::time::Duration;

use hearth_events::Pdu;
use hearth_testkit::{SimNetwork, TestServer, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::federation_hostile::peer::{Answer, Peer, rules_of};

#[tokio::test(start_paused = true)]
async fn an_invitation_carries_whole_events_of_the_room() {
    for version in ["1", "10", "12"] {
        let network = SimNetwork::new(1);
        let server = TestServer::simulated("hs1", 4, 1, &network);
        let alice = server.register("alice").await;
        let far = Peer::new("far", &network);
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let record = seen.clone();
        let judge = move |_: &str, body: &Value| {
            record.lock().push(body.clone());
            (
                403_u16,
                json!({ "errcode": "M_FORBIDDEN", "error": "seen enough" }),
            )
        };
        far.says("/_matrix/federation/v2/invite", Answer::Judged(Arc::new(judge)));
        let room = alice
            .room()
            .version(version)
            .set("name", json!("Tea"))
            .build()
            .await;
        let invited = json!({ "user_id": "@bob:far" });
        let refused = alice.post(&format!("/rooms/{room}/invite"), invited).await;
        assert_eq!(refused.status, 403, "{version}: {refused:?}");
        let body = seen.lock().pop().expect("an invitation");
        let state = body["invite_room_state"].as_array().expect("a list").clone();
        let events: Vec<Pdu> = state
            .iter()
            .map(|event| Pdu::parse(rules_of(version), event.to_string().as_bytes()))
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{version}: {error} in {state:?}"));
        let room_id = ruma::OwnedRoomId::try_from(room.as_str()).expect("a room id");
        let known = server
            .inner()
            .parts()
            .rooms
            .get(&room_id)
            .expect("it is read")
            .expect("the room");
        for event in &events {
            assert_eq!(event.room_id().as_str(), room, "{version}");
            let stored = known.event_by_id(&event.event_id).expect("it is read");
            assert_eq!(
                stored.expect("an event of the room").pdu.json,
                event.json,
                "{version}"
            );
        }
        let kinds: Vec<_> = events
            .iter()
            .map(|event| (event.kind(), event.state_key()))
            .collect();
        for wanted in [
            ("m.room.create", Some("")),
            ("m.room.name", Some("")),
            ("m.room.member", Some("@alice:hs1")),
        ] {
            assert!(kinds.contains(&wanted), "{version}: {kinds:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_event_that_is_kept_is_given_by_its_id_alone() {
    for version in ["6", "12"] {
        let network = SimNetwork::new(2);
        let servers: Vec<TestServer> = (1..=2)
            .map(|number| TestServer::simulated(&format!("hs{number}"), 4, number, &network))
            .collect();
        let alice = servers[0].register("alice").await;
        let bob = servers[1].register("bob").await;
        let room = alice
            .room()
            .version(version)
            .preset("public_chat")
            .messages(5)
            .build()
            .await;
        let old = alice.say(&room, "before bob").await;
        alice.say(&room, "the last before bob").await;
        bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
        // His server has the whole state soon.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let peer = Peer::new("peer", &network);
        // The state at bob's join has no place in his server's timeline, and the message is filled in when he reads.
        let known = peer.join("hs2", &room, version).await;
        bob.get(&format!("/rooms/{room}/messages?dir=b&limit=50"))
            .await
            .ok();
        let ask = async |id: &str| {
            let path = format!("/_matrix/federation/v1/event/{}", encode(id));
            peer.call("hs2", "GET", &path, None).await
        };
        assert!(known.state.len() > 5, "{}", known.state.len());
        for id in known
            .state
            .iter()
            .map(|event| event.event_id.as_str())
            .chain([old.as_str()])
        {
            let (status, answer) = ask(id).await;
            assert_eq!(status, 200, "{version}: {answer}");
            let event = Pdu::parse(rules_of(version), answer["pdus"][0].to_string().as_bytes());
            assert_eq!(event.expect("an event").event_id.as_str(), id, "{version}");
        }
        let (status, _) = ask("$unknown").await;
        assert_eq!(status, 404);
        let stranger = Peer::new("stranger", &network);
        let path = format!("/_matrix/federation/v1/event/{}", encode(&old));
        let (status, answer) = stranger.call("hs2", "GET", &path, None).await;
        assert!(matches!(status, 403 | 404), "{version}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_of_an_unknown_version_is_named_to_the_client() {
    let network = SimNetwork::new(4);
    let server = TestServer::simulated("hs1", 4, 1, &network);
    let alice = server.register("alice").await;
    let far = Peer::new("far", &network);
    let refusal =
        json!({ "errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "too old", "room_version": "x.y" });
    let offer = json!({ "room_version": "x.y", "event": { "prev_events": [], "auth_events": [] } });
    for (status, answer) in [(400_u16, refusal), (200, offer)] {
        let judge = move |_: &str, _: &Value| (status, answer.clone());
        far.says(
            "/_matrix/federation/v1/make_join",
            Answer::Judged(Arc::new(judge)),
        );
        let refused = alice.post("/join/!there:far?via=far", json!({})).await;
        let body = refused.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
        assert_eq!(body["room_version"], "x.y", "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_alias_is_found_beside_servers_with_odd_names() {
    let network = SimNetwork::new(5);
    let server = TestServer::simulated("hs1", 4, 1, &network);
    let alice = server.register("alice").await;
    let far = Peer::new("far", &network);
    let found = json!({ "room_id": "!there:far", "servers": ["far", "no name", "", 5, "near:8448"] });
    far.says("/_matrix/federation/v1/query/directory", Answer::Json(found));
    let answer = alice.get("/directory/room/%23there:far").await.ok();
    assert_eq!(answer["room_id"], "!there:far");
    assert_eq!(answer["servers"], json!(["far", "near:8448"]));
}

/// A server that is asked for a template and gives one of another event gets nothing signed.
#[tokio::test(start_paused = true)]
async fn templates_of_other_events_are_discarded() {
    let network = SimNetwork::new(5);
    let server = TestServer::simulated("hs1", 4, 1, &network);
    let alice = server.register("alice").await;
    let far = Peer::new("far", &network);
    for word in ["join", "knock"] {
        let template = json!({
            "type": "m.room.member", "room_id": "!there:far", "sender": "@alice:hs1", "state_key": "@alice:hs1",
            "content": { "membership": word }, "prev_events": [], "auth_events": [], "depth": 5, "origin_server_ts": 1,
        });
        let try_with = async |template: Value| {
            let made = Answer::Json(json!({ "room_version": "11", "event": template }));
            far.says(&format!("/_matrix/federation/v1/make_{word}"), made);
            far.asked();
            let answer = alice
                .post(&format!("/{word}/!there:far?via=far"), json!({}))
                .await;
            let is_sent = far.asked().iter().any(|line| line.contains("send_"));
            (answer.status, is_sent)
        };
        for (pointer, wrong) in [
            ("/type", json!("m.room.message")),
            ("/room_id", json!("!elsewhere:far")),
            ("/sender", json!("@bob:hs1")),
            ("/state_key", json!("@bob:hs1")),
            ("/state_key", json!(null)),
            ("/content/membership", json!("ban")),
            ("/content", json!({})),
        ] {
            let mut other = template.clone();
            *other.pointer_mut(pointer).expect("a field") = wrong;
            assert_eq!(try_with(other).await, (502, false), "{word}: {pointer}");
        }
        assert!(try_with(template).await.1, "{word}: the right one is sent back");
    }
}

#[tokio::test(start_paused = true)]
async fn another_server_does_not_end_a_clients_session() {
    let network = SimNetwork::new(3);
    let server = TestServer::simulated("hs1", 4, 1, &network);
    let alice = server.register("alice").await;
    let far = Peer::new("far", &network);
    for (status, errcode) in [
        (401_u16, "M_UNKNOWN_TOKEN"),
        (401, "M_UNAUTHORIZED"),
        (403, "M_USER_LOCKED"),
        (400, "M_UNKNOWN_TOKEN"),
    ] {
        let judge = move |_: &str, _: &Value| {
            let error = json!({ "errcode": errcode, "error": "log out", "soft_logout": false });
            (status, error)
        };
        far.says(
            "/_matrix/federation/v1/make_join",
            Answer::Judged(Arc::new(judge)),
        );
        far.says(
            "/_matrix/federation/v1/query/directory",
            Answer::Judged(Arc::new(judge)),
        );
        for path in ["/join/!there:far?via=far", "/join/%23there:far"] {
            let answer = alice.post(path, json!({})).await;
            assert_eq!(
                (answer.status, answer.errcode().as_str()),
                (502, "M_UNKNOWN"),
                "{path}: {errcode}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_too_large_for_this_server_is_refused_as_such() {
    let network = SimNetwork::new(6);
    let server = TestServer::simulated_with("hs1", 4, 1, &network, |config| config.max_upload_bytes = 1_000);
    let alice = server.register("alice").await;
    let far = Peer::new("far", &network);
    let large = json!({ "file": "x".repeat(100_000) });
    far.says("/_matrix/federation/v1/media/download", Answer::Json(large));
    for path in ["download/far/abc", "thumbnail/far/abc?width=32&height=32"] {
        let answer = alice.get(&format!("/_matrix/client/v1/media/{path}")).await;
        answer.refused(502, "M_TOO_LARGE");
    }
}
