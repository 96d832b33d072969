//! Receipts, read markers, typing, presence.

use hearth_testkit::{Client, TestServer, encode};
use serde_json::{Value, json};

use crate::events;

scenarios!(
    public_private_and_threaded_receipts,
    read_markers,
    typing,
    presence,
    receipts_never_go_back,
    receipts_of_threads_name_their_events,
    who_leaves_types_no_more
);

/// The content of the receipts that an answer shows of a room.
fn receipts(answer: &Value, room: &str) -> Value {
    let shown = events(&answer["rooms"]["join"][room]["ephemeral"]);
    let found = shown.into_iter().find(|event| event["type"] == "m.receipt");
    found.map_or(Value::Null, |event| event["content"].clone())
}

async fn receipt(
    client: &Client,
    room: &str,
    kind: &str,
    event: &str,
    body: Value,
) -> hearth_testkit::Answer {
    client
        .post(
            &format!("/rooms/{}/receipt/{kind}/{}", encode(room), encode(event)),
            body,
        )
        .await
}

async fn public_private_and_threaded_receipts(server: &TestServer) {
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    let room = alice.room().with(&bob).build().await;
    let root = alice.say(&room, "root").await;
    let content = json!({ "body": "r", "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    let reply = alice.send(&room, "m.room.message", content).await;
    let (a, b) = (alice.sync("timeout=0").await, bob.sync("timeout=0").await);
    receipt(&bob, &room, "m.read", &root, json!({})).await.ok();
    receipt(&bob, &room, "m.read.private", &reply, json!({}))
        .await
        .ok();
    receipt(&bob, &room, "m.read", &reply, json!({ "thread_id": root }))
        .await
        .ok();
    let shown = receipts(&alice.sync_since(&a).await, &room);
    assert!(shown[&root]["m.read"][&bob.user_id]["ts"].is_u64(), "{shown}");
    assert_eq!(
        shown[&reply]["m.read"][&bob.user_id]["thread_id"],
        root.as_str(),
        "{shown}"
    );
    assert!(!shown.to_string().contains("m.read.private"), "{shown}");
    let own = receipts(&bob.sync_since(&b).await, &room);
    assert!(own[&reply]["m.read.private"][&bob.user_id].is_object(), "{own}");
    assert!(receipts(&alice.sync("timeout=0").await, &room)[&root]["m.read"].is_object());
    receipt(&eve, &room, "m.read", &root, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    receipt(&bob, &room, "m.other", &root, json!({}))
        .await
        .refused(400, "M_INVALID_PARAM");
    let other = alice.say(&room, "in no thread").await;
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": reply, "key": "x" } });
    let reaction = alice.send(&room, "m.reaction", reaction).await;
    for (event, thread) in [
        (&root, json!("")),
        (&root, json!(null)),
        (&root, json!(7)),
        (&other, json!(root)),
        (&other, json!(other)),
        (&reply, json!("main")),
        (&reaction, json!("main")),
        (&reply, json!("$nothing")),
    ] {
        let wrong = receipt(&bob, &room, "m.read", event, json!({ "thread_id": thread })).await;
        // The root of no thread may still become one.
        match *event == other && thread == json!(other) {
            true => assert_eq!(wrong.status, 200, "{}", wrong.text()),
            false => {
                wrong.refused(400, "M_INVALID_PARAM");
            }
        }
    }
    for (event, thread) in [
        (&root, "main"),
        (&root, root.as_str()),
        (&reaction, &root),
        (&other, "main"),
    ] {
        receipt(&bob, &room, "m.read", event, json!({ "thread_id": thread }))
            .await
            .ok();
    }
}

/// A receipt of a thread names an event of that thread; every event may stand in the main timeline's.
async fn receipts_of_threads_name_their_events(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let (root, apart) = (alice.say(&room, "root").await, alice.say(&room, "apart").await);
    let relates = |kind: &str, to: &str| json!({ "body": "r", "m.relates_to": { "rel_type": kind, "event_id": to, "key": "k" } });
    let reply = alice
        .send(&room, "m.room.message", relates("m.thread", &root))
        .await;
    let reaction = alice
        .send(&room, "m.reaction", relates("m.annotation", &reply))
        .await;
    for (event, thread, status) in [
        (&root, root.as_str(), 200),
        (&reply, &root, 200),
        (&reaction, &root, 200),
        (&root, "main", 200),
        (&apart, "main", 200),
        (&apart, &root, 400),
        (&reply, &apart, 400),
        (&reply, "nothing", 400),
        (&reaction, "$nothing", 400),
    ] {
        let answer = receipt(&alice, &room, "m.read", event, json!({ "thread_id": thread })).await;
        assert_eq!(answer.status, status, "{event} {thread}: {}", answer.text());
    }
}

async fn who_leaves_types_no_more(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let path = format!("/rooms/{}/typing/{}", encode(&room), encode(&bob.user_id));
    bob.put(&path, json!({ "typing": true, "timeout": 100_000 }))
        .await
        .ok();
    let since = alice.sync("timeout=0").await;
    bob.leave(&room).await;
    let shown = events(&alice.sync_since(&since).await["rooms"]["join"][&room]["ephemeral"]);
    let typing = shown.iter().find(|event| event["type"] == "m.typing");
    assert_eq!(
        typing.map(|event| &event["content"]["user_ids"]),
        Some(&json!([]))
    );
}

#[tokio::test]
async fn presence_is_off_where_the_operator_says_so() {
    let server = TestServer::memory_with(1, |config| config.presence = false).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    alice.room().with(&bob).build().await;
    let since = alice.sync("timeout=0").await;
    let path = format!("/presence/{}/status", encode(&bob.user_id));
    bob.put(&path, json!({ "presence": "online" })).await.ok();
    bob.sync("timeout=0").await;
    assert_eq!(alice.get(&path).await.ok()["presence"], "offline");
    let news = alice.sync_since(&since).await;
    assert!(
        since.get("presence").is_none() && news.get("presence").is_none(),
        "{news}"
    );
}

async fn receipts_never_go_back(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let (one, two) = (alice.say(&room, "one").await, alice.say(&room, "two").await);
    receipt(&bob, &room, "m.read", &two, json!({})).await.ok();
    receipt(&bob, &room, "m.read", &one, json!({})).await.ok();
    let shown = receipts(&alice.sync("timeout=0").await, &room);
    assert!(
        shown[&two]["m.read"][&bob.user_id].is_object() && shown.get(&one).is_none(),
        "{shown}"
    );
}

async fn read_markers(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).messages(1).build().await;
    let said = alice.say(&room, "hi").await;
    let since = bob.sync("timeout=0").await;
    let body = json!({ "m.fully_read": said, "m.read": said });
    bob.act(&room, "read_markers", body).await.ok();
    let news = bob.sync_since(&since).await;
    let data = events(&news["rooms"]["join"][&room]["account_data"]);
    assert_eq!(
        data[0],
        json!({ "type": "m.fully_read", "content": { "event_id": said } })
    );
    assert!(receipts(&news, &room)[&said]["m.read"][&bob.user_id].is_object());
    let counts = |answer: &Value| answer["rooms"]["join"][&room]["unread_notifications"].clone();
    let fresh = counts(&bob.sync("timeout=0").await);
    assert_eq!(fresh["notification_count"], 0, "{fresh}");
}

async fn typing(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let since = alice.sync("timeout=0").await;
    let path = format!("/rooms/{}/typing/{}", encode(&room), encode(&bob.user_id));
    let who = |answer: &Value| {
        let shown = events(&answer["rooms"]["join"][&room]["ephemeral"]);
        shown
            .into_iter()
            .find(|event| event["type"] == "m.typing")
            .map(|event| event["content"]["user_ids"].clone())
    };
    bob.put(&path, json!({ "typing": true, "timeout": 20000 }))
        .await
        .ok();
    let news = alice.sync_since(&since).await;
    assert_eq!(who(&news), Some(json!([bob.user_id])));
    assert_eq!(who(&alice.sync_since(&news).await), None);
    bob.put(&path, json!({ "typing": false })).await.ok();
    let gone = alice.sync_since(&news).await;
    assert_eq!(who(&gone), Some(json!([])));
    bob.put(&path, json!({ "typing": true, "timeout": 30 }))
        .await
        .ok();
    let begun = alice.sync_since(&gone).await;
    assert_eq!(who(&begun), Some(json!([bob.user_id])));
    let since = encode(begun["next_batch"].as_str().unwrap_or_default());
    let expired = alice.sync(&format!("timeout=20000&since={since}")).await;
    assert_eq!(who(&expired), Some(json!([])));
    alice
        .put(&path, json!({ "typing": true, "timeout": 30 }))
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn presence(server: &TestServer) {
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    alice.room().with(&bob).build().await;
    let path = format!("/presence/{}/status", encode(&bob.user_id));
    let since = alice.sync("timeout=0").await;
    bob.put(&path, json!({ "presence": "unavailable", "status_msg": "out" }))
        .await
        .ok();
    alice
        .put(&path, json!({ "presence": "online" }))
        .await
        .refused(403, "M_FORBIDDEN");
    let shown = alice.get(&path).await.ok();
    assert_eq!(
        (&shown["presence"], &shown["status_msg"]),
        (&json!("unavailable"), &json!("out"))
    );
    let news = events(&alice.sync_since(&since).await["presence"]);
    let found = news
        .iter()
        .find(|event| event["sender"] == bob.user_id.as_str())
        .expect("bob's presence");
    assert_eq!(found["content"]["presence"], "unavailable");
    eve.get(&path).await.refused(403, "M_FORBIDDEN");
    bob.put(&path, json!({ "presence": "asleep" }))
        .await
        .refused(400, "M_INVALID_PARAM");
}
