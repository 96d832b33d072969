//! What a whole server may see of a room's history (client-server API, "Room history visibility", read for a server:
//! it may see what any of its users may).

use std::{collections::HashMap, sync::Arc};

use hearth_storage::Family;
use ruma::{OwnedServerName, ServerName, UserId};

use crate::{
    Error, Event, Membership, Room, Sees, Visibility, event::Short, keys, state_tree, state_tree::NodeId,
};

/// How many states a viewer remembers; beyond it the memory starts afresh.
const MEMO_MAX: usize = 4096;

/// How many users of a server are looked for in a state. Where none of so many was in the room the server is taken for
/// absent: it gets redacted events, which it can ask another server for.
const USERS_MAX: usize = 1_000;

/// How many member rows are passed over to find a server's users.
const MEMBER_ROWS_MAX: usize = 200_000;

/// A server looking at a room.
pub struct ServerViewer {
    room: Room,
    server: OwnedServerName,
    is_in: bool,
    /// The event since which it is said to be in the room, while most members are not known.
    said_since: Option<Short>,
    visibility_key: Option<u32>,
    /// The state keys of the server's users, found when they are first needed.
    users: Option<Vec<u32>>,
    memo: HashMap<NodeId, (Visibility, Option<Membership>)>,
}

impl Room {
    /// A server's view of the room as it is now.
    pub fn server_viewer(&self, server: &ServerName) -> Result<ServerViewer, Error> {
        let is_in = self.may_have_server(server);
        Ok(ServerViewer {
            room: self.clone(),
            server: server.to_owned(),
            is_in,
            said_since: self.partial_since()?.filter(|_| is_in),
            visibility_key: self.state_key_short("m.room.history_visibility", "")?,
            users: None,
            memo: HashMap::new(),
        })
    }
}

impl Room {
    /// An event as a redaction would leave it, for somebody who is not to see what it says.
    pub fn without_content(&self, event: &Event) -> Result<Event, Error> {
        let mut redacted = event.clone();
        redacted.pdu = hearth_events::redact(self.rules(), &event.pdu)?;
        Ok(redacted)
    }
}

impl ServerViewer {
    /// The event as the server gets it: whole, or redacted where it may not see it.
    pub fn shown(&mut self, event: &Arc<Event>) -> Result<Arc<Event>, Error> {
        if self.sees(event)? && !self.came_after_erasure(event)? {
            return Ok(event.clone());
        }
        Ok(Arc::new(self.room.without_content(event)?))
    }

    /// Whether the sender asked to be erased, and nobody of the server was in the room at the event.
    fn came_after_erasure(&mut self, event: &Event) -> Result<bool, Error> {
        Ok(self.room.is_erased(event) && self.membership(event.header.state_before)? != Membership::Join)
    }

    /// Whether the server may see the content of an event.
    fn sees(&mut self, event: &Event) -> Result<bool, Error> {
        if !super::is_served(event) {
            return Ok(false);
        }
        if *event.pdu.sender().server_name() == *self.server {
            return Ok(true);
        }
        let root = event.header.state_before;
        let mut visibility = self.visibility(root)?;
        // As for users: what changes the visibility or a membership counts as the more permissive of both sides.
        let mut own = Membership::None;
        if let Some(state_key) = event.pdu.state_key() {
            match event.pdu.kind() {
                "m.room.history_visibility" if state_key.is_empty() => {
                    visibility = visibility.max(Visibility::of_content(event.pdu.content()));
                }
                "m.room.member" if self.is_ours(state_key) => own = membership_of(event),
                _ => {}
            }
        }
        let wanted: &[Membership] = match visibility {
            Visibility::WorldReadable => return Ok(true),
            Visibility::Shared if self.is_in => return Ok(true),
            // A server that left: nobody of it joined after the event, or it would have been in when it left.
            Visibility::Shared | Visibility::Joined => &[Membership::Join],
            Visibility::Invited => &[Membership::Join, Membership::Invite],
        };
        Ok(wanted.contains(&own) || wanted.contains(&self.membership(root)?) || self.is_said_to_see(event))
    }

    /// Whether an event came while this server does not know who is in the room, and the asking server is said to be. What
    /// it gets without its content it would keep so.
    fn is_said_to_see(&self, event: &Event) -> bool {
        let place = event.header.place;
        place.offset == 0 && self.said_since.is_some_and(|since| event.short >= since)
    }

    fn is_ours(&self, user: &str) -> bool {
        <&UserId>::try_from(user).is_ok_and(|user| *user.server_name() == *self.server)
    }

    fn visibility(&mut self, root: NodeId) -> Result<Visibility, Error> {
        if let Some((visibility, _)) = self.memo.get(&root) {
            return Ok(*visibility);
        }
        let event = match self.visibility_key {
            Some(key) => self.room.state_short_at(root, key)?,
            None => None,
        };
        let event = event.map(|short| self.room.event(short)).transpose()?.flatten();
        let visibility = event.map_or(Visibility::default(), |event| {
            Visibility::of_content(event.pdu.content())
        });
        if self.memo.len() >= MEMO_MAX {
            self.memo.clear();
        }
        self.memo.insert(root, (visibility, None));
        Ok(visibility)
    }

    /// The strongest membership of the server's users in a state: joined, invited or none.
    fn membership(&mut self, root: NodeId) -> Result<Membership, Error> {
        if let Some((_, Some(membership))) = self.memo.get(&root) {
            return Ok(*membership);
        }
        let room = self.room.clone();
        let users = match &mut self.users {
            Some(users) => users,
            none => none.insert(users_of(&room, &self.server)?),
        };
        let mut found = Membership::None;
        // Who was found last comes first: on a page of events it mostly is the same user again.
        for at in 0..users.len() {
            let membership = member_at(&room, root, users[at])?;
            if membership == Membership::Join {
                users.swap(0, at);
                found = membership;
                break;
            }
            if membership == Membership::Invite {
                found = membership;
            }
        }
        if let Some((_, memo)) = self.memo.get_mut(&root) {
            *memo = Some(found);
        }
        Ok(found)
    }
}

impl Sees for ServerViewer {
    fn may_see(&mut self, event: &Event) -> Result<bool, Error> {
        self.sees(event)
    }
}

/// The state keys of a server's users who ever had a membership in the room.
fn users_of(room: &Room, server: &ServerName) -> Result<Vec<u32>, Error> {
    let (start, end) = keys::state_type_range(room.0.key, "m.room.member");
    let mut users = Vec::new();
    let mut looked_at = 0;
    let mut failure = None;
    let visit = &mut |key: &[u8], value: &[u8]| {
        looked_at += 1;
        let user = std::str::from_utf8(&key[start.len()..]).unwrap_or_default();
        if <&UserId>::try_from(user).is_ok_and(|user| *user.server_name() == *server) {
            match keys::read_u32_value(value, "state key") {
                Ok(key) => users.push(key),
                Err(error) => failure = Some(error),
            }
        }
        failure.is_none() && users.len() < USERS_MAX && looked_at < MEMBER_ROWS_MAX
    };
    room.reader()
        .scan(Family::RoomStateKey, &start, &end, false, visit)?;
    match failure {
        Some(error) => Err(error),
        None => Ok(users),
    }
}

fn member_at(room: &Room, root: NodeId, key: u32) -> Result<Membership, Error> {
    let short: Option<Short> = state_tree::get(&room.nodes(), root, key)?;
    let event = short.map(|short| room.event(short)).transpose()?.flatten();
    Ok(event.map_or(Membership::None, |event| membership_of(&event)))
}

/// The membership that a member event gives.
pub(crate) fn membership_of(event: &Event) -> Membership {
    let parsed = hearth_events::MemberInfo::parse(event.pdu.content());
    parsed.map_or(Membership::None, |info| {
        Membership::from_word(info.membership.as_str())
    })
}
