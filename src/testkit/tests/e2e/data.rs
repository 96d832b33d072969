//! Account data, tags, filters.

use hearth_testkit::{TestServer, encode};
use serde_json::{Value, json};

use crate::events;

scenarios!(
    account_data,
    deleted_account_data,
    tags,
    filters,
    push_rules_are_account_data
);

async fn account_data(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let other = server.login("alice", "OTHER").await;
    let room = alice.room().build().await;
    let base = format!("/user/{}", encode(&alice.user_id));
    let since = other.sync("timeout=0").await;
    let global = format!("{base}/account_data/org.example.a");
    let local = format!("{base}/rooms/{}/account_data/org.example.b", encode(&room));
    alice.get(&global).await.refused(404, "M_NOT_FOUND");
    alice.put(&global, json!({ "x": 1 })).await.ok();
    alice.put(&local, json!({ "y": 2 })).await.ok();
    assert_eq!(alice.get(&global).await.ok(), json!({ "x": 1 }));
    assert_eq!(alice.get(&local).await.ok(), json!({ "y": 2 }));
    let news = other.sync_since(&since).await;
    assert_eq!(
        events(&news["account_data"]),
        [json!({ "type": "org.example.a", "content": { "x": 1 } })]
    );
    let in_room = events(&news["rooms"]["join"][&room]["account_data"]);
    assert_eq!(
        in_room,
        [json!({ "type": "org.example.b", "content": { "y": 2 } })]
    );
    bob.get(&global).await.refused(403, "M_FORBIDDEN");
    bob.put(&global, json!({})).await.refused(403, "M_FORBIDDEN");
    alice
        .put(&format!("{base}/account_data/m.push_rules"), json!({}))
        .await
        .refused(405, "M_BAD_JSON");
    let marker = format!("{base}/rooms/{}/account_data/m.fully_read", encode(&room));
    alice.put(&marker, json!({})).await.refused(405, "M_BAD_JSON");
}

async fn deleted_account_data(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let other = server.login("alice", "OTHER").await;
    let user = encode(&alice.user_id);
    for (base, place) in [
        (format!("/user/{user}"), None),
        (format!("/user/{user}/rooms/{}", encode(&room)), Some(&room)),
    ] {
        for by_put in [false, true] {
            let path = format!("{base}/account_data/org.example.test");
            alice.put(&path, json!({ "a": 1 })).await.ok();
            let before = alice.sync("timeout=0").await;
            if by_put {
                alice.put(&path, json!({})).await.ok();
            } else {
                let path = format!("/_matrix/client/unstable/org.matrix.msc3391{path}");
                alice.call("DELETE", &path, Value::Null).await.ok();
            }
            alice.get(&path).await.refused(404, "M_NOT_FOUND");
            let of = |answer: &Value| match place {
                None => events(&answer["account_data"]),
                Some(room) => events(&answer["rooms"]["join"][room]["account_data"]),
            };
            let is_it = |event: &&Value| event["type"] == "org.example.test";
            let news = of(&alice.sync_since(&before).await);
            assert_eq!(news.iter().find(is_it).unwrap()["content"], json!({}));
            assert!(
                !of(&alice.sync("timeout=0").await)
                    .iter()
                    .any(|event| is_it(&event))
            );
        }
    }
    let path = format!("/user/{user}/account_data/org.matrix.msc3890.local_notification_settings.OTHER");
    alice.put(&path, json!({ "is_silenced": true })).await.ok();
    other.post("/logout", json!({})).await.ok();
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
}

async fn tags(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let base = format!("/user/{}/rooms/{}/tags", encode(&alice.user_id), encode(&room));
    let since = alice.sync("timeout=0").await;
    alice
        .put(&format!("{base}/m.favourite"), json!({ "order": 0.5 }))
        .await
        .ok();
    alice.put(&format!("{base}/u.work"), json!({})).await.ok();
    let expected = json!({ "m.favourite": { "order": 0.5 }, "u.work": {} });
    assert_eq!(alice.get(&base).await.ok()["tags"], expected);
    let news = alice.sync_since(&since).await;
    assert_eq!(
        events(&news["rooms"]["join"][&room]["account_data"])[0]["content"]["tags"],
        expected
    );
    alice.delete(&format!("{base}/u.work")).await.ok();
    assert_eq!(
        alice.get(&base).await.ok()["tags"],
        json!({ "m.favourite": { "order": 0.5 } })
    );
    let after = alice.sync_since(&news).await;
    assert_eq!(events(&after["rooms"]["join"][&room]["account_data"]).len(), 1);
}

async fn filters(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let filter = json!({ "room": { "timeline": { "limit": 1 } } });
    let id = alice.filter(filter.clone()).await;
    assert_eq!(
        alice
            .get(&format!("/user/{}/filter/{id}", encode(&alice.user_id)))
            .await
            .ok(),
        filter
    );
    bob.get(&format!("/user/{}/filter/{id}", encode(&alice.user_id)))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .get(&format!("/user/{}/filter/none", encode(&alice.user_id)))
        .await
        .refused(404, "M_NOT_FOUND");
    alice
        .get("/sync?timeout=0&filter=none")
        .await
        .refused(400, "M_INVALID_PARAM");
    // Each pattern is looked at for each event.
    let types: Vec<String> = (0..101).map(|number| format!("*{number}*")).collect();
    let costly = json!({ "room": { "timeline": { "types": types } } });
    let path = format!("/user/{}/filter", encode(&alice.user_id));
    alice.post(&path, costly.clone()).await.refused(400, "M_BAD_JSON");
    alice
        .get(&format!("/sync?timeout=0&filter={}", encode(&costly.to_string())))
        .await
        .refused(400, "M_BAD_JSON");
    let room = alice.room().messages(3).build().await;
    let sync = alice.sync(&format!("timeout=0&filter={id}")).await;
    assert_eq!(events(&sync["rooms"]["join"][&room]["timeline"]).len(), 1);
}

async fn push_rules_are_account_data(server: &TestServer) {
    let alice = server.register("alice").await;
    let rules = alice.get("/pushrules/").await.ok();
    assert!(rules["global"]["underride"].is_array(), "{rules}");
    let since = alice.sync("timeout=0").await;
    assert!(
        events(&since["account_data"])
            .iter()
            .any(|event| event["type"] == "m.push_rules")
    );
    let rule = json!({ "actions": ["notify"], "pattern": "cake" });
    alice.put("/pushrules/global/content/cake", rule).await.ok();
    let news = alice.sync_since(&since).await;
    let shown = events(&news["account_data"]);
    assert!(shown[0]["content"].to_string().contains("cake"), "{news}");
    alice.delete("/pushrules/global/content/cake").await.ok();
    alice
        .get("/pushrules/global/content/cake")
        .await
        .refused(404, "M_NOT_FOUND");
}
