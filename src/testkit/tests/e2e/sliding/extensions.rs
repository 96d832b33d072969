//! What comes beside the rooms: messages to the device, keys, account data, receipts, typing.

use std::time::Duration;

use hearth_testkit::{Client, TestServer, encode};
use serde_json::{Value, json};

use super::{UNSTABLE, kinds, list, rooms, slide};
use crate::bodies;

scenarios!(
    messages_to_the_device_come_once,
    key_counts_are_always_there,
    who_encrypts_looks_after_keys,
    account_data_receipts_and_typing,
    what_is_wanted_later_comes_at_once,
);

async fn send_to(from: &Client, to: &Client, body: &str) {
    let path = format!("/sendToDevice/org.example.t/{}", from.txn());
    let messages = json!({ "messages": { &to.user_id: { &to.device_id: { "body": body } } } });
    from.put(&path, messages).await.ok();
}

async fn messages_to_the_device_come_once(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let body = |since: &Value| {
        json!({ "conn_id": "encryption", "extensions": {
            "to_device": { "enabled": true, "since": since, "limit": 2 }, "e2ee": { "enabled": true },
        } })
    };
    send_to(&alice, &bob, "0").await;
    let mut pos = slide(&bob, &Value::Null, body(&Value::Null)).await;
    let since = |answer: &Value| answer["extensions"]["to_device"]["next_batch"].clone();
    assert_eq!(bodies(&pos["extensions"]["to_device"]["events"]), ["0"]);
    let again = slide(&bob, &pos, body(&Value::Null)).await;
    assert_eq!(
        bodies(&again["extensions"]["to_device"]["events"]),
        ["0"],
        "not confirmed yet"
    );
    for number in 1..6 {
        send_to(&alice, &bob, &number.to_string()).await;
    }
    let mut got = Vec::new();
    let mut next = since(&again);
    pos = again;
    for _ in 0..4 {
        pos = slide(&bob, &pos, body(&next)).await;
        got.extend(bodies(&pos["extensions"]["to_device"]["events"]));
        next = since(&pos);
    }
    assert_eq!(got, ["1", "2", "3", "4", "5"]);
    // A new connection goes on by the same token.
    let fresh = slide(&bob, &Value::Null, body(&next)).await;
    assert_eq!(fresh["extensions"]["to_device"]["events"], json!([]));
    let path = format!("{UNSTABLE}?timeout=0");
    bob.post(&path, body(&json!("s1_AA")))
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn key_counts_are_always_there(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let body = json!({ "extensions": { "e2ee": { "enabled": true } } });
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    for _ in 0..2 {
        let e2ee = &pos["extensions"]["e2ee"];
        assert!(
            e2ee["device_one_time_keys_count"]["signed_curve25519"].is_u64(),
            "{e2ee}"
        );
        assert_eq!(e2ee["device_unused_fallback_key_types"], json!([]));
        assert!(e2ee.get("device_lists").is_none());
        pos = slide(&bob, &pos, body.clone()).await;
    }
    alice.leave(&room).await;
    pos = slide(&bob, &pos, body.clone()).await;
    assert_eq!(
        pos["extensions"]["e2ee"]["device_lists"]["left"],
        json!([alice.user_id])
    );
    alice.join(&room).await;
    pos = slide(&bob, &pos, body).await;
    assert_eq!(
        pos["extensions"]["e2ee"]["device_lists"]["changed"],
        json!([alice.user_id])
    );
}

async fn who_encrypts_looks_after_keys(server: &TestServer) {
    let alice = server.register("alice").await;
    let other = server.login("alice", "OTHER").await;
    let room = alice.room().build().await;
    let body = json!({ "conn_id": "encryption", "extensions": {
        "to_device": { "enabled": true }, "e2ee": { "enabled": true },
    } });
    let pos = slide(&alice, &Value::Null, body.clone()).await;
    let pos = slide(&alice, &pos, body.clone()).await;
    let path = format!(
        "{UNSTABLE}?timeout=600000&pos={}",
        encode(pos["pos"].as_str().unwrap_or_default())
    );
    let say = async {
        other
            .send(&room, "m.room.encrypted", json!({ "of": "another device" }))
            .await;
        alice
            .send(&room, "m.room.encrypted", json!({ "of": "this one" }))
            .await;
    };
    let answer = async { tokio::join!(alice.post(&path, body), say).0.ok() };
    let answer = tokio::time::timeout(Duration::from_secs(60), answer).await;
    let answer = answer.expect("an answer long before the time is over");
    assert!(rooms(&answer).is_empty(), "{answer}");
}

async fn account_data_receipts_and_typing(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (room, other) = (
        alice.room().with(&bob).build().await,
        alice.room().with(&bob).build().await,
    );
    slide(&bob, &Value::Null, json!({})).await;
    let mut body = list(json!([[0, 0]]), json!([]), 1);
    body["extensions"] = json!({
        "account_data": { "enabled": true }, "receipts": { "enabled": true }, "typing": { "enabled": true },
    });
    let event = alice.say(&room, "one").await;
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    assert_eq!(
        kinds(&pos["extensions"]["account_data"]["global"]),
        ["m.push_rules"]
    );
    let data = format!("/user/{}", encode(&bob.user_id));
    bob.put(&format!("{data}/account_data/org.example.g"), json!({ "v": 1 }))
        .await
        .ok();
    for place in [&room, &other] {
        let path = format!("{data}/rooms/{}/account_data/org.example.r", encode(place));
        bob.put(&path, json!({ "v": 1 })).await.ok();
    }
    alice
        .post(
            &format!("/rooms/{}/receipt/m.read/{}", encode(&room), encode(&event)),
            json!({}),
        )
        .await
        .ok();
    let typing = format!("/rooms/{}/typing/{}", encode(&room), encode(&alice.user_id));
    alice
        .put(&typing, json!({ "typing": true, "timeout": 60000 }))
        .await
        .ok();
    pos = slide(&bob, &pos, body.clone()).await;
    let extensions = pos["extensions"].clone();
    assert_eq!(kinds(&extensions["account_data"]["global"]), ["org.example.g"]);
    let of_rooms = &extensions["account_data"]["rooms"];
    assert_eq!(kinds(&of_rooms[&room]), ["org.example.r"]);
    assert!(of_rooms.get(&other).is_none(), "not in the window");
    let receipt = &extensions["receipts"]["rooms"][&room];
    assert_eq!(receipt["type"], "m.receipt");
    assert!(
        receipt["content"][&event]["m.read"][&alice.user_id]["ts"].is_u64(),
        "{receipt}"
    );
    assert_eq!(
        extensions["typing"]["rooms"][&room],
        json!({ "type": "m.typing", "content": { "user_ids": [alice.user_id] } })
    );
    alice.put(&typing, json!({ "typing": false })).await.ok();
    pos = slide(&bob, &pos, body.clone()).await;
    assert_eq!(
        pos["extensions"]["typing"]["rooms"][&room]["content"]["user_ids"],
        json!([])
    );
    pos = slide(&bob, &pos, body.clone()).await;
    assert_eq!((&pos["rooms"], &pos["extensions"]), (&json!({}), &json!({})));
    // What came to a room out of sight is told when it comes into it.
    body["lists"]["all"]["ranges"] = json!([[0, 1]]);
    pos = slide(&bob, &pos, body.clone()).await;
    assert_eq!(
        kinds(&pos["extensions"]["account_data"]["rooms"][&other]),
        ["org.example.r"]
    );
    // Scopes.
    body["extensions"]["account_data"]["lists"] = json!([]);
    let path = format!("{data}/rooms/{}/account_data/org.example.r", encode(&room));
    bob.put(&path, json!({ "v": 2 })).await.ok();
    pos = slide(&bob, &pos, body).await;
    assert_eq!(pos["extensions"], json!({}));
}

async fn what_is_wanted_later_comes_at_once(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (listed, subscribed) = (
        alice.room().with(&bob).build().await,
        alice.room().set("name", json!("Den")).with(&bob).build().await,
    );
    for room in [&listed, &subscribed] {
        let event = alice.say(room, "one").await;
        let receipt = format!("/rooms/{}/receipt/m.read/{}", encode(room), encode(&event));
        alice.post(&receipt, json!({})).await.ok();
        let tag = format!("/user/{}/rooms/{}/tags/u.x", encode(&bob.user_id), encode(room));
        bob.put(&tag, json!({})).await.ok();
        let typing = format!("/rooms/{}/typing/{}", encode(room), encode(&alice.user_id));
        alice
            .put(&typing, json!({ "typing": true, "timeout": 60_000 }))
            .await
            .ok();
    }
    let mut body = list(json!([[0, 9]]), json!([]), 1);
    body["room_subscriptions"] = json!({ &subscribed: { "timeline_limit": 1, "required_state": [] } });
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    pos = slide(&bob, &pos, body.clone()).await;
    pos = slide(&bob, &pos, body.clone()).await;
    assert_eq!((&pos["rooms"], &pos["extensions"]), (&json!({}), &json!({})));
    // First for the room alone that is subscribed to, then for all.
    for (lists, expected) in [(json!([]), vec![&subscribed]), (json!(["*"]), vec![&listed])] {
        let scope = json!({ "enabled": true, "lists": lists, "rooms": ["*"] });
        body["extensions"] = json!({ "account_data": scope, "receipts": scope, "typing": scope });
        pos = slide(&bob, &pos, body.clone()).await;
        for name in ["account_data", "receipts", "typing"] {
            let told = pos["extensions"][name]["rooms"].as_object();
            let told: Vec<&String> = told.into_iter().flatten().map(|(room, _)| room).collect();
            assert_eq!(told, expected, "{name}: {pos}");
        }
    }
    pos = slide(&bob, &pos, body).await;
    assert_eq!((&pos["rooms"], &pos["extensions"]), (&json!({}), &json!({})));
}
