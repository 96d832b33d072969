//! Cross-signing keys and key backups, as clients use them.

use hearth_events::sign_json;

use super::*;

const ALICE: &str = "@alice:hs1";

fn key(usage: &str, seed: u8) -> (KeyPair, Value) {
    let pair = KeyPair::from_seed([seed; 32], "x").expect("a key");
    let name = pair.public_key_base64();
    let json = json!({ "user_id": ALICE, "usage": [usage], "keys": { format!("ed25519:{name}"): name } });
    (pair, json)
}

fn sign(key: &mut Value, signer: &KeyPair) {
    let object = key.as_object_mut().expect("an object");
    sign_json(object, ALICE, signer).expect("a signature");
    // A cross-signing key is named by itself, which is longer than the name of a server's key.
    let signature = key["signatures"][ALICE]["ed25519:x"].take();
    key["signatures"][ALICE] = json!({ format!("ed25519:{}", signer.public_key_base64()): signature });
}

#[tokio::test]
async fn replacing_cross_signing_keys_needs_the_password() {
    let server = Server::new();
    let token = server.user("alice", "PHONE").await;
    let path = format!("{V3}/keys/device_signing/upload");
    let (master_pair, master) = key("master", 1);
    let (_, other) = key("master", 2);
    let (_, mut self_signing) = key("self_signing", 3);
    let first = json!({ "master_key": master });
    server.post(&path, &token, first.clone()).await.ok();
    server.post(&path, &token, first).await.ok();
    let refused = server.post(&path, &token, json!({ "master_key": other })).await;
    assert_eq!(refused.status, 401);
    let unsigned = json!({ "self_signing_key": self_signing });
    server
        .post(&path, &token, unsigned)
        .await
        .refused(400, "M_INVALID_SIGNATURE");
    sign(&mut self_signing, &master_pair);
    let mut body = json!({ "self_signing_key": self_signing });
    let challenge = server.post(&path, &token, body.clone()).await;
    assert_eq!(challenge.status, 401);
    let mut auth = password_auth("alice");
    auth["session"] = challenge.json()["session"].clone();
    body["auth"] = auth;
    server.post(&path, &token, body.clone()).await.ok();
    server.post(&path, &token, body).await.ok();

    let query = json!({ "device_keys": { ALICE: [] } });
    let found = server.post(&format!("{V3}/keys/query"), &token, query).await.ok();
    assert_eq!(found["self_signing_keys"][ALICE], self_signing);
    assert_eq!(found["master_keys"][ALICE], master);
    let signatures = format!("{V3}/keys/signatures/upload");
    let body = json!({ ALICE: { "TABLET": { "user_id": ALICE } } });
    let answer = server.post(&signatures, &token, body).await.ok();
    assert_eq!(answer["failures"][ALICE]["TABLET"]["errcode"], "M_NOT_FOUND");
    let (_, mut again) = key("master", 1);
    sign(&mut again, &KeyPair::from_seed([9; 32], "x").expect("a key"));
    let name = master_pair.public_key_base64();
    let answer = server
        .post(&signatures, &token, json!({ ALICE: { name.as_str(): again } }))
        .await
        .ok();
    assert_eq!(answer["failures"][ALICE][&name]["errcode"], "M_INVALID_SIGNATURE");
}

#[tokio::test]
async fn keys_are_backed_up_and_restored() {
    let server = Server::new();
    let token = server.user("alice", "PHONE").await;
    let version = format!("{V3}/room_keys/version");
    let keys = format!("{V3}/room_keys/keys");
    server.get(&version, &token).await.refused(404, "M_NOT_FOUND");
    let backup = json!({ "algorithm": "m.megolm_backup.v1", "auth_data": { "public_key": "abc" } });
    let made = server.post(&version, &token, backup.clone()).await.ok();
    assert_eq!(made, json!({ "version": "1" }));
    server.get(&keys, &token).await.refused(400, "M_MISSING_PARAM");
    server
        .get(&format!("{keys}?version=7"), &token)
        .await
        .refused(404, "M_NOT_FOUND");
    let data = json!({
        "first_message_index": 1, "forwarded_count": 0, "is_verified": true, "session_data": { "mac": "x" },
    });
    let one = format!("{keys}/!a:hs1/s%2F1?version=1");
    let state = server.put(&one, &token, data.clone()).await.ok();
    assert_eq!(state["count"], 1);
    assert_eq!(server.get(&one, &token).await.ok(), data);
    let whole = json!({ "rooms": { "!b:hs1": { "sessions": { "t": data } } } });
    let state = server.put(&format!("{keys}?version=1"), &token, whole).await.ok();
    let current = server.get(&version, &token).await.ok();
    assert_eq!((&current["count"], &current["etag"]), (&json!(2), &state["etag"]));
    assert_eq!(current["auth_data"], backup["auth_data"]);
    let all = server.get(&format!("{keys}?version=1"), &token).await.ok();
    assert_eq!(all["rooms"]["!a:hs1"]["sessions"]["s/1"], data);
    assert_eq!(all["rooms"]["!b:hs1"]["sessions"]["t"], data);

    server.post(&version, &token, backup.clone()).await.ok();
    let refused = server
        .put(&one, &token, data)
        .await
        .refused(403, "M_WRONG_ROOM_KEYS_VERSION");
    assert_eq!(refused["current_version"], "2");
    let mut other = backup;
    other["algorithm"] = "m.other".into();
    let first = format!("{version}/1");
    server
        .put(&first, &token, other)
        .await
        .refused(400, "M_INVALID_PARAM");
    server.call("DELETE", &first, Some(&token), json!({})).await.ok();
    server.call("DELETE", &first, Some(&token), json!({})).await.ok();
    server.get(&first, &token).await.refused(404, "M_NOT_FOUND");
}
