//! Sliding sync (MSC4186), on both wires.

use hearth_testkit::{Client, TestServer, encode};
use serde_json::{Value, json};

use crate::{bodies, ids, state_event};

pub(crate) const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
pub(crate) const V4: &str = "/_matrix/client/v4/sync";

scenarios!(
    the_unstable_wire,
    the_merged_wire,
    windows_grow_and_rooms_rise,
    timelines_grow,
    required_state_grows,
    lazy_members,
    filters,
    invitations_knocks_and_leaving,
    unwanted_invitations,
    blocked_invitations_come_when_they_are_taken_again,
    kicked_rooms_stay,
    subscriptions,
    the_last_position_may_be_asked_again,
    unknown_positions,
    messages_to_the_device_come_once,
    key_counts_are_always_there,
    two_connections,
    account_data_receipts_and_typing,
    direct_chats,
    waiting_ends_with_news,
    wrong_requests
);

/// Who goes on from the last position after a restart in order misses nothing and gets nothing twice, whether the
/// last answer was confirmed or not.
async fn a_position_survives_a_restart(shards: u16) {
    let mut server = TestServer::memory(shards).await;
    let (mut alice, mut bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let invited = alice.room().build().await;
    alice.invite(&invited, &bob).await;
    let mut body = list(json!([[0, 9]]), json!([["m.room.topic", ""]]), 5);
    body["extensions"] = json!({ "account_data": { "enabled": true }, "e2ee": { "enabled": true } });
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    assert_eq!(rooms(&pos).len(), 2);
    for round in 0..3 {
        if round == 1 {
            pos = slide(&bob, &pos, body.clone()).await;
            assert_eq!(pos["rooms"], json!({}));
        }
        server = server.restart().await;
        (alice, bob) = (alice.on(server.endpoint()), bob.on(server.endpoint()));
        let idle = slide(&bob, &pos, body.clone()).await;
        assert_eq!(idle["rooms"], json!({}), "round {round}");
        assert!(idle["extensions"].get("account_data").is_none(), "round {round}");
        alice.say(&room, "news").await;
        let news = slide(&bob, &idle, body.clone()).await;
        assert_eq!(rooms(&news), [room.as_str()], "round {round}");
        assert_eq!(
            bodies(&news["rooms"][&room]["timeline"]),
            ["news"],
            "round {round}"
        );
        assert_eq!(news["rooms"][&room].get("initial"), None, "round {round}");
        pos = news;
    }
    // An older position is unknown also then.
    let old = slide(&bob, &pos, body.clone()).await;
    let new = slide(&bob, &old, body.clone()).await;
    slide(&bob, &new, body.clone()).await;
    server = server.restart().await;
    let path = format!(
        "{UNSTABLE}?pos={}",
        encode(old["pos"].as_str().unwrap_or_default())
    );
    bob.on(server.endpoint())
        .post(&path, body)
        .await
        .refused(400, "M_UNKNOWN_POS");
}

#[tokio::test]
async fn a_position_survives_a_restart_on_1_shard() {
    a_position_survives_a_restart(1).await;
}

#[tokio::test]
async fn a_position_survives_a_restart_on_16_shards() {
    a_position_survives_a_restart(16).await;
}

/// A request on the unstable wire; `pos` is an answer or null.
pub(crate) async fn slide(client: &Client, pos: &Value, body: Value) -> Value {
    let query = match pos["pos"].as_str() {
        Some(pos) => format!("?timeout=0&pos={}", encode(pos)),
        None => String::new(),
    };
    client.post(&format!("{UNSTABLE}{query}"), body).await.ok()
}

/// All rooms with the own membership, from the start or as soon as there is something new.
pub(crate) async fn slide_all(client: &Client, pos: Option<&str>) -> Value {
    let query = match pos {
        Some(pos) => format!("?timeout=30000&pos={}", encode(pos)),
        None => String::new(),
    };
    let body = list(json!([[0, 99]]), json!([["m.room.member", "$ME"]]), 2);
    client.post(&format!("{UNSTABLE}{query}"), body).await.ok()
}

async fn slide_v4(client: &Client, pos: &Value, mut body: Value) -> Value {
    if let Some(pos) = pos["pos"].as_str() {
        body["pos"] = json!(pos);
    }
    client.post(V4, body).await.ok()
}

/// A body with one list.
fn list(ranges: Value, required_state: Value, limit: u64) -> Value {
    json!({ "lists": { "all": {
        "ranges": ranges, "required_state": required_state, "timeline_limit": limit,
    } } })
}

/// The rooms of an answer.
fn rooms(answer: &Value) -> Vec<&str> {
    let rooms = answer["rooms"].as_object().into_iter().flatten();
    rooms.map(|(id, _)| id.as_str()).collect()
}

fn list_of(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

pub(crate) fn kinds(events: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list_of(events).iter().map(|event| text(&event["type"])).collect()
}

/// Takes out of an answer what is another each time.
pub(crate) fn without_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for name in [
                "pos",
                "event_id",
                "origin_server_ts",
                "bump_stamp",
                "prev_batch",
                "unsigned",
                "next_batch",
                "ts",
            ] {
                if let Some(value) = map.get_mut(name) {
                    *value = json!("…");
                }
            }
            map.values_mut().for_each(without_times);
        }
        Value::Array(list) => list.iter_mut().for_each(without_times),
        _ => {}
    }
}

/// Users of whom the first has a display name.
async fn alice_and_bob(server: &TestServer) -> (Client, Client) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let path = format!("/profile/{}/displayname", encode(&alice.user_id));
    alice.put(&path, json!({ "displayname": "alice" })).await.ok();
    (alice, bob)
}

async fn the_unstable_wire(server: &TestServer) {
    let (alice, bob) = alice_and_bob(server).await;
    let room = alice.room().set("name", json!("Den")).with(&bob).build().await;
    alice.say(&room, "one").await;
    alice.say(&room, "two").await;
    let required = json!([
        ["m.room.name", ""],
        ["m.room.member", "$LAZY"],
        ["m.room.member", "$ME"]
    ]);
    let body = list(json!([[0, 19]]), required, 1);
    let mut first = slide(&bob, &Value::Null, body.clone()).await;
    let pos = first.clone();
    without_times(&mut first);
    let message = |body: &str| {
        json!({
            "type": "m.room.message", "sender": alice.user_id, "event_id": "…", "origin_server_ts": "…",
            "unsigned": "…", "content": { "msgtype": "m.text", "body": body },
        })
    };
    let member = |client: &Client| {
        json!({
            "type": "m.room.member", "sender": client.user_id, "state_key": client.user_id, "event_id": "…",
            "origin_server_ts": "…", "unsigned": "…", "content": { "membership": "join" },
        })
    };
    let state = list_of(&first["rooms"][&room]["required_state"]);
    assert_eq!(state.len(), 3, "{state:?}");
    assert_eq!(
        state_event(&state, "m.room.member", &bob.user_id),
        Some(&member(&bob))
    );
    assert!(state_event(&state, "m.room.member", &alice.user_id).is_some());
    assert!(state_event(&state, "m.room.name", "").is_some());
    first["rooms"][&room]["required_state"] = json!([]);
    assert_eq!(
        first,
        json!({
            "pos": "…", "lists": { "all": { "count": 1 } }, "extensions": {},
            "rooms": { &room: {
                "name": "Den", "initial": true, "is_dm": false, "limited": true, "num_live": 0,
                "required_state": [], "timeline": [message("two")], "prev_batch": "…", "bump_stamp": "…",
                "joined_count": 2, "invited_count": 0, "notification_count": 2, "highlight_count": 0,
            } },
        })
    );
    let idle = slide(&bob, &pos, body.clone()).await;
    assert_eq!(idle["rooms"], json!({}));
    alice.say(&room, "three").await;
    let mut news = slide(&bob, &idle, body.clone()).await;
    let pos = news.clone();
    without_times(&mut news);
    assert_eq!(
        news["rooms"],
        json!({ &room: {
            "timeline": [message("three")], "num_live": 1, "prev_batch": "…", "bump_stamp": "…",
            "notification_count": 3, "highlight_count": 0,
        } })
    );
    // prev_batch and pos are tokens of /messages.
    for token in [&idle["pos"], &pos["rooms"][&room]["prev_batch"]] {
        let from = encode(token.as_str().unwrap_or_default());
        let page = bob.messages(&room, &format!("dir=b&limit=2&from={from}")).await;
        assert_eq!(bodies(&page["chunk"]), ["two", "one"]);
    }
    alice.set_state(&room, "m.room.name", "", json!({})).await;
    let news = slide(&bob, &pos, body).await;
    let room = &news["rooms"][&room];
    assert_eq!((&room["name"], room.get("name").is_some()), (&Value::Null, true));
    assert_eq!(
        room["heroes"],
        json!([{ "user_id": alice.user_id, "displayname": "alice" }])
    );
}

async fn the_merged_wire(server: &TestServer) {
    let (alice, bob) = alice_and_bob(server).await;
    let room = alice.room().with(&bob).build().await;
    alice.say(&room, "one").await;
    let body = json!({ "conn_id": "main", "lists": { "top": {
        "range": [0, 19], "timeline_limit": 1,
        "required_state": { "include": [{}], "exclude": [{ "type": "m.room.create" }], "lazy_members": true },
    } } });
    let mut first = slide_v4(&bob, &Value::Null, body.clone()).await;
    let pos = first.clone();
    without_times(&mut first);
    let seen = &mut first["rooms"][&room];
    let state = list_of(&seen["required_state"]);
    assert!(state_event(&state, "m.room.power_levels", "").is_some());
    assert!(state_event(&state, "m.room.create", "").is_none());
    assert!(state_event(&state, "m.room.member", &alice.user_id).is_some());
    assert!(
        state_event(&state, "m.room.member", &bob.user_id).is_none(),
        "{state:?}"
    );
    seen["required_state"] = json!([]);
    assert_eq!(bodies(&seen["timeline"]), ["one"]);
    seen["timeline"] = json!([]);
    assert_eq!(
        *seen,
        json!({
            "membership": "join", "lists": ["top"], "initial": true, "limited": true, "num_live": 0,
            "heroes": [{ "user_id": alice.user_id, "displayname": "alice" }],
            "required_state": [], "timeline": [], "prev_batch": "…", "bump_stamp": "…",
            "joined_count": 2, "invited_count": 0,
        })
    );
    let invited = alice.room().set("name", json!("Cave")).build().await;
    alice.invite(&invited, &bob).await;
    let mut news = slide_v4(&bob, &pos, body.clone()).await;
    let pos = news.clone();
    without_times(&mut news);
    let cave = &news["rooms"][&invited];
    assert_eq!(
        (&cave["membership"], &cave["lists"]),
        (&json!("invite"), &json!(["top"]))
    );
    assert!(kinds(&cave["stripped_state"]).contains(&"m.room.name".to_owned()));
    assert!(cave.get("name").is_none() && cave.get("timeline").is_none());
    bob.leave(&invited).await;
    let news = slide_v4(&bob, &pos, body).await;
    let cave = &news["rooms"][&invited];
    assert_eq!(cave["membership"], "leave");
    assert_eq!(
        cave["stripped_state"],
        json!([{
            "type": "m.room.member", "state_key": bob.user_id, "sender": bob.user_id,
            "content": { "membership": "leave" },
        }])
    );
}

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

async fn timelines_grow(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let mut sent = Vec::new();
    for number in 0..6 {
        sent.push(alice.say(&room, &number.to_string()).await);
    }
    let body = |limit| list(json!([[0, 9]]), json!([]), limit);
    let mut pos = slide(&alice, &Value::Null, body(1)).await;
    assert_eq!(ids(&pos["rooms"][&room]["timeline"]), sent[5..]);
    sent.push(alice.say(&room, "6").await);
    pos = slide(&alice, &pos, body(1)).await;
    let seen = &pos["rooms"][&room];
    assert_eq!(ids(&seen["timeline"]), sent[6..]);
    assert_eq!(seen.get("limited"), None);
    // Two are known already.
    pos = slide(&alice, &pos, body(2)).await;
    assert_eq!(pos["rooms"], json!({}));
    pos = slide(&alice, &pos, body(4)).await;
    let seen = &pos["rooms"][&room];
    assert_eq!(ids(&seen["timeline"]), sent[3..]);
    assert_eq!(
        (&seen["unstable_expanded_timeline"], &seen["num_live"]),
        (&json!(true), &json!(0))
    );
    assert_eq!((&seen["limited"], seen.get("initial")), (&json!(true), None));
    pos = slide(&alice, &pos, body(1)).await;
    pos = slide(&alice, &pos, body(4)).await;
    assert_eq!(pos["rooms"], json!({}), "they were sent before");
    // A gap begins anew.
    for number in 7..10 {
        sent.push(alice.say(&room, &number.to_string()).await);
    }
    pos = slide(&alice, &pos, body(1)).await;
    assert_eq!(ids(&pos["rooms"][&room]["timeline"]), sent[9..]);
    assert_eq!(pos["rooms"][&room]["limited"], true);
    pos = slide(&alice, &pos, body(2)).await;
    assert_eq!(ids(&pos["rooms"][&room]["timeline"]), sent[8..]);
}

async fn required_state_grows(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice
        .room()
        .set("name", json!("Den"))
        .set("topic", json!("t"))
        .build()
        .await;
    let body = |required| list(json!([[0, 9]]), required, 1);
    let mut pos = slide(&alice, &Value::Null, body(json!([["m.room.name", ""]]))).await;
    assert_eq!(kinds(&pos["rooms"][&room]["required_state"]), ["m.room.name"]);
    let more = json!([["m.room.name", ""], ["m.room.topic", ""]]);
    pos = slide(&alice, &pos, body(more.clone())).await;
    assert_eq!(kinds(&pos["rooms"][&room]["required_state"]), ["m.room.topic"]);
    assert_eq!(pos["rooms"][&room].get("initial"), None);
    alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "u" }))
        .await;
    alice.set_state(&room, "org.example.s", "", json!({})).await;
    pos = slide(&alice, &pos, body(more)).await;
    assert_eq!(kinds(&pos["rooms"][&room]["required_state"]), ["m.room.topic"]);
    assert_eq!(kinds(&pos["rooms"][&room]["timeline"]), ["org.example.s"]);
    pos = slide(&alice, &pos, body(json!([["*", "*"]]))).await;
    let state = kinds(&pos["rooms"][&room]["required_state"]);
    assert!(state.contains(&"m.room.create".to_owned()), "{state:?}");
    assert!(!state.contains(&"m.room.topic".to_owned()), "{state:?}");
}

async fn lazy_members(server: &TestServer) {
    let (alice, bob, carol) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("carol").await,
    );
    let room = alice.room().with(&bob).with(&carol).build().await;
    alice.say(&room, "one").await;
    let body = list(json!([[0, 9]]), json!([["m.room.member", "$LAZY"]]), 1);
    let members = |answer: &Value| -> Vec<String> {
        let state = list_of(&answer["rooms"][&room]["required_state"]);
        state
            .iter()
            .map(|event| event["state_key"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    assert_eq!(members(&pos), std::slice::from_ref(&alice.user_id));
    alice.say(&room, "two").await;
    pos = slide(&bob, &pos, body.clone()).await;
    assert!(members(&pos).is_empty(), "she is known");
    carol.say(&room, "three").await;
    pos = slide(&bob, &pos, body.clone()).await;
    assert_eq!(members(&pos), std::slice::from_ref(&carol.user_id));
    // A change of a member who said nothing is told where there is no gap.
    bob.leave(&room).await;
    bob.join(&room).await;
    pos = slide(&bob, &pos, body.clone()).await;
    assert_eq!(pos["rooms"][&room]["initial"], true);
    let path = format!("/profile/{}/displayname", encode(&alice.user_id));
    alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
    pos = slide(&bob, &pos, body).await;
    assert_eq!(members(&pos), std::slice::from_ref(&alice.user_id));
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

async fn invitations_knocks_and_leaving(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .room()
        .preset("private_chat")
        .set("name", json!("Den"))
        .state("m.room.join_rules", "", json!({ "join_rule": "knock" }))
        .build()
        .await;
    let body = list(
        json!([[0, 9]]),
        json!([["m.room.member", "$ME"], ["m.room.name", ""]]),
        5,
    );
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    assert_eq!(pos["rooms"], json!({}));
    bob.post(&format!("/knock/{}", encode(&room)), json!({}))
        .await
        .ok();
    pos = slide(&bob, &pos, body.clone()).await;
    assert!(pos["rooms"][&room]["invite_state"].is_array(), "{pos}");
    alice.invite(&room, &bob).await;
    pos = slide(&bob, &pos, body.clone()).await;
    let invite = &pos["rooms"][&room];
    let state = list_of(&invite["invite_state"]);
    let own = state_event(&state, "m.room.member", &bob.user_id);
    assert_eq!(
        own.map(|own| &own["content"]["membership"]),
        Some(&json!("invite"))
    );
    assert_eq!(invite["initial"], true);
    assert!(invite.get("timeline").is_none() && invite.get("required_state").is_none());
    bob.join(&room).await;
    pos = slide(&bob, &pos, body.clone()).await;
    let joined = &pos["rooms"][&room];
    assert_eq!(
        (&joined["initial"], &joined["name"]),
        (&json!(true), &json!("Den"))
    );
    assert!(joined.get("invite_state").is_none());
    alice.say(&room, "before").await;
    bob.leave(&room).await;
    alice.say(&room, "after").await;
    pos = slide(&bob, &pos, body.clone()).await;
    let left = &pos["rooms"][&room];
    assert_eq!(bodies(&left["timeline"]).join(""), "before", "{left}");
    let state = list_of(&left["required_state"]);
    let own = state_event(&state, "m.room.member", &bob.user_id);
    assert_eq!(
        own.map(|own| &own["content"]["membership"]),
        Some(&json!("leave"))
    );
    pos = slide(&bob, &pos, body.clone()).await;
    assert_eq!(pos["rooms"], json!({}));
    let fresh = slide(&bob, &Value::Null, body.clone()).await;
    assert_eq!(fresh["rooms"], json!({}), "who left knows");
    alice.invite(&room, &bob).await;
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    assert!(pos["rooms"][&room]["invite_state"].is_array());
    bob.leave(&room).await;
    pos = slide(&bob, &pos, body).await;
    let state = list_of(&pos["rooms"][&room]["required_state"]);
    let own = state_event(&state, "m.room.member", &bob.user_id);
    assert_eq!(
        own.map(|own| &own["content"]["membership"]),
        Some(&json!("leave")),
        "{pos}"
    );
}

/// Invitations that the user is not to be told of are in no list, and cannot be asked for.
async fn unwanted_invitations(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let data = format!("/user/{}/account_data", encode(&bob.user_id));
    let path = format!("{data}/org.matrix.msc4155.invite_permission_config");
    bob.put(&path, json!({ "ignored_users": [alice.user_id] }))
        .await
        .ok();
    let room = alice.room().build().await;
    alice.invite(&room, &bob).await;
    let mut body = list(json!([[0, 9]]), json!([]), 1);
    body["room_subscriptions"] = json!({ &room: { "timeline_limit": 1 } });
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    assert_eq!(
        (&pos["rooms"], &pos["lists"]["all"]["count"]),
        (&json!({}), &json!(0))
    );
    bob.put(&path, json!({})).await.ok();
    pos = slide(&bob, &pos, body.clone()).await;
    assert!(pos["rooms"][&room]["invite_state"].is_array(), "{pos}");
    let ignored = json!({ "ignored_users": { &alice.user_id: {} } });
    bob.put(&format!("{data}/m.ignored_user_list"), ignored)
        .await
        .ok();
    let other = alice.room().build().await;
    alice.invite(&other, &bob).await;
    pos = slide(&bob, &pos, body).await;
    assert_eq!(
        (&pos["rooms"], &pos["lists"]["all"]["count"]),
        (&json!({}), &json!(0))
    );
}

/// Invite blocking (MSC4380), under its name of today and the one that it had before.
async fn blocked_invitations_come_when_they_are_taken_again(server: &TestServer) {
    let alice = server.register("alice").await;
    for (number, kind) in [
        "m.invite_permission_config",
        "org.matrix.msc4380.invite_permission_config",
    ]
    .iter()
    .enumerate()
    {
        let bob = server.register(&format!("bob{number}")).await;
        let path = format!("/user/{}/account_data/{kind}", encode(&bob.user_id));
        let room = alice.room().build().await;
        alice.invite(&room, &bob).await;
        bob.put(&path, json!({ "default_action": "block" })).await.ok();
        let body = list(json!([[0, 9]]), json!([]), 1);
        let pos = slide(&bob, &Value::Null, body.clone()).await;
        let shown = (&pos["rooms"], &pos["lists"]["all"]["count"]);
        assert_eq!(shown, (&json!({}), &json!(0)), "{kind}");
        bob.put(&path, json!({ "default_action": "allow" })).await.ok();
        let pos = slide(&bob, &pos, body).await;
        assert!(pos["rooms"][&room]["invite_state"].is_array(), "{kind}: {pos}");
    }
}

async fn kicked_rooms_stay(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (kicked, banned) = (alice.room().with(&bob).build().await, alice.room().build().await);
    alice.say(&kicked, "seen").await;
    alice
        .act(&kicked, "kick", json!({ "user_id": bob.user_id }))
        .await
        .ok();
    alice.say(&kicked, "unseen").await;
    alice
        .act(&banned, "ban", json!({ "user_id": bob.user_id }))
        .await
        .ok();
    let body = list(json!([[0, 9]]), json!([["m.room.member", "$ME"]]), 2);
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    assert_eq!(rooms(&pos), [kicked.as_str()], "never joined is never listed");
    let room = &pos["rooms"][&kicked];
    assert_eq!(bodies(&room["timeline"]), ["seen"]);
    assert_eq!(kinds(&room["timeline"]), ["m.room.message", "m.room.member"]);
    assert_eq!(room["initial"], true);
    bob.act(&kicked, "forget", json!({})).await.ok();
    pos = slide(&bob, &pos, body).await;
    assert_eq!(pos["lists"]["all"]["count"], 0);
    assert_eq!(pos["rooms"], json!({}));
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

async fn the_last_position_may_be_asked_again(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let body = list(json!([[0, 9]]), json!([["m.room.name", ""]]), 5);
    let first = slide(&bob, &Value::Null, body.clone()).await;
    alice.say(&room, "one").await;
    let lost = slide(&bob, &first, body.clone()).await;
    assert_eq!(bodies(&lost["rooms"][&room]["timeline"]), ["one"]);
    alice.say(&room, "two").await;
    let again = slide(&bob, &first, body.clone()).await;
    assert_eq!(bodies(&again["rooms"][&room]["timeline"]), ["one", "two"]);
    let next = slide(&bob, &again, body.clone()).await;
    assert_eq!(next["rooms"], json!({}));
    // With another body.
    let more = list(json!([[0, 9]]), json!([["m.room.create", ""]]), 5);
    let other = slide(&bob, &next, more).await;
    assert_eq!(kinds(&other["rooms"][&room]["required_state"]), ["m.room.create"]);
    let again = slide(&bob, &next, body.clone()).await;
    assert_eq!(again["rooms"], json!({}));
    let refused = bob
        .post(
            &format!(
                "{UNSTABLE}?pos={}",
                encode(first["pos"].as_str().unwrap_or_default())
            ),
            body,
        )
        .await;
    refused.refused(400, "M_UNKNOWN_POS");
}

async fn unknown_positions(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let body = list(json!([[0, 9]]), json!([]), 1);
    let first = slide(&alice, &Value::Null, body.clone()).await;
    let pos = first["pos"].as_str().unwrap_or_default().to_owned();
    let second = server.login("alice", "SECOND").await;
    for (who, pos) in [
        (&alice, "0"),
        (&alice, "p1_"),
        (&alice, "p1_AAAA"),
        (&alice, "s1_BwECAwQABQKsAg"),
        (&bob, &pos),
        (&second, &pos),
    ] {
        let path = format!("{UNSTABLE}?pos={}", encode(pos));
        who.post(&path, body.clone()).await.refused(400, "M_UNKNOWN_POS");
        let mut body = json!({ "lists": {} });
        body["pos"] = json!(pos);
        who.post(V4, body).await.refused(400, "M_UNKNOWN_POS");
    }
    // Another connection of the device neither.
    let mut other = body.clone();
    other["conn_id"] = json!("other");
    let path = format!("{UNSTABLE}?pos={}", encode(&pos));
    alice.post(&path, other).await.refused(400, "M_UNKNOWN_POS");
    // Beginning anew ends the connection before.
    slide(&alice, &Value::Null, body.clone()).await;
    alice.post(&path, body).await.refused(400, "M_UNKNOWN_POS");
}

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

async fn two_connections(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let body = |conn: &str| {
        let mut body = list(json!([[0, 9]]), json!([]), 3);
        body["conn_id"] = json!(conn);
        body
    };
    let mut one = slide(&alice, &Value::Null, body("one")).await;
    let mut two = slide(&alice, &Value::Null, body("two")).await;
    alice.say(&room, "a").await;
    one = slide(&alice, &one, body("one")).await;
    alice.say(&room, "b").await;
    two = slide(&alice, &two, body("two")).await;
    assert_eq!(bodies(&one["rooms"][&room]["timeline"]), ["a"]);
    assert_eq!(bodies(&two["rooms"][&room]["timeline"]), ["a", "b"]);
    one = slide(&alice, &one, body("one")).await;
    assert_eq!(bodies(&one["rooms"][&room]["timeline"]), ["b"]);
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

async fn direct_chats(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let body = list(json!([[0, 9]]), json!([]), 1);
    let mut pos = slide(&alice, &Value::Null, body.clone()).await;
    assert_eq!(pos["rooms"][&room]["is_dm"], false);
    let path = format!("/user/{}/account_data/m.direct", encode(&alice.user_id));
    alice.put(&path, json!({ &bob.user_id: [&room] })).await.ok();
    pos = slide(&alice, &pos, body.clone()).await;
    let counts = |is_dm: bool| json!({ "is_dm": is_dm, "notification_count": 0, "highlight_count": 0 });
    assert_eq!(pos["rooms"][&room], counts(true));
    alice.put(&path, json!({})).await.ok();
    pos = slide(&alice, &pos, body).await;
    assert_eq!(pos["rooms"][&room], counts(false));
}

async fn waiting_ends_with_news(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let body = list(json!([[0, 9]]), json!([]), 1);
    let first = slide(&bob, &Value::Null, body.clone()).await;
    let path = format!(
        "{UNSTABLE}?timeout=60000&pos={}",
        encode(first["pos"].as_str().unwrap_or_default())
    );
    let (waited, _) = tokio::join!(bob.post(&path, body.clone()), alice.say(&room, "news"));
    let waited = waited.ok();
    assert_eq!(bodies(&waited["rooms"][&room]["timeline"]), ["news"]);
    // A second request on a connection ends the first.
    let path = format!(
        "{UNSTABLE}?timeout=60000&pos={}",
        encode(waited["pos"].as_str().unwrap_or_default())
    );
    let (ended, answered) = tokio::join!(bob.post(&path, body.clone()), slide(&bob, &waited, body));
    assert_eq!(ended.ok()["rooms"], json!({}));
    assert_eq!(answered["rooms"], json!({}));
}

fn unstable_subscriptions(count: usize) -> serde_json::Map<String, Value> {
    let room = |number| {
        (
            format!("!r{number}:hs1"),
            json!({ "timeline_limit": 1, "required_state": [] }),
        )
    };
    (0..count).map(room).collect()
}

async fn wrong_requests(server: &TestServer) {
    let alice = server.register("alice").await;
    let many: serde_json::Map<String, Value> = (0..101)
        .map(|number| {
            let list = json!({ "timeline_limit": 1, "required_state": {} });
            (format!("l{number}"), list)
        })
        .collect();
    let subscriptions: serde_json::Map<String, Value> = (0..101)
        .map(|number| {
            let room = json!({ "timeline_limit": 1, "required_state": {} });
            (format!("!r{number}:hs1"), room)
        })
        .collect();
    for (body, code) in [
        (json!({ "lists": many }), "M_INVALID_PARAM"),
        (json!({ "room_subscriptions": subscriptions }), "M_INVALID_PARAM"),
        (
            json!({ "lists": { "a b": { "timeline_limit": 1, "required_state": {} } } }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "lists": { "a": { "range": [5, 1], "timeline_limit": 1, "required_state": {} } } }),
            "M_INVALID_PARAM",
        ),
        (json!({ "set_presence": "asleep" }), "M_INVALID_PARAM"),
        (json!({ "lists": { "a": {} } }), "M_BAD_JSON"),
        (json!({ "lists": [] }), "M_BAD_JSON"),
        (json!({ "conn_id": "x".repeat(300) }), "M_INVALID_PARAM"),
    ] {
        alice.post(V4, body).await.refused(400, code);
    }
    // The wire before it was merged has fewer bounds: clients call their lists what they like, and some add to their
    // subscriptions as the user scrolls.
    for (body, status) in [
        (json!({ "lists": { "a b": { "ranges": [[0, 1]] } } }), 200),
        (
            json!({ "lists": { "x".repeat(300): { "ranges": [[0, 1]] } } }),
            400,
        ),
        (json!({ "room_subscriptions": unstable_subscriptions(101) }), 200),
        (
            json!({ "room_subscriptions": unstable_subscriptions(1_001) }),
            400,
        ),
    ] {
        let answer = alice.post(UNSTABLE, body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let versions = alice.get("/_matrix/client/versions").await.ok();
    assert_eq!(
        versions["unstable_features"]["org.matrix.simplified_msc3575"],
        true
    );
}
