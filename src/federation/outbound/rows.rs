//! The durable rows of destinations: what a server must get whenever it is back.

use std::sync::Arc;

use hearth_cluster::Cluster;
use hearth_rooms::{Error, Short};
use hearth_storage::schema::destination::DestinationKey;
use hearth_storage::{
    Batch, EntityKey, EntityKind, Family, Position, Record, ShardId, entity, prefix_end, record, slot_of,
};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

type Result<T> = std::result::Result<T, Error>;

/// Kinds of rows of a destination.
mod kind {
    pub(super) const NAME: u8 = 0;
    pub(super) const ROOM: u8 = 1;
    pub(super) const TO_DEVICE: u8 = 2;
    pub(super) const DEVICE_LIST: u8 = 3;
    pub(super) const APPLIED: u8 = 4;
}

/// Reads and writes the rows.
pub(crate) struct Rows {
    cluster: Arc<Cluster>,
    /// Held while an entity is made, so that it is made once.
    creating: tokio::sync::Mutex<()>,
}

/// A room of which a server has not got everything: the newest event for it, as far as it was written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RoomRow {
    pub(crate) newest: Short,
}

/// What a server was told of a local user's devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListRow {
    /// The number of the last change that it acknowledged; 0 where there was none.
    pub(crate) sent: u64,
    /// Whether there is more to tell.
    pub(crate) pending: bool,
}

/// What a server has waiting, read at the start.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) rooms: Vec<(OwnedRoomId, RoomRow)>,
    pub(crate) lists: Vec<OwnedUserId>,
    /// The position of the last message to devices, how many there are, and how large they are.
    pub(crate) last_to_device: Position,
    pub(crate) to_device: usize,
    pub(crate) to_device_bytes: usize,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.lists.is_empty() && self.to_device == 0
    }
}

/// Changes of one destination's rows.
pub(crate) struct Changes<'a> {
    key: EntityKey,
    position: Position,
    batch: &'a mut Batch,
}

impl Changes<'_> {
    pub(crate) fn put_room(&mut self, room: &RoomId, row: RoomRow) {
        let at = key(self.key, kind::ROOM, room.as_bytes());
        self.batch.put(Family::Destination, at, record::encode(&row));
    }

    pub(crate) fn delete_room(&mut self, room: &RoomId) {
        let at = key(self.key, kind::ROOM, room.as_bytes());
        self.batch.delete(Family::Destination, at);
    }

    pub(crate) fn put_list(&mut self, user: &UserId, row: ListRow) {
        let at = key(self.key, kind::DEVICE_LIST, user.as_bytes());
        self.batch.put(Family::Destination, at, record::encode(&row));
    }

    /// Adds a message to devices, as it is stored.
    pub(crate) fn put_to_device(&mut self, stored: Vec<u8>) {
        let at = key(self.key, kind::TO_DEVICE, &self.position.to_be_bytes());
        self.batch.put(Family::Destination, at, stored);
    }

    pub(crate) fn delete_to_device(&mut self, position: Position) {
        let at = key(self.key, kind::TO_DEVICE, &position.to_be_bytes());
        self.batch.delete(Family::Destination, at);
    }

    /// Notes the last outbox row of a shard that was applied.
    pub(crate) fn put_applied(&mut self, (shard, position, index): (ShardId, Position, u16)) {
        let at = key(self.key, kind::APPLIED, &shard.0.to_be_bytes());
        self.batch
            .put(Family::Destination, at, record::encode(&(position, index)));
    }

    /// Removes everything that waits.
    pub(crate) fn clear(&mut self) {
        for kind in [kind::ROOM, kind::TO_DEVICE, kind::DEVICE_LIST] {
            let start = key(self.key, kind, b"");
            let end = prefix_end(&start);
            self.batch.delete_range(Family::Destination, start, end);
        }
    }
}

fn key(destination: EntityKey, kind: u8, rest: &[u8]) -> Vec<u8> {
    DestinationKey {
        destination,
        kind,
        key: rest.into(),
    }
    .encode()
}

impl Rows {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self {
            cluster,
            creating: tokio::sync::Mutex::new(()),
        }
    }

    fn engine(&self) -> &dyn hearth_storage::Engine {
        &**self.cluster.log().engine()
    }

    fn key(&self, server: &ServerName) -> Result<Option<EntityKey>> {
        let log = self.cluster.log();
        Ok(entity(
            log.engine().as_ref(),
            EntityKind::Destination,
            server.as_str(),
        )?)
    }

    /// Whether a server ever had rows.
    pub(crate) fn is_known(&self, server: &ServerName) -> Result<bool> {
        Ok(self.key(server)?.is_some())
    }

    /// Changes a server's rows in one batch. The entity is made if need be.
    pub(crate) async fn write(
        &self,
        server: &ServerName,
        change: impl FnOnce(&mut Changes<'_>),
    ) -> Result<Position> {
        let slot = slot_of(server.as_str());
        let mut created = Batch::new();
        let mut guard = None;
        let found = match self.key(server)? {
            Some(found) => found,
            None => {
                guard = Some(self.creating.lock().await);
                match self.key(server)? {
                    Some(found) => found,
                    None => self.create(server, &mut created)?,
                }
            }
        };
        let position = self
            .cluster
            .commit(slot, |position| {
                let mut batch = created;
                change(&mut Changes {
                    key: found,
                    position,
                    batch: &mut batch,
                });
                Record::of(batch)
            })
            .await?;
        drop(guard);
        Ok(position)
    }

    fn create(&self, server: &ServerName, batch: &mut Batch) -> Result<EntityKey> {
        let log = self.cluster.log();
        let made = log.allocate(EntityKind::Destination, server.as_str(), batch)?;
        let value = record::encode(server.as_str());
        batch.put(Family::Destination, key(made, kind::NAME, b""), value);
        Ok(made)
    }

    /// Whether an outbox row was applied already.
    pub(crate) fn is_applied(
        &self,
        server: &ServerName,
        (shard, position, index): (ShardId, Position, u16),
    ) -> Result<bool> {
        let Some(found) = self.key(server)? else {
            return Ok(false);
        };
        let at = key(found, kind::APPLIED, &shard.0.to_be_bytes());
        let value = self.engine().get(Family::Destination, &at)?;
        // One that cannot be read must not hold up all that comes for the server: it is replaced.
        let last: Option<(Position, u16)> = value.and_then(|value| record::decode(&value).ok());
        Ok(last.is_some_and(|last| last >= (position, index)))
    }

    /// The oldest messages to devices after a position, with the size of each.
    pub(crate) fn to_device(
        &self,
        server: &ServerName,
        after: Position,
        limit: usize,
    ) -> Result<Vec<(Position, usize, Value)>> {
        let mut found = Vec::new();
        let Some(destination) = self.key(server)? else {
            return Ok(found);
        };
        let start = key(
            destination,
            kind::TO_DEVICE,
            &after.saturating_add(1).to_be_bytes(),
        );
        let end = prefix_end(&key(destination, kind::TO_DEVICE, b""));
        self.engine()
            .scan(Family::Destination, &start, &end, false, &mut |row, value| {
                let content = record::decode(value).unwrap_or(Value::Null);
                found.extend(position_of(row).map(|position| (position, value.len(), content)));
                found.len() < limit
            })?;
        Ok(found)
    }

    /// What a server was told of a user's devices; where that cannot be read, as if it was nothing.
    pub(crate) fn list(&self, server: &ServerName, user: &UserId) -> Result<ListRow> {
        let Some(found) = self.key(server)? else {
            return Ok(ListRow::default());
        };
        let at = key(found, kind::DEVICE_LIST, user.as_bytes());
        let value = self.engine().get(Family::Destination, &at)?;
        Ok(value
            .and_then(|value| record::decode(&value).ok())
            .unwrap_or_default())
    }

    /// The servers that have rows.
    pub(crate) fn servers(&self) -> Result<Vec<OwnedServerName>> {
        let mut found = Vec::new();
        let mut start = Vec::new();
        loop {
            let mut next = None;
            self.engine()
                .scan(Family::Destination, &start, &[0xFF], false, &mut |row, value| {
                    if let Some(row) = DestinationKey::decode(row) {
                        let name = (row.kind == kind::NAME).then(|| record::decode::<String>(value).ok());
                        let name = name
                            .flatten()
                            .and_then(|name| OwnedServerName::try_from(name).ok());
                        next = Some((row.destination, name));
                    }
                    next.is_none()
                })?;
            let Some((destination, name)) = next else {
                return Ok(found);
            };
            found.extend(name);
            start = prefix_end(&destination.to_bytes());
        }
    }

    /// What a server has waiting.
    pub(crate) fn waiting(&self, server: &ServerName) -> Result<Waiting> {
        let mut waiting = Waiting::default();
        let Some(found) = self.key(server)? else {
            return Ok(waiting);
        };
        let start = found.to_bytes().to_vec();
        let end = prefix_end(&start);
        self.engine()
            .scan(Family::Destination, &start, &end, false, &mut |row, value| {
                let Some(at) = DestinationKey::decode(row) else {
                    return true;
                };
                let text = std::str::from_utf8(&at.key.0).unwrap_or_default();
                match at.kind {
                    kind::ROOM => {
                        let room = OwnedRoomId::try_from(text).ok();
                        waiting.rooms.extend(room.zip(record::decode(value).ok()));
                    }
                    kind::TO_DEVICE => {
                        waiting.last_to_device = position_of(row).unwrap_or(waiting.last_to_device);
                        waiting.to_device += 1;
                        waiting.to_device_bytes += value.len();
                    }
                    kind::DEVICE_LIST => {
                        let row: Option<ListRow> = record::decode(value).ok();
                        let user = OwnedUserId::try_from(text).ok();
                        waiting
                            .lists
                            .extend(user.filter(|_| row.is_some_and(|row| row.pending)));
                    }
                    _ => {}
                }
                true
            })?;
        Ok(waiting)
    }
}

fn position_of(row: &[u8]) -> Option<Position> {
    let bytes = row.get(row.len().checked_sub(8)?..)?;
    bytes.try_into().ok().map(Position::from_be_bytes)
}
