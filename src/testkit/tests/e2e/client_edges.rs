//! What requests of clients may leave empty, and answers that are as large as a room.

use std::collections::BTreeSet;

use hearth_testkit::client::text;
use hearth_testkit::{SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::{bodies, ids};

scenarios!(
    a_page_of_no_events_says_where_it_would_begin,
    empty_parameters_are_none,
    large_answers_are_made_in_parts,
);

const V1: &str = "/_matrix/client/v1";

async fn a_page_of_no_events_says_where_it_would_begin(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let root = alice.say(&room, "root").await;
    for number in 0..3 {
        let relation = json!({ "rel_type": "m.reference", "event_id": root });
        let content = json!({ "msgtype": "m.text", "body": format!("m{number}"), "m.relates_to": relation });
        alice.send(&room, "m.room.message", content).await;
    }
    let filter = encode(r#"{"types":["m.room.message"]}"#);
    for (dir, expected) in [("b", ["m2", "m1"]), ("f", ["root", "m0"])] {
        let none = alice
            .messages(&room, &format!("dir={dir}&limit=0&filter={filter}"))
            .await;
        assert_eq!(none["chunk"], json!([]), "{dir}");
        let from = encode(&text(&none, "end"));
        let again = alice
            .messages(&room, &format!("dir={dir}&limit=0&from={from}&filter={filter}"))
            .await;
        assert_eq!(
            (&again["chunk"], &again["end"]),
            (&json!([]), &none["end"]),
            "{dir}"
        );
        let page = alice
            .messages(&room, &format!("dir={dir}&limit=2&from={from}&filter={filter}"))
            .await;
        assert_eq!(bodies(&page["chunk"]), expected, "{dir}");
    }
    let relations = format!("{V1}/rooms/{}/relations/{}", encode(&room), encode(&root));
    for recurse in ["false", "true"] {
        for (dir, expected) in [("b", ["m2", "m1"]), ("f", ["m0", "m1"])] {
            let asked = format!("{relations}?recurse={recurse}&dir={dir}");
            let none = alice.get(&format!("{asked}&limit=0")).await.ok();
            assert_eq!(none["chunk"], json!([]), "{asked}");
            let from = encode(&text(&none, "next_batch"));
            let page = alice.get(&format!("{asked}&limit=2&from={from}")).await.ok();
            assert_eq!(bodies(&page["chunk"]), expected, "{asked}");
        }
    }
}

async fn empty_parameters_are_none(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice
        .room()
        .set("visibility", json!("public"))
        .messages(1)
        .build()
        .await;
    let sent = alice.say(&room, "hello").await;
    let room = encode(&room);
    for path in [
        "/sync?since=&filter=&timeout=0".to_owned(),
        format!("/rooms/{room}/messages?dir=b&from=&to=&filter="),
        format!("/rooms/{room}/context/{}?filter=", encode(&sent)),
        format!("/rooms/{room}/members?at="),
        "/notifications?from=".to_owned(),
        "/publicRooms?since=&server=".to_owned(),
        format!("{V1}/rooms/{room}/threads?from="),
        format!("{V1}/rooms/{room}/hierarchy?from="),
        format!("{V1}/rooms/{room}/relations/{}?from=&to=", encode(&sent)),
    ] {
        alice.get(&path).await.ok();
    }
    let search = json!({ "search_categories": { "room_events": { "search_term": "hello" } } });
    alice.post("/search?next_batch=", search).await.ok();
    let rooms = alice
        .post("/publicRooms?server=", json!({ "since": "" }))
        .await
        .ok();
    assert_eq!(rooms["chunk"].as_array().map(Vec::len), Some(1));
}

async fn large_answers_are_made_in_parts(server: &TestServer) {
    const BANNED: usize = 300;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    bob.leave(&room).await;
    let path = encode(&room);
    for number in 0..BANNED {
        let user = format!("@banned{number}:elsewhere.example");
        alice.act(&room, "ban", json!({ "user_id": user })).await.ok();
    }
    let keys = |events: &Value| -> BTreeSet<(String, String)> {
        let events = events.as_array().expect("a list").iter();
        events
            .map(|event| (text(event, "type"), text(event, "state_key")))
            .collect()
    };
    let members = alice.get(&format!("/rooms/{path}/members")).await.ok();
    assert_eq!(members["chunk"].as_array().map(Vec::len), Some(BANNED + 2));
    assert_eq!(keys(&members["chunk"]).len(), BANNED + 2);
    let at = encode(&text(&alice.sync("timeout=0").await, "next_batch"));
    for (query, expected) in [
        ("membership=ban".to_owned(), BANNED),
        ("not_membership=ban".to_owned(), 2),
        (format!("at={at}&membership=ban"), BANNED),
        (format!("at={at}&membership=join"), 1),
    ] {
        let members = alice.get(&format!("/rooms/{path}/members?{query}")).await.ok();
        assert_eq!(
            members["chunk"].as_array().map(Vec::len),
            Some(expected),
            "{query}"
        );
    }
    let state = alice.get(&format!("/rooms/{path}/state")).await.ok();
    let seen = keys(&state);
    assert_eq!(seen.len(), state.as_array().map_or(0, Vec::len));
    assert!(seen.is_superset(&keys(&members["chunk"])) && seen.len() > BANNED + 5);
    let joined = alice.get(&format!("/rooms/{path}/joined_members")).await.ok();
    let names: Vec<_> = joined["joined"].as_object().expect("members").keys().collect();
    assert_eq!(names, [&alice.user_id]);
    // Who has left sees what was.
    let then = bob
        .get(&format!("/rooms/{path}/members?not_membership=leave"))
        .await
        .ok();
    assert_eq!(ids(&then["chunk"]).len(), 1);
    assert!(keys(&bob.get(&format!("/rooms/{path}/state")).await.ok()).len() < 20);
}

/// A page that has enough bytes has enough events: a thousand of the largest would be 64 MB.
#[tokio::test]
async fn pages_of_large_events_are_shorter() {
    let server = TestServer::memory(1).await;
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let root = alice.say(&room, "root").await;
    const SENT: usize = 170;
    for number in 0..SENT {
        let relation = json!({ "rel_type": "m.reference", "event_id": root });
        let content =
            json!({ "body": format!("m{number}"), "padding": "x".repeat(60_000), "m.relates_to": relation });
        alice.send(&room, "org.example.large", content).await;
    }
    let filter = encode(r#"{"types":["org.example.large"]}"#);
    let relations = format!("{V1}/rooms/{}/relations/{}", encode(&room), encode(&root));
    for (path, end) in [
        (
            format!("/rooms/{}/messages?dir=b&filter={filter}", encode(&room)),
            "end",
        ),
        (
            format!("/rooms/{}/messages?dir=f&filter={filter}", encode(&room)),
            "end",
        ),
        (format!("{relations}?dir=b"), "next_batch"),
        (format!("{relations}?dir=b&recurse=true"), "next_batch"),
    ] {
        let first = alice.get(&format!("{path}&limit=1000")).await.ok();
        let mut found = bodies(&first["chunk"]);
        assert!((100..SENT).contains(&found.len()), "{path}: {}", found.len());
        let from = encode(&text(&first, end));
        let rest = alice.get(&format!("{path}&limit=1000&from={from}")).await.ok();
        found.extend(bodies(&rest["chunk"]));
        let unique: BTreeSet<_> = found.iter().collect();
        assert_eq!((found.len(), unique.len()), (SENT, SENT), "{path}");
    }
}

/// Who takes part in none of many threads costs one page no more than others.
#[tokio::test]
async fn threads_are_looked_through_page_by_page() {
    let server = TestServer::memory(1).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let reply =
        |root: &str| json!({ "body": "reply", "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    let own = bob.say(&room, "own").await;
    bob.send(&room, "m.room.message", reply(&own)).await;
    for _ in 0..1_000 {
        let root = alice.say(&room, "root").await;
        alice.send(&room, "m.room.message", reply(&root)).await;
    }
    let path = format!("{V1}/rooms/{}/threads?include=participated", encode(&room));
    let first = bob.get(&path).await.ok();
    assert_eq!(first["chunk"], json!([]));
    let next = encode(&text(&first, "next_batch"));
    let second = bob.get(&format!("{path}&from={next}")).await.ok();
    assert_eq!(
        (ids(&second["chunk"]), second.get("next_batch")),
        (vec![own], None)
    );
}

/// "Timestamp massaging": an application service sends for others what was said elsewhere at another time.
#[tokio::test(start_paused = true)]
async fn an_invitation_to_another_server_has_the_time_that_a_bridge_claims() {
    let folder = tempfile::tempdir().expect("a folder");
    let registration = "id: bridge\nurl: http://bridge.test\nas_token: as\nhs_token: hs\n\
        sender_localpart: bridge\nnamespaces: {}\n";
    std::fs::write(folder.path().join("bridge.yaml"), registration).expect("written");
    let network = SimNetwork::new(61);
    let registrations = folder.path().to_owned();
    let here = TestServer::simulated_with("hs1", 4, 1, &network, |config| {
        config.appservice_dir = Some(registrations);
    });
    let there = TestServer::simulated("hs2", 4, 2, &network);
    let bob = there.register("bob").await;
    let bridge = Some("as");
    let create = "/_matrix/client/v3/createRoom";
    let room = text(
        &here.call("POST", create, bridge, json!({})).await.ok(),
        "room_id",
    );
    let path = format!(
        "/_matrix/client/v3/rooms/{}/state/m.room.member/{}",
        encode(&room),
        encode(&bob.user_id)
    );
    let invite = json!({ "membership": "invite" });
    let claimed = 1_600_000_000_000_u64;
    let sent = here
        .call("PUT", &format!("{path}?ts={claimed}"), bridge, invite)
        .await;
    let event = text(&sent.ok(), "event_id");
    let shown = here
        .call("GET", &format!("{path}?format=event"), bridge, Value::Null)
        .await
        .ok();
    assert_eq!(
        (text(&shown, "event_id"), &shown["origin_server_ts"]),
        (event, &json!(claimed))
    );
    bob.post(&format!("/rooms/{}/join", encode(&room)), json!({}))
        .await
        .ok();
}
