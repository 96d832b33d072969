//! What ignored users say is shown nowhere beside what is asked for; state is (client-server API, "Ignoring Users").

use hearth_testkit::{Client, TestServer, encode};
use serde_json::{Value, json};

use crate::{bodies, ids};

scenarios!(nothing_that_ignored_users_say_is_shown);

fn related(body: &str, kind: &str, event: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body, "m.relates_to": { "rel_type": kind, "event_id": event } })
}

async fn ignore(client: &Client, users: &[&Client]) {
    let list: serde_json::Map<String, Value> = users
        .iter()
        .map(|user| (user.user_id.clone(), json!({})))
        .collect();
    let path = format!(
        "/user/{}/account_data/m.ignored_user_list",
        encode(&client.user_id)
    );
    client.put(&path, json!({ "ignored_users": list })).await.ok();
}

async fn nothing_that_ignored_users_say_is_shown(server: &TestServer) {
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    let room = alice.room().with(&bob).with(&eve).build().await;
    let root = alice.say(&room, "root").await;
    let reply = bob
        .send(&room, "m.room.message", related("reply", "m.thread", &root))
        .await;
    eve.send(&room, "m.room.message", related("rude reply", "m.thread", &root))
        .await;
    let rude = eve.say(&room, "rude").await;
    let edit = json!({
        "msgtype": "m.text", "body": "* ruder", "m.new_content": { "msgtype": "m.text", "body": "ruder" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": rude },
    });
    eve.send(&room, "m.room.message", edit).await;
    bob.send(
        &room,
        "m.room.message",
        related("in that thread", "m.thread", &rude),
    )
    .await;
    let see = bob
        .send(&room, "m.room.message", related("see", "m.reference", &root))
        .await;
    eve.send(&room, "m.room.message", related("rude see", "m.reference", &root))
        .await;
    let last = alice.say(&room, "last").await;
    let at = |rest: &str| format!("/rooms/{}/{rest}", encode(&room));
    let bundled = async || alice.event(&room, &root).await.ok()["unsigned"]["m.relations"].clone();
    let before = bundled().await;
    assert_eq!(before["m.thread"]["count"], 2, "{before}");
    assert_eq!(
        before["m.thread"]["latest_event"]["content"]["body"],
        "rude reply"
    );
    ignore(&alice, &[&eve]).await;

    let bundle = bundled().await;
    assert_eq!(bundle["m.thread"]["count"], 1, "{bundle}");
    assert_eq!(
        bundle["m.thread"]["latest_event"]["event_id"],
        json!(reply),
        "{bundle}"
    );
    let said = |answer: &Value| bodies(answer).into_iter().any(|body| body.contains("rude"));
    let page = alice.messages(&room, "dir=b&limit=4").await;
    assert!(!said(&page["chunk"]) && ids(&page["chunk"]).len() == 4, "{page}");
    for event in [&root, &last] {
        let context = alice
            .get(&at(&format!("context/{}?limit=20", encode(event))))
            .await
            .ok();
        assert!(
            !said(&context["events_before"]) && !said(&context["events_after"]),
            "{context}"
        );
    }
    let path = format!(
        "/_matrix/client/v1/rooms/{}/relations/{}",
        encode(&room),
        encode(&root)
    );
    let relations = alice.get(&path).await.ok();
    assert_eq!(ids(&relations["chunk"]), [see, reply]);
    let path = format!("/_matrix/client/v1/rooms/{}/threads", encode(&room));
    let threads = alice.get(&path).await.ok();
    assert_eq!(ids(&threads["chunk"]), [rude.clone(), root.clone()]);
    let shown = &threads["chunk"][0];
    assert_eq!(
        shown["content"],
        json!({}),
        "the root of a thread is shown without what it says: {shown}"
    );
    let bundle = &shown["unsigned"]["m.relations"];
    assert_eq!(bundle["m.thread"]["count"], 1, "{shown}");
    assert!(bundle.get("m.replace").is_none(), "{shown}");
    let synced = alice.sync("timeout=0").await;
    assert!(
        !said(&synced["rooms"]["join"][&room]["timeline"]["events"]),
        "{synced}"
    );
    for (user, shown) in [(&eve, false), (&bob, true)] {
        let status = format!("/presence/{}/status", encode(&user.user_id));
        user.put(&status, json!({ "presence": "online", "status_msg": "rude" }))
            .await
            .ok();
        let news = alice.sync_since(&synced).await;
        let told = news["presence"]["events"].as_array().into_iter().flatten();
        let is_told = told
            .into_iter()
            .any(|event| event["sender"] == user.user_id.as_str());
        assert_eq!(is_told, shown, "{}: {news}", user.user_id);
    }

    ignore(&alice, &[]).await;
    assert_eq!(bundled().await["m.thread"]["count"], 2);
    assert!(said(&alice.messages(&room, "dir=b&limit=20").await["chunk"]));
}
