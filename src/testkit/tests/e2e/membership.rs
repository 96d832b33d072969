//! Coming, going and being asked.

use hearth_testkit::{Client, TestServer, encode};
use serde_json::{Value, json};

use crate::sliding::UNSTABLE;
use crate::{events, state_event};

scenarios!(
    invites_are_shown_and_declined,
    unwanted_invitations,
    kick_ban_and_unban,
    what_came_before_an_unban_is_told,
    forgotten_rooms_are_gone,
    heroes_came_first,
    knocks_are_answered,
    restricted_rooms_let_members_in,
    profiles_follow_into_rooms,
    member_lists
);

/// The membership of a user as the state has it.
async fn membership(client: &Client, room: &str, user: &Client) -> String {
    let content = client.state(room, "m.room.member", &user.user_id).await.ok();
    content["membership"].as_str().unwrap_or_default().to_owned()
}

async fn invites_are_shown_and_declined(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .room()
        .preset("private_chat")
        .set("name", json!("Den"))
        .build()
        .await;
    bob.act(&room, "join", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    let before = bob.sync("timeout=0").await;
    alice
        .act(
            &room,
            "invite",
            json!({ "user_id": bob.user_id, "reason": "come" }),
        )
        .await
        .ok();
    let news = bob.sync_since(&before).await;
    let stripped = events(&news["rooms"]["invite"][&room]["invite_state"]);
    assert_eq!(
        state_event(&stripped, "m.room.name", "").map(|event| &event["content"]["name"]),
        Some(&json!("Den"))
    );
    let own = state_event(&stripped, "m.room.member", &bob.user_id).expect("the invitation");
    assert_eq!(
        (&own["content"]["membership"], &own["sender"]),
        (&json!("invite"), &json!(alice.user_id))
    );
    assert!(news["rooms"]["join"].get(&room).is_none());
    bob.get(&format!("/rooms/{}/messages?dir=b", encode(&room)))
        .await
        .refused(403, "M_FORBIDDEN");

    bob.leave(&room).await;
    let left = bob.sync_since(&news).await;
    assert!(left["rooms"]["leave"].get(&room).is_some(), "{left}");
    assert!(
        bob.sync("timeout=0").await["rooms"]["invite"]
            .get(&room)
            .is_none()
    );
    bob.act(&room, "join", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.invite(&room, &bob).await;
    bob.join(&room).await;
    bob.join(&room).await;
    assert_eq!(membership(&alice, &room, &bob).await, "join");
    alice
        .act(&room, "invite", json!({ "user_id": bob.user_id }))
        .await
        .refused(403, "M_FORBIDDEN");
}

/// What a user does not want to be invited to is not shown, or refused (MSC4155, MSC4380).
async fn unwanted_invitations(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let set = async |kind: &str, content: Value| {
        let path = format!("/user/{}/account_data/{kind}", encode(&alice.user_id));
        alice.put(&path, content).await.ok();
    };
    let invite = async || {
        let room = bob.room().build().await;
        let body = json!({ "user_id": alice.user_id });
        (room.clone(), bob.act(&room, "invite", body).await)
    };
    let invited = async || {
        let shown = alice.sync("timeout=0").await;
        shown["rooms"]["invite"].as_object().cloned().unwrap_or_default()
    };
    let slid = async || {
        let body =
            json!({ "lists": { "all": { "ranges": [[0, 9]], "timeline_limit": 1, "required_state": [] } } });
        let answer = alice.post(UNSTABLE, body).await.ok();
        answer["rooms"].as_object().cloned().unwrap_or_default()
    };
    let lists = "org.matrix.msc4155.invite_permission_config";
    set(lists, json!({ "ignored_users": [bob.user_id] })).await;
    invite().await.1.ok();
    assert!(invited().await.is_empty() && slid().await.is_empty());
    set(lists, json!({ "blocked_servers": ["hs*"] })).await;
    let (room, refused) = invite().await;
    refused.refused(403, "M_INVITE_BLOCKED");
    bob.try_set_state(
        &room,
        "m.room.member",
        &alice.user_id,
        json!({ "membership": "invite" }),
    )
    .await
    .refused(403, "M_INVITE_BLOCKED");
    set(
        lists,
        json!({ "blocked_servers": ["hs*"], "allowed_users": [bob.user_id] }),
    )
    .await;
    let (room, taken) = invite().await;
    taken.ok();
    assert!(invited().await.contains_key(&room) && slid().await.contains_key(&room));
    set("m.invite_permission_config", json!({ "default_action": "block" })).await;
    invite().await.1.refused(403, "M_INVITE_BLOCKED");
    assert!(invited().await.is_empty() && slid().await.is_empty());
    set("m.invite_permission_config", json!({})).await;
    assert!(!invited().await.is_empty());
    let unstable = "org.matrix.msc4380.invite_permission_config";
    set(unstable, json!({ "default_action": "block" })).await;
    invite().await.1.refused(403, "M_INVITE_BLOCKED");
}

async fn kick_ban_and_unban(server: &TestServer) {
    let (alice, bob, carol) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("carol").await,
    );
    let room = alice.room().with(&bob).build().await;
    let about = |user: &Client| json!({ "user_id": user.user_id, "reason": "why" });
    bob.act(&room, "kick", about(&alice))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .act(&room, "kick", about(&carol))
        .await
        .refused(403, "M_FORBIDDEN");
    let before = bob.sync("timeout=0").await;
    alice.act(&room, "kick", about(&bob)).await.ok();
    let news = bob.sync_since(&before).await;
    let shown = events(&news["rooms"]["leave"][&room]["timeline"]);
    let last = shown.last().expect("the kick");
    assert_eq!(
        (&last["content"]["membership"], &last["content"]["reason"]),
        (&json!("leave"), &json!("why"))
    );
    bob.send_txn(&room, "m.room.message", "1", json!({ "body": "x" }))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.join(&room).await;

    alice.act(&room, "ban", about(&bob)).await.ok();
    assert_eq!(membership(&alice, &room, &bob).await, "ban");
    bob.act(&room, "join", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .act(&room, "invite", about(&bob))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.act(&room, "unban", about(&bob)).await.ok();
    assert_eq!(membership(&alice, &room, &bob).await, "leave");
    bob.join(&room).await;
    alice.act(&room, "ban", about(&carol)).await.ok();
    carol
        .act(&room, "join", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
}

/// Somebody who was offline while he was put out, and let in again later, learns what he missed until he was put out.
async fn what_came_before_an_unban_is_told(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let about_bob = json!({ "user_id": bob.user_id });
    let before = bob.sync("timeout=0").await;
    alice.say(&room, "first").await;
    alice.say(&room, "second").await;
    alice.act(&room, "ban", about_bob.clone()).await.ok();
    let banned = bob.sync_since(&before).await;
    alice.say(&room, "unseen").await;
    let topic = json!({ "topic": "unseen" });
    alice.set_state(&room, "m.room.topic", "", topic).await;
    alice.act(&room, "unban", about_bob).await.ok();

    let told = |answer: &Value| {
        let left = &answer["rooms"]["leave"][&room];
        assert!(!left.to_string().contains("unseen"), "{left}");
        events(&left["timeline"])
            .iter()
            .map(|event| {
                let content = &event["content"];
                let text = content["body"].as_str().or(content["membership"].as_str());
                text.unwrap_or_default().to_owned()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(&bob.sync_since(&before).await),
        ["first", "second", "ban", "leave"]
    );
    assert_eq!(told(&bob.sync_since(&banned).await), ["leave"]);
    // No more events than the client asks for, and it learns that there are more.
    let since = before["next_batch"].as_str().expect("a token");
    let filter = encode(r#"{"room":{"timeline":{"limit":2}}}"#);
    let short = bob
        .sync(&format!("timeout=0&since={since}&filter={filter}"))
        .await;
    assert_eq!(told(&short), ["ban", "leave"]);
    assert_eq!(short["rooms"]["leave"][&room]["timeline"]["limited"], true);
    // The state after the timeline has the newest membership.
    let after = bob
        .sync(&format!("timeout=0&since={since}&use_state_after=true"))
        .await;
    let state = events(&after["rooms"]["leave"][&room]["state_after"]);
    let own = state_event(&state, "m.room.member", &bob.user_id).expect("the own membership");
    assert_eq!(own["content"]["membership"], "leave");
}

/// The members who give a room its name are those who came first.
async fn heroes_came_first(server: &TestServer) {
    let alice = server.register("alice").await;
    let mut others = Vec::new();
    for name in ["zoe", "yan", "xia", "wim", "vic", "ann", "bea"] {
        others.push(server.register(name).await);
    }
    let mut room = alice.room();
    for other in &others {
        room = room.with(other);
    }
    let room = room.build().await;
    let shown = alice.sync("timeout=0").await;
    let expected: Vec<&str> = others[..5].iter().map(|other| other.user_id.as_str()).collect();
    assert_eq!(
        shown["rooms"]["join"][&room]["summary"]["m.heroes"],
        json!(expected)
    );
}

async fn forgotten_rooms_are_gone(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).messages(2).build().await;
    let joined = bob.act(&room, "forget", json!({})).await;
    assert_eq!(joined.status, 400, "{}", joined.text());
    bob.leave(&room).await;
    assert_eq!(
        bob.messages(&room, "dir=b").await["chunk"]
            .as_array()
            .map(|list| list.is_empty()),
        Some(false)
    );
    bob.act(&room, "forget", json!({})).await.ok();
    bob.get(&format!("/rooms/{}/messages?dir=b", encode(&room)))
        .await
        .refused(403, "M_FORBIDDEN");
    let filter = encode(r#"{"room":{"include_leave":true}}"#);
    let fresh = bob.sync(&format!("timeout=0&filter={filter}")).await;
    assert!(fresh["rooms"]["leave"].get(&room).is_none(), "{fresh}");
    bob.join(&room).await;
    assert!(bob.sync("timeout=0").await["rooms"]["join"].get(&room).is_some());
}

async fn knocks_are_answered(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .room()
        .state("m.room.join_rules", "", json!({ "join_rule": "knock" }))
        .build()
        .await;
    bob.act(&room, "join", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    let before = bob.sync("timeout=0").await;
    let seen = alice.sync("timeout=0").await;
    bob.post(
        &format!("/knock/{}", encode(&room)),
        json!({ "reason": "please" }),
    )
    .await
    .ok();
    let news = bob.sync_since(&before).await;
    assert!(
        !events(&news["rooms"]["knock"][&room]["knock_state"]).is_empty(),
        "{news}"
    );
    let news = alice.sync_since(&seen).await;
    let knock = events(&news["rooms"]["join"][&room]["timeline"]);
    assert_eq!(
        knock.last().map(|event| &event["content"]["membership"]),
        Some(&json!("knock"))
    );
    alice.invite(&room, &bob).await;
    assert!(
        bob.sync("timeout=0").await["rooms"]["invite"]
            .get(&room)
            .is_some()
    );
    bob.join(&room).await;
    bob.leave(&room).await;
    bob.post(&format!("/knock/{}", encode(&room)), json!({}))
        .await
        .ok();
    bob.leave(&room).await;
    assert_eq!(membership(&alice, &room, &bob).await, "leave");
    bob.post(&format!("/knock/{}", encode(&room)), json!({}))
        .await
        .ok();
    alice
        .act(&room, "kick", json!({ "user_id": bob.user_id }))
        .await
        .ok();
    assert_eq!(membership(&alice, &room, &bob).await, "leave");
}

async fn restricted_rooms_let_members_in(server: &TestServer) {
    let (alice, bob, carol) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("carol").await,
    );
    for version in ["8", "10", "11", "12"] {
        let hall = alice.room().with(&bob).build().await;
        let rule = json!({
            "join_rule": "restricted",
            "allow": [{ "type": "m.room_membership", "room_id": hall }],
        });
        let room = alice
            .room()
            .version(version)
            .state("m.room.join_rules", "", rule)
            .build()
            .await;
        carol
            .act(&room, "join", json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        bob.join(&room).await;
        let content = alice.state(&room, "m.room.member", &bob.user_id).await.ok();
        assert_eq!(
            content["join_authorised_via_users_server"],
            alice.user_id.as_str(),
            "{version}: {content}"
        );
        bob.leave(&hall).await;
        bob.say(&room, "still in").await;
        bob.leave(&room).await;
        bob.act(&room, "join", json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        alice.invite(&room, &carol).await;
        carol.join(&room).await;
    }
}

async fn profiles_follow_into_rooms(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let path = format!("/profile/{}/displayname", encode(&bob.user_id));
    bob.put(&path, json!({ "displayname": "Bobby" })).await.ok();
    alice
        .put(&path, json!({ "displayname": "Evil" }))
        .await
        .refused(403, "M_FORBIDDEN");
    assert_eq!(alice.get(&path).await.ok()["displayname"], "Bobby");
    let member = alice.state(&room, "m.room.member", &bob.user_id).await.ok();
    assert_eq!(
        (&member["displayname"], &member["membership"]),
        (&json!("Bobby"), &json!("join"))
    );
}

async fn member_lists(server: &TestServer) {
    let (alice, bob, carol) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("carol").await,
    );
    let room = alice.room().with(&bob).build().await;
    let at = alice.sync("timeout=0").await["next_batch"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    carol.join(&room).await;
    bob.leave(&room).await;
    let list = |query: String| {
        let (alice, room) = (&alice, encode(&room));
        async move {
            let answer = alice.get(&format!("/rooms/{room}/members{query}")).await.ok();
            let chunk = answer["chunk"].as_array().cloned().unwrap_or_default();
            let mut keys: Vec<_> = chunk
                .iter()
                .map(|event| event["state_key"].as_str().unwrap_or_default()[1..4].to_owned())
                .collect();
            keys.sort();
            keys.join(" ")
        }
    };
    assert_eq!(list(String::new()).await, "ali bob car");
    assert_eq!(list("?membership=join".into()).await, "ali car");
    assert_eq!(list("?not_membership=join".into()).await, "bob");
    assert_eq!(
        list("?membership=leave&not_membership=leave".into()).await,
        "ali bob car",
        "one of the two is enough"
    );
    assert_eq!(
        list(format!("?membership=join&at={}", encode(&at))).await,
        "ali bob"
    );
    // Who has left sees the members of the time of the leaving, and of every time before.
    let of_bob = |query: String| {
        let (bob, path) = (&bob, format!("/rooms/{}/members{query}", encode(&room)));
        async move { bob.get(&path).await.ok()["chunk"].as_array().map_or(0, Vec::len) }
    };
    let later = encode(
        alice.sync("timeout=0").await["next_batch"]
            .as_str()
            .unwrap_or_default(),
    );
    alice.invite(&room, &server.register("dora").await).await;
    assert_eq!(of_bob(String::new()).await, 3);
    assert_eq!(of_bob(format!("?at={}", encode(&at))).await, 2);
    assert_eq!(of_bob(format!("?at={later}")).await, 3);
    let path = format!("/rooms/{}/joined_members", encode(&room));
    let joined = alice.get(&path).await.ok();
    assert_eq!(joined["joined"].as_object().map(|map| map.len()), Some(2));
    bob.get(&path).await.refused(403, "M_FORBIDDEN");
    let readable = json!({ "history_visibility": "world_readable" });
    alice
        .set_state(&room, "m.room.history_visibility", "", readable)
        .await;
    assert_eq!(bob.get(&path).await.ok(), joined);
    let rooms = bob.get("/joined_rooms").await.ok();
    assert_eq!(rooms["joined_rooms"], Value::Array(Vec::new()));
}
