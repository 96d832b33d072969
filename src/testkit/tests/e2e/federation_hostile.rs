//! A hostile server among honest ones: nothing untrue is accepted, honest servers' events come through, and what the
//! hostile one costs is bounded.

mod costs;
mod depth;
pub(crate) mod peer;
mod redactions;

use std::sync::Arc;
use std::time::Duration;

use hearth_events::{Draft, KeyPair, Pdu};
use hearth_rooms::{Flags, Room};
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use peer::{Answer, Known, Peer, json_of};
use ruma::{EventId, OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};

const VERSIONS: [&str; 3] = ["6", "10", "12"];

/// An honest server with a room that the hostile one is in.
struct Stage {
    network: SimNetwork,
    server: TestServer,
    ann: Client,
    peer: Peer,
    known: Known,
    room_id: String,
}

impl Stage {
    async fn new(version: &str) -> Self {
        let network = SimNetwork::new(1);
        let server = TestServer::simulated("hs1", 4, 1, &network);
        let ann = server.register("ann").await;
        let room_id = room(&ann, version).await;
        let peer = Peer::new("evil", &network);
        let known = peer.join("hs1", &room_id, version).await;
        Self {
            network,
            server,
            ann,
            peer,
            known,
            room_id,
        }
    }

    fn room(&self) -> Room {
        let id = OwnedRoomId::try_from(self.room_id.as_str()).expect("a room id");
        let found = self.server.inner().parts().rooms.get(&id).expect("it is read");
        found.expect("the room is there")
    }

    /// How many events the room has in any way.
    fn rows(&self) -> u64 {
        let room = self.room();
        let mut count = 0;
        // Numbers are dense.
        while let Ok(Some(_)) = room.event(count + 1) {
            count += 1;
        }
        u64::from(count)
    }

    /// Whether the room took an event for good.
    fn accepts(&self, id: &EventId) -> bool {
        let event = self.room().event_by_id(id).expect("it is read");
        event.is_some_and(|event| event.is_visible_kind() && !event.header.flags.has(Flags::OUTLIER))
    }

    /// Waits until the room has judged what was sent. Asks a hostile server have their time limits.
    async fn settle(&self) {
        let mut before = usize::MAX;
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(120)).await;
            let now = self.network.trace().len();
            if now == before {
                return;
            }
            before = now;
        }
        panic!("it does not end");
    }
}

async fn room(client: &Client, version: &str) -> String {
    let levels = json!({ "state_default": 0, "users_default": 0 });
    let body =
        json!({ "preset": "public_chat", "room_version": version, "power_level_content_override": levels });
    let made = client.post("/createRoom", body).await.ok();
    made["room_id"].as_str().expect("a room id").to_owned()
}

#[tokio::test(start_paused = true)]
async fn what_the_hostile_server_may_say_is_taken() {
    // The stage itself: without this the other tests would prove nothing.
    for version in VERSIONS {
        let stage = Stage::new(version).await;
        let (known, peer) = (&stage.known, &stage.peer);
        let prev = [known.join.event_id.clone()];
        let message = known.message(peer, "honest", &prev, known.join.depth() + 1);
        let answer = peer.send("hs1", "t", &[json_of(&message)]).await;
        assert_eq!(answer, json!({ message.event_id.as_str(): {} }), "{version}");
        stage.settle().await;
        assert!(stage.accepts(&message.event_id), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn forged_events_are_not_accepted() {
    for version in VERSIONS {
        let stage = Stage::new(version).await;
        let (known, peer) = (&stage.known, &stage.peer);
        let prev = [known.join.event_id.clone()];
        let depth = known.join.depth() + 1;
        let honest = known.message(peer, "as it was signed", &prev, depth);
        let mut forged = Vec::new();
        // The signature is of something else.
        let mut event = json_of(&honest);
        event["origin_server_ts"] = json!(peer::NOW_MS + 5);
        forged.push(event);
        // No signature at all, and one that is no signature.
        let mut event = json_of(&known.message(peer, "unsigned", &prev, depth));
        event["signatures"] = json!({});
        forged.push(event);
        let mut event = json_of(&known.message(peer, "badly signed", &prev, depth));
        event["signatures"]["evil"]["ed25519:1"] = json!("AAAA");
        forged.push(event);
        // In the name of a user of the honest server.
        let ann = stage.ann.user_id.clone();
        let mut impostor = Known {
            user: ann.as_str().try_into().expect("a user id"),
            id: known.id.clone(),
            rules: known.rules,
            state: known.state.clone(),
            join: known
                .state
                .iter()
                .find(|pdu| pdu.state_key() == Some(&ann))
                .expect("ann is in")
                .clone(),
        };
        forged.push(json_of(&impostor.message(peer, "I am ann", &prev, depth)));
        // In the name of nobody in the room.
        impostor.user = peer.user("stranger");
        let stranger = impostor.message(peer, "let me in", &prev, depth);
        forged.push(json_of(&stranger));
        for (at, event) in forged.iter().enumerate() {
            peer.send("hs1", &format!("t{at}"), std::slice::from_ref(event))
                .await;
        }
        stage.settle().await;
        for event in &forged {
            let pdu =
                hearth_events::Pdu::parse(known.rules, event.to_string().as_bytes()).expect("it has a form");
            assert!(!stage.accepts(&pdu.event_id), "{version}: {event}");
        }
        // A changed content leaves a redacted event, which says nothing untrue.
        let mut event = json_of(&honest);
        event["content"]["body"] = json!("changed");
        peer.send("hs1", "changed", &[event]).await;
        stage.settle().await;
        let kept = stage
            .room()
            .event_by_id(&honest.event_id)
            .expect("it is read")
            .expect("it is kept");
        assert!(kept.is_redacted() && !String::from_utf8_lossy(&kept.pdu.json).contains("changed"));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_in_the_name_of_others_are_refused() {
    let stage = Stage::new("10").await;
    let peer = &stage.peer;
    let place = encode(&stage.room_id);
    let path = format!(
        "/_matrix/federation/v1/state/{place}?event_id={}",
        encode(stage.known.join.event_id.as_str())
    );
    let (status, _) = peer.call("hs1", "GET", &path, None).await;
    assert_eq!(status, 200);
    let other = KeyPair::from_seed([77; 32], "1").expect("a key");
    for (origin, key) in [("evil", &other), ("nobody", &*peer.key), ("hs1", &*peer.key)] {
        let (status, answer) = peer.call_as(origin, key, "hs1", "GET", &path, None).await;
        assert!(status == 401 || status == 403, "{origin}: {status} {answer}");
    }
    // Signed for another server.
    let (status, answer) = {
        let body = json!({ "origin": "evil", "origin_server_ts": 1, "pdus": [] });
        peer.call_as(
            "hs2",
            &peer.key,
            "hs1",
            "PUT",
            "/_matrix/federation/v1/send/x",
            Some(body),
        )
        .await
    };
    assert!(status == 401 || status == 403, "{status} {answer}");
}

#[tokio::test(start_paused = true)]
async fn auth_events_of_another_room_authorize_nothing() {
    for version in VERSIONS {
        let stage = Stage::new(version).await;
        let other_id = room(&stage.ann, version).await;
        let other = stage.peer.join("hs1", &other_id, version).await;
        let (known, peer) = (&stage.known, &stage.peer);
        let prev = [known.join.event_id.clone()];
        let borrowed = Known {
            id: known.id.clone(),
            rules: known.rules,
            user: known.user.clone(),
            state: other.state.clone(),
            join: other.join.clone(),
        };
        let message = borrowed.message(peer, "authorized elsewhere", &prev, known.join.depth() + 1);
        // It gives them, when it is asked, as if they were of this room.
        let chain: Vec<Value> = other.state.iter().chain([&other.join]).map(json_of).collect();
        peer.says(
            "/_matrix/federation/v1/event_auth/",
            Answer::Json(json!({ "auth_chain": chain })),
        );
        let events = chain.clone();
        peer.says(
            "/_matrix/federation/v1/event/",
            Answer::Made(Arc::new(move |path, _| {
                let id = path.rsplit('/').next().unwrap_or_default().replace("%24", "$");
                let found = events.iter().find(|event| event["event_id"] == id.as_str());
                json!({ "origin": "evil", "origin_server_ts": 1, "pdus": [found.unwrap_or(&events[0])] })
            })),
        );
        peer.send("hs1", "t", &[json_of(&message)]).await;
        stage.settle().await;
        assert!(!stage.accepts(&message.event_id), "{version}");
        let rows = stage.rows();
        assert!(rows < 20, "{version}: {rows} rows");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_event_of_another_room_authorizes_is_rejected_and_holds_nothing_up() {
    for version in VERSIONS {
        let stage = Stage::new(version).await;
        let other_id = room(&stage.ann, version).await;
        let other = stage.peer.join("hs1", &other_id, version).await;
        let (known, peer) = (&stage.known, &stage.peer);
        let depth = known.join.depth();
        // A topic by the authority of the other room, a message that builds on it, and an honest one after both.
        let borrowed = Known {
            id: known.id.clone(),
            rules: known.rules,
            user: known.user.clone(),
            state: other.state.clone(),
            join: other.join.clone(),
        };
        let auth = borrowed.auth();
        let topic = peer.sign(
            known.rules,
            &Draft {
                room_id: Some(&known.id),
                sender: &known.user,
                kind: "m.room.topic",
                state_key: Some(""),
                content: br#"{"topic":"borrowed"}"#,
                origin_server_ts: peer::NOW_MS,
                depth: depth + 1,
                prev_events: std::slice::from_ref(&known.join.event_id),
                auth_events: &auth,
                redacts: None,
            },
        );
        let (after_topic, mut with_topic) = ([topic.event_id.clone()], known.auth());
        with_topic.push(topic.event_id.clone());
        let middle = peer.sign(
            known.rules,
            &Draft {
                room_id: Some(&known.id),
                sender: &known.user,
                kind: "m.room.message",
                state_key: None,
                content: br#"{"body":"on a borrowed topic","msgtype":"m.text"}"#,
                origin_server_ts: peer::NOW_MS,
                depth: depth + 2,
                prev_events: &after_topic,
                auth_events: &with_topic,
                redacts: None,
            },
        );
        let honest = known.message(peer, "honest", std::slice::from_ref(&middle.event_id), depth + 3);
        let state: Vec<Value> = known.state.iter().chain([&known.join]).map(json_of).collect();
        let ids: Vec<String> = known
            .state
            .iter()
            .chain([&known.join])
            .map(|event| event.event_id.to_string())
            .collect();
        let events: Vec<Pdu> = other
            .state
            .iter()
            .chain([&other.join, &topic, &middle])
            .cloned()
            .collect();
        let api = "/_matrix/federation/v1";
        peer.says(
            &format!("{api}/get_missing_events/"),
            Answer::Json(json!({ "events": [json_of(&middle)] })),
        );
        peer.says(
            &format!("{api}/state_ids/"),
            Answer::Json(json!({ "pdu_ids": ids, "auth_chain_ids": [] })),
        );
        peer.says(
            &format!("{api}/state/"),
            Answer::Json(json!({ "pdus": state, "auth_chain": [] })),
        );
        peer.says(
            &format!("{api}/event/"),
            Answer::Made(Arc::new(move |path, _| {
                let id = path.rsplit('/').next().unwrap_or_default().replace("%24", "$");
                let found = events.iter().find(|event| event.event_id == *id);
                let pdus: Vec<Value> = found.into_iter().map(json_of).collect();
                json!({ "origin": "evil", "origin_server_ts": 1, "pdus": pdus })
            })),
        );
        peer.send("hs1", "t", &[json_of(&honest)]).await;
        stage.settle().await;
        assert!(stage.accepts(&honest.event_id), "{version}");
        assert!(!stage.accepts(&topic.event_id), "{version}");
        assert!(!stage.accepts(&middle.event_id), "{version}");
        let path = format!("/rooms/{}/state/m.room.topic/", encode(&stage.room_id));
        stage.ann.get(&path).await.refused(404, "M_NOT_FOUND");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redaction_is_shown_when_it_redacts_something() {
    let stage = Stage::new("10").await;
    let other_id = room(&stage.ann, "10").await;
    let (known, peer) = (&stage.known, &stage.peer);
    let elsewhere = stage.ann.say(&other_id, "elsewhere").await;
    let elsewhere = OwnedEventId::try_from(elsewhere.as_str()).expect("an event id");
    let (start, depth) = (known.join.event_id.clone(), known.join.depth());
    let late = known.message(
        peer,
        "comes after its redaction",
        std::slice::from_ref(&start),
        depth + 1,
    );
    let abroad = known.redaction(peer, "", &elsewhere, std::slice::from_ref(&start), depth + 1);
    let early = known.redaction(
        peer,
        "",
        &late.event_id,
        std::slice::from_ref(&abroad.event_id),
        depth + 2,
    );
    peer.send("hs1", "t1", &[json_of(&abroad), json_of(&early)]).await;
    stage.settle().await;
    let shown = async || -> Vec<String> {
        let path = format!("/rooms/{}/messages?dir=b&limit=50", encode(&stage.room_id));
        let page = stage.ann.get(&path).await.ok();
        crate::ids(&page["chunk"])
    };
    let before = shown().await;
    assert!(stage.accepts(&abroad.event_id) && stage.accepts(&early.event_id));
    assert!(!before.contains(&abroad.event_id.to_string()) && !before.contains(&early.event_id.to_string()));
    let synced = stage.ann.sync("timeout=0").await.to_string();
    assert!(!synced.contains(abroad.event_id.as_str()) && !synced.contains(early.event_id.as_str()));
    peer.send("hs1", "t2", &[json_of(&late)]).await;
    stage.settle().await;
    let after = shown().await;
    assert!(after.contains(&early.event_id.to_string()) && after.contains(&late.event_id.to_string()));
    assert!(!after.contains(&abroad.event_id.to_string()));
    let path = format!(
        "/rooms/{}/event/{}",
        encode(&stage.room_id),
        encode(late.event_id.as_str())
    );
    let event = stage.ann.get(&path).await.ok();
    assert_eq!(event["content"], json!({}));
    assert_eq!(
        event["unsigned"]["redacted_because"]["event_id"],
        early.event_id.as_str()
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_came_redacted_names_its_redaction() {
    let stage = Stage::new("10").await;
    let (known, peer) = (&stage.known, &stage.peer);
    let (start, depth) = (known.join.event_id.clone(), known.join.depth());
    let theirs = known.message(peer, "redacted before it was sent", &[start], depth + 1);
    let prev = [theirs.event_id.clone()];
    let ours = known.message(peer, "redacted here", &prev, depth + 2);
    for (at, event) in [&theirs, &ours].into_iter().enumerate() {
        let stored = hearth_events::redact(known.rules, event).expect("it is redacted");
        peer.send("hs1", &format!("t{at}"), &[json_of(&stored)]).await;
    }
    stage.settle().await;
    let prev = [ours.event_id.clone()];
    let redaction = known.redaction(peer, "", &theirs.event_id, &prev, depth + 3);
    peer.send("hs1", "t2", &[json_of(&redaction)]).await;
    stage.settle().await;
    let synced = stage.ann.sync("timeout=0").await;
    let unread = &synced["rooms"]["join"][&stage.room_id]["unread_notifications"];
    assert_eq!(unread["notification_count"], 1, "{unread}");
    let room = encode(&stage.room_id);
    let path = format!("/rooms/{room}/redact/{}/1", encode(ours.event_id.as_str()));
    let here = stage.ann.put(&path, json!({})).await.ok()["event_id"].clone();
    for (event, by) in [(theirs, json!(redaction.event_id)), (ours, here)] {
        let path = format!("/rooms/{room}/event/{}", encode(event.event_id.as_str()));
        let event = stage.ann.get(&path).await.ok();
        assert_eq!(event["content"], json!({}));
        assert_eq!(event["unsigned"]["redacted_because"]["event_id"], by, "{event}");
    }
}

#[tokio::test(start_paused = true)]
async fn key_servers_that_lie_are_not_believed() {
    let stage = Stage::new("10").await;
    let network = &stage.network;
    let stranger = KeyPair::from_seed([9; 32], "1").expect("a key");
    // Each publishes something else than its own key, signed by itself.
    let liars = ["liar1", "liar2", "liar3", "liar4"];
    let peers: Vec<Peer> = liars.iter().map(|name| Peer::new(name, network)).collect();
    let document = |at: usize| peers[at].document(liars[at], &peers[at].key);
    peers[0].says(
        "/_matrix/key/v2/server",
        Answer::Json(peers[0].document("hs1", &peers[0].key)),
    );
    let mut unsigned = document(1);
    unsigned["signatures"] = json!({});
    peers[1].says("/_matrix/key/v2/server", Answer::Json(unsigned));
    let mut swapped = document(2);
    swapped["verify_keys"] = json!({ "ed25519:1": { "key": stranger.public_key_base64() } });
    peers[2].says("/_matrix/key/v2/server", Answer::Json(swapped));
    let mut old = document(3);
    old["valid_until_ts"] = json!(1);
    peers[3].says("/_matrix/key/v2/server", Answer::Json(old));
    for (at, peer) in peers.iter().enumerate() {
        let user = encode(peer.user("m").as_str());
        let path = format!(
            "/_matrix/federation/v1/make_join/{}/{user}?ver=10",
            encode(&stage.room_id)
        );
        let (status, answer) = peer.call("hs1", "GET", &path, None).await;
        assert!(status == 401 || status == 403, "{}: {status} {answer}", liars[at]);
        // Many key ids are not many questions.
        for number in 0..50 {
            let key = KeyPair::from_seed([9; 32], &format!("k{number}")).expect("a key");
            let (status, _) = peer.call_as(&peer.name, &key, "hs1", "GET", &path, None).await;
            assert!(status == 401 || status == 403);
        }
        let asked = peer.asked().len();
        println!(
            "{}: 51 requests with unknown keys cost {asked} questions",
            liars[at]
        );
        assert!(asked <= 5, "{}: {asked}", liars[at]);
    }
    // The honest server's own key is what it was.
    let hs2 = TestServer::simulated("hs2", 4, 2, network);
    let bob = hs2.register("bob").await;
    let joined = bob
        .post(&format!("/join/{}?via=hs1", encode(&stage.room_id)), json!({}))
        .await;
    assert_eq!(joined.status, 200, "{joined:?}");
}

#[tokio::test(start_paused = true)]
async fn redactions_that_redact_each_other_can_be_read() {
    // Their ids are chosen by who makes them, so that each can name the other.
    for version in ["1", "2"] {
        let stage = Stage::new(version).await;
        let (known, peer) = (&stage.known, &stage.peer);
        let id = |name: &str| OwnedEventId::try_from(format!("${name}:evil")).expect("an event id");
        let (mut prev, mut depth) = (known.join.event_id.clone(), known.join.depth());
        for (name, other) in [("first", "second"), ("second", "first")] {
            depth += 1;
            let redaction = known.redaction(peer, name, &id(other), &[prev], depth);
            assert_eq!(redaction.event_id, id(name), "{version}");
            let answer = peer.send("hs1", name, &[json_of(&redaction)]).await;
            assert_eq!(answer, json!({ id(name).as_str(): {} }), "{version}");
            stage.settle().await;
            prev = redaction.event_id;
        }
        let page = stage.ann.messages(&stage.room_id, "dir=b&limit=2").await;
        assert_eq!(
            crate::ids(&page["chunk"]),
            [id("second"), id("first")],
            "{version}"
        );
        stage.ann.sync("timeout=0").await;
    }
}
