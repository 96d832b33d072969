//! Rooms that are replaced by one of another version.

use super::*;

/// A room of a version with levels of its own, and what it is replaced by.
async fn replaced(server: &Server, alice: &str, room: Value, body: Value) -> (String, String) {
    let old = server.post(&format!("{V3}/createRoom"), alice, room).await.ok();
    let old = old["room_id"].as_str().expect("a room id").to_owned();
    let upgrade = format!("{V3}/rooms/{old}/upgrade");
    let new = server.post(&upgrade, alice, body).await.ok();
    let new = new["replacement_room"].as_str().expect("a room id").to_owned();
    (old, new)
}

/// Before version 10 levels may be strings, and before 6 fractions too; the versions after refuse both.
#[tokio::test]
async fn levels_that_are_no_integers_are_carried_over_as_what_they_count() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    let strings = json!({
        "ban": "60",
        "users_default": "20",
        "events": { "m.room.name": "70" },
        "users": { "@alice:hs1": "100", "@bob:hs1": " 50 " },
    });
    let mut fractions = strings.clone();
    fractions["invite"] = json!(30.5);
    for (old, new, levels) in [
        ("9", "10", &strings),
        ("9", "12", &strings),
        ("5", "11", &fractions),
        ("5", "12", &fractions),
    ] {
        let mut room = json!({ "room_version": old, "power_level_content_override": levels });
        if old == "5" {
            let content = json!({ "algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": 5.0 });
            room["initial_state"] = json!([{ "type": "m.room.encryption", "content": content }]);
        }
        let body = json!({ "new_version": new });
        let (before, room) = replaced(&server, &alice, room, body).await;
        let levels = format!("{V3}/rooms/{room}/state/m.room.power_levels");
        let now = server.get(&levels, &alice).await.ok();
        assert_eq!(now["ban"], 60, "{old} to {new}");
        assert_eq!(now["users_default"], 20, "{old} to {new}");
        assert_eq!(now["events"]["m.room.name"], 70, "{old} to {new}");
        assert_eq!(now["users"]["@bob:hs1"], 50, "{old} to {new}");
        if old == "5" {
            let encryption = format!("{V3}/rooms/{room}/state/m.room.encryption");
            let encryption = server.get(&encryption, &alice).await.ok();
            assert_eq!(encryption["rotation_period_ms"], 5, "{old} to {new}");
        }
        // Nobody talks on in the old room who has no more than everybody.
        let levels = format!("{V3}/rooms/{before}/state/m.room.power_levels");
        let closed = server.get(&levels, &alice).await.ok();
        assert_eq!(closed["events_default"], 50, "{old} to {new}");
    }
}

/// Who made a room of version 12 can do everything in what replaces it, of whatever version that is.
#[tokio::test]
async fn creators_can_replace_the_room_once_more() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice", "A").await, server.user("bob", "B").await);
    let room = json!({
        "room_version": "12",
        "preset": "public_chat",
        "creation_content": { "additional_creators": ["@bob:hs1"] },
    });
    let (_, new) = replaced(&server, &alice, room, json!({ "new_version": "11" })).await;
    server
        .post(&format!("{V3}/rooms/{new}/join"), &bob, json!({}))
        .await
        .ok();
    for token in [&bob, &alice] {
        let again = json!({ "new_version": "11" });
        server
            .post(&format!("{V3}/rooms/{new}/upgrade"), token, again)
            .await
            .ok();
    }
}

/// From version 12 on the tombstone takes more than the state of the room, and no less than it took before.
#[tokio::test]
async fn the_level_of_the_tombstone_stays_above_that_of_the_state() {
    let server = Server::new();
    let alice = server.user("alice", "A").await;
    for (levels, expected) in [
        (json!({}), 150),
        (json!({ "state_default": 300 }), 301),
        (json!({ "events": { "m.room.tombstone": 200 } }), 200),
    ] {
        let room = json!({ "room_version": "12", "power_level_content_override": levels });
        let (_, new) = replaced(&server, &alice, room, json!({ "new_version": "12" })).await;
        let levels_now = format!("{V3}/rooms/{new}/state/m.room.power_levels");
        let now = server.get(&levels_now, &alice).await.ok();
        assert_eq!(now["events"]["m.room.tombstone"], expected, "{levels}");
    }
}
