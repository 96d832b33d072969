//! Joins at a time when the keys of some server in the room cannot be had.

use std::time::Duration;

use hearth_testkit::{Client, SimNetwork, TestServer};
use serde_json::{Value, json};

use crate::federation::{public_room, sees, servers, until};

async fn members(client: &Client, room: &str) -> Vec<String> {
    let answer = client.get(&format!("/rooms/{room}/joined_members")).await.ok();
    let joined = answer["joined"].as_object().expect("members");
    joined.keys().cloned().collect()
}

struct Story {
    network: SimNetwork,
    servers: Vec<TestServer>,
    bob: Client,
    carol: Client,
    room: String,
}

/// alice@hs1 and carol@hs3 are in a room that bob@hs2 joins while hs2 and hs3 do not reach each other.
async fn bob_joins_without_the_keys_of_hs3() -> Story {
    let network = SimNetwork::new(21);
    let servers = servers(&network, 3);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let carol = servers[2].register("carol").await;
    let room = public_room(&alice, "11").await;
    carol.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    network.partition("hs2", "hs3");
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    assert_eq!(members(&bob, &room).await, ["@alice:hs1", "@bob:hs2"]);
    Story {
        network,
        servers,
        bob,
        carol,
        room,
    }
}

#[tokio::test(start_paused = true)]
async fn members_of_a_server_whose_keys_could_not_be_had_come_later() {
    let story = bob_joins_without_the_keys_of_hs3().await;
    let before = story.bob.sync("timeout=0").await;
    story.network.heal("hs2", "hs3");
    let found = async || {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let all = members(&story.bob, &story.room).await;
        (all.len() == 3).then_some(all)
    };
    assert_eq!(until("carol is a member", found).await[1], "@bob:hs2");
    let news = story.bob.sync_since(&before).await;
    let state: Vec<&Value> = news["rooms"]["join"][&story.room]["state"]["events"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    assert!(
        state.iter().any(|event| event["state_key"] == "@carol:hs3"),
        "{news}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_such_a_server_says_is_accepted_at_once() {
    let story = bob_joins_without_the_keys_of_hs3().await;
    story.network.heal("hs2", "hs3");
    // The join of bob, which hs1 passed on, could not be checked before.
    let met = async || (members(&story.carol, &story.room).await.len() == 3).then_some(());
    until("carol meets bob", met).await;
    let said = story.carol.say(&story.room, "here I am").await;
    until("bob reads it", async || {
        sees(&story.bob, &story.room, &said).await
    })
    .await;
    assert_eq!(members(&story.bob, &story.room).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_lacking_is_remembered_over_a_crash() {
    let mut story = bob_joins_without_the_keys_of_hs3().await;
    let server = story.servers.remove(1).crash_simulated(77, &story.network);
    story.bob = story.bob.on(server.endpoint());
    story.servers.push(server);
    story.network.heal("hs2", "hs3");
    let found = async || {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let all = members(&story.bob, &story.room).await;
        (all.len() == 3).then_some(all)
    };
    until("carol is a member", found).await;
}
