//! Thread subscriptions (MSC4306) and their extension of sliding sync (MSC4308).

use hearth_testkit::{Answer, Client, TestServer, encode};
use serde_json::{Value, json};

use crate::sliding::UNSTABLE;

scenarios!(
    subscribing_and_unsubscribing,
    an_ended_subscription_does_not_come_back_by_itself,
    the_rules_of_subscriptions,
    the_first_subscription_puts_the_rules_in_force,
    sliding_sync_tells_of_subscriptions,
    the_rest_of_the_subscriptions_comes_by_pages,
);

const CONFLICT: &str = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
const NOT_IN_THREAD: &str = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD";
const EXTENSION: &str = "io.element.msc4308.thread_subscriptions";

fn path(room: &str, root: &str) -> String {
    format!(
        "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription",
        encode(room),
        encode(root)
    )
}

async fn subscribe(client: &Client, room: &str, root: &str, cause: Option<&str>) -> Answer {
    let body = cause.map_or(json!({}), |cause| json!({ "automatic": cause }));
    client.put(&path(room, root), body).await
}

async fn reply(client: &Client, room: &str, root: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": "reply", "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    client.send(room, "m.room.message", content).await
}

async fn subscribing_and_unsubscribing(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().build().await;
    let (root, other) = (alice.say(&room, "root").await, alice.say(&room, "other").await);
    let at = path(&room, &root);
    alice.delete(&at).await.ok();
    alice.get(&at).await.refused(404, "M_NOT_FOUND");
    let (inside, outside) = (
        reply(&alice, &room, &root).await,
        reply(&alice, &room, &other).await,
    );
    for wrong in [&root, &outside, &"$unknown".to_owned()] {
        subscribe(&alice, &room, &root, Some(wrong))
            .await
            .refused(400, NOT_IN_THREAD);
    }
    subscribe(&alice, &room, &root, Some(&inside)).await.ok();
    assert_eq!(alice.get(&at).await.ok(), json!({ "automatic": true }));
    subscribe(&alice, &room, &root, None).await.ok();
    assert_eq!(alice.get(&at).await.ok(), json!({ "automatic": false }));
    subscribe(&alice, &room, &root, Some(&inside)).await.ok();
    assert_eq!(alice.get(&at).await.ok(), json!({ "automatic": false }));
    alice.delete(&at).await.ok();
    alice.get(&at).await.refused(404, "M_NOT_FOUND");
    for (client, root) in [(&alice, "$notathread:example.org"), (&bob, root.as_str())] {
        let at = path(&room, root);
        client.put(&at, json!({})).await.refused(404, "M_NOT_FOUND");
        client.get(&at).await.refused(404, "M_NOT_FOUND");
        client.delete(&at).await.refused(404, "M_NOT_FOUND");
    }
}

async fn an_ended_subscription_does_not_come_back_by_itself(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let root = alice.say(&room, "root").await;
    let one = reply(&alice, &room, &root).await;
    subscribe(&alice, &room, &root, Some(&one)).await.ok();
    let two = reply(&alice, &room, &root).await;
    alice.delete(&path(&room, &root)).await.ok();
    let three = reply(&alice, &room, &root).await;
    for old in [&one, &two] {
        subscribe(&alice, &room, &root, Some(old))
            .await
            .refused(409, CONFLICT);
        alice.get(&path(&room, &root)).await.refused(404, "M_NOT_FOUND");
    }
    subscribe(&alice, &room, &root, Some(&three)).await.ok();
    assert_eq!(
        alice.get(&path(&room, &root)).await.ok(),
        json!({ "automatic": true })
    );
}

async fn the_rules_of_subscriptions(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let (one, two) = (alice.say(&room, "one").await, alice.say(&room, "two").await);
    let unread = async || {
        let shown = bob.sync("timeout=0").await;
        shown["rooms"]["join"][&room]["unread_notifications"]["notification_count"]
            .as_u64()
            .unwrap()
    };
    let before = unread().await;
    reply(&alice, &room, &one).await;
    assert_eq!(
        unread().await,
        before + 1,
        "the rules are there, but switched off"
    );
    for rule in ["unsubscribed_thread", "subscribed_thread"] {
        let at = format!("/pushrules/global/postcontent/.io.element.msc4306.rule.{rule}/enabled");
        assert_eq!(bob.get(&at).await.ok(), json!({ "enabled": false }));
        bob.put(&at, json!({ "enabled": true })).await.ok();
    }
    assert_eq!(unread().await, before, "nobody subscribed");
    subscribe(&bob, &room, &one, None).await.ok();
    assert_eq!(unread().await, before + 1);
    reply(&alice, &room, &two).await;
    assert_eq!(unread().await, before + 1);
    bob.delete(&path(&room, &one)).await.ok();
    assert_eq!(unread().await, before);
    let custom = json!({ "actions": ["notify"], "conditions": [] });
    bob.put("/pushrules/global/postcontent/own", custom)
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn the_first_subscription_puts_the_rules_in_force(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let (one, two) = (alice.say(&room, "one").await, alice.say(&room, "two").await);
    let at = |rule: &str| format!("/pushrules/global/postcontent/.io.element.msc4306.rule.{rule}/enabled");
    let enabled = async || {
        let (un, sub) = (at("unsubscribed_thread"), at("subscribed_thread"));
        [&bob.get(&un).await.ok(), &bob.get(&sub).await.ok()].map(|rule| rule["enabled"].clone())
    };
    let unread = async || {
        let shown = bob.sync("timeout=0").await;
        shown["rooms"]["join"][&room]["unread_notifications"]["notification_count"]
            .as_u64()
            .expect("a count")
    };
    bob.delete(&path(&room, &one)).await.ok();
    assert_eq!(
        enabled().await,
        [json!(false), json!(false)],
        "nothing is followed yet"
    );
    let (before, since) = (unread().await, bob.sync("timeout=0").await);
    subscribe(&bob, &room, &one, None).await.ok();
    assert_eq!(enabled().await, [json!(true), json!(true)]);
    let news = bob.sync_since(&since).await;
    let is_rules = |event: &Value| event["type"] == "m.push_rules";
    assert!(
        crate::events(&news["account_data"]).iter().any(is_rules),
        "{news}"
    );
    reply(&alice, &room, &one).await;
    reply(&alice, &room, &two).await;
    assert_eq!(unread().await, before + 1);
    // Who does not want them keeps them off.
    for rule in ["unsubscribed_thread", "subscribed_thread"] {
        bob.put(&at(rule), json!({ "enabled": false })).await.ok();
    }
    subscribe(&bob, &room, &two, None).await.ok();
    assert_eq!(enabled().await, [json!(false), json!(false)]);
}

/// Sliding sync with the extension alone.
async fn slide(client: &Client, wire: &str, pos: &Value, limit: u64) -> Value {
    let mut body = json!({ "extensions": { EXTENSION: { "enabled": true, "limit": limit } } });
    let pos = pos["pos"].as_str();
    let path = match (wire, pos) {
        (UNSTABLE, Some(pos)) => format!("{wire}?pos={}", encode(pos)),
        (_, pos) => {
            if wire != UNSTABLE {
                body["pos"] = json!(pos.unwrap_or_default());
            }
            wire.to_owned()
        }
    };
    client.post(&path, body).await.ok()
}

async fn sliding_sync_tells_of_subscriptions(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    for wire in [UNSTABLE, "/_matrix/client/v4/sync"] {
        let (one, two) = (alice.say(&room, "one").await, alice.say(&room, "two").await);
        let of = |answer: &Value| answer["extensions"][EXTENSION].clone();
        let first = slide(&alice, wire, &Value::Null, 2).await;
        assert_eq!(of(&first), Value::Null, "{wire}");
        subscribe(&alice, &room, &one, None).await.ok();
        let news = slide(&alice, wire, &first, 2).await;
        let told = &of(&news)["subscribed"][&room][&one];
        assert_eq!(told["automatic"], false, "{wire}: {news}");
        let stamp = told["bump_stamp"].as_u64().unwrap();
        assert_eq!(of(&slide(&alice, wire, &news, 2).await), Value::Null, "once");
        let fresh = slide(&alice, wire, &Value::Null, 2).await;
        assert_eq!(of(&fresh), of(&news), "{wire}");
        subscribe(&alice, &room, &two, None).await.ok();
        alice.delete(&path(&room, &one)).await.ok();
        let news = slide(&alice, wire, &fresh, 2).await;
        let told = of(&news);
        assert!(told["subscribed"][&room][&two].is_object());
        assert!(told["unsubscribed"][&room][&one]["bump_stamp"].as_u64().unwrap() > stamp);
        assert_eq!(told.get("prev_batch"), None);
        alice.delete(&path(&room, &two)).await.ok();
        let fresh = slide(&alice, wire, &Value::Null, 2).await;
        assert_eq!(of(&fresh), Value::Null, "who begins need not know what was");
    }
}

async fn the_rest_of_the_subscriptions_comes_by_pages(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let first = slide(&alice, UNSTABLE, &Value::Null, 2).await;
    let mut roots = Vec::new();
    for number in 0..5 {
        roots.push(alice.say(&room, &number.to_string()).await);
    }
    for root in &roots {
        subscribe(&alice, &room, root, None).await.ok();
    }
    let told = |object: &Value| -> Vec<String> {
        let object = object["subscribed"][&room].as_object().cloned();
        object.unwrap_or_default().keys().cloned().collect()
    };
    let sorted = |roots: &[String]| {
        let mut roots = roots.to_vec();
        roots.sort();
        roots
    };
    let news = slide(&alice, UNSTABLE, &first, 2).await;
    let news = &news["extensions"][EXTENSION];
    assert_eq!(told(news), sorted(&roots[3..]));
    let companion = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions";
    let to = encode(first["pos"].as_str().unwrap());
    let from = encode(news["prev_batch"].as_str().unwrap());
    let page = alice
        .get(&format!("{companion}?dir=b&limit=2&from={from}&to={to}"))
        .await
        .ok();
    assert_eq!(told(&page), sorted(&roots[1..3]));
    let from = encode(page["end"].as_str().unwrap());
    let page = alice
        .get(&format!("{companion}?dir=b&limit=2&from={from}"))
        .await
        .ok();
    assert_eq!(told(&page), sorted(&roots[..1]));
    assert_eq!(page.get("end"), None);
    let all = alice.get(&format!("{companion}?dir=b")).await.ok();
    assert_eq!(told(&all), sorted(&roots));
    for (query, errcode) in [
        ("", "M_MISSING_PARAM"),
        ("dir=f", "M_INVALID_PARAM"),
        ("dir=b&limit=0", "M_INVALID_PARAM"),
        ("dir=b&from=x", "M_INVALID_PARAM"),
        ("dir=b&to=x", "M_INVALID_PARAM"),
    ] {
        alice
            .get(&format!("{companion}?{query}"))
            .await
            .refused(400, errcode);
    }
}
