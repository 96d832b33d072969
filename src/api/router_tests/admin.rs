//! Administration by paths that other servers made common.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_removal_that_is_not_whole_is_refused() {
    let server = Server::new();
    let admin = server.user("admin", "A").await;
    let room = server
        .post(&format!("{V3}/createRoom"), &admin, json!({}))
        .await
        .ok();
    let room = room["room_id"].as_str().expect("a room").to_owned();
    let path = format!("/_synapse/admin/v1/rooms/{room}");
    let remove = |body: Value| server.call("DELETE", &path, Some(&admin), body);
    for body in [
        json!({ "purge": false }),
        json!({ "block": true, "purge": true }),
        json!({ "new_room_user_id": "@admin:hs1", "message": "Closed" }),
    ] {
        remove(body).await.refused(400, "M_INVALID_PARAM");
    }
    let joined = format!("{V3}/joined_rooms");
    assert_eq!(
        server.get(&joined, &admin).await.ok()["joined_rooms"],
        json!([room])
    );
    // What tools send for a whole removal.
    let whole = json!({ "purge": true, "block": false, "force_purge": true });
    remove(whole).await.ok();
    assert_eq!(server.get(&joined, &admin).await.ok()["joined_rooms"], json!([]));
}
