//! What holds for every request.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::extract::Json;

#[tokio::test]
async fn unknown_paths_and_methods() {
    let server = Server::new();
    let check = async |method: &str, path: &str, status: u16| {
        let answer = server.call(method, path, None, Value::Null).await;
        assert_eq!(
            answer.headers["access-control-allow-origin"], "*",
            "{method} {path}"
        );
        assert_eq!(
            answer.headers["content-type"], "application/json",
            "{method} {path}"
        );
        answer.refused(status, "M_UNRECOGNIZED");
    };
    check("GET", "/_matrix/client/v3/nothing", 404).await;
    check("GET", "/_matrix/client/v9/login", 404).await;
    check("GET", "/elsewhere", 404).await;
    check("GET", "/_matrix/client/v1/auth_metadata", 404).await;
    check("GET", "/_synapse/admin/v1/register", 404).await;
    check("DELETE", "/_matrix/client/v3/login", 405).await;
    check("PUT", "/_matrix/client/versions", 405).await;
    check("PATCH", "/_matrix/client/v3/profile/@a:hs1", 405).await;
}

#[tokio::test]
async fn options_are_answered_everywhere() {
    let server = Server::new();
    for path in [
        "/_matrix/client/v3/login",
        "/_matrix/client/v3/account/whoami",
        "/nowhere",
    ] {
        let answer = server.call("OPTIONS", path, None, Value::Null).await;
        assert_eq!(answer.status, 200);
        let header = |name: &str| answer.headers[name].to_str().expect("text").to_owned();
        assert_eq!(header("access-control-allow-origin"), "*");
        assert!(header("access-control-allow-methods").contains("DELETE"));
        assert!(header("access-control-allow-headers").contains("Authorization"));
    }
}

#[tokio::test]
async fn tokens() {
    let server = Server::new();
    let token = server.user("alice", "PHONE").await;
    let whoami = format!("{V3}/account/whoami");
    server
        .call("GET", &whoami, None, Value::Null)
        .await
        .refused(401, "M_MISSING_TOKEN");
    server
        .get(&whoami, "nonsense")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    let answer = server.get(&whoami, &token).await.ok();
    assert_eq!(
        answer,
        json!({ "user_id": "@alice:hs1", "device_id": "PHONE", "is_guest": false })
    );
    for path in [
        format!("{whoami}?access_token={token}"),
        format!("/_matrix/client/r0/account/whoami?access_token={token}"),
    ] {
        server.call("GET", &path, None, Value::Null).await.ok();
    }
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let server = Server::with(
        |config| config.max_request_bytes = 1_000,
        Registrations::default(),
    );
    let body = json!({ "type": "m.login.password", "password": "x".repeat(1_000) });
    server
        .call("POST", &format!("{V3}/login"), None, body)
        .await
        .refused(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn limits_are_told_with_a_time_to_wait() {
    let server = Server::with(|config| config.rate_limits = true, Registrations::default());
    let body = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "wrong",
    });
    let path = format!("{V3}/login");
    let mut refused = None;
    for _ in 0..30 {
        let answer = server.call("POST", &path, None, body.clone()).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 403);
    }
    let refused = refused.expect("guessing is limited");
    assert!(refused.headers.contains_key("retry-after"));
    let json = refused.refused(429, "M_LIMIT_EXCEEDED");
    let wait = json["retry_after_ms"].as_u64().expect("a time");
    server.clock.advance(wait);
    server
        .call("POST", &path, None, body)
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn what_clients_ask_before_registering_uses_up_no_tries() {
    let server = Server::with(|config| config.rate_limits = true, Registrations::default());
    let register = async |body: Value| server.call("POST", &format!("{V3}/register"), None, body).await;
    // A household that registers at one address, as Element Web does it.
    for name in ["ann", "ben", "cas", "dan", "eve", "fay"] {
        assert_eq!(register(json!({})).await.status, 401);
        for typed in 1..=name.len() {
            let path = format!("{V3}/register/available?username={}", &name[..typed]);
            server.call("GET", &path, None, Value::Null).await.ok();
        }
        let mut body = json!({ "username": name, "password": PASSWORD });
        let asked = register(body.clone()).await;
        assert_eq!(asked.status, 401);
        body["auth"] = json!({ "type": "m.login.dummy", "session": asked.json()["session"] });
        register(body).await.ok();
    }
    // Tries themselves are limited.
    let mut refused = 0;
    for number in 0..20 {
        let name = format!("user{number}");
        let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        refused += u32::from(register(body).await.status == 429);
    }
    assert!(refused >= 15, "{refused}");
}

#[tokio::test]
async fn broken_bytes_are_no_json() {
    let server = Server::new();
    let body = Body::from(&b"{ \"test\":\"a\x81\" }"[..]);
    let uri = format!("{V3}/register");
    let request = Request::builder()
        .method("POST")
        .uri(uri)
        .body(body)
        .expect("a request");
    server.send(request).await.refused(400, "M_NOT_JSON");
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let app = Server::new().app;
    let router = axum::Router::new()
        .route(
            "/panic",
            axum::routing::get(async || -> Json<()> { panic!("as the test wants") }),
        )
        .layer(crate::edge::EdgeLayer(app));
    let request = Request::builder()
        .uri("/panic")
        .body(Body::empty())
        .expect("a request");
    let answer = router
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {});
    assert_eq!(answer.status(), 500);
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["errcode"], "M_UNKNOWN");
    assert!(!body.to_string().contains("as the test wants"));
}

/// Rooms before version 6 bound no numbers, and account data none at all. What could not be read again is not taken.
#[tokio::test]
async fn numbers_without_end_are_taken_nowhere() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let room = json!({ "room_version": "5" });
    let room = server.post(&format!("{V3}/createRoom"), &alice, room).await.ok();
    let room = room["room_id"].as_str().expect("a room id");
    for (number, status) in [
        ("9".repeat(400), 400),
        ("1e999".to_owned(), 400),
        ("9".repeat(300), 200),
        ("1.5e300".to_owned(), 200),
    ] {
        for path in [
            format!("rooms/{room}/send/m.room.message/{}", number.len()),
            format!("rooms/{room}/state/org.example"),
            "user/@alice:hs1/account_data/org.example".to_owned(),
        ] {
            let request = Request::builder().method("PUT").uri(format!("{V3}/{path}"));
            let request = request.header("authorization", format!("Bearer {alice}"));
            let body = Body::from(format!(r#"{{"body":"x","number":{number}}}"#));
            let answer = server.send(request.body(body).expect("a request")).await;
            assert_eq!(answer.status, status, "{path} {number}");
        }
    }
    let messages = format!("{V3}/rooms/{room}/messages?dir=b");
    server.get(&messages, &alice).await.ok();
    server.get(&format!("{V3}/initialSync"), &alice).await.ok();
}
