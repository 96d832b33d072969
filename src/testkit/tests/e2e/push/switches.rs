//! Pushers that another device switches off and on (MSC3881).

use std::sync::atomic::Ordering;

use hearth_testkit::{SimNetwork, TestServer, encode};
use serde_json::json;

use super::{DEVICE, ENABLED, Gateway, about, pusher};

scenarios!(pushers_are_switched_by_other_devices);

async fn pushers_are_switched_by_other_devices(server: &TestServer) {
    let phone = server.register("alice").await;
    let laptop = server.login("alice", "LAPTOP").await;
    phone.post("/pushers/set", pusher("one")).await.ok();
    let listed = async || laptop.get("/pushers").await.ok()["pushers"][0].clone();
    // As a client switches what it has listed: all of it goes back, with one field changed.
    let mut one = listed().await;
    one[ENABLED] = json!(false);
    laptop.post("/pushers/set", one.clone()).await.ok();
    assert_eq!(listed().await, one, "it is the phone's still");
    let mut bare = pusher("one");
    bare[ENABLED] = json!(true);
    laptop.post("/pushers/set", bare).await.ok();
    one[ENABLED] = json!(true);
    assert_eq!(listed().await, one, "without the device's name, too");
    // A pusher that another device sets for itself is that device's, and switched on unless it says otherwise.
    one[ENABLED] = json!(false);
    laptop.post("/pushers/set", one.clone()).await.ok();
    laptop.post("/pushers/set", pusher("one")).await.ok();
    one[ENABLED] = json!(true);
    one[DEVICE] = json!("LAPTOP");
    assert_eq!(listed().await, one);
    let mut wrong = pusher("one");
    wrong[ENABLED] = json!("yes");
    laptop
        .post("/pushers/set", wrong)
        .await
        .refused(400, "M_BAD_JSON");
}

#[tokio::test(start_paused = true)]
async fn a_pusher_that_is_switched_off_is_told_nothing() {
    let network = SimNetwork::new(8);
    let server = TestServer::simulated("hs1", 4, 8, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let switch = async |enabled: bool| {
        let mut one = pusher("one");
        one[ENABLED] = json!(enabled);
        bob.post("/pushers/set", one).await.ok();
    };
    bob.post("/pushers/set", pusher("one")).await.ok();
    alice.say(&room, "one").await;
    assert_eq!(gateway.told().await.len(), 1);
    // Neither what waits for the gateway, nor what comes while it is off, nor any of it later.
    gateway.status.store(502, Ordering::SeqCst);
    alice.say(&room, "two").await;
    assert!(gateway.told().await.is_empty());
    switch(false).await;
    gateway.status.store(200, Ordering::SeqCst);
    let last = alice.say(&room, "three").await;
    assert!(gateway.told().await.is_empty());
    let receipt = format!("/rooms/{}/receipt/m.read/{}", encode(&room), encode(&last));
    bob.post(&receipt, json!({})).await.ok();
    alice.say(&room, "four").await;
    assert!(gateway.told().await.is_empty());
    switch(true).await;
    assert!(gateway.told().await.is_empty(), "nothing is told afterwards");
    let five = alice.say(&room, "five").await;
    assert_eq!(about(&gateway.told().await), [(Some(five.as_str()), 2)]);
}
