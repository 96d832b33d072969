//! Users and devices of application services.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

/// A bridge that has `@_irc_.*` for itself.
pub(super) fn appservices() -> Registrations {
    let text = "id: bridge\nurl: http://localhost:1\nas_token: bridge-token\nhs_token: h\n\
        sender_localpart: bridge\nrate_limited: false\nnamespaces:\n  users:\n  \
        - {exclusive: true, regex: '@_irc_.*'}\n";
    let files = vec![(PathBuf::from("bridge.yaml"), text.to_owned())];
    Registrations::from_texts(files, &"hs1".try_into().expect("a name")).expect("a registration")
}

#[tokio::test]
async fn application_services() {
    let server = Server::with(|_| {}, appservices());
    let token = "bridge-token";
    let whoami = format!("{V3}/account/whoami");
    assert_eq!(server.get(&whoami, token).await.ok()["user_id"], "@bridge:hs1");
    let as_alice = format!("{whoami}?user_id=@_irc_alice:hs1");
    server.get(&as_alice, token).await.refused(403, "M_FORBIDDEN");
    let register = async |token: Option<&str>, name: &str| {
        let body = json!({ "type": "m.login.application_service", "username": name, "device_id": "IRC" });
        server.call("POST", &format!("{V3}/register"), token, body).await
    };
    register(None, "_irc_alice").await.refused(401, "M_MISSING_TOKEN");
    register(Some("x"), "_irc_alice")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    register(Some(token), "alice").await.refused(400, "M_EXCLUSIVE");
    register(Some(token), "_irc_alice").await.ok();
    assert_eq!(
        server.get(&as_alice, token).await.ok()["user_id"],
        "@_irc_alice:hs1"
    );
    assert_eq!(
        server.get(&format!("{as_alice}&device_id=IRC"), token).await.ok()["device_id"],
        "IRC"
    );
    server
        .get(&format!("{as_alice}&device_id=NONE"), token)
        .await
        .refused(400, "M_UNKNOWN_DEVICE");
    server
        .get(&format!("{whoami}?user_id=@alice:hs1"), token)
        .await
        .refused(403, "M_FORBIDDEN");
    let login = json!({
        "type": "m.login.application_service",
        "identifier": { "type": "m.id.user", "user": "_irc_alice" },
    });
    server
        .post(&format!("{V3}/login"), token, login.clone())
        .await
        .ok();
    server
        .call("POST", &format!("{V3}/login"), None, login)
        .await
        .refused(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn application_services_manage_devices() {
    let server = Server::with(|_| {}, appservices());
    let token = "bridge-token";
    let body =
        json!({ "type": "m.login.application_service", "username": "_irc_alice", "inhibit_login": true });
    server.post(&format!("{V3}/register"), token, body).await.ok();
    let as_alice = |path: &str| format!("{V3}{path}?user_id=@_irc_alice:hs1");
    let device = as_alice("/devices/BRIDGE");
    let name = |name: &str| json!({ "display_name": name });
    let made = server.put(&device, token, name("the bridge")).await;
    assert_eq!((made.status, made.json()), (http::StatusCode::CREATED, json!({})));
    let again = server.put(&device, token, name("a bridge")).await;
    assert_eq!(again.status, http::StatusCode::OK);
    let seen = server.get(&device, token).await.ok();
    assert_eq!(
        (&seen["device_id"], &seen["display_name"]),
        (&json!("BRIDGE"), &json!("a bridge"))
    );
    let whoami = as_alice("/account/whoami");
    for query in ["device_id", "org.matrix.msc3202.device_id"] {
        let masked = server.get(&format!("{whoami}&{query}=BRIDGE"), token).await.ok();
        assert_eq!(masked["device_id"], "BRIDGE", "{query}");
    }
    // Neither the device's end nor cross-signing keys need a password, which the user does not have.
    server
        .call("DELETE", &device, Some(token), Value::Null)
        .await
        .ok();
    server.get(&device, token).await.refused(404, "M_NOT_FOUND");
    server.put(&device, token, json!({})).await;
    // What is not known stands there all the same: some clients read no list of devices otherwise.
    let unnamed = server.get(&device, token).await.ok();
    assert_eq!(unnamed.get("display_name"), Some(&Value::Null));
    assert_eq!(unnamed.get("last_seen_ip"), Some(&Value::Null));
    let all = json!({ "devices": ["BRIDGE"] });
    server.post(&as_alice("/delete_devices"), token, all).await.ok();
    server.get(&device, token).await.refused(404, "M_NOT_FOUND");
    // A user's own device is only made by a login.
    let alice = server.user("alice", "A").await;
    server
        .call("PUT", &format!("{V3}/devices/NONE"), Some(&alice), name("x"))
        .await
        .refused(404, "M_NOT_FOUND");
}

/// The user whom the registration names (`sender_localpart`) is there before the application service asks for anything.
#[tokio::test]
async fn the_sender_of_an_application_service_is_there_from_the_beginning() {
    let server = Server::with(|_| {}, appservices());
    let login = json!({
        "type": "m.login.application_service",
        "identifier": { "type": "m.id.user", "user": "bridge" },
    });
    let session = server
        .post(&format!("{V3}/login"), "bridge-token", login.clone())
        .await
        .ok();
    assert_eq!(session["user_id"], "@bridge:hs1");
    let ghost = json!({
        "type": "m.login.application_service",
        "identifier": { "type": "m.id.user", "user": "_irc_nobody" },
    });
    server
        .post(&format!("{V3}/login"), "bridge-token", ghost)
        .await
        .refused(403, "M_FORBIDDEN");

    // Somebody invites it to a new room, or to one that is there.
    let server = Server::with(|_| {}, appservices());
    let alice = server.user("alice", "A").await;
    let create = format!("{V3}/createRoom");
    let invite = json!({ "invite": ["@bridge:hs1"] });
    let room = server.post(&create, &alice, invite).await.ok();
    let room = room["room_id"].as_str().expect("a room id");
    let join = format!("{V3}/rooms/{room}/join");
    server.post(&join, "bridge-token", json!({})).await.ok();

    let server = Server::with(|_| {}, appservices());
    let alice = server.user("alice", "A").await;
    let room = server.post(&create, &alice, json!({})).await.ok();
    let room = room["room_id"].as_str().expect("a room id");
    let invite = format!("{V3}/rooms/{room}/invite");
    let bridge = json!({ "user_id": "@bridge:hs1" });
    server.post(&invite, &alice, bridge).await.ok();
    let nobody = json!({ "user_id": "@_irc_nobody:hs1" });
    server
        .post(&invite, &alice, nobody)
        .await
        .refused(404, "M_NOT_FOUND");
}
