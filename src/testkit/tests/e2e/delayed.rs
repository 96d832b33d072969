//! Delayed events (MSC4140).

use std::time::Duration;

use hearth_testkit::client::text;
use hearth_testkit::{Answer, Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

scenarios!(who_may_do_what_with_delayed_events, the_limits_are_told_and_hold,);

const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc4140";
const KIND: &str = "org.example.test";

/// Schedules a state event that waits.
async fn delay_state(client: &Client, room: &str, key: &str, content: Value, delay_ms: u64) -> Answer {
    let path = format!(
        "/rooms/{}/state/{KIND}/{key}?org.matrix.msc4140.delay={delay_ms}",
        encode(room)
    );
    client.put(&path, content).await
}

/// The ids of the events that wait.
async fn waiting(client: &Client) -> Vec<String> {
    let answer = client.get(&format!("{UNSTABLE}/delayed_events")).await.ok();
    let list = answer["delayed_events"].as_array().cloned().unwrap();
    list.iter().map(|event| text(event, "delay_id")).collect()
}

/// Manages a delayed event, by its id alone.
async fn manage(client: &Client, id: &str, action: &str) -> Answer {
    let path = format!("{UNSTABLE}/delayed_events/{id}/{action}");
    client.endpoint.call("POST", &path, None, &json!({})).await
}

async fn who_may_do_what_with_delayed_events(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let path = format!(
        "/rooms/{}/send/{KIND}/t1?org.matrix.msc4140.delay=600000",
        encode(&room)
    );
    let first = text(&alice.put(&path, json!({ "a": 1 })).await.ok(), "delay_id");
    let again = text(&alice.put(&path, Value::Null).await.ok(), "delay_id");
    assert_eq!(first, again, "the same transaction, even without its body");
    let second = text(
        &delay_state(&alice, &room, "k", json!({ "b": 2 }), 500_000)
            .await
            .ok(),
        "delay_id",
    );
    assert_eq!(waiting(&alice).await, [second.clone(), first.clone()]);
    assert!(waiting(&bob).await.is_empty());
    let shown = alice
        .get(&format!("{UNSTABLE}/delayed_events/{second}"))
        .await
        .ok();
    assert_eq!(shown["content"], json!({ "b": 2 }));
    assert_eq!(shown["state_key"], "k");
    assert_eq!(shown["delay_ms"], 500_000);
    bob.get(&format!("{UNSTABLE}/delayed_events/{second}"))
        .await
        .refused(404, "M_NOT_FOUND");
    alice.state(&room, KIND, "k").await.refused(404, "M_NOT_FOUND");

    manage(&alice, &second, "send").await.ok();
    assert_eq!(alice.state(&room, KIND, "k").await.ok(), json!({ "b": 2 }));
    manage(&alice, &second, "cancel").await.refused(409, "M_UNKNOWN");
    let shown = alice
        .get(&format!("{UNSTABLE}/delayed_events/{second}"))
        .await
        .ok();
    let event_id = text(&shown, "event_id");
    let own = alice.event(&room, &event_id).await.ok();
    assert_eq!(own["unsigned"]["org.matrix.msc4140.delay_id"], second);
    assert_eq!(own["unsigned"].get("transaction_id"), None);
    let other = bob.event(&room, &event_id).await.ok();
    assert_eq!(other["unsigned"].get("org.matrix.msc4140.delay_id"), None);

    manage(&alice, &first, "oops")
        .await
        .refused(404, "M_UNRECOGNIZED");
    let body = |action: Value| json!({ "action": action });
    let path = format!("{UNSTABLE}/delayed_events/{first}");
    alice.post(&path, json!({})).await.refused(400, "M_MISSING_PARAM");
    alice
        .post(&path, body(json!("oops")))
        .await
        .refused(400, "M_INVALID_PARAM");
    alice.post(&path, body(json!("restart"))).await.ok();
    alice.post(&path, body(json!("cancel"))).await.ok();
    manage(&alice, &first, "cancel").await.ok();
    manage(&alice, &first, "send").await.refused(409, "M_UNKNOWN");
    for action in ["send", "cancel", "restart"] {
        manage(&alice, "abc", action).await.refused(404, "M_NOT_FOUND");
    }
    assert!(waiting(&alice).await.is_empty());

    // Power counts when the event is sent; until then it waits.
    let path = format!("{UNSTABLE}/rooms/{}/delayed_event/m.room.topic/t", encode(&room));
    let event = json!({ "delay_ms": 600_000, "state_key": "", "content": { "topic": "late" } });
    let topic = text(&bob.put(&path, event).await.ok(), "delay_id");
    manage(&bob, &topic, "send").await.refused(403, "M_FORBIDDEN");
    assert_eq!(waiting(&bob).await, [topic]);
    let carol = server.register("carol").await;
    delay_state(&carol, &room, "k", json!({}), 1000)
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn the_limits_are_told_and_hold(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let answer = alice.get("/capabilities").await.ok();
    let limits = &answer["capabilities"]["org.matrix.msc4140.delayed_events"];
    assert_eq!(
        *limits,
        json!({ "max_delay_ms": 86_400_000, "max_scheduled": 100 })
    );
    let refused = delay_state(&alice, &room, "k", json!({}), 86_400_001)
        .await
        .refused(400, "M_UNKNOWN");
    assert_eq!(refused["org.matrix.msc4140.errcode"], "M_MAX_DELAY_EXCEEDED");
    assert_eq!(refused["org.matrix.msc4140.max_delay"], 86_400_000);
    let path = format!("{UNSTABLE}/rooms/{}/delayed_event/{KIND}/t", encode(&room));
    let event = |delay: u64| json!({ "delay_ms": delay, "content": {} });
    alice
        .put(&path, event(86_400_001))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.put(&path, event(0)).await.refused(400, "M_INVALID_PARAM");
    alice
        .put(&path, json!({ "delay_ms": 1, "content": [] }))
        .await
        .refused(400, "M_BAD_JSON");
    alice
        .put(&path, json!({ "content": {} }))
        .await
        .refused(400, "M_BAD_JSON");
    delay_state(&alice, &room, "k", Value::Null, 1000)
        .await
        .refused(400, "M_NOT_JSON");
    for number in 0..100 {
        delay_state(&alice, &room, &format!("k{number}"), json!({}), 80_000_000)
            .await
            .ok();
    }
    let refused = delay_state(&alice, &room, "more", json!({}), 1000)
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
    assert!(
        refused["retry_after_ms"].as_u64().unwrap() > 1000,
        "until the next one is due"
    );
}

#[tokio::test]
async fn a_server_without_delayed_events_says_so() {
    let off = |config: &mut hearth_core::Config| config.experimental.delayed_events_per_user = 0;
    let server = TestServer::memory_with(1, off).await;
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    delay_state(&alice, &room, "k", json!({}), 1000)
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test(start_paused = true)]
async fn delayed_events_are_sent_in_time_also_after_a_restart() {
    let network = SimNetwork::new(1);
    let server = TestServer::simulated("hs1", 4, 1, &network);
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    for (key, seconds) in [("late", 30), ("middle", 20), ("soon", 10), ("after", 60)] {
        delay_state(&alice, &room, key, json!({ "was": key }), seconds * 1000)
            .await
            .ok();
    }
    let restarted = text(
        &delay_state(&alice, &room, "again", json!({}), 10_000).await.ok(),
        "delay_id",
    );
    tokio::time::sleep(Duration::from_secs(9)).await;
    alice.state(&room, KIND, "soon").await.refused(404, "M_NOT_FOUND");
    manage(&alice, &restarted, "restart").await.ok();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        alice.state(&room, KIND, "soon").await.ok(),
        json!({ "was": "soon" })
    );
    alice
        .state(&room, KIND, "again")
        .await
        .refused(404, "M_NOT_FOUND");

    let server = server.restart_simulated(2, &network).await;
    let alice = alice.on(server.endpoint());
    // The simulated clock begins anew with each start; what was scheduled by the old one is due by it.
    tokio::time::sleep(Duration::from_secs(45)).await;
    let page = alice.messages(&room, "dir=b&limit=5").await;
    let keys: Vec<_> = page["chunk"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["type"] == KIND)
        .map(|event| text(event, "state_key"))
        .collect();
    assert_eq!(keys, ["late", "middle", "again", "soon"], "newest first");
    assert_eq!(waiting(&alice).await.len(), 1);
}
