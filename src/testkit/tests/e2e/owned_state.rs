//! Room version `org.matrix.msc3757.10`: state that its owner shares with those of more power.

use hearth_testkit::TestServer;
use serde_json::json;

scenarios!(owned_state, without_owned_state);

const KIND: &str = "com.example.test";

/// With separators and sigils, so that the key is hard to take apart.
const SUFFIX: &str = "_state_key_suffix:!@#$123";

async fn owned_state(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let levels = json!({ "events": { KIND: 0 } });
    let body = json!({ "room_version": "org.matrix.msc3757.10", "preset": "public_chat", "power_level_content_override": levels });
    let room = alice.create_room(body).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let (of_bob, of_carol) = (
        format!("{}{SUFFIX}", bob.user_id),
        format!("{}{SUFFIX}", carol.user_id),
    );
    for key in [&of_bob, &bob.user_id] {
        bob.set_state(&room, KIND, key, json!({ "by": "bob" })).await;
        alice.set_state(&room, KIND, key, json!({ "by": "alice" })).await;
    }
    alice.set_state(&room, KIND, "@notinroom:hs2", json!({})).await;
    let misplaced = format!("@prefix_{of_bob}");
    let unseparated = format!("{}{}", bob.user_id, &SUFFIX[1..]);
    for key in [&of_carol, &carol.user_id, &misplaced, &unseparated] {
        bob.try_set_state(&room, KIND, key, json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
    }
    for key in ["@oops".to_owned(), format!("{}@{}", alice.user_id, &SUFFIX[1..])] {
        alice
            .try_set_state(&room, KIND, &key, json!({}))
            .await
            .refused(400, "M_BAD_JSON");
    }
    let long = format!("{}_{}", bob.user_id, "x".repeat(255));
    let event = bob.set_state(&room, KIND, &long, json!({ "long": true })).await;
    assert_eq!(bob.state(&room, KIND, &long).await.ok(), json!({ "long": true }));
    assert_eq!(carol.event(&room, &event).await.ok()["state_key"], long);
    let too_long = format!("{long}x");
    bob.try_set_state(&room, KIND, &too_long, json!({}))
        .await
        .refused(413, "M_TOO_LARGE");
    let capabilities = alice.get("/capabilities").await.ok();
    let versions = &capabilities["capabilities"]["m.room_versions"]["available"];
    assert_eq!(versions["org.matrix.msc3757.10"], "unstable");
    assert_eq!(versions["12"], "stable");
}

async fn without_owned_state(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let levels = json!({ "events": { KIND: 0 } });
    let body =
        json!({ "room_version": "10", "preset": "public_chat", "power_level_content_override": levels });
    let room = alice.create_room(body).await;
    bob.join(&room).await;
    bob.set_state(&room, KIND, &bob.user_id, json!({})).await;
    let of_alice = format!("{}{SUFFIX}", alice.user_id);
    let of_bob = format!("{}{SUFFIX}", bob.user_id);
    for key in [&of_alice, &of_bob, &bob.user_id, "@notinroom:hs2", "@oops"] {
        alice
            .try_set_state(&room, KIND, key, json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
    }
}
