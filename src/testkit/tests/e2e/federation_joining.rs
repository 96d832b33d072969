//! What comes of a room while this server is still joining it.

use std::sync::Arc;
use std::time::Duration;

use hearth_events::Pdu;
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::federation::{public_room, sees, servers, until};
use crate::federation_hostile::peer::{Answer, Peer, json_of, rules_of};
use crate::federation_partial::their_room::{TheirRoom, VERSION};

/// How long the other server takes to tell of the room.
const JOIN_TAKES: Duration = Duration::from_secs(50);

/// alice of hs1 on her way into a room of another server, which has let her in and does not say so yet.
struct Stage {
    network: SimNetwork,
    server: TestServer,
    alice: Client,
    room: TheirRoom,
    joins: tokio::task::JoinHandle<u16>,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// Where the other server does something else than it would.
    async fn with(prepare: impl FnOnce(&TheirRoom)) -> Self {
        let network = SimNetwork::new(81);
        let server = TestServer::simulated("hs1", 4, 81, &network);
        let alice = server.register("alice").await;
        let mut room = TheirRoom::new(&Peer::new("evil", &network));
        room.join_takes = JOIN_TAKES;
        room.open();
        prepare(&room);
        let (client, path) = (alice.on(server.endpoint()), format!("/join/{}?via=evil", room.id));
        let joins = tokio::spawn(async move { client.post(&path, json!({})).await.status });
        let join = until("she is let in", async || room.joined.lock().take()).await;
        let join = Pdu::parse(rules_of(VERSION), join.to_string().as_bytes()).expect("an event");
        room.add(join, false);
        Self {
            network,
            server,
            alice,
            room,
            joins,
        }
    }

    /// Has charlie say something, and his server send it; what is answered, and how long that takes.
    async fn say(&mut self, body: &str) -> (Pdu, Value, Duration) {
        let said = self.room.say("charlie", body);
        let begun = tokio::time::Instant::now();
        let answer = self.room.peer.send("hs1", body, &[json_of(&said)]).await;
        (said, answer, begun.elapsed())
    }

    /// Waits until no rows wait in queues of rooms.
    async fn until_none_waits(&self) {
        let alice = self.alice.on(self.server.endpoint());
        until("nothing waits", async || {
            // Rows go with the next write.
            let path = format!("/profile/{}/displayname", encode(&alice.user_id));
            alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
            (self.waiting() == 0).then_some(())
        })
        .await;
    }

    /// How many rows wait in queues of rooms.
    fn waiting(&self) -> usize {
        let engine = self.server.inner().parts().log.engine().clone();
        let mut count = 0;
        let family = hearth_storage::Family::RoomInbound;
        engine
            .scan(family, &[], &[0xFF], false, &mut |_, _| {
                count += 1;
                true
            })
            .expect("it is read");
        count
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_early_in_a_long_join_is_not_lost() {
    let mut stage = Stage::new().await;
    let (first, answer, took) = stage.say("first").await;
    assert_eq!(answer, json!({ first.event_id.as_str(): {} }));
    assert!(took < Duration::from_secs(5), "it waits for no join: {took:?}");
    let (second, answer, _) = stage.say("second").await;
    assert_eq!(answer, json!({ second.event_id.as_str(): {} }));
    assert_eq!(stage.waiting(), 2);
    assert_eq!(stage.joins.await.expect("no panic"), 200);
    let room = stage.room.id.as_str();
    for said in [&first, &second] {
        until("it is seen", async || {
            sees(&stage.alice, room, said.event_id.as_str()).await
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_join_that_fails_nothing_stays() {
    let mut stage = Stage::with(|room| {
        let joined = room.joined.clone();
        let state_is_empty = move |_: &str, body: &Value| {
            *joined.lock() = Some(body.clone());
            json!({ "origin": "evil", "state": [], "auth_chain": [], "event": body })
        };
        let answer = Answer::Late(JOIN_TAKES, Arc::new(state_is_empty));
        room.peer
            .says("/_matrix/federation/v2/send_join/%21theirs%3Aevil", answer);
    })
    .await;
    stage.say("early").await;
    assert_eq!(stage.waiting(), 1);
    let status = (&mut stage.joins).await.expect("no panic");
    assert_ne!(status, 200);
    stage.until_none_waits().await;
    let (said, answer, _) = stage.say("late").await;
    assert!(answer[said.event_id.as_str()]["error"].is_string(), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_during_a_join_leaves_nothing_behind() {
    let mut stage = Stage::new().await;
    stage.say("early").await;
    stage.joins.abort();
    stage.server = stage.server.crash_simulated(82, &stage.network);
    stage.until_none_waits().await;
}

/// Clients and proxies give up after a minute, but the other server has let the user in.
#[tokio::test(start_paused = true)]
async fn a_join_goes_on_when_the_client_has_given_up() {
    let mut stage = Stage::new().await;
    stage.joins.abort();
    let (said, _, _) = stage.say("welcome").await;
    let join = format!("/join/{}?via=evil", stage.room.id);
    // It waits for the join that is under way, and makes no second one.
    stage.alice.post(&join, json!({})).await.ok();
    let room = stage.room.id.as_str();
    until("it is seen", async || {
        sees(&stage.alice, room, said.event_id.as_str()).await
    })
    .await;
    assert!(stage.room.joined.lock().is_none(), "she joined twice");
}

/// Nobody of hs2 may let others into the room, so hs1 is asked; what hs2 knows of the room stays.
#[tokio::test(start_paused = true)]
async fn a_room_stays_whole_when_somebody_joins_it_through_another_server() {
    for seed in 0..5 {
        let network = SimNetwork::new(seed);
        let servers = servers(&network, 2);
        let alice = servers[0].register("alice").await;
        let bob = servers[1].register("bob").await;
        let carol = servers[1].register("carol").await;
        let allowed = public_room(&alice, "11").await;
        let rule = json!({
            "join_rule": "restricted",
            "allow": [{ "type": "m.room_membership", "room_id": allowed, "via": ["hs1"] }],
        });
        let room = alice
            .room()
            .set("name", json!("named"))
            .set("power_level_content_override", json!({ "invite": 50 }))
            .state("m.room.join_rules", "", rule)
            .build()
            .await;
        for room in [&allowed, &room] {
            bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
        }
        let id = ruma::RoomId::parse(&room).expect("a room id");
        let ours = servers[1].inner().parts().rooms.get(&id).expect("it is read");
        let ours = ours.expect("the room is there");
        ours.wait_full().await;
        carol
            .post(&format!("/join/{allowed}?via=hs2"), json!({}))
            .await
            .ok();
        let said = alice.say(&room, "on its way").await;
        let joined = carol.post(&format!("/join/{room}?via=hs2"), json!({})).await;
        assert_eq!(joined.status, 200, "{seed}: {joined:?}");
        assert!(!ours.is_partial(), "{seed}");
        assert_eq!(
            carol.state(&room, "m.room.member", "@bob:hs2").await.ok()["membership"],
            "join"
        );
        until("what was on its way is seen", async || {
            sees(&carol, &room, &said).await
        })
        .await;
    }
}

/// A server gives others what it has filled in itself.
#[tokio::test(start_paused = true)]
async fn history_that_was_filled_in_is_given_on() {
    let network = SimNetwork::new(83);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = public_room(&alice, "11").await;
    for at in 0..50 {
        alice.say(&room, &at.to_string()).await;
    }
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    bob.messages(&room, "dir=b&limit=100").await;
    let id = ruma::RoomId::parse(&room).expect("a room id");
    let ours = servers[1].inner().parts().rooms.get(&id).expect("it is read");
    let ours = ours.expect("the room is there");
    let join = ours.state("m.room.member", "@bob:hs2").expect("it is read");
    let join = join.expect("bob's join").id().to_owned();
    let given = ours.backfill(ruma::server_name!("hs1"), &[join], 100);
    assert!(given.expect("a walk").len() > 50);
}
