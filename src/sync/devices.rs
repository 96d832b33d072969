//! What a sync tells of devices: whose lists changed, who is out of sight, what is left of the device's own keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hearth_rooms::{Event, Membership, Room};
use hearth_storage::Position;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{
    Error, SyncToken,
    index::JoinedEntry,
    look::Look,
    view::{DeviceLists, ToDeviceEvent},
};

/// The type of membership events.
const MEMBER: &str = "m.room.member";

/// How many events of a member are followed back to learn whether he was away.
const MEMBER_EVENTS_MAX: usize = 50;

/// Messages to the device.
#[derive(Default)]
pub(crate) struct ToDevice {
    pub(crate) events: Vec<ToDeviceEvent>,
    /// How far they go, where everything else has to wait for those after them.
    pub(crate) waits_for: Option<Position>,
}

impl Look<'_> {
    /// The messages to the device that the client has not got, a page of them. While more wait, what they may unlock does
    /// too: the rooms stay where the token has them, and a first sync tells of nothing else yet. For a device without
    /// keys they unlock nothing, so that its first sync tells of everything at once, and the rest of the messages comes
    /// beside what happens then.
    pub(crate) fn take_to_device(&mut self, since: Option<&SyncToken>) -> Result<ToDevice, Error> {
        let Some(device) = self.request.device.as_ref().filter(|_| self.request.to_device) else {
            return Ok(ToDevice::default());
        };
        let (until, user) = (self.user_position, &self.request.user);
        let seen = since.map_or(0, SyncToken::messages_seen);
        let limit = hearth_core::limits::TO_DEVICE_PAGE_MAX_MESSAGES;
        let found = user.to_device_between(device, seen, until, limit)?;
        let last = found
            .last()
            .map(|(last, _)| *last)
            .filter(|_| found.len() >= limit);
        let mut page = ToDevice {
            events: found.into_iter().map(|(_, event)| event).collect(),
            waits_for: None,
        };
        let Some(last) = last else { return Ok(page) };
        if user.to_device_between(device, last, until, 1)?.is_empty() {
            return Ok(page);
        }
        match self.since {
            None if user.has_device_keys(device)? => page.waits_for = Some(last),
            None => self.messages = Some(last),
            Some(since) if since.messages.is_some() => self.messages = Some(last),
            Some(_) => {
                self.user_position = last;
                self.hold_rooms();
            }
        }
        Ok(page)
    }

    /// Reads no room further than the token did; none where there is no token.
    pub(crate) fn hold_rooms(&mut self) {
        for (shard, position) in &mut self.positions {
            let seen = self.since.map_or(0, |since| since.shard(*shard));
            *position = seen.min(*position);
        }
    }

    /// Whose devices changed since the token, and who shares no room with the user any more. `own` says whether the
    /// user's own did; `gone` are the rooms that the user has left since.
    pub(crate) fn device_lists(&self, own: bool, gone: &[OwnedRoomId]) -> Result<DeviceLists, Error> {
        let Some(since) = self.since else {
            return Ok(DeviceLists::default());
        };
        let me = self.request.user.id();
        let mut changed = BTreeSet::new();
        // Who came in is in sight, who went out may not be. Who was invited is sent keys from now on, and nobody has told
        // of his devices while no room was shared.
        let (mut came, mut went, mut invited) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for entry in self.rooms_with_news(since.user) {
            let until = self.until(entry.shard);
            if entry.room_began > until || entry.began > self.user_position {
                continue;
            }
            let Some(room) = self.engine.rooms.get(&entry.room_id)? else {
                continue;
            };
            if !self.knows_joined(&entry) {
                members(&room, Membership::Join, &mut came)?;
                members(&room, Membership::Invite, &mut invited)?;
                went.extend(self.went_since(&room, until)?);
                continue;
            }
            let seen = since.shard(entry.shard);
            changed.extend(room.device_list_changes(seen, until)?);
            if room.view().timeline_position > seen {
                let changes = member_changes(&room, seen, until)?;
                went.extend(changes.went);
                // Those who were there before the user, and are known only now: where the room is encrypted, its clients
                // must know of them.
                let shows_old_members = (seen + 1..=until).contains(&room.full_since());
                if !shows_old_members || room.state("m.room.encryption", "")?.is_some() {
                    came.extend(changes.came);
                    invited.extend(changes.invited);
                }
            }
        }
        for room_id in gone {
            if let Some(room) = self.engine.rooms.get(room_id)? {
                members(&room, Membership::Join, &mut went)?;
                went.extend(self.went_since(&room, room.view().position)?);
            }
        }
        let mut left = BTreeSet::new();
        for user in went {
            let is_known = user == me || came.contains(&user) || invited.contains(&user);
            if !is_known && !self.is_in_sight(&user)? {
                changed.remove(&user);
                left.insert(user);
            }
        }
        // The user too, in a room that the user has joined: other devices of the user share it from now on.
        changed.extend(came);
        changed.extend(invited);
        if own {
            // What the user signed on others' keys shows on those keys, to him alone.
            changed.extend(self.request.user.signed_between(since.user, self.user_position)?);
            changed.insert(me.to_owned());
        }
        Ok(DeviceLists { changed, left })
    }

    /// Who was in a room together with the user as of the token, and is not any more.
    fn went_since(&self, room: &Room, until: Position) -> Result<Vec<OwnedUserId>, Error> {
        let seen = self.since.map_or(0, |since| since.shard(room.shard()));
        if seen == 0 || seen >= until || !self.was_joined_at(room, seen)? {
            return Ok(Vec::new());
        }
        Ok(member_changes(room, seen, until)?.went)
    }

    /// The joined rooms in which something happened since the token, whatever the filter says.
    fn rooms_with_news(&self, user_since: Position) -> Vec<JoinedEntry> {
        let state = self.index.state.lock();
        let news = state.changed_rooms(|shard| self.since.map_or(0, |since| since.shard(shard)));
        let begun = state.begun_after(user_since);
        let by_key: BTreeMap<_, _> = news
            .into_iter()
            .chain(begun)
            .map(|entry| (entry.key, entry))
            .collect();
        by_key.into_values().collect()
    }

    /// Whether another user is joined to one of the user's rooms.
    fn is_in_sight(&self, other: &UserId) -> Result<bool, Error> {
        let mine = |room_id: &RoomId| self.index.state.lock().room(room_id).is_some();
        let theirs: Vec<OwnedRoomId> = match self.engine.users.get(other)? {
            Some(other) => {
                let joined = other.rooms(&[hearth_users::Membership::Join])?;
                joined
                    .into_iter()
                    .map(|entry| entry.room_id)
                    .filter(|id| mine(id))
                    .collect()
            }
            None => {
                let shared = self.engine.rooms.rooms_of_remote(other)?;
                shared.into_iter().filter(|id| mine(id)).collect()
            }
        };
        for room_id in theirs {
            if let Some(room) = self.engine.rooms.get(&room_id)?
                && room.membership(other)? == Membership::Join
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Adds the members of a room with a membership.
fn members(room: &Room, wanted: Membership, into: &mut BTreeSet<OwnedUserId>) -> Result<(), Error> {
    room.visit_members(&mut |user, membership, _| {
        if membership == wanted {
            into.insert(user.to_owned());
        }
        true
    })?;
    Ok(())
}

/// What became of members between two positions.
#[derive(Default)]
struct MemberChanges {
    came: Vec<OwnedUserId>,
    went: Vec<OwnedUserId>,
    invited: Vec<OwnedUserId>,
}

/// Who came in, went out and was invited between two positions: what differs between the two states.
fn member_changes(room: &Room, seen: Position, until: Position) -> Result<MemberChanges, Error> {
    let mut changes = MemberChanges::default();
    let (old, new) = (room.state_root_at(seen)?, room.state_root_at(until)?);
    let (mut now, mut gone) = (Vec::new(), Vec::new());
    for (before, after) in room.state_changes(old, new)? {
        match after {
            Some(after) => now.push(after),
            None => gone.extend(before),
        }
    }
    for event in room.events(&now)? {
        let Some(member) = member_of(&event) else { continue };
        let before = room.state_at(old, MEMBER, member.as_str())?;
        let was = before
            .as_ref()
            .map_or(Membership::None, |before| membership_of(before.pdu.content()));
        let is = membership_of(event.pdu.content());
        let may_stay = was == is && matches!(is, Membership::Join | Membership::Invite);
        let stayed = match before.filter(|_| may_stay) {
            Some(before) => !was_away(room, &before, &event)?,
            None => false,
        };
        if stayed {
            continue;
        }
        match is {
            Membership::Join => changes.came.push(member),
            Membership::Invite => changes.invited.push(member),
            _ if was == Membership::Join => changes.went.push(member),
            _ => {}
        }
    }
    for event in room.events(&gone)? {
        let was_in = membership_of(event.pdu.content()) == Membership::Join;
        changes.went.extend(member_of(&event).filter(|_| was_in));
    }
    Ok(changes)
}

/// Whose member event this is.
fn member_of(event: &Event) -> Option<OwnedUserId> {
    let member = event.pdu.state_key().filter(|_| event.pdu.kind() == MEMBER);
    member.and_then(|id| OwnedUserId::try_from(id).ok())
}

/// Whether somebody with the same membership before and now had another one in between: nobody told the room of his devices
/// then. Each of the member events is followed to the one in whose place it came.
fn was_away(room: &Room, before: &Event, now: &Arc<Event>) -> Result<bool, Error> {
    let membership = membership_of(now.pdu.content());
    let mut at = now.clone();
    for _ in 0..MEMBER_EVENTS_MAX {
        let member = at.pdu.state_key().unwrap_or_default();
        let Some(earlier) = room.state_at(at.header.state_before, MEMBER, member)? else {
            return Ok(true);
        };
        if earlier.short == before.short {
            return Ok(false);
        }
        if membership_of(earlier.pdu.content()) != membership {
            return Ok(true);
        }
        at = earlier;
    }
    Ok(true)
}

fn membership_of(content: &[u8]) -> Membership {
    #[derive(serde::Deserialize)]
    struct Content {
        membership: String,
    }
    let content = serde_json::from_slice::<Content>(content);
    content.map_or(Membership::None, |content| {
        Membership::from_word(&content.membership)
    })
}
