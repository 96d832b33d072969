//! Sending, transactions, state, redactions.

use futures_like::all;
use hearth_testkit::client::text;
use hearth_testkit::{Client, PASSWORD, TestServer, V3, encode};
use serde_json::json;

use crate::events;

scenarios!(
    transactions_repeat,
    transactions_survive_a_refresh,
    concurrent_sends_stay_in_order,
    state_is_set_and_read,
    redactions,
    events_are_as_clients_know_them
);

/// Running several futures at once without another crate.
mod futures_like {
    /// Spawns all and waits for all.
    pub async fn all<T: Send + 'static>(tasks: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
        let running: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        let mut out = Vec::new();
        for task in running {
            out.push(task.await.expect("no panic"));
        }
        out
    }
}

async fn transactions_repeat(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let other = server.login("alice", "OTHER").await;
    let room = alice.room().with(&bob).build().await;
    let elsewhere = alice.room().build().await;
    let since = alice.sync("timeout=0").await;
    let say = || json!({ "msgtype": "m.text", "body": "once" });
    let send = |client: &Client, room: &str, kind: &str| {
        let (client, room, kind) = (
            client.on(client.endpoint.clone()),
            room.to_owned(),
            kind.to_owned(),
        );
        async move { text(&client.send_txn(&room, &kind, "T", say()).await.ok(), "event_id") }
    };
    let first = send(&alice, &room, "m.room.message").await;
    assert_eq!(send(&alice, &room, "m.room.message").await, first);
    let together = all((0..4).map(|_| send(&alice, &room, "m.room.message")).collect()).await;
    assert!(together.iter().all(|id| *id == first));
    for different in [
        send(&other, &room, "m.room.message").await,
        send(&bob, &room, "m.room.message").await,
        send(&alice, &elsewhere, "m.room.message").await,
        send(&alice, &room, "org.example.other").await,
    ] {
        assert_ne!(different, first);
    }
    let mine = alice.sync_since(&since).await;
    let seen: Vec<_> = events(&mine["rooms"]["join"][&room]["timeline"])
        .iter()
        .map(|event| {
            event["unsigned"]["transaction_id"]
                .as_str()
                .unwrap_or("none")
                .to_owned()
        })
        .collect();
    assert_eq!(seen, ["T", "none", "none", "T"]);
    for (client, expected) in [(&alice, json!("T")), (&other, json!(null)), (&bob, json!(null))] {
        let event = client.event(&room, &first).await.ok();
        assert_eq!(
            event["unsigned"]["transaction_id"], expected,
            "{}",
            client.device_id
        );
        let page = client.messages(&room, "dir=b&limit=50").await;
        let found = page["chunk"]
            .as_array()
            .and_then(|list| list.iter().find(|event| event["event_id"] == first.as_str()));
        assert_eq!(
            found.map(|event| &event["unsigned"]["transaction_id"]),
            Some(&expected)
        );
    }
    let redact = format!("/rooms/{}/redact/{}/R", encode(&room), encode(&first));
    let once = alice.put(&redact, json!({})).await.ok();
    assert_eq!(alice.put(&redact, json!({})).await.ok(), once);
}

async fn transactions_survive_a_refresh(server: &TestServer) {
    server.register("alice").await;
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": PASSWORD,
        "refresh_token": true,
    });
    let answer = server
        .call("POST", &format!("{V3}/login"), None, login)
        .await
        .ok();
    let mut alice = Client::of(&server.endpoint(), &answer);
    let room = alice.room().build().await;
    let first = alice
        .send_txn(&room, "m.room.message", "T", json!({ "body": "x" }))
        .await
        .ok();
    let refresh = json!({ "refresh_token": alice.refresh_token });
    let fresh = server
        .call("POST", &format!("{V3}/refresh"), None, refresh)
        .await
        .ok();
    alice.token = text(&fresh, "access_token");
    assert_eq!(
        alice
            .send_txn(&room, "m.room.message", "T", json!({ "body": "x" }))
            .await
            .ok(),
        first
    );
    let event = alice.event(&room, &text(&first, "event_id")).await.ok();
    assert_eq!(event["unsigned"]["transaction_id"], "T");
}

async fn concurrent_sends_stay_in_order(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let since = alice.sync("timeout=0").await;
    let tasks = (0..40).map(|number| {
        let (client, room) = (alice.on(alice.endpoint.clone()), room.clone());
        async move {
            let content = json!({ "body": number.to_string() });
            text(
                &client
                    .send_txn(&room, "m.room.message", &format!("c{number}"), content)
                    .await
                    .ok(),
                "event_id",
            )
        }
    });
    let mut sent = all(tasks.collect()).await;
    let filter = encode(r#"{"room":{"timeline":{"limit":50}}}"#);
    let since = since["next_batch"].as_str().unwrap_or_default();
    let news = alice
        .sync(&format!("timeout=0&filter={filter}&since={}", encode(since)))
        .await;
    let seen = crate::ids(&news["rooms"]["join"][&room]["timeline"]["events"]);
    let page = alice.messages(&room, "dir=b&limit=40").await;
    let mut paged = crate::ids(&page["chunk"]);
    paged.reverse();
    assert_eq!(seen, paged);
    let mut sorted = seen.clone();
    sorted.sort();
    sent.sort();
    assert_eq!(sorted, sent);
}

async fn state_is_set_and_read(server: &TestServer) {
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    let room = alice.room().with(&bob).build().await;
    let first = alice
        .set_state(&room, "org.example.thing", "a/b", json!({ "v": 1 }))
        .await;
    let second = alice
        .set_state(&room, "org.example.thing", "a/b", json!({ "v": 2 }))
        .await;
    assert_ne!(first, second);
    assert_eq!(
        bob.state(&room, "org.example.thing", "a/b").await.ok(),
        json!({ "v": 2 })
    );
    let event = bob.event(&room, &second).await.ok();
    assert_eq!(event["unsigned"]["prev_content"], json!({ "v": 1 }));
    assert_eq!(event["unsigned"]["replaces_state"], first.as_str());
    let whole = bob
        .get(&format!(
            "/rooms/{}/state/org.example.thing/{}?format=event",
            encode(&room),
            encode("a/b")
        ))
        .await
        .ok();
    assert_eq!(
        (&whole["event_id"], &whole["content"]["v"]),
        (&json!(second), &json!(2))
    );
    bob.state(&room, "org.example.thing", "")
        .await
        .refused(404, "M_NOT_FOUND");
    bob.try_set_state(&room, "m.room.name", "", json!({ "name": "x" }))
        .await
        .refused(403, "M_FORBIDDEN");
    eve.state(&room, "org.example.thing", "a/b")
        .await
        .refused(403, "M_FORBIDDEN");
    let own = json!({ "membership": "join", "displayname": "B" });
    bob.set_state(&room, "m.room.member", &bob.user_id, own).await;
    let others = json!({ "membership": "leave" });
    bob.try_set_state(&room, "m.room.member", &alice.user_id, others)
        .await
        .refused(403, "M_FORBIDDEN");
    let state_key = format!("@{}", "alice:hs1");
    bob.try_set_state(&room, "org.example.own", &state_key, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn redactions(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for version in ["10", "11", "12"] {
        let room = alice.room().version(version).with(&bob).build().await;
        let (his, hers) = (bob.say(&room, "his").await, alice.say(&room, "hers").await);
        bob.try_redact(&room, &hers).await.refused(403, "M_FORBIDDEN");
        bob.try_redact(&room, "$nothing")
            .await
            .refused(404, "M_NOT_FOUND");
        let since = bob.sync("timeout=0").await;
        let by = bob.redact(&room, &his).await;
        let also = alice.redact(&room, &hers).await;
        for (target, by) in [(&his, &by), (&hers, &also)] {
            let event = alice.event(&room, target).await.ok();
            assert_eq!(event["content"], json!({}), "{version}");
            let because = &event["unsigned"]["redacted_because"];
            assert_eq!(
                (&because["event_id"], &because["type"]),
                (&json!(by), &json!("m.room.redaction"))
            );
            assert_eq!(because["content"]["reason"], "because", "{version}");
        }
        let news = bob.sync_since(&since).await;
        let shown = events(&news["rooms"]["join"][&room]["timeline"]);
        assert_eq!(
            (&shown[0]["redacts"], &shown[0]["content"]["redacts"]),
            (&json!(his), &json!(his)),
            "{version}"
        );
        // A redaction by the general endpoint does the same.
        let third = bob.say(&room, "third").await;
        let content = json!({ "redacts": third, "reason": "r" });
        bob.send(&room, "m.room.redaction", content).await;
        assert_eq!(
            bob.event(&room, &third).await.ok()["content"],
            json!({}),
            "{version}"
        );
        // State that is redacted reads as empty.
        alice
            .set_state(&room, "m.room.topic", "", json!({ "topic": "secret" }))
            .await;
        let topic = alice
            .get(&format!(
                "/rooms/{}/state/m.room.topic/?format=event",
                encode(&room)
            ))
            .await
            .ok();
        alice.redact(&room, &text(&topic, "event_id")).await;
        assert_eq!(
            alice.state(&room, "m.room.topic", "").await.ok(),
            json!({}),
            "{version}"
        );
        alice.say(&room, "and on").await;
    }
}

async fn events_are_as_clients_know_them(server: &TestServer) {
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    let room = alice.room().with(&bob).build().await;
    let id = alice
        .send(
            &room,
            "m.room.message",
            json!({ "body": "ä\u{2028}\"\\", "n": -5 }),
        )
        .await;
    let event = bob.event(&room, &id).await.ok();
    assert_eq!(event["content"], json!({ "body": "ä\u{2028}\"\\", "n": -5 }));
    for (member, value) in [
        ("event_id", id.as_str()),
        ("room_id", room.as_str()),
        ("sender", alice.user_id.as_str()),
        ("type", "m.room.message"),
    ] {
        assert_eq!(event[member], value);
    }
    assert!(
        event["origin_server_ts"].is_u64() && event["unsigned"]["age"].is_i64()
            || event["unsigned"]["age"].is_u64()
    );
    assert!(
        event.get("state_key").is_none()
            && event.get("hashes").is_none()
            && event.get("prev_events").is_none()
    );
    eve.event(&room, &id).await.refused(404, "M_NOT_FOUND");
    bob.event(&room, "$unknown").await.refused(404, "M_NOT_FOUND");
    let elsewhere = bob.room().build().await;
    bob.event(&elsewhere, &id).await.refused(404, "M_NOT_FOUND");
}
