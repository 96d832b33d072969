//! A client that follows its account by windows over the room list (MSC4186, on either wire), checked against one that
//! comes fresh by `/sync`, and against what the rooms say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::client_model::RoomModel;
use crate::follower::differences_to_room;
use crate::{Client, ClientModel, encode};

const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
const MERGED: &str = "/_matrix/client/v4/sync";

/// Which wire a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlidingWire {
    /// That of released clients.
    Unstable,
    /// That of the merged proposal.
    Merged,
}

/// Which state a client wants of its rooms, besides its own member event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedState {
    /// All of it.
    All,
    /// Name and topic.
    Named,
    /// All, but members as they are needed.
    Lazy,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Window {
    /// The last place in the list.
    pub last: u64,
    /// How many events of a room.
    pub timeline_limit: u64,
    /// Which state.
    pub state: WantedState,
    /// A room that it asks for by its id, with this many events.
    pub subscription: Option<(String, u64)>,
    /// Whether an answer gets lost before the one that arrives.
    pub loses: bool,
}

impl Window {
    /// All rooms, with all their state.
    pub fn whole() -> Self {
        Self {
            last: 999,
            timeline_limit: 20,
            state: WantedState::All,
            subscription: None,
            loses: false,
        }
    }
}

/// A device that follows its account by windows.
pub struct SlidingFollower {
    /// The device.
    pub client: Client,
    /// Every event that came in a timeline: its room, and its id.
    pub seen: BTreeSet<(String, String)>,
    wire: SlidingWire,
    conn_id: String,
    pos: Option<String>,
    /// Every room that it was shown.
    rooms: BTreeMap<String, RoomModel>,
    /// The user's own membership in each.
    memberships: BTreeMap<String, String>,
    /// What is unread in each: notifications and highlights.
    unread: BTreeMap<String, (u64, u64)>,
    /// The rooms that it sees from outside: whether it was invited, or knocked.
    outside: BTreeMap<String, bool>,
    account_data: BTreeMap<String, Value>,
    faults: Vec<String>,
    /// After a crash what was sent last may come again.
    may_repeat: bool,
}

impl SlidingFollower {
    /// Follows on a connection of its own.
    pub fn new(client: Client, wire: SlidingWire, conn_id: &str) -> Self {
        Self {
            client,
            seen: BTreeSet::new(),
            wire,
            conn_id: conn_id.to_owned(),
            pos: None,
            rooms: BTreeMap::new(),
            memberships: BTreeMap::new(),
            unread: BTreeMap::new(),
            outside: BTreeMap::new(),
            account_data: BTreeMap::new(),
            faults: Vec::new(),
            may_repeat: false,
        }
    }

    /// Takes the news within a window; gives how many rooms had some.
    pub async fn pull(&mut self, window: &Window) -> usize {
        if window.loses && self.pos.is_some() {
            self.ask(window).await;
        }
        let answer = self.ask(window).await;
        if answer.errcode() == "M_UNKNOWN_POS" {
            if !self.may_repeat {
                self.faults.push("a position was not known".to_owned());
            }
            let client = self.client.on(self.client.endpoint.clone());
            *self = Self {
                faults: std::mem::take(&mut self.faults),
                seen: std::mem::take(&mut self.seen),
                ..Self::new(client, self.wire, &self.conn_id)
            };
            return usize::MAX;
        }
        let answer = answer.ok();
        self.apply(&answer);
        members(&answer["rooms"]).count()
    }

    async fn ask(&self, window: &Window) -> crate::Answer {
        let on = json!({ "enabled": true });
        let config =
            |limit: u64| json!({ "timeline_limit": limit, "required_state": self.state(window.state) });
        let mut list = config(window.timeline_limit);
        let mut body = json!({
            "conn_id": self.conn_id,
            "extensions": { "account_data": on, "receipts": on, "typing": on },
        });
        if let Some((room, limit)) = &window.subscription {
            body["room_subscriptions"] = json!({ room: config(*limit) });
        }
        match self.wire {
            SlidingWire::Unstable => list["ranges"] = json!([[0, window.last]]),
            SlidingWire::Merged => list["range"] = json!([0, window.last]),
        }
        body["lists"] = json!({ "all": list });
        match (self.wire, &self.pos) {
            (SlidingWire::Unstable, None) => self.client.post(UNSTABLE, body).await,
            (SlidingWire::Unstable, Some(pos)) => {
                let path = format!("{UNSTABLE}?timeout=0&pos={}", encode(pos));
                self.client.post(&path, body).await
            }
            (SlidingWire::Merged, pos) => {
                if let Some(pos) = pos {
                    body["pos"] = json!(pos);
                }
                self.client.post(MERGED, body).await
            }
        }
    }

    fn state(&self, wanted: WantedState) -> Value {
        let me = &self.client.user_id;
        match (self.wire, wanted) {
            (SlidingWire::Unstable, WantedState::All) => json!([["*", "*"]]),
            (SlidingWire::Unstable, WantedState::Named) => {
                json!([
                    ["m.room.member", "$ME"],
                    ["m.room.name", ""],
                    ["m.room.topic", ""]
                ])
            }
            (SlidingWire::Unstable, WantedState::Lazy) => {
                json!([["*", "*"], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"]])
            }
            (SlidingWire::Merged, WantedState::All) => json!({ "include": [{}] }),
            (SlidingWire::Merged, WantedState::Named) => json!({ "include": [
                { "type": "m.room.member", "state_key": me },
                { "type": "m.room.name", "state_key": "" },
                { "type": "m.room.topic" },
            ] }),
            (SlidingWire::Merged, WantedState::Lazy) => json!({
                "include": [{}, { "type": "m.room.member", "state_key": me }], "lazy_members": true,
            }),
        }
    }

    fn apply(&mut self, answer: &Value) {
        self.pos = answer["pos"].as_str().map(str::to_owned);
        for (id, news) in members(&answer["rooms"]) {
            if let Some(is_invited) = self.outside_of(id, news) {
                self.outside.insert(id.clone(), is_invited);
                continue;
            }
            self.outside.remove(id);
            self.apply_room(id, news);
        }
        let extensions = &answer["extensions"];
        for event in list(&extensions["account_data"]["global"]) {
            crate::client_model::set_data(&mut self.account_data, event);
        }
        for (id, events) in members(&extensions["account_data"]["rooms"]) {
            let room = self.rooms.entry(id.clone()).or_default();
            list(events).for_each(|event| crate::client_model::set_data(&mut room.account_data, event));
        }
        for (id, event) in members(&extensions["receipts"]["rooms"]) {
            self.rooms
                .entry(id.clone())
                .or_default()
                .set_receipts(&event["content"]);
        }
        for (id, event) in members(&extensions["typing"]["rooms"]) {
            let users = list(&event["content"]["user_ids"]);
            let users = users.filter_map(|user| user.as_str().map(str::to_owned));
            self.rooms.entry(id.clone()).or_default().typing = users.collect();
        }
    }

    /// Whether news are of a room that the user is invited to, or has knocked on; nothing for others.
    fn outside_of(&mut self, id: &str, news: &Value) -> Option<bool> {
        match self.wire {
            SlidingWire::Unstable => {
                let state = news["invite_state"].as_array()?;
                let own = state
                    .iter()
                    .find(|event| event["state_key"] == self.client.user_id.as_str());
                Some(own.is_none_or(|own| own["content"]["membership"] == "invite"))
            }
            SlidingWire::Merged => {
                let membership = news["membership"].as_str().unwrap_or_default().to_owned();
                let is_outside = matches!(membership.as_str(), "invite" | "knock");
                if is_outside && !news["stripped_state"].is_array() {
                    self.faults
                        .push(format!("{id}: {membership} without stripped_state"));
                }
                let is_invited = membership == "invite";
                self.memberships.insert(id.to_owned(), membership);
                is_outside.then_some(is_invited)
            }
        }
    }

    fn apply_room(&mut self, id: &str, news: &Value) {
        let room = self.rooms.entry(id.to_owned()).or_default();
        let initial = news["initial"] == true;
        if initial {
            *room = RoomModel {
                typing: std::mem::take(&mut room.typing),
                ..RoomModel::default()
            };
        }
        for event in list(&news["required_state"]) {
            room.set_state(event, id, &mut self.faults);
            let is_own =
                event["type"] == "m.room.member" && event["state_key"] == self.client.user_id.as_str();
            if is_own && self.wire == SlidingWire::Unstable {
                let membership = event["content"]["membership"].as_str().unwrap_or_default();
                self.memberships.insert(id.to_owned(), membership.to_owned());
            }
        }
        let expanded = match self.wire {
            SlidingWire::Unstable => &news["unstable_expanded_timeline"],
            SlidingWire::Merged => &news["expanded_timeline"],
        };
        if initial || news["limited"] == true || *expanded == true {
            room.timeline.clear();
        }
        let mut count = 0;
        for event in list(&news["timeline"]) {
            count += 1;
            let event_id = event["event_id"].as_str().unwrap_or_default().to_owned();
            self.seen.insert((id.to_owned(), event_id.clone()));
            if !room.timeline.contains(&event_id) {
                room.timeline.push(event_id);
            } else if !self.may_repeat {
                self.faults.push(format!("{id}: {event_id} came twice"));
            }
        }
        if news["num_live"].as_u64().unwrap_or_default() > count {
            self.faults
                .push(format!("{id}: more live events than events: {news}"));
        }
        if let (Some(joined), Some(invited)) = (news["joined_count"].as_u64(), news["invited_count"].as_u64())
        {
            room.counts = (joined, invited);
        }
        let is_joined = self
            .memberships
            .get(id)
            .is_some_and(|membership| membership == "join");
        match (&news["notification_count"], &news["highlight_count"]) {
            (Value::Number(all), Value::Number(high)) if self.wire == SlidingWire::Unstable => {
                let counts = (
                    all.as_u64().unwrap_or_default(),
                    high.as_u64().unwrap_or_default(),
                );
                self.unread.insert(id.to_owned(), counts);
            }
            (Value::Null, Value::Null) if self.wire == SlidingWire::Merged || !is_joined => {}
            // Clients take the absence for nothing unread.
            _ => self
                .faults
                .push(format!("{id}: not the counts of this wire: {news}")),
        }
    }

    /// Takes all news there are, and fails where it knows anything otherwise than a client that comes fresh by
    /// `/sync`, or than the rooms say.
    pub async fn check(&mut self, when: &str) {
        let mut pulls = 0;
        while self.pull(&Window::whole()).await > 0 {
            pulls += 1;
            assert!(pulls < 20, "{when}: the news have no end");
        }
        let answer = self.client.sync("timeout=0").await;
        let mut fresh = ClientModel::new();
        fresh.apply(&answer);
        let mut seen = ClientModel::new();
        seen.faults = self.faults.clone();
        seen.account_data = self.account_data.clone();
        for (id, is_invited) in &self.outside {
            let section = if *is_invited {
                &mut seen.invited
            } else {
                &mut seen.knocked
            };
            section.insert(id.clone(), Value::Null);
        }
        let mut found = Vec::new();
        for (id, room) in &self.rooms {
            let is_joined = self
                .memberships
                .get(id)
                .is_some_and(|membership| membership == "join");
            if is_joined && !self.outside.contains_key(id) {
                let mut room = room.clone();
                // `/sync` names heroes by id, and only where there is no alias either.
                room.heroes = fresh.joined.get(id).and_then(|room| room.heroes.clone());
                found.extend(differences_to_room(&room, &self.client, id, false).await);
                found.extend(self.unread_otherwise(id, &answer));
                seen.joined.insert(id.clone(), room);
            }
        }
        found.extend(seen.differences(&fresh, false));
        assert!(
            found.is_empty(),
            "{when}: {} sees by windows\n{}",
            self.conn_id,
            found.join("\n")
        );
        self.may_repeat = false;
    }

    /// Whether `/sync` counts otherwise what is unread.
    fn unread_otherwise(&self, id: &str, answer: &Value) -> Option<String> {
        if self.wire == SlidingWire::Merged {
            return None;
        }
        let counts = &answer["rooms"]["join"][id]["unread_notifications"];
        let count = |name: &str| counts[name].as_u64().unwrap_or_default();
        let told = (count("notification_count"), count("highlight_count"));
        let known = self.unread.get(id).copied().unwrap_or_default();
        (known != told).then(|| format!("{id}: unread: followed {known:?}, /sync {told:?}"))
    }

    /// The same device on a server that was started again after a crash.
    pub fn after_crash(mut self, endpoint: crate::Endpoint) -> Self {
        self.client = self.client.on(endpoint);
        self.may_repeat = true;
        self
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}
