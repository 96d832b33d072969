//! Dehydrated devices (MSC3814).

use hearth_testkit::{Client, TestServer, encode};
use serde_json::{Value, json};

scenarios!(
    a_dehydrated_device_gathers_messages,
    a_new_dehydrated_device_takes_the_place_of_the_old,
    a_dehydrated_device_goes_with_the_others,
    wrong_dehydrated_devices,
);

const PATH: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

/// The id is a key in base64.
const ID: &str = "dV9YZ+tq/5DpuVxJvTwgbPBYMwBHLUUFnUmu1BVB2Fo";

fn device(client: &Client, id: &str) -> Value {
    json!({
        "device_id": id,
        "device_data": { "algorithm": "m.dehydration.v2", "device_pickle": "secret", "nonce": "n" },
        "initial_device_display_name": "Dehydrated",
        "device_keys": {
            "user_id": client.user_id, "device_id": id, "dehydrated": true, "algorithms": ["m.olm.curve25519-aes-sha2"],
            "keys": { format!("curve25519:{id}"): id }, "signatures": { client.user_id.clone(): {} },
        },
        "one_time_keys": { "signed_curve25519:one": { "key": "k1", "signatures": {} } },
        "fallback_keys": { "signed_curve25519:fallback": { "key": "k2", "fallback": true, "signatures": {} } },
    })
}

async fn tell(from: &Client, to: &Client, device: &str, number: usize) {
    let path = format!("/sendToDevice/m.test/{}", from.txn());
    let body = json!({ "messages": { to.user_id.clone(): { device: { "number": number } } } });
    from.put(&path, body).await.ok();
}

/// A page of messages: their numbers, and the token where there may be more.
async fn page(client: &Client, id: &str, token: Option<&str>) -> (Vec<u64>, Option<String>) {
    let query = token.map_or(String::new(), |token| format!("?from={}", encode(token)));
    let page = client
        .get(&format!("{PATH}/{}/events{query}", encode(id)))
        .await
        .ok();
    let numbers = page["events"].as_array().unwrap().iter();
    let numbers = numbers.map(|event| event["content"]["number"].as_u64().unwrap());
    (numbers.collect(), page["next_batch"].as_str().map(str::to_owned))
}

async fn a_dehydrated_device_gathers_messages(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    alice.room().with(&bob).build().await;
    alice.get(PATH).await.refused(404, "M_NOT_FOUND");
    let before = bob.sync("timeout=0").await;
    let made = alice.put(PATH, device(&alice, ID)).await.ok();
    assert_eq!(made, json!({ "device_id": ID }));
    let news = bob.sync_since(&before).await;
    assert_eq!(news["device_lists"]["changed"], json!([alice.user_id]));
    let kept = alice.get(PATH).await.ok();
    assert_eq!(kept["device_id"], ID);
    assert_eq!(kept["device_data"]["device_pickle"], "secret");
    let query = json!({ "device_keys": { alice.user_id.clone(): [] } });
    let keys = bob.post("/keys/query", query).await.ok();
    assert_eq!(keys["device_keys"][&alice.user_id][ID]["dehydrated"], true);
    let claim = json!({ "one_time_keys": { alice.user_id.clone(): { ID: "signed_curve25519" } } });
    for id in ["one", "fallback", "fallback"] {
        let claimed = bob.post("/keys/claim", claim.clone()).await.ok();
        let key = &claimed["one_time_keys"][&alice.user_id][ID];
        assert!(
            key.get(format!("signed_curve25519:{id}")).is_some(),
            "{id}: {claimed}"
        );
    }
    let devices = alice.get("/devices").await.ok();
    let ids: Vec<_> = devices["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| &device["device_id"])
        .collect();
    assert_eq!(ids, [&json!("ALICE1"), &json!(ID)]);

    for number in 0..150 {
        tell(&bob, &alice, if number % 2 == 0 { ID } else { "*" }, number).await;
    }
    let (first, next) = page(&alice, ID, None).await;
    let next = next.expect("there are more");
    let (second, last) = page(&alice, ID, Some(&next)).await;
    assert_eq!(first.len(), 100);
    assert_eq!([first.clone(), second].concat(), (0..150).collect::<Vec<u64>>());
    assert_eq!(last, None, "clients read on while there is a token");
    assert_eq!(
        page(&alice, ID, None).await.0,
        first,
        "who is interrupted begins again"
    );
    let by_post = alice
        .post(
            &format!("{PATH}/{}/events", encode(ID)),
            json!({ "next_batch": next }),
        )
        .await
        .ok();
    assert_eq!(by_post["events"].as_array().unwrap().len(), 50);
    // Clients that use POST read on until there are no events.
    let last = json!({ "next_batch": by_post["next_batch"].as_str().expect("a token") });
    let none = alice
        .post(&format!("{PATH}/{}/events", encode(ID)), last.clone())
        .await
        .ok();
    assert_eq!(
        (&none["events"], &none["next_batch"]),
        (&json!([]), &last["next_batch"])
    );
    for other in ["ALICE1", "unknown"] {
        alice
            .get(&format!("{PATH}/{other}/events"))
            .await
            .refused(403, "M_FORBIDDEN");
    }
    bob.get(&format!("{PATH}/{}/events", encode(ID)))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .get(&format!("{PATH}/{}/events?next_batch=x", encode(ID)))
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn a_new_dehydrated_device_takes_the_place_of_the_old(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    alice.room().with(&bob).build().await;
    alice.put(PATH, device(&alice, ID)).await.ok();
    tell(&bob, &alice, ID, 1).await;
    // The same device again is a new one.
    alice.put(PATH, device(&alice, ID)).await.ok();
    assert_eq!(page(&alice, ID, None).await.0, Vec::<u64>::new());
    alice.put(PATH, device(&alice, "NEW")).await.ok();
    assert_eq!(alice.get(PATH).await.ok()["device_id"], "NEW");
    let query = json!({ "device_keys": { alice.user_id.clone(): [] } });
    let keys = bob.post("/keys/query", query).await.ok();
    let devices = keys["device_keys"][&alice.user_id].as_object().unwrap();
    assert_eq!(devices.keys().collect::<Vec<_>>(), ["NEW"]);
    assert_eq!(alice.delete(PATH).await.ok(), json!({ "device_id": "NEW" }));
    alice.delete(PATH).await.refused(404, "M_NOT_FOUND");
    alice.get("/devices/NEW").await.refused(404, "M_NOT_FOUND");
}

async fn a_dehydrated_device_goes_with_the_others(server: &TestServer) {
    let alice = server.register("alice").await;
    alice.put(PATH, device(&alice, ID)).await.ok();
    alice.post("/logout", json!({})).await.ok();
    let alice = server.login("alice", "SECOND").await;
    assert_eq!(
        alice.get(PATH).await.ok()["device_id"],
        ID,
        "it outlives a session"
    );
    alice.post("/logout/all", json!({})).await.ok();
    let alice = server.login("alice", "THIRD").await;
    alice.get(PATH).await.refused(404, "M_NOT_FOUND");
    alice.put(PATH, device(&alice, "LATER")).await.ok();
    // Who logs in to it makes it a device like others.
    let later = server.login("alice", "LATER").await;
    later.get(PATH).await.refused(404, "M_NOT_FOUND");
    later.get("/devices/LATER").await.ok();
}

async fn wrong_dehydrated_devices(server: &TestServer) {
    let alice = server.register("alice").await;
    for (field, value, status, errcode) in [
        ("device_id", json!("ALICE1"), 400, "M_INVALID_PARAM"),
        ("device_id", json!("OTHER"), 400, "M_INVALID_PARAM"),
        ("device_id", json!(""), 400, "M_INVALID_PARAM"),
        ("device_keys", json!(null), 400, "M_MISSING_PARAM"),
        ("device_keys", json!({}), 400, "M_BAD_JSON"),
        ("device_data", json!({}), 400, "M_BAD_JSON"),
        ("device_data", json!("text"), 400, "M_BAD_JSON"),
        (
            "device_data",
            json!({ "algorithm": "x", "y": "z".repeat(70_000) }),
            413,
            "M_TOO_LARGE",
        ),
        ("one_time_keys", json!({ "nonsense": {} }), 400, "M_INVALID_PARAM"),
    ] {
        let mut body = device(&alice, ID);
        body[field] = value;
        if field == "device_id" && body[field] == "ALICE1" {
            body["device_keys"]["device_id"] = json!("ALICE1");
        }
        alice.put(PATH, body).await.refused(status, errcode);
    }
    alice.get(PATH).await.refused(404, "M_NOT_FOUND");
}
