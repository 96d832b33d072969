//! Relations, threads, edits, reactions, bundled aggregations.

use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::federation::{public_room, servers};
use crate::{bodies, events, ids};

scenarios!(
    reactions_and_references,
    the_newest_edit_is_bundled,
    threads_are_counted_and_listed,
    redacted_relations_are_gone,
    a_redacted_root_keeps_its_thread,
    concurrent_redactions_count_once,
    encrypted_edits_are_bundled,
    threads_begin_at_events_that_relate_to_none,
    ignored_users_have_no_part_in_threads,
    recursion_passes_through_what_fits,
    long_threads_are_read_to_the_end
);

fn relates(body: &str, kind: &str, to: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body, "m.relates_to": { "rel_type": kind, "event_id": to } })
}

async fn relations(client: &Client, room: &str, event: &str, rest: &str) -> Value {
    client
        .get(&format!(
            "/_matrix/client/v1/rooms/{}/relations/{}{rest}",
            encode(room),
            encode(event)
        ))
        .await
        .ok()
}

async fn bundled(client: &Client, room: &str, event: &str) -> Value {
    client.event(room, event).await.ok()["unsigned"]["m.relations"].clone()
}

async fn reactions_and_references(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let said = alice.say(&room, "hello").await;
    let reaction =
        |key: &str| json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": said, "key": key } });
    let first = bob.send(&room, "m.reaction", reaction("👍")).await;
    let doubled = bob.send_txn(&room, "m.reaction", "again", reaction("👍")).await;
    assert_eq!(
        (doubled.status, doubled.errcode().as_str()),
        (400, "M_DUPLICATE_ANNOTATION"),
        "{}",
        doubled.text()
    );
    let second = alice.send(&room, "m.reaction", reaction("👍")).await;
    let reference = bob
        .send(&room, "m.room.message", relates("see", "m.reference", &said))
        .await;
    assert_eq!(
        ids(&relations(&alice, &room, &said, "").await["chunk"]),
        [reference.clone(), second.clone(), first.clone()]
    );
    assert_eq!(
        ids(&relations(&alice, &room, &said, "/m.annotation").await["chunk"]),
        [second, first]
    );
    assert_eq!(
        ids(&relations(&alice, &room, &said, "/m.annotation/m.reaction?dir=f&limit=1").await["chunk"]).len(),
        1
    );
    assert!(ids(&relations(&alice, &room, &said, "/m.annotation/m.other").await["chunk"]).is_empty());
    let bundle = bundled(&alice, &room, &said).await;
    assert_eq!(bundle["m.reference"]["chunk"], json!([{ "event_id": reference }]));
    let (mut from, mut found) = (String::new(), 0);
    loop {
        let page = relations(&alice, &room, &said, &format!("?limit=1{from}")).await;
        found += ids(&page["chunk"]).len();
        match page["next_batch"].as_str() {
            Some(next) => from = format!("&from={}", encode(next)),
            None => break,
        }
        assert!(found < 10, "the relations do not end");
    }
    assert_eq!(found, 3);
}

async fn the_newest_edit_is_bundled(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let said = alice.say(&room, "helo").await;
    let edit = |body: &str| {
        let mut content = relates(&format!("* {body}"), "m.replace", &said);
        content["m.new_content"] = json!({ "msgtype": "m.text", "body": body });
        content
    };
    alice.send(&room, "m.room.message", edit("hallo")).await;
    let since = bob.sync("timeout=0").await;
    // The newest is the one with the later time, which the server tells in milliseconds.
    let before = std::time::SystemTime::now();
    while before.elapsed().is_ok_and(|elapsed| elapsed.as_millis() < 2) {
        tokio::task::yield_now().await;
    }
    let newest = alice.send(&room, "m.room.message", edit("hello")).await;
    bob.send(&room, "m.room.message", edit("forged")).await;
    let event = bob.event(&room, &said).await.ok();
    assert_eq!(event["content"]["body"], "helo");
    let replaced = &event["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(
        (
            &replaced["event_id"],
            &replaced["content"]["m.new_content"]["body"]
        ),
        (&json!(newest), &json!("hello"))
    );
    let page = bob.messages(&room, "dir=b&limit=10").await;
    let shown = page["chunk"]
        .as_array()
        .and_then(|list| list.iter().find(|event| event["event_id"] == said.as_str()));
    assert_eq!(
        shown.map(|event| &event["unsigned"]["m.relations"]["m.replace"]["event_id"]),
        Some(&json!(newest))
    );
    let news = bob.sync_since(&since).await;
    assert_eq!(events(&news["rooms"]["join"][&room]["timeline"]).len(), 2);
    alice.redact(&room, &newest).await;
    let bundle = bundled(&bob, &room, &said).await;
    assert_eq!(bundle["m.replace"]["content"]["m.new_content"]["body"], "hallo");
    alice.redact(&room, &said).await;
    assert_eq!(bundled(&bob, &room, &said).await, Value::Null);
}

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

async fn redacted_relations_are_gone(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let root = alice.say(&room, "root").await;
    let mut replies = Vec::new();
    for number in 0..3 {
        replies.push(
            alice
                .send(
                    &room,
                    "m.room.message",
                    relates(&format!("r{number}"), "m.thread", &root),
                )
                .await,
        );
    }
    alice.redact(&room, &replies[2]).await;
    let bundle = bundled(&alice, &room, &root).await;
    assert_eq!(
        (
            &bundle["m.thread"]["count"],
            &bundle["m.thread"]["latest_event"]["content"]["body"]
        ),
        (&json!(2), &json!("r1"))
    );
    alice.redact(&room, &replies[0]).await;
    alice.redact(&room, &replies[0]).await;
    assert_eq!(bundled(&alice, &room, &root).await["m.thread"]["count"], 1);
    assert_eq!(
        bodies(&relations(&alice, &room, &root, "").await["chunk"]),
        ["r1"]
    );
    alice.redact(&room, &replies[1]).await;
    assert_eq!(bundled(&alice, &room, &root).await, Value::Null);
    let list = alice
        .get(&format!("/_matrix/client/v1/rooms/{}/threads", encode(&room)))
        .await
        .ok();
    assert_eq!(list["chunk"], json!([]));
    alice
        .send(&room, "m.room.message", relates("again", "m.thread", &root))
        .await;
    assert_eq!(bundled(&alice, &room, &root).await["m.thread"]["count"], 1);
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

async fn concurrent_redactions_count_once(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let root = alice.say(&room, "root").await;
    let mut replies = Vec::new();
    for number in 0..4 {
        replies.push(
            alice
                .send(
                    &room,
                    "m.room.message",
                    relates(&format!("r{number}"), "m.thread", &root),
                )
                .await,
        );
    }
    let tasks: Vec<_> = [2, 3, 3, 3, 2]
        .into_iter()
        .map(|at: usize| {
            let (client, room, reply) = (
                alice.on(alice.endpoint.clone()),
                room.clone(),
                replies[at].clone(),
            );
            tokio::spawn(async move {
                let path = format!("/rooms/{}/redact/{}/{:p}", encode(&room), encode(&reply), &client);
                client.put(&path, json!({})).await.ok();
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let bundle = bundled(&alice, &room, &root).await;
    assert_eq!(
        (
            &bundle["m.thread"]["count"],
            &bundle["m.thread"]["latest_event"]["content"]["body"]
        ),
        (&json!(2), &json!("r1"))
    );
}

/// What an encrypted event becomes is encrypted with the edit: the server takes the edit for valid.
async fn encrypted_edits_are_bundled(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let sealed = |to: Option<&str>| {
        let mut content =
            json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "s" });
        if let Some(to) = to {
            content["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": to });
        }
        content
    };
    let said = alice.send(&room, "m.room.encrypted", sealed(None)).await;
    let edit = alice.send(&room, "m.room.encrypted", sealed(Some(&said))).await;
    let bundle = bundled(&alice, &room, &said).await;
    assert_eq!(bundle["m.replace"]["event_id"], edit.as_str(), "{bundle}");
    // An edit of an edit is none, and neither is one that says nothing new.
    alice.send(&room, "m.room.encrypted", sealed(Some(&edit))).await;
    assert_eq!(bundled(&alice, &room, &edit).await, Value::Null);
    let plain = alice.say(&room, "plain").await;
    let empty = relates("* \"m.new_content\":{}", "m.replace", &plain);
    alice.send(&room, "m.room.message", empty).await;
    assert_eq!(bundled(&alice, &room, &plain).await, Value::Null);
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

/// Indirect relations are found through events that fit themselves.
async fn recursion_passes_through_what_fits(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let root = alice.say(&room, "root").await;
    let send = async |kind: &str, rel: &str, to: &str| {
        let mut content = relates("x", rel, to);
        content["m.relates_to"]["key"] = json!(to);
        alice.send(&room, kind, content).await
    };
    let reply = send("m.room.message", "m.thread", &root).await;
    let reaction = send("m.reaction", "m.annotation", &reply).await;
    let reference = send("m.room.message", "m.reference", &reply).await;
    let far = send("m.room.message", "m.reference", &reference).await;
    let first = send("m.room.message", "m.reference", &root).await;
    let found = async |rest: &str| ids(&relations(&alice, &room, &root, rest).await["chunk"]);
    assert_eq!(found("").await, [first.clone(), reply.clone()]);
    assert_eq!(
        found("?recurse=true").await,
        [first.clone(), far, reference, reaction, reply.clone()]
    );
    assert_eq!(found("/m.thread?recurse=true").await, [reply]);
    assert_eq!(found("/m.reference?recurse=true").await, [first]);
    let answer = relations(&alice, &room, &root, "?recurse=true").await;
    assert!(
        answer["recursion_depth"].as_u64().is_some_and(|depth| depth >= 3),
        "{answer}"
    );
    // State has nothing bundled with it.
    let topic = alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "t" }))
        .await;
    send("m.room.message", "m.reference", &topic).await;
    assert_eq!(bundled(&alice, &room, &topic).await, Value::Null);
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

/// History of another server is placed from the newest event on: what events say of older ones, in the same stretch or in one
/// that comes later, holds all the same.
#[tokio::test(start_paused = true)]
async fn relations_of_history_that_is_fetched() {
    for between in [0, 150] {
        let network = SimNetwork::new(7);
        let servers = servers(&network, 2);
        let alice = servers[0].register("alice").await;
        let bob = servers[0].register("bob").await;
        let carol = servers[1].register("carol").await;
        let room = public_room(&alice, "10").await;
        bob.join(&room).await;
        let root = alice.say(&room, "root").await;
        let gone = alice.say(&room, "gone").await;
        for number in 0..between {
            alice.say(&room, &format!("{number}")).await;
        }
        let mut replies = Vec::new();
        for body in ["one", "two"] {
            let reply = relates(body, "m.thread", &root);
            replies.push(bob.send(&room, "m.room.message", reply).await);
        }
        let mut edit = relates("edited", "m.replace", &root);
        edit["m.new_content"] = json!({ "msgtype": "m.text", "body": "edited" });
        let edit = alice.send(&room, "m.room.message", edit).await;
        let reaction =
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": root, "key": "+" } });
        let reaction = bob.send(&room, "m.reaction", reaction).await;
        let redaction = alice.redact(&room, &gone).await;
        carol.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
        let mut from = String::new();
        for _ in 0..20 {
            let page = carol.messages(&room, &format!("dir=b&limit=50{from}")).await;
            let Some(end) = page["end"].as_str() else { break };
            from = format!("&from={}", encode(end));
        }
        let bundle = bundled(&carol, &room, &root).await;
        assert_eq!(
            bundle["m.replace"]["event_id"],
            edit.as_str(),
            "{between}: {bundle}"
        );
        let thread = &bundle["m.thread"];
        assert_eq!(
            (&thread["count"], &thread["latest_event"]["event_id"]),
            (&json!(2), &json!(replies[1])),
            "{between}"
        );
        let related = relations(&carol, &room, &root, "").await;
        let expected = [&reaction, &edit, &replies[1], &replies[0]].map(String::clone);
        assert_eq!(ids(&related["chunk"]), expected, "{between}");
        let threads = format!("/_matrix/client/v1/rooms/{room}/threads");
        assert_eq!(ids(&carol.get(&threads).await.ok()["chunk"]), [root], "{between}");
        let gone = carol.event(&room, &gone).await.ok();
        assert_eq!(gone["content"], json!({}), "{between}");
        assert_eq!(
            gone["unsigned"]["redacted_because"]["event_id"],
            redaction.as_str(),
            "{between}"
        );
    }
}
