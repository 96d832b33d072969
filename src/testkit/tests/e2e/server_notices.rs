//! Messages from the operator, in a room of their own (Client-Server API, "Server Notices").

use hearth_testkit::{Client, TestServer, encode};
use serde_json::{Value, json};

use crate::{bodies, events, state_event};

const SEND: &str = "/_synapse/admin/v1/send_server_notice";

async fn server(shards: u16) -> TestServer {
    TestServer::memory_with(shards, |config| {
        config.admins = vec!["@admin:hs1".to_owned()];
        config.server_notices.localpart = Some("notices".to_owned());
        config.server_notices.avatar_url = Some("mxc://hs1/face".to_owned());
    })
    .await
}

fn notice(user: &Client, body: &str) -> Value {
    json!({ "user_id": user.user_id, "content": { "msgtype": "m.text", "body": body } })
}

/// The one room that a user is invited to.
async fn invited_to(user: &Client) -> String {
    let sync = user.sync("timeout=0").await;
    let invitations = sync["rooms"]["invite"].as_object().expect("invitations");
    assert_eq!(invitations.len(), 1, "{sync}");
    invitations.keys().next().expect("one").clone()
}

#[tokio::test]
async fn a_notice_comes_by_an_invitation_that_cannot_be_declined() {
    for shards in [1, 16] {
        let server = server(shards).await;
        let (admin, alice) = (server.register("admin").await, server.register("alice").await);
        alice.post(SEND, Value::Null).await.refused(403, "M_FORBIDDEN");
        admin
            .post(SEND, json!({ "user_id": alice.user_id }))
            .await
            .refused(400, "M_MISSING_PARAM");
        let first = admin.post(SEND, notice(&alice, "hello")).await.ok();

        let room = invited_to(&alice).await;
        let sync = alice.sync("timeout=0").await;
        let stripped = events(&sync["rooms"]["invite"][&room]["invite_state"]);
        assert_eq!(stripped[0]["sender"], "@notices:hs1");
        let name = state_event(&stripped, "m.room.name", "").expect("a name");
        assert_eq!(name["content"]["name"], "Server Notices");
        let code = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM";
        alice.act(&room, "leave", json!({})).await.refused(403, code);
        alice
            .try_set_state(
                &room,
                "m.room.member",
                &alice.user_id,
                json!({ "membership": "leave" }),
            )
            .await
            .refused(403, code);

        alice.join(&room).await;
        let joined = alice.sync_since(&sync).await;
        let shown = &joined["rooms"]["join"][&room];
        assert_eq!(bodies(&shown["timeline"]["events"]), ["hello"], "{shown}");
        let tags = events(&shown["account_data"]);
        assert_eq!(tags[0]["content"]["tags"], json!({ "m.server_notice": {} }));
        let event = alice
            .event(&room, first["event_id"].as_str().expect("an id"))
            .await
            .ok();
        assert_eq!(event["sender"], "@notices:hs1");
        alice
            .send_txn(&room, "m.room.message", "1", json!({ "body": "thanks" }))
            .await
            .refused(403, "M_FORBIDDEN");
    }
}

#[tokio::test]
async fn who_left_or_forgot_the_notices_room_is_invited_to_the_same_again() {
    let server = server(16).await;
    let (admin, alice) = (server.register("admin").await, server.register("alice").await);
    admin.post(SEND, notice(&alice, "one")).await.ok();
    let room = invited_to(&alice).await;
    alice.join(&room).await;
    admin.post(SEND, notice(&alice, "two")).await.ok();
    alice.leave(&room).await;
    admin.post(SEND, notice(&alice, "three")).await.ok();
    assert_eq!(invited_to(&alice).await, room);
    alice.join(&room).await;
    alice.leave(&room).await;
    alice.act(&room, "forget", json!({})).await.ok();
    let server = server.restart().await;
    let (admin, alice) = (admin.on(server.endpoint()), alice.on(server.endpoint()));
    admin.post(SEND, notice(&alice, "four")).await.ok();
    assert_eq!(invited_to(&alice).await, room);
    alice.join(&room).await;
    let page = alice.messages(&room, "dir=b&limit=50").await;
    let mut seen = bodies(&page["chunk"]);
    seen.reverse();
    assert_eq!(seen, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn a_notice_with_a_transaction_is_sent_once() {
    let server = server(1).await;
    let (admin, alice, bob) = (
        server.register("admin").await,
        server.register("alice").await,
        server.register("bob").await,
    );
    let path = format!("{SEND}/t1");
    let sent = admin.put(&path, notice(&alice, "once")).await.ok();
    assert_eq!(admin.put(&path, notice(&alice, "once")).await.ok(), sent);
    assert_ne!(
        admin
            .put(&format!("{SEND}/t2"), notice(&alice, "once"))
            .await
            .ok(),
        sent
    );
    bob.put(&path, notice(&alice, "once"))
        .await
        .refused(403, "M_FORBIDDEN");
    let state = json!({
        "user_id": alice.user_id,
        "type": "m.room.topic",
        "state_key": "",
        "content": { "topic": "News" },
    });
    admin.post(SEND, state).await.ok();
    let room = invited_to(&alice).await;
    alice.join(&room).await;
    assert_eq!(alice.state(&room, "m.room.topic", "").await.ok()["topic"], "News");
    let face = alice.state(&room, "m.room.avatar", "").await.ok();
    assert_eq!(face["url"], "mxc://hs1/face");
}

#[tokio::test]
async fn two_notices_at_once_make_one_room() {
    let server = server(16).await;
    let (admin, alice) = (server.register("admin").await, server.register("alice").await);
    let (one, two) = tokio::join!(
        admin.post(SEND, notice(&alice, "one")),
        admin.post(SEND, notice(&alice, "two"))
    );
    one.ok();
    two.ok();
    let room = invited_to(&alice).await;
    alice.join(&room).await;
    let page = alice.messages(&room, "dir=b&limit=50").await;
    assert_eq!(bodies(&page["chunk"]).len(), 2);
}

#[tokio::test]
async fn nobody_can_take_the_name_of_the_notices_user() {
    let server = server(1).await;
    let admin = server.register("admin").await;
    server
        .call(
            "GET",
            &format!("{}/register/available?username=notices", hearth_testkit::V3),
            None,
            Value::Null,
        )
        .await
        .refused(400, "M_USER_IN_USE");
    for nobody in ["@nobody:hs1", "@notices:hs1"] {
        admin
            .post(SEND, json!({ "user_id": nobody, "content": {} }))
            .await
            .refused(404, "M_NOT_FOUND");
    }
    admin
        .post(SEND, json!({ "user_id": "@alice:elsewhere", "content": {} }))
        .await
        .refused(400, "M_INVALID_PARAM");
    admin.post(SEND, notice(&admin, "to myself")).await.ok();
    let profile = admin
        .get(&format!("/profile/{}", encode("@notices:hs1")))
        .await
        .ok();
    assert_eq!(profile["displayname"], "Server Notices");
}

#[tokio::test]
async fn without_a_name_there_are_no_notices() {
    let server = TestServer::memory_with(1, |config| {
        config.admins = vec!["@admin:hs1".to_owned()];
    })
    .await;
    let admin = server.register("admin").await;
    admin
        .post(SEND, notice(&admin, "hello"))
        .await
        .refused(400, "M_UNKNOWN");
}
