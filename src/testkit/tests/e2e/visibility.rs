//! History visibility: who sees which messages, by `/messages`, `/event`, `/context` and `/sync`.

use hearth_testkit::{Client, TestServer, encode};
use serde_json::json;

use crate::bodies;

scenarios!(
    all_four_values,
    what_comes_after_leaving_is_hidden,
    edits_after_leaving_are_hidden,
    a_change_of_visibility_counts_from_then_on,
    members_have_the_names_of_the_time
);

/// The bodies that a user sees, oldest first; nothing where the user may not look.
async fn seen(client: &Client, room: &str) -> Vec<String> {
    let answer = client
        .get(&format!("/rooms/{}/messages?dir=b&limit=100", encode(room)))
        .await;
    if answer.status == 403 {
        return vec!["403".to_owned()];
    }
    let mut found = bodies(&answer.ok()["chunk"]);
    found.reverse();
    found
}

async fn all_four_values(server: &TestServer) {
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    for (visibility, joined_sees, outsider_sees) in [
        (
            "world_readable",
            vec!["before", "invited", "joined"],
            vec!["before", "invited", "joined"],
        ),
        ("shared", vec!["before", "invited", "joined"], vec!["403"]),
        ("invited", vec!["invited", "joined"], vec!["403"]),
        ("joined", vec!["joined"], vec!["403"]),
    ] {
        let room = alice
            .room()
            .preset("private_chat")
            .visibility(visibility)
            .build()
            .await;
        let early = alice.say(&room, "before").await;
        alice.invite(&room, &bob).await;
        alice.say(&room, "invited").await;
        bob.join(&room).await;
        alice.say(&room, "joined").await;
        assert_eq!(seen(&bob, &room).await, joined_sees, "{visibility}");
        assert_eq!(seen(&eve, &room).await, outsider_sees, "{visibility}");
        let may_see_early = joined_sees.contains(&"before");
        let event = bob.event(&room, &early).await;
        assert_eq!(
            event.status == 200,
            may_see_early,
            "{visibility}: {}",
            event.text()
        );
        let context = bob
            .get(&format!("/rooms/{}/context/{}", encode(&room), encode(&early)))
            .await;
        assert_eq!(context.status == 200, may_see_early, "{visibility}");
        let world = visibility == "world_readable";
        assert_eq!(
            eve.event(&room, &early).await.status == 200,
            world,
            "{visibility}"
        );
        assert_eq!(
            eve.state(&room, "m.room.create", "").await.status == 200,
            world,
            "{visibility}"
        );
        let filter = encode(r#"{"room":{"timeline":{"limit":100}}}"#);
        let sync = bob.sync(&format!("timeout=0&filter={filter}")).await;
        let timeline = &sync["rooms"]["join"][&room]["timeline"];
        assert_eq!(bodies(&timeline["events"]), joined_sees, "{visibility}");
    }
}

async fn what_comes_after_leaving_is_hidden(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for visibility in ["shared", "invited", "joined"] {
        let room = alice.room().visibility(visibility).with(&bob).build().await;
        alice.say(&room, "together").await;
        bob.leave(&room).await;
        let late = alice.say(&room, "alone").await;
        alice
            .set_state(&room, "m.room.topic", "", json!({ "topic": "new" }))
            .await;
        assert_eq!(seen(&bob, &room).await, ["together"], "{visibility}");
        bob.event(&room, &late).await.refused(404, "M_NOT_FOUND");
        bob.state(&room, "m.room.topic", "")
            .await
            .refused(404, "M_NOT_FOUND");
        bob.join(&room).await;
        let expected: &[&str] = if visibility == "shared" {
            &["together", "alone"]
        } else {
            &["together"]
        };
        assert_eq!(seen(&bob, &room).await, expected, "{visibility}");
    }
}

async fn edits_after_leaving_are_hidden(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let said = alice.say(&room, "open").await;
    let root = alice.say(&room, "root").await;
    let thread =
        |body: &str| json!({ "body": body, "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    alice.send(&room, "m.room.message", thread("early")).await;
    bob.leave(&room).await;
    let edit = json!({
        "body": "* secret",
        "m.new_content": { "body": "secret" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": said },
    });
    alice.send(&room, "m.room.message", edit).await;
    alice.send(&room, "m.room.message", thread("secret")).await;
    for id in [&said, &root] {
        let event = bob.event(&room, id).await.ok();
        assert!(!event.to_string().contains("secret"), "{event}");
    }
    let relations = format!(
        "/_matrix/client/v1/rooms/{}/relations/{}",
        encode(&room),
        encode(&root)
    );
    let relations = bob.get(&relations).await.ok();
    assert_eq!(bodies(&relations["chunk"]), ["early"]);
    let threads = bob
        .get(&format!("/_matrix/client/v1/rooms/{}/threads", encode(&room)))
        .await
        .ok();
    assert!(!threads.to_string().contains("secret"), "{threads}");
}

async fn a_change_of_visibility_counts_from_then_on(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().visibility("joined").build().await;
    alice.say(&room, "hidden").await;
    alice
        .set_state(
            &room,
            "m.room.history_visibility",
            "",
            json!({ "history_visibility": "shared" }),
        )
        .await;
    alice.say(&room, "open").await;
    bob.join(&room).await;
    assert_eq!(seen(&bob, &room).await, ["open"]);
}

/// Whoever has left since is shown with the name that went with the message.
async fn members_have_the_names_of_the_time(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let name = json!({ "displayname": "Bob of old" });
    let path = format!("/profile/{}/displayname", encode(&bob.user_id));
    bob.put(&path, name).await.ok();
    let room = alice.room().with(&bob).build().await;
    let said = bob.say(&room, "said").await;
    bob.leave(&room).await;
    alice.say(&room, "later").await;
    let filter = encode(r#"{"lazy_load_members":true,"types":["m.room.message"],"senders":["@bob:hs1"]}"#);
    let page = alice.messages(&room, &format!("dir=b&filter={filter}")).await;
    // A filter of types would leave out state of other types, too.
    let filter = encode(r#"{"lazy_load_members":true}"#);
    let context = alice
        .get(&format!(
            "/rooms/{}/context/{}?limit=0&filter={filter}",
            encode(&room),
            encode(&said)
        ))
        .await
        .ok();
    let kinds = context["state"].as_array().cloned().unwrap_or_default();
    let kinds: Vec<_> = kinds.iter().map(|event| &event["type"]).collect();
    assert!(kinds.contains(&&json!("m.room.create")), "{context}");
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "m.room.member").count(),
        1,
        "{context}"
    );
    for answer in [page, context] {
        let state = answer["state"].as_array().cloned().unwrap_or_default();
        let bob_then = state
            .iter()
            .find(|event| event["state_key"] == bob.user_id.as_str());
        let content = bob_then.map(|event| &event["content"]);
        assert_eq!(
            content.map(|content| (&content["membership"], &content["displayname"])),
            Some((&json!("join"), &json!("Bob of old"))),
            "{answer}"
        );
    }
}
