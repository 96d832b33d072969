//! Where accounts and rooms meet.

use serde_json::{Value, json};

use super::*;

async fn shared_room(server: &Server, one: &str, other: &str) -> String {
    let body = json!({ "preset": "public_chat" });
    let room = server.post(&format!("{V3}/createRoom"), one, body).await.ok()["room_id"].clone();
    let room = room.as_str().expect("a room id").to_owned();
    server
        .post(&format!("{V3}/join/{room}"), other, json!({}))
        .await
        .ok();
    room
}

#[tokio::test]
async fn reports_and_mutual_rooms() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let mutual = "/_matrix/client/v1/mutual_rooms";
    let with_bob = format!("{mutual}?user_id=@bob:hs1");
    assert_eq!(
        server.get(&with_bob, &alice).await.ok(),
        json!({ "joined": [], "count": 0 })
    );
    let room = shared_room(&server, &alice, &bob).await;
    assert_eq!(
        server.get(&with_bob, &alice).await.ok(),
        json!({ "joined": [room], "count": 1 })
    );
    server.get(mutual, &alice).await.refused(400, "M_MISSING_PARAM");
    server
        .get(&format!("{mutual}?user_id=@alice:hs1"), &alice)
        .await
        .refused(400, "M_INVALID_PARAM");
    let event = format!("{V3}/rooms/{room}/send/m.room.message/1");
    let sent = server
        .put(&event, &bob, json!({ "msgtype": "m.text", "body": "rude" }))
        .await
        .ok();
    let report = format!(
        "{V3}/rooms/{room}/report/{}",
        sent["event_id"].as_str().expect("an event id")
    );
    server
        .post(&report, &alice, json!({ "reason": "rude", "score": -100 }))
        .await
        .ok();
    server.post(&report, &alice, json!({})).await.ok();
    server
        .post(&report, &alice, Value::Null)
        .await
        .refused(400, "M_NOT_JSON");
    let eve = server.user("eve", "E").await;
    server
        .post(&report, &eve, json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    let unknown = format!("{V3}/rooms/{room}/report/$unknown");
    server
        .post(&unknown, &alice, json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    server
        .post(
            &format!("{V3}/rooms/{room}/report"),
            &eve,
            json!({ "reason": "x" }),
        )
        .await
        .ok();
    server
        .post(
            &format!("{V3}/rooms/!none:hs1/report"),
            &eve,
            json!({ "reason": "x" }),
        )
        .await
        .refused(404, "M_NOT_FOUND");
    assert_eq!(server.app.users.reports().newest(10).expect("reports").len(), 3);
}

#[tokio::test]
async fn a_new_name_reaches_the_rooms_and_a_deactivated_user_leaves_them() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let room = shared_room(&server, &alice, &bob).await;
    let name = format!("{V3}/profile/@bob:hs1/displayname");
    server
        .put(&name, &bob, json!({ "displayname": "Bobby" }))
        .await
        .ok();
    let member = format!("{V3}/rooms/{room}/state/m.room.member/@bob:hs1");
    assert_eq!(server.get(&member, &alice).await.ok()["displayname"], "Bobby");
    let presence = format!("{V3}/presence/@bob:hs1/status");
    server.get(&presence, &alice).await.ok();
    let eve = server.user("eve", "E").await;
    server.get(&presence, &eve).await.refused(403, "M_FORBIDDEN");
    let body = json!({ "auth": password_auth("bob") });
    server
        .post(&format!("{V3}/account/deactivate"), &bob, body)
        .await
        .ok();
    assert_eq!(server.get(&member, &alice).await.ok()["membership"], "leave");
}
