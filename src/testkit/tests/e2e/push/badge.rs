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
