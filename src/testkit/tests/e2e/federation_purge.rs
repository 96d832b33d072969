//! Rooms that are removed from a server while something is under way with other servers, and joined anew.

use std::sync::Arc;
use std::time::Duration;

use hearth_storage::{Family, Reader};
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::federation::{public_room, sees, servers, until};
use crate::federation_hostile::peer::{Answer, Peer, json_of};
use crate::federation_partial::their_room::TheirRoom;

async fn purge(admin: &Client, room: &str) {
    let path = format!("/_synapse/admin/v1/rooms/{}", encode(room));
    admin.delete(&path).await.ok();
}

/// How many rows of rooms a server has.
fn rows(server: &TestServer) -> usize {
    let parts = server.inner().parts();
    let engine = parts.log.engine();
    let mut rows = 0;
    for family in [
        Family::Room,
        Family::RoomEvent,
        Family::RoomStateNode,
        Family::RoomState,
    ] {
        let count = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            true
        };
        Reader::scan(&**engine, family, &[], &[0xFF; 8], false, count).expect("a scan");
    }
    rows
}

async fn members(client: &Client, room: &str) -> Option<usize> {
    let answer = client.get(&format!("/rooms/{room}/joined_members")).await;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["joined"].as_object().map(serde_json::Map::len)
}

/// bob@hs2, who has purged it, and alice@hs1 in a room.
struct Story {
    network: SimNetwork,
    servers: Vec<TestServer>,
    alice: Client,
    bob: Client,
    room: String,
}

impl Story {
    async fn new() -> Self {
        let network = SimNetwork::new(31);
        let servers = servers(&network, 2);
        let alice = servers[0].register("alice").await;
        let bob = servers[1].register("admin").await;
        let room = public_room(&alice, "11").await;
        bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
        let met = async || (members(&alice, &room).await == Some(2)).then_some(());
        until("alice meets bob", met).await;
        Self {
            network,
            servers,
            alice,
            bob,
            room,
        }
    }

    /// The room works again after bob has joined it anew.
    async fn works_again(&self) {
        let join = format!("/join/{}?via=hs1", self.room);
        self.bob.post(&join, json!({})).await.ok();
        let said = self.alice.say(&self.room, "welcome back").await;
        until("bob reads alice", async || {
            sees(&self.bob, &self.room, &said).await
        })
        .await;
        let said = self.bob.say(&self.room, "here I am").await;
        until("alice reads bob", async || {
            sees(&self.alice, &self.room, &said).await
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn other_servers_hear_who_left_a_room_that_was_purged() {
    let story = Story::new().await;
    let said = story.bob.say(&story.room, "old words").await;
    purge(&story.bob, &story.room).await;
    assert_eq!(rows(&story.servers[1]), 0);
    let alone = async || (members(&story.alice, &story.room).await == Some(1)).then_some(());
    until("alice is alone", alone).await;
    story.works_again().await;
    // It is the same room: what was said before is history of it.
    let page = story.bob.messages(&story.room, "dir=b&limit=100").await;
    assert!(page.to_string().contains(&said), "{page}");
}

/// What waits for a room when it is purged goes with it, and does not stand in the way of what comes later.
#[tokio::test(start_paused = true)]
async fn a_room_that_was_purged_while_events_waited_is_heard_of_again() {
    let story = Story::new().await;
    let peer = Peer::new("evil", &story.network);
    let known = peer.join("hs1", &story.room, "11").await;
    until("hs2 knows of mallory", async || {
        (members(&story.bob, &story.room).await == Some(3)).then_some(())
    })
    .await;
    // What came before cannot be had for now: these wait.
    let refuse = |_: &str, _: &Value| (500, json!({}));
    peer.says("/_matrix/federation/v1/", Answer::Judged(Arc::new(refuse)));
    let first = known.message(&peer, "before", std::slice::from_ref(&known.join.event_id), 10);
    for number in 0..3 {
        let body = number.to_string();
        let waits = known.message(&peer, &body, std::slice::from_ref(&first.event_id), 11);
        peer.send("hs2", &body, &[json_of(&waits)]).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    purge(&story.bob, &story.room).await;
    story.works_again().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_is_purged_while_its_state_is_asked_for() {
    let network = SimNetwork::new(32);
    let server = TestServer::simulated("hs1", 4, 1, &network);
    let admin = server.register("admin").await;
    let peer = Peer::new("evil", &network);
    let mut room = TheirRoom::new(&peer);
    room.member("elsie", "elsie", "join");
    room.open();
    let join = format!("/join/{}?via=evil", room.id);
    admin.post(&join, json!({})).await.ok();
    // Somebody waits for all members, whom the other server tells of a minute later.
    let waits = async {
        let path = format!("/rooms/{}/joined_members", encode(room.id.as_str()));
        admin.get(&path).await.status
    };
    let purges = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        purge(&admin, room.id.as_str()).await;
    };
    let both = async { tokio::join!(waits, purges) };
    let (status, ()) = tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .expect("nobody waits for what does not come");
    assert_ne!(status, 504);
    assert_eq!(rows(&server), 0);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(rows(&server), 0, "nothing of it comes back");
    let asked = peer.asked();
    let asked = asked.iter().filter(|line| line.contains("/state_ids/")).count();
    assert_eq!(asked, 1, "nobody asks for its state any more");
    // Joined anew, it becomes whole.
    admin.post(&join, json!({})).await.ok();
    let ours = server.inner().parts().rooms.get(&room.id);
    let ours = ours.expect("it is read").expect("the room");
    tokio::time::timeout(Duration::from_secs(600), ours.wait_full())
        .await
        .expect("the state is whole");
    assert_eq!(members(&admin, room.id.as_str()).await, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_room_is_purged_while_its_history_is_asked_for() {
    let story = Story::new().await;
    story.network.set_faults(hearth_testkit::Faults {
        delay_ms: 5_000..5_001,
        ..hearth_testkit::Faults::default()
    });
    let path = format!("/rooms/{}/messages?dir=b&limit=100", story.room);
    let purges = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        purge(&story.bob, &story.room).await;
    };
    let (page, ()) = tokio::join!(story.bob.get(&path), purges);
    assert!(
        page.status == 200 || page.status == 403 || page.status == 404,
        "{page:?}"
    );
    assert_eq!(rows(&story.servers[1]), 0);
    story.network.set_faults(hearth_testkit::Faults::default());
    story.works_again().await;
}
