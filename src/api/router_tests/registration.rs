//! Registration: with a dummy stage, tokens and terms, and by a shared secret.

use hearth_core::config::{Policy, RegistrationMode, Secret};
use serde_json::{Value, json};

use super::appservices::appservices;
use super::*;

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
    let profile = format!("{V3}/profile/@root:hs1");
    let profile = server.call("GET", &profile, None, Value::Null).await.ok();
    assert_eq!(profile, json!({ "displayname": "root" }));
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
