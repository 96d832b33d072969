//! Accounts, sessions and devices, as clients use them.

use std::path::PathBuf;

use hearth_core::config::{Policy, RegistrationMode, Secret};
use serde_json::{Value, json};

use super::*;

pub(super) fn appservices() -> Registrations {
    let text = "id: bridge\nurl: http://localhost:1\nas_token: bridge-token\nhs_token: h\n\
        sender_localpart: bridge\nrate_limited: false\nnamespaces:\n  users:\n  \
        - {exclusive: true, regex: '@_irc_.*'}\n";
    let files = vec![(PathBuf::from("bridge.yaml"), text.to_owned())];
    Registrations::from_texts(files, &"hs1".try_into().expect("a name")).expect("a registration")
}

#[tokio::test]
async fn registration() {
    let server = Server::with(|_| {}, appservices());
    let path = format!("{V3}/register");
    let register = async |body: Value| server.call("POST", &path, None, body).await;
    let challenge = register(json!({})).await;
    assert_eq!(challenge.status, 401);
    let challenge = challenge.json();
    assert_eq!(challenge["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    assert!(challenge["params"].is_object() && challenge["session"].is_string());
    let dummy = json!({ "type": "m.login.dummy" });
    let body = |name: &str| json!({ "auth": dummy, "username": name, "password": PASSWORD });
    let made = register(body("user-UPPER")).await.ok();
    assert_eq!(made["user_id"], "@user-upper:hs1");
    let token = made["access_token"].as_str().expect("a token");
    server.get(&format!("{V3}/account/whoami"), token).await.ok();
    register(body("user-upper")).await.refused(400, "M_USER_IN_USE");
    for bad in ["a!b", "a:b", "a@b", "aéb", "a'b", "", " ", "a\nb"] {
        register(body(bad)).await.refused(400, "M_INVALID_USERNAME");
    }
    for good in ["q", "3", ".", "_", "=", "-", "/"] {
        register(body(&format!("chr{good}"))).await.ok();
    }
    register(body("_irc_alice")).await.refused(400, "M_EXCLUSIVE");
    register(json!({ "auth": dummy, "username": "x", "password": "short" }))
        .await
        .refused(400, "M_WEAK_PASSWORD");
    register(json!({ "auth": dummy, "username": "x" }))
        .await
        .refused(400, "M_MISSING_PARAM");
    register(json!({ "username": 3 }))
        .await
        .refused(400, "M_BAD_JSON");
    let guest = server
        .call("POST", &format!("{path}?kind=guest"), None, json!({}))
        .await;
    guest.refused(403, "M_FORBIDDEN");
    let mut inhibited = body("quiet");
    inhibited["inhibit_login"] = true.into();
    let made = register(inhibited).await.ok();
    assert!(made.get("access_token").is_none() && made.get("device_id").is_none());
    // The parameters of the first request are kept for the second.
    let first = register(json!({ "username": "kept", "password": PASSWORD }))
        .await
        .json();
    let auth = json!({ "type": "m.login.dummy", "session": first["session"] });
    assert_eq!(
        register(json!({ "auth": auth })).await.ok()["user_id"],
        "@kept:hs1"
    );
    let available = async |name: &str| {
        server
            .call(
                "GET",
                &format!("{path}/available?username={name}"),
                None,
                Value::Null,
            )
            .await
    };
    assert_eq!(available("free").await.ok(), json!({ "available": true }));
    available("kept").await.refused(400, "M_USER_IN_USE");
    available("a,b").await.refused(400, "M_INVALID_USERNAME");
}

#[tokio::test]
async fn registration_with_a_token_and_terms() {
    let configure = |config: &mut Config| {
        config.registration = RegistrationMode::Token;
        config.registration_tokens = vec![Secret::new("always")];
        config.terms = vec![Policy {
            id: "privacy".into(),
            version: "1".into(),
            name: "Privacy".into(),
            url: "https://example.org/privacy".into(),
            language: "en".into(),
        }];
    };
    let server = Server::with(configure, Registrations::default());
    let once = server
        .app
        .users
        .registration_tokens()
        .create(None, Some(1), None)
        .await
        .expect("a token")
        .token;
    let valid = async |token: &str| {
        let path = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
        server.call("GET", &path, None, Value::Null).await.ok()["valid"] == true
    };
    assert!(valid("always").await && valid(&once).await && !valid("other").await);
    let path = format!("{V3}/register");
    for (name, token, good) in [
        ("a", "always", true),
        ("b", "always", true),
        ("c", &once, true),
        ("d", &once, false),
    ] {
        let first = server
            .call(
                "POST",
                &path,
                None,
                json!({ "username": name, "password": PASSWORD }),
            )
            .await
            .json();
        let policies = &first["params"]["m.login.terms"]["policies"];
        assert_eq!(policies["privacy"]["en"]["url"], "https://example.org/privacy");
        let session = &first["session"];
        let stage = json!({ "auth": { "type": "m.login.terms", "session": session } });
        let second = server.call("POST", &path, None, stage).await;
        assert_eq!(second.json()["completed"], json!(["m.login.terms"]));
        let stage =
            json!({ "auth": { "type": "m.login.registration_token", "token": token, "session": session } });
        let third = server.call("POST", &path, None, stage).await;
        assert_eq!(third.status, if good { 200 } else { 401 }, "{name}");
    }
    assert!(!valid(&once).await);
}

#[tokio::test]
async fn registration_by_shared_secret() {
    let configure = |config: &mut Config| {
        config.registration = RegistrationMode::Closed;
        config.registration_shared_secret = Some(Secret::new("complement"));
    };
    let server = Server::with(configure, Registrations::default());
    server
        .call("POST", &format!("{V3}/register"), None, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    let path = "/_synapse/admin/v1/register";
    let register = async |name: &str, admin: bool, secret: &str| {
        let nonce = server.call("GET", path, None, Value::Null).await.ok()["nonce"].clone();
        let nonce = nonce.as_str().expect("a nonce");
        let kind = if admin { "admin" } else { "notadmin" };
        let text = format!("{nonce}\0{name}\0{PASSWORD}\0{kind}");
        let mac = mac(secret, &text);
        let body =
            json!({ "nonce": nonce, "username": name, "password": PASSWORD, "admin": admin, "mac": mac });
        let answer = server.call("POST", path, None, body.clone()).await;
        server
            .call("POST", path, None, body)
            .await
            .refused(400, "M_UNKNOWN");
        answer
    };
    assert_eq!(
        register("Root", true, "complement").await.ok()["user_id"],
        "@root:hs1"
    );
    let account = |name: &str| {
        let id = UserId::parse(format!("@{name}:hs1")).expect("an id");
        server
            .app
            .user(&id)
            .expect("a user")
            .account()
            .expect("an account")
    };
    assert!(account("root").admin);
    register("plain", false, "complement").await.ok();
    assert!(!account("plain").admin);
    register("us,er", false, "complement")
        .await
        .refused(400, "M_INVALID_USERNAME");
    register("evil", true, "guess").await.refused(403, "M_FORBIDDEN");
}

pub(super) fn mac(secret: &str, text: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(text.as_bytes());
    mac.finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test]
async fn login_and_logout() {
    let server = Server::new();
    let first = server.user("alice", "FIRST").await;
    let login = async |body: Value| server.call("POST", &format!("{V3}/login"), None, body).await;
    for user in ["alice", "ALICE", "@alice:hs1", "@Alice:hs1"] {
        let mut body = password_auth(user);
        body["device_id"] = "SECOND".into();
        let answer = login(body).await.ok();
        assert_eq!(
            (&answer["user_id"], &answer["device_id"]),
            (&json!("@alice:hs1"), &json!("SECOND"))
        );
    }
    let old_form =
        json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD, "device_id": "SECOND" });
    login(old_form).await.ok();
    for user in ["nobody", "@alice:elsewhere", "", "@", "a b"] {
        login(password_auth(user)).await.refused(403, "M_FORBIDDEN");
    }
    let mut wrong = password_auth("alice");
    wrong["password"] = "wrong".into();
    login(wrong).await.refused(403, "M_FORBIDDEN");
    login(json!({ "type": "m.login.magic" }))
        .await
        .refused(400, "M_UNKNOWN");
    login(json!({ "type": "m.login.password", "password": "x" }))
        .await
        .refused(400, "M_MISSING_PARAM");
    let email = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@b" });
    login(json!({ "type": "m.login.password", "identifier": email, "password": "x" }))
        .await
        .refused(403, "M_FORBIDDEN");
    let devices = server.get(&format!("{V3}/devices"), &first).await.ok();
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(2));
    let second = server.user("alice", "SECOND").await;
    server
        .post(&format!("{V3}/logout"), &second, Value::Null)
        .await
        .ok();
    server
        .get(&format!("{V3}/devices"), &second)
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    let second = server.user("alice", "SECOND").await;
    server
        .post(&format!("{V3}/logout/all"), &second, Value::Null)
        .await
        .ok();
    server
        .get(&format!("{V3}/devices"), &first)
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn login_tokens_and_refresh() {
    let server = Server::new();
    let token = server.user("alice", "FIRST").await;
    let path = "/_matrix/client/v1/login/get_token";
    let challenge = server.post(path, &token, json!({})).await;
    assert_eq!(
        (challenge.status.as_u16(), &challenge.json()["flows"]),
        (401, &json!([{ "stages": ["m.login.password"] }]))
    );
    let given = server
        .post(path, &token, json!({ "auth": password_auth("alice") }))
        .await
        .ok();
    let body = json!({ "type": "m.login.token", "token": given["login_token"], "refresh_token": true });
    let login = format!("{V3}/login");
    let answer = server.call("POST", &login, None, body.clone()).await.ok();
    server
        .call("POST", &login, None, body)
        .await
        .refused(403, "M_FORBIDDEN");
    let access = answer["access_token"].as_str().expect("a token");
    let lifetime = answer["expires_in_ms"].as_u64().expect("a lifetime");
    let whoami = format!("{V3}/account/whoami");
    server.get(&whoami, access).await.ok();
    server.clock.advance(lifetime);
    let expired = server.get(&whoami, access).await.refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(expired["soft_logout"], true);
    let refresh = format!("{V3}/refresh");
    let body = json!({ "refresh_token": answer["refresh_token"] });
    let new = server.call("POST", &refresh, None, body.clone()).await.ok();
    server
        .get(&whoami, new["access_token"].as_str().expect("a token"))
        .await
        .ok();
    server
        .call("POST", &refresh, None, body)
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn devices_are_deleted_after_a_password() {
    let server = Server::new();
    let alice = server.user("alice", "FIRST").await;
    server.user("bob", "BOB").await;
    let second = server.user("alice", "SECOND").await;
    let path = format!("{V3}/devices/SECOND");
    server
        .put(&path, &alice, json!({ "display_name": "Old phone" }))
        .await
        .ok();
    assert_eq!(server.get(&path, &alice).await.ok()["display_name"], "Old phone");
    server
        .put(&format!("{V3}/devices/NONE"), &alice, json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    let delete = async |body: Value| server.call("DELETE", &path, Some(&alice), body).await;
    let challenge = delete(Value::Null).await;
    assert_eq!(challenge.status, 401);
    for key in ["session", "flows", "params"] {
        assert!(challenge.json().get(key).is_some(), "{key}");
    }
    let mut wrong = password_auth("alice");
    wrong["password"] = "wrong".into();
    let refused = delete(json!({ "auth": wrong })).await.refused(401, "M_FORBIDDEN");
    assert!(refused["session"].is_string() && refused["error"].is_string());
    delete(json!({ "auth": password_auth("bob") }))
        .await
        .refused(403, "M_FORBIDDEN");
    server.get(&path, &alice).await.ok();
    delete(json!({ "auth": password_auth("@alice:hs1") })).await.ok();
    server.get(&path, &alice).await.refused(404, "M_NOT_FOUND");
    server.get(&path, &second).await.refused(401, "M_UNKNOWN_TOKEN");
    server.user("alice", "THIRD").await;
    let body = json!({ "devices": ["THIRD", "NONE"], "auth": password_auth("alice") });
    server
        .post(&format!("{V3}/delete_devices"), &alice, body)
        .await
        .ok();
    server
        .get(&format!("{V3}/devices/THIRD"), &alice)
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn password_and_deactivation() {
    let server = Server::new();
    let alice = server.user("alice", "FIRST").await;
    let other = server.user("alice", "SECOND").await;
    let whoami = format!("{V3}/account/whoami");
    let path = format!("{V3}/account/password");
    let body = json!({ "new_password": "an0ther-secret", "auth": password_auth("@alice:hs1") });
    server.post(&path, &alice, body).await.ok();
    server.get(&whoami, &alice).await.ok();
    server.get(&whoami, &other).await.refused(401, "M_UNKNOWN_TOKEN");
    let mut auth = password_auth("alice");
    auth["password"] = "an0ther-secret".into();
    server
        .post(&path, &alice, json!({ "new_password": "short", "auth": auth }))
        .await
        .refused(400, "M_WEAK_PASSWORD");
    server
        .post(&path, &alice, json!({ "auth": auth }))
        .await
        .refused(400, "M_MISSING_PARAM");
    let path = format!("{V3}/account/deactivate");
    server
        .post(&path, &alice, json!({ "auth": password_auth("alice") }))
        .await
        .refused(401, "M_FORBIDDEN");
    server.post(&path, &alice, json!({ "auth": auth })).await.ok();
    server.get(&whoami, &alice).await.refused(401, "M_UNKNOWN_TOKEN");
    let login = server.call("POST", &format!("{V3}/login"), None, auth).await;
    assert_eq!(login.status, 403);
    let again = json!({ "auth": { "type": "m.login.dummy" }, "username": "alice", "password": PASSWORD });
    server
        .call("POST", &format!("{V3}/register"), None, again)
        .await
        .refused(400, "M_USER_IN_USE");
}

#[tokio::test]
async fn locked_and_suspended() {
    let server = Server::new();
    let (admin, alice) = (server.user("admin", "A").await, server.user("alice", "B").await);
    let lock = "/_matrix/client/v1/admin/lock/@alice:hs1";
    let suspend = "/_matrix/client/v1/admin/suspend/@alice:hs1";
    server.get(lock, &alice).await.refused(403, "M_FORBIDDEN");
    server
        .get("/_matrix/client/v1/admin/lock/@nobody:hs1", &alice)
        .await
        .refused(403, "M_FORBIDDEN");
    server
        .get("/_matrix/client/v1/admin/lock/@nobody:hs1", &admin)
        .await
        .refused(404, "M_NOT_FOUND");
    server
        .get("/_matrix/client/v1/admin/lock/@a:elsewhere", &admin)
        .await
        .refused(400, "M_INVALID_PARAM");
    server
        .put(
            "/_matrix/client/v1/admin/lock/@admin:hs1",
            &admin,
            json!({ "locked": true }),
        )
        .await
        .refused(403, "M_FORBIDDEN");
    assert_eq!(
        server.put(lock, &admin, json!({ "locked": true })).await.ok(),
        json!({ "locked": true })
    );
    let refused = server
        .get(&format!("{V3}/account/whoami"), &alice)
        .await
        .refused(401, "M_USER_LOCKED");
    assert_eq!(refused["soft_logout"], true);
    server.put(lock, &admin, json!({ "locked": false })).await.ok();
    server
        .put(suspend, &admin, json!({ "suspended": true }))
        .await
        .ok();
    assert_eq!(
        server.get(suspend, &admin).await.ok(),
        json!({ "suspended": true })
    );
    let name = format!("{V3}/profile/@alice:hs1/displayname");
    server
        .put(&name, &alice, json!({ "displayname": "A" }))
        .await
        .refused(403, "M_USER_SUSPENDED");
    server
        .put(
            &format!("{V3}/sendToDevice/m.key.verification.request/1"),
            &alice,
            json!({ "messages": { "@alice:hs1": { "*": {} } } }),
        )
        .await
        .ok();
    server.get(&format!("{V3}/account/whoami"), &alice).await.ok();
    server.put(lock, &admin, json!({ "locked": true })).await.ok();
    server
        .post(&format!("{V3}/logout"), &alice, Value::Null)
        .await
        .ok();
    let whois = format!("{V3}/admin/whois/@admin:hs1");
    let answer = server.get(&whois, &admin).await.ok();
    assert_eq!(
        answer["devices"]["A"]["sessions"][0]["connections"][0]["ip"],
        "192.0.2.1"
    );
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
