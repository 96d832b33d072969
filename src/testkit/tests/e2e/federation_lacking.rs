//! Joins at a time when the keys of some server in the room cannot be had.

use std::time::Duration;

use hearth_rooms::Flags;
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::federation::{public_room, sees, servers, until};
use crate::federation_hostile::peer::{Answer, Known, Peer, json_of};

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

/// Nobody else would ask for them.
#[tokio::test(start_paused = true)]
async fn they_also_come_where_filling_in_the_state_panicked() {
    let story = bob_joins_without_the_keys_of_hs3().await;
    story
        .network
        .panic_at("hs2", "/_matrix/federation/v1/state_ids/", 2);
    story.network.heal("hs2", "hs3");
    let found = async || {
        tokio::time::sleep(Duration::from_secs(30)).await;
        (members(&story.bob, &story.room).await.len() == 3).then_some(())
    };
    until("carol is a member", found).await;
    assert!(story.network.has_panicked());
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

/// Asks every half minute.
async fn at_last<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    until(what, async || {
        tokio::time::sleep(Duration::from_secs(30)).await;
        ask().await
    })
    .await
}

/// bob@hs2 is in a room of alice@hs1 that carol@hs3 joins through hs1 while hs2 and hs3 do not reach each other.
async fn carol_joins_unchecked(network: &SimNetwork) -> (Vec<TestServer>, Client, Client, String) {
    let servers = servers(network, 3);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let carol = servers[2].register("carol").await;
    let room = public_room(&alice, "11").await;
    let join = format!("/join/{room}?via=hs1");
    bob.post(&join, json!({})).await.ok();
    network.partition("hs2", "hs3");
    carol.post(&join, json!({})).await.ok();
    (servers, bob, carol, room)
}

async fn knows(client: &Client, room: &str, user: &str) -> Option<()> {
    let all = members(client, room).await;
    all.iter().any(|member| member == user).then_some(())
}

#[tokio::test(start_paused = true)]
async fn a_join_that_cannot_be_checked_for_long_is_not_lost() {
    let network = SimNetwork::new(23);
    let (_servers, bob, _, room) = carol_joins_unchecked(&network).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(members(&bob, &room).await.len(), 2);
    network.heal("hs2", "hs3");
    at_last("bob hears of carol", async || {
        knows(&bob, &room, "@carol:hs3").await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_follows_such_a_join_does_not_hide_it() {
    let network = SimNetwork::new(24);
    let (servers, bob, carol, room) = carol_joins_unchecked(&network).await;
    let erin = servers[0].register("erin").await;
    erin.post(&format!("/join/{room}"), json!({})).await.ok();
    let said = erin.say(&room, "hello").await;
    at_last("bob reads erin", async || sees(&bob, &room, &said).await).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(members(&bob, &room).await.len(), 3);
    network.heal("hs2", "hs3");
    at_last("bob hears of carol", async || {
        knows(&bob, &room, "@carol:hs3").await
    })
    .await;
    at_last("carol hears of bob", async || {
        knows(&carol, &room, "@bob:hs2").await
    })
    .await;
    let said = carol.say(&room, "here I am").await;
    at_last("bob reads carol", async || sees(&bob, &room, &said).await).await;
}

#[tokio::test(start_paused = true)]
async fn what_soft_failed_for_want_of_a_member_is_accepted_later() {
    let network = SimNetwork::new(22);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = public_room(&alice, "11").await;
    let peer = Peer::new("evil", &network);
    let known = peer.join("hs1", &room, "11").await;
    network.partition("hs2", "evil");
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    assert_eq!(members(&bob, &room).await, ["@alice:hs1", "@bob:hs2"]);
    // The keys are there again, and nobody who could fill in the state; mallory tells the state before what she says.
    network.partition("hs1", "hs2");
    network.heal("hs2", "evil");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = known.message(&peer, "before", std::slice::from_ref(&known.join.event_id), 10);
    let said = known.message(&peer, "here", std::slice::from_ref(&before.event_id), 11);
    let place = encode(&room);
    let refuse = |_: &str, _: &Value| (500, json!({}));
    peer.says(
        &format!("/_matrix/federation/v1/get_missing_events/{place}"),
        Answer::Judged(std::sync::Arc::new(refuse)),
    );
    let mut state: Vec<&str> = known.state.iter().map(|pdu| pdu.event_id.as_str()).collect();
    state.push(known.join.event_id.as_str());
    peer.says(
        &format!("/_matrix/federation/v1/state_ids/{place}"),
        Answer::Json(json!({ "pdu_ids": state, "auth_chain_ids": [] })),
    );
    for event in [&before, &known.join] {
        peer.says(
            &format!("/_matrix/federation/v1/event/{}", encode(event.event_id.as_str())),
            Answer::Json(json!({ "pdus": [json_of(event)] })),
        );
    }
    peer.send("hs2", "1", &[json_of(&said)]).await;
    let flags = || {
        let rooms = &servers[1].inner().parts().rooms;
        let found = rooms.get(&known.id).expect("it is read").expect("the room");
        let event = found.event_by_id(&said.event_id).expect("it is read");
        event.map(|event| event.header.flags)
    };
    let flags = at_last("it is judged", async || flags()).await;
    assert!(flags.has(Flags::SOFT_FAILED), "{flags:?}");
    network.heal("hs1", "hs2");
    at_last("bob reads mallory", async || {
        sees(&bob, &room, said.event_id.as_str()).await
    })
    .await;
}

/// bob@hs2 gets a message of mallory, whose server names a topic of alice@hs1 in the state before it and keeps it to itself.
/// hs2 does not reach hs1 and has not heard of the topic; hs3, where there is one, has.
struct Named {
    network: SimNetwork,
    servers: Vec<TestServer>,
    peer: Peer,
    known: Known,
    said: hearth_events::Pdu,
    topic: String,
}

impl Named {
    async fn new(count: u64) -> Self {
        let network = SimNetwork::new(25);
        let servers = servers(&network, count);
        let alice = servers[0].register("alice").await;
        let bob = servers[1].register("bob").await;
        let room = public_room(&alice, "11").await;
        bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
        let peer = Peer::new("evil", &network);
        let known = peer.join("hs1", &room, "11").await;
        until("bob hears of mallory", async || {
            knows(&bob, &room, "@mallory:evil").await
        })
        .await;
        let mut carol = None;
        for server in servers.iter().skip(2) {
            let user = server.register("carol").await;
            user.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
            until("bob hears of carol", async || {
                knows(&bob, &room, &user.user_id).await
            })
            .await;
            carol = Some(user);
        }
        network.partition("hs1", "hs2");
        let topic = alice
            .set_state(&room, "m.room.topic", "", json!({ "topic": "tea" }))
            .await;
        if let Some(carol) = carol {
            until("carol hears of the topic", async || {
                sees(&carol, &room, &topic).await
            })
            .await;
        }
        let before = known.message(&peer, "before", std::slice::from_ref(&known.join.event_id), 10);
        let said = known.message(&peer, "here", std::slice::from_ref(&before.event_id), 11);
        let place = encode(&room);
        let refuse = |_: &str, _: &Value| (500, json!({}));
        peer.says(
            &format!("/_matrix/federation/v1/get_missing_events/{place}"),
            Answer::Judged(std::sync::Arc::new(refuse)),
        );
        let mut state: Vec<&str> = known.state.iter().map(|pdu| pdu.event_id.as_str()).collect();
        state.extend([known.join.event_id.as_str(), topic.as_str()]);
        peer.says(
            &format!("/_matrix/federation/v1/state_ids/{place}"),
            Answer::Json(json!({ "pdu_ids": state, "auth_chain_ids": [] })),
        );
        peer.says(
            &format!(
                "/_matrix/federation/v1/event/{}",
                encode(before.event_id.as_str())
            ),
            Answer::Json(json!({ "pdus": [json_of(&before)] })),
        );
        Self {
            network,
            servers,
            peer,
            known,
            said,
            topic,
        }
    }

    async fn send(&self) {
        self.peer.send("hs2", "1", &[json_of(&self.said)]).await;
    }

    /// Whether hs2 counts the topic to the state before the message, once it has that.
    fn has_topic(&self) -> Option<bool> {
        let rooms = &self.servers[1].inner().parts().rooms;
        let found = rooms
            .get(self.said.room_id())
            .expect("it is read")
            .expect("the room");
        let ids = found.serve_state_ids(&self.said.event_id).ok()?;
        Some(ids.state.iter().any(|id| *id == self.topic))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_names_and_does_not_give_is_asked_of_another() {
    let story = Named::new(3).await;
    story.send().await;
    let has_topic = at_last("it is judged", async || story.has_topic()).await;
    assert!(has_topic);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_gives_now_is_asked_for_later() {
    let story = Named::new(2).await;
    story.send().await;
    let has_topic = at_last("it is judged", async || story.has_topic()).await;
    assert!(!has_topic, "nobody could give it");
    story.network.heal("hs1", "hs2");
    at_last("the state is filled in", async || {
        story.has_topic().filter(|has| *has)
    })
    .await;
}

/// Servers that take their time while states are filled in hold the room up for as long as an event does.
#[tokio::test(start_paused = true)]
async fn filling_in_states_holds_a_room_up_for_a_bounded_time() {
    let story = Named::new(2).await;
    story.send().await;
    let mut last = story.said.clone();
    let known = |pdu: &hearth_events::Pdu| {
        let rooms = &story.servers[1].inner().parts().rooms;
        let found = rooms.get(pdu.room_id()).expect("it is read").expect("the room");
        let event = found.event_by_id(&pdu.event_id).expect("it is read");
        event
            .filter(|event| !event.header.flags.has(Flags::OUTLIER))
            .map(drop)
    };
    for number in 0..5 {
        let prev = [last.event_id.clone()];
        let before = story
            .known
            .message(&story.peer, &format!("before {number}"), &prev, last.depth() + 1);
        let prev = [before.event_id.clone()];
        last = story
            .known
            .message(&story.peer, &number.to_string(), &prev, last.depth() + 2);
        story.peer.says(
            &format!(
                "/_matrix/federation/v1/event/{}",
                encode(before.event_id.as_str())
            ),
            Answer::Json(json!({ "pdus": [json_of(&before)] })),
        );
        story
            .peer
            .send("hs2", &format!("t{number}"), &[json_of(&last)])
            .await;
        at_last("it is judged", async || known(&last)).await;
    }
    let place = encode(story.said.room_id().as_str());
    story.peer.says(
        &format!("/_matrix/federation/v1/state_ids/{place}"),
        Answer::Slow(
            Duration::from_secs(170),
            json!({ "pdu_ids": [], "auth_chain_ids": [] }),
        ),
    );
    story.peer.asked();
    at_last("the states are asked for once more", async || {
        let asked = story.peer.asked();
        asked
            .iter()
            .any(|line| line.contains("/state_ids/"))
            .then_some(())
    })
    .await;
    let next = story
        .known
        .message(&story.peer, "next", std::slice::from_ref(&last.event_id), 40);
    story.peer.send("hs2", "next", &[json_of(&next)]).await;
    let waits = at_last("the next event is judged", async || known(&next));
    tokio::time::timeout(Duration::from_secs(400), waits)
        .await
        .expect("it waits no longer than for an event");
}
