//! POST /createRoom.

use hearth_testkit::{TestServer, encode};
use serde_json::json;

scenarios!(
    presets,
    alias_name_topic_and_initial_state,
    power_override,
    to_replace_a_room_takes_more_than_its_state,
    every_room_version,
    refused_rooms_leave_nothing
);

async fn presets(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for (preset, join_rule, guests) in [
        ("private_chat", "invite", "can_join"),
        ("trusted_private_chat", "invite", "can_join"),
        ("public_chat", "public", "forbidden"),
    ] {
        for version in ["11", "12"] {
            let body = json!({ "preset": preset, "room_version": version, "invite": [bob.user_id], "is_direct": true });
            let room = alice.create_room(body).await;
            let rule = alice.state(&room, "m.room.join_rules", "").await.ok();
            assert_eq!(rule["join_rule"], join_rule, "{preset}");
            // The conformance suite counts the events: what forbids guests is the absence of one.
            let guest = alice.state(&room, "m.room.guest_access", "").await;
            match guests {
                "forbidden" => drop(guest.refused(404, "M_NOT_FOUND")),
                guests => assert_eq!(guest.ok()["guest_access"], guests, "{preset}"),
            }
            let history = alice.state(&room, "m.room.history_visibility", "").await.ok();
            assert_eq!(history["history_visibility"], "shared", "{preset}");
            let member = alice.state(&room, "m.room.member", &bob.user_id).await.ok();
            assert_eq!(
                (&member["membership"], &member["is_direct"]),
                (&json!("invite"), &json!(true))
            );
            bob.join(&room).await;
            let trusted = preset == "trusted_private_chat";
            let may = bob
                .try_set_state(&room, "m.room.name", "", json!({ "name": "x" }))
                .await
                .status
                == 200;
            assert_eq!(may, trusted, "{preset} in version {version}");
        }
    }
    let private = alice.create_room(json!({ "visibility": "private" })).await;
    assert_eq!(
        alice.state(&private, "m.room.join_rules", "").await.ok()["join_rule"],
        "invite"
    );
    let public = alice.create_room(json!({ "visibility": "public" })).await;
    assert_eq!(
        alice.state(&public, "m.room.join_rules", "").await.ok()["join_rule"],
        "public"
    );
}

async fn alias_name_topic_and_initial_state(server: &TestServer) {
    let alice = server.register("alice").await;
    let body = json!({
        "room_alias_name": "den",
        "name": "The den",
        "topic": "Bears",
        "preset": "public_chat",
        "initial_state": [
            { "type": "m.room.join_rules", "content": { "join_rule": "knock" } },
            { "type": "org.example.set", "state_key": "k", "content": { "a": 1 } },
        ],
        "creation_content": { "m.federate": false, "type": "m.space" },
    });
    let room = alice.create_room(body.clone()).await;
    let found = alice
        .get(&format!("/directory/room/{}", encode("#den:hs1")))
        .await
        .ok();
    assert_eq!(found["room_id"], room.as_str());
    for (kind, key, member, value) in [
        ("m.room.canonical_alias", "", "alias", json!("#den:hs1")),
        ("m.room.name", "", "name", json!("The den")),
        ("m.room.topic", "", "topic", json!("Bears")),
        ("m.room.join_rules", "", "join_rule", json!("knock")),
        ("org.example.set", "k", "a", json!(1)),
        ("m.room.create", "", "type", json!("m.space")),
        ("m.room.create", "", "m.federate", json!(false)),
    ] {
        assert_eq!(alice.state(&room, kind, key).await.ok()[member], value, "{kind}");
    }
    alice
        .post("/createRoom", body)
        .await
        .refused(400, "M_ROOM_IN_USE");
}

async fn power_override(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let levels = json!({ "events_default": 10, "events": { "org.example.open": 0 } });
    let room = alice
        .room()
        .set("power_level_content_override", levels)
        .with(&bob)
        .build()
        .await;
    bob.send_txn(&room, "m.room.message", "1", json!({ "body": "hi" }))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.send(&room, "org.example.open", json!({})).await;
    alice.say(&room, "hi").await;
}

/// In version 12 also where the client's own levels say nothing of it (POST /createRoom, step 3).
async fn to_replace_a_room_takes_more_than_its_state(server: &TestServer) {
    let alice = server.register("alice").await;
    for (levels, expected) in [
        (json!({}), 150),
        (json!({ "events": { "m.room.name": 0 } }), 150),
        (json!({ "state_default": 200 }), 201),
        (json!({ "state_default": 200, "events": {} }), 201),
        (json!({ "events": { "m.room.tombstone": 60 } }), 60),
    ] {
        let body = json!({ "room_version": "12", "power_level_content_override": levels });
        let room = alice.create_room(body).await;
        let content = alice.state(&room, "m.room.power_levels", "").await.ok();
        assert_eq!(content["events"]["m.room.tombstone"], expected, "{levels}");
    }
}

async fn every_room_version(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for version in 1..=12 {
        let room = alice
            .room()
            .version(&version.to_string())
            .with(&bob)
            .build()
            .await;
        assert_eq!(room.contains(':'), version < 12, "{room} of version {version}");
        let create = alice.get(&format!("/rooms/{}/state", encode(&room))).await.ok();
        let create = create
            .as_array()
            .and_then(|list| list.iter().find(|event| event["type"] == "m.room.create"))
            .cloned();
        let create = create.expect("a create event");
        assert_eq!(create["room_id"], room.as_str(), "version {version}");
        assert_eq!(create["content"]["room_version"], version.to_string(), "{create}");
        assert_eq!(
            create["content"].get("creator").is_some(),
            version < 11,
            "{create}"
        );
        let said = bob.say(&room, "hello").await;
        assert_eq!(said.contains(':'), version < 3, "{said} of version {version}");
        let redaction = alice.redact(&room, &said).await;
        let redacted = bob.event(&room, &said).await.ok();
        assert_eq!(redacted["content"], json!({}), "version {version}");
        assert_eq!(
            redacted["unsigned"]["redacted_because"]["event_id"],
            redaction.as_str()
        );
        let redaction = bob.event(&room, &redaction).await.ok();
        assert_eq!(
            (&redaction["redacts"], &redaction["content"]["redacts"]),
            (&json!(said), &json!(said))
        );
        alice
            .act(&room, "kick", json!({ "user_id": bob.user_id, "reason": "r" }))
            .await
            .ok();
        bob.join(&room).await;
        bob.try_set_state(&room, "m.room.topic", "", json!({ "topic": "t" }))
            .await
            .refused(403, "M_FORBIDDEN");
        alice
            .set_state(&room, "m.room.topic", "", json!({ "topic": "t" }))
            .await;
        if version == 12 {
            assert_eq!(create["event_id"].as_str().map(|id| &id[1..]), Some(&room[1..]));
            let levels = json!({ "users": { alice.user_id.clone(): 100 } });
            let refused = alice
                .try_set_state(&room, "m.room.power_levels", "", levels)
                .await;
            assert_eq!(
                refused.status,
                400,
                "a creator is listed in power levels: {}",
                refused.text()
            );
        }
    }
}

async fn refused_rooms_leave_nothing(server: &TestServer) {
    let alice = server.register("alice").await;
    alice
        .post("/createRoom", json!({ "room_version": "99" }))
        .await
        .refused(400, "M_UNSUPPORTED_ROOM_VERSION");
    let body = json!({
        "room_alias_name": "x",
        "power_level_content_override": { "users": { "@alice:hs1": "lots" } },
        "room_version": "11",
    });
    let answer = alice.post("/createRoom", body).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    alice
        .get(&format!("/directory/room/{}", encode("#x:hs1")))
        .await
        .refused(404, "M_NOT_FOUND");
    let rooms = alice.get("/joined_rooms").await.ok();
    assert_eq!(rooms["joined_rooms"], json!([]));
    alice.create_room(json!({ "room_alias_name": "x" })).await;
}
