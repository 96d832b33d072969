//! Connections and their positions: what may be asked again, what survives, what is refused.

use hearth_testkit::{TestServer, encode};
use serde_json::{Value, json};

use super::{UNSTABLE, V4, kinds, list, rooms, slide};
use crate::bodies;

scenarios!(
    the_last_position_may_be_asked_again,
    unknown_positions,
    two_connections,
    waiting_ends_with_news,
    many_connections_are_few,
    wrong_requests,
);

/// Who goes on from the last position after a restart in order misses nothing and gets nothing twice, whether the
/// last answer was confirmed or not.
async fn a_position_survives_a_restart(shards: u16) {
    let mut server = TestServer::memory(shards).await;
    let (mut alice, mut bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let invited = alice.room().build().await;
    alice.invite(&invited, &bob).await;
    let mut body = list(json!([[0, 9]]), json!([["m.room.topic", ""]]), 5);
    body["extensions"] = json!({ "account_data": { "enabled": true }, "e2ee": { "enabled": true } });
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    assert_eq!(rooms(&pos).len(), 2);
    for round in 0..3 {
        if round == 1 {
            pos = slide(&bob, &pos, body.clone()).await;
            assert_eq!(pos["rooms"], json!({}));
        }
        server = server.restart().await;
        (alice, bob) = (alice.on(server.endpoint()), bob.on(server.endpoint()));
        let idle = slide(&bob, &pos, body.clone()).await;
        assert_eq!(idle["rooms"], json!({}), "round {round}");
        assert!(idle["extensions"].get("account_data").is_none(), "round {round}");
        alice.say(&room, "news").await;
        let news = slide(&bob, &idle, body.clone()).await;
        assert_eq!(rooms(&news), [room.as_str()], "round {round}");
        assert_eq!(
            bodies(&news["rooms"][&room]["timeline"]),
            ["news"],
            "round {round}"
        );
        assert_eq!(news["rooms"][&room].get("initial"), None, "round {round}");
        pos = news;
    }
    // An older position is unknown also then.
    let old = slide(&bob, &pos, body.clone()).await;
    let new = slide(&bob, &old, body.clone()).await;
    slide(&bob, &new, body.clone()).await;
    server = server.restart().await;
    let path = format!(
        "{UNSTABLE}?pos={}",
        encode(old["pos"].as_str().unwrap_or_default())
    );
    bob.on(server.endpoint())
        .post(&path, body)
        .await
        .refused(400, "M_UNKNOWN_POS");
}

#[tokio::test]
async fn a_position_survives_a_restart_on_1_shard() {
    a_position_survives_a_restart(1).await;
}

#[tokio::test]
async fn a_position_survives_a_restart_on_16_shards() {
    a_position_survives_a_restart(16).await;
}

async fn the_last_position_may_be_asked_again(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let body = list(json!([[0, 9]]), json!([["m.room.name", ""]]), 5);
    let first = slide(&bob, &Value::Null, body.clone()).await;
    alice.say(&room, "one").await;
    let lost = slide(&bob, &first, body.clone()).await;
    assert_eq!(bodies(&lost["rooms"][&room]["timeline"]), ["one"]);
    alice.say(&room, "two").await;
    let again = slide(&bob, &first, body.clone()).await;
    assert_eq!(bodies(&again["rooms"][&room]["timeline"]), ["one", "two"]);
    let next = slide(&bob, &again, body.clone()).await;
    assert_eq!(next["rooms"], json!({}));
    // With another body.
    let more = list(json!([[0, 9]]), json!([["m.room.create", ""]]), 5);
    let other = slide(&bob, &next, more).await;
    assert_eq!(kinds(&other["rooms"][&room]["required_state"]), ["m.room.create"]);
    let again = slide(&bob, &next, body.clone()).await;
    assert_eq!(again["rooms"], json!({}));
    let refused = bob
        .post(
            &format!(
                "{UNSTABLE}?pos={}",
                encode(first["pos"].as_str().unwrap_or_default())
            ),
            body,
        )
        .await;
    refused.refused(400, "M_UNKNOWN_POS");
}

async fn unknown_positions(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let body = list(json!([[0, 9]]), json!([]), 1);
    let first = slide(&alice, &Value::Null, body.clone()).await;
    let pos = first["pos"].as_str().unwrap_or_default().to_owned();
    let second = server.login("alice", "SECOND").await;
    for (who, pos) in [
        (&alice, "0"),
        (&alice, "p1_"),
        (&alice, "p1_AAAA"),
        (&alice, "s1_BwECAwQABQKsAg"),
        (&bob, &pos),
        (&second, &pos),
    ] {
        let path = format!("{UNSTABLE}?pos={}", encode(pos));
        who.post(&path, body.clone()).await.refused(400, "M_UNKNOWN_POS");
        let mut body = json!({ "lists": {} });
        body["pos"] = json!(pos);
        who.post(V4, body).await.refused(400, "M_UNKNOWN_POS");
    }
    // Another connection of the device neither.
    let mut other = body.clone();
    other["conn_id"] = json!("other");
    let path = format!("{UNSTABLE}?pos={}", encode(&pos));
    alice.post(&path, other).await.refused(400, "M_UNKNOWN_POS");
    // Beginning anew ends the connection before.
    slide(&alice, &Value::Null, body.clone()).await;
    alice.post(&path, body).await.refused(400, "M_UNKNOWN_POS");
}

async fn two_connections(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let body = |conn: &str| {
        let mut body = list(json!([[0, 9]]), json!([]), 3);
        body["conn_id"] = json!(conn);
        body
    };
    let mut one = slide(&alice, &Value::Null, body("one")).await;
    let mut two = slide(&alice, &Value::Null, body("two")).await;
    alice.say(&room, "a").await;
    one = slide(&alice, &one, body("one")).await;
    alice.say(&room, "b").await;
    two = slide(&alice, &two, body("two")).await;
    assert_eq!(bodies(&one["rooms"][&room]["timeline"]), ["a"]);
    assert_eq!(bodies(&two["rooms"][&room]["timeline"]), ["a", "b"]);
    one = slide(&alice, &one, body("one")).await;
    assert_eq!(bodies(&one["rooms"][&room]["timeline"]), ["b"]);
}

async fn waiting_ends_with_news(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let body = list(json!([[0, 9]]), json!([]), 1);
    let first = slide(&bob, &Value::Null, body.clone()).await;
    let path = format!(
        "{UNSTABLE}?timeout=60000&pos={}",
        encode(first["pos"].as_str().unwrap_or_default())
    );
    let (waited, _) = tokio::join!(bob.post(&path, body.clone()), alice.say(&room, "news"));
    let waited = waited.ok();
    assert_eq!(bodies(&waited["rooms"][&room]["timeline"]), ["news"]);
    // A second request on a connection ends the first.
    let path = format!(
        "{UNSTABLE}?timeout=60000&pos={}",
        encode(waited["pos"].as_str().unwrap_or_default())
    );
    let (ended, answered) = tokio::join!(bob.post(&path, body.clone()), slide(&bob, &waited, body));
    assert_eq!(ended.ok()["rooms"], json!({}));
    assert_eq!(answered["rooms"], json!({}));
}

/// A device that opens connection after connection has the newest; the others begin anew.
async fn many_connections_are_few(server: &TestServer) {
    let alice = server.register("alice").await;
    alice.room().build().await;
    let body = |conn: usize| json!({ "conn_id": format!("c{conn}"), "lists": { "all": { "ranges": [[0, 9]], "timeline_limit": 1 } } });
    let mut positions = Vec::new();
    for conn in 0..50 {
        let answer = alice.post(UNSTABLE, body(conn)).await.ok();
        positions.push(answer["pos"].as_str().expect("a position").to_owned());
    }
    let go_on = async |conn: usize| {
        let path = format!("{UNSTABLE}?pos={}", encode(&positions[conn]));
        alice.post(&path, body(conn)).await
    };
    go_on(0).await.refused(400, "M_UNKNOWN_POS");
    for conn in 40..50 {
        assert_eq!(go_on(conn).await.ok()["rooms"], json!({}), "{conn}");
    }
}

fn unstable_subscriptions(count: usize) -> serde_json::Map<String, Value> {
    let room = |number| {
        (
            format!("!r{number}:hs1"),
            json!({ "timeline_limit": 1, "required_state": [] }),
        )
    };
    (0..count).map(room).collect()
}

async fn wrong_requests(server: &TestServer) {
    let alice = server.register("alice").await;
    let many: serde_json::Map<String, Value> = (0..101)
        .map(|number| {
            let list = json!({ "timeline_limit": 1, "required_state": {} });
            (format!("l{number}"), list)
        })
        .collect();
    let subscriptions: serde_json::Map<String, Value> = (0..101)
        .map(|number| {
            let room = json!({ "timeline_limit": 1, "required_state": {} });
            (format!("!r{number}:hs1"), room)
        })
        .collect();
    for (body, code) in [
        (json!({ "lists": many }), "M_INVALID_PARAM"),
        (json!({ "room_subscriptions": subscriptions }), "M_INVALID_PARAM"),
        (
            json!({ "lists": { "a b": { "timeline_limit": 1, "required_state": {} } } }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "lists": { "a": { "range": [5, 1], "timeline_limit": 1, "required_state": {} } } }),
            "M_INVALID_PARAM",
        ),
        (json!({ "set_presence": "asleep" }), "M_INVALID_PARAM"),
        (json!({ "lists": { "a": {} } }), "M_BAD_JSON"),
        (json!({ "lists": [] }), "M_BAD_JSON"),
        (json!({ "conn_id": "x".repeat(300) }), "M_INVALID_PARAM"),
    ] {
        alice.post(V4, body).await.refused(400, code);
    }
    // The wire before it was merged has fewer bounds: clients call their lists what they like, and some add to their
    // subscriptions as the user scrolls.
    for (body, status) in [
        (json!({ "lists": { "a b": { "ranges": [[0, 1]] } } }), 200),
        (
            json!({ "lists": { "x".repeat(300): { "ranges": [[0, 1]] } } }),
            400,
        ),
        (json!({ "room_subscriptions": unstable_subscriptions(101) }), 200),
        (
            json!({ "room_subscriptions": unstable_subscriptions(1_001) }),
            400,
        ),
    ] {
        let answer = alice.post(UNSTABLE, body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let versions = alice.get("/_matrix/client/versions").await.ok();
    assert_eq!(
        versions["unstable_features"]["org.matrix.simplified_msc3575"],
        true
    );
}
