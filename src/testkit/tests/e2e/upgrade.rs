//! Room upgrades.

use hearth_testkit::client::text;
use hearth_testkit::{TestServer, encode};
use serde_json::json;

scenarios!(
    an_upgrade_carries_the_room_over,
    an_upgrade_by_hand_carries_tags,
    the_listing_moves_along
);

async fn an_upgrade_carries_the_room_over(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let eve = server.register("eve").await;
    let old = alice
        .room()
        .version("10")
        .set("name", json!("Den"))
        .set("room_alias_name", json!("den"))
        .with(&bob)
        .build()
        .await;
    alice
        .act(&old, "ban", json!({ "user_id": eve.user_id }))
        .await
        .ok();
    let tags = |room: &str| format!("/user/{}/rooms/{}/tags", encode(&bob.user_id), encode(room));
    bob.put(&format!("{}/m.favourite", tags(&old)), json!({ "order": 0.1 }))
        .await
        .ok();
    bob.put(
        &format!("/pushrules/global/room/{}", encode(&old)),
        json!({ "actions": [] }),
    )
    .await
    .ok();
    bob.act(&old, "upgrade", json!({ "new_version": "12" }))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .act(&old, "upgrade", json!({ "new_version": "99" }))
        .await
        .refused(400, "M_UNSUPPORTED_ROOM_VERSION");
    let new = text(
        &alice
            .act(&old, "upgrade", json!({ "new_version": "12" }))
            .await
            .ok(),
        "replacement_room",
    );
    assert!(!new.contains(':'));
    let create = alice.state(&new, "m.room.create", "").await.ok();
    assert_eq!(
        (&create["room_version"], &create["predecessor"]["room_id"]),
        (&json!("12"), &json!(old))
    );
    assert_eq!(alice.state(&new, "m.room.name", "").await.ok()["name"], "Den");
    assert_eq!(
        alice.state(&old, "m.room.tombstone", "").await.ok()["replacement_room"],
        new.as_str()
    );
    assert_eq!(
        alice.state(&new, "m.room.member", &eve.user_id).await.ok()["membership"],
        "ban"
    );
    bob.send_txn(&old, "m.room.message", "1", json!({ "body": "x" }))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.join(&new).await;
    assert_eq!(
        bob.get(&tags(&new)).await.ok()["tags"],
        json!({ "m.favourite": { "order": 0.1 } })
    );
    bob.get(&format!("/pushrules/global/room/{}", encode(&new)))
        .await
        .ok();
    let found = bob
        .get(&format!("/directory/room/{}", encode("#den:hs1")))
        .await
        .ok();
    assert_eq!(found["room_id"], new.as_str());
    assert_eq!(
        alice.state(&new, "m.room.canonical_alias", "").await.ok()["alias"],
        "#den:hs1"
    );
    eve.act(&new, "join", json!({})).await.refused(403, "M_FORBIDDEN");
}

async fn an_upgrade_by_hand_carries_tags(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let old = alice.room().with(&bob).build().await;
    let tags = |room: &str| format!("/user/{}/rooms/{}/tags", encode(&bob.user_id), encode(room));
    bob.put(&format!("{}/m.lowpriority", tags(&old)), json!({}))
        .await
        .ok();
    let creation = json!({ "predecessor": { "room_id": old, "event_id": "$x" } });
    let new = alice.room().set("creation_content", creation).build().await;
    alice
        .set_state(
            &old,
            "m.room.tombstone",
            "",
            json!({ "body": "gone", "replacement_room": new }),
        )
        .await;
    bob.join(&new).await;
    assert_eq!(
        bob.get(&tags(&new)).await.ok()["tags"],
        json!({ "m.lowpriority": {} })
    );
}

async fn the_listing_moves_along(server: &TestServer) {
    let alice = server.register("alice").await;
    let old = alice
        .room()
        .set("visibility", json!("public"))
        .set("name", json!("Den"))
        .build()
        .await;
    let new = text(
        &alice
            .act(&old, "upgrade", json!({ "new_version": "12" }))
            .await
            .ok(),
        "replacement_room",
    );
    for (room, listed) in [(&old, "private"), (&new, "public")] {
        let found = alice
            .get(&format!("/directory/list/room/{}", encode(room)))
            .await
            .ok();
        assert_eq!(found["visibility"], listed, "{room}");
    }
}
