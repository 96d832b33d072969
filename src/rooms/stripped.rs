//! What somebody who is not in a room is shown of it: stripped state, summaries.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{OwnedRoomAliasId, OwnedUserId, UserId};
use serde_json::{Value, json, value::RawValue};

use crate::{Error, Event, Membership, NodeId, Room, Short, Visibility, serve::membership_of};

/// The most events of stripped state that are kept of another server: servers send about ten.
const STRIPPED_EVENTS_MAX: usize = 100;

/// The most bytes of stripped state that are kept of another server: it stays in the user's room list.
const STRIPPED_MAX_BYTES: usize = 256 << 10;

/// How many members are looked at to name a room's heroes.
const HERO_ROWS_MAX: usize = 2_000;

/// Among how many members the heroes are chosen.
const HERO_MEMBERS_MAX: usize = 100;

/// How many heroes a summary names.
const HEROES_MAX: usize = 5;

/// Members who name a room.
type Named = Vec<(OwnedUserId, Membership)>;

impl Room {
    /// The stripped state for a user who is invited or knocks: with the user's own member event
    /// and that of whoever sent it.
    pub fn stripped_state(&self, user: &UserId) -> Result<Vec<Box<RawValue>>, Error> {
        let mut events = self.preview_state()?;
        if let Some(own) = self.state("m.room.member", user.as_str())? {
            if *own.pdu.sender() != *user {
                events.extend(self.state("m.room.member", own.pdu.sender().as_str())?);
            }
            events.push(own);
        }
        events.iter().map(stripped).collect()
    }

    /// A text field of a state event with an empty key.
    pub fn state_text(&self, kind: &str, field: &str) -> Result<Option<String>, Error> {
        let Some(event) = self.state(kind, "")? else {
            return Ok(None);
        };
        let content: Value = serde_json::from_slice(event.pdu.content()).unwrap_or_default();
        Ok(content
            .get(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned))
    }

    /// The canonical alias.
    pub fn canonical_alias(&self) -> Result<Option<OwnedRoomAliasId>, Error> {
        let alias = self.state_text("m.room.canonical_alias", "alias")?;
        Ok(alias.and_then(|alias| OwnedRoomAliasId::try_from(alias).ok()))
    }

    /// The room's current history visibility.
    pub fn history_visibility(&self) -> Result<Visibility, Error> {
        let event = self.state("m.room.history_visibility", "")?;
        Ok(event.map_or(Visibility::default(), |event| {
            Visibility::of_content(event.pdu.content())
        }))
    }

    /// Whether guests may join.
    pub fn guests_can_join(&self) -> Result<bool, Error> {
        Ok(self.state_text("m.room.guest_access", "guest_access")?.as_deref() == Some("can_join"))
    }

    /// The members who name a room that has no name: the first five others, joined or invited, else who left.
    ///
    /// First is whose membership the room has known longest. Of a room with many members only some are looked at, in the
    /// order of their ids: such a room is not called by its members, and the list must not cost what they are.
    pub fn heroes(&self, user: &UserId) -> Result<Named, Error> {
        let mut heroes = Heroes::default();
        self.visit_members(&mut |member, membership, short| {
            if member != user {
                heroes.look_at(member, membership, short);
            }
            heroes.need_more()
        })?;
        Ok(heroes.chosen())
    }

    /// Who names the room in the state with a root, as in [`Self::heroes`], and how many are joined and invited there:
    /// somebody who has left sees the room as it was then. Costs what differs from the current state, and the heroes.
    pub fn people_at(&self, user: &UserId, root: NodeId) -> Result<(Named, (u32, u32)), Error> {
        let view = self.view();
        let mut then: BTreeMap<OwnedUserId, (Membership, Short)> = BTreeMap::new();
        let mut counts = (view.joined, view.invited);
        for (now, before) in self.state_changes(view.root, root)? {
            if let Some((member, membership)) = self.member_of(now)? {
                count(&mut counts, membership, u32::saturating_sub);
                then.entry(member).or_insert((Membership::None, 0));
            }
            if let (Some(short), Some((member, membership))) = (before, self.member_of(before)?) {
                count(&mut counts, membership, u32::saturating_add);
                then.insert(member, (membership, short));
            }
        }
        let mut heroes = Heroes::default();
        for (member, (membership, short)) in &then {
            if member != user {
                heroes.look_at(member, *membership, *short);
            }
        }
        self.visit_members(&mut |member, membership, short| {
            if member != user && !then.contains_key(member) {
                heroes.look_at(member, membership, short);
            }
            heroes.need_more()
        })?;
        Ok((heroes.chosen(), counts))
    }

    /// Whose membership a state event is, and which.
    fn member_of(&self, short: Option<Short>) -> Result<Option<(OwnedUserId, Membership)>, Error> {
        let Some(event) = short.map(|short| self.event(short)).transpose()?.flatten() else {
            return Ok(None);
        };
        let member = event
            .pdu
            .state_key()
            .filter(|_| event.pdu.kind() == "m.room.member");
        let member = member.and_then(|id| OwnedUserId::try_from(id).ok());
        Ok(member.map(|member| (member, membership_of(&event))))
    }

    /// The room as the public directory and `room_summary` show it.
    pub fn summary(&self) -> Result<Value, Error> {
        let view = self.view();
        let create = self.create_info();
        let mut out = json!({
            "room_id": self.id(),
            "num_joined_members": view.joined,
            "world_readable": self.history_visibility()? == Visibility::WorldReadable,
            "guest_can_join": self.guests_can_join()?,
            "join_rule": self.join_rule()?.rule.as_str(),
        });
        for (name, value) in [
            ("name", self.state_text("m.room.name", "name")?),
            ("topic", self.state_text("m.room.topic", "topic")?),
            ("avatar_url", self.state_text("m.room.avatar", "url")?),
            (
                "canonical_alias",
                self.canonical_alias()?.map(|alias| alias.to_string()),
            ),
            ("room_type", create.room_type.clone()),
        ] {
            if let Some(value) = value {
                out[name] = json!(value);
            }
        }
        Ok(out)
    }
}

/// Changes the count of joined or invited members by one.
fn count((joined, invited): &mut (u32, u32), membership: Membership, change: fn(u32, u32) -> u32) {
    match membership {
        Membership::Join => *joined = change(*joined, 1),
        Membership::Invite => *invited = change(*invited, 1),
        _ => {}
    }
}

/// Chooses the heroes among members.
#[derive(Default)]
struct Heroes {
    present: Vec<(Short, OwnedUserId, Membership)>,
    gone: Vec<(Short, OwnedUserId, Membership)>,
    looked_at: usize,
}

impl Heroes {
    fn look_at(&mut self, member: &UserId, membership: Membership, short: Short) {
        self.looked_at += 1;
        let list = match membership {
            Membership::Join | Membership::Invite => &mut self.present,
            Membership::Leave | Membership::Ban if self.gone.len() < HERO_MEMBERS_MAX => &mut self.gone,
            _ => return,
        };
        list.push((short, member.to_owned(), membership));
    }

    fn need_more(&self) -> bool {
        self.present.len() < HERO_MEMBERS_MAX && self.looked_at < HERO_ROWS_MAX
    }

    fn chosen(self) -> Vec<(OwnedUserId, Membership)> {
        let mut heroes = match self.present.is_empty() {
            true => self.gone,
            false => self.present,
        };
        heroes.sort_unstable_by_key(|(short, _, _)| *short);
        heroes.truncate(HEROES_MAX);
        let heroes = heroes.into_iter();
        heroes
            .map(|(_, member, membership)| (member, membership))
            .collect()
    }
}

/// What is kept of stripped state that another server sent: every event cut to what clients are shown of it
/// (client-server API, "Stripped state"), those that are none left out, and not more than has a use. Of too many the
/// last are kept: there stands the user's own membership.
pub(crate) fn prune(events: &[Box<RawValue>]) -> Vec<Box<RawValue>> {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Stripped<'a> {
        #[serde(rename = "type")]
        kind: std::borrow::Cow<'a, str>,
        state_key: std::borrow::Cow<'a, str>,
        sender: ruma::OwnedUserId,
        #[serde(borrow)]
        content: &'a RawValue,
        /// Of the create event (MSC4311).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin_server_ts: Option<u64>,
    }
    let mut kept = Vec::new();
    let mut bytes = 0;
    for event in events.iter().rev().take(STRIPPED_EVENTS_MAX) {
        let Some(event) = serde_json::from_str::<Stripped<'_>>(event.get())
            .ok()
            .filter(|event| event.content.get().starts_with('{'))
            .map(|event| Stripped {
                origin_server_ts: event.origin_server_ts.filter(|_| event.kind == "m.room.create"),
                ..event
            })
            .and_then(|event| serde_json::value::to_raw_value(&event).ok())
            // What no value can hold, such as a number without end or what is nested too deep, goes to no client.
            .filter(|event| serde_json::from_str::<Value>(event.get()).is_ok())
        else {
            continue;
        };
        bytes += event.get().len();
        if bytes > STRIPPED_MAX_BYTES {
            break;
        }
        kept.push(event);
    }
    kept.reverse();
    kept
}

/// An event with nothing but type, state key, sender and content; the create event also says when it was (MSC4311).
pub(crate) fn stripped(event: &Arc<Event>) -> Result<Box<RawValue>, Error> {
    let content: &RawValue =
        serde_json::from_slice(event.pdu.content()).map_err(|_| Error::Damaged("event"))?;
    #[derive(serde::Serialize)]
    struct Stripped<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        state_key: &'a str,
        sender: &'a UserId,
        content: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        origin_server_ts: Option<u64>,
    }
    let is_create = event.pdu.kind() == "m.room.create";
    serde_json::value::to_raw_value(&Stripped {
        kind: event.pdu.kind(),
        state_key: event.pdu.state_key().unwrap_or_default(),
        sender: event.pdu.sender(),
        content,
        origin_server_ts: is_create.then(|| event.pdu.origin_server_ts()),
    })
    .map_err(|_| Error::Damaged("event"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).expect("JSON")
    }

    #[test]
    fn stripped_state_of_others_is_cut() {
        let good = |n: usize| json!({ "type": "m.room.name", "state_key": n.to_string(), "sender": "@a:s", "content": { "name": "x" } });
        let check = |events: Vec<Value>, expected: Vec<Value>| {
            let events: Vec<_> = events.iter().map(raw).collect();
            let kept: Vec<Value> = prune(&events)
                .iter()
                .map(|event| serde_json::from_str(event.get()).expect("JSON"))
                .collect();
            assert_eq!(kept, expected);
        };
        let mut pdu = good(1);
        pdu["hashes"] = json!({ "sha256": "x" });
        pdu["unsigned"] = json!({ "age": 1 });
        check(vec![pdu, good(2)], vec![good(1), good(2)]);
        for (name, value) in [
            ("type", json!(1)),
            ("state_key", Value::Null),
            ("sender", json!("a")),
            ("content", json!([])),
        ] {
            let mut bad = good(1);
            bad[name] = value;
            check(vec![bad, json!("x"), good(2)], vec![good(2)]);
        }
        let endless = good(1).to_string().replace("\"x\"", "1e999");
        let endless = RawValue::from_string(endless).expect("JSON as far as its form goes");
        assert!(prune(&[endless]).is_empty());
        let deep = format!("{}{}", "[".repeat(126), "]".repeat(126));
        let deep = RawValue::from_string(good(1).to_string().replace("\"x\"", &deep)).expect("JSON");
        assert!(prune(&[deep]).is_empty());
        let many: Vec<_> = (0..STRIPPED_EVENTS_MAX + 5).map(good).collect();
        let last = many[5..].to_vec();
        check(many, last);
        let mut large = good(1);
        large["content"]["name"] = json!("x".repeat(STRIPPED_MAX_BYTES));
        check(vec![good(0), large, good(2)], vec![good(2)]);
    }
}
