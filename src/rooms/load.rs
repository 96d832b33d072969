//! Bringing a room into memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hearth_events::CreateInfo;
use hearth_storage::{EntityKey, Family, record};
use parking_lot::{Mutex, RwLock};
use ruma::{RoomId, RoomVersionId};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Room, Rooms,
    head::{AuthCache, Head, HeadRecord, Hints, Pending},
    keys,
    may::May,
    member_cache::MemberCache,
    room::RoomInner,
    tail::Tail,
    typing::Typing,
};

/// What never changes about a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomRecord {
    pub(crate) room_id: String,
    pub(crate) version: String,
}

impl Rooms {
    /// Reads a room's records; none where the room was numbered and never created.
    pub(crate) fn load(self: &Arc<Self>, id: &RoomId, key: EntityKey) -> Result<Option<Room>, Error> {
        let reader = self.reader();
        let rows = [
            keys::ROOM_RECORD,
            keys::ROOM_HEAD,
            keys::ROOM_RECEIPTS,
            keys::ROOM_PARTIAL,
            keys::ROOM_WHOLE,
            keys::ROOM_LACKING,
        ];
        let rows = rows.map(|field| keys::room(key, field));
        let values = reader.multi_get(Family::Room, &rows)?;
        let [Some(record), Some(head), receipts, partial, whole, lacking] = values.as_slice() else {
            return Ok(None);
        };
        let position = |value: &Option<Vec<u8>>| {
            let bytes = value.as_deref().and_then(keys::untagged);
            let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_be_bytes)
        };
        let (receipts, whole) = (position(receipts), position(whole));
        let record: RoomRecord = record::decode(record)?;
        let version = RoomVersionId::try_from(record.version.as_str())
            .map_err(|_| Error::UnsupportedVersion(record.version.clone()))?;
        let head = HeadRecord::decode(head)?;
        let mut servers = BTreeMap::new();
        let (start, end) = keys::range(keys::index(key, keys::INDEX_SERVER, &[]));
        reader.scan(Family::RoomIndex, &start, &end, false, &mut |row, value| {
            if let (Ok(server), Ok(count)) = (
                std::str::from_utf8(&row[start.len()..]),
                keys::read_u32_value(value, "server count"),
            ) {
                servers.insert(server.to_owned(), count);
            }
            true
        })?;
        let room = self.assemble(id, key, &version, head, servers)?;
        if let Some(partial) = partial {
            room.set_partial(Some(record::decode(partial)?));
        }
        if let Some(lacking) = lacking {
            *room.0.lacking.lock() = Some(record::decode(lacking)?);
        }
        let create = room
            .state("m.room.create", "")?
            .ok_or(Error::Damaged("create event"))?;
        let sender = create.pdu.sender();
        let info = CreateInfo::parse(room.rules(), create.id(), sender, create.pdu.content())?;
        drop(room.0.create.set(Arc::new(info)));
        room.0.receipts_position.store(receipts, Ordering::Release);
        room.0.full_since.store(whole, Ordering::Release);
        Ok(Some(room))
    }

    /// Puts a room's handle together.
    pub(crate) fn assemble(
        self: &Arc<Self>,
        id: &RoomId,
        key: EntityKey,
        version: &RoomVersionId,
        record: HeadRecord,
        servers: BTreeMap<String, u32>,
    ) -> Result<Room, Error> {
        let rules =
            hearth_events::rules(version).ok_or_else(|| Error::UnsupportedVersion(version.to_string()))?;
        let head = Head {
            hints: Hints::of_loaded(&record),
            record,
            servers,
            auth: AuthCache::default(),
            pending: Pending::default(),
            threads: HashMap::new(),
            thread_counts: HashMap::new(),
            barrier: 0,
        };
        let view = Arc::new(head.view());
        Ok(Room(Arc::new(RoomInner {
            id: id.to_owned(),
            key,
            shard: self.log.shard_of(key.slot),
            rules,
            rooms: self.clone(),
            head: Mutex::new(head),
            view: RwLock::new(view),
            receipts_position: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            pending_receipts: Mutex::default(),
            create: OnceLock::new(),
            visibility_key: OnceLock::new(),
            typing: Mutex::new(Typing::default()),
            members: MemberCache::default(),
            tail: Tail::default(),
            partial: tokio::sync::watch::Sender::new(None),
            resync: Default::default(),
            full_since: AtomicU64::new(0),
            servers_until_full: Mutex::default(),
            lacking: Mutex::new(None),
            lacks: Mutex::default(),
            laying: tokio::sync::Mutex::new(()),
            laid: Mutex::new(None),
            receiving: tokio::sync::Mutex::new(()),
            gaps: May::default(),
            relations: May::default(),
            awaited: May::default(),
            policy: May::default(),
        })))
    }
}
