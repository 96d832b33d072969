//! Rooms that are removed and joined anew while a gateway is away.

use super::*;
use crate::federation::{public_room, servers};

/// The events of a room are numbered anew when it is joined anew: what was to be told of is not taken for another event.
#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_another_event_than_the_one_that_was_meant() {
    let network = SimNetwork::new(31);
    let servers = servers(&network, 2);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (
        servers[0].register("alice").await,
        servers[1].register("admin").await,
    );
    let room = public_room(&alice, "11").await;
    let join = format!("/join/{room}?via=hs1");
    bob.post(&join, json!({})).await.ok();
    bob.post("/pushers/set", pusher("one")).await.ok();
    gateway.told().await;
    gateway.status.store(502, Ordering::SeqCst);
    for number in 0..6 {
        alice.say(&room, &format!("lost {number}")).await;
    }
    gateway.told().await;
    bob.delete(&format!("/_synapse/admin/v1/rooms/{}", encode(&room)))
        .await
        .ok();
    bob.post(&join, json!({})).await.ok();
    // Nobody is told of what bots say, so that nothing new comes into the queue.
    let path = format!("/rooms/{}/send/m.room.message", encode(&room));
    for number in 0..20 {
        let notice = json!({ "msgtype": "m.notice", "body": format!("notice {number}") });
        alice.put(&format!("{path}/n{number}"), notice).await.ok();
    }
    gateway.told().await;
    gateway.status.store(200, Ordering::SeqCst);
    let told = gateway.told().await;
    assert!(told.iter().all(|one| one.get("event_id").is_none()), "{told:?}");
    let said = alice.say(&room, "welcome back").await;
    let told = gateway.told().await;
    assert_eq!(about(&told), [(Some(said.as_str()), 1)]);
}
