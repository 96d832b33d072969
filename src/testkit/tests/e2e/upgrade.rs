//! Room upgrades.

use hearth_testkit::client::text;
use hearth_testkit::{TestServer, encode};
use serde_json::json;

scenarios!(
    an_upgrade_carries_the_room_over,
    an_upgrade_by_hand_carries_tags,
    the_listing_moves_along,
    whoever_may_replace_a_room_can_set_up_the_new_one,
    a_space_keeps_its_children
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
    alice
        .try_set_state(&old, "m.room.tombstone", "", json!({ "replacement_room": old }))
        .await
        .refused(400, "M_INVALID_PARAM");
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

/// A moderator who may send the tombstone has less power than the levels ask for in other places: the new room has them
/// all the same, and the moderator no more power than before.
async fn whoever_may_replace_a_room_can_set_up_the_new_one(server: &TestServer) {
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    for version in ["11", "12"] {
        let old = alice
            .room()
            .version("10")
            .set("name", json!("Den"))
            .with(&bob)
            .build()
            .await;
        let mut levels = alice.state(&old, "m.room.power_levels", "").await.ok();
        levels["users"][&bob.user_id] = json!(50);
        levels["users"][&eve.user_id] = json!(70);
        levels["events"]["m.room.tombstone"] = json!(50);
        alice
            .set_state(&old, "m.room.power_levels", "", levels.clone())
            .await;
        alice
            .act(&old, "ban", json!({ "user_id": eve.user_id }))
            .await
            .ok();
        let body = json!({ "new_version": version, "additional_creators": [alice.user_id] });
        let new = text(&bob.act(&old, "upgrade", body).await.ok(), "replacement_room");
        let now = bob.state(&new, "m.room.power_levels", "").await.ok();
        let create = bob.state(&new, "m.room.create", "").await.ok();
        if version == "11" {
            assert_eq!(now["users"][&bob.user_id], 50);
            assert_eq!(now["users"][&alice.user_id], 100);
            assert!(create.get("additional_creators").is_none(), "{create}");
        } else {
            assert_eq!(create["additional_creators"], json!([alice.user_id]));
        }
        assert_eq!(now["users"][&eve.user_id], 70);
        let eve_now = bob.state(&new, "m.room.member", &eve.user_id).await.ok();
        assert_eq!(eve_now["membership"], "ban");
        assert_eq!(bob.state(&new, "m.room.name", "").await.ok()["name"], "Den");
    }
}

async fn a_space_keeps_its_children(server: &TestServer) {
    let alice = server.register("alice").await;
    let child = alice.room().build().await;
    let gone = alice.room().build().await;
    let space = alice
        .room()
        .set("creation_content", json!({ "type": "m.space" }))
        .state(
            "m.space.child",
            &child,
            json!({ "via": ["hs1"], "suggested": true }),
        )
        .state("m.space.child", &gone, json!({}))
        .build()
        .await;
    let upgraded = alice.act(&space, "upgrade", json!({ "new_version": "12" })).await;
    let new = text(&upgraded.ok(), "replacement_room");
    let kept = alice.state(&new, "m.space.child", &child).await.ok();
    assert_eq!(kept, json!({ "via": ["hs1"], "suggested": true }));
    alice
        .state(&new, "m.space.child", &gone)
        .await
        .refused(404, "M_NOT_FOUND");
    let path = format!("/_matrix/client/v1/rooms/{}/hierarchy?limit=1", encode(&new));
    let page = alice.get(&path).await.ok();
    assert_eq!(page["rooms"][0]["room_id"], new.as_str());
    let next = encode(page["next_batch"].as_str().unwrap_or_default());
    let rest = alice.get(&format!("{path}&from={next}")).await.ok();
    assert_eq!(rest["rooms"][0]["room_id"], child.as_str());
    alice
        .get(&format!("{path}&max_depth=1&from={next}"))
        .await
        .refused(400, "M_INVALID_PARAM");
}
