//! Presence for servers that meet: whoever comes into a room is told who of it is present, and the others of the room
//! are told of who came. Else a server would learn of a user at the user's next change, half an hour later.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_rooms::{Error, Event, Membership, Room};
use hearth_users::PresenceState;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId};

use super::Outbound;
use super::targets;

/// So many meetings are noted at once; further ones are left out until these are done.
const NOTED_MAX: usize = 5_000;
/// A server is new in a room while it has no more members there than this: more of them may have come in by the time at
/// which the first is looked at.
const NEW_MEMBERS_MAX: u32 = 3;
/// So many local members of a room are looked at for those who are present.
const MEMBERS_MAX: usize = 2_000;

/// Who met whom and was not told yet.
#[derive(Default)]
pub(super) struct Meetings {
    /// Local users who came into rooms.
    came: BTreeSet<(OwnedRoomId, OwnedUserId)>,
    /// Servers that are new in rooms.
    new: BTreeSet<(OwnedRoomId, OwnedServerName)>,
}

impl Outbound {
    /// Notes who meets by a member event of the feed.
    pub(super) fn note_meeting(&self, room: &Room, event: &Event) -> Result<(), Error> {
        let member = event
            .pdu
            .state_key()
            .filter(|_| event.pdu.kind() == "m.room.member");
        let member = member.and_then(|member| OwnedUserId::try_from(member).ok());
        let Some(member) = member.filter(|_| targets::membership_of(event) == Some(Membership::Join)) else {
            return Ok(());
        };
        // A new name or picture is a join as well.
        let before = room.state_at(event.header.state_before, "m.room.member", member.as_str())?;
        if before.is_some_and(|before| targets::membership_of(&before) == Some(Membership::Join)) {
            return Ok(());
        }
        let server = member.server_name().to_owned();
        let is_local = server == self.server_name();
        if !is_local && !(1..=NEW_MEMBERS_MAX).contains(&room.joined_of(&server)) {
            return Ok(());
        }
        let mut noted = self.sources.noted.lock();
        let Meetings { came, new } = &mut noted.meetings;
        if came.len() + new.len() >= NOTED_MAX {
            return Ok(());
        }
        match is_local {
            true => came.insert((room.id().to_owned(), member)),
            false => new.insert((room.id().to_owned(), server)),
        };
        drop(noted);
        self.sources.news.notify_one();
        Ok(())
    }

    /// Tells those who met of each other, and `said` how that went, each time.
    pub(super) fn tell_meetings(self: &Arc<Self>, meetings: &Meetings, said: &dyn Fn(Result<(), Error>)) {
        for (room, user) in &meetings.came {
            said(self.tell_who_came(room, user));
        }
        if meetings.new.is_empty() {
            return;
        }
        let present: BTreeSet<OwnedUserId> = self.users.presence().present().into_iter().collect();
        for (room, server) in &meetings.new {
            said(self.tell_who_is_there(room, server, &present));
        }
    }

    fn tell_who_came(self: &Arc<Self>, room: &RoomId, user: &OwnedUserId) -> Result<(), Error> {
        if self.users.presence().get(user).state == PresenceState::Offline {
            return Ok(());
        }
        match self.rooms.get(room)? {
            Some(room) => self.tell(self.others(&room)?, &[self.presence_of(user)]),
            None => Ok(()),
        }
    }

    fn tell_who_is_there(
        self: &Arc<Self>,
        room: &RoomId,
        server: &OwnedServerName,
        present: &BTreeSet<OwnedUserId>,
    ) -> Result<(), Error> {
        let Some(room) = self.rooms.get(room)? else {
            return Ok(());
        };
        let (mut members, mut looked_at) = (Vec::new(), 0);
        room.visit_local_members(&mut |member| {
            looked_at += 1;
            members.extend(present.get(member).cloned());
            looked_at < MEMBERS_MAX
        })?;
        let contents: Vec<_> = members.iter().map(|member| self.presence_of(member)).collect();
        match self.others(&room)?.contains(server) {
            true => self.tell(vec![server.clone()], &contents),
            false => Ok(()),
        }
    }
}
