//! A server with a room of its own, into which it lets others at once and tells of most members later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_events::{Draft, Pdu, Rules};
use hearth_testkit::encode;
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::federation_hostile::peer::{Answer, NOW_MS, Peer, json_of, rules_of};

pub const VERSION: &str = "11";
/// How long the other server thinks about the whole state.
const STATE_TAKES: Duration = Duration::from_secs(60);

/// A room of the other server.
pub struct TheirRoom {
    pub id: OwnedRoomId,
    rules: &'static Rules,
    pub peer: Peer,
    state: BTreeMap<(String, String), Pdu>,
    last: Option<Pdu>,
    /// Every event, for whoever asks.
    all: Arc<Mutex<BTreeMap<String, Value>>>,
    /// The last join that it was sent.
    pub joined: Arc<Mutex<Option<Value>>>,
    /// How long it takes to tell of the room who joins.
    pub join_takes: Duration,
}

impl TheirRoom {
    /// A public room of charlie, in which derek was, and elsie is. All three may do what moderators do.
    pub fn new(peer: &Peer) -> Self {
        let mut room = Self {
            id: OwnedRoomId::try_from("!theirs:evil").expect("a room id"),
            rules: rules_of(VERSION),
            peer: peer.clone(),
            state: BTreeMap::new(),
            last: None,
            all: Arc::default(),
            joined: Arc::default(),
            join_takes: Duration::ZERO,
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

    pub fn user(&self, name: &str) -> OwnedUserId {
        self.peer.user(name)
    }

    /// A join of a user who has left since.
    pub fn old_join(&self, name: &str) -> Pdu {
        let user = self.user(name);
        let known = self.all.lock();
        let is_it =
            |event: &&Value| event["state_key"] == user.as_str() && event["content"]["membership"] == "join";
        let text = known.values().find(is_it).expect("a join").to_string();
        Pdu::parse(self.rules, text.as_bytes()).expect("an event")
    }

    pub fn member_event(&self, name: &str) -> &Pdu {
        let key = ("m.room.member".to_owned(), self.user(name).to_string());
        self.state.get(&key).expect("a member event")
    }

    /// An event on top of the last one, by what the room says of its sender, or by other member events.
    pub fn event(
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
    pub fn add(&mut self, pdu: Pdu, counts: bool) -> Pdu {
        self.all.lock().insert(pdu.event_id.to_string(), json_of(&pdu));
        if let Some(key) = pdu.state_key().filter(|_| counts) {
            self.state
                .insert((pdu.kind().to_owned(), key.to_owned()), pdu.clone());
        }
        self.last = Some(pdu.clone());
        pdu
    }

    pub fn set(&mut self, sender: &str, kind: &str, key: &str, content: Value) -> Pdu {
        let event = self.event(sender, (kind, Some(key)), &content, &[]);
        self.add(event, true)
    }

    pub fn member(&mut self, sender: &str, target: &str, membership: &str) -> Pdu {
        let target = self.user(target);
        self.set(
            sender,
            "m.room.member",
            target.as_str(),
            json!({ "membership": membership }),
        )
    }

    pub fn say(&mut self, sender: &str, body: &str) -> Pdu {
        let content = json!({ "msgtype": "m.text", "body": body });
        let event = self.event(sender, ("m.room.message", None), &content, &[]);
        self.add(event, true)
    }

    /// The path at which the state after the last event is asked for.
    pub fn state_path(&self) -> String {
        let last = self.last.as_ref().expect("events");
        format!(
            "/_matrix/federation/v1/state_ids/{}?event_id={}",
            encode(self.id.as_str()),
            encode(last.event_id.as_str())
        )
    }

    /// Gives the state as it is now to whoever asks at a path, after a while.
    pub fn gives_state(&self, path: &str) {
        let ids: Vec<&OwnedEventId> = self.state.values().map(|event| &event.event_id).collect();
        let state = json!({ "pdu_ids": ids, "auth_chain_ids": [] });
        self.peer.says(path, Answer::Slow(STATE_TAKES, state));
    }

    /// Lets users of other servers in, at once, and tells of most members later.
    pub fn open(&self) {
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
        let (prev, depth, room_id) = (json!([last.event_id.clone()]), last.depth() + 1, self.id.clone());
        let template = move |path: &str, _: &Value| {
            let user = path.split(['/', '?']).nth(6).unwrap_or_default();
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
        let last_join = self.joined.clone();
        let joined = move |_: &str, body: &Value| {
            *last_join.lock() = Some(body.clone());
            json!({ "origin": "evil", "state": others, "auth_chain": chain, "event": body,
                "members_omitted": true, "servers_in_room": ["evil"] })
        };
        peer.says(
            &format!("/_matrix/federation/v2/send_join/{place}"),
            Answer::Late(self.join_takes, Arc::new(joined)),
        );
        self.gives_state(&format!("/_matrix/federation/v1/state_ids/{place}"));
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
