//! What is news in a user's own shard: account data, invitations, knocks, and rooms that were left.

use std::collections::{BTreeMap, BTreeSet};

use hearth_storage::Position;
use hearth_users::{Change, InviteVerdict, Membership, RoomEntry};
use ruma::{OwnedRoomId, UserId};

use crate::{
    Error, SyncView,
    look::Look,
    view::{DataEvent, LeftOutside, StrippedRoom},
};

/// The user's own changes since the token.
#[derive(Default)]
pub(crate) struct OwnNews {
    /// Entries of the room list.
    pub(crate) entries: Vec<RoomEntry>,
    /// Global account data.
    pub(crate) global: Vec<DataEvent>,
    /// Account data of rooms.
    pub(crate) of_rooms: BTreeMap<OwnedRoomId, Vec<DataEvent>>,
    /// Whether the user's own devices or keys changed.
    pub(crate) devices: bool,
}

impl OwnNews {
    /// The rooms that the user has left after a position.
    pub(crate) fn gone(&self, since: Position) -> Vec<OwnedRoomId> {
        let is_gone = |entry: &&RoomEntry| {
            let out = matches!(entry.membership, Membership::Leave | Membership::Ban);
            out && entry.was_joined && entry.began > since
        };
        self.entries
            .iter()
            .filter(is_gone)
            .map(|entry| entry.room_id.clone())
            .collect()
    }
}

impl Look<'_> {
    /// What changed in the user's own shard.
    pub(crate) fn own_news(&self) -> Result<OwnNews, Error> {
        match self.since {
            None => self.own_everything(),
            Some(since) if since.user >= self.user_position && !self.request.full_state => {
                Ok(OwnNews::default())
            }
            Some(since) => self.own_changes(since.user),
        }
    }

    fn own_everything(&self) -> Result<OwnNews, Error> {
        let mut own = OwnNews {
            entries: self.all_entries()?,
            of_rooms: crate::account_data::all_of_rooms(&self.request.user)?,
            ..OwnNews::default()
        };
        let filter = &self.request.filter.account_data;
        let data = crate::account_data::all_global(&self.request.user)?;
        own.global = data
            .into_iter()
            .filter(|event| filter.has_type(&event.kind))
            .collect();
        Ok(own)
    }

    /// The rooms that the user is not joined to, as far as a client is told of them afresh.
    fn all_entries(&self) -> Result<Vec<RoomEntry>, Error> {
        let all_left = self.request.filter.room.include_leave;
        let user = &self.request.user;
        let mut entries = user.rooms(&[
            Membership::Invite,
            Membership::Knock,
            Membership::Leave,
            Membership::Ban,
        ])?;
        // A user who was put out by somebody else learns of it also where the client starts afresh.
        entries.retain(|entry| match entry.membership {
            Membership::Leave => all_left || (entry.was_joined && entry.sender != *user.id()),
            _ => true,
        });
        Ok(entries)
    }

    /// What changed of the user after a position, up to where the look goes.
    pub(crate) fn changes_after(&self, since: Position) -> Result<Vec<(Position, Change)>, Error> {
        if !self.index.state.lock().own.may_be_after(since) {
            return Ok(Vec::new());
        }
        let user = self.request.user.now();
        Ok(user.changes_between(since, self.user_position)?)
    }

    fn own_changes(&self, since: Position) -> Result<OwnNews, Error> {
        let user = self.request.user.now();
        let mut own = OwnNews::default();
        for (_, change) in self.changes_after(since)? {
            match change {
                Change::Room(room_id) => own.entries.extend(user.room(&room_id)?),
                Change::AccountData { room, kind } => {
                    let Some(data) = user.account_data(room.as_deref(), &kind)? else {
                        continue;
                    };
                    match room {
                        None => {
                            if self.request.filter.account_data.has_type(&kind) {
                                own.global
                                    .push(crate::account_data::event(&self.request.user, data)?);
                            }
                        }
                        Some(room) => {
                            let event = crate::account_data::event(&self.request.user, data)?;
                            own.of_rooms.entry(room).or_default().push(event);
                        }
                    }
                }
                Change::DeviceList => own.devices = true,
                Change::Devices
                | Change::Profile
                | Change::Account
                | Change::ToDevice
                | Change::Thread { .. } => {}
            }
        }
        if self.request.full_state {
            let told: BTreeSet<OwnedRoomId> = own.entries.iter().map(|entry| entry.room_id.clone()).collect();
            own.entries.extend(
                self.all_entries()?
                    .into_iter()
                    .filter(|entry| !told.contains(&entry.room_id)),
            );
        }
        Ok(own)
    }

    /// What an entry of the room list that changed tells, where the user is not joined.
    pub(crate) fn entry_news(
        &self,
        entry: &RoomEntry,
        data: &mut BTreeMap<OwnedRoomId, Vec<DataEvent>>,
        view: &mut SyncView,
    ) -> Result<(), Error> {
        if !self.request.filter.room.has_room(&entry.room_id) {
            return Ok(());
        }
        match entry.membership {
            Membership::Join => {}
            Membership::Invite if self.is_unwanted(&entry.sender)? => {}
            Membership::Invite => view.invited.push(self.stripped(entry)?),
            Membership::Knock => view.knocked.push(self.stripped(entry)?),
            Membership::Leave | Membership::Ban => {
                let again = self.request.full_state && self.request.filter.room.include_leave;
                if self.since.is_some() && entry.began <= self.user_since() && !again {
                    return Ok(());
                }
                let account_data = data.remove(&entry.room_id).unwrap_or_default();
                match self.left_room(entry, account_data)? {
                    Some(room) => view.left.push(room),
                    None => view.left_outside.push(self.left_outside(entry)),
                }
            }
        }
        Ok(())
    }

    /// Whether the user wants no invitations of this sender.
    pub(crate) fn is_unwanted(&self, sender: &UserId) -> Result<bool, Error> {
        let verdict = self.request.user.invite_verdict(sender)?;
        Ok(self.ignored.contains(sender) || verdict != InviteVerdict::Take)
    }

    pub(crate) fn left_outside(&self, entry: &RoomEntry) -> LeftOutside {
        let membership = match entry.membership {
            Membership::Ban => "ban",
            _ => "leave",
        };
        LeftOutside {
            room_id: entry.room_id.clone(),
            event: serde_json::json!({
                "type": "m.room.member",
                "state_key": self.request.user.id(),
                "sender": entry.sender,
                "content": { "membership": membership },
                "event_id": entry.event_id,
                "origin_server_ts": entry.ts,
            }),
        }
    }

    /// A room as the invited or knocking user sees it: as the entry has it, where another server's room
    /// gave it, else as the room here is.
    pub(crate) fn stripped(&self, entry: &RoomEntry) -> Result<StrippedRoom, Error> {
        let mut state = entry.stripped_state.clone();
        if state.is_empty()
            && let Some(room) = self.engine.rooms.get(&entry.room_id)?
        {
            state = room.stripped_state(self.request.user.id())?;
        }
        Ok(StrippedRoom {
            room_id: entry.room_id.clone(),
            state,
        })
    }
}
