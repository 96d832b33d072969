//! Registration, sessions, devices, user-interactive authentication.

use hearth_testkit::client::text;
use hearth_testkit::{Client, PASSWORD, TestServer, V3, encode};
use serde_json::{Value, json};

scenarios!(
    registers_and_logs_in,
    new_users_have_a_name,
    refreshes_tokens,
    logs_out,
    manages_devices,
    changes_password,
    deactivates,
    erases
);

async fn registers_and_logs_in(server: &TestServer) {
    let alice = server.register("alice").await;
    assert_eq!(alice.user_id, "@alice:hs1");
    let who = alice.get("/account/whoami").await.ok();
    assert_eq!(
        (text(&who, "user_id"), text(&who, "device_id")),
        ("@alice:hs1".into(), "ALICE1".into())
    );

    let register = format!("{V3}/register");
    let challenge = server
        .call(
            "POST",
            &register,
            None,
            json!({ "username": "bob", "password": PASSWORD }),
        )
        .await;
    assert_eq!(challenge.status, 401, "{}", challenge.text());
    assert!(challenge.json()["flows"].is_array());
    let taken = json!({ "username": "alice", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    server
        .call("POST", &register, None, taken)
        .await
        .refused(400, "M_USER_IN_USE");
    let odd = json!({ "username": "Al ice", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    server
        .call("POST", &register, None, odd)
        .await
        .refused(400, "M_INVALID_USERNAME");
    server
        .call(
            "GET",
            &format!("{register}/available?username=alice"),
            None,
            Value::Null,
        )
        .await
        .refused(400, "M_USER_IN_USE");
    let free = server
        .call(
            "GET",
            &format!("{register}/available?username=carol"),
            None,
            Value::Null,
        )
        .await
        .ok();
    assert_eq!(free["available"], true);

    let second = server.login("alice", "PHONE").await;
    assert_ne!(second.token, alice.token);
    alice.get("/account/whoami").await.ok();
    let full_id = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "@alice:hs1" }, "password": PASSWORD,
    });
    server
        .call("POST", &format!("{V3}/login"), None, full_id)
        .await
        .ok();
    let wrong = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" }, "password": "wrong",
    });
    server
        .call("POST", &format!("{V3}/login"), None, wrong)
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn new_users_have_a_name(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let profile = format!("/profile/{}", encode(&alice.user_id));
    assert_eq!(bob.get(&profile).await.ok(), json!({ "displayname": "alice" }));
    let room = alice.room().with(&bob).build().await;
    for user in [&alice, &bob] {
        let member = alice.state(&room, "m.room.member", &user.user_id).await.ok();
        let name = user.user_id.trim_start_matches('@').split(':').next();
        assert_eq!(member["displayname"].as_str(), name);
    }
    let found = bob
        .post("/user_directory/search", json!({ "search_term": "ali" }))
        .await
        .ok();
    let expected = json!([{ "user_id": alice.user_id, "display_name": "alice" }]);
    assert_eq!(found["results"], expected);
    let name = format!("{profile}/displayname");
    alice.put(&name, json!({ "displayname": "" })).await.ok();
    assert_eq!(bob.get(&profile).await.ok(), json!({}));
}

async fn refreshes_tokens(server: &TestServer) {
    server.register("alice").await;
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": PASSWORD,
        "refresh_token": true,
        "device_id": "D",
    });
    let answer = server
        .call("POST", &format!("{V3}/login"), None, login)
        .await
        .ok();
    assert!(answer["expires_in_ms"].is_u64(), "{answer}");
    let old = Client::of(&server.endpoint(), &answer);
    let refresh = json!({ "refresh_token": old.refresh_token });
    let fresh = server
        .call("POST", &format!("{V3}/refresh"), None, refresh)
        .await
        .ok();
    let token = text(&fresh, "access_token");
    let new = server
        .call("GET", &format!("{V3}/account/whoami"), Some(&token), Value::Null)
        .await
        .ok();
    assert_eq!(text(&new, "device_id"), "D");
    old.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let unknown = json!({ "refresh_token": "no" });
    server
        .call("POST", &format!("{V3}/refresh"), None, unknown)
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
}

async fn logs_out(server: &TestServer) {
    let alice = server.register("alice").await;
    let (two, three) = (
        server.login("alice", "TWO").await,
        server.login("alice", "THREE").await,
    );
    two.post("/logout", json!({})).await.ok();
    two.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    three.get("/account/whoami").await.ok();
    alice.post("/logout/all", json!({})).await.ok();
    for gone in [&alice, &three] {
        gone.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
        // What needs no token does not look at it.
        gone.get(&format!("/profile/{}", alice.user_id)).await.ok();
    }
    server
        .login("alice", "AGAIN")
        .await
        .get("/sync?timeout=0")
        .await
        .ok();
}

async fn manages_devices(server: &TestServer) {
    let alice = server.register("alice").await;
    let two = server.login("alice", "TWO").await;
    let bob = server.register("bob").await;
    let list = alice.get("/devices").await.ok();
    assert_eq!(list["devices"].as_array().map(Vec::len), Some(2), "{list}");
    alice
        .put("/devices/TWO", json!({ "display_name": "Phone" }))
        .await
        .ok();
    assert_eq!(alice.get("/devices/TWO").await.ok()["display_name"], "Phone");
    bob.get("/devices/TWO").await.refused(404, "M_NOT_FOUND");
    bob.put("/devices/TWO", json!({ "display_name": "mine" }))
        .await
        .refused(404, "M_NOT_FOUND");

    let challenge = alice.delete("/devices/TWO").await;
    assert_eq!(challenge.status, 401);
    let session = text(&challenge.json(), "session");
    let auth = |password: &str| {
        json!({ "auth": {
            "type": "m.login.password",
            "session": session,
            "identifier": { "type": "m.id.user", "user": "alice" },
            "password": password,
        } })
    };
    let wrong = alice.call("DELETE", "/devices/TWO", auth("wrong")).await;
    assert_eq!(
        (wrong.status, wrong.errcode().as_str()),
        (401, "M_FORBIDDEN"),
        "{}",
        wrong.text()
    );
    two.get("/account/whoami").await.ok();
    alice.call("DELETE", "/devices/TWO", auth(PASSWORD)).await.ok();
    two.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    alice.get("/devices/TWO").await.refused(404, "M_NOT_FOUND");
}

/// Does a request that asks for the password.
pub(crate) async fn confirmed(client: &Client, path: &str, mut body: Value) -> Value {
    let challenge = client.post(path, body.clone()).await;
    assert_eq!(challenge.status, 401, "{}", challenge.text());
    body["auth"] = json!({
        "type": "m.login.password",
        "session": challenge.json()["session"],
        "identifier": { "type": "m.id.user", "user": client.user_id },
        "password": PASSWORD,
    });
    client.post(path, body).await.ok()
}

async fn changes_password(server: &TestServer) {
    let alice = server.register("alice").await;
    let two = server.login("alice", "TWO").await;
    confirmed(
        &alice,
        "/account/password",
        json!({ "new_password": "another good one", "logout_devices": true }),
    )
    .await;
    alice.get("/account/whoami").await.ok();
    two.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let login = |password: &str| json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" }, "password": password });
    server
        .call("POST", &format!("{V3}/login"), None, login(PASSWORD))
        .await
        .refused(403, "M_FORBIDDEN");
    server
        .call("POST", &format!("{V3}/login"), None, login("another good one"))
        .await
        .ok();
}

async fn deactivates(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let wrong = json!({ "auth": { "type": "m.login.password", "password": "not this",
        "identifier": { "type": "m.id.user", "user": bob.user_id } } });
    let refused = bob
        .post("/account/deactivate", wrong)
        .await
        .refused(401, "M_FORBIDDEN");
    assert_eq!(refused["completed"], json!([]), "{refused}");
    confirmed(&bob, "/account/deactivate", json!({})).await;
    bob.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let again = json!({ "username": "bob", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    server
        .call("POST", &format!("{V3}/register"), None, again)
        .await
        .refused(400, "M_USER_IN_USE");
    let members = alice.get(&format!("/rooms/{room}/joined_members")).await.ok();
    assert!(members["joined"].get("@bob:hs1").is_none(), "{members}");
}

async fn erases(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().preset("public_chat").with(&bob).build().await;
    let said = bob.say(&room, "secret").await;
    confirmed(&bob, "/account/deactivate", json!({ "erase": true })).await;
    let carol = server.register("carol").await;
    carol.post(&format!("/join/{room}"), json!({})).await.ok();
    let path = format!("/rooms/{room}/event/{said}");
    assert_eq!(
        alice.get(&path).await.ok()["content"]["body"],
        "secret",
        "who was there keeps it"
    );
    let late = carol.get(&path).await.ok();
    assert_eq!(
        (&late["content"], &late["sender"]),
        (&json!({}), &json!("@bob:hs1"))
    );
    let page = carol
        .get(&format!("/rooms/{room}/messages?dir=b&limit=50"))
        .await
        .ok();
    assert!(!page.to_string().contains("secret"), "{page}");
}
