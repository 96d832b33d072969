//! What users wait for in rooms that are not here: who may end it, and what they see of it.

use std::sync::Arc;

use hearth_events::{Draft, Pdu};
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};

use crate::federation::{servers, until};
use crate::federation_hostile::peer::{Answer, NOW_MS, Peer, json_of, rules_of};

const VERSION: &str = "11";

/// How a user's client shows a room: `join`, `invite`, `knock`, `leave`, or nothing.
async fn shown(client: &Client, room: &str) -> Option<String> {
    let filter = encode(&json!({ "room": { "include_leave": true } }).to_string());
    let news = client.sync(&format!("timeout=0&filter={filter}")).await;
    let sections = ["join", "invite", "knock", "leave"].iter();
    let mut found = sections.filter(|section| news["rooms"][section].get(room).is_some());
    found.next().map(|section| (*section).to_owned())
}

/// A room at which people knock.
async fn knocking_room(client: &Client) -> String {
    let body = json!({ "preset": "private_chat", "room_version": VERSION, "initial_state": [
        { "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } },
    ] });
    let made = client.post("/createRoom", body).await.ok();
    made["room_id"].as_str().expect("a room id").to_owned()
}

/// A member event by which a user of a peer takes somebody out of a room.
fn taking_out(peer: &Peer, room: &str, target: &str, membership: &str, auth: &[OwnedEventId]) -> Pdu {
    let content = json!({ "membership": membership });
    let content = hearth_events::canonical::to_bytes(&content, true).expect("canonical JSON");
    let id = OwnedRoomId::try_from(room).expect("a room id");
    let draft = Draft {
        room_id: Some(&id),
        sender: &peer.user("mallory"),
        kind: "m.room.member",
        state_key: Some(target),
        content: &content,
        origin_server_ts: NOW_MS,
        depth: 20,
        prev_events: auth,
        auth_events: auth,
        redacts: None,
    };
    peer.sign(rules_of(VERSION), &draft)
}

fn event_id(text: &str) -> OwnedEventId {
    OwnedEventId::try_from(text).expect("an event id")
}

#[tokio::test(start_paused = true)]
async fn a_server_that_knows_nothing_of_a_knock_does_not_end_it() {
    let network = SimNetwork::new(71);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = knocking_room(&alice).await;
    bob.post(&format!("/knock/{room}?via=hs1"), json!({})).await.ok();
    assert_eq!(shown(&bob, &room).await.as_deref(), Some("knock"));
    // What the user waits for is not forgotten.
    bob.act(&room, "forget", json!({}))
        .await
        .refused(400, "M_UNKNOWN");
    let peer = Peer::new("evil", &network);
    let made_up = [event_id("$made-up")];
    for (txn, (membership, auth)) in [("leave", &[][..]), ("leave", &made_up[..]), ("ban", &made_up[..])]
        .into_iter()
        .enumerate()
    {
        let event = taking_out(&peer, &room, &bob.user_id, membership, auth);
        let answer = peer.send("hs2", &format!("t{txn}"), &[json_of(&event)]).await;
        assert!(
            answer[event.event_id.as_str()]["error"].is_string(),
            "{membership}: {answer}"
        );
        assert_eq!(shown(&bob, &room).await.as_deref(), Some("knock"), "{membership}");
    }
    // Who decides in the room decides on the knock.
    let body = json!({ "user_id": bob.user_id });
    alice.post(&format!("/rooms/{room}/kick"), body).await.ok();
    until("the knock is refused", async || {
        (shown(&bob, &room).await.as_deref() == Some("leave")).then_some(())
    })
    .await;
}

/// A server that takes knocks at a room of its own, and shows who has which power in it.
struct Taker {
    peer: Peer,
    room: String,
    /// The last knock.
    knock: Arc<Mutex<Option<Value>>>,
}

impl Taker {
    fn new(network: &SimNetwork, users: Value) -> Self {
        let peer = Peer::new("far", network);
        let room = "!theirs:far".to_owned();
        let knock: Arc<Mutex<Option<Value>>> = Arc::default();
        let place = encode(&room);
        let (id, last) = (room.clone(), event_id("$last"));
        let template = move |path: &str, _: &Value| {
            let user = path.split(['/', '?']).nth(6).unwrap_or_default();
            let user = user.replace("%40", "@").replace("%3A", ":");
            json!({ "room_version": VERSION, "event": {
                "type": "m.room.member", "room_id": id, "sender": user, "state_key": user,
                "content": { "membership": "knock" }, "prev_events": [last], "auth_events": [last], "depth": 9,
                "origin": "far", "origin_server_ts": NOW_MS } })
        };
        peer.says(
            &format!("/_matrix/federation/v1/make_knock/{place}"),
            Answer::Made(Arc::new(template)),
        );
        let state = json!([
            { "type": "m.room.create", "state_key": "", "sender": "@owner:gone", "content": { "room_version": VERSION } },
            { "type": "m.room.power_levels", "state_key": "", "sender": "@owner:gone",
                "content": { "users": users, "kick": 50, "ban": 60 } },
            { "type": "m.room.join_rules", "state_key": "", "sender": "@owner:gone", "content": { "join_rule": "knock" } },
        ]);
        let kept = knock.clone();
        let taken = move |path: &str, _: &Value| {
            let id = path.rsplit('/').next().unwrap_or_default().replace("%24", "$");
            *kept.lock() = Some(json!(id));
            json!({ "knock_room_state": state })
        };
        peer.says(
            &format!("/_matrix/federation/v1/send_knock/{place}"),
            Answer::Made(Arc::new(taken)),
        );
        Self { peer, room, knock }
    }

    async fn knock(&self, client: &Client) -> OwnedEventId {
        let path = format!("/knock/{}?via=far", encode(&self.room));
        client.post(&path, json!({})).await.ok();
        let taken = self.knock.lock().take().expect("a knock");
        event_id(taken.as_str().expect("its id"))
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_the_power_to_ends_a_knock() {
    // Whose server, which power, what it does, and whether it ends the knock.
    let cases = [
        ("other", 0, "leave", false),
        ("other", 50, "leave", true),
        ("other", 50, "ban", false),
        ("other", 60, "ban", true),
        // The server that took the knock may know of newer levels.
        ("far", 0, "leave", true),
    ];
    for (number, (server, power, membership, ends)) in cases.into_iter().enumerate() {
        let network = SimNetwork::new(72);
        let own = TestServer::simulated("hs1", 4, 72, &network);
        let bob = own.register("bob").await;
        let sender = format!("@mallory:{server}");
        let taker = Taker::new(&network, json!({ sender: power, "@owner:gone": 100 }));
        let knock = taker.knock(&bob).await;
        let other = match server {
            "far" => taker.peer.clone(),
            _ => Peer::new(server, &network),
        };
        let event = taking_out(&other, &taker.room, &bob.user_id, membership, &[knock]);
        let answer = other.send("hs1", "t", &[json_of(&event)]).await;
        let refused = answer[event.event_id.as_str()]["error"].is_string();
        assert_eq!(refused, !ends, "{number}: {answer}");
        let expected = if ends { "leave" } else { "knock" };
        let found = shown(&bob, &taker.room).await;
        assert_eq!(found.as_deref(), Some(expected), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_knock_is_taken_back_through_the_server_that_took_it() {
    let network = SimNetwork::new(73);
    let own = TestServer::simulated("hs1", 4, 73, &network);
    let bob = own.register("bob").await;
    let taker = Taker::new(&network, json!({ "@owner:gone": 100 }));
    taker.knock(&bob).await;
    taker.peer.asked();
    let leave = format!("/rooms/{}/leave", encode(&taker.room));
    bob.post(&leave, json!({})).await.ok();
    let asked = taker.peer.asked();
    assert!(asked.iter().any(|line| line.contains("make_leave")), "{asked:?}");
    assert_eq!(shown(&bob, &taker.room).await.as_deref(), Some("leave"));
}

/// Bob of hs2 declines at hs3, which for hs1 cannot be reached, what carol of hs2 hears of from hs1.
#[tokio::test(start_paused = true)]
async fn who_declines_while_another_one_joins_is_not_invited_again() {
    for joins_first in [false, true] {
        let network = SimNetwork::new(74);
        let servers = servers(&network, 3);
        let alice = servers[0].register("alice").await;
        let (bob, carol) = (
            servers[1].register("bob").await,
            servers[1].register("carol").await,
        );
        let dave = servers[2].register("dave").await;
        let body = json!({ "preset": "public_chat", "room_version": VERSION,
            "power_level_content_override": { "invite": 0 } });
        let room = alice.create_room(body).await;
        dave.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
        until("dave is in", async || {
            sees_member(&alice, &room, &dave, "join").await
        })
        .await;
        dave.act(&room, "invite", json!({ "user_id": bob.user_id }))
            .await
            .ok();
        until("alice sees that bob is invited", async || {
            sees_member(&alice, &room, &bob, "invite").await
        })
        .await;
        assert_eq!(shown(&bob, &room).await.as_deref(), Some("invite"));
        network.partition("hs1", "hs3");
        let (declines, path) = (format!("/rooms/{room}/leave"), format!("/join/{room}?via=hs1"));
        let decline = bob.post(&declines, json!({}));
        let join = async {
            if !joins_first {
                until("bob has declined", async || {
                    (shown(&bob, &room).await.as_deref() == Some("leave")).then_some(())
                })
                .await;
            }
            carol.post(&path, json!({})).await
        };
        let (declined, joined) = tokio::join!(decline, join);
        declined.ok();
        joined.ok();
        for _ in 0..20 {
            assert_eq!(
                shown(&bob, &room).await.as_deref(),
                Some("leave"),
                "{joins_first}"
            );
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        assert!(
            sees_member(&carol, &room, &bob, "leave").await.is_some(),
            "{joins_first}"
        );
        network.heal("hs1", "hs3");
        // The pause of hs3's queue.
        tokio::time::sleep(std::time::Duration::from_secs(120)).await;
        until("alice sees that bob has declined", async || {
            sees_member(&alice, &room, &bob, "leave").await
        })
        .await;
    }
}

async fn sees_member(client: &Client, room: &str, user: &Client, membership: &str) -> Option<()> {
    let member = client.state(room, "m.room.member", &user.user_id).await;
    (member.status == 200 && member.json()["membership"] == membership).then_some(())
}
