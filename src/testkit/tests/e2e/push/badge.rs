//! The counts that pushers are told without an event.

use hearth_testkit::{SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use super::{Gateway, about, pusher};

#[tokio::test(start_paused = true)]
async fn a_redaction_sets_the_badge_back() {
    let network = SimNetwork::new(7);
    let server = TestServer::simulated("hs1", 4, 7, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob, carol) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("carol").await,
    );
    let room = alice.room().with(&bob).with(&carol).build().await;
    // Carol has a rule of her own: what it said of an event is not known after its redaction.
    let rule = json!({ "pattern": "cake", "actions": ["notify"] });
    carol.put("/pushrules/global/content/cake", rule).await.ok();
    let quiet = json!({ "enabled": false });
    carol
        .put("/pushrules/global/underride/.m.rule.message/enabled", quiet)
        .await
        .ok();
    bob.post("/pushers/set", pusher("bob")).await.ok();
    carol.post("/pushers/set", pusher("carol")).await.ok();
    let told = async || {
        let told = gateway.told().await;
        let of = |key: &str| {
            let is_its = |one: &&Value| one["devices"][0]["pushkey"] == key;
            let its: Vec<Value> = told.iter().filter(is_its).cloned().collect();
            let about = about(&its);
            let about = about
                .into_iter()
                .map(|(event, unread)| (event.map(str::to_owned), unread));
            about.collect::<Vec<_>>()
        };
        (of("bob"), of("carol"))
    };
    let event = |id: &str| Some(id.to_owned());
    let one = alice.say(&room, "one").await;
    assert_eq!(told().await, (vec![(event(&one), 1)], vec![]));
    let two = alice.say(&room, "cake").await;
    assert_eq!(told().await, (vec![(event(&two), 2)], vec![(event(&two), 1)]));
    alice.redact(&room, &one).await;
    assert_eq!(
        told().await,
        (vec![(None, 1)], vec![]),
        "Carol was not told of it"
    );
    alice.redact(&room, &two).await;
    assert_eq!(told().await, (vec![(None, 0)], vec![(None, 0)]));
    // What was read, or notified nobody, changes no count.
    let three = alice.say(&room, "three").await;
    let receipt = format!("/rooms/{}/receipt/m.read/{}", encode(&room), encode(&three));
    bob.post(&receipt, json!({})).await.ok();
    let notice = json!({ "msgtype": "m.notice", "body": "quiet" });
    let notice = alice.send(&room, "m.room.message", notice).await;
    told().await;
    alice.redact(&room, &three).await;
    alice.redact(&room, &notice).await;
    assert_eq!(told().await, (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn who_is_ignored_counts_no_more() {
    let network = SimNetwork::new(8);
    let server = TestServer::simulated("hs1", 4, 8, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    let room = alice.room().with(&bob).with(&eve).build().await;
    bob.post("/pushers/set", pusher("bob")).await.ok();
    let one = alice.say(&room, "one").await;
    assert_eq!(about(&gateway.told().await), [(Some(one.as_str()), 1)]);
    let two = eve.say(&room, "two").await;
    assert_eq!(about(&gateway.told().await), [(Some(two.as_str()), 2)]);
    let ignored = format!("/user/{}/account_data/m.ignored_user_list", encode(&bob.user_id));
    let list = json!({ "ignored_users": { eve.user_id.clone(): {} } });
    bob.put(&ignored, list).await.ok();
    assert_eq!(about(&gateway.told().await), [(None, 1)]);
    bob.put(&ignored, json!({ "ignored_users": {} })).await.ok();
    assert_eq!(about(&gateway.told().await), [(None, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_is_followed_counts() {
    let network = SimNetwork::new(9);
    let server = TestServer::simulated("hs1", 4, 9, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let (one, two) = (alice.say(&room, "one").await, alice.say(&room, "two").await);
    let receipt = format!("/rooms/{}/receipt/m.read/{}", encode(&room), encode(&two));
    bob.post(&receipt, json!({})).await.ok();
    bob.post("/pushers/set", pusher("bob")).await.ok();
    let subscription = |root: &str| {
        format!(
            "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription",
            encode(&room),
            encode(root)
        )
    };
    // The first subscription puts the rules in force.
    bob.put(&subscription(&one), json!({})).await.ok();
    gateway.told().await;
    for root in [&one, &two] {
        let relation = json!({ "rel_type": "m.thread", "event_id": root });
        let reply = json!({ "msgtype": "m.text", "body": "reply", "m.relates_to": relation });
        alice.send(&room, "m.room.message", reply).await;
    }
    let told = gateway.told().await;
    assert_eq!(
        about(&told).last().map(|(_, unread)| *unread),
        Some(1),
        "{told:?}"
    );
    bob.put(&subscription(&two), json!({})).await.ok();
    assert_eq!(about(&gateway.told().await), [(None, 2)]);
    bob.delete(&subscription(&two)).await.ok();
    assert_eq!(about(&gateway.told().await), [(None, 1)]);
}
