//! The rooms that two users share, at the stable path and at the unstable one that clients still ask (MSC2666).

use hearth_testkit::{TestServer, encode};
use serde_json::json;

scenarios!(shared_rooms_are_told, many_shared_rooms_come_by_pages);

const STABLE: &str = "/_matrix/client/v1/mutual_rooms";
const UNSTABLE: &str = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms";

async fn shared_rooms_are_told(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let shared = alice.room().with(&bob).build().await;
    alice.room().build().await;
    let left = alice.room().with(&bob).build().await;
    bob.leave(&left).await;
    for path in [STABLE, UNSTABLE] {
        let of = |user: &str| format!("{path}?user_id={}", encode(user));
        let answer = bob.get(&of(&alice.user_id)).await.ok();
        assert_eq!(answer, json!({ "joined": [shared], "count": 1 }), "{path}");
        let nobody = bob.get(&of("@nobody:elsewhere.example")).await.ok();
        assert_eq!(nobody, json!({ "joined": [], "count": 0 }), "{path}");
        bob.get(&of(&bob.user_id)).await.refused(400, "M_INVALID_PARAM");
        bob.get(path).await.refused(400, "M_MISSING_PARAM");
    }
    let versions = bob.get("/_matrix/client/versions").await.ok();
    assert_eq!(
        versions["unstable_features"]["uk.half-shot.msc2666.query_mutual_rooms"],
        true
    );
}

async fn many_shared_rooms_come_by_pages(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..101 {
        rooms.push(alice.room().with(&bob).build().await);
    }
    rooms.sort();
    for (path, asks, tells) in [
        (STABLE, "from", "next_batch"),
        (UNSTABLE, "batch_token", "next_batch_token"),
    ] {
        let first = format!("{path}?user_id={}", encode(&alice.user_id));
        let page = bob.get(&first).await.ok();
        assert_eq!(page["count"], 101);
        let token = page[tells].as_str().expect("a second page");
        let opaque = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
        assert!(
            !token.is_empty() && token.len() <= 255 && token.chars().all(opaque),
            "{token}"
        );
        let rest = bob.get(&format!("{first}&{asks}={token}")).await.ok();
        assert!(rest.get(tells).is_none(), "{rest}");
        let joined = [&page, &rest]
            .into_iter()
            .flat_map(|page| page["joined"].as_array());
        let mut seen: Vec<_> = joined.flatten().filter_map(|room| room.as_str()).collect();
        seen.sort();
        assert_eq!(seen, rooms);
    }
}
