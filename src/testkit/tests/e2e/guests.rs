//! Guest access.

use std::time::Duration;

use hearth_testkit::{Client, PASSWORD, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::federation::until;

async fn server(shards: u16) -> TestServer {
    TestServer::memory_with(shards, |config| config.guests = true).await
}

async fn guest(server: &TestServer) -> Client {
    let body =
        json!({ "initial_device_display_name": "Passing by", "username": "ignored", "password": "ignored" });
    let answer = server
        .call("POST", "/_matrix/client/v3/register?kind=guest", None, body)
        .await
        .ok();
    Client::of(&server.endpoint(), &answer)
}

/// A room of a user, open to guests or not.
async fn public_room(client: &Client, guests: &str) -> String {
    let guests =
        json!({ "type": "m.room.guest_access", "state_key": "", "content": { "guest_access": guests } });
    client
        .create_room(json!({ "preset": "public_chat", "initial_state": [guests] }))
        .await
}

async fn membership(client: &Client, room: &str, user: &str) -> Value {
    client.state(room, "m.room.member", user).await.ok()["membership"].clone()
}

#[tokio::test]
async fn a_guest_takes_part_where_guests_may() {
    let server = server(16).await;
    let (alice, guest) = (server.register("alice").await, guest(&server).await);
    let who = guest.get("/account/whoami").await.ok();
    assert_eq!(who["is_guest"], true);
    assert_ne!(guest.user_id, server.user_id("ignored"));
    assert_eq!(alice.get("/account/whoami").await.ok()["is_guest"], false);
    let (open, closed) = (
        public_room(&alice, "can_join").await,
        public_room(&alice, "forbidden").await,
    );
    guest.join(&open).await;
    guest.say(&open, "hello").await;
    let shown = guest.sync("timeout=0").await;
    assert!(shown["rooms"]["join"].get(&open).is_some());
    guest
        .act(&closed, "join", json!({}))
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    guest
        .try_set_state(
            &closed,
            "m.room.member",
            &guest.user_id,
            json!({ "membership": "join" }),
        )
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    guest
        .act("!elsewhere:hs2", "join", json!({}))
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    let own = format!("/profile/{}", encode(&guest.user_id));
    guest
        .put(&format!("{own}/displayname"), json!({ "displayname": "Guest" }))
        .await
        .ok();
    // What anybody may ask without a token.
    for path in [&own, &format!("{own}/displayname")] {
        let shown = guest.get(path).await.ok();
        assert_eq!(shown["displayname"], "Guest", "{path}");
    }
    for (method, path) in [
        ("PUT", format!("{own}/avatar_url")),
        ("POST", "/createRoom".to_owned()),
        ("POST", format!("/rooms/{}/invite", encode(&open))),
        ("POST", "/user_directory/search".to_owned()),
        ("POST", "/account/password".to_owned()),
        (
            "PUT",
            format!("/rooms/{}/typing/{}", encode(&open), encode(&guest.user_id)),
        ),
        ("GET", "/_matrix/client/v1/admin/lock/x".to_owned()),
    ] {
        guest
            .call(method, &path, json!({}))
            .await
            .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    }
    let found = alice
        .post("/user_directory/search", json!({ "search_term": "guest" }))
        .await
        .ok();
    assert_eq!(found["results"], json!([]), "guests are not to be found");
    guest.leave(&open).await;
    guest.post("/logout", json!({})).await.ok();
}

/// Waits until a guest is out of a room.
async fn is_out(client: &Client, room: &str, user: &str) {
    let left = async {
        while membership(client, room, user).await != "leave" {
            tokio::task::yield_now().await;
        }
    };
    let bound = Duration::from_secs(60);
    tokio::time::timeout(bound, left)
        .await
        .expect("the guest has to leave");
}

#[tokio::test]
async fn guests_leave_a_room_that_closes_to_them_also_after_a_crash() {
    for shards in [1, 16] {
        let mut server = server(shards).await;
        let (mut alice, bob) = (server.register("alice").await, server.register("bob").await);
        let guest = guest(&server).await;
        let rooms = [
            public_room(&alice, "can_join").await,
            public_room(&alice, "can_join").await,
        ];
        for room in &rooms {
            bob.join(room).await;
            guest.join(room).await;
        }
        let close = json!({ "guest_access": "forbidden" });
        alice
            .set_state(&rooms[0], "m.room.guest_access", "", close.clone())
            .await;
        is_out(&alice, &rooms[0], &guest.user_id).await;
        assert_eq!(membership(&alice, &rooms[0], &bob.user_id).await, "join");
        assert_eq!(membership(&alice, &rooms[1], &guest.user_id).await, "join");
        alice.set_state(&rooms[1], "m.room.guest_access", "", close).await;
        server = server.crash().await;
        alice = alice.on(server.endpoint());
        is_out(&alice, &rooms[1], &guest.user_id).await;
    }
}

#[tokio::test]
async fn a_guest_becomes_an_ordinary_user() {
    let server = server(4).await;
    let (alice, guest) = (server.register("alice").await, guest(&server).await);
    let room = public_room(&alice, "can_join").await;
    guest.join(&room).await;
    let localpart = guest.user_id[1..].split(':').next().unwrap().to_owned();
    let register = async |username: &str, token: &str| {
        let body = json!({
            "username": username, "password": PASSWORD, "guest_access_token": token,
            "auth": { "type": "m.login.dummy" },
        });
        server
            .call("POST", "/_matrix/client/v3/register", None, body)
            .await
    };
    register("other", &guest.token)
        .await
        .refused(400, "M_INVALID_USERNAME");
    register(&localpart, &alice.token)
        .await
        .refused(403, "M_FORBIDDEN");
    register(&localpart, "nonsense")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    let answer = register(&localpart, &guest.token).await.ok();
    assert_eq!(answer["user_id"], guest.user_id);
    let user = server.login(&localpart, "PHONE").await;
    assert_eq!(user.get("/account/whoami").await.ok()["is_guest"], false);
    user.create_room(json!({})).await;
    assert_eq!(
        membership(&alice, &room, &user.user_id).await,
        "join",
        "still there"
    );
    alice
        .set_state(
            &room,
            "m.room.guest_access",
            "",
            json!({ "guest_access": "forbidden" }),
        )
        .await;
    register(&localpart, &guest.token)
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_server_without_guests_refuses_them() {
    let server = TestServer::memory(1).await;
    server
        .call("POST", "/_matrix/client/v3/register?kind=guest", None, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
}

/// A guest who is invited to a room of another server may go there if guests may; that shows when the room is here.
#[tokio::test(start_paused = true)]
async fn a_guest_accepts_an_invitation_from_elsewhere() {
    let network = SimNetwork::new(61);
    let server = TestServer::simulated_with("hs1", 4, 61, &network, |config| config.guests = true);
    let other = TestServer::simulated("hs2", 4, 62, &network);
    let (guest, alice) = (guest(&server).await, other.register("alice").await);
    for (guests, status) in [("can_join", 200), ("forbidden", 403)] {
        let room = public_room(&alice, guests).await;
        let path = format!("/join/{}?via=hs2", encode(&room));
        guest
            .post(&path, json!({}))
            .await
            .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        let body = json!({ "user_id": guest.user_id });
        alice.act(&room, "invite", body).await.ok();
        let answer = guest.post(&path, json!({})).await;
        assert_eq!(answer.status, status, "{guests}: {answer:?}");
        if guests == "can_join" {
            assert_eq!(membership(&alice, &room, &guest.user_id).await, "join");
        } else {
            assert_eq!(answer.errcode(), "M_GUEST_ACCESS_FORBIDDEN");
            until("the guest is out", async || {
                let now = membership(&alice, &room, &guest.user_id).await;
                (now == "leave").then_some(())
            })
            .await;
        }
    }
}
