//! What comes of a room while this server is still joining it.

use std::sync::Arc;
use std::time::Duration;

use hearth_events::Pdu;
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::federation::{sees, until};
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
