//! Which rooms are told of: windows on lists, filters, subscriptions.

use hearth_testkit::{TestServer, encode};
use serde_json::{Value, json};

use super::{kinds, list, rooms, slide};
use crate::bodies;

scenarios!(windows_grow_and_rooms_rise, filters, subscriptions,);

async fn windows_grow_and_rooms_rise(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(alice.room().with(&bob).build().await);
    }
    // From the first request on, the order is that in which the server gets the events.
    slide(&bob, &Value::Null, json!({})).await;
    for room in &all {
        alice.say(room, "hello").await;
    }
    let window = |last: u64| list(json!([[0, last]]), json!([]), 1);
    let sorted = |rooms: &[String]| {
        let mut rooms = rooms.to_vec();
        rooms.sort();
        rooms
    };
    let mut pos = slide(&bob, &Value::Null, window(1)).await;
    assert_eq!(rooms(&pos), sorted(&all[4..]));
    assert_eq!(pos["lists"]["all"]["count"], 6);
    pos = slide(&bob, &pos, window(3)).await;
    assert_eq!(rooms(&pos), sorted(&all[2..4]), "only what was not sent before");
    alice.say(&all[0], "news").await;
    alice.say(&all[5], "news").await;
    pos = slide(&bob, &pos, window(1)).await;
    assert_eq!(rooms(&pos), sorted(&[all[0].clone(), all[5].clone()]));
    assert_eq!(pos["rooms"][&all[0]]["initial"], true);
    assert_eq!(pos["rooms"][&all[0]]["num_live"], 1);
    assert_eq!(pos["rooms"][&all[5]].get("initial"), None);
    // A room outside of the window, with news, is told of when it comes into it.
    alice.say(&all[4], "news").await;
    alice.say(&all[0], "more").await;
    alice.say(&all[5], "more").await;
    pos = slide(&bob, &pos, window(1)).await;
    assert_eq!(rooms(&pos), sorted(&[all[0].clone(), all[5].clone()]));
    pos = slide(&bob, &pos, window(19)).await;
    assert_eq!(rooms(&pos), sorted(&[all[1].clone(), all[4].clone()]));
    assert_eq!(bodies(&pos["rooms"][&all[4]]["timeline"]), ["news"]);
    assert_eq!(pos["rooms"][&all[4]].get("initial"), None);
    // Windows in the middle, and several of them.
    let middle = list(json!([[0, 0], [5, 9]]), json!([]), 1);
    let fresh = slide(&bob, &Value::Null, middle).await;
    assert_eq!(rooms(&fresh), sorted(&[all[1].clone(), all[5].clone()]));
}

async fn filters(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let plain = alice.room().set("name", json!("Plain")).build().await;
    let secret = alice
        .room()
        .state(
            "m.room.encryption",
            "",
            json!({ "algorithm": "m.megolm.v1.aes-sha2" }),
        )
        .build()
        .await;
    let space = alice
        .create_room(json!({ "creation_content": { "type": "m.space" } }))
        .await;
    alice
        .set_state(&space, "m.space.child", &plain, json!({ "via": ["hs1"] }))
        .await;
    let invited = bob.room().build().await;
    bob.invite(&invited, &alice).await;
    let data = format!("/user/{}", encode(&alice.user_id));
    let tag = format!("{data}/rooms/{}/tags/m.favourite", encode(&secret));
    alice.put(&tag, json!({})).await.ok();
    let direct = format!("{data}/account_data/m.direct");
    alice.put(&direct, json!({ &bob.user_id: [&plain] })).await.ok();
    let mut name_of = std::collections::BTreeMap::new();
    for (room, name) in [
        (&plain, "plain"),
        (&secret, "secret"),
        (&space, "space"),
        (&invited, "invited"),
    ] {
        name_of.insert(room.as_str(), name);
    }
    for (filter, expected) in [
        (json!({}), "invited plain secret space"),
        (json!({ "is_dm": true }), "plain"),
        (json!({ "is_dm": false }), "invited secret space"),
        (json!({ "is_encrypted": true }), "secret"),
        (json!({ "is_encrypted": false }), "invited plain space"),
        (json!({ "is_invite": true }), "invited"),
        (json!({ "is_invite": false }), "plain secret space"),
        (json!({ "room_types": ["m.space"] }), "space"),
        (json!({ "room_types": [null] }), "invited plain secret"),
        (json!({ "not_room_types": ["m.space"] }), "invited plain secret"),
        (
            json!({ "room_types": ["m.space"], "not_room_types": ["m.space"] }),
            "",
        ),
        (json!({ "tags": ["m.favourite"] }), "secret"),
        (json!({ "not_tags": ["m.favourite"] }), "invited plain space"),
        (json!({ "spaces": [&space] }), "plain"),
        (json!({ "spaces": ["!unknown:hs1"] }), ""),
        (json!({ "room_name_like": "lai" }), "plain"),
    ] {
        let body = json!({ "lists": { "all": {
            "ranges": [[0, 99]], "required_state": [], "timeline_limit": 0, "filters": filter,
        } } });
        let answer = slide(&alice, &Value::Null, body).await;
        let mut found: Vec<&str> = rooms(&answer).into_iter().map(|room| name_of[room]).collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), expected, "{filter}");
        assert_eq!(answer["lists"]["all"]["count"], found.len());
    }
    // Lists follow what changes.
    let body = json!({ "lists": {
        "tagged": { "ranges": [[0, 9]], "required_state": [], "timeline_limit": 0, "filters": { "tags": ["m.favourite"] } },
        "direct": { "ranges": [[0, 9]], "required_state": [], "timeline_limit": 0, "filters": { "is_dm": true } },
        "space": { "ranges": [[0, 9]], "required_state": [], "timeline_limit": 0, "filters": { "spaces": [&space] } },
    } });
    let counts = |answer: &Value| {
        let count = |list: &str| answer["lists"][list]["count"].as_u64().unwrap_or(99);
        (count("tagged"), count("direct"), count("space"))
    };
    let mut pos = slide(&alice, &Value::Null, body.clone()).await;
    assert_eq!(counts(&pos), (1, 1, 1));
    alice.delete(&tag).await.ok();
    alice
        .put(&direct, json!({ &bob.user_id: [&plain, &secret] }))
        .await
        .ok();
    alice
        .set_state(&space, "m.space.child", &secret, json!({ "via": ["hs1"] }))
        .await;
    pos = slide(&alice, &pos, body.clone()).await;
    assert_eq!(counts(&pos), (0, 2, 2));
    alice.set_state(&space, "m.space.child", &plain, json!({})).await;
    pos = slide(&alice, &pos, body).await;
    assert_eq!(counts(&pos), (0, 2, 1));
}

async fn subscriptions(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (old, new) = (alice.room().build().await, alice.room().build().await);
    let foreign = bob.room().build().await;
    slide(&alice, &Value::Null, json!({})).await;
    for body in ["one", "two", "three"] {
        alice.say(&old, body).await;
    }
    alice.say(&new, "top").await;
    let mut body = list(json!([[0, 0]]), json!([]), 1);
    body["room_subscriptions"] = json!({});
    for room in [&old, &foreign, &"!unknown:hs1".to_owned()] {
        body["room_subscriptions"][room] =
            json!({ "timeline_limit": 2, "required_state": [["m.room.create", ""]] });
    }
    let mut pos = slide(&alice, &Value::Null, body.clone()).await;
    let mut expected = [old.as_str(), new.as_str()];
    expected.sort_unstable();
    assert_eq!(rooms(&pos), expected);
    assert_eq!(bodies(&pos["rooms"][&old]["timeline"]), ["two", "three"]);
    assert_eq!(kinds(&pos["rooms"][&old]["required_state"]), ["m.room.create"]);
    // It is in the list now too: the greater limit counts.
    alice.say(&old, "four").await;
    pos = slide(&alice, &pos, body.clone()).await;
    assert_eq!(bodies(&pos["rooms"][&old]["timeline"]), ["four"]);
    alice.say(&new, "top again").await;
    alice.say(&old, "five").await;
    alice.say(&new, "top again").await;
    body["room_subscriptions"] = json!({});
    pos = slide(&alice, &pos, body.clone()).await;
    assert_eq!(rooms(&pos), [new.as_str()], "no longer subscribed to");
    body["room_subscriptions"][&old] = json!({ "timeline_limit": 20, "required_state": [] });
    pos = slide(&alice, &pos, body).await;
    let seen = bodies(&pos["rooms"][&old]["timeline"]);
    assert_eq!(seen, ["one", "two", "three", "four", "five"]);
    assert_eq!(
        pos["rooms"][&old]["num_live"], 0,
        "it came before the last answer"
    );
}
