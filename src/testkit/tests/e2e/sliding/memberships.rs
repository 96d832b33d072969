//! Rooms that the user is invited to, knocks on, leaves, or is put out of.

use hearth_testkit::{TestServer, encode};
use serde_json::{Value, json};

use super::{kinds, list, list_of, room_to_knock_at, rooms, slide};
use crate::{bodies, state_event};

scenarios!(
    invitations_knocks_and_leaving,
    unwanted_invitations,
    blocked_invitations_come_when_they_are_taken_again,
    kicked_rooms_stay,
);

async fn invitations_knocks_and_leaving(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room_to_knock_at(&alice).await;
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
