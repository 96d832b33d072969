//! What is told of a room: timeline, state, members, marks.

use hearth_testkit::{Client, TestServer, encode};
use serde_json::{Value, json};

use super::{V4, kinds, list, list_of, slide, without_times};
use crate::{bodies, ids, state_event};

scenarios!(
    the_unstable_wire,
    the_merged_wire,
    timelines_grow,
    required_state_grows,
    lazy_members,
    direct_chats,
    a_redaction_takes_name_and_picture_away,
);

async fn slide_v4(client: &Client, pos: &Value, mut body: Value) -> Value {
    if let Some(pos) = pos["pos"].as_str() {
        body["pos"] = json!(pos);
    }
    client.post(V4, body).await.ok()
}

/// Users of whom the first has a display name.
async fn alice_and_bob(server: &TestServer) -> (Client, Client) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let path = format!("/profile/{}/displayname", encode(&bob.user_id));
    bob.put(&path, json!({ "displayname": "" })).await.ok();
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

async fn a_redaction_takes_name_and_picture_away(server: &TestServer) {
    let (alice, bob) = alice_and_bob(server).await;
    let room = alice.room().with(&bob).build().await;
    let name = alice
        .set_state(&room, "m.room.name", "", json!({ "name": "Rude" }))
        .await;
    let picture = json!({ "url": "mxc://hs1/rude" });
    let picture = alice.set_state(&room, "m.room.avatar", "", picture).await;
    let body = list(json!([[0, 9]]), json!([]), 1);
    let mut pos = slide(&bob, &Value::Null, body.clone()).await;
    let seen = &pos["rooms"][&room];
    assert_eq!(
        (&seen["name"], &seen["avatar"]),
        (&json!("Rude"), &json!("mxc://hs1/rude"))
    );
    assert!(seen.get("heroes").is_none());
    alice.redact(&room, &name).await;
    pos = slide(&bob, &pos, body.clone()).await;
    let seen = &pos["rooms"][&room];
    assert_eq!(
        (&seen["name"], seen.get("name").is_some()),
        (&Value::Null, true),
        "{seen}"
    );
    assert_eq!(
        seen["heroes"],
        json!([{ "user_id": alice.user_id, "displayname": "alice" }])
    );
    assert!(seen.get("avatar").is_none(), "{seen}");
    // Also where the redaction itself is in a gap.
    alice.redact(&room, &picture).await;
    alice.say(&room, "sorry").await;
    pos = slide(&bob, &pos, body.clone()).await;
    let seen = &pos["rooms"][&room];
    assert_eq!(
        (&seen["avatar"], seen.get("avatar").is_some()),
        (&Value::Null, true),
        "{seen}"
    );
    assert!(seen.get("name").is_none(), "{seen}");
    // It is told once.
    alice.say(&room, "that was all").await;
    pos = slide(&bob, &pos, body).await;
    let seen = &pos["rooms"][&room];
    assert!(
        seen.get("avatar").is_none() && seen.get("heroes").is_none(),
        "{seen}"
    );
}
