//! Whole answers, word for word, on both wires.

use std::time::Duration;

use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use super::{UNSTABLE, V4, kinds, list_of, without_times};
use crate::{bodies, state_event};

scenarios!(
    a_rooms_life_on_the_unstable_wire,
    a_rooms_life_on_the_merged_wire,
    extensions_on_both_wires,
    lifting_events,
);

/// A wire of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wire {
    Unstable,
    Merged,
}

const WIRES: [Wire; 2] = [Wire::Unstable, Wire::Merged];

impl Wire {
    /// Asks for the first ten rooms, with their names.
    async fn ask(self, client: &Client, pos: &Value, limit: u64, extensions: &Value) -> Value {
        let mut body = json!({ "extensions": extensions });
        let pos = pos["pos"].as_str();
        match self {
            Self::Unstable => {
                body["lists"] = json!({ "all": {
                    "ranges": [[0, 9]], "timeline_limit": limit, "required_state": [["m.room.name", ""]],
                } });
                let query = pos.map_or(String::new(), |pos| format!("?timeout=0&pos={}", encode(pos)));
                client.post(&format!("{UNSTABLE}{query}"), body).await.ok()
            }
            Self::Merged => {
                body["lists"] = json!({ "all": {
                    "range": [0, 9], "timeline_limit": limit,
                    "required_state": { "include": [{ "type": "m.room.name", "state_key": "" }] },
                } });
                body["pos"] = json!(pos);
                client.post(V4, body).await.ok()
            }
        }
    }

    /// What a room's news hold on this wire: what both have, and what it alone has.
    fn room(self, both: Value, unstable: Value, merged: Value) -> Value {
        let mut room = both;
        let more = match self {
            Self::Unstable => unstable,
            Self::Merged => merged,
        };
        for (name, value) in more.as_object().into_iter().flatten() {
            room[name] = value.clone();
        }
        room
    }
}

/// The news of a room, without what is another each time; of its events just types and bodies.
fn news_of(answer: &Value, room: &str) -> Value {
    let mut news = answer["rooms"][room].clone();
    for list in ["timeline", "required_state", "invite_state", "stripped_state"] {
        if news.get(list).is_some() {
            let bodies = bodies(&news[list]).join(" ");
            news[list] = json!([kinds(&news[list]).join(" "), bodies]);
        }
    }
    without_times(&mut news);
    news
}

async fn a_rooms_life(server: &TestServer, wire: Wire) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().set("name", json!("Den")).build().await;
    let none = json!({});
    let mut pos = wire.ask(&bob, &Value::Null, 1, &none).await;
    assert_eq!(pos["lists"], json!({ "all": { "count": 0 } }));

    alice.invite(&room, &bob).await;
    pos = wire.ask(&bob, &pos, 1, &none).await;
    assert_eq!(pos["lists"], json!({ "all": { "count": 1 } }));
    let stripped = pos["rooms"][&room].clone();
    let stripped = stripped.get("invite_state").or(stripped.get("stripped_state"));
    let stripped = stripped
        .and_then(Value::as_array)
        .cloned()
        .expect("stripped state");
    let own = state_event(&stripped, "m.room.member", &bob.user_id);
    assert_eq!(own.expect("the invitation")["content"]["membership"], "invite");
    let mut seen = news_of(&pos, &room);
    for list in ["invite_state", "stripped_state"] {
        if let Some(list) = seen.get_mut(list) {
            *list = json!([]);
        }
    }
    assert_eq!(
        seen,
        wire.room(
            json!({ "bump_stamp": "…" }),
            json!({ "initial": true, "is_dm": false, "invite_state": [] }),
            json!({ "membership": "invite", "lists": ["all"], "stripped_state": [] }),
        )
    );

    bob.join(&room).await;
    pos = wire.ask(&bob, &pos, 1, &none).await;
    let counts = |count: u64| json!({ "notification_count": count, "highlight_count": 0 });
    let joined = json!({ "membership": "join", "lists": ["all"] });
    let mut first = counts(0);
    first["is_dm"] = json!(false);
    assert_eq!(
        news_of(&pos, &room),
        wire.room(
            json!({
                "name": "Den", "initial": true, "limited": true, "num_live": 1, "joined_count": 2, "invited_count": 0,
                "required_state": ["m.room.name", ""], "timeline": ["m.room.member", ""], "prev_batch": "…",
                "bump_stamp": "…",
            }),
            first,
            joined.clone(),
        )
    );

    for body in ["one", "two", "three"] {
        alice.say(&room, body).await;
    }
    pos = wire.ask(&bob, &pos, 1, &none).await;
    assert_eq!(
        news_of(&pos, &room),
        wire.room(
            json!({
                "limited": true, "num_live": 1, "timeline": ["m.room.message", "three"], "prev_batch": "…",
                "bump_stamp": "…",
            }),
            counts(3),
            joined.clone(),
        )
    );

    pos = wire.ask(&bob, &pos, 2, &none).await;
    let (mut unstable, mut merged) = (counts(3), joined.clone());
    unstable["unstable_expanded_timeline"] = json!(true);
    merged["expanded_timeline"] = json!(true);
    assert_eq!(
        news_of(&pos, &room),
        wire.room(
            json!({
                "limited": true, "num_live": 0, "timeline": ["m.room.message m.room.message", "two three"],
                "prev_batch": "…",
            }),
            unstable,
            merged,
        )
    );

    // The name goes, so that Alice names the room.
    alice.set_state(&room, "m.room.name", "", json!({})).await;
    pos = wire.ask(&bob, &pos, 2, &none).await;
    assert_eq!(
        news_of(&pos, &room),
        wire.room(
            json!({
                "name": null, "heroes": [{ "user_id": alice.user_id, "displayname": "alice" }], "num_live": 1,
                "required_state": ["m.room.name", ""], "timeline": ["m.room.name", ""], "prev_batch": "…",
            }),
            counts(3),
            joined.clone(),
        )
    );
    let avatar = json!({ "url": "mxc://hs1/picture" });
    alice.set_state(&room, "m.room.avatar", "", avatar).await;
    pos = wire.ask(&bob, &pos, 2, &none).await;
    assert_eq!(
        news_of(&pos, &room),
        wire.room(
            json!({
                "avatar": "mxc://hs1/picture", "num_live": 1, "timeline": ["m.room.avatar", ""], "prev_batch": "…",
            }),
            counts(3),
            joined.clone(),
        )
    );

    // Reading is news where counts are told, and none where they are not.
    let last = alice.say(&room, "four").await;
    pos = wire.ask(&bob, &pos, 2, &none).await;
    let path = format!("/rooms/{}/receipt/m.read/{}", encode(&room), encode(&last));
    bob.post(&path, json!({})).await.ok();
    pos = wire.ask(&bob, &pos, 2, &none).await;
    match wire {
        Wire::Unstable => assert_eq!(pos["rooms"], json!({ &room: counts(0) })),
        Wire::Merged => assert_eq!(pos["rooms"], json!({})),
    }

    let path = format!("/user/{}/account_data/m.direct", encode(&bob.user_id));
    bob.put(&path, json!({ &alice.user_id: [&room] })).await.ok();
    pos = wire.ask(&bob, &pos, 2, &none).await;
    assert_eq!(
        news_of(&pos, &room),
        wire.room(json!({ "is_dm": true }), counts(0), joined)
    );

    alice
        .act(&room, "kick", json!({ "user_id": bob.user_id }))
        .await
        .ok();
    alice.say(&room, "unseen").await;
    pos = wire.ask(&bob, &pos, 2, &none).await;
    assert_eq!(
        news_of(&pos, &room),
        wire.room(
            json!({
                "num_live": 1, "timeline": ["m.room.member", ""], "prev_batch": "…", "bump_stamp": "…",
                "heroes": [{ "user_id": alice.user_id, "displayname": "alice" }], "joined_count": 1, "invited_count": 0,
            }),
            json!({}),
            json!({ "membership": "leave", "lists": ["all"] }),
        )
    );
    alice
        .act(&room, "ban", json!({ "user_id": bob.user_id }))
        .await
        .ok();
    pos = wire.ask(&bob, &pos, 2, &none).await;
    assert_eq!(
        kinds(&pos["rooms"][&room]["timeline"]),
        ["m.room.member"],
        "{pos}"
    );
    let membership = match wire {
        Wire::Unstable => Value::Null,
        Wire::Merged => json!("ban"),
    };
    assert_eq!(pos["rooms"][&room]["membership"], membership);
    pos = wire.ask(&bob, &pos, 2, &none).await;
    assert_eq!((&pos["rooms"], &pos["extensions"]), (&none, &none));
}

async fn a_rooms_life_on_the_unstable_wire(server: &TestServer) {
    a_rooms_life(server, Wire::Unstable).await;
}

async fn a_rooms_life_on_the_merged_wire(server: &TestServer) {
    a_rooms_life(server, Wire::Merged).await;
}

async fn extensions_on_both_wires(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let root = alice.say(&room, "root").await;
    let on = json!({ "enabled": true });
    let all = json!({
        "to_device": on, "e2ee": on, "account_data": on, "receipts": on, "typing": on,
        "io.element.msc4308.thread_subscriptions": on, "org.example.unknown": on,
    });
    let mut begun = Vec::new();
    for wire in WIRES {
        // The two wires share a connection's name, so each has its device.
        let device = server.login("bob", &format!("{wire:?}")).await;
        let mut first = wire.ask(&device, &Value::Null, 1, &all).await;
        begun.push((wire, device, first.clone()));
        without_times(&mut first);
        assert_eq!(
            first["extensions"]["to_device"],
            json!({ "next_batch": "…", "events": [] })
        );
        assert_eq!(
            first["extensions"]["e2ee"],
            json!({
                "device_one_time_keys_count": { "signed_curve25519": 0 }, "device_unused_fallback_key_types": [],
            })
        );
        let names: Vec<_> = first["extensions"]
            .as_object()
            .expect("extensions")
            .keys()
            .collect();
        assert_eq!(names, ["account_data", "e2ee", "to_device"]);
    }

    let data = format!("/user/{}", encode(&bob.user_id));
    let place = format!("/rooms/{}", encode(&room));
    bob.put(&format!("{data}/account_data/org.example.g"), json!({ "v": 1 }))
        .await
        .ok();
    bob.put(
        &format!("{data}{place}/account_data/org.example.r"),
        json!({ "v": 2 }),
    )
    .await
    .ok();
    let read = format!("{place}/receipt/m.read/{}", encode(&root));
    alice.post(&read, json!({ "thread_id": "main" })).await.ok();
    let typing = format!("{place}/typing/{}", encode(&alice.user_id));
    alice
        .put(&typing, json!({ "typing": true, "timeout": 60_000 }))
        .await
        .ok();
    let subscription = format!(
        "/_matrix/client/unstable/io.element.msc4306{place}/thread/{}/subscription",
        encode(&root)
    );
    bob.put(&subscription, json!({})).await.ok();
    let messages = json!({ "messages": { &bob.user_id: { "*": { "v": 3 } } } });
    alice.put("/sendToDevice/org.example.t/1", messages).await.ok();
    let id = &alice.device_id;
    let keys = json!({ "device_keys": {
        "user_id": alice.user_id, "device_id": id, "algorithms": [], "keys": {}, "signatures": {},
    } });
    alice.post("/keys/upload", keys).await.ok();
    for (wire, device, first) in begun {
        let mut news = wire.ask(&device, &first, 1, &all).await;
        without_times(&mut news);
        // The first subscription to a thread puts push rules in force.
        let global = news["extensions"]["account_data"]["global"].as_array_mut();
        let global = global.expect("global data");
        let rules = global
            .iter()
            .position(|event| event["type"] == "m.push_rules")
            .expect("push rules");
        global.remove(rules);
        let stamp = news["extensions"]["io.element.msc4308.thread_subscriptions"]["subscribed"][&room][&root]
            ["bump_stamp"]
            .clone();
        assert_eq!(
            news["extensions"],
            json!({
                "to_device": { "next_batch": "…", "events": [
                    { "type": "org.example.t", "sender": alice.user_id, "content": { "v": 3 } },
                ] },
                "e2ee": {
                    "device_lists": { "changed": [alice.user_id], "left": [] },
                    "device_one_time_keys_count": { "signed_curve25519": 0 },
                    "device_unused_fallback_key_types": [],
                },
                "account_data": {
                    "global": [{ "type": "org.example.g", "content": { "v": 1 } }],
                    "rooms": { &room: [{ "type": "org.example.r", "content": { "v": 2 } }] },
                },
                "receipts": { "rooms": { &room: { "type": "m.receipt", "content": {
                    &root: { "m.read": { &alice.user_id: { "ts": "…", "thread_id": "main" } } },
                } } } },
                "typing": { "rooms": { &room: {
                    "type": "m.typing", "content": { "user_ids": [alice.user_id] },
                } } },
                "io.element.msc4308.thread_subscriptions": { "subscribed": { &room: {
                    &root: { "automatic": false, "bump_stamp": stamp },
                } } },
            }),
            "{wire:?}"
        );
    }
}

/// Only some types of events lift a room; others leave its stamp what it was.
async fn lifting_events(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    alice.say(&room, "lifts").await;
    let none = json!({});
    for wire in WIRES {
        let mut pos = wire.ask(&alice, &Value::Null, 1, &none).await;
        let stamp = pos["rooms"][&room]["bump_stamp"].as_u64().expect("a stamp");
        for number in 0..70 {
            alice
                .set_state(&room, "m.room.topic", "", json!({ "topic": number.to_string() }))
                .await;
            pos = wire.ask(&alice, &pos, 1, &none).await;
            let news = &pos["rooms"][&room];
            assert_eq!(kinds(&news["timeline"]), ["m.room.topic"]);
            assert_eq!(news.get("bump_stamp"), None, "it did not change");
        }
        alice.say(&room, "lifts again").await;
        pos = wire.ask(&alice, &pos, 1, &none).await;
        assert!(pos["rooms"][&room]["bump_stamp"].as_u64() >= Some(stamp));
    }
}

/// An invitation to a room of another server comes to nothing: this server was never in the room, and knows just the
/// user's membership.
#[tokio::test(start_paused = true)]
async fn an_invitation_from_afar_that_is_declined() {
    let network = SimNetwork::new(31);
    let servers: Vec<TestServer> = (1..=2)
        .map(|number| TestServer::simulated(&format!("hs{number}"), 4, number, &network))
        .collect();
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let none = json!({});
    for wire in WIRES {
        let room = alice.room().preset("private_chat").build().await;
        let mut pos = wire.ask(&bob, &Value::Null, 1, &none).await;
        alice.invite(&room, &bob).await;
        for _ in 0..600 {
            pos = wire.ask(&bob, &pos, 1, &none).await;
            if pos["rooms"].get(&room).is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(pos["rooms"].get(&room).is_some(), "{wire:?}: never invited");
        bob.leave(&room).await;
        pos = wire.ask(&bob, &pos, 1, &none).await;
        let news = &pos["rooms"][&room];
        let own = json!({
            "type": "m.room.member", "state_key": bob.user_id, "sender": bob.user_id,
            "content": { "membership": "leave" },
        });
        match wire {
            // Clients of this wire take a room without a member event for one that the user is in.
            Wire::Unstable => {
                let state = list_of(&news["required_state"]);
                let mut found = state_event(&state, "m.room.member", &bob.user_id).cloned();
                let found = found.as_mut().and_then(Value::as_object_mut).expect("an event");
                assert!(found.remove("event_id").is_some() && found.remove("origin_server_ts").is_some());
                assert_eq!(json!(found), own);
            }
            Wire::Merged => {
                assert_eq!(news["membership"], "leave");
                assert_eq!(news["stripped_state"], json!([own]));
            }
        }
        assert!(wire.ask(&bob, &pos, 1, &none).await["rooms"].get(&room).is_none());
    }
}
