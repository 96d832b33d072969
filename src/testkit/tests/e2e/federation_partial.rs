//! Joins with most members left out, through a server that keeps the rest of the state to itself for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_events::{Draft, Pdu, Rules};
use hearth_rooms::{Flags, Room};
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::federation::{sees, until};
use crate::federation_hostile::peer::{Answer, NOW_MS, Peer, json_of, rules_of};

const VERSION: &str = "11";
/// How long the other server thinks about the whole state.
const STATE_TAKES: Duration = Duration::from_secs(60);
/// The filter of a client that loads members as it needs them.
const LAZY: &str = "%7B%22room%22%3A%7B%22state%22%3A%7B%22lazy_load_members%22%3Atrue%7D%7D%7D";

/// A room of the other server.
struct TheirRoom {
    id: OwnedRoomId,
    rules: &'static Rules,
    peer: Peer,
    state: BTreeMap<(String, String), Pdu>,
    last: Option<Pdu>,
    /// Every event, for whoever asks.
    all: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl TheirRoom {
    /// A public room of charlie, in which derek was, and elsie is. All three may do what moderators do.
    fn new(peer: &Peer) -> Self {
        let mut room = Self {
            id: OwnedRoomId::try_from("!theirs:evil").expect("a room id"),
            rules: rules_of(VERSION),
            peer: peer.clone(),
            state: BTreeMap::new(),
            last: None,
            all: Arc::default(),
        };
        room.set("charlie", "m.room.create", "", json!({ "room_version": VERSION }));
        room.member("charlie", "charlie", "join");
        let users = json!({ "@charlie:evil": 100, "@derek:evil": 100, "@elsie:evil": 50 });
        room.set("charlie", "m.room.power_levels", "", json!({ "users": users }));
        room.set(
            "charlie",
            "m.room.join_rules",
            "",
            json!({ "join_rule": "public" }),
        );
        room.member("derek", "derek", "join");
        room
    }

    fn user(&self, name: &str) -> OwnedUserId {
        self.peer.user(name)
    }

    /// A join of a user who has left since.
    fn old_join(&self, name: &str) -> Pdu {
        let user = self.user(name);
        let known = self.all.lock();
        let is_it =
            |event: &&Value| event["state_key"] == user.as_str() && event["content"]["membership"] == "join";
        let text = known.values().find(is_it).expect("a join").to_string();
        Pdu::parse(self.rules, text.as_bytes()).expect("an event")
    }

    fn member_event(&self, name: &str) -> &Pdu {
        let key = ("m.room.member".to_owned(), self.user(name).to_string());
        self.state.get(&key).expect("a member event")
    }

    /// An event on top of the last one, by what the room says of its sender, or by other member events.
    fn event(
        &self,
        sender: &str,
        (kind, state_key): (&str, Option<&str>),
        content: &Value,
        members: &[&Pdu],
    ) -> Pdu {
        let sender = self.user(sender);
        let mut auth: Vec<OwnedEventId> = Vec::new();
        let mut wanted = vec![("m.room.create", ""), ("m.room.power_levels", "")];
        if content["membership"] == "join" {
            wanted.push(("m.room.join_rules", ""));
        }
        if members.is_empty() {
            wanted.push(("m.room.member", sender.as_str()));
            wanted.extend(
                state_key
                    .filter(|key| kind == "m.room.member" && *key != sender)
                    .map(|key| ("m.room.member", key)),
            );
        }
        for (kind, key) in wanted {
            let found = self.state.get(&(kind.to_owned(), key.to_owned()));
            auth.extend(found.map(|pdu| pdu.event_id.clone()));
        }
        auth.extend(members.iter().map(|pdu| pdu.event_id.clone()));
        let prev: Vec<OwnedEventId> = self.last.iter().map(|pdu| pdu.event_id.clone()).collect();
        let content = hearth_events::canonical::to_bytes(content, true).expect("canonical JSON");
        let draft = Draft {
            room_id: Some(&self.id),
            sender: &sender,
            kind,
            state_key,
            content: &content,
            origin_server_ts: NOW_MS,
            depth: self.last.as_ref().map_or(0, Pdu::depth) + 1,
            prev_events: &prev,
            auth_events: &auth,
            redacts: None,
        };
        self.peer.sign(self.rules, &draft)
    }

    /// Takes an event as the last one; it counts for the state if it is to.
    fn add(&mut self, pdu: Pdu, counts: bool) -> Pdu {
        self.all.lock().insert(pdu.event_id.to_string(), json_of(&pdu));
        if let Some(key) = pdu.state_key().filter(|_| counts) {
            self.state
                .insert((pdu.kind().to_owned(), key.to_owned()), pdu.clone());
        }
        self.last = Some(pdu.clone());
        pdu
    }

    fn set(&mut self, sender: &str, kind: &str, key: &str, content: Value) -> Pdu {
        let event = self.event(sender, (kind, Some(key)), &content, &[]);
        self.add(event, true)
    }

    fn member(&mut self, sender: &str, target: &str, membership: &str) -> Pdu {
        let target = self.user(target);
        self.set(
            sender,
            "m.room.member",
            target.as_str(),
            json!({ "membership": membership }),
        )
    }

    fn say(&mut self, sender: &str, body: &str) -> Pdu {
        let content = json!({ "msgtype": "m.text", "body": body });
        let event = self.event(sender, ("m.room.message", None), &content, &[]);
        self.add(event, true)
    }

    /// Lets users of other servers in, at once, and tells of most members later.
    fn open(&self) {
        let peer = &self.peer;
        let place = encode(self.id.as_str());
        let last = self.last.clone().expect("events");
        let id = |kind: &str| {
            let found = self.state.get(&(kind.to_owned(), String::new()));
            found.map(|pdu| pdu.event_id.clone())
        };
        let auth: Vec<_> = ["m.room.create", "m.room.power_levels", "m.room.join_rules"]
            .map(id)
            .into();
        let (prev, depth, room_id) = (json!([last.event_id]), last.depth() + 1, self.id.clone());
        let template = move |path: &str, _: &Value| {
            let user = path.split(['/', '?']).nth(7).unwrap_or_default();
            let user = user.replace("%40", "@").replace("%3A", ":");
            json!({ "room_version": VERSION, "event": {
                "type": "m.room.member", "room_id": room_id, "sender": user, "state_key": user,
                "content": { "membership": "join" }, "prev_events": prev, "auth_events": auth, "depth": depth,
                "origin": "evil", "origin_server_ts": NOW_MS } })
        };
        let made = format!("/_matrix/federation/v1/make_join/{place}");
        peer.says(&made, Answer::Made(Arc::new(template)));
        let all: Vec<Value> = self.state.values().map(json_of).collect();
        let others = all
            .iter()
            .filter(|event| event["type"] != "m.room.member")
            .cloned();
        let others: Vec<Value> = others.collect();
        let chain = vec![json_of(self.member_event("charlie"))];
        let joined = move |_: &str, body: &Value| {
            json!({ "origin": "evil", "state": others, "auth_chain": chain, "event": body,
                "members_omitted": true, "servers_in_room": ["evil"] })
        };
        peer.says(
            &format!("/_matrix/federation/v2/send_join/{place}"),
            Answer::Made(Arc::new(joined)),
        );
        let ids = |events: &[Value]| {
            let find = |event: &Value| {
                let known = self.all.lock();
                let found = known.iter().find(|(_, other)| *other == event);
                found.map(|(id, _)| id.clone())
            };
            events.iter().filter_map(find).collect::<Vec<_>>()
        };
        let state = json!({ "pdu_ids": ids(&all), "auth_chain_ids": [] });
        peer.says(
            &format!("/_matrix/federation/v1/state_ids/{place}"),
            Answer::Slow(STATE_TAKES, state),
        );
        let known = self.all.clone();
        let event = move |path: &str, _: &Value| {
            let id = path.rsplit('/').next().unwrap_or_default().replace("%24", "$");
            json!({ "pdus": [known.lock().get(&id)] })
        };
        peer.says("/_matrix/federation/v1/event/", Answer::Made(Arc::new(event)));
        let known = self.all.clone();
        let chain = move |path: &str, _: &Value| {
            let asked = path.rsplit('/').next().unwrap_or_default().replace("%24", "$");
            json!({ "auth_chain": auth_chain(&known.lock(), &asked) })
        };
        let path = format!("/_matrix/federation/v1/event_auth/{place}");
        peer.says(&path, Answer::Made(Arc::new(chain)));
        peer.says(
            "/_matrix/federation/v1/send/",
            Answer::Json(json!({ "pdus": {} })),
        );
    }
}

/// What an event rests on, as its `auth_events` say.
fn auth_chain(known: &BTreeMap<String, Value>, id: &str) -> Vec<Value> {
    let mut chain: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut ahead = vec![id];
    while let Some(id) = ahead.pop() {
        let cited = known.get(id).and_then(|event| event["auth_events"].as_array());
        for id in cited.into_iter().flatten().filter_map(Value::as_str) {
            if let Some(event) = known.get(id)
                && chain.insert(id, event).is_none()
            {
                ahead.push(id);
            }
        }
    }
    chain.into_values().cloned().collect()
}

/// alice of hs1 in a room of another server, most members of which hs1 does not know yet.
struct Stage {
    server: TestServer,
    alice: Client,
    peer: Peer,
    room: TheirRoom,
}

impl Stage {
    async fn new(prepare: impl FnOnce(&mut TheirRoom)) -> Self {
        let network = SimNetwork::new(5);
        let server = TestServer::simulated("hs1", 4, 1, &network);
        let alice = server.register("alice").await;
        let peer = Peer::new("evil", &network);
        let mut room = TheirRoom::new(&peer);
        prepare(&mut room);
        room.open();
        alice
            .post(&format!("/join/{}?via=evil", room.id), json!({}))
            .await
            .ok();
        let mut stage = Self {
            server,
            alice,
            peer,
            room,
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
