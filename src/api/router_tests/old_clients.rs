//! What clients of long standing send beside the words of the specification.

use serde_json::json;

use super::*;

#[tokio::test]
async fn an_empty_token_is_no_token() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let room = server
        .post(&format!("{V3}/createRoom"), &alice, json!({}))
        .await
        .ok();
    let room = room["room_id"].as_str().expect("a room").to_owned();
    let messages = format!("{V3}/rooms/{room}/messages?dir=f&limit=1");
    let first = server.get(&messages, &alice).await.ok();
    let created = first["chunk"][0]["event_id"].as_str().expect("an event");
    let v1 = format!("/_matrix/client/v1/rooms/{room}");
    for (path, empty) in [
        (format!("{V3}/rooms/{room}/messages?dir=b"), "from="),
        (format!("{V3}/rooms/{room}/messages?dir=f"), "from="),
        (format!("{V3}/rooms/{room}/messages?dir=b"), "to="),
        (format!("{V3}/rooms/{room}/messages?dir=f"), "from=&to="),
        (format!("{v1}/threads?limit=3"), "from="),
        (format!("{v1}/hierarchy?limit=3"), "from="),
    ] {
        let plain = server.get(&path, &alice).await.ok();
        let found = server.get(&format!("{path}&{empty}"), &alice).await.ok();
        assert_eq!(found, plain, "{path} {empty}");
    }
    let relations = format!("{v1}/relations/{created}");
    let plain = server.get(&relations, &alice).await.ok();
    let found = server.get(&format!("{relations}?from=&to="), &alice).await.ok();
    assert_eq!(found, plain);
}
