//! Pushers, push rules, and what push gateways are told.

mod badge;
mod damaged;
mod purged;
mod switches;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use hearth_testkit::{Client, Faults, SimNetwork, TestServer, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};

scenarios!(pushers_are_kept_and_go, default_rules, listed_notifications,);

const ENABLED: &str = "org.matrix.msc3881.enabled";
const DEVICE: &str = "org.matrix.msc3881.device_id";

fn pusher(key: &str) -> Value {
    json!({
        "kind": "http", "app_id": "app", "pushkey": key, "app_display_name": "App", "device_display_name": "Phone",
        "lang": "en", "profile_tag": "tag",
        "data": { "url": "https://push.test/_matrix/push/v1/notify", "default_payload": { "a": { "b": [1] } } },
    })
}

async fn keys(client: &Client) -> Vec<String> {
    let answer = client.get("/pushers").await.ok();
    let all = answer["pushers"].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|pusher| pusher["pushkey"].as_str().unwrap_or_default().to_owned())
        .collect()
}

async fn pushers_are_kept_and_go(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let other = server.login("alice", "OTHER").await;
    alice.post("/pushers/set", pusher("one")).await.ok();
    other.post("/pushers/set", pusher("two")).await.ok();
    assert_eq!(keys(&alice).await, ["one", "two"]);
    let shown = alice.get("/pushers").await.ok();
    let mut expected = pusher("one");
    expected[ENABLED] = json!(true);
    expected[DEVICE] = json!(alice.device_id);
    assert_eq!(shown["pushers"][0], expected);
    let mut again = pusher("one");
    again["append"] = json!(true);
    bob.post("/pushers/set", again).await.ok();
    assert_eq!(
        keys(&alice).await,
        ["one", "two"],
        "append leaves others their pusher"
    );
    bob.post("/pushers/set", pusher("one")).await.ok();
    assert_eq!(keys(&alice).await, ["two"], "the phone has another user now");
    other.post("/logout", json!({})).await.ok();
    assert!(keys(&alice).await.is_empty(), "a device takes its pusher along");
    let gone = json!({ "kind": null, "app_id": "app", "pushkey": "one" });
    bob.post("/pushers/set", gone).await.ok();
    assert!(keys(&bob).await.is_empty());
    for (field, value, errcode) in [
        ("kind", json!("email"), "M_INVALID_PARAM"),
        ("pushkey", json!("k".repeat(513)), "M_INVALID_PARAM"),
        ("app_id", json!("a".repeat(65)), "M_INVALID_PARAM"),
        ("data", json!({}), "M_MISSING_PARAM"),
        (
            "data",
            json!({ "url": "https://push.test/other" }),
            "M_INVALID_PARAM",
        ),
        ("lang", json!(null), "M_MISSING_PARAM"),
    ] {
        let mut wrong = pusher("x");
        wrong[field] = value;
        bob.post("/pushers/set", wrong).await.refused(400, errcode);
    }
}

async fn default_rules(server: &TestServer) {
    let alice = server.register("alice").await;
    let rule = alice
        .get("/pushrules/global/underride/.org.matrix.msc3930.rule.poll_start_one_to_one")
        .await
        .ok();
    assert_eq!(rule["conditions"][1]["pattern"], "org.matrix.msc3381.poll.start");
    let rule = alice
        .get("/pushrules/global/postcontent/.io.element.msc4306.rule.subscribed_thread")
        .await
        .ok();
    assert_eq!(
        (&rule["default"], &rule["enabled"]),
        (&json!(true), &json!(false))
    );
    let shown = alice.sync("timeout=0").await;
    let events = crate::events(&shown["account_data"]);
    let rules = events
        .iter()
        .find(|event| event["type"] == "m.push_rules")
        .unwrap();
    let all = alice.get("/pushrules/").await.ok();
    assert_eq!(rules["content"], all);
    let path = format!("/user/{}/account_data/m.push_rules", encode(&alice.user_id));
    assert_eq!(alice.get(&path).await.ok(), all);
}

async fn listed_notifications(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let one = alice.say(&room, "one").await;
    let two = alice.say(&room, &format!("two, {}", bob.user_id)).await;
    bob.post(
        &format!("/rooms/{}/receipt/m.read/{}", encode(&room), encode(&one)),
        json!({}),
    )
    .await
    .ok();
    let page = bob.get("/notifications?limit=1").await.ok();
    let first = &page["notifications"][0];
    assert_eq!(page["notifications"].as_array().unwrap().len(), 1, "{page}");
    let next = page["next_token"].as_str().unwrap();
    let rest = bob
        .get(&format!("/notifications?from={}", encode(next)))
        .await
        .ok();
    let second = &rest["notifications"][0];
    let ids = [&first["event"]["event_id"], &second["event"]["event_id"]];
    assert!(
        ids.contains(&&json!(one)) && ids.contains(&&json!(two)),
        "{page} {rest}"
    );
    assert!(rest.get("next_token").is_none());
    // None is none, with where the page would have begun.
    let from = format!("&from={}", encode(next));
    for (query, expected) in [("", first), (from.as_str(), second)] {
        let none = bob.get(&format!("/notifications?limit=0{query}")).await.ok();
        assert_eq!(none["notifications"], json!([]));
        let begin = none["next_token"].as_str().expect("a token");
        let page = bob
            .get(&format!("/notifications?limit=1&from={}", encode(begin)))
            .await
            .ok();
        assert_eq!(
            page["notifications"][0]["event"]["event_id"],
            expected["event"]["event_id"]
        );
    }
    let loud = bob.get("/notifications?only=highlight").await.ok();
    assert_eq!(loud["notifications"].as_array().unwrap().len(), 1);
    assert_eq!(loud["notifications"][0]["event"]["event_id"], json!(two));
    assert_eq!(loud["notifications"][0]["read"], json!(false));
    assert_eq!(loud["notifications"][0]["room_id"], json!(room));
    let other = alice.room().build().await;
    alice.invite(&other, &bob).await;
    let ids = async |query: &str| -> Vec<Value> {
        let page = bob.get(&format!("/notifications?{query}")).await.ok();
        let list = page["notifications"].as_array().cloned().unwrap_or_default();
        list.iter().map(|one| one["room_id"].clone()).collect()
    };
    let newest = bob.get("/notifications?limit=10").await.ok();
    assert_eq!(
        newest["notifications"].as_array().map(Vec::len),
        Some(3),
        "{newest}"
    );
    let is_it = |one: &&Value| one["room_id"] == json!(other);
    let all = newest["notifications"].as_array().cloned().unwrap_or_default();
    let invitation = all.iter().find(is_it).expect("the invitation");
    assert_eq!(
        (&invitation["event"]["content"]["membership"], &invitation["read"]),
        (&json!("invite"), &json!(false))
    );
    assert_eq!(invitation["event"]["sender"], json!(alice.user_id));
    assert!(!ids("only=highlight").await.contains(&json!(other)));
    bob.leave(&other).await;
    assert!(!ids("").await.contains(&json!(other)));
    bob.get("/notifications?from=nothing")
        .await
        .refused(400, "M_INVALID_PARAM");
}

/// A push gateway.
struct Gateway {
    told: Arc<Mutex<Vec<Value>>>,
    status: Arc<AtomicU16>,
    /// How long it takes to answer, in seconds.
    slow: Arc<AtomicU16>,
    rejects: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    fn on(network: &SimNetwork) -> Self {
        let gateway = Self {
            told: Arc::default(),
            status: Arc::new(AtomicU16::new(200)),
            slow: Arc::default(),
            rejects: Arc::default(),
        };
        let (told, status, rejects, slow) = (
            gateway.told.clone(),
            gateway.status.clone(),
            gateway.rejects.clone(),
            gateway.slow.clone(),
        );
        let notify = post(move |body: axum::Json<Value>| async move {
            let status = StatusCode::from_u16(status.load(Ordering::SeqCst)).expect("a status");
            if status.is_success() {
                told.lock().push(body.0["notification"].clone());
            }
            tokio::time::sleep(Duration::from_secs(slow.load(Ordering::SeqCst).into())).await;
            (status, axum::Json(json!({ "rejected": *rejects.lock() })))
        });
        network.add(
            "push.test",
            Router::new().route("/_matrix/push/v1/notify", notify),
        );
        network.set_faults(Faults::default());
        gateway
    }

    /// What was told until nothing more comes; time is simulated.
    async fn told(&self) -> Vec<Value> {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        std::mem::take(&mut *self.told.lock())
    }
}

/// What a notification is about: the event, none for counts alone, and how much is unread.
fn about(told: &[Value]) -> Vec<(Option<&str>, u64)> {
    told.iter()
        .map(|one| {
            let unread = one["counts"]["unread"].as_u64().unwrap_or(u64::MAX);
            (one["event_id"].as_str(), unread)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_told() {
    let network = SimNetwork::new(1);
    let server = TestServer::simulated("hs1", 4, 1, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    bob.post("/pushers/set", pusher("one")).await.ok();
    let one = alice.say(&room, "one").await;
    let told = gateway.told().await;
    assert_eq!(about(&told), [(Some(one.as_str()), 1)]);
    assert_eq!(told[0]["content"]["body"], "one");
    assert_eq!(told[0]["room_id"], json!(room));
    assert_eq!(told[0]["sender"], json!(alice.user_id));
    let device = &told[0]["devices"][0];
    assert_eq!(
        device["data"],
        json!({ "default_payload": { "a": { "b": [1] } } })
    );
    assert_eq!(device["tweaks"]["sound"], "default", "two are alone in the room");
    assert_eq!(told[0]["prio"], "high");

    // Reading sets the badge back; an own message tells nobody of itself.
    let receipt = format!("/rooms/{}/receipt/m.read/{}", encode(&room), encode(&one));
    bob.post(&receipt, json!({})).await.ok();
    assert_eq!(about(&gateway.told().await), [(None, 0)]);
    bob.say(&room, "mine").await;
    assert!(gateway.told().await.is_empty());

    // An outage ends with the newest event of the room, and nothing that was read meanwhile.
    gateway.status.store(502, Ordering::SeqCst);
    let mut last = String::new();
    for _ in 0..5 {
        last = alice.say(&room, "while it is down").await;
    }
    assert!(gateway.told().await.is_empty());
    gateway.status.store(200, Ordering::SeqCst);
    assert_eq!(about(&gateway.told().await), [(Some(last.as_str()), 5)]);

    // An invitation is told of; one that is turned down is not.
    let other = alice.room().build().await;
    alice.invite(&other, &bob).await;
    let told = gateway.told().await;
    assert_eq!((told.len(), &told[0]["user_is_target"]), (1, &json!(true)));

    let mut bare = pusher("one");
    bare["data"]["format"] = json!("event_id_only");
    bob.post("/pushers/set", bare).await.ok();
    let quiet = alice.say(&room, "six").await;
    let told = gateway.told().await;
    assert_eq!(about(&told), [(Some(quiet.as_str()), 6)]);
    assert!(told[0].get("content").is_none() && told[0].get("sender").is_none());
    assert_eq!(told[0]["prio"], "high");

    gateway.rejects.lock().push("one".to_owned());
    alice.say(&room, "seven").await;
    gateway.told().await;
    assert!(keys(&bob).await.is_empty(), "a rejected pushkey is forgotten");
    alice.say(&room, "eight").await;
    assert!(gateway.told().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_doubled_over_a_restart() {
    let network = SimNetwork::new(2);
    let server = TestServer::simulated("hs1", 4, 2, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (one, two) = (
        alice.room().with(&bob).build().await,
        alice.room().with(&bob).build().await,
    );
    bob.post("/pushers/set", pusher("one")).await.ok();
    alice.say(&one, "told before").await;
    assert_eq!(gateway.told().await.len(), 1);
    gateway.status.store(500, Ordering::SeqCst);
    let (first, second) = (alice.say(&one, "a").await, alice.say(&two, "b").await);
    assert!(gateway.told().await.is_empty());
    let server = server.restart_simulated(3, &network).await;
    gateway.status.store(200, Ordering::SeqCst);
    let told = gateway.told().await;
    let mut ids: Vec<_> = about(&told).into_iter().map(|(event, _)| event).collect();
    ids.sort_unstable();
    let mut expected = [Some(first.as_str()), Some(second.as_str())];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let alice = alice.on(server.endpoint());
    let third = alice.say(&one, "c").await;
    assert_eq!(about(&gateway.told().await), [(Some(third.as_str()), 4)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_while_the_gateway_answers_is_told() {
    let network = SimNetwork::new(3);
    let server = TestServer::simulated("hs1", 4, 3, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let (one, two) = (alice.say(&room, "one").await, alice.say(&room, "two").await);
    bob.post("/pushers/set", pusher("one")).await.ok();
    let read = async |event: &str| {
        let receipt = format!("/rooms/{}/receipt/m.read/{}", encode(&room), encode(event));
        bob.post(&receipt, json!({})).await.ok();
    };
    gateway.slow.store(20, Ordering::SeqCst);
    read(&one).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    read(&two).await;
    assert_eq!(about(&gateway.told().await), [(None, 1), (None, 0)]);
    // Many at once are one.
    gateway.slow.store(0, Ordering::SeqCst);
    alice.say(&room, "three").await;
    assert_eq!(gateway.told().await.len(), 1);
    bob.leave(&room).await;
    assert_eq!(
        about(&gateway.told().await),
        [(None, 0)],
        "what is left is not unread"
    );
}

#[tokio::test(start_paused = true)]
async fn an_invitation_by_another_server_is_told() {
    let network = SimNetwork::new(4);
    let server = TestServer::simulated("hs1", 4, 4, &network);
    let far = TestServer::simulated("hs2", 4, 5, &network);
    let gateway = Gateway::on(&network);
    let (bob, carol) = (server.register("bob").await, far.register("carol").await);
    bob.post("/pushers/set", pusher("one")).await.ok();
    let room = carol.room().set("name", json!("Tea")).build().await;
    carol.invite(&room, &bob).await;
    let told = gateway.told().await;
    assert_eq!(told.len(), 1, "{told:?}");
    let one = &told[0];
    assert!(
        one["event_id"].as_str().is_some_and(|id| id.starts_with('$')),
        "{one}"
    );
    assert_eq!(
        [
            &one["room_id"],
            &one["sender"],
            &one["type"],
            &one["room_name"],
            &one["content"]["membership"]
        ],
        [
            &json!(room),
            &json!(carol.user_id),
            &json!("m.room.member"),
            &json!("Tea"),
            &json!("invite")
        ]
    );
    assert_eq!(
        (&one["user_is_target"], &one["prio"]),
        (&json!(true), &json!("high"))
    );
    // One that is taken back before the gateway answers is not told of.
    let other = carol.room().build().await;
    gateway.status.store(500, Ordering::SeqCst);
    carol.invite(&other, &bob).await;
    assert!(gateway.told().await.is_empty());
    let kick = json!({ "user_id": bob.user_id });
    carol.act(&other, "kick", kick).await.ok();
    gateway.status.store(200, Ordering::SeqCst);
    assert!(
        about(&gateway.told().await)
            .iter()
            .all(|(event, _)| event.is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn a_pusher_that_is_set_again_is_tried_at_once() {
    let network = SimNetwork::new(6);
    let server = TestServer::simulated("hs1", 4, 6, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    bob.post("/pushers/set", pusher("one")).await.ok();
    gateway.status.store(502, Ordering::SeqCst);
    let event = alice.say(&room, "while it is down").await;
    // Long enough for the pauses to be of a quarter of an hour.
    for _ in 0..3 {
        assert!(gateway.told().await.is_empty());
    }
    gateway.status.store(200, Ordering::SeqCst);
    bob.post("/pushers/set", pusher("one")).await.ok();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let told = std::mem::take(&mut *gateway.told.lock());
    assert_eq!(about(&told), [(Some(event.as_str()), 1)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_over_a_crash() {
    for seed in 0..8 {
        let network = SimNetwork::new(seed);
        let server = TestServer::simulated("hs1", 4, seed, &network);
        let gateway = Gateway::on(&network);
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        bob.post("/pushers/set", pusher("one")).await.ok();
        let mut rooms = Vec::new();
        for _ in 0..4 {
            rooms.push(alice.room().with(&bob).build().await);
        }
        gateway.told().await;
        gateway
            .slow
            .store(u16::try_from(seed % 3).expect("small"), Ordering::SeqCst);
        let mut said = std::collections::BTreeSet::new();
        for room in &rooms {
            said.insert(alice.say(room, "acknowledged").await);
            tokio::time::sleep(Duration::from_millis(300 * (seed % 4))).await;
        }
        let _server = server.crash_simulated(seed, &network);
        let told = gateway.told().await;
        for (event, _) in about(&told) {
            said.remove(event.unwrap_or_default());
        }
        assert!(said.is_empty(), "seed {seed}: {said:?} of {told:?}");
    }
}
