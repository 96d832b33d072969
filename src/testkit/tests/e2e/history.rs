//! Messages and context.

use hearth_testkit::{TestServer, encode};
use serde_json::{Value, json};

use crate::{bodies, ids};

scenarios!(
    pages_meet_in_both_directions,
    pages_are_filtered,
    messages_by_relation,
    context_surrounds_an_event,
    tokens_of_sync_work_everywhere
);

fn end(page: &Value) -> Option<String> {
    page["end"].as_str().map(encode)
}

async fn pages_meet_in_both_directions(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).messages(23).build().await;
    for limit in [1, 7, 100] {
        let (mut back, mut from) = (Vec::new(), String::new());
        loop {
            let page = bob.messages(&room, &format!("dir=b&limit={limit}{from}")).await;
            assert!(page["start"].is_string());
            back.extend(ids(&page["chunk"]));
            match end(&page) {
                Some(end) => from = format!("&from={end}"),
                None => break,
            }
            assert!(back.len() < 200, "no end of history");
        }
        let mut forth = Vec::new();
        let mut from = String::new();
        loop {
            let page = bob.messages(&room, &format!("dir=f&limit={limit}{from}")).await;
            let chunk = ids(&page["chunk"]);
            forth.extend(chunk.clone());
            match end(&page) {
                Some(end) if !chunk.is_empty() => from = format!("&from={end}"),
                _ => break,
            }
        }
        forth.reverse();
        assert_eq!(back, forth, "limit {limit}");
        let unique: std::collections::BTreeSet<_> = back.iter().collect();
        assert_eq!(unique.len(), back.len());
    }
    let first = bob.messages(&room, "dir=b&limit=5").await;
    let second = bob
        .messages(
            &room,
            &format!("dir=b&limit=5&from={}", end(&first).unwrap_or_default()),
        )
        .await;
    let to = end(&first).unwrap_or_default();
    let bounded = bob.messages(&room, &format!("dir=b&limit=50&to={to}")).await;
    assert_eq!(ids(&bounded["chunk"]), ids(&first["chunk"]));
    assert_eq!(bodies(&second["chunk"]), ["m17", "m16", "m15", "m14", "m13"]);
    // And forward again from where the second page ended.
    let forward = bob
        .messages(
            &room,
            &format!("dir=f&limit=5&from={}", end(&second).unwrap_or_default()),
        )
        .await;
    assert_eq!(bodies(&forward["chunk"]), ["m13", "m14", "m15", "m16", "m17"]);
}

async fn pages_are_filtered(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).messages(3).build().await;
    bob.say(&room, "from bob").await;
    alice
        .send(
            &room,
            "m.room.message",
            json!({ "body": "pic", "url": "mxc://hs1/x" }),
        )
        .await;
    alice
        .send(&room, "org.example.odd", json!({ "body": "odd" }))
        .await;
    for (filter, expected) in [
        (
            json!({ "types": ["m.room.message"] }),
            vec!["pic", "from bob", "m2", "m1", "m0"],
        ),
        (json!({ "types": ["org.*"] }), vec!["odd"]),
        (
            json!({ "types": ["m.room.message"], "not_senders": [bob.user_id] }),
            vec!["pic", "m2", "m1", "m0"],
        ),
        (
            json!({ "senders": [bob.user_id], "not_types": ["m.room.member"] }),
            vec!["from bob"],
        ),
        (json!({ "contains_url": true }), vec!["pic"]),
        (
            json!({ "types": ["m.room.message"], "limit": 2 }),
            vec!["pic", "from bob"],
        ),
        (json!({ "types": [] }), vec![]),
    ] {
        let page = bob
            .messages(
                &room,
                &format!("dir=b&limit=5&filter={}", encode(&filter.to_string())),
            )
            .await;
        if filter.get("limit").is_none() {
            assert_eq!(bodies(&page["chunk"]), expected, "{filter}");
        } else {
            assert!(bodies(&page["chunk"]).len() >= 2, "{filter}");
        }
    }
    let lazy = encode(r#"{"lazy_load_members":true,"types":["m.room.message"]}"#);
    let page = alice
        .messages(&room, &format!("dir=b&limit=3&filter={lazy}"))
        .await;
    let mut members: Vec<_> = page["state"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|event| event["state_key"].clone())
        .collect();
    members.sort_by_key(Value::to_string);
    assert_eq!(members, [json!(alice.user_id), json!(bob.user_id)]);
}

async fn messages_by_relation(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let root = alice.say(&room, "root").await;
    let related = |kind: &str| json!({ "body": "r", "m.relates_to": { "rel_type": kind, "event_id": root } });
    let thread = alice.send(&room, "m.room.message", related("m.thread")).await;
    let reference = alice.send(&room, "m.room.message", related("m.reference")).await;
    let filtered = async |filter: Value| {
        let query = format!("dir=b&limit=50&filter={}", encode(&filter.to_string()));
        let ids = ids(&alice.messages(&room, &query).await["chunk"]);
        ids.into_iter()
            .filter(|id| [&root, &thread, &reference].contains(&id))
            .collect::<Vec<_>>()
    };
    let only = json!({ "org.matrix.msc3874.rel_types": ["m.thread"] });
    assert_eq!(filtered(only).await, std::slice::from_ref(&thread));
    let without = json!({ "not_rel_types": ["m.thread"] });
    assert_eq!(filtered(without).await, [reference, root]);
}

async fn context_surrounds_an_event(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().messages(9).build().await;
    let page = alice.messages(&room, "dir=b&limit=9").await;
    let middle = ids(&page["chunk"])[4].clone();
    let context = alice
        .get(&format!(
            "/rooms/{}/context/{}?limit=4",
            encode(&room),
            encode(&middle)
        ))
        .await
        .ok();
    assert_eq!(context["event"]["content"]["body"], "m4");
    assert_eq!(bodies(&context["events_before"]), ["m3", "m2"]);
    assert_eq!(bodies(&context["events_after"]), ["m5", "m6"]);
    assert!(
        context["state"]
            .as_array()
            .is_some_and(|state| state.iter().any(|event| event["type"] == "m.room.create"))
    );
    let (start, behind) = (
        context["start"].as_str().unwrap_or_default(),
        context["end"].as_str().unwrap_or_default(),
    );
    let older = alice
        .messages(&room, &format!("dir=b&limit=2&from={}", encode(start)))
        .await;
    assert_eq!(bodies(&older["chunk"]), ["m1", "m0"]);
    let newer = alice
        .messages(&room, &format!("dir=f&limit=9&from={}", encode(behind)))
        .await;
    assert_eq!(bodies(&newer["chunk"]), ["m7", "m8"]);
    // Where somebody may come back for what is said next.
    let forward = format!("dir=f&from={}", end(&newer).unwrap_or_default());
    let none = alice.messages(&room, &forward).await;
    assert_eq!((bodies(&none["chunk"]).len(), end(&none)), (0, None));
    alice.say(&room, "m9").await;
    assert_eq!(bodies(&alice.messages(&room, &forward).await["chunk"]), ["m9"]);
    let alone = alice
        .get(&format!(
            "/rooms/{}/context/{}?limit=0",
            encode(&room),
            encode(&middle)
        ))
        .await
        .ok();
    assert!(ids(&alone["events_before"]).is_empty() && ids(&alone["events_after"]).is_empty());
}

async fn tokens_of_sync_work_everywhere(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).messages(3).build().await;
    let root = alice.say(&room, "root").await;
    let reply = |n: usize| json!({ "body": format!("r{n}"), "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    alice.send(&room, "m.room.message", reply(0)).await;
    let token = encode(
        bob.sync("timeout=0").await["next_batch"]
            .as_str()
            .unwrap_or_default(),
    );
    alice.send(&room, "m.room.message", reply(1)).await;
    let back = bob.messages(&room, &format!("dir=b&limit=2&from={token}")).await;
    assert_eq!(bodies(&back["chunk"]), ["r0", "root"]);
    let forth = bob.messages(&room, &format!("dir=f&limit=5&from={token}")).await;
    assert_eq!(bodies(&forth["chunk"]), ["r1"]);
    let relations = format!(
        "/_matrix/client/v1/rooms/{}/relations/{}",
        encode(&room),
        encode(&root)
    );
    let before = bob.get(&format!("{relations}?from={token}")).await.ok();
    assert_eq!(bodies(&before["chunk"]), ["r0"]);
    let after = bob.get(&format!("{relations}?dir=f&from={token}")).await.ok();
    assert_eq!(bodies(&after["chunk"]), ["r1"]);
    bob.get(&format!(
        "/_matrix/client/v1/rooms/{}/threads?from={token}",
        encode(&room)
    ))
    .await
    .ok();
    bob.get(&format!("/rooms/{}/members?at={token}", encode(&room)))
        .await
        .ok();
}
