//! Sliding sync as MSC4186 was merged: state that is gone, configurations that come together, rooms from outside.

use std::time::Duration;

use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use super::{UNSTABLE, V4, kinds, list_of, room_to_knock_at, without_times};
use crate::federation::{public_room, sees, servers, until};
use crate::{bodies, state_event};

scenarios!(
    members_of_the_merged_wire,
    a_rule_that_leaves_members_out_beside_one_that_needs_them,
    a_knock_and_what_becomes_of_it,
    who_names_a_room,
    who_has_left_sees_the_room_as_it_was,
);

/// A connection with one list of all rooms.
struct Following<'a> {
    client: &'a Client,
    name: &'a str,
    rule: Value,
    pos: Value,
}

impl<'a> Following<'a> {
    async fn begin(client: &'a Client, name: &'a str, rule: Value) -> Self {
        let pos = Value::Null;
        let mut begun = Self {
            client,
            name,
            rule,
            pos,
        };
        begun.go_on().await;
        begun
    }

    async fn go_on(&mut self) -> Value {
        let body = json!({ "conn_id": self.name, "pos": self.pos, "lists": { "all": {
            "timeline_limit": 20, "required_state": self.rule,
        } } });
        let answer = self.client.post(V4, body).await.ok();
        self.pos = answer["pos"].clone();
        answer
    }

    /// The state that a room's news have.
    async fn state(&mut self, room: &str) -> Vec<Value> {
        let answer = self.go_on().await;
        list_of(&answer["rooms"][room]["required_state"])
    }
}

/// Two servers that did not hear of each other agree on a state that lacks what one of them had: its clients are told
/// what is gone.
#[tokio::test(start_paused = true)]
async fn state_that_is_gone_leaves_a_stub() {
    const GONE: &str = "org.example.gone";
    let network = SimNetwork::new(17);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let carol = servers[1].register("carol").await;
    let room = public_room(&alice, "11").await;
    let levels = |bob_has: u64| json!({ "users": { &alice.user_id: 100, &bob.user_id: bob_has } });
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    let made = alice
        .set_state(&room, "m.room.power_levels", "", levels(50))
        .await;
    until("hs2 has the power levels", async || {
        sees(&bob, &room, &made).await
    })
    .await;

    let everything = json!({ "include": [{}] });
    let gone = json!({ "type": GONE });
    let mut whole = Following::begin(&bob, "whole", everything.clone()).await;
    let mut lazy = Following::begin(&bob, "lazy", json!({ "lazy_members": true })).await;
    let mut without = Following::begin(&bob, "without", json!({ "include": [{}], "exclude": [gone] })).await;
    let mut other = Following::begin(&bob, "other", json!({ "include": [{ "type": "m.room.topic" }] })).await;
    let old_body = |pos: &Value| {
        let query = pos["pos"]
            .as_str()
            .map_or(String::new(), |pos| format!("?pos={}", encode(pos)));
        let list = json!({ "ranges": [[0, 9]], "timeline_limit": 20, "required_state": [["*", "*"]] });
        (
            format!("{UNSTABLE}{query}"),
            json!({ "conn_id": "old", "lists": { "all": list } }),
        )
    };
    let (path, body) = old_body(&Value::Null);
    let old = bob.post(&path, body).await.ok();

    network.partition("hs1", "hs2");
    bob.set_state(&room, GONE, "key", json!({ "v": 1 })).await;
    carol.post(&format!("/join/{room}"), json!({})).await.ok();
    let seen = whole.state(&room).await;
    assert_eq!(
        state_event(&seen, GONE, "key").expect("the state")["content"],
        json!({ "v": 1 })
    );
    assert!(state_event(&seen, "m.room.member", &carol.user_id).is_some());
    for following in [&mut lazy, &mut without] {
        let seen = following.state(&room).await;
        assert!(state_event(&seen, "m.room.member", &carol.user_id).is_some());
        assert!(state_event(&seen, GONE, "key").is_none());
    }
    assert!(other.state(&room).await.is_empty());

    alice.set_state(&room, "m.room.power_levels", "", levels(0)).await;
    alice
        .set_state(&room, "m.room.join_rules", "", json!({ "join_rule": "invite" }))
        .await;
    network.heal("hs1", "hs2");
    for _ in 0..20 {
        let last = alice.say(&room, "after").await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        if sees(&bob, &room, &last).await.is_some() {
            break;
        }
    }
    bob.state(&room, GONE, "key").await.refused(404, "M_NOT_FOUND");

    let stub = json!({ "type": GONE, "state_key": "key" });
    let member = json!({ "type": "m.room.member", "state_key": carol.user_id });
    for (following, expected) in [
        (&mut whole, vec![&stub, &member]),
        (&mut lazy, vec![&member]),
        (&mut without, vec![&member]),
        (&mut other, vec![]),
    ] {
        let state = following.state(&room).await;
        let mut stubs: Vec<&Value> = state
            .iter()
            .filter(|event| event.get("content").is_none())
            .collect();
        stubs.sort_by_key(|stub| stub["type"] != GONE);
        assert_eq!(stubs, expected, "{}", following.name);
        assert!(following.state(&room).await.is_empty(), "told once");
    }
    // The other wire has no way to say it.
    let (path, body) = old_body(&old);
    let answer = bob.post(&path, body).await.ok();
    let state = list_of(&answer["rooms"][&room]["required_state"]);
    assert!(
        !state.is_empty() && state.iter().all(|event| event["content"].is_object()),
        "{state:?}"
    );
    // Who begins anew hears nothing of it.
    let body = json!({ "conn_id": "new", "lists": { "all": { "timeline_limit": 1, "required_state": everything } } });
    let fresh = bob.post(V4, body).await.ok();
    let state = list_of(&fresh["rooms"][&room]["required_state"]);
    assert!(state_event(&state, "m.room.create", "").is_some());
    assert!(state_event(&state, GONE, "key").is_none());
    assert!(state_event(&state, "m.room.member", &carol.user_id).is_none());
}

/// Rules of required state as only the merged wire has them.
async fn members_of_the_merged_wire(server: &TestServer) {
    let (alice, bob, carol) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("carol").await,
    );
    let room = alice.room().with(&bob).with(&carol).build().await;
    alice.say(&room, "hello").await;
    let ask = async |rule: Value| {
        let body = json!({ "lists": { "all": { "timeline_limit": 1, "required_state": rule } } });
        let answer = bob.post(V4, body).await.ok();
        let state = list_of(&answer["rooms"][&room]["required_state"]);
        let members = state.iter().filter(|event| event["type"] == "m.room.member");
        let mut members: Vec<String> = members
            .map(|event| event["state_key"].as_str().unwrap_or_default().to_owned())
            .collect();
        members.sort();
        (members.join(" "), state.len() - members.len())
    };
    let (a, b, c) = (&alice.user_id, &bob.user_id, &carol.user_id);
    let member = |user: &str| json!({ "type": "m.room.member", "state_key": user });
    let (everybody, others) = ask(json!({ "include": [{}] })).await;
    assert_eq!(everybody, format!("{a} {b} {c}"));
    assert!(others > 3);
    for (rule, expected) in [
        (json!({}), (String::new(), 0)),
        (
            json!({ "include": [{}], "lazy_members": true }),
            (a.clone(), others),
        ),
        // Members that come as they are needed are not left out.
        (
            json!({ "include": [{}], "exclude": [member(a)], "lazy_members": true }),
            (a.clone(), others),
        ),
        (
            json!({ "include": [{}, member(b)], "lazy_members": true }),
            (format!("{a} {b}"), others),
        ),
        (
            json!({ "include": [{}], "exclude": [member(a), { "type": "m.room.create" }] }),
            (format!("{b} {c}"), others - 1),
        ),
        (json!({ "include": [{ "state_key": c }] }), (c.clone(), 0)),
        (
            json!({ "include": [{ "type": "m.room.member" }] }),
            (everybody.clone(), 0),
        ),
        (
            json!({ "include": [{ "state_key": "" }] }),
            (String::new(), others),
        ),
        (
            json!({ "include": [{}], "exclude": [{ "state_key": "" }] }),
            (everybody.clone(), 0),
        ),
        (json!({ "include": [{}], "exclude": [{}] }), (String::new(), 0)),
        (json!({ "lazy_members": true }), (a.clone(), 0)),
    ] {
        assert_eq!(ask(rule.clone()).await, expected, "{rule}");
    }
}

async fn a_rule_that_leaves_members_out_beside_one_that_needs_them(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    alice.say(&room, "hello").await;
    for exclude in [
        json!({ "type": "m.room.member" }),
        json!({ "state_key": alice.user_id }),
    ] {
        let body = json!({
            "lists": { "all": {
                "timeline_limit": 1, "required_state": { "include": [{}], "exclude": [exclude] },
            } },
            "room_subscriptions": { &room: {
                "timeline_limit": 1, "required_state": { "lazy_members": true },
            } },
        });
        let answer = bob.post(V4, body).await.ok();
        let state = list_of(&answer["rooms"][&room]["required_state"]);
        assert!(state_event(&state, "m.room.create", "").is_some());
        let sender = state_event(&state, "m.room.member", &alice.user_id);
        assert!(sender.is_some(), "{exclude}: the timeline shows her: {state:?}");
    }
}

async fn a_knock_and_what_becomes_of_it(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room_to_knock_at(&alice).await;
    let mut following = Following::begin(&bob, "main", json!({ "include": [{}] })).await;
    bob.post(&format!("/knock/{}", encode(&room)), json!({}))
        .await
        .ok();
    let mut news = following.go_on().await;
    let stripped = news["rooms"][&room]["stripped_state"]
        .as_array()
        .cloned()
        .expect("a list");
    assert!(kinds(&json!(stripped)).contains(&"m.room.name".to_owned()));
    let own = state_event(&stripped, "m.room.member", &bob.user_id).expect("the knock");
    assert_eq!(own["content"]["membership"], "knock");
    news["rooms"][&room]["stripped_state"] = json!("…");
    without_times(&mut news);
    assert_eq!(
        news["rooms"][&room],
        json!({ "membership": "knock", "lists": ["all"], "stripped_state": "…", "bump_stamp": "…" })
    );
    alice
        .act(&room, "kick", json!({ "user_id": bob.user_id }))
        .await
        .ok();
    let news = following.go_on().await;
    let refused = &news["rooms"][&room];
    assert_eq!(refused["membership"], "leave");
    assert_eq!(
        refused["stripped_state"],
        json!([{
            "type": "m.room.member", "state_key": bob.user_id, "sender": alice.user_id,
            "content": { "membership": "leave" },
        }])
    );
    assert!(refused.get("timeline").is_none() && refused.get("required_state").is_none());
}

/// Members stand in for a name where there is none: those who are there, those who are invited, and those who left.
async fn who_names_a_room(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let path = format!("/profile/{}/displayname", encode(&bob.user_id));
    bob.put(&path, json!({ "displayname": "Bob" })).await.ok();
    let room = alice.room().preset("private_chat").build().await;
    let mut following = Following::begin(&alice, "main", json!({})).await;
    alice.invite(&room, &bob).await;
    let hero = |news: &Value| news["rooms"][&room]["heroes"].clone();
    let expected = json!([{ "user_id": bob.user_id, "displayname": "Bob" }]);
    let news = following.go_on().await;
    assert_eq!(hero(&news), expected, "invited");
    assert_eq!(news["rooms"][&room]["invited_count"], 1);
    bob.join(&room).await;
    assert_eq!(hero(&following.go_on().await), expected, "joined");
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "Den" }))
        .await;
    let news = following.go_on().await;
    assert_eq!(
        (&news["rooms"][&room]["name"], hero(&news)),
        (&json!("Den"), Value::Null)
    );
    bob.leave(&room).await;
    let news = following.go_on().await;
    assert_eq!(hero(&news), Value::Null, "it has a name");
    alice.set_state(&room, "m.room.name", "", json!({})).await;
    let news = following.go_on().await;
    assert_eq!(hero(&news)[0]["user_id"], json!(bob.user_id), "he left");
    assert!(news["rooms"][&room].get("name").is_some_and(Value::is_null));
    assert_eq!(bodies(&news["rooms"][&room]["timeline"]).concat(), "");
}

/// Nothing of a room shows what came after the user was thrown out, not even which filters it passes.
async fn who_has_left_sees_the_room_as_it_was(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (carol, dave) = (server.register("carol").await, server.register("dave").await);
    let room = alice.room().with(&bob).with(&carol).build().await;
    alice
        .act(&room, "kick", json!({ "user_id": bob.user_id }))
        .await
        .ok();
    carol.leave(&room).await;
    dave.join(&room).await;
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "Plot" }))
        .await;
    let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    alice.set_state(&room, "m.room.encryption", "", encryption).await;

    let mut following = Following::begin(&bob, "main", json!({})).await;
    following.pos = Value::Null;
    let news = following.go_on().await;
    let news = &news["rooms"][&room];
    assert_eq!(
        news["heroes"],
        json!([{ "user_id": alice.user_id, "displayname": "alice" }, { "user_id": carol.user_id, "displayname": "carol" }])
    );
    assert_eq!(
        (&news["joined_count"], &news["invited_count"]),
        (&json!(2), &json!(0))
    );
    assert!(news.get("name").is_none(), "{news}");
    for (filter, expected) in [
        (json!({ "is_encrypted": false }), 1),
        (json!({ "is_encrypted": true }), 0),
        (json!({ "room_name_like": "plot" }), 0),
        (json!({ "room_types": [null] }), 1),
    ] {
        let list = json!({ "timeline_limit": 1, "required_state": {}, "filters": filter });
        let answer = bob
            .post(V4, json!({ "conn_id": "filters", "lists": { "all": list } }))
            .await
            .ok();
        assert_eq!(answer["lists"]["all"]["count"], expected, "{filter}");
    }
}
