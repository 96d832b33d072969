//! Which rooms a list has.

use std::{collections::BTreeSet, sync::Arc};

use hearth_rooms::{Event, Room};
use hearth_users::Membership;
use ruma::OwnedRoomId;
use serde_json::{Value, value::RawValue};

use super::{
    connection::{RoomSent, Shown, State},
    order::{Listed, ListedRoom},
    request::ListFilter,
};
use crate::{Error, look::Look};

/// Decides on rooms, for one request.
pub(super) struct Sieve<'a> {
    pub(super) look: &'a Look<'a>,
    /// What the client is known to have.
    pub(super) state: &'a State,
    pub(super) direct: &'a BTreeSet<OwnedRoomId>,
}

impl Sieve<'_> {
    /// Whether a room is one of those that lists are made of, and passes a filter. `children` is what the
    /// filter's spaces have.
    pub(super) fn passes(
        &self,
        listed: &Listed,
        filter: &ListFilter,
        children: &BTreeSet<OwnedRoomId>,
    ) -> Result<bool, Error> {
        let entry = &*listed.room;
        if !self.passes_cheap(entry, filter, children) || !self.is_listed(entry)? {
            return Ok(false);
        }
        if filter.tags.is_some() || filter.not_tags.is_some() {
            let tags = self.look.request.user.tags(&entry.room_id)?;
            let has_one = |wanted: &Vec<String>| wanted.iter().any(|tag| tags.contains_key(tag));
            if filter.not_tags.as_ref().is_some_and(has_one)
                || filter.tags.as_ref().is_some_and(|wanted| !has_one(wanted))
            {
                return Ok(false);
            }
        }
        let needs_state = filter.is_encrypted.is_some()
            || filter.name_like.is_some()
            || filter.room_types.is_some()
            || filter.not_room_types.is_some();
        if !needs_state {
            return Ok(true);
        }
        let facts = Facts::of(self.look, entry, filter)?;
        Ok(facts.pass(filter))
    }

    /// Joined rooms, invitations and knocks; rooms that the user was thrown out of; those that the user left
    /// where the client has been shown them.
    fn is_listed(&self, entry: &ListedRoom) -> Result<bool, Error> {
        Ok(match entry.membership {
            Membership::Join | Membership::Knock => true,
            Membership::Invite => !self.look.is_unwanted(&entry.sender)?,
            Membership::Leave | Membership::Ban => {
                let thrown_out = entry.was_joined && entry.sender != *self.look.request.user.id();
                let sent = self.state.rooms.get(&entry.room_id);
                let may_be_known =
                    sent.is_none() && self.state.unsure_since.is_some_and(|since| entry.began > since);
                match entry.forgotten {
                    true => is_to_be_told(sent) || may_be_known,
                    false => thrown_out || sent.is_some() || may_be_known,
                }
            }
        })
    }

    fn passes_cheap(
        &self,
        entry: &ListedRoom,
        filter: &ListFilter,
        children: &BTreeSet<OwnedRoomId>,
    ) -> bool {
        let is_invited = entry.membership == Membership::Invite;
        filter
            .is_dm
            .is_none_or(|wanted| wanted == self.direct.contains(&entry.room_id))
            && filter.is_invited.is_none_or(|wanted| wanted == is_invited)
            && (filter.spaces.is_none() || children.contains(&entry.room_id))
    }
}

/// Whether a client has a room that is forgotten still as one that the user is in.
pub(super) fn is_to_be_told(sent: Option<&RoomSent>) -> bool {
    sent.is_some_and(|sent| sent.shown != Shown::Left)
}

/// What filters ask of a room's state.
#[derive(Default)]
struct Facts {
    kind: Option<String>,
    is_encrypted: bool,
    name: Option<String>,
}

impl Facts {
    /// The facts as the user may know them: of a room that he is in as it is now, of one that he has left as it was then,
    /// else as the invitation has it.
    fn of(look: &Look<'_>, entry: &ListedRoom, filter: &ListFilter) -> Result<Self, Error> {
        let room = look.engine.rooms.get(&entry.room_id)?;
        if let Some(room) = room.as_ref().filter(|_| entry.membership == Membership::Join) {
            return Self::of_state(room, filter, |kind| Ok(room.state(kind, "")?));
        }
        let Some(stored) = look.request.user.room(&entry.room_id)? else {
            return Ok(Self::default());
        };
        if matches!(entry.membership, Membership::Invite | Membership::Knock) {
            return Ok(Self::of_stripped(&look.stripped(&stored)?.state));
        }
        if let Some(room) = &room
            && let Some(own) = room.event_by_id(&stored.event_id)?
            && let Some((_, root)) = look.end_of_stay(room, entry, &own)?
        {
            return Self::of_state(room, filter, |kind| Ok(room.state_at(root, kind, "")?));
        }
        Ok(Self {
            kind: room.and_then(|room| room.create_info().room_type.clone()),
            ..Self::default()
        })
    }

    /// The facts of a state; `state` gives its event of a type.
    fn of_state(
        room: &Room,
        filter: &ListFilter,
        state: impl Fn(&str) -> Result<Option<Arc<Event>>, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            kind: room.create_info().room_type.clone(),
            is_encrypted: match filter.is_encrypted {
                Some(_) => state("m.room.encryption")?.is_some(),
                None => false,
            },
            name: match filter.name_like {
                Some(_) => name_of(state("m.room.name")?),
                None => None,
            },
        })
    }

    fn of_stripped(state: &[Box<RawValue>]) -> Self {
        let mut facts = Self::default();
        for event in state {
            let event: Value = serde_json::from_str(event.get()).unwrap_or_default();
            let text = |name: &str| event["content"][name].as_str().map(str::to_owned);
            match event["type"].as_str() {
                Some("m.room.create") => facts.kind = text("type"),
                Some("m.room.encryption") => facts.is_encrypted = true,
                Some("m.room.name") => facts.name = text("name"),
                _ => {}
            }
        }
        facts
    }

    fn pass(&self, filter: &ListFilter) -> bool {
        let has = |kinds: &Vec<Option<String>>| kinds.contains(&self.kind);
        let like = |part: &String| {
            let name = self.name.as_deref().unwrap_or_default().to_lowercase();
            name.contains(&part.to_lowercase())
        };
        filter
            .is_encrypted
            .is_none_or(|wanted| wanted == self.is_encrypted)
            && filter.room_types.as_ref().is_none_or(has)
            && !filter.not_room_types.as_ref().is_some_and(has)
            && filter.name_like.as_ref().is_none_or(like)
    }
}

fn name_of(event: Option<Arc<Event>>) -> Option<String> {
    let content: Value = serde_json::from_slice(event?.pdu.content()).ok()?;
    content["name"].as_str().map(str::to_owned)
}

/// What some spaces have as children, as far as the user is joined to them.
pub(super) fn children_of(
    look: &Look<'_>,
    spaces: &BTreeSet<OwnedRoomId>,
) -> Result<BTreeSet<OwnedRoomId>, Error> {
    let mut children = BTreeSet::new();
    for space in spaces {
        if look.index.state.lock().room(space).is_none() {
            continue;
        }
        let Some(room) = look.engine.rooms.get(space)? else {
            continue;
        };
        for event in room.state_of_type("m.space.child")? {
            let content: Value = serde_json::from_slice(event.pdu.content()).unwrap_or_default();
            // Without servers to join by, it is no child (any more).
            let is_child = content.get("via").is_some_and(Value::is_array);
            let child = event.pdu.state_key().filter(|_| is_child);
            children.extend(child.and_then(|id| OwnedRoomId::try_from(id).ok()));
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(kind: Option<&str>, is_encrypted: bool, name: &str) -> Facts {
        Facts {
            kind: kind.map(str::to_owned),
            is_encrypted,
            name: Some(name.to_owned()),
        }
    }

    #[test]
    fn filters() {
        let space = || Some(vec![Some("m.space".to_owned())]);
        let no_type = || Some(vec![None]);
        let filter = |change: fn(&mut ListFilter)| {
            let mut filter = ListFilter::default();
            change(&mut filter);
            filter
        };
        let room = facts(None, true, "Den of Thieves");
        let a_space = facts(Some("m.space"), false, "Space");
        for (facts, filter, expected) in [
            (&room, ListFilter::default(), true),
            (&room, filter(|filter| filter.is_encrypted = Some(true)), true),
            (&a_space, filter(|filter| filter.is_encrypted = Some(true)), false),
            (&a_space, filter(|filter| filter.is_encrypted = Some(false)), true),
            (
                &room,
                filter(|filter| filter.name_like = Some("THIE".to_owned())),
                true,
            ),
            (
                &a_space,
                filter(|filter| filter.name_like = Some("thie".to_owned())),
                false,
            ),
            (
                &room,
                ListFilter {
                    room_types: no_type(),
                    ..ListFilter::default()
                },
                true,
            ),
            (
                &a_space,
                ListFilter {
                    room_types: no_type(),
                    ..ListFilter::default()
                },
                false,
            ),
            (
                &a_space,
                ListFilter {
                    not_room_types: space(),
                    ..ListFilter::default()
                },
                false,
            ),
            (
                &room,
                ListFilter {
                    not_room_types: space(),
                    ..ListFilter::default()
                },
                true,
            ),
            (
                &a_space,
                ListFilter {
                    room_types: space(),
                    not_room_types: space(),
                    ..ListFilter::default()
                },
                false,
            ),
        ] {
            assert_eq!(facts.pass(&filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn stripped_state_tells_facts() {
        let event = |value: Value| RawValue::from_string(value.to_string()).unwrap();
        let facts = Facts::of_stripped(&[
            event(json!({ "type": "m.room.create", "content": { "type": "m.space" } })),
            event(json!({ "type": "m.room.encryption", "content": {} })),
            event(json!({ "type": "m.room.name", "content": { "name": 7 } })),
            event(json!([])),
        ]);
        assert_eq!(facts.kind.as_deref(), Some("m.space"));
        assert!(facts.is_encrypted && facts.name.is_none());
    }
}
