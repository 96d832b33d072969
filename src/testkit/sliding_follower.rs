//! A client that follows its account by windows over the room list (MSC4186, the unstable wire), checked
//! against one that comes fresh by `/sync`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client_model::RoomModel;
use crate::{Client, ClientModel, encode};

const PATH: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// A device that follows its account by windows.
pub struct SlidingFollower {
    /// The device.
    pub client: Client,
    conn_id: String,
    pos: Option<String>,
    /// Every room that it was shown.
    rooms: BTreeMap<String, RoomModel>,
    /// The user's own membership in each.
    memberships: BTreeMap<String, String>,
    /// The rooms that it sees from outside: whether it was invited, or knocked.
    outside: BTreeMap<String, bool>,
    account_data: BTreeMap<String, Value>,
    faults: Vec<String>,
    /// After a crash what was sent last may come again.
    may_repeat: bool,
}

impl SlidingFollower {
    /// Follows on a connection of its own.
    pub fn new(client: Client, conn_id: &str) -> Self {
        Self {
            client,
            conn_id: conn_id.to_owned(),
            pos: None,
            rooms: BTreeMap::new(),
            memberships: BTreeMap::new(),
            outside: BTreeMap::new(),
            account_data: BTreeMap::new(),
            faults: Vec::new(),
            may_repeat: false,
        }
    }

    /// Takes the news within a window. `loses` is whether an answer gets lost before it.
    pub async fn pull(&mut self, last: u64, timeline_limit: u64, loses: bool) -> usize {
        let on = json!({ "enabled": true });
        let body = json!({
            "conn_id": self.conn_id,
            "lists": { "all": {
                "ranges": [[0, last]], "timeline_limit": timeline_limit, "required_state": [["*", "*"]],
            } },
            "extensions": { "account_data": on, "receipts": on, "typing": on },
        });
        let path = match &self.pos {
            Some(pos) => format!("{PATH}?timeout=0&pos={}", encode(pos)),
            None => PATH.to_owned(),
        };
        if loses && self.pos.is_some() {
            self.client.post(&path, body.clone()).await;
        }
        let answer = self.client.post(&path, body).await;
        if answer.errcode() == "M_UNKNOWN_POS" {
            if !self.may_repeat {
                self.faults.push("a position was not known".to_owned());
            }
            let faults = std::mem::take(&mut self.faults);
            let client = self.client.on(self.client.endpoint.clone());
            *self = Self::new(client, &self.conn_id);
            self.faults = faults;
            return usize::MAX;
        }
        let answer = answer.ok();
        self.apply(&answer);
        members(&answer["rooms"]).count()
    }

    fn apply(&mut self, answer: &Value) {
        self.pos = answer["pos"].as_str().map(str::to_owned);
        for (id, news) in members(&answer["rooms"]) {
            if let Some(state) = news["invite_state"].as_array() {
                let own = state
                    .iter()
                    .find(|event| event["state_key"] == self.client.user_id.as_str());
                let is_invited = own.is_none_or(|own| own["content"]["membership"] == "invite");
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
            if event["type"] == "m.room.member" && event["state_key"] == self.client.user_id.as_str() {
                let membership = event["content"]["membership"].as_str().unwrap_or_default();
                self.memberships.insert(id.to_owned(), membership.to_owned());
            }
        }
        if initial || news["limited"] == true || news["unstable_expanded_timeline"] == true {
            room.timeline.clear();
        }
        for event in list(&news["timeline"]) {
            let event_id = event["event_id"].as_str().unwrap_or_default().to_owned();
            if !room.timeline.contains(&event_id) {
                room.timeline.push(event_id);
            } else if !self.may_repeat {
                self.faults.push(format!("{id}: {event_id} came twice"));
            }
        }
        if let (Some(joined), Some(invited)) = (news["joined_count"].as_u64(), news["invited_count"].as_u64())
        {
            room.counts = (joined, invited);
        }
    }

    /// Takes all news there are, and fails where it knows anything otherwise than a client that comes fresh by
    /// `/sync`.
    pub async fn check(&mut self, when: &str) {
        let mut pulls = 0;
        while self.pull(999, 20, false).await > 0 {
            pulls += 1;
            assert!(pulls < 20, "{when}: the news have no end");
        }
        let mut fresh = ClientModel::new();
        fresh.apply(&self.client.sync("timeout=0").await);
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
        for (id, room) in &self.rooms {
            let is_joined = self
                .memberships
                .get(id)
                .is_some_and(|membership| membership == "join");
            if is_joined && !self.outside.contains_key(id) {
                let mut room = room.clone();
                // `/sync` names heroes by id, and only where there is no alias either.
                room.heroes = fresh.joined.get(id).and_then(|room| room.heroes.clone());
                seen.joined.insert(id.clone(), room);
            }
        }
        let found = seen.differences(&fresh, false);
        assert!(
            found.is_empty(),
            "{when}: {} sees by windows\n{}",
            self.conn_id,
            found.join("\n")
        );
        self.may_repeat = false;
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
