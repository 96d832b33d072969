//! What servers tell each other besides events, over the simulated network.

use std::time::Duration;

use hearth_testkit::{Client, Faults, SimNetwork, TestServer};
use serde_json::{Value, json};

/// Two servers, and a room in which a user of each is.
async fn shared_room(network: &SimNetwork) -> (Vec<TestServer>, Client, Client, String) {
    let servers: Vec<TestServer> = (1..=2)
        .map(|number| TestServer::simulated(&format!("hs{number}"), 4, number, network))
        .collect();
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let made = alice
        .post("/createRoom", json!({ "preset": "public_chat" }))
        .await
        .ok();
    let room = made["room_id"].as_str().expect("a room id").to_owned();
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    until("alice sees bob", async || {
        let members = alice.get(&format!("/rooms/{room}/joined_members")).await.ok();
        members["joined"].get("@bob:hs2").cloned()
    })
    .await;
    (servers, alice, bob, room)
}

/// Asks until the answer fits; time is simulated.
async fn until<F: Future<Output = Option<T>>, T>(what: &str, mut ask: impl FnMut() -> F) -> T {
    for _ in 0..600 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: not in time");
}

async fn sync(client: &Client, since: Option<&str>) -> Value {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    client.get(&format!("/sync?timeout=0{since}")).await.ok()
}

fn ephemeral<'a>(sync: &'a Value, room: &str, kind: &str) -> Option<&'a Value> {
    let events = sync["rooms"]["join"][room]["ephemeral"]["events"].as_array()?;
    events.iter().find(|event| event["type"] == kind)
}

#[tokio::test(start_paused = true)]
async fn typing_and_receipts_reach_the_other_server() {
    let network = SimNetwork::new(11);
    let (_servers, alice, bob, room) = shared_room(&network).await;
    let event = alice.say(&room, "hello").await;
    until("bob has it", async || {
        let answer = bob.get(&format!("/rooms/{room}/event/{event}")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    bob.put(
        &format!("/rooms/{room}/typing/@bob:hs2"),
        json!({ "typing": true, "timeout": 30_000 }),
    )
    .await
    .ok();
    bob.post(&format!("/rooms/{room}/receipt/m.read/{event}"), json!({}))
        .await
        .ok();
    until("alice sees both", async || {
        let seen = sync(&alice, None).await;
        let typing = ephemeral(&seen, &room, "m.typing")?;
        let receipt = ephemeral(&seen, &room, "m.receipt")?;
        let types = typing["content"]["user_ids"]
            .as_array()?
            .contains(&json!("@bob:hs2"));
        (types && receipt["content"][&event]["m.read"].get("@bob:hs2").is_some()).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn messages_to_devices_survive_a_bad_network() {
    let network = SimNetwork::new(12);
    let (_servers, alice, bob, _) = shared_room(&network).await;
    network.set_faults(Faults {
        lost_requests: 20,
        lost_replies: 20,
        repeats: 20,
        ..Faults::default()
    });
    for at in 0..20 {
        let body = json!({ "messages": { "@bob:hs2": { "*": { "at": at } } } });
        alice.put(&format!("/sendToDevice/m.x/{at}"), body).await.ok();
    }
    let mut since: Option<String> = None;
    let mut seen = Vec::new();
    for _ in 0..6_000 {
        let news = sync(&bob, since.as_deref()).await;
        since = news["next_batch"].as_str().map(str::to_owned);
        for event in news["to_device"]["events"].as_array().into_iter().flatten() {
            seen.extend(event["content"]["at"].as_u64());
        }
        if seen.len() >= 20 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(seen, (0..20).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn device_keys_are_asked_for_and_changes_told() {
    let network = SimNetwork::new(13);
    let (_servers, alice, bob, _) = shared_room(&network).await;
    let me = bob.get("/account/whoami").await.ok();
    let device = me["device_id"].as_str().expect("a device").to_owned();
    let start = sync(&alice, None).await;
    let since = start["next_batch"].as_str().expect("a token").to_owned();
    let keys = json!({ "device_keys": { "user_id": "@bob:hs2", "device_id": device, "algorithms": ["m.x"], "keys": {},
        "signatures": {} }, "one_time_keys": { "a:1": "secret" } });
    bob.post("/keys/upload", keys).await.ok();
    until("alice hears of it", async || {
        let news = sync(&alice, Some(&since)).await;
        let changed = news["device_lists"]["changed"].as_array()?.clone();
        changed.contains(&json!("@bob:hs2")).then_some(())
    })
    .await;
    let query = json!({ "device_keys": { "@bob:hs2": [] } });
    let found = alice.post("/keys/query", query.clone()).await.ok();
    assert!(found["device_keys"]["@bob:hs2"].get(&device).is_some(), "{found}");
    let claim = json!({ "one_time_keys": { "@bob:hs2": { &device: "a" } } });
    let claimed = alice.post("/keys/claim", claim).await.ok();
    assert_eq!(
        claimed["one_time_keys"]["@bob:hs2"][&device]["a:1"], "secret",
        "{claimed}"
    );
    // What is kept follows the changes, also while the other server cannot be asked.
    let name = json!({ "display_name": "Phone" });
    bob.put(&format!("/devices/{device}"), name).await.ok();
    until("the name is known", async || {
        let found = alice.post("/keys/query", query.clone()).await.ok();
        let unsigned = &found["device_keys"]["@bob:hs2"][&device]["unsigned"];
        (unsigned["device_display_name"] == "Phone").then_some(())
    })
    .await;
    network.remove("hs2");
    let found = alice.post("/keys/query", query).await.ok();
    assert!(found["device_keys"]["@bob:hs2"].get(&device).is_some(), "{found}");
    let strangers = json!({ "device_keys": { "@carol:hs2": [] } });
    let found = alice.post("/keys/query", strangers).await.ok();
    assert!(found["failures"].get("hs2").is_some(), "{found}");
}

/// Who joins has most members left out at first; what becomes of their devices must be heard of all the same.
#[tokio::test(start_paused = true)]
async fn changes_of_members_that_came_with_the_rest_of_the_state_are_heard_of() {
    let network = SimNetwork::new(14);
    let (servers, alice, bob, room) = shared_room(&network).await;
    let carol = servers[0].register("carol").await;
    carol.post(&format!("/join/{room}"), json!({})).await.ok();
    let dave = servers[1].register("dave").await;
    // Both come in through the invitation of a member of whom nothing is in the join itself.
    let private = alice
        .post("/createRoom", json!({ "invite": ["@dave:hs2"] }))
        .await
        .ok();
    let private = private["room_id"].as_str().expect("a room id").to_owned();
    until("the invitation", async || {
        let news = sync(&dave, None).await;
        news["rooms"]["invite"].get(&private).cloned()
    })
    .await;
    dave.post(&format!("/join/{private}"), json!({})).await.ok();
    for (who, member) in [(&bob, &carol), (&dave, &alice)] {
        until("the member", async || {
            let news = sync(who, None).await;
            let joined = news["rooms"]["join"].as_object()?.keys().next()?.clone();
            let members = who.get(&format!("/rooms/{joined}/joined_members")).await.ok();
            members["joined"].get(&member.user_id).cloned()
        })
        .await;
        let query = json!({ "device_keys": { &member.user_id: [] } });
        who.post("/keys/query", query).await.ok();
        let start = sync(who, None).await;
        let since = start["next_batch"].as_str().expect("a token").to_owned();
        let id = &member.device_id;
        let keys = json!({ "device_keys": { "user_id": member.user_id, "device_id": id, "algorithms": [], "keys": {},
            "signatures": {} } });
        member.post("/keys/upload", keys).await.ok();
        until("the change is told", async || {
            let news = sync(who, Some(&since)).await;
            let changed = news["device_lists"]["changed"].as_array()?.clone();
            changed.contains(&json!(member.user_id)).then_some(())
        })
        .await;
    }
}

/// Whoever meets in a room knows of each other who is there, without waiting for a change.
#[tokio::test(start_paused = true)]
async fn those_who_meet_know_of_each_other_who_is_present() {
    // How long a message takes decides what comes first: the presence of the others, or the room.
    for seed in 15..19 {
        let network = SimNetwork::new(seed);
        network.set_faults(Faults {
            delay_ms: 1..500,
            ..Faults::default()
        });
        let servers: Vec<TestServer> = (1..=2)
            .map(|number| TestServer::simulated(&format!("hs{number}"), 4, number, &network))
            .collect();
        let alice = servers[0].register("alice").await;
        let bob = servers[1].register("bob").await;
        sync(&alice, None).await;
        sync(&bob, None).await;
        let body = json!({ "preset": "trusted_private_chat", "invite": ["@bob:hs2"] });
        let made = alice.post("/createRoom", body).await.ok();
        let room = made["room_id"].as_str().expect("a room id").to_owned();
        bob.post(&format!("/join/{room}"), json!({})).await.ok();
        for (who, other) in [(&alice, "@bob:hs2"), (&bob, "@alice:hs1")] {
            until("the other is shown", async || {
                let answer = who.get(&format!("/presence/{other}/status")).await;
                let shown = answer.status == 200 && answer.ok()["presence"] == "online";
                shown.then_some(())
            })
            .await;
        }
    }
}
