//! Relations, threads, edits, reactions, bundled aggregations.

mod threads;

use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::federation::{public_room, servers};
use crate::{bodies, events, ids};

scenarios!(
    reactions_and_references,
    the_newest_edit_is_bundled,
    redacted_relations_are_gone,
    concurrent_redactions_count_once,
    encrypted_edits_are_bundled,
    recursion_passes_through_what_fits
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
