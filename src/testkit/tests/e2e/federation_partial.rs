//! Joins with most members left out, through a server that keeps the rest of the state to itself for a while.

use std::sync::Arc;
use std::time::Duration;

use hearth_events::Pdu;
use hearth_rooms::{Flags, Room};
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use ruma::OwnedEventId;
use serde_json::{Value, json};

use crate::federation::{sees, until};
use crate::federation_hostile::peer::{Answer, Peer, json_of};
use their_room::TheirRoom;

pub(crate) mod their_room;

/// The filter of a client that loads members as it needs them.
const LAZY: &str = "%7B%22room%22%3A%7B%22state%22%3A%7B%22lazy_load_members%22%3Atrue%7D%7D%7D";

/// alice of hs1 in a room of another server, most members of which hs1 does not know yet.
struct Stage {
    server: TestServer,
    alice: Client,
    peer: Peer,
    room: TheirRoom,
    /// Where the state before her join is asked for.
    old_state: String,
}

impl Stage {
    async fn new(prepare: impl FnOnce(&mut TheirRoom)) -> Self {
        Self::on(&SimNetwork::new(5), prepare).await
    }

    async fn on(network: &SimNetwork, prepare: impl FnOnce(&mut TheirRoom)) -> Self {
        let server = TestServer::simulated("hs1", 4, 1, network);
        let alice = server.register("alice").await;
        let peer = Peer::new("evil", network);
        let mut room = TheirRoom::new(&peer);
        prepare(&mut room);
        room.open();
        let old_state = room.state_path();
        alice
            .post(&format!("/join/{}?via=evil", room.id), json!({}))
            .await
            .ok();
        let mut stage = Self {
            server,
            alice,
            peer,
            room,
            old_state,
        };
        let ours = stage.ours();
        assert!(ours.is_partial());
        // The other server has the join, and what its users do from now on follows it.
        let join = ours.tips().expect("tips")[0].pdu.clone();
        stage.room.add(join, false);
        stage
    }

    fn ours(&self) -> Room {
        let found = self.server.inner().parts().rooms.get(&self.room.id);
        found.expect("it is read").expect("the room is there")
    }

    async fn send(&self, txn: &str, events: &[&Pdu]) {
        let events: Vec<Value> = events.iter().map(|event| json_of(event)).collect();
        self.peer.send("hs1", txn, &events).await;
    }

    /// Whether an event has a place in the room.
    fn accepts(&self, event: &Pdu) -> Option<bool> {
        let found = self.ours().event_by_id(&event.event_id).expect("it is read");
        let found = found.filter(|event| !event.header.flags.has(Flags::OUTLIER))?;
        Some(found.is_visible_kind())
    }

    async fn until_judged(&self, event: &Pdu) -> bool {
        until("an event is judged", async || self.accepts(event)).await
    }

    async fn until_whole(&self) {
        tokio::time::timeout(Duration::from_secs(600), self.ours().wait_full())
            .await
            .expect("the state is whole");
    }

    async fn edu(&self, txn: &str, kind: &str, content: Value) {
        let body =
            json!({ "origin": "evil", "pdus": [], "edus": [{ "edu_type": kind, "content": content }] });
        let path = format!("/_matrix/federation/v1/send/{txn}");
        let (status, answer) = self.peer.call("hs1", "PUT", &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_judged_wrongly_is_judged_again() {
    let mut stage = Stage::new(|room| {
        room.member("derek", "derek", "leave");
        room.member("elsie", "elsie", "join");
    })
    .await;
    let since = stage.alice.sync(&format!("timeout=0&filter={LAZY}")).await;
    // Derek, who has left, shows an old join and takes elsie out.
    let room = &mut stage.room;
    let old_join = room.old_join("derek");
    let elsie = room.user("elsie");
    let elsies_join = room.member_event("elsie").clone();
    let kick = room.event(
        "derek",
        ("m.room.member", Some(elsie.as_str())),
        &json!({ "membership": "leave" }),
        &[&old_join, &elsies_join],
    );
    let kick = room.add(kick, false);
    let theme = room.event(
        "elsie",
        ("m.room.test", Some("")),
        &json!({ "body": "mine" }),
        &[&elsies_join],
    );
    let theme = room.add(theme, true);
    let last = room.say("charlie", "last");
    stage.send("t1", &[&kick, &theme, &last]).await;
    assert!(stage.until_judged(&last).await);
    assert_eq!(stage.accepts(&kick), Some(true), "nobody knows that he has left");
    assert_eq!(stage.accepts(&theme), Some(false), "she is said to be out");
    assert!(stage.ours().is_partial());

    stage.until_whole().await;
    let ours = stage.ours();
    assert_eq!(stage.accepts(&kick), Some(false));
    assert_eq!(stage.accepts(&theme), Some(true));
    let state = |kind: &str, key: &str| {
        let event = ours.state(kind, key).expect("it is read");
        event.map(|event| event.id().to_owned())
    };
    assert_eq!(state("m.room.test", ""), Some(theme.event_id.clone()));
    assert_eq!(state("m.room.member", elsie.as_str()), Some(elsies_join.event_id));
    let tips: Vec<OwnedEventId> = ours
        .tips()
        .expect("tips")
        .iter()
        .map(|tip| tip.id().to_owned())
        .collect();
    assert_eq!(tips, std::slice::from_ref(&last.event_id));
    let before = ours.serve_state_ids(&last.event_id).expect("a state").state;
    assert!(before.contains(&theme.event_id) && !before.contains(&kick.event_id));
    // It has a place and is told.
    let news = stage.alice.sync_since(&since).await;
    assert!(news.to_string().contains(theme.event_id.as_str()), "{news}");
    assert!(
        sees(&stage.alice, stage.room.id.as_str(), theme.event_id.as_str())
            .await
            .is_some()
    );
    // What comes then builds on it.
    let next = stage.room.say("elsie", "thanks");
    stage.send("t2", &[&next]).await;
    assert!(stage.until_judged(&next).await);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_kick_does_not_hide_that_the_member_leaves() {
    let mut stage = Stage::new(|room| {
        room.member("derek", "derek", "leave");
    })
    .await;
    let room = &mut stage.room;
    let join = room.member("elsie", "elsie", "join");
    // Derek, who has left, shows an old join, and says nothing of hers.
    let (elsie, old_join) = (room.user("elsie"), room.old_join("derek"));
    let kick = room.event(
        "derek",
        ("m.room.member", Some(elsie.as_str())),
        &json!({ "membership": "leave" }),
        &[&old_join],
    );
    let kick = room.add(kick, false);
    stage.send("t1", &[&join, &kick]).await;
    assert!(stage.until_judged(&kick).await, "nobody knows that he has left");
    let leave = stage.room.member("elsie", "elsie", "leave");
    stage.send("t2", &[&leave]).await;
    assert!(
        stage.until_judged(&leave).await,
        "she was in the room, as she says"
    );
    assert!(stage.ours().is_partial());
    stage.until_whole().await;
    assert_eq!(stage.accepts(&kick), Some(false));
    assert_eq!(stage.accepts(&leave), Some(true));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_built_upon_what_turns_out_to_be_rejected() {
    let mut stage = Stage::new(|room| {
        room.member("derek", "derek", "leave");
        room.member("elsie", "elsie", "join");
    })
    .await;
    let room = &mut stage.room;
    let old_join = room.old_join("derek");
    let first = room.say("charlie", "first");
    let name = room.event(
        "derek",
        ("m.room.name", Some("")),
        &json!({ "name": "mine" }),
        &[&old_join],
    );
    let name = room.add(name, false);
    stage.send("t1", &[&first, &name]).await;
    assert!(stage.until_judged(&name).await, "nobody knows that he has left");
    stage.until_whole().await;
    assert_eq!(stage.accepts(&name), Some(false));
    let ours = stage.ours();
    let tips: Vec<OwnedEventId> = ours
        .tips()
        .expect("tips")
        .iter()
        .map(|tip| tip.id().to_owned())
        .collect();
    assert_eq!(tips, [first.event_id]);
    assert!(ours.state("m.room.name", "").expect("it is read").is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_members_who_are_not_known_yet_is_not_lost() {
    let stage = Stage::new(|_| {}).await;
    let since = stage.alice.sync(&format!("timeout=0&filter={LAZY}")).await;
    let room_id = stage.room.id.clone();
    let device = json!({ "user_id": "@derek:evil", "device_id": "D", "stream_id": 1 });
    stage.edu("t1", "m.device_list_update", device).await;
    let receipt = json!({ room_id.as_str(): { "m.read": { "@derek:evil":
        { "data": { "ts": 5 }, "event_ids": ["$long-ago"] } } } });
    stage.edu("t2", "m.receipt", receipt).await;
    let path = format!(
        "timeout=0&filter={LAZY}&since={}",
        since["next_batch"].as_str().expect("a token")
    );
    let news = stage.alice.sync(&path).await;
    assert_eq!(news["device_lists"]["changed"], json!(["@derek:evil"]), "{news}");
    let ephemeral = &news["rooms"]["join"][room_id.as_str()]["ephemeral"]["events"];
    assert_eq!(
        ephemeral[0]["content"]["$long-ago"]["m.read"]["@derek:evil"]["ts"], 5,
        "{news}"
    );
    stage.until_whole().await;
    // Nobody is told as new who was there before, where nothing is encrypted.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let path = format!(
        "timeout=0&filter={LAZY}&since={}",
        news["next_batch"].as_str().expect("a token")
    );
    let news = stage.alice.sync(&path).await;
    assert_eq!(
        news["device_lists"]["changed"].as_array().map_or(0, Vec::len),
        0,
        "{news}"
    );
}

/// The join lost against something that was said at the same time: for the others in the room the user is not there, and
/// nobody gives the state. The user is not left in a room that never becomes whole, and may join it anew.
#[tokio::test(start_paused = true)]
async fn who_is_not_there_for_the_others_is_out() {
    let stage = Stage::new(|room| {
        let path = format!("/_matrix/federation/v1/state_ids/{}?", encode(room.id.as_str()));
        let refusal = json!({ "errcode": "M_FORBIDDEN", "error": "hs1 is not in the room" });
        let refuse = move |_: &str, _: &Value| (403, refusal.clone());
        room.peer.says(&path, Answer::Judged(Arc::new(refuse)));
    })
    .await;
    let id = stage.room.id.as_str();
    let members = format!("/rooms/{}/joined_members", encode(id));
    stage
        .alice
        .get(&members)
        .await
        .refused(504, "M_CONNECTION_TIMEOUT");
    let news = stage.alice.sync("timeout=0").await;
    assert_eq!(news["rooms"]["join"].get(id), None, "{news}");
    assert_eq!(stage.alice.get(&members).await.status, 403);
    let join = format!("/join/{}?via=evil", encode(id));
    stage.alice.post(&join, json!({})).await.ok();
}

/// The server leaves while it does not know most members, and comes back: what it judged before is judged again as well.
#[tokio::test(start_paused = true)]
async fn who_comes_back_has_the_history_judged_that_was_judged_without_the_state() {
    for old_state_is_given in [true, false] {
        let mut stage = Stage::new(|room| {
            room.member("derek", "derek", "leave");
            room.member("elsie", "elsie", "join");
            room.gives_state(&room.state_path());
        })
        .await;
        let old_state = stage.old_state.clone();
        // Derek, who has left, shows an old join.
        let room = &mut stage.room;
        let old_join = room.old_join("derek");
        let named = (("m.room.name", Some("")), json!({ "name": "mine" }));
        let name = room.event("derek", named.0, &named.1, &[&old_join]);
        let name = room.add(name, false);
        stage.send("t1", &[&name]).await;
        assert!(stage.until_judged(&name).await, "nobody knows that he has left");
        let leave = format!("/rooms/{}/leave", encode(stage.room.id.as_str()));
        stage.alice.post(&leave, json!({})).await.ok();
        assert!(stage.ours().is_partial());
        let left = stage.ours().tips().expect("tips")[0].pdu.clone();
        stage.room.add(left, true);
        if !old_state_is_given {
            let refusal = json!({ "errcode": "M_FORBIDDEN", "error": "it was not in the room then" });
            let refuse = move |_: &str, _: &Value| (403, refusal.clone());
            stage.peer.says(&old_state, Answer::Judged(Arc::new(refuse)));
        }
        // Something that hs1 does not hear of.
        stage.room.say("charlie", "meanwhile");
        stage.room.open();
        let join = format!("/join/{}?via=evil", stage.room.id);
        stage.alice.post(&join, json!({})).await.ok();
        let ours = stage.ours();
        assert!(ours.is_partial());
        let join = ours.tips().expect("tips")[0].pdu.clone();
        stage.room.add(join.clone(), false);
        stage.until_whole().await;
        assert_eq!(stage.accepts(&name), Some(!old_state_is_given));
        assert!(ours.is_resident(), "she is not thrown out");
        assert!(ours.state("m.room.name", "").expect("it is read").is_none());
        let tips = ours.tips().expect("tips");
        let tips: Vec<&OwnedEventId> = tips.iter().map(|tip| &tip.pdu.event_id).collect();
        assert_eq!(tips, [&join.event_id]);
        // The state is that of the room: derek is out, elsie in.
        let last = stage.room.say("elsie", "welcome back");
        stage.send("t2", &[&last]).await;
        assert!(stage.until_judged(&last).await);
    }
}

impl Stage {
    /// One more user of hs1 joins through the other server.
    async fn joins(&mut self, name: &str) -> Client {
        let client = self.server.register(name).await;
        self.room.open();
        let join = format!("/join/{}?via=evil", self.room.id);
        client.post(&join, json!({})).await.ok();
        self.takes_join(&client.user_id);
        client
    }

    /// The other server counts a join of hs1 to the state.
    fn takes_join(&mut self, user: &str) {
        let join = self.ours().state("m.room.member", user).expect("it is read");
        self.room.add(join.expect("a join").pdu.clone(), true);
    }
}

/// The other server lets one more user in, on top of an event that is still on its way, and again leaves the members out.
#[tokio::test(start_paused = true)]
async fn who_is_in_the_room_stays_in_it_when_somebody_else_joins() {
    let mut stage = Stage::new(|room| room.gives_state(&room.state_path())).await;
    let alice = stage.alice.user_id.clone();
    stage.takes_join(&alice);
    let since = stage.alice.sync(&format!("timeout=0&filter={LAZY}")).await;
    let late = stage.room.say("charlie", "on its way");
    stage.joins("bob").await;
    // From now on all there is follows his join.
    stage.send("t1", &[&late]).await;
    assert!(stage.until_judged(&late).await);
    let ours = stage.ours();
    assert!(ours.is_partial());
    let membership = |user: &str| {
        let event = ours.state("m.room.member", user).expect("it is read");
        event.map(|event| String::from_utf8_lossy(event.pdu.content()).contains("join"))
    };
    assert_eq!(membership(&alice), Some(true));
    stage.alice.say(stage.room.id.as_str(), "still here").await;
    let news = stage.alice.sync_since(&since).await;
    assert_eq!(news["rooms"]["leave"].get(stage.room.id.as_str()), None, "{news}");
    stage.until_whole().await;
    assert_eq!(membership(&alice), Some(true));
    assert_eq!(membership("@bob:hs1"), Some(true));
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_the_state_is_asked_for_once_for_all_who_join() {
    let mut stage = Stage::new(|_| {}).await;
    let alice = stage.alice.user_id.clone();
    stage.takes_join(&alice);
    for name in ["u1", "u2", "u3", "u4", "u5"] {
        stage.joins(name).await;
    }
    let asked = stage.peer.asked();
    let asked = asked.iter().filter(|line| line.contains("/state_ids/")).count();
    assert_eq!(asked, 1);
    stage.until_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_on_the_way_to_the_whole_state_only_delays_it() {
    let network = SimNetwork::new(5);
    network.panic_at("hs1", "/_matrix/federation/v1/state_ids/", 2);
    let stage = Stage::on(&network, |_| {}).await;
    stage.until_whole().await;
    assert!(network.has_panicked());
}

#[tokio::test(start_paused = true)]
async fn a_state_of_nothing_is_not_taken_for_that_of_the_room() {
    let mut path = String::new();
    let stage = Stage::new(|room| {
        path = format!("/_matrix/federation/v1/state_ids/{}?", encode(room.id.as_str()));
        let nothing = json!({ "pdu_ids": [], "auth_chain_ids": [] });
        room.peer.says(&path, Answer::Json(nothing));
    })
    .await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let ours = stage.ours();
    assert!(ours.is_partial() && ours.is_resident());
    assert!(ours.state("m.room.create", "").expect("it is read").is_some());
    stage.room.gives_state(&path);
    stage.until_whole().await;
    assert!(ours.state("m.room.create", "").expect("it is read").is_some());
}

/// What a user says right after the join may reach others before the join does: they ask for what they miss.
#[tokio::test(start_paused = true)]
async fn servers_that_are_said_to_be_in_the_room_are_given_events() {
    for visibility in ["shared", "joined"] {
        let stage = Stage::new(|room| {
            let content = json!({ "history_visibility": visibility });
            room.set("charlie", "m.room.history_visibility", "", content);
        })
        .await;
        let said = stage.alice.say(stage.room.id.as_str(), "hello").await;
        let path = format!("/_matrix/federation/v1/event/{}", encode(&said));
        let (status, answer) = stage.peer.call("hs1", "GET", &path, None).await;
        assert!(stage.ours().is_partial());
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["pdus"][0]["content"]["body"], "hello", "{answer}");
    }
}
