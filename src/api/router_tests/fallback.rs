//! Stages of authentication on pages, and what else of accounts is easily forgotten.

use hearth_core::config::{Policy, RegistrationMode, Secret};
use serde_json::{Value, json};

use super::*;

/// A server that asks for terms and a token, and the session of a registration.
async fn asking() -> (Server, String) {
    let server = Server::with(
        |config| {
            config.registration = RegistrationMode::Token;
            config.registration_tokens = vec![Secret::new("always")];
            config.terms = vec![Policy {
                id: "privacy".into(),
                version: "1".into(),
                name: "Privacy & <more>".into(),
                url: "https://example.org/privacy?a=1&b=2".into(),
                language: "en".into(),
            }];
        },
        Registrations::default(),
    );
    let body = json!({ "username": "carol", "password": PASSWORD });
    let challenge = server
        .call("POST", &format!("{V3}/register"), None, body)
        .await
        .json();
    let session = challenge["session"].as_str().expect("a session").to_owned();
    (server, session)
}

async fn page(server: &Server, path: &str) -> (u16, String, HeaderMap) {
    let answer = server.call("GET", path, None, Value::Null).await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    (answer.status.as_u16(), text, answer.headers)
}

async fn submit(server: &Server, path: &str, form: &str) -> (u16, String) {
    let request = Request::builder()
        .method("POST")
        .uri(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(form.to_owned()))
        .expect("a request");
    let answer = server.send(request).await;
    (
        answer.status.as_u16(),
        String::from_utf8_lossy(&answer.body).into_owned(),
    )
}

fn at(stage: &str) -> String {
    format!("{V3}/auth/{stage}/fallback/web")
}

#[tokio::test]
async fn a_registration_by_pages() {
    let (server, session) = asking().await;
    let terms = format!("{}?session={session}", at("m.login.terms"));
    let (status, text, headers) = page(&server, &terms).await;
    assert_eq!(status, 200);
    assert!(
        text.contains("Privacy &amp; &lt;more&gt;") && text.contains("a=1&amp;b=2"),
        "{text}"
    );
    let policy = headers["content-security-policy"].to_str().expect("text");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let token = at("m.login.registration_token");
    let (status, _) = submit(&server, &token, &format!("session={session}&answer=always")).await;
    assert_eq!(status, 409, "the terms come first");
    let (status, text) = submit(&server, &at("m.login.terms"), &format!("session={session}")).await;
    assert!(status == 200 && text.contains("window.onAuthDone()"), "{text}");
    let (_, text, _) = page(&server, &terms).await;
    assert!(text.contains("postMessage(\"authDone\", \"*\")"), "{text}");
    let (status, text) = submit(&server, &token, &format!("session={session}&answer=%3Cwrong%3E")).await;
    assert!(status == 200 && text.contains("not valid"), "{text}");
    let (_, text) = submit(&server, &token, &format!("session={session}&answer=always")).await;
    assert!(text.contains("window.onAuthDone()"), "{text}");
    // As the specification's example does: nothing but the session.
    let path = format!("{V3}/register");
    let done = server.call("POST", &path, None, json!({ "auth": { "session": session } }));
    assert_eq!(done.await.ok()["user_id"], "@carol:hs1");
    assert_eq!(page(&server, &terms).await.0, 404, "the session is used up");
}

#[tokio::test]
async fn pages_refuse() {
    let (server, session) = asking().await;
    let get = async |path: &str| server.call("GET", path, None, Value::Null).await;
    get(&format!("{}?session={session}", at("m.login.recaptcha")))
        .await
        .refused(404, "M_UNRECOGNIZED");
    get(&at("m.login.terms")).await.refused(400, "M_MISSING_PARAM");
    assert_eq!(
        page(&server, &format!("{}?session=x", at("m.login.terms")))
            .await
            .0,
        404
    );
    let password = format!("{}?session={session}", at("m.login.password"));
    assert_eq!(page(&server, &password).await.0, 404, "it is not asked for");
    for form in ["", "answer=1", "session", "session=%ff", "\u{0}"] {
        let (status, _) = submit(&server, &at("m.login.terms"), form).await;
        assert!((400..500).contains(&status), "{form:?}: {status}");
    }
}

#[tokio::test]
async fn a_password_on_a_page() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    server.user("alice", "B").await;
    let path = format!("{V3}/devices/B");
    let challenge = server.call("DELETE", &path, Some(&alice), json!({})).await.json();
    let session = challenge["session"].as_str().expect("a session");
    let (status, text, _) = page(&server, &format!("{}?session={session}", at("m.login.password"))).await;
    assert!(status == 200 && text.contains("@alice:hs1"), "{text}");
    let at = at("m.login.password");
    let (_, text) = submit(&server, &at, &format!("session={session}&answer=wrong")).await;
    assert!(text.contains("not your password"), "{text}");
    submit(&server, &at, &format!("session={session}&answer={PASSWORD}")).await;
    let only_session = json!({ "auth": { "session": session } });
    server
        .call("DELETE", &path, Some(&alice), only_session)
        .await
        .ok();
    server.get(&path, &alice).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn the_login_page() {
    let server = Server::new();
    for path in ["/_matrix/static/client/login/", "/_matrix/static/client/login"] {
        let (status, text, headers) = page(&server, path).await;
        assert!(
            status == 200 && text.contains("window.matrixLogin.onLogin"),
            "{text}"
        );
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        let policy = headers["content-security-policy"].to_str().expect("text");
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .and_then(|rest| rest.split('\'').next())
            .expect("a nonce");
        assert!(text.contains(&format!("<script nonce=\"{nonce}\">")), "{text}");
    }
}

#[tokio::test]
async fn sessions_of_authentication_are_of_one_device() {
    let server = Server::new();
    let (one, two) = (server.user("alice", "A").await, server.user("alice", "B").await);
    let path = format!("{V3}/devices/C");
    let challenge = server.call("DELETE", &path, Some(&one), json!({})).await.json();
    let mut auth = password_auth("alice");
    auth["session"] = challenge["session"].clone();
    let other = server
        .call("DELETE", &path, Some(&two), json!({ "auth": auth }))
        .await;
    let other = other.refused(401, "M_UNKNOWN");
    assert_ne!(other["session"], challenge["session"]);
    let identifier = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@b" });
    auth["identifier"] = identifier;
    server
        .call("DELETE", &path, Some(&one), json!({ "auth": auth }))
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn guesses_at_the_password_are_counted_everywhere() {
    let server = Server::with(
        |config| {
            config.rate_limits = true;
            config.rate_limit.login.burst = 8;
        },
        Registrations::default(),
    );
    let alice = server.user("alice", "A").await;
    let mut auth = password_auth("alice");
    auth["password"] = "wrong".into();
    let mut refused = 0;
    for _ in 0..20 {
        let body = json!({ "devices": ["B"], "auth": auth });
        let answer = server.post(&format!("{V3}/delete_devices"), &alice, body).await;
        refused += u32::from(answer.status == 429);
    }
    assert!(refused >= 10, "{refused}");
}

#[tokio::test]
async fn a_locked_account_gets_no_new_tokens() {
    let server = Server::new();
    server.user("alice", "A").await;
    let mut body = password_auth("alice");
    body["refresh_token"] = true.into();
    let login = server.call("POST", &format!("{V3}/login"), None, body).await.ok();
    let id = UserId::parse("@alice:hs1").expect("an id");
    let user = server.app.user(&id).expect("a user");
    user.set_locked(true).await.expect("locked");
    let body = json!({ "refresh_token": login["refresh_token"] });
    let path = format!("{V3}/refresh");
    let refused = server.call("POST", &path, None, body.clone()).await;
    assert_eq!(refused.refused(401, "M_USER_LOCKED")["soft_logout"], true);
    user.set_locked(false).await.expect("unlocked");
    server.call("POST", &path, None, body).await.ok();
}

#[tokio::test]
async fn nothing_is_left_to_unbind() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let body = json!({ "auth": password_auth("alice") });
    let done = server
        .post(&format!("{V3}/account/deactivate"), &alice, body)
        .await;
    assert_eq!(done.ok(), json!({ "id_server_unbind_result": "success" }));
}

#[tokio::test]
async fn devices_of_application_services() {
    let text = "id: bridge\nurl: null\nas_token: bridge-token\nhs_token: h\nsender_localpart: bridge\n\
        namespaces:\n  users:\n  - {exclusive: true, regex: '@_irc_.*'}\n";
    let files = vec![(std::path::PathBuf::from("bridge.yaml"), text.to_owned())];
    let appservices = Registrations::from_texts(files, &"hs1".try_into().expect("a name"));
    let server = Server::with(|_| {}, appservices.expect("a registration"));
    let token = "bridge-token";
    let register =
        json!({ "type": "m.login.application_service", "username": "_irc_a", "inhibit_login": true });
    server.post(&format!("{V3}/register"), token, register).await.ok();
    let as_user = "user_id=@_irc_a:hs1";
    let path = format!("{V3}/devices/BOT?{as_user}");
    let body = json!({ "display_name": "Bridge" });
    let made = server.put(&path, token, body.clone()).await;
    assert_eq!((made.status.as_u16(), made.json()), (201, json!({})));
    assert_eq!(server.put(&path, token, body).await.status, 200);
    for name in ["device_id", "org.matrix.msc3202.device_id"] {
        let whoami = format!("{V3}/account/whoami?{as_user}&{name}=BOT");
        assert_eq!(server.get(&whoami, token).await.ok()["device_id"], "BOT");
        let whoami = format!("{V3}/account/whoami?{as_user}&{name}=NONE");
        server.get(&whoami, token).await.refused(400, "M_UNKNOWN_DEVICE");
    }
    server.call("DELETE", &path, Some(token), Value::Null).await.ok();
    server.get(&path, token).await.refused(404, "M_NOT_FOUND");
    let capabilities = format!("{V3}/capabilities?{as_user}");
    let capabilities = server.get(&capabilities, token).await.ok();
    assert_eq!(
        capabilities["capabilities"]["m.change_password"]["enabled"],
        false
    );
    let alice = server.user("alice", "A").await;
    server
        .put(&format!("{V3}/devices/NEW"), &alice, json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn who_knows_the_secret_makes_many_accounts() {
    let server = Server::with(
        |config| {
            config.rate_limits = true;
            config.registration_shared_secret = Some(Secret::new("complement"));
        },
        Registrations::default(),
    );
    let path = "/_synapse/admin/v1/register";
    let register = async |name: &str, secret: &str| {
        let nonce = server.call("GET", path, None, Value::Null).await.ok()["nonce"].clone();
        let nonce = nonce.as_str().expect("a nonce");
        let mac = super::registration::mac(secret, &format!("{nonce}\0{name}\0{PASSWORD}\0notadmin"));
        let body = json!({ "nonce": nonce, "username": name, "password": PASSWORD, "mac": mac });
        server.call("POST", path, None, body).await
    };
    for number in 0..40 {
        register(&format!("user{number}"), "complement").await.ok();
    }
    let mut refused = 0;
    for number in 0..40 {
        refused += u32::from(register(&format!("other{number}"), "guess").await.status == 429);
    }
    assert!(refused > 20, "{refused}");
}
