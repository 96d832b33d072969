//! A one-time key goes to one claimer only.

use std::collections::BTreeMap;

use hearth_testkit::{Client, TestServer};
use serde_json::{Value, json};

scenarios!(
    two_claimers_at_once_get_different_keys,
    a_claimed_key_stays_claimed_after_a_crash,
);

const KEYS: usize = 40;

fn upload(of: &Client, count: usize) -> Value {
    let key = |number: usize| {
        let value = json!({ "key": format!("k{number}"), "signatures": { of.user_id.clone(): {} } });
        (format!("signed_curve25519:k{number}"), value)
    };
    json!({ "one_time_keys": (0..count).map(key).collect::<serde_json::Map<_, _>>() })
}

async fn claim(by: &Client, of: &Client) -> Option<String> {
    let body =
        json!({ "one_time_keys": { of.user_id.clone(): { of.device_id.clone(): "signed_curve25519" } } });
    let answer = by.post("/keys/claim", body).await.ok();
    let keys = answer["one_time_keys"][&of.user_id][&of.device_id].as_object()?;
    keys.keys().next().cloned()
}

async fn two_claimers_at_once_get_different_keys(server: &TestServer) {
    let owner = server.register("owner").await;
    owner.post("/keys/upload", upload(&owner, KEYS)).await.ok();
    let claimers = [server.register("one").await, server.register("two").await];
    let rounds = (0..KEYS / 2)
        .map(|_| async { tokio::join!(claim(&claimers[0], &owner), claim(&claimers[1], &owner)) });
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for round in rounds {
        let (one, other) = round.await;
        for key in [one, other] {
            *seen.entry(key.expect("a key")).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), KEYS, "{seen:?}");
    assert_eq!(claim(&claimers[0], &owner).await, None);
}

async fn a_claimed_key_stays_claimed_after_a_crash(_: &TestServer) {
    let mut server = TestServer::memory(4).await;
    let (mut owner, mut other) = (server.register("owner").await, server.register("other").await);
    // The owner never sees the answer to the upload, and makes it again after the crash.
    owner.post("/keys/upload", upload(&owner, 6)).await.ok();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(claim(&other, &owner).await);
        server = server.crash().await;
        (owner, other) = (owner.on(server.endpoint()), other.on(server.endpoint()));
        let answer = owner.post("/keys/upload", upload(&owner, 6)).await.ok();
        let left = 6 - seen.len();
        assert_eq!(
            answer["one_time_key_counts"]["signed_curve25519"], left,
            "{seen:?} were handed out"
        );
    }
    while let Some(key) = claim(&other, &owner).await {
        assert!(!seen.contains(&key), "{key} was handed out twice");
        seen.push(key);
    }
    assert_eq!(seen.len(), 6);
}
