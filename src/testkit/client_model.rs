//! A client that follows `/sync` as a real one does: it keeps state, timelines, receipts and the like
//! from increments alone. Its view must equal that of a client that syncs afresh.
//!
//! It knows nothing of this server: JSON in, differences out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A client's view of an account.
#[derive(Clone, Debug, Default)]
pub struct ClientModel {
    /// The token of the last answer.
    pub next_batch: Option<String>,
    /// Joined rooms.
    pub joined: BTreeMap<String, RoomModel>,
    /// Invitations: what they show of the room.
    pub invited: BTreeMap<String, Value>,
    /// Knocks.
    pub knocked: BTreeMap<String, Value>,
    /// Rooms that were left while this client looked: the last events shown of them.
    pub left: BTreeMap<String, Vec<String>>,
    /// Account data by type.
    pub account_data: BTreeMap<String, Value>,
    /// Presence by user.
    pub presence: BTreeMap<String, String>,
    /// Every event that came in a timeline: its room, and its id.
    pub seen: BTreeSet<(String, String)>,
    /// What this client met that no server may send.
    pub faults: Vec<String>,
    /// Events of which increments need not tell: redactions of what came here later, and came redacted.
    pub untold: BTreeSet<String>,
}

/// A client's view of a room.
#[derive(Clone, Debug, Default)]
pub struct RoomModel {
    /// State: (type, state key) → event id.
    pub state: BTreeMap<(String, String), String>,
    /// The newest events without a gap, oldest first.
    pub timeline: Vec<String>,
    /// The senders of those.
    pub senders: BTreeSet<String>,
    /// Receipts: (user, kind, thread) → event id.
    pub receipts: BTreeMap<(String, String, String), String>,
    /// Who types.
    pub typing: BTreeSet<String>,
    /// Account data by type.
    pub account_data: BTreeMap<String, Value>,
    /// Joined and invited members.
    pub counts: (u64, u64),
    /// The members who name the room.
    pub heroes: Option<Value>,
}

impl ClientModel {
    /// A client that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in an answer of `/sync`.
    pub fn apply(&mut self, answer: &Value) {
        self.next_batch = answer["next_batch"].as_str().map(str::to_owned);
        for event in events(&answer["account_data"]) {
            set_data(&mut self.account_data, event);
        }
        for event in events(&answer["presence"]) {
            let state = text(&event["content"]["presence"]);
            self.presence.insert(text(&event["sender"]), state);
        }
        for (id, news) in members(&answer["rooms"]["invite"]) {
            self.invited.insert(id.clone(), news["invite_state"].clone());
            self.knocked.remove(id);
            self.joined.remove(id);
        }
        for (id, news) in members(&answer["rooms"]["knock"]) {
            self.knocked.insert(id.clone(), news["knock_state"].clone());
        }
        for (id, news) in members(&answer["rooms"]["leave"]) {
            self.invited.remove(id);
            self.knocked.remove(id);
            self.joined.remove(id);
            let shown: Vec<String> = events(&news["timeline"])
                .map(|event| text(&event["event_id"]))
                .collect();
            self.seen
                .extend(shown.iter().map(|event| (id.clone(), event.clone())));
            self.left.insert(id.clone(), shown);
        }
        for (id, news) in members(&answer["rooms"]["join"]) {
            self.invited.remove(id);
            self.knocked.remove(id);
            self.left.remove(id);
            let shown = events(&news["timeline"]);
            self.seen
                .extend(shown.map(|event| (id.clone(), text(&event["event_id"]))));
            self.joined
                .entry(id.clone())
                .or_default()
                .apply(id, news, &mut self.faults);
        }
    }

    /// How this client's view differs from a fresh one. With lazily loaded members only those who sent
    /// what both clients show are compared.
    pub fn differences(&self, fresh: &ClientModel, lazy: bool) -> Vec<String> {
        let mut out = self.faults.clone();
        let mut differ = |what: &str, one: String, other: String| {
            if one != other {
                out.push(format!("{what}: followed {one}, fresh {other}"));
            }
        };
        let keys = |map: &BTreeMap<String, Value>| map.keys().cloned().collect::<Vec<_>>();
        differ(
            "invitations",
            format!("{:?}", keys(&self.invited)),
            format!("{:?}", keys(&fresh.invited)),
        );
        differ(
            "knocks",
            format!("{:?}", keys(&self.knocked)),
            format!("{:?}", keys(&fresh.knocked)),
        );
        differ(
            "account data",
            format!("{:?}", self.account_data),
            format!("{:?}", fresh.account_data),
        );
        let rooms = |model: &ClientModel| format!("{:?}", model.joined.keys().collect::<Vec<_>>());
        differ("joined rooms", rooms(self), rooms(fresh));
        for (id, room) in &fresh.joined {
            let Some(own) = self.joined.get(id) else { continue };
            let mut room = room.clone();
            room.timeline
                .retain(|event| !self.untold.contains(event) || own.timeline.contains(event));
            out.extend(
                own.differences(&room, lazy)
                    .into_iter()
                    .map(|difference| format!("{id}: {difference}")),
            );
        }
        out
    }
}

impl RoomModel {
    fn apply(&mut self, id: &str, news: &Value, faults: &mut Vec<String>) {
        let timeline = &news["timeline"];
        let after = news.get("state_after");
        for event in events(after.unwrap_or(&news["state"])) {
            self.set_state(event, id, faults);
        }
        if timeline["limited"] == true {
            self.timeline.clear();
            self.senders.clear();
        }
        for event in events(timeline) {
            let event_id = text(&event["event_id"]);
            if self.timeline.contains(&event_id) {
                faults.push(format!("{id}: {event_id} came twice"));
                continue;
            }
            self.timeline.push(event_id);
            self.senders.insert(text(&event["sender"]));
            if after.is_none() && event.get("state_key").is_some() {
                self.set_state(event, id, faults);
            }
        }
        for event in events(&news["ephemeral"]) {
            match event["type"].as_str() {
                Some("m.typing") => {
                    let users = event["content"]["user_ids"].as_array();
                    self.typing = users.into_iter().flatten().map(text).collect();
                }
                Some("m.receipt") => self.set_receipts(&event["content"]),
                _ => faults.push(format!("{id}: an ephemeral event {event}")),
            }
        }
        for event in events(&news["account_data"]) {
            set_data(&mut self.account_data, event);
        }
        if let Some(summary) = news.get("summary") {
            let count = |name: &str| summary[name].as_u64().unwrap_or_default();
            self.counts = (count("m.joined_member_count"), count("m.invited_member_count"));
            self.heroes = summary.get("m.heroes").cloned();
        }
    }

    pub(crate) fn set_state(&mut self, event: &Value, id: &str, faults: &mut Vec<String>) {
        let Some(state_key) = event["state_key"].as_str() else {
            faults.push(format!("{id}: an event without state key among the state"));
            return;
        };
        self.state.insert(
            (text(&event["type"]), state_key.to_owned()),
            text(&event["event_id"]),
        );
    }

    pub(crate) fn set_receipts(&mut self, content: &Value) {
        for (event_id, kinds) in members(content) {
            for (kind, users) in members(kinds) {
                for (user, data) in members(users) {
                    let thread = text(&data["thread_id"]);
                    self.receipts
                        .insert((user.clone(), kind.clone(), thread), event_id.clone());
                }
            }
        }
    }

    fn differences(&self, fresh: &RoomModel, lazy: bool) -> Vec<String> {
        let mut out = Vec::new();
        let keys: BTreeSet<_> = self.state.keys().chain(fresh.state.keys()).collect();
        for key in keys {
            let shown = self.senders.contains(&key.1) && fresh.senders.contains(&key.1);
            let needed = !lazy || key.0 != "m.room.member" || shown;
            let (one, other) = (self.state.get(key), fresh.state.get(key));
            if needed && one != other {
                out.push(format!("state {key:?}: followed {one:?}, fresh {other:?}"));
            }
        }
        let common = self.timeline.len().min(fresh.timeline.len());
        let tail = |list: &[String]| list[list.len() - common..].to_vec();
        if tail(&self.timeline) != tail(&fresh.timeline) {
            out.push(format!(
                "timeline: followed {:?}, fresh {:?}",
                self.timeline, fresh.timeline
            ));
        }
        let mut differ = |what: &str, one: String, other: String| {
            if one != other {
                out.push(format!("{what}: followed {one}, fresh {other}"));
            }
        };
        differ(
            "receipts",
            format!("{:?}", self.receipts),
            format!("{:?}", fresh.receipts),
        );
        differ(
            "typing",
            format!("{:?}", self.typing),
            format!("{:?}", fresh.typing),
        );
        differ(
            "account data",
            format!("{:?}", self.account_data),
            format!("{:?}", fresh.account_data),
        );
        differ(
            "counts",
            format!("{:?}", self.counts),
            format!("{:?}", fresh.counts),
        );
        differ(
            "heroes",
            format!("{:?}", self.heroes),
            format!("{:?}", fresh.heroes),
        );
        out
    }
}

/// Sets account data; an empty content is how a deletion is told.
pub(crate) fn set_data(data: &mut BTreeMap<String, Value>, event: &Value) {
    let kind = text(&event["type"]);
    match &event["content"] {
        content if content.as_object().is_some_and(|content| content.is_empty()) => data.remove(&kind),
        content => data.insert(kind, content.clone()),
    };
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn events(section: &Value) -> impl Iterator<Item = &Value> {
    section["events"].as_array().into_iter().flatten()
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(next: &str, room: Value) -> Value {
        json!({ "next_batch": next, "rooms": { "join": { "!r": room } } })
    }

    fn message(id: &str) -> Value {
        json!({ "event_id": id, "type": "m.room.message", "sender": "@a:hs1" })
    }

    fn timeline(ids: &[&str], limited: bool) -> Value {
        let events: Vec<_> = ids.iter().map(|id| message(id)).collect();
        json!({ "timeline": { "events": events, "limited": limited } })
    }

    #[test]
    fn what_a_follower_knows_otherwise_is_found() {
        let mut followed = ClientModel::new();
        followed.apply(&answer("1", timeline(&["$1", "$2"], false)));
        followed.apply(&answer("2", timeline(&["$3"], false)));
        for (ids, equal) in [
            (vec!["$1", "$2", "$3"], true),
            (vec!["$3"], true),
            (vec!["$2", "$1", "$3"], false),
            (vec!["$4"], false),
        ] {
            let mut fresh = ClientModel::new();
            fresh.apply(&answer("2", timeline(&ids, true)));
            assert_eq!(followed.differences(&fresh, false).is_empty(), equal, "{ids:?}");
        }
        let mut fresh = ClientModel::new();
        fresh.apply(&json!({ "next_batch": "2" }));
        assert_eq!(followed.differences(&fresh, false).len(), 1, "a room is missing");
    }

    #[test]
    fn an_event_that_comes_twice_is_a_fault() {
        let mut followed = ClientModel::new();
        followed.apply(&answer("1", timeline(&["$1"], false)));
        followed.apply(&answer("2", timeline(&["$1"], false)));
        assert_eq!(followed.faults.len(), 1);
    }
}
