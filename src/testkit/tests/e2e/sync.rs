//! `/sync`, version 3.

use std::time::{Duration, Instant};

use hearth_testkit::{Client, Follower, TestServer, encode};
use serde_json::{Value, json};

use crate::{bodies, events, ids, state_event};

scenarios!(
    initial_and_incremental,
    a_gap_is_filled_by_prev_batch,
    sections_of_rooms,
    filters_and_lazy_members,
    full_state,
    state_after,
    waiting_ends_with_news,
    two_devices_follow,
    left_rooms_in_full,
    a_waiting_sync_tells_that_the_user_is_out,
    a_room_that_all_may_read_is_followed_from_outside,
    old_endpoints
);

async fn initial_and_incremental(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .room()
        .set("name", json!("Den"))
        .with(&bob)
        .messages(2)
        .build()
        .await;
    let first = bob.sync("timeout=0").await;
    let joined = &first["rooms"]["join"][&room];
    let mut all = events(&joined["state"]);
    all.extend(events(&joined["timeline"]));
    for kind in [
        "m.room.create",
        "m.room.power_levels",
        "m.room.join_rules",
        "m.room.name",
    ] {
        assert!(state_event(&all, kind, "").is_some(), "{kind} is missing");
    }
    assert!(
        events(&joined["timeline"])
            .iter()
            .all(|event| event.get("room_id").is_none())
    );
    assert_eq!(bodies(&joined["timeline"]["events"]), ["m0", "m1"]);
    assert_eq!(
        joined["summary"]["m.joined_member_count"], 2,
        "{}",
        joined["summary"]
    );
    let idle = bob.sync_since(&first).await;
    assert!(idle["rooms"]["join"].get(&room).is_none(), "{idle}");
    alice.say(&room, "news").await;
    alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "t" }))
        .await;
    let news = bob.sync_since(&idle).await;
    let joined = &news["rooms"]["join"][&room];
    assert_eq!(bodies(&joined["timeline"]["events"]), ["news"]);
    assert_eq!(events(&joined["timeline"]).len(), 2);
    assert_ne!(joined["timeline"]["limited"], true);
    assert!(events(&joined["state"]).is_empty(), "{joined}");
    // An old token still tells everything since.
    assert_eq!(
        ids(&bob.sync_since(&first).await["rooms"]["join"][&room]["timeline"]["events"]),
        ids(&joined["timeline"]["events"])
    );
}

async fn a_gap_is_filled_by_prev_batch(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let since = bob.sync("timeout=0").await;
    alice
        .set_state(&room, "org.example.s", "", json!({ "v": 1 }))
        .await;
    let mut sent = Vec::new();
    for number in 0..25 {
        sent.push(alice.say(&room, &format!("m{number}")).await);
    }
    let filter = encode(r#"{"room":{"timeline":{"limit":5}}}"#);
    let token = since["next_batch"].as_str().unwrap_or_default();
    let news = bob
        .sync(&format!("timeout=0&filter={filter}&since={}", encode(token)))
        .await;
    let joined = &news["rooms"]["join"][&room];
    assert_eq!(joined["timeline"]["limited"], true);
    assert_eq!(ids(&joined["timeline"]["events"]), sent[20..]);
    assert!(
        state_event(&events(&joined["state"]), "org.example.s", "").is_some(),
        "state of the gap"
    );
    let mut from = encode(joined["timeline"]["prev_batch"].as_str().unwrap_or_default());
    let mut filled = Vec::new();
    loop {
        let page = bob
            .messages(&room, &format!("dir=b&limit=6&from={from}&to={}", encode(token)))
            .await;
        filled.extend(ids(&page["chunk"]));
        match page["end"].as_str() {
            Some(end) if !ids(&page["chunk"]).is_empty() => from = encode(end),
            _ => break,
        }
    }
    filled.reverse();
    assert_eq!(filled.len(), 21, "the state event and twenty messages");
    assert_eq!(filled[1..], sent[..20]);
}

async fn sections_of_rooms(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut since = bob.sync("timeout=0").await;
    let room = alice
        .room()
        .preset("private_chat")
        .state("m.room.join_rules", "", json!({ "join_rule": "knock" }))
        .build()
        .await;
    let section = |answer: &Value| {
        let found = ["join", "invite", "knock", "leave"]
            .into_iter()
            .filter(|name| answer["rooms"][name].get(&room).is_some());
        found.collect::<Vec<_>>().join(",")
    };
    let mut steps = Vec::new();
    for step in [
        "knock", "invite", "join", "kick", "invite", "leave", "invite", "join", "leave", "forget",
    ] {
        match step {
            "knock" => drop(
                bob.post(&format!("/knock/{}", encode(&room)), json!({}))
                    .await
                    .ok(),
            ),
            "invite" => alice.invite(&room, &bob).await,
            "kick" => drop(
                alice
                    .act(&room, "kick", json!({ "user_id": bob.user_id }))
                    .await
                    .ok(),
            ),
            other => drop(bob.act(&room, other, json!({})).await.ok()),
        }
        let news = bob.sync_since(&since).await;
        steps.push(format!("{step}:{}", section(&news)));
        since = news;
    }
    let expected = [
        "knock:knock",
        "invite:invite",
        "join:join",
        "kick:leave",
        "invite:invite",
        "leave:leave",
        "invite:invite",
        "join:join",
        "leave:leave",
        "forget:",
    ];
    assert_eq!(steps, expected);
    // Joined and left between two syncs: it still shows as left.
    alice.invite(&room, &bob).await;
    bob.join(&room).await;
    bob.leave(&room).await;
    assert_eq!(section(&bob.sync_since(&since).await), "leave");
}

async fn filters_and_lazy_members(server: &TestServer) {
    let (alice, bob, carol) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("carol").await,
    );
    // With a name, so that no hero must be shown.
    let room = alice
        .room()
        .set("name", json!("Den"))
        .with(&bob)
        .with(&carol)
        .build()
        .await;
    let other = alice.room().with(&bob).build().await;
    for number in 0..12 {
        alice.say(&room, &format!("m{number}")).await;
    }
    let only = encode(&json!({ "room": { "rooms": [room] } }).to_string());
    let shown = bob.sync(&format!("timeout=0&filter={only}")).await;
    assert!(shown["rooms"]["join"].get(&other).is_none() && shown["rooms"]["join"].get(&room).is_some());
    let lazy = encode(r#"{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":10}}}"#);
    let first = bob.sync(&format!("timeout=0&filter={lazy}")).await;
    let members = |answer: &Value| {
        let state = events(&answer["rooms"]["join"][&room]["state"]);
        let mut keys: Vec<_> = state
            .iter()
            .filter(|event| event["type"] == "m.room.member")
            .map(|event| event["state_key"].clone())
            .collect();
        keys.sort_by_key(Value::to_string);
        keys
    };
    let found = members(&first);
    assert!(
        found.contains(&json!(alice.user_id)) && !found.contains(&json!(carol.user_id)),
        "{found:?}"
    );
    carol.say(&room, "from carol").await;
    let since = encode(first["next_batch"].as_str().unwrap_or_default());
    let news = bob.sync(&format!("timeout=0&filter={lazy}&since={since}")).await;
    assert_eq!(members(&news), [json!(carol.user_id)]);
    let format = encode(r#"{"event_fields":["content.body","type"],"event_format":"client"}"#);
    bob.sync(&format!("timeout=0&filter={format}")).await;
    let none = encode(
        r#"{"room":{"timeline":{"types":[]},"state":{"types":[]},"ephemeral":{"types":[]}},"presence":{"types":[]},"account_data":{"types":[]}}"#,
    );
    let empty = bob.sync(&format!("timeout=0&filter={none}")).await;
    assert!(events(&empty["account_data"]).is_empty() && events(&empty["presence"]).is_empty());
    assert_eq!(bob.get("/sync?filter=%7B").await.status, 400);
}

async fn full_state(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().set("name", json!("Den")).build().await;
    let since = encode(
        alice.sync("timeout=0").await["next_batch"]
            .as_str()
            .unwrap_or_default(),
    );
    let full = alice
        .sync(&format!("timeout=20000&full_state=true&since={since}"))
        .await;
    let state = events(&full["rooms"]["join"][&room]["state"]);
    for kind in ["m.room.create", "m.room.name", "m.room.power_levels"] {
        assert!(state_event(&state, kind, "").is_some(), "{kind}");
    }
}

async fn state_after(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().set("name", json!("one")).with(&bob).build().await;
    let first = bob.sync("timeout=0&use_state_after=true").await;
    let joined = &first["rooms"]["join"][&room];
    assert!(joined.get("state").is_none(), "{joined}");
    let after = events(&joined["state_after"]);
    assert_eq!(
        state_event(&after, "m.room.name", "").map(|event| &event["content"]["name"]),
        Some(&json!("one"))
    );
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "two" }))
        .await;
    let last = alice
        .set_state(&room, "m.room.name", "", json!({ "name": "three" }))
        .await;
    let since = encode(first["next_batch"].as_str().unwrap_or_default());
    let news = bob
        .sync(&format!("timeout=0&use_state_after=true&since={since}"))
        .await;
    let after = events(&news["rooms"]["join"][&room]["state_after"]);
    assert_eq!(after.len(), 1);
    assert_eq!(after[0]["event_id"], last.as_str());
}

async fn waiting_ends_with_news(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let since = encode(
        bob.sync("timeout=0").await["next_batch"]
            .as_str()
            .unwrap_or_default(),
    );
    let waiting = {
        let (bob, since) = (bob.on(bob.endpoint.clone()), since.clone());
        tokio::spawn(async move { bob.sync(&format!("timeout=30000&since={since}")).await })
    };
    tokio::task::yield_now().await;
    let begun = Instant::now();
    alice.say(&room, "wake").await;
    let news = waiting.await.expect("no panic");
    assert!(begun.elapsed() < Duration::from_secs(10), "the sync did not wake");
    assert_eq!(
        bodies(&news["rooms"]["join"][&room]["timeline"]["events"]),
        ["wake"]
    );
    let since = encode(news["next_batch"].as_str().unwrap_or_default());
    let begun = Instant::now();
    bob.sync(&format!("timeout=50&since={since}")).await;
    assert!(begun.elapsed() >= Duration::from_millis(45), "an idle sync waits");
}

async fn two_devices_follow(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut plain = Follower::new(server.login("bob", "PLAIN").await, "");
    let mut after = Follower::new(server.login("bob", "AFTER").await, "use_state_after=true");
    plain.pull().await;
    after.pull().await;
    let room = alice.room().with(&bob).messages(2).build().await;
    plain.check("joined").await;
    alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "x" }))
        .await;
    for number in 0..15 {
        alice.say(&room, &number.to_string()).await;
    }
    plain.check("limited").await;
    after.check("limited").await;
    bob.leave(&room).await;
    plain.check("left").await;
    bob.join(&room).await;
    plain.check("again").await;
    after.check("again").await;
}

async fn left_rooms_in_full(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).messages(1).build().await;
    bob.leave(&room).await;
    alice.say(&room, "unseen").await;
    let plain = bob.sync("timeout=0").await;
    assert!(plain["rooms"]["leave"].get(&room).is_none());
    let filter = encode(r#"{"room":{"include_leave":true}}"#);
    let full = bob.sync(&format!("timeout=0&filter={filter}")).await;
    let left = &full["rooms"]["leave"][&room];
    let shown = events(&left["timeline"]);
    assert_eq!(
        shown.last().map(|event| &event["content"]["membership"]),
        Some(&json!("leave"))
    );
    assert!(!left.to_string().contains("unseen"));
}

async fn old_endpoints(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().messages(1).build().await;
    let first = alice.get("/_matrix/client/r0/sync?timeout=0").await.ok();
    assert!(first["rooms"]["join"].get(&room).is_some());
    let initial = alice.get("/initialSync").await.ok();
    assert_eq!(initial["rooms"][0]["room_id"], room.as_str());
    let of_room = alice
        .get(&format!("/rooms/{}/initialSync", encode(&room)))
        .await
        .ok();
    assert_eq!(of_room["membership"], "join");
    let left = alice.room().messages(1).build().await;
    alice.leave(&left).await;
    let rooms = |answer: &Value| {
        let rooms = answer["rooms"].as_array().cloned().unwrap_or_default();
        let shown = rooms
            .iter()
            .map(|room| format!("{} {}", room["room_id"], room["membership"]));
        shown
            .map(|shown| shown.replace('"', ""))
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(rooms(&alice.get("/initialSync").await.ok()).len(), 1);
    let all = rooms(&alice.get("/initialSync?archived=true").await.ok());
    assert!(
        all.contains(&format!("{left} leave")) && all.len() == 2,
        "{all:?}"
    );
    let of_left = format!("/rooms/{}/initialSync", encode(&left));
    assert_eq!(alice.get(&of_left).await.ok()["membership"], "leave");
    alice.act(&left, "forget", json!({})).await.ok();
    alice.get(&of_left).await.refused(403, "M_FORBIDDEN");
    let from = encode(initial["end"].as_str().unwrap_or_default());
    alice.say(&room, "news").await;
    let news = alice.get(&format!("/events?timeout=0&from={from}")).await.ok();
    assert!(bodies(&news["chunk"]).contains(&"news".to_owned()), "{news}");
    // Of a room that the user comes into, what came before is no news.
    let bob = server.register("bob").await;
    let room = bob.room().messages(2).build().await;
    let from = encode(news["end"].as_str().unwrap_or_default());
    alice.join(&room).await;
    bob.say(&room, "welcome").await;
    let news = alice.get(&format!("/events?timeout=0&from={from}")).await.ok();
    assert_eq!(bodies(&news["chunk"]), ["welcome"], "{news}");
    let list = news["chunk"].as_array().cloned().unwrap_or_default();
    let own = state_event(&list, "m.room.member", &alice.user_id);
    assert_eq!(own.map(|event| &event["room_id"]), Some(&json!(room)));
}

/// A token that was given before a restart goes on where it stood.
async fn a_token_survives(shards: u16, crash: bool) {
    let server = TestServer::memory(shards).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).messages(2).build().await;
    let before = bob.sync("timeout=0").await;
    alice.say(&room, "between").await;
    let server = if crash {
        server.crash().await
    } else {
        server.restart().await
    };
    let (alice, bob) = (alice.on(server.endpoint()), bob.on(server.endpoint()));
    alice.say(&room, "after").await;
    let news = bob.sync_since(&before).await;
    assert_eq!(
        bodies(&news["rooms"]["join"][&room]["timeline"]["events"]),
        ["between", "after"]
    );
    assert!(bob.sync_since(&news).await["rooms"]["join"].get(&room).is_none());
}

#[tokio::test]
async fn tokens_survive_restarts() {
    for shards in [1, 16] {
        for crash in [false, true] {
            a_token_survives(shards, crash).await;
        }
    }
}

/// Starts a request that waits for news.
fn waiting(client: &Client, path: String) -> tokio::task::JoinHandle<Value> {
    let client = client.on(client.endpoint.clone());
    tokio::spawn(async move { client.get(&path).await.ok() })
}

async fn a_waiting_sync_tells_that_the_user_is_out(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    // The room and the list of the user's rooms change one after the other; a sync that looks between them must not
    // show a joined room that the user is not in. Often, because each time is a race.
    for round in 0..20 {
        let room = alice.room().with(&bob).build().await;
        let first = bob.sync("timeout=0").await;
        let since = encode(first["next_batch"].as_str().unwrap_or_default());
        let slid = crate::sliding::slide_all(&bob, None).await;
        let sync = waiting(&bob, format!("/sync?timeout=30000&since={since}"));
        let slide = tokio::spawn({
            let bob = bob.on(bob.endpoint.clone());
            async move { crate::sliding::slide_all(&bob, slid["pos"].as_str()).await }
        });
        tokio::task::yield_now().await;
        let action = if round % 2 == 0 { "kick" } else { "ban" };
        let who = json!({ "user_id": bob.user_id });
        alice.act(&room, action, who).await.ok();
        let news = sync.await.expect("no panic");
        assert!(
            news["rooms"]["join"].get(&room).is_none(),
            "round {round}: {news}"
        );
        let last = events(&news["rooms"]["leave"][&room]["timeline"]).pop();
        let last = last.unwrap_or_else(|| panic!("round {round}: {news}"));
        assert_eq!(last["state_key"], bob.user_id.as_str());
        let slid = slide.await.expect("no panic");
        if let Some(told) = slid["rooms"].get(&room) {
            let own = told["required_state"].as_array().cloned().unwrap_or_default();
            let own = state_event(&own, "m.room.member", &bob.user_id).cloned();
            let membership = own.map(|own| own["content"]["membership"].clone());
            assert_ne!(membership, Some(json!("join")), "round {round}: {slid}");
        }
        let next = bob.sync_since(&news).await;
        assert!(
            next["rooms"]["leave"].get(&room).is_none(),
            "round {round}: {next}"
        );
    }
}

async fn a_room_that_all_may_read_is_followed_from_outside(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let open = json!({ "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "world_readable" } });
    let body = json!({ "preset": "public_chat", "initial_state": [open] });
    let room = alice.create_room(body).await;
    let path = encode(&room);
    let shown = bob.get(&format!("/rooms/{path}/initialSync")).await.ok();
    let end = encode(shown["messages"]["end"].as_str().expect("a token"));
    let follow = |from: &str| format!("/events?room_id={path}&timeout=30000&from={from}");
    let next = waiting(&bob, follow(&end));
    let from_now = waiting(&bob, format!("/events?room_id={path}&timeout=30000"));
    tokio::task::yield_now().await;
    alice.say(&room, "one").await;
    let next = next.await.expect("no panic");
    assert_eq!(bodies(&next["chunk"]), ["one"]);
    assert_eq!(next["chunk"][0]["room_id"], room.as_str());
    let end = encode(next["end"].as_str().expect("a token"));
    alice.say(&room, "two").await;
    let next = bob.get(&follow(&end)).await.ok();
    assert_eq!(bodies(&next["chunk"]), ["two"]);
    // What came before the request was made is not told where no token says from where on.
    let seen = bodies(&from_now.await.expect("no panic")["chunk"]);
    assert!(
        seen == ["one"] || seen == ["two"] || seen == ["one", "two"],
        "{seen:?}"
    );
    // To who is in no room, the token of a sync stands for now: backwards from there is everything.
    let now = bob.sync("timeout=0").await;
    let now = encode(now["next_batch"].as_str().expect("a token"));
    let page = bob.messages(&room, &format!("dir=b&limit=1&from={now}")).await;
    assert_eq!(bodies(&page["chunk"]), ["two"]);
    let closed = alice.room().build().await;
    let idle = format!("/events?room_id={}&timeout=0", encode(&closed));
    assert_eq!(bob.get(&idle).await.ok()["chunk"], json!([]));
}
