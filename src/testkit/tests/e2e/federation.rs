//! Several servers over the simulated network.

use std::time::Duration;

use hearth_testkit::{Client, Faults, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

/// Servers named hs1, hs2, … that reach each other.
pub(crate) fn servers(network: &SimNetwork, count: u64) -> Vec<TestServer> {
    (1..=count)
        .map(|number| TestServer::simulated(&format!("hs{number}"), 4, number, network))
        .collect()
}

/// Asks until the answer fits; time is simulated.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..200 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: not in time");
}

pub(crate) async fn public_room(client: &Client, version: &str) -> String {
    let body = json!({ "preset": "public_chat", "room_version": version });
    let made = client.post("/createRoom", body).await.ok();
    made["room_id"].as_str().expect("a room id").to_owned()
}

pub(crate) async fn sees(client: &Client, room: &str, event: &str) -> Option<Value> {
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

/// The other servers send from the moment at which one of them let a user in, and the join takes its time at the user's
/// own server: what comes meanwhile is not lost, though nothing follows that would lead to it.
#[tokio::test(start_paused = true)]
async fn what_is_said_while_somebody_joins_is_not_lost() {
    for seed in 40..46 {
        let network = SimNetwork::new(seed);
        network.set_faults(Faults {
            delay_ms: 1..2_000,
            ..Faults::default()
        });
        let servers = servers(&network, 2);
        let alice = servers[0].register("alice").await;
        let bob = servers[1].register("bob").await;
        let room = public_room(&alice, "11").await;
        let greeting = async {
            until("bob is in", async || {
                let member = alice.state(&room, "m.room.member", "@bob:hs2").await;
                (member.status == 200).then_some(())
            })
            .await;
            alice.say(&room, "welcome").await
        };
        let path = format!("/join/{room}?via=hs1");
        let (joined, said) = tokio::join!(bob.post(&path, json!({})), greeting);
        joined.ok();
        until("bob is greeted", async || sees(&bob, &room, &said).await).await;
    }
}

/// A server that was away for long is sent what waits for it as soon as it asks for anything.
#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_something_is_there_again() {
    let network = SimNetwork::new(8);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = public_room(&alice, "11").await;
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    network.partition("hs1", "hs2");
    let said = alice.say(&room, "anybody?").await;
    tokio::time::sleep(Duration::from_secs(3 * 3_600)).await;
    network.heal("hs1", "hs2");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(sees(&bob, &room, &said).await, None, "it is still left alone");
    bob.get("/profile/@alice:hs1").await.ok();
    until("hs2 has the message", async || sees(&bob, &room, &said).await).await;
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

#[tokio::test(start_paused = true)]
async fn a_restricted_room_lets_in_who_is_in_the_other_room() {
    let network = SimNetwork::new(13);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let allowed = public_room(&alice, "10").await;
    let rule = json!({
        "join_rule": "restricted",
        "allow": [{ "type": "m.room_membership", "room_id": allowed, "via": ["hs1"] }],
    });
    let body = json!({ "preset": "public_chat", "room_version": "10", "initial_state": [
        { "type": "m.room.join_rules", "state_key": "", "content": rule },
    ] });
    let made = alice.post("/createRoom", body).await.ok();
    let room = made["room_id"].as_str().expect("a room id").to_owned();
    let join = async |room: &str| bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.status;
    let alice_sees = async |room: &str, membership: &str| {
        until(&format!("{membership} of bob"), async || {
            let path = format!("/rooms/{room}/state/m.room.member/@bob:hs2");
            let content = alice.get(&path).await;
            (content.status == 200 && content.ok()["membership"] == membership).then_some(())
        })
        .await;
    };
    assert_eq!(join(&room).await, 403, "before he is in the other room");
    assert_eq!(join(&allowed).await, 200);
    assert_eq!(join(&room).await, 200);
    for left in [&room, &allowed] {
        bob.post(&format!("/rooms/{left}/leave"), json!({})).await.ok();
        alice_sees(left, "leave").await;
    }
    assert_eq!(join(&room).await, 403, "after he has left the other room");
    let invited = json!({ "user_id": bob.user_id });
    alice.post(&format!("/rooms/{room}/invite"), invited).await.ok();
    assert_eq!(join(&room).await, 200, "an invitation is enough");
}

/// The rooms of a space are joined right after the space: the server that lets people in does not know of that yet.
#[tokio::test(start_paused = true)]
async fn a_restricted_room_lets_in_who_has_just_come_to_the_other_room() {
    for seed in 0..5 {
        let network = SimNetwork::new(seed);
        let servers = servers(&network, 2);
        let alice = servers[0].register("alice").await;
        let (bob, carol) = (
            servers[1].register("bob").await,
            servers[1].register("carol").await,
        );
        let allowed = public_room(&alice, "11").await;
        let rule = json!({
            "join_rule": "restricted",
            "allow": [{ "type": "m.room_membership", "room_id": allowed, "via": ["hs1"] }],
        });
        let room = alice.room().state("m.room.join_rules", "", rule).build().await;
        for room in [&allowed, &room] {
            bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
        }
        for room in [&allowed, &room] {
            let joined = carol.post(&format!("/join/{room}?via=hs2"), json!({})).await;
            assert_eq!(joined.status, 200, "{seed}: {joined:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_knock_at_another_server_shows_to_who_knocks() {
    let network = SimNetwork::new(17);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let body = json!({ "preset": "private_chat", "room_version": "10", "initial_state": [
        { "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } },
    ] });
    let made = alice.post("/createRoom", body).await.ok();
    let room = made["room_id"].as_str().expect("a room id").to_owned();
    let reason = json!({ "reason": "let me in" });
    bob.post(&format!("/knock/{room}?via=hs1"), reason).await.ok();
    let news = bob.get("/sync?timeout=0").await.ok();
    let events = news["rooms"]["knock"][&room]["knock_state"]["events"].clone();
    let own = events.as_array().and_then(|events| {
        let is_own = |event: &&Value| event["state_key"] == bob.user_id.as_str();
        events.iter().find(is_own).cloned()
    });
    assert_eq!(
        own.map(|own| own["content"].clone()),
        Some(json!({ "membership": "knock", "reason": "let me in", "displayname": "bob" })),
        "{events}"
    );
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

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_server_has_it_tried_however_long_it_was_away() {
    let network = SimNetwork::new(31);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = public_room(&alice, "11").await;
    alice
        .put("/directory/room/%23here%3Ahs1", json!({ "room_id": room }))
        .await
        .ok();
    network.partition("hs1", "hs2");
    let join = format!("/join/{room}?via=hs1");
    for _ in 0..7 {
        assert_eq!(bob.post(&join, json!({})).await.status, 502);
        tokio::time::sleep(Duration::from_secs(301)).await;
    }
    assert_eq!(bob.post(&join, json!({})).await.status, 502);
    // It would be left alone for five minutes.
    network.heal("hs1", "hs2");
    let found = bob.get("/directory/room/%23here%3Ahs1").await.ok();
    assert_eq!(found["room_id"], room.as_str());
    network.partition("hs1", "hs2");
    assert_eq!(bob.post(&join, json!({})).await.status, 502);
    network.heal("hs1", "hs2");
    bob.post(&join, json!({})).await.ok();
}

/// Who may redact is known also where nothing else has happened in the room since the process began.
#[tokio::test(start_paused = true)]
async fn history_shows_who_redacted_what_right_after_a_start() {
    let network = SimNetwork::new(12);
    let mut servers = servers(&network, 3);
    let alice = servers[0].register("alice").await;
    let carol = servers[2].register("carol").await;
    let room = public_room(&alice, "11").await;
    carol.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    let said = carol.say(&room, "bad words").await;
    until("alice reads it", async || sees(&alice, &room, &said).await).await;
    let redaction = alice.redact(&room, &said).await;
    let bob = servers[1].register("bob").await;
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    bob.get(&format!("/rooms/{room}/joined_members")).await.ok();
    let server = servers.remove(1).restart_simulated(78, &network).await;
    let bob = bob.on(server.endpoint());
    let page = bob.messages(&room, "dir=b&limit=100").await;
    let shown = page["chunk"].as_array().expect("a chunk");
    let shown = shown.iter().find(|event| event["event_id"] == said.as_str());
    let shown = shown.expect("it is shown");
    assert_eq!(shown["content"], json!({}));
    assert_eq!(
        shown["unsigned"]["redacted_because"]["event_id"],
        redaction.as_str(),
        "{shown}"
    );
}
