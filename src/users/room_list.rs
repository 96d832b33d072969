//! The rooms of a user: one record a room, kept by the memberships that rooms deliver.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hearth_cluster::OutboxHandler;
use hearth_storage::{EntityKey, EntityKind, Family, OutboxRow, Position, Reader, ShardId, record};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::carry_over::carry_over;
use crate::change::Change;
use crate::e2ee::lists;
use crate::error::{Error, Result};
use crate::keys::{self, op};
use crate::user::{User, Users};
use crate::write::Tx;

/// A membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// In the room.
    Join,
    /// Invited.
    Invite,
    /// Asked to be let in.
    Knock,
    /// Left, or was removed, or the invitation was withdrawn or declined.
    Leave,
    /// Banned.
    Ban,
}

/// What a room tells a local user about the user's membership: the payload of [`op::MEMBERSHIP`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MembershipUpdate {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The membership.
    pub membership: Membership,
    /// The member event.
    pub event_id: OwnedEventId,
    /// Its sender.
    pub sender: OwnedUserId,
    /// The member event's n in the room's timeline.
    pub anchor: u64,
    /// When it was sent.
    #[serde(default)]
    pub ts: u64,
    /// Whether an invitation is to a direct chat.
    #[serde(default)]
    pub is_direct: bool,
    /// For an invitation or a knock: what the user is shown of the room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stripped_state: Vec<Box<RawValue>>,
    /// For a join: the room that this one replaces, whose tags and push rules are carried over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<OwnedRoomId>,
    /// For a knock at a room that is not here: the server that took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<OwnedServerName>,
}

impl MembershipUpdate {
    /// The outbox row that delivers this to a local user.
    pub fn row(&self, user: &UserId) -> OutboxRow {
        OutboxRow {
            target_kind: EntityKind::User,
            target: user.to_string(),
            op: op::MEMBERSHIP,
            payload: record::encode(self),
        }
    }
}

/// A user's entry for a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoomEntry {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The membership.
    pub membership: Membership,
    /// The member event.
    pub event_id: OwnedEventId,
    /// Its sender.
    pub sender: OwnedUserId,
    /// The member event's n in the room's timeline.
    pub anchor: u64,
    /// When it was sent.
    pub ts: u64,
    /// The room's shard when this was delivered.
    pub room_shard: u16,
    /// The position in the room's shard.
    pub room_position: Position,
    /// The row's place in that position's outbox.
    pub(crate) room_index: u16,
    /// Where in the user's shard this entry was last changed.
    pub position: Position,
    /// Where in the user's shard this membership began: a new member event with the same membership moves it not.
    #[serde(default)]
    pub began: Position,
    /// Where in the room's shard this membership began.
    #[serde(default)]
    pub room_began: Position,
    /// The n of the member event with which this membership began; 0 where it was not noted.
    #[serde(default)]
    pub began_anchor: u64,
    /// Whether an invitation was to a direct chat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_direct: bool,
    /// Whether the user forgot the room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgotten: bool,
    /// Whether the user was ever joined: history of a room that one only was invited to stays closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_joined: bool,
    /// What the user is shown of the room while invited or knocking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stripped_state: Vec<Box<RawValue>>,
    /// The server that took the user's knock, where the room is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<OwnedServerName>,
}

impl RoomEntry {
    /// Whether this is an invitation by another server to a room that was not here: no room has its event.
    pub fn is_invited_from_outside(&self) -> bool {
        self.membership == Membership::Invite && self.anchor == 0 && !self.forgotten
    }

    /// The shard of the room's position.
    pub fn shard(&self) -> ShardId {
        ShardId(self.room_shard)
    }
}

impl User {
    /// The user's rooms with one of these memberships; all if the list is empty. Forgotten rooms are left out.
    pub fn rooms(&self, memberships: &[Membership]) -> Result<Vec<RoomEntry>> {
        self.now().rooms(memberships)
    }

    /// The user's entry for a room.
    pub fn room(&self, room_id: &RoomId) -> Result<Option<RoomEntry>> {
        self.now().room(room_id)
    }

    /// The room entries that changed after a position of the user's shard.
    pub fn rooms_changed_since(&self, since: Position) -> Result<Vec<RoomEntry>> {
        self.now().rooms_between(since, Position::MAX)
    }

    /// Forgets a room that the user is not in.
    pub async fn forget_room(&self, room_id: &RoomId) -> Result<()> {
        self.write(|tx| {
            let row = keys::room(self.key, room_id.as_str());
            let Some(value) = tx.get(Family::UserRoom, &row)? else {
                return Err(Error::NotFound("Room"));
            };
            let mut entry: RoomEntry = record::decode(&value)?;
            if !matches!(entry.membership, Membership::Leave | Membership::Ban) {
                return Err(Error::Forbidden(
                    "You must leave the room before you can forget it",
                ));
            }
            if entry.forgotten {
                return Ok(());
            }
            entry.forgotten = true;
            entry.position = tx.position();
            tx.put(Family::UserRoom, row, record::encode(&entry));
            tx.changed(Change::Room(room_id.to_owned()))
        })
        .await
    }
}

/// Applies memberships that come out of rooms' outboxes.
pub(crate) struct MembershipHandler(Weak<Users>);

impl MembershipHandler {
    pub(crate) fn new(users: &Arc<Users>) -> Self {
        Self(Arc::downgrade(users))
    }
}

#[async_trait]
impl OutboxHandler for MembershipHandler {
    async fn apply(
        &self,
        target: &str,
        payload: &[u8],
        source: (ShardId, Position, u16),
    ) -> std::result::Result<(), hearth_storage::Error> {
        let Some(users) = self.0.upgrade() else {
            return Err(hearth_storage::Error::Stopped);
        };
        let Ok(user_id) = UserId::parse(target) else {
            tracing::warn!(target, "a membership for something that is no user id is dropped");
            return Ok(());
        };
        let update: MembershipUpdate = record::decode(payload)?;
        let user = match users.get(&user_id) {
            Ok(Some(user)) => user,
            // Rooms may have members of this server who have no account: leftovers of an older server of this name.
            Ok(None) => return Ok(()),
            Err(error) => return Err(storage_error(error)),
        };
        user.write_anyway(|tx| apply(tx, &user, update, source))
            .await
            .map_err(storage_error)
    }
}

/// An error as outbox delivery takes it.
pub(crate) fn storage_error(error: Error) -> hearth_storage::Error {
    match error {
        Error::Storage(error) => error,
        other => hearth_storage::Error::Apply(other.to_string()),
    }
}

fn apply(
    tx: &mut Tx<'_>,
    user: &User,
    update: MembershipUpdate,
    source: (ShardId, Position, u16),
) -> Result<()> {
    let key = user.key;
    let row = keys::room(key, update.room_id.as_str());
    let before: Option<RoomEntry> = tx
        .get(Family::UserRoom, &row)?
        .as_deref()
        .map(record::decode)
        .transpose()?;
    let (shard, room_position, room_index) = source;
    if let Some(before) = &before
        && before.shard() == shard
        && (before.room_position, before.room_index) >= (room_position, room_index)
    {
        return Ok(());
    }
    let was = before.as_ref().map(|entry| entry.membership);
    if update.membership == Membership::Join
        && was != Some(Membership::Join)
        && let Some(old) = &update.predecessor
    {
        carry_over(tx, key, old, &update.room_id)?;
    }
    if update.membership == Membership::Join && was != Some(Membership::Join) {
        lists::joined(tx, &user.id, key, &update.room_id, update.ts)?;
    }
    let same = before
        .as_ref()
        .filter(|entry| entry.membership == update.membership && entry.shard() == shard);
    let began = same.map(|entry| (entry.began, entry.room_began));
    let began_anchor = same.map_or(update.anchor, |entry| entry.began_anchor);
    let position = tx.position();
    let gone = matches!(update.membership, Membership::Leave | Membership::Ban);
    let entry = RoomEntry {
        membership: update.membership,
        event_id: update.event_id,
        sender: update.sender,
        anchor: update.anchor,
        ts: update.ts,
        room_shard: shard.0,
        room_position,
        room_index,
        position: tx.position(),
        began: began.map_or(position, |(own, _)| own),
        room_began: began.map_or(room_position, |(_, room)| room),
        began_anchor,
        is_direct: update.is_direct,
        // Only a new way in brings a forgotten room back: a ban after leaving does not.
        forgotten: gone && before.as_ref().is_some_and(|entry| entry.forgotten),
        was_joined: update.membership == Membership::Join || before.is_some_and(|entry| entry.was_joined),
        stripped_state: update.stripped_state,
        via: update.via,
        room_id: update.room_id.clone(),
    };
    tx.put(Family::UserRoom, row, record::encode(&entry));
    tx.changed(Change::Room(update.room_id))
}

/// One room entry.
pub(crate) fn one(reader: &dyn Reader, key: EntityKey, room_id: &RoomId) -> Result<Option<RoomEntry>> {
    let value = reader.get(Family::UserRoom, &keys::room(key, room_id.as_str()))?;
    Ok(value.as_deref().map(record::decode).transpose()?)
}

/// All room entries with one of the memberships that are not forgotten.
pub(crate) fn all(reader: &dyn Reader, key: EntityKey, memberships: &[Membership]) -> Result<Vec<RoomEntry>> {
    let mut found = with_forgotten(reader, key, memberships)?;
    found.retain(|entry| !entry.forgotten);
    Ok(found)
}

/// All room entries with one of the memberships, also those that are forgotten.
pub(crate) fn with_forgotten(
    reader: &dyn Reader,
    key: EntityKey,
    memberships: &[Membership],
) -> Result<Vec<RoomEntry>> {
    let mut found = Vec::new();
    let mut failed = None;
    let prefix = key.to_bytes();
    reader.scan(
        Family::UserRoom,
        &prefix,
        &hearth_storage::prefix_end(&prefix),
        false,
        &mut |_, value| {
            match record::decode::<RoomEntry>(value) {
                Ok(entry) if memberships.is_empty() || memberships.contains(&entry.membership) => {
                    found.push(entry)
                }
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        },
    )?;
    failed.map_or(Ok(found), |error| Err(error.into()))
}
