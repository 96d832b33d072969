//! Random rooms whose history forks: users who join, leave, kick, ban, promote and demote each other and change join rules and topics, at
//! the same time and on different views of the room.

use ruma::UserId;
use serde_json::{Value, json};

use super::history::{History, Numbers, State};
use super::{Choices, USERS};
use crate::*;

/// A room with the state after each of its events.
pub(crate) struct Forks {
    pub history: History,
    pub after: Vec<State>,
    room_id: String,
}

/// What a new event says.
struct Said {
    sender: &'static str,
    kind: &'static str,
    state_key: String,
    content: Value,
}

fn said(sender: &'static str, kind: &'static str, state_key: &str, content: Value) -> Said {
    Said {
        sender,
        kind,
        state_key: state_key.to_owned(),
        content,
    }
}

impl Forks {
    pub fn random(c: &mut Choices<'_>, rules: &'static Rules) -> Forks {
        let mut room = Forks {
            history: History::new(rules),
            after: Vec::new(),
            room_id: "!r:one".to_owned(),
        };
        let admin = USERS[0];
        let mut create = json!({"creator": admin, "room_version": rules.version.as_str()});
        if c.once_in(6) {
            create["additional_creators"] = json!([USERS[1]]);
        }
        let by_admin = if rules.authorization.explicitly_privilege_room_creators {
            json!({USERS[2]: 50})
        } else {
            json!({admin: 100, USERS[2]: 50})
        };
        let rule = c.from(&["public", "public", "invite", "restricted", "knock"]);
        let mut last = Vec::new();
        for said in [
            said(admin, "m.room.create", "", create),
            said(admin, "m.room.member", admin, json!({"membership": "join"})),
            said(admin, "m.room.power_levels", "", json!({"users": by_admin})),
            said(admin, "m.room.join_rules", "", json!({"join_rule": rule})),
        ] {
            last = room.say(c, &last, said).map_or(last, |no| vec![no]);
        }
        while !c.0.is_empty() && room.history.events.len() < 48 {
            let prev = room.some_events(c);
            let said = room.random_event(c, &prev);
            room.say(c, &prev, said);
        }
        room
    }

    /// Where a new event follows: mostly the last ones.
    fn some_events(&self, c: &mut Choices<'_>) -> Vec<EventNo> {
        let count = [1, 1, 1, 2, 2, 3][c.pick(6)];
        let all = self.history.events.len();
        let mut chosen = Vec::new();
        for _ in 0..count {
            let back = if c.once_in(8) {
                c.pick(all)
            } else {
                c.pick(all.min(5))
            };
            chosen.push((all - back) as EventNo);
        }
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// The state that several events lead to together.
    pub fn state_after(&self, events: &[EventNo]) -> State {
        let sets: Vec<State> = events
            .iter()
            .map(|no| self.after[*no as usize - 1].clone())
            .collect();
        match &sets[..] {
            [] => State::new(),
            [only] => only.clone(),
            sets => self.history.ours(sets, &Numbers::same()),
        }
    }

    /// Adds an event if it is acceptable; as a rejected one if its authorization events allow it and the state does not.
    fn say(&mut self, c: &mut Choices<'_>, prev: &[EventNo], said: Said) -> Option<EventNo> {
        let rules = self.history.rules;
        let before = self.state_after(prev);
        let content = canonical::to_bytes(&said.content, false).unwrap();
        let sender = <&UserId>::try_from(said.sender).unwrap();
        let cited = auth_types(rules, sender, said.kind, Some(&said.state_key), &content);
        // A server that was away cites what it knew.
        let known = if c.once_in(8) && !self.after.is_empty() {
            self.after[c.pick(self.after.len())].clone()
        } else {
            before.clone()
        };
        // Without join rules a room is for who is invited, says every server but Ruma, which then lets nobody in.
        let join_rules = ("m.room.join_rules".to_owned(), String::new());
        if cited.contains(&join_rules) && !known.contains_key(&join_rules) && self.after.len() > 1 {
            return None;
        }
        let cited: Vec<EventNo> = cited.iter().filter_map(|key| known.get(key).copied()).collect();
        let pdu = self.write(c, prev, &cited, &said);
        let by_cited: State = cited.iter().map(|no| (self.history.key(*no), *no)).collect();
        if !self.history.allows_pdu(&by_cited, &pdu) && !c.once_in(40) {
            return None;
        }
        if said.kind == "m.room.power_levels" && PowerLevels::parse(rules, pdu.content()).is_err() {
            return None;
        }
        let rejected =
            !self.history.allows_pdu(&before, &pdu) || cited.iter().any(|no| self.history.get(*no).rejected);
        let no = self.history.add(pdu, rejected);
        if no as usize > self.after.len() {
            let mut after = before;
            if !rejected {
                after.insert((said.kind.to_owned(), said.state_key), no);
            }
            self.after.push(after);
        }
        Some(no)
    }

    fn write(&mut self, c: &mut Choices<'_>, prev: &[EventNo], cited: &[EventNo], said: &Said) -> Pdu {
        let rules = self.history.rules;
        let events = &self.history.events;
        let reference = |no: &EventNo| {
            let id = events[*no as usize - 1].pdu.event_id.as_str();
            if rules.paired_references() {
                json!([id, {"sha256": "x"}])
            } else {
                json!(id)
            }
        };
        let depths = prev.iter().map(|no| events[*no as usize - 1].pdu.depth());
        let mut event = json!({
            "type": said.kind, "state_key": said.state_key, "sender": said.sender, "content": said.content,
            "room_id": self.room_id, "hashes": {"sha256": "x"}, "signatures": {},
            "origin_server_ts": 1000 + c.pick(8), "depth": depths.max().unwrap_or(0) + 1,
            "prev_events": prev.iter().map(reference).collect::<Value>(),
            "auth_events": cited.iter().map(reference).collect::<Value>(),
        });
        if rules.explicit_event_ids() {
            let server = sender_server(said.sender);
            event["event_id"] = json!(format!("${}{}:{server}", c.pick(256), events.len()));
        }
        let names_room = said.kind == "m.room.create" && rules.room_id_is_create_hash();
        if names_room {
            event.as_object_mut().unwrap().remove("room_id");
        }
        let pdu = Pdu::parse(rules, event.to_string().as_bytes()).unwrap();
        if names_room {
            self.room_id = pdu.room_id().to_string();
        }
        pdu
    }

    fn random_event(&self, c: &mut Choices<'_>, prev: &[EventNo]) -> Said {
        let sender = USERS[[0, 0, 0, 1, 1, 2, 2, 3, 4][c.pick(9)]];
        let target = c.from(&USERS);
        let member = |who: &str, membership: &str| {
            let mut content = json!({"membership": membership});
            if membership == "join" {
                content["join_authorised_via_users_server"] = json!(USERS[0]);
            }
            said(sender, "m.room.member", who, content)
        };
        match c.pick(16) {
            0..4 => member(sender, "join"),
            4 => member(sender, "leave"),
            5 => member(sender, "knock"),
            6 => member(target, "invite"),
            7 => member(target, "leave"),
            8 | 9 => member(target, "ban"),
            10..13 => said(
                sender,
                "m.room.power_levels",
                "",
                self.other_power_levels(c, prev),
            ),
            13 => {
                let rule = c.from(&["public", "invite", "restricted", "knock"]);
                said(sender, "m.room.join_rules", "", json!({"join_rule": rule}))
            }
            14 => {
                let content = json!({"public_key": "x", "n": c.pick(4)});
                said(sender, "m.room.third_party_invite", c.from(&["t", "u"]), content)
            }
            _ => {
                let kind = c.from(&["m.room.topic", "m.room.name"]);
                said(sender, kind, "", json!({"n": c.pick(16)}))
            }
        }
    }

    /// The power levels after an event, with something changed.
    fn other_power_levels(&self, c: &mut Choices<'_>, prev: &[EventNo]) -> Value {
        let state = &self.after[prev[0] as usize - 1];
        let current = state.get(&("m.room.power_levels".to_owned(), String::new()));
        let mut content: Value = current.map_or(json!({}), |no| {
            serde_json::from_slice(self.history.get(*no).pdu.content()).unwrap()
        });
        let level = json!([0, 50, 100, 75, 99][c.pick(5)]);
        match c.pick(8) {
            0..6 => content["users"][c.from(&USERS)] = level,
            6 => content["events"][c.from(&["m.room.topic", "m.room.power_levels"])] = level,
            _ => content[c.from(&PowerField::ALL).name()] = level,
        }
        content
    }

    /// State sets as they come: after events of the room; sometimes, as from a server that is wrong, with entries that are lacking or old.
    pub fn random_sets(&self, c: &mut Choices<'_>) -> Vec<State> {
        let count = 2 + [0, 0, 0, 1, 1, 2, 3][c.pick(7)];
        let mut sets: Vec<State> = Vec::new();
        for _ in 0..count {
            let back = if c.once_in(3) {
                c.pick(self.after.len())
            } else {
                c.pick(self.after.len().min(8))
            };
            sets.push(self.after[self.after.len() - 1 - back].clone());
        }
        let wrong = [0, 0, 1, 2, 5][c.pick(5)];
        for _ in 0..wrong {
            let set = c.pick(count);
            let no = 1 + c.pick(self.history.events.len()) as EventNo;
            let key = self.history.key(no);
            if c.once_in(4) {
                sets[set].remove(&key);
            } else if c.once_in(4) {
                // All sets agree on something old.
                sets.iter_mut().for_each(|set| {
                    set.insert(key.clone(), no);
                });
            } else {
                sets[set].insert(key, no);
            }
        }
        sets
    }
}

fn sender_server(sender: &str) -> &str {
    sender.split_once(':').map_or("", |(_, server)| server)
}
