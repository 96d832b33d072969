//! Several servers over the simulated network.

use std::time::Duration;

use hearth_testkit::{Client, SimNetwork, TestServer};
use serde_json::{Value, json};

/// Servers named hs1, hs2, … that reach each other.
fn servers(network: &SimNetwork, count: u64) -> Vec<TestServer> {
    (1..=count)
        .map(|number| TestServer::simulated(&format!("hs{number}"), 4, number, network))
        .collect()
}

/// Asks until the answer fits; time is simulated.
async fn until<F: Future<Output = Option<T>>, T>(what: &str, mut ask: impl FnMut() -> F) -> T {
    for _ in 0..200 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: not in time");
}

async fn public_room(client: &Client, version: &str) -> String {
    let body = json!({ "preset": "public_chat", "room_version": version });
    let made = client.post("/createRoom", body).await.ok();
    made["room_id"].as_str().expect("a room id").to_owned()
}

async fn sees(client: &Client, room: &str, event: &str) -> Option<Value> {
    // The ids of version 3 have slashes.
    let event = event.replace('/', "%2F");
    let answer = client.get(&format!("/rooms/{room}/event/{event}")).await;
    (answer.status == 200).then(|| answer.ok())
}

#[tokio::test(start_paused = true)]
async fn two_servers_talk() {
    for version in ["1", "3", "6", "10", "11", "12"] {
        let network = SimNetwork::new(7);
        let servers = servers(&network, 2);
        let alice = servers[0].register("alice").await;
        let bob = servers[1].register("bob").await;
        let room = public_room(&alice, version).await;
        let before = alice.say(&room, "before").await;
        let joined = bob.post(&format!("/join/{room}?via=hs1"), json!({})).await;
        assert_eq!(joined.status, 200, "{version}: {joined:?}");
        until("the join reaches hs1", async || {
            let members = alice.get(&format!("/rooms/{room}/joined_members")).await.ok();
            members["joined"].get("@bob:hs2").cloned()
        })
        .await;
        let there = alice.say(&room, "there").await;
        until("hs2 has the message", async || sees(&bob, &room, &there).await).await;
        let back = bob.say(&room, "back").await;
        until("hs1 has the answer", async || sees(&alice, &room, &back).await).await;
        // What was said before bob came is fetched when he reads on.
        let page = bob
            .get(&format!("/rooms/{room}/messages?dir=b&limit=50"))
            .await
            .ok();
        let found = page["chunk"].as_array().expect("a chunk");
        assert!(
            found.iter().any(|event| event["event_id"] == before.as_str()),
            "{version}: {page}"
        );
        assert!(
            found.iter().any(|event| event["type"] == "m.room.create"),
            "{version}: {page}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_joined_with_its_members_left_out_fills_up() {
    let network = SimNetwork::new(11);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = public_room(&alice, "11").await;
    for name in ["carl", "dora", "emil"] {
        let other = servers[0].register(name).await;
        other.post(&format!("/join/{room}"), json!({})).await.ok();
    }
    let joined = bob.post(&format!("/join/{room}?via=hs1"), json!({})).await;
    assert_eq!(joined.status, 200, "{joined:?}");
    // Who is in the room is known when the answer comes.
    let members = bob.get(&format!("/rooms/{room}/joined_members")).await.ok();
    assert_eq!(members["joined"].as_object().map(serde_json::Map::len), Some(5));
    let news = until("an eager sync shows the room", async || {
        let news = bob.get("/sync?timeout=0").await.ok();
        news["rooms"]["join"].get(&room).cloned()
    })
    .await;
    let events = [&news["state"]["events"], &news["timeline"]["events"]];
    let events = events.into_iter().filter_map(Value::as_array).flatten();
    let members = events.filter(|event| event["type"] == "m.room.member").count();
    assert_eq!(members, 5, "{news}");
    // An incremental sync goes on from there, and the room is as usable as any.
    let said = bob.say(&room, "here").await;
    until("hs1 has the message", async || sees(&alice, &room, &said).await).await;
}

#[tokio::test(start_paused = true)]
async fn an_invitation_by_a_state_event_reaches_the_other_server() {
    let network = SimNetwork::new(3);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = alice.room().build().await;
    let invite = json!({ "membership": "invite", "reason": "come" });
    alice.set_state(&room, "m.room.member", "@bob:hs2", invite).await;
    until("hs2 has the invitation", async || {
        let shown = bob.sync("timeout=0").await;
        shown["rooms"]["invite"].get(&room).cloned()
    })
    .await;
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
}
