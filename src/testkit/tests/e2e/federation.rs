//! Several servers over the simulated network.

use std::time::Duration;

use hearth_testkit::{Client, SimNetwork, TestServer, encode};
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
    // The ids of room version 3 may have slashes in them.
    let answer = client
        .get(&format!("/rooms/{room}/event/{}", encode(event)))
        .await;
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

/// The messages that a user can page back to.
async fn read_back(client: &Client, room: &str) -> Vec<String> {
    let (mut found, mut from) = (Vec::new(), String::new());
    for _ in 0..200 {
        let path = format!("/rooms/{room}/messages?dir=b&limit=17{from}");
        let page = client.get(&path).await.ok();
        for event in page["chunk"].as_array().expect("a chunk") {
            if event["type"] == "m.room.message" {
                found.push(event["event_id"].as_str().expect("an id").to_owned());
            }
        }
        let Some(end) = page["end"].as_str() else {
            return found;
        };
        from = format!("&from={}", encode(end));
    }
    panic!("the history does not end");
}

#[tokio::test(start_paused = true)]
async fn a_long_history_of_two_branches_is_read_whole_by_all() {
    let network = SimNetwork::new(7);
    let servers = servers(&network, 3);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let carol = servers[2].register("carol").await;
    let room = public_room(&alice, "10").await;
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    network.partition("hs1", "hs2");
    let mut said = Vec::new();
    for number in 0..130 {
        said.push(alice.say(&room, &format!("a{number}")).await);
        said.push(bob.say(&room, &format!("b{number}")).await);
    }
    network.heal("hs1", "hs2");
    // Both say something until each has heard of the other.
    for _ in 0..20 {
        let last = [alice.say(&room, "after").await, bob.say(&room, "after").await];
        tokio::time::sleep(Duration::from_secs(120)).await;
        let heard =
            sees(&bob, &room, &last[0]).await.is_some() && sees(&alice, &room, &last[1]).await.is_some();
        said.extend(last);
        if heard {
            break;
        }
    }
    carol.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    said.sort();
    for reader in [&alice, &bob, &carol] {
        let mut found = read_back(reader, &room).await;
        found.sort();
        let count = found.len();
        found.dedup();
        assert_eq!(count, found.len(), "{} sees something twice", reader.user_id);
        let lost: Vec<_> = said.iter().filter(|id| !found.contains(id)).collect();
        assert!(
            lost.is_empty(),
            "{} lacks {} of {}",
            reader.user_id,
            lost.len(),
            said.len()
        );
    }
}
