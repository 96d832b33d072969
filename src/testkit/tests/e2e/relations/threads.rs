//! Threads: counts, lists, and who has a part in them.

use hearth_testkit::{TestServer, encode};
use serde_json::{Value, json};

use super::{bundled, relates, relations};
use crate::{bodies, ids};

scenarios!(
    threads_are_counted_and_listed,
    a_redacted_root_keeps_its_thread,
    threads_begin_at_events_that_relate_to_none,
    ignored_users_have_no_part_in_threads,
    long_threads_are_read_to_the_end,
);

async fn threads_are_counted_and_listed(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let (one, two, three) = (
        alice.say(&room, "one").await,
        bob.say(&room, "two").await,
        alice.say(&room, "three").await,
    );
    for (root, count) in [(&one, 3), (&two, 1), (&three, 2)] {
        for number in 0..count {
            alice
                .send(
                    &room,
                    "m.room.message",
                    relates(&format!("r{number}"), "m.thread", root),
                )
                .await;
        }
    }
    let bundle = bundled(&bob, &room, &one).await;
    assert_eq!(bundle["m.thread"]["count"], 3);
    assert_eq!(bundle["m.thread"]["latest_event"]["content"]["body"], "r2");
    assert_eq!(bundle["m.thread"]["current_user_participated"], false);
    assert_eq!(
        bundled(&alice, &room, &one).await["m.thread"]["current_user_participated"],
        true
    );
    bob.send(&room, "m.room.message", relates("mine", "m.thread", &one))
        .await;
    assert_eq!(
        bundled(&bob, &room, &one).await["m.thread"]["current_user_participated"],
        true
    );

    let path = format!("/_matrix/client/v1/rooms/{}/threads", encode(&room));
    let list = bob.get(&path).await.ok();
    assert_eq!(ids(&list["chunk"]), [one.clone(), three.clone(), two.clone()]);
    assert_eq!(
        list["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"],
        4
    );
    let mine = bob.get(&format!("{path}?include=participated")).await.ok();
    assert_eq!(ids(&mine["chunk"]), [one.clone(), two.clone()]);
    let first = bob.get(&format!("{path}?limit=1")).await.ok();
    let next = first["next_batch"].as_str().unwrap_or_default();
    let rest = bob
        .get(&format!("{path}?limit=5&from={}", encode(next)))
        .await
        .ok();
    assert_eq!(ids(&rest["chunk"]), [three, two]);
    assert!(rest.get("next_batch").is_none());
}

/// Only edits go with what they edit: the thread below a redacted message, and what refers to it, stay.
async fn a_redacted_root_keeps_its_thread(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let root = alice.say(&room, "root").await;
    let reply = relates("reply", "m.thread", &root);
    bob.send(&room, "m.room.message", reply).await;
    let reference = relates("see", "m.reference", &root);
    let reference = bob.send(&room, "m.room.message", reference).await;
    let mut edit = relates("edited", "m.replace", &root);
    edit["m.new_content"] = json!({ "msgtype": "m.text", "body": "edited" });
    alice.send(&room, "m.room.message", edit).await;
    assert!(bundled(&bob, &room, &root).await["m.replace"].is_object());
    alice.redact(&room, &root).await;
    let bundle = bundled(&bob, &room, &root).await;
    assert!(bundle.get("m.replace").is_none(), "{bundle}");
    assert_eq!(bundle["m.thread"]["count"], 1);
    assert_eq!(bundle["m.thread"]["latest_event"]["content"]["body"], "reply");
    assert_eq!(bundle["m.reference"]["chunk"], json!([{ "event_id": reference }]));
    let path = format!("/_matrix/client/v1/rooms/{}/threads", encode(&room));
    let list = alice.get(&path).await.ok();
    assert_eq!(ids(&list["chunk"]), [root]);
    assert_eq!(list["chunk"][0]["content"], json!({}));
    assert_eq!(
        list["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"],
        1
    );
}

async fn threads_begin_at_events_that_relate_to_none(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let said = alice.say(&room, "said").await;
    let reference = alice
        .send(&room, "m.room.message", relates("see", "m.reference", &said))
        .await;
    let in_thread = alice
        .send(&room, "m.room.message", relates("reply", "m.thread", &said))
        .await;
    let rich = json!({ "body": "rich", "m.relates_to": { "m.in_reply_to": { "event_id": said } } });
    let rich = alice.send(&room, "m.room.message", rich).await;
    for (number, root) in [&reference, &in_thread].into_iter().enumerate() {
        let content = relates("no", "m.thread", root);
        alice
            .send_txn(&room, "m.room.message", &format!("no{number}"), content)
            .await
            .refused(400, "M_UNKNOWN");
    }
    alice
        .send(&room, "m.room.message", relates("yes", "m.thread", &rich))
        .await;
}

async fn ignored_users_have_no_part_in_threads(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let root = alice.say(&room, "root").await;
    let (other, of_bob) = (alice.say(&room, "other").await, bob.say(&room, "of bob").await);
    let reply = |body: &str, to: &str| relates(body, "m.thread", to);
    alice.send(&room, "m.room.message", reply("mine", &root)).await;
    bob.send(&room, "m.room.message", reply("his", &root)).await;
    bob.send(&room, "m.room.message", reply("his alone", &other))
        .await;
    alice
        .send(&room, "m.room.message", reply("to him", &of_bob))
        .await;
    let path = format!(
        "/user/{}/account_data/m.ignored_user_list",
        encode(&alice.user_id)
    );
    let ignored = json!({ "ignored_users": { &bob.user_id: {} } });
    alice.put(&path, ignored).await.ok();
    let thread = bundled(&alice, &room, &root).await["m.thread"].clone();
    assert_eq!(
        (&thread["count"], &thread["latest_event"]["content"]["body"]),
        (&json!(1), &json!("mine"))
    );
    assert_eq!(bundled(&bob, &room, &root).await["m.thread"]["count"], 2);
    assert_eq!(bundled(&alice, &room, &other).await, Value::Null);
    assert_eq!(
        bodies(&relations(&alice, &room, &root, "").await["chunk"]),
        ["mine"]
    );
    let path = format!("/_matrix/client/v1/rooms/{}/threads", encode(&room));
    let list = alice.get(&path).await.ok();
    let shown = list["chunk"].as_array().cloned().unwrap_or_default();
    let shown = shown.iter().find(|event| event["event_id"] == of_bob.as_str());
    let shown = shown.expect("a thread that others go on with stays");
    assert_eq!(shown["content"], json!({}), "what the ignored user said is gone");
    assert_eq!(
        shown["unsigned"]["m.relations"]["m.thread"]["count"], 1,
        "{shown}"
    );
}

async fn long_threads_are_read_to_the_end(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let root = alice.say(&room, "root").await;
    let mut sent = Vec::new();
    for number in 0..140 {
        let content = relates(&number.to_string(), "m.thread", &root);
        sent.push(alice.send(&room, "m.room.message", content).await);
        if number % 20 == 0 {
            let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": root, "key": number.to_string() } });
            alice.send(&room, "m.reaction", reaction).await;
        }
    }
    for (dir, limit) in [("b", 7), ("f", 50), ("b", 64), ("f", 128)] {
        let (mut from, mut found) = (String::new(), Vec::new());
        loop {
            let rest = format!("/m.thread?dir={dir}&limit={limit}{from}");
            let page = relations(&alice, &room, &root, &rest).await;
            found.extend(ids(&page["chunk"]));
            match page["next_batch"].as_str() {
                Some(next) => from = format!("&from={}", encode(next)),
                None => break,
            }
            assert!(found.len() < 200, "the thread does not end");
        }
        if dir == "b" {
            found.reverse();
        }
        assert_eq!(found, sent, "{dir} {limit}");
    }
}
