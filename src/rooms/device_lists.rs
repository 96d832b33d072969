//! Which members' devices or keys changed, by position: members' own shards tell the room, syncs of the others find it
//! here.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hearth_cluster::OutboxHandler;
use hearth_storage::{Batch, EntityKey, Family, Position, Record, ShardId, record};
use hearth_users::DeviceListUpdate;
use ruma::{OwnedUserId, RoomId, UserId};

use crate::{Change, Error, Room, Rooms, input::RoomNote, keys};

impl Room {
    /// The members whose devices or keys changed after one position, up to another.
    pub fn device_list_changes(&self, since: Position, until: Position) -> Result<Vec<OwnedUserId>, Error> {
        let mut found = Vec::new();
        // The last change, of receipts or of devices, is known without a look.
        if since >= until || self.receipts_position() <= since {
            return Ok(found);
        }
        let start = by_position(self.key(), since.saturating_add(1));
        let end = by_position(self.key(), until.saturating_add(1));
        self.reader()
            .scan(Family::RoomIndex, &start, &end, false, &mut |_, value| {
                let user = keys::untagged(value).and_then(|user| std::str::from_utf8(user).ok());
                found.extend(user.and_then(|user| OwnedUserId::try_from(user).ok()));
                true
            })?;
        Ok(found)
    }

    /// Notes that a member's devices or keys changed, so that syncs find it.
    pub async fn devices_changed(&self, user: &UserId) -> Result<(), Error> {
        Ok(self.note_devices(user).await?)
    }

    async fn note_devices(&self, user: &UserId) -> Result<(), hearth_storage::Error> {
        // A change of one user comes after another of the same user: nobody else touches these two rows.
        let latest = keys::index(self.key(), keys::INDEX_DEVICES, &[user.as_bytes()]);
        let before = self.reader().get(Family::RoomIndex, &latest)?;
        let mut batch = Batch::new();
        if let Some(position) = before
            .as_deref()
            .and_then(keys::untagged)
            .and_then(|bytes| bytes.try_into().ok())
        {
            batch.delete(
                Family::RoomIndex,
                by_position(self.key(), u64::from_be_bytes(position)),
            );
        }
        let ticket = self.0.rooms.log.reserve(self.shard());
        let position = ticket.position();
        batch.put(Family::RoomIndex, latest, keys::tagged(&position.to_be_bytes()));
        batch.put(
            Family::RoomIndex,
            by_position(self.key(), position),
            keys::tagged(user.as_bytes()),
        );
        let last = keys::room(self.key(), keys::ROOM_RECEIPTS);
        batch.put(Family::Room, last, keys::tagged(&position.to_be_bytes()));
        let note = RoomNote {
            room: self.clone(),
            view: None,
            change: Change {
                devices: true,
                ..Change::default()
            },
            completes: false,
            replaced: Vec::new(),
            added: Vec::new(),
            members: Vec::new(),
            rows: Vec::new(),
        };
        let record = Record {
            batch,
            feed: Vec::new(),
            outbox: Vec::new(),
            note: Some(Arc::new(note)),
        };
        ticket.submit(record).await?;
        Ok(())
    }
}

fn by_position(room: EntityKey, position: Position) -> Vec<u8> {
    keys::index(room, keys::INDEX_DEVICES_BY_POSITION, &[&position.to_be_bytes()])
}

/// Notes the changes that come out of users' outboxes. One that comes twice moves on and does no harm.
struct Delivery(Weak<Rooms>);

#[async_trait]
impl OutboxHandler for Delivery {
    async fn apply(
        &self,
        target: &str,
        payload: &[u8],
        _source: (ShardId, Position, u16),
    ) -> Result<(), hearth_storage::Error> {
        let Some(rooms) = self.0.upgrade() else {
            return Err(hearth_storage::Error::Stopped);
        };
        let update: DeviceListUpdate = record::decode(payload)?;
        let Ok(room_id) = RoomId::parse(target) else {
            return Ok(());
        };
        let room = rooms.get(&room_id).map_err(|error| match error {
            Error::Storage(error) => error,
            // What is damaged stays so, and holds up nobody.
            Error::Damaged(what) => hearth_storage::Error::Corrupt(what),
            other => hearth_storage::Error::Apply(other.to_string()),
        })?;
        let Some(room) = room else { return Ok(()) };
        room.note_devices(&update.user_id).await
    }
}

pub(crate) fn register(rooms: &Arc<Rooms>) {
    let handler = Arc::new(Delivery(Arc::downgrade(rooms)));
    rooms.cluster.register(hearth_users::op::DEVICE_LIST, handler);
}
