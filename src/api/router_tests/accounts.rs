//! Accounts, sessions and devices, as clients use them.

use serde_json::{Value, json};

use super::*;

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
