//! What a server gets when one of its users has joined or knocked.

use std::{collections::HashSet, sync::Arc};

use hearth_storage::Family;
use ruma::OwnedServerName;

use crate::{Error, Event, Room, event::Short, keys, state_tree};

/// The state events that show a room to somebody outside, whole (server-server API, `invite_room_state` and
/// `knock_room_state`; client-server API, "Stripped state").
const PREVIEW_TYPES: [&str; 8] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
];

/// The most state keys, memberships aside, that are looked up at once.
const CHUNK_KEYS: usize = 1_024;

/// The answer of `send_join`.
#[derive(Debug)]
pub struct JoinAnswer {
    /// The state before the join.
    pub state: Vec<Arc<Event>>,
    /// The auth chains of the state and of the join.
    pub auth_chain: Vec<Arc<Event>>,
    /// The servers that were in the room before, where most members are left out of the state.
    pub servers: Option<Vec<OwnedServerName>>,
}

impl Room {
    /// What the server of a joined user must know of the room. With `servers`, those that were in the room before the
    /// join, the server is content without most member events, and without events that would come twice.
    pub fn join_answer(
        &self,
        join: &Event,
        servers: Option<Vec<OwnedServerName>>,
    ) -> Result<JoinAnswer, Error> {
        let shorts = match &servers {
            None => self.all_before(join)?,
            Some(_) => self.all_but_members_before(join)?,
        };
        let mut state = Vec::with_capacity(shorts.len());
        for chunk in shorts.chunks(CHUNK_KEYS) {
            state.extend(self.events(chunk)?);
        }
        let of: Vec<Short> = shorts.iter().copied().chain([join.short]).collect();
        let mut auth_chain = self.auth_chain(&of)?;
        if servers.is_some() {
            let given: HashSet<Short> = shorts.into_iter().collect();
            auth_chain.retain(|event| !given.contains(&event.short));
        }
        Ok(JoinAnswer {
            state,
            auth_chain,
            servers,
        })
    }

    fn all_before(&self, join: &Event) -> Result<Vec<Short>, Error> {
        let mut shorts = Vec::new();
        let root = join.header.state_before;
        state_tree::iter(&self.nodes(), root, &mut |_, short| shorts.push(short))?;
        Ok(shorts)
    }

    /// The state before the join without members but those who name a room that has no name. Costs nothing for the
    /// members.
    fn all_but_members_before(&self, join: &Event) -> Result<Vec<Short>, Error> {
        let (start, end) = keys::entity_range(self.0.key);
        let members = keys::state_type_range(self.0.key, "m.room.member");
        let mut numbers = Vec::new();
        let mut failure = None;
        for (start, end) in [(&start, &members.0), (&members.1, &end)] {
            let visit = &mut |_: &[u8], value: &[u8]| {
                match keys::read_u32_value(value, "state key") {
                    Ok(number) => numbers.push(number),
                    Err(error) => failure = Some(error),
                }
                failure.is_none()
            };
            self.reader()
                .scan(Family::RoomStateKey, start, end, false, visit)?;
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let user = join.pdu.sender();
        if self.state_text("m.room.name", "name")?.is_none() && self.canonical_alias()?.is_none() {
            for (hero, _) in self.heroes(user)? {
                numbers.extend(self.state_key_short("m.room.member", hero.as_str())?);
            }
        }
        let mut shorts = Vec::with_capacity(numbers.len());
        for chunk in numbers.chunks(CHUNK_KEYS) {
            let found = state_tree::get_many(&self.nodes(), join.header.state_before, chunk)?;
            shorts.extend(found.into_iter().flatten());
        }
        Ok(shorts)
    }

    /// The current state events that show the room to somebody outside, as they are.
    pub fn preview_state(&self) -> Result<Vec<Arc<Event>>, Error> {
        let mut events = Vec::with_capacity(PREVIEW_TYPES.len());
        for kind in PREVIEW_TYPES {
            events.extend(self.state(kind, "")?);
        }
        Ok(events)
    }
}
