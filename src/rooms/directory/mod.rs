//! Aliases and the public directory.
//!
//! An alias is an entity of its own: it says which room it points to, and that is where a name is
//! unique. The room keeps an index of its aliases, and the list of public rooms is a view, both
//! delivered by the outbox.

mod index;

pub(crate) use index::DirectoryIndex;
pub use index::DirectoryToken;

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hearth_cluster::OutboxHandler;
use hearth_core::{Shutdown, tasks};
use hearth_storage::{Batch, EntityKind, Family, OutboxRow, Position, Record, ShardId, record, slot_of};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Room, Rooms, keys};

/// The outbox operation that tells a room of an alias.
pub const OP_ROOM_ALIAS: u8 = 16;
/// The outbox operation that puts a room into the public directory or takes it out.
pub const OP_DIRECTORY: u8 = 17;

/// The view's name.
const VIEW: &[u8] = b"directory\0";

/// An alias as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRecord {
    /// The room it points to.
    pub room_id: OwnedRoomId,
    /// Who made it.
    pub creator: OwnedUserId,
}

/// What a client asks of the directory.
#[derive(Clone, Debug, Default)]
pub struct DirectoryEntry {
    /// Only rooms whose name, topic or alias has this text.
    pub search: Option<String>,
    /// Only rooms of these types; `None` in the list means rooms without a type.
    pub room_types: Option<Vec<Option<String>>>,
    /// Rooms of this bridged network; the server's own list where there is none.
    pub network: Option<String>,
    /// Rooms of all networks.
    pub all_networks: bool,
    /// How many rooms at the most; none where it is 0.
    pub limit: Option<usize>,
    /// Where to go on.
    pub since: Option<DirectoryToken>,
}

/// A page of the public directory.
#[derive(Clone, Debug, Default)]
pub struct DirectoryPage {
    /// Rooms, the largest first.
    pub chunk: Vec<Value>,
    /// Where the next page begins.
    pub next: Option<DirectoryToken>,
    /// Where the page before ends.
    pub previous: Option<DirectoryToken>,
    /// How many rooms there are.
    pub total: usize,
}

#[derive(Serialize, Deserialize)]
struct AliasNotice {
    alias: OwnedRoomAliasId,
    present: bool,
}

#[derive(Serialize, Deserialize)]
struct ListNotice {
    room_id: OwnedRoomId,
    network: Option<String>,
    listed: bool,
}

impl Rooms {
    /// The room that an alias of this server points to.
    pub fn alias(&self, alias: &RoomAliasId) -> Result<Option<AliasRecord>, Error> {
        let value = self.reader().get(Family::Alias, &alias_key(alias))?;
        Ok(value.map(|bytes| record::decode(&bytes)).transpose()?)
    }

    /// Points an alias to a room and tells the room.
    pub async fn set_alias(&self, alias: &RoomAliasId, room: &RoomId, creator: &UserId) -> Result<(), Error> {
        self.write_alias(alias, Some((room, creator)), true).await
    }

    /// Takes an alias away and tells its room.
    pub async fn delete_alias(&self, alias: &RoomAliasId) -> Result<(), Error> {
        self.write_alias(alias, None, true).await
    }

    /// Points an alias of one room to another, in one step: at no time is it nobody's.
    pub(crate) async fn move_alias(
        &self,
        alias: &RoomAliasId,
        old: &RoomId,
        new: &RoomId,
    ) -> Result<(), Error> {
        let lock = self.alias_locks.lock(alias.as_str());
        let _held = lock.lock().await;
        let Some(known) = self.alias(alias)?.filter(|known| known.room_id == old) else {
            return Ok(());
        };
        let value = AliasRecord {
            room_id: new.to_owned(),
            ..known
        };
        let mut batch = Batch::new();
        batch.put(Family::Alias, alias_key(alias), record::encode(&value));
        let record = Record {
            outbox: vec![alias_row(alias, old, false), alias_row(alias, new, true)],
            ..Record::of(batch)
        };
        self.cluster.commit(slot_of(alias.as_str()), |_| record).await?;
        Ok(())
    }

    /// Takes the name of a room that is being created: the room learns of it by its own batch.
    pub(crate) async fn reserve_alias(
        &self,
        alias: &RoomAliasId,
        room: &RoomId,
        creator: &UserId,
    ) -> Result<(), Error> {
        self.write_alias(alias, Some((room, creator)), false).await
    }

    /// Gives the name of a room back that could not be created.
    pub(crate) async fn release_alias(&self, alias: &RoomAliasId) -> Result<(), Error> {
        self.write_alias(alias, None, false).await
    }

    async fn write_alias(
        &self,
        alias: &RoomAliasId,
        target: Option<(&RoomId, &UserId)>,
        tell: bool,
    ) -> Result<(), Error> {
        // Two writers of one alias must not both find it free.
        let lock = self.alias_locks.lock(alias.as_str());
        let _held = lock.lock().await;
        let old = self.alias(alias)?;
        let mut batch = Batch::new();
        let room_id = match (target, &old) {
            (Some(_), Some(_)) => return Err(Error::AliasInUse(alias.to_string())),
            (Some((room, creator)), None) => {
                let value = AliasRecord {
                    room_id: room.to_owned(),
                    creator: creator.to_owned(),
                };
                batch.put(Family::Alias, alias_key(alias), record::encode(&value));
                room.to_owned()
            }
            (None, Some(old)) => {
                batch.delete(Family::Alias, alias_key(alias));
                old.room_id.clone()
            }
            (None, None) => return Err(Error::NotFound(format!("the alias {alias} does not exist"))),
        };
        let mut outbox = Vec::new();
        if tell {
            outbox.push(alias_row(alias, &room_id, target.is_some()));
        }
        let record = Record {
            outbox,
            ..Record::of(batch)
        };
        self.cluster.commit(slot_of(alias.as_str()), |_| record).await?;
        Ok(())
    }

    /// Lists a room in the public directory, or takes it out.
    pub async fn set_listed(&self, room: &Room, listed: bool) -> Result<(), Error> {
        let row = keys::room(room.0.key, keys::ROOM_LISTED);
        let mut batch = Batch::new();
        match listed {
            true => batch.put(Family::Room, row, keys::tagged(&[])),
            false => batch.delete(Family::Room, row),
        }
        let notice = ListNotice {
            room_id: room.id().to_owned(),
            network: None,
            listed,
        };
        let record = Record {
            outbox: vec![list_row(&notice)],
            ..Record::of(batch)
        };
        self.cluster.commit(room.0.key.slot, |_| record).await?;
        Ok(())
    }

    /// Lists a room among those of a bridged network, or takes it out
    /// (`PUT /directory/list/appservice/{networkId}/{roomId}`).
    pub async fn set_network_listed(&self, room: &RoomId, network: &str, listed: bool) -> Result<(), Error> {
        let notice = ListNotice {
            room_id: room.to_owned(),
            network: Some(network.to_owned()),
            listed,
        };
        let record = Record {
            outbox: vec![list_row(&notice)],
            ..Record::of(Batch::new())
        };
        self.cluster.commit(slot_of(room.as_str()), |_| record).await?;
        Ok(())
    }

    /// Whether the room is in the server's own public directory.
    pub fn is_listed(&self, room: &Room) -> Result<bool, Error> {
        Ok(self
            .reader()
            .get(Family::Room, &keys::room(room.0.key, keys::ROOM_LISTED))?
            .is_some())
    }

    /// Reads the public directory beside the requests, so that nobody waits for it.
    pub(crate) fn start_directory(self: &Arc<Self>, shutdown: &Shutdown) {
        let (rooms, shutdown) = (self.clone(), shutdown.clone());
        // Once: where it fails, whoever asks first reads it.
        tasks::spawn("public directory", async move {
            let reading = rooms.clone();
            let read = move || reading.directory.warm(&reading, &|| shutdown.is_triggered());
            match rooms.chores.run(read).await {
                Ok(()) | Err(Error::Storage(hearth_storage::Error::Stopped)) => {}
                Err(error) => tracing::warn!(%error, "the public directory could not be read"),
            }
        });
    }

    /// A page of the public directory: rooms that match, those with most members first.
    pub async fn public_rooms(self: &Arc<Self>, query: DirectoryEntry) -> Result<DirectoryPage, Error> {
        let rooms = self.clone();
        self.pool.run(move || rooms.directory.page(&rooms, &query)).await
    }
}

impl Room {
    /// The aliases of this server that point to the room.
    pub fn aliases(&self) -> Result<Vec<OwnedRoomAliasId>, Error> {
        let (start, end) = keys::range(keys::index(self.0.key, keys::INDEX_ALIAS, &[]));
        let mut out = Vec::new();
        self.reader()
            .scan(Family::RoomIndex, &start, &end, false, &mut |key, _| {
                let alias = std::str::from_utf8(&key[start.len()..]).ok();
                out.extend(alias.and_then(|alias| OwnedRoomAliasId::try_from(alias).ok()));
                true
            })?;
        Ok(out)
    }
}

fn alias_key(alias: &RoomAliasId) -> Vec<u8> {
    [slot_of(alias.as_str()).to_bytes().as_slice(), alias.as_bytes()].concat()
}

/// Tells a room that an alias points to it, or does so no more.
fn alias_row(alias: &RoomAliasId, room: &RoomId, present: bool) -> OutboxRow {
    let notice = AliasNotice {
        alias: alias.to_owned(),
        present,
    };
    OutboxRow {
        target_kind: EntityKind::Room,
        target: room.to_string(),
        op: OP_ROOM_ALIAS,
        payload: record::encode(&notice),
    }
}

fn list_row(notice: &ListNotice) -> OutboxRow {
    OutboxRow {
        target_kind: EntityKind::Server,
        target: "directory".to_owned(),
        op: OP_DIRECTORY,
        payload: record::encode(notice),
    }
}

/// Delivers aliases to rooms and listings to the directory's view.
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
        let mut batch = Batch::new();
        let mut listing = None;
        if target == "directory" {
            let notice: ListNotice = record::decode(payload)?;
            let network = notice.network.as_deref().unwrap_or("");
            let row = [VIEW, network.as_bytes(), &[0], notice.room_id.as_bytes()].concat();
            match notice.listed {
                true => batch.put(Family::View, row, keys::tagged(&[])),
                false => batch.delete(Family::View, row),
            }
            listing = Some(notice);
        } else {
            let notice: AliasNotice = record::decode(payload)?;
            let key = hearth_storage::entity(rooms.reader(), EntityKind::Room, target)?;
            let Some(key) = key else { return Ok(()) };
            let row = keys::index(key, keys::INDEX_ALIAS, &[notice.alias.as_bytes()]);
            match notice.present {
                true => batch.put(Family::RoomIndex, row, keys::tagged(&[])),
                false => batch.delete(Family::RoomIndex, row),
            }
        }
        rooms
            .cluster
            .commit(slot_of(target), |_| Record::of(batch))
            .await?;
        if let Some(ListNotice {
            room_id,
            network,
            listed,
        }) = listing
        {
            let network = network.as_deref().unwrap_or_default();
            rooms.directory.listed(&room_id, network, listed);
        }
        Ok(())
    }
}

/// Registers the deliveries of this module.
pub(crate) fn register(rooms: &Arc<Rooms>) {
    let handler = Arc::new(Delivery(Arc::downgrade(rooms)));
    rooms.cluster.register(OP_ROOM_ALIAS, handler.clone());
    rooms.cluster.register(OP_DIRECTORY, handler);
}
