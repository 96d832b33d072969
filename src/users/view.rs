//! A user's data as one reader has it: the newest published state, or the snapshot of a sync.

use hearth_storage::{EntityKey, Position, Reader};
use ruma::{OwnedRoomId, RoomId};

use crate::change::{self, Change};
use crate::data::{self, AccountData};
use crate::error::Result;
use crate::room_list::{self, Membership, RoomEntry};

/// Reads of one user through one reader.
#[derive(Clone, Copy)]
pub struct View<'a> {
    key: EntityKey,
    reader: &'a dyn Reader,
}

impl<'a> View<'a> {
    pub(crate) fn new(key: EntityKey, reader: &'a dyn Reader) -> Self {
        Self { key, reader }
    }

    pub(crate) fn key(&self) -> EntityKey {
        self.key
    }

    pub(crate) fn reader(&self) -> &'a dyn Reader {
        self.reader
    }

    /// The changes after `since` up to and including `until`, oldest first.
    pub fn changes_between(&self, since: Position, until: Position) -> Result<Vec<(Position, Change)>> {
        change::between(self.reader, self.key, since, until)
    }

    /// One account data event; also one that was deleted.
    pub fn account_data(&self, room: Option<&RoomId>, kind: &str) -> Result<Option<AccountData>> {
        data::one(self.reader, self.key, room, kind)
    }

    /// All account data of a room, or all global account data, without what was deleted.
    pub fn all_account_data(&self, room: Option<&RoomId>) -> Result<Vec<AccountData>> {
        let mut all = data::all(self.reader, self.key, room)?;
        all.retain(|data| !data.deleted);
        Ok(all)
    }

    /// The account data of all rooms, without what was deleted.
    pub fn account_data_of_rooms(&self) -> Result<Vec<(OwnedRoomId, AccountData)>> {
        let mut all = data::of_rooms(self.reader, self.key)?;
        all.retain(|(_, data)| !data.deleted);
        Ok(all)
    }

    /// The account data of a room that changed after `since`; what was deleted has an empty content.
    pub fn room_data_after(&self, room: &RoomId, since: Position) -> Result<Vec<AccountData>> {
        let mut all = data::all(self.reader, self.key, Some(room))?;
        all.retain(|data| data.position > since);
        Ok(all)
    }

    /// The account data, of all rooms and global, that changed after `since` up to and including `until`; what was
    /// deleted has an empty content.
    pub fn account_data_between(
        &self,
        since: Position,
        until: Position,
    ) -> Result<Vec<(Option<OwnedRoomId>, AccountData)>> {
        let mut found = Vec::new();
        for (_, change) in self.changes_between(since, until)? {
            if let Change::AccountData { room, kind } = change
                && let Some(data) = self.account_data(room.as_deref(), &kind)?
            {
                found.push((room, data));
            }
        }
        Ok(found)
    }

    /// The user's rooms with one of these memberships; all if the list is empty. Forgotten rooms are left out.
    pub fn rooms(&self, memberships: &[Membership]) -> Result<Vec<RoomEntry>> {
        room_list::all(self.reader, self.key, memberships)
    }

    /// All rooms of the user, also those that are forgotten.
    pub fn rooms_with_forgotten(&self) -> Result<Vec<RoomEntry>> {
        room_list::with_forgotten(self.reader, self.key, &[])
    }

    /// The user's entry for a room, also one that is forgotten.
    pub fn room(&self, room_id: &RoomId) -> Result<Option<RoomEntry>> {
        room_list::one(self.reader, self.key, room_id)
    }

    /// The room entries that changed after `since` up to and including `until`, also forgotten ones.
    pub fn rooms_between(&self, since: Position, until: Position) -> Result<Vec<RoomEntry>> {
        let mut found = Vec::new();
        for (_, change) in self.changes_between(since, until)? {
            if let Change::Room(room_id) = change {
                found.extend(self.room(&room_id)?);
            }
        }
        Ok(found)
    }
}
