//! The shard map and the heads of the shards, as the data directory keeps them.

use serde::{Deserialize, Serialize};

use crate::schema::SCHEMA_VERSION;
use crate::schema::meta::MetaKey;
use crate::slot::SLOT_COUNT;
use crate::{Batch, Engine, Error, Family, Position, Reader, ShardId, Slot, record};

/// The tag of a head.
const TAG: u8 = 2;

/// A shard: its id and the slots that it owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// The id, never used twice.
    pub id: ShardId,
    /// The first slot.
    pub first: Slot,
    /// The last slot, included.
    pub last: Slot,
}

#[derive(Serialize, Deserialize)]
struct SchemaRecord {
    version: u32,
}

/// The shard map as stored. A later split adds shards and says where the old one ended.
#[derive(Serialize, Deserialize)]
struct MapRecord {
    next_id: u16,
    shards: Vec<MapShard>,
}

#[derive(Serialize, Deserialize)]
struct MapShard {
    id: u16,
    first: u16,
    last: u16,
}

/// Reads the shard map, or makes it if the data directory is new.
pub(super) fn open_map(engine: &dyn Engine, shards_if_new: u16) -> Result<Vec<ShardInfo>, Error> {
    let schema = engine.get(Family::Meta, &MetaKey::SCHEMA.encode())?;
    let map = engine.get(Family::Meta, &MetaKey::SHARDS.encode())?;
    let Some(schema) = schema else {
        if map.is_some() {
            return Err(Error::Schema(
                "the data directory does not say its schema version".to_owned(),
            ));
        }
        return create_map(engine, shards_if_new);
    };
    let version = record::decode::<SchemaRecord>(&schema).map(|schema| schema.version);
    if version != Ok(SCHEMA_VERSION) {
        let found = version.map_or_else(
            |_| "that is not readable".to_owned(),
            |version| version.to_string(),
        );
        return Err(Error::Schema(format!(
            "the data directory has schema version {found}, and this version of Hearth reads only version \
             {SCHEMA_VERSION}; start the version of Hearth that wrote it"
        )));
    }
    let map = map.ok_or(Error::Corrupt("shard map"))?;
    check_map(record::decode(&map)?)
}

fn create_map(engine: &dyn Engine, count: u16) -> Result<Vec<ShardInfo>, Error> {
    if count == 0 || count > SLOT_COUNT {
        return Err(Error::Schema(format!(
            "there must be between 1 and {SLOT_COUNT} shards, not {count}"
        )));
    }
    let bound = |at: u16| (u32::from(at) * u32::from(SLOT_COUNT) / u32::from(count)) as u16;
    let shards = (0..count)
        .map(|at| MapShard {
            id: at + 1,
            first: bound(at),
            last: bound(at + 1) - 1,
        })
        .collect();
    let map = MapRecord {
        next_id: count + 1,
        shards,
    };
    let mut batch = Batch::new();
    batch.put(
        Family::Meta,
        MetaKey::SCHEMA.encode(),
        record::encode(&SchemaRecord {
            version: SCHEMA_VERSION,
        }),
    );
    batch.put(Family::Meta, MetaKey::SHARDS.encode(), record::encode(&map));
    engine.write(&batch, true)?;
    check_map(map)
}

/// Every slot has exactly one shard.
fn check_map(map: MapRecord) -> Result<Vec<ShardInfo>, Error> {
    let mut infos = Vec::with_capacity(map.shards.len());
    let mut expected = 0;
    for shard in map.shards {
        let (first, last) = (Slot::new(shard.first), Slot::new(shard.last));
        match (first, last) {
            (Some(first), Some(last))
                if shard.first == expected && first <= last && shard.id < map.next_id =>
            {
                infos.push(ShardInfo {
                    id: ShardId(shard.id),
                    first,
                    last,
                });
                expected = shard.last + 1;
            }
            _ => return Err(Error::Corrupt("shard map")),
        }
    }
    if expected == SLOT_COUNT {
        Ok(infos)
    } else {
        Err(Error::Corrupt("shard map"))
    }
}

/// The last position of a shard that was used.
pub(super) fn head(reader: &dyn Reader, shard: ShardId) -> Result<Position, Error> {
    match reader.get(Family::Meta, &MetaKey::Head(shard).encode())? {
        None => Ok(0),
        Some(value) => match value.split_first() {
            Some((&TAG, position)) => match position.try_into() {
                Ok(position) => Ok(Position::from_be_bytes(position)),
                Err(_) => Err(Error::Corrupt("shard head")),
            },
            _ => Err(Error::Corrupt("shard head")),
        },
    }
}

/// Writes up to where a shard's positions are used.
pub(crate) fn put_head(shard: ShardId, position: Position, batch: &mut Batch) {
    let mut value = Vec::with_capacity(9);
    value.push(TAG);
    value.extend_from_slice(&position.to_be_bytes());
    batch.put(Family::Meta, MetaKey::Head(shard).encode(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryEngine;

    #[test]
    fn shards_cover_all_slots() {
        for count in [1, 2, 3, 16, 1000, SLOT_COUNT] {
            let engine = MemoryEngine::new();
            let infos = open_map(&engine, count).unwrap();
            assert_eq!(infos.len(), usize::from(count));
            assert_eq!(open_map(&engine, 5).unwrap(), infos, "the first start decides");
        }
        for count in [0, SLOT_COUNT + 1] {
            assert!(matches!(
                open_map(&MemoryEngine::new(), count),
                Err(Error::Schema(_))
            ));
        }
    }

    #[test]
    fn another_schema_version_is_refused() {
        let engine = MemoryEngine::new();
        open_map(&engine, 1).unwrap();
        let mut batch = Batch::new();
        batch.put(
            Family::Meta,
            MetaKey::SCHEMA.encode(),
            record::encode(&SchemaRecord { version: 99 }),
        );
        engine.write(&batch, true).unwrap();
        let Err(Error::Schema(message)) = open_map(&engine, 1) else {
            panic!("it must be refused")
        };
        assert!(message.contains("schema version 99"), "{message}");
    }

    #[test]
    fn heads_round_trip() {
        let engine = MemoryEngine::new();
        assert_eq!(head(&engine, ShardId(3)), Ok(0));
        let mut batch = Batch::new();
        put_head(ShardId(3), 77, &mut batch);
        engine.write(&batch, true).unwrap();
        assert_eq!(head(&engine, ShardId(3)), Ok(77));
    }
}
