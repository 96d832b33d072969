//! Who may see which event (client-server API, "Room history visibility").

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use crate::{Error, Event, Membership, Place, Room, state_tree::NodeId};

/// How far back a user's memberships are followed to learn whether the user ever joined.
const MEMBER_CHAIN_MAX: usize = 50;

/// How many states a viewer remembers; beyond it the memory starts afresh.
const MEMO_MAX: usize = 4096;

/// The value of `m.room.history_visibility`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Visibility {
    /// Only who is joined at the event.
    Joined,
    /// Who is invited or joined at the event.
    Invited,
    /// Who was joined at the event or at any time after it.
    #[default]
    Shared,
    /// Everybody.
    WorldReadable,
}

impl Visibility {
    /// Reads the content of the state event; anything unknown counts as `shared`.
    pub fn of_content(content: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Content {
            history_visibility: Option<String>,
        }
        let word = serde_json::from_slice::<Content>(content)
            .ok()
            .and_then(|found| found.history_visibility);
        match word.as_deref() {
            Some("joined") => Self::Joined,
            Some("invited") => Self::Invited,
            Some("world_readable") => Self::WorldReadable,
            _ => Self::Shared,
        }
    }
}

/// Somebody who looks at a room: a user, or a server.
pub trait Sees {
    /// Whether an event may be shown.
    fn may_see(&mut self, event: &Event) -> Result<bool, Error>;
}

impl Sees for Viewer {
    fn may_see(&mut self, event: &Event) -> Result<bool, Error> {
        Viewer::may_see(self, event)
    }
}

/// A user looking at a room: remembers what it learned about the states it met, so that a page of
/// messages in one state costs one look-up.
pub struct Viewer {
    room: Room,
    user: OwnedUserId,
    membership: Membership,
    /// The place of the event that ended the user's last stay.
    left: Option<Place>,
    visibility_key: Option<u32>,
    member_key: Option<u32>,
    /// Whom the user ignores.
    ignored: Arc<BTreeSet<OwnedUserId>>,
    memo: HashMap<NodeId, (Visibility, Membership)>,
}

impl Room {
    /// A user's view of the room as it is now.
    pub fn viewer(&self, user: &UserId) -> Result<Viewer, Error> {
        let member_key = self.state_key_short("m.room.member", user.as_str())?;
        let entry = match member_key {
            Some(_) => self.state_entry("m.room.member", user.as_str())?,
            None => None,
        };
        let membership = entry.map_or(Membership::None, |entry| entry.membership);
        let mut viewer = Viewer {
            room: self.clone(),
            user: user.to_owned(),
            membership,
            left: None,
            visibility_key: self.visibility_key()?,
            member_key,
            ignored: Arc::default(),
            memo: HashMap::new(),
        };
        if let Some(entry) = entry
            && membership != Membership::Join
        {
            viewer.left = viewer.end_of_stay(entry.short)?;
        }
        Ok(viewer)
    }
}

impl Room {
    /// The room's number for the state key of its history visibility, which it keeps once it has one.
    fn visibility_key(&self) -> Result<Option<u32>, Error> {
        if let Some(key) = self.0.visibility_key.get() {
            return Ok(Some(*key));
        }
        let key = self.state_key_short("m.room.history_visibility", "")?;
        if let Some(key) = key {
            let _ = self.0.visibility_key.set(key);
        }
        Ok(key)
    }

    /// Whether an event did what it says, if it is a redaction: one that names nothing here, or whose sender may not
    /// redact what it names, is not shown to clients (room versions, "Handling redactions"). Where the authorization
    /// rules decide who may redact, each that they let pass is.
    fn is_applied(&self, event: &Event) -> Result<bool, Error> {
        if event.pdu.kind() != "m.room.redaction" || self.rules().authorization.special_case_room_redaction {
            return Ok(true);
        }
        let Some(target) = event.pdu.redacts() else {
            return Ok(true);
        };
        Ok(self
            .event_by_id(target)?
            .is_some_and(|target| target.is_redacted()))
    }
}

impl Viewer {
    /// The same user, who ignores these: nothing that they say is shown beside what is asked for.
    pub fn ignoring(self, ignored: Arc<BTreeSet<OwnedUserId>>) -> Self {
        Self { ignored, ..self }
    }

    /// Whether the user ignores the sender of an event. State is shown whoever set it (client-server API, "Ignoring
    /// Users").
    pub fn ignores(&self, event: &Event) -> bool {
        event.pdu.state_key().is_none() && self.ignored.contains(event.pdu.sender())
    }

    /// Whom the user ignores.
    pub fn ignored(&self) -> Arc<BTreeSet<OwnedUserId>> {
        self.ignored.clone()
    }

    /// Who looks.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The user's current membership.
    pub fn membership(&self) -> Membership {
        self.membership
    }

    /// Where the user's last stay ended, if the user once was in the room and is no more.
    pub fn left(&self) -> Option<Place> {
        self.left
    }

    /// The place of the event that ended the last stay: follows the user's memberships back.
    fn end_of_stay(&self, mut short: u32) -> Result<Option<Place>, Error> {
        let Some(key) = self.member_key else {
            return Ok(None);
        };
        for _ in 0..MEMBER_CHAIN_MAX {
            let Some(event) = self.room.event(short)? else {
                return Ok(None);
            };
            let Some(before) = self.room.state_short_at(event.header.state_before, key)? else {
                return Ok(None);
            };
            if self.membership_of(before)? == Membership::Join {
                return Ok(Some(event.header.place));
            }
            short = before;
        }
        Ok(None)
    }

    fn membership_of(&self, short: u32) -> Result<Membership, Error> {
        #[derive(Deserialize)]
        struct Content<'a> {
            #[serde(borrow)]
            membership: Option<std::borrow::Cow<'a, str>>,
        }
        let Some(event) = self.room.event(short)? else {
            return Ok(Membership::None);
        };
        let content: Option<Content<'_>> = serde_json::from_slice(event.pdu.content()).ok();
        let word = content.and_then(|content| content.membership);
        Ok(word.map_or(Membership::None, |word| Membership::from_word(&word)))
    }

    /// Whether the user may see an event.
    pub fn may_see(&mut self, event: &Event) -> Result<bool, Error> {
        if !event.is_visible_kind() || !self.room.is_applied(event)? {
            return Ok(false);
        }
        let (mut visibility, mut membership) = self.at(event.header.state_before)?;
        // Events that change the visibility or the user's own membership count as what is the
        // more permissive of before and after.
        if let Some(state_key) = event.pdu.state_key() {
            match event.pdu.kind() {
                "m.room.history_visibility" if state_key.is_empty() => {
                    visibility = visibility.max(Visibility::of_content(event.pdu.content()));
                }
                "m.room.member" if *state_key == *self.user.as_str() => {
                    let after = self.membership_of(event.short)?;
                    membership = match (membership, after) {
                        (Membership::Join, _) | (_, Membership::Join) => Membership::Join,
                        (Membership::Invite, _) | (_, Membership::None) => membership,
                        _ => after,
                    };
                    if matches!(after, Membership::Leave | Membership::Ban) && self.left.is_some() {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Ok(match visibility {
            Visibility::WorldReadable => true,
            _ if membership == Membership::Join => true,
            Visibility::Shared => self.joined_after(event.header.place),
            Visibility::Invited => membership == Membership::Invite,
            Visibility::Joined => false,
        })
    }

    /// Whether the user joined at any time after a place.
    fn joined_after(&self, place: Place) -> bool {
        self.membership == Membership::Join || self.left.is_some_and(|left| place <= left)
    }

    /// The user's membership in the state before an event (MSC4115 builds on it).
    pub fn membership_before(&mut self, event: &Event) -> Result<Membership, Error> {
        Ok(self.at(event.header.state_before)?.1)
    }

    /// Visibility and membership in a state.
    fn at(&mut self, root: NodeId) -> Result<(Visibility, Membership), Error> {
        if let Some(found) = self.memo.get(&root) {
            return Ok(*found);
        }
        let visibility = match self.visibility_key {
            Some(key) => match self.room.state_short_at(root, key)? {
                Some(short) => match self.room.event(short)? {
                    Some(event) => Visibility::of_content(event.pdu.content()),
                    None => Visibility::default(),
                },
                None => Visibility::default(),
            },
            None => Visibility::default(),
        };
        let membership = match self.member_key {
            Some(key) => match self.room.state_short_at(root, key)? {
                Some(short) => self.membership_of(short)?,
                None => Membership::None,
            },
            None => Membership::None,
        };
        if self.memo.len() >= MEMO_MAX {
            self.memo.clear();
        }
        self.memo.insert(root, (visibility, membership));
        Ok((visibility, membership))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visibility_words() {
        for (content, expected) in [
            (r#"{"history_visibility":"joined"}"#, Visibility::Joined),
            (r#"{"history_visibility":"invited"}"#, Visibility::Invited),
            (r#"{"history_visibility":"shared"}"#, Visibility::Shared),
            (
                r#"{"history_visibility":"world_readable"}"#,
                Visibility::WorldReadable,
            ),
            (r#"{"history_visibility":"odd"}"#, Visibility::Shared),
            (r#"{"history_visibility":7}"#, Visibility::Shared),
            ("{}", Visibility::Shared),
        ] {
            assert_eq!(Visibility::of_content(content.as_bytes()), expected, "{content}");
        }
    }
}
