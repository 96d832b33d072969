//! What a commit carries: the record, its feed items and its outbox rows, and their stored forms.

use std::any::Any;
use std::sync::Arc;

use crate::record::{put_varint, take, take_slice, take_varint};
use crate::{Batch, EntityKey, EntityKind, Position, ShardId, Slot};

/// The tag of feed and outbox values.
const TAG: u8 = 2;

/// One atomic change of a shard.
#[derive(Default)]
pub struct Record {
    /// The rows to write.
    pub batch: Batch,
    /// What the feed says about it.
    pub feed: Vec<FeedItem>,
    /// Effects on other entities.
    pub outbox: Vec<OutboxRow>,
    /// For the callbacks of this process alone; it is not stored.
    pub note: Option<Arc<dyn Any + Send + Sync>>,
}

impl Record {
    /// A record that only writes rows.
    pub fn of(batch: Batch) -> Record {
        Record {
            batch,
            ..Record::default()
        }
    }
}

/// One thing that happened to an entity. Read the entity for what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedItem {
    /// The entity.
    pub entity: EntityKey,
    /// What sort of thing.
    pub kind: FeedKind,
    /// Where to read it: what the number means depends on the kind.
    pub reference: u64,
}

/// What happened to an entity. The numbers are stored; a consumer passes over kinds that it does not
/// know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedKind(pub u8);

#[expect(
    non_upper_case_globals,
    reason = "they read as variants; unknown kinds must stay representable"
)]
impl FeedKind {
    /// An event entered a room's timeline; the reference is its short id.
    pub const RoomEvent: FeedKind = FeedKind(1);
    /// A receipt came to a room.
    pub const RoomReceipt: FeedKind = FeedKind(2);
    /// A membership changed without a timeline event of it; the reference is the short id of the member event that is
    /// current now, or 0 where any member's may have changed.
    pub const RoomState: FeedKind = FeedKind(3);
    /// Something of a user changed; the reference is 1 if it was the devices or keys that others are told of.
    pub const UserChange: FeedKind = FeedKind(4);
    /// An alias was made or removed.
    pub const AliasChange: FeedKind = FeedKind(5);
    /// A media item was stored or removed.
    pub const MediaChange: FeedKind = FeedKind(6);
    /// A room was made, purged or otherwise changed as a whole.
    pub const RoomLife: FeedKind = FeedKind(7);
    /// An event was filled into a room's history; the reference is its short id.
    pub const RoomHistory: FeedKind = FeedKind(8);
    /// Events without a place in a room's timeline were stored; the reference is the short id of the first, shifted by 32
    /// bits, and that of the last: all between them are such events or others of the same batch.
    pub const RoomOutside: FeedKind = FeedKind(9);
}

/// An effect on another entity, applied there by the handler of its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// The kind of the entity.
    pub target_kind: EntityKind,
    /// Its name.
    pub target: String,
    /// Which handler applies it.
    pub op: u8,
    /// What the handler needs; it starts with a tag of the handler's own.
    pub payload: Vec<u8>,
}

/// A batch that is durable, as the callbacks see it.
pub struct Published {
    /// Its shard.
    pub shard: ShardId,
    /// Its position.
    pub position: Position,
    /// Its feed items.
    pub feed: Vec<FeedItem>,
    /// Its outbox rows.
    pub outbox: Vec<OutboxRow>,
    /// The committer's note.
    pub note: Option<Arc<dyn Any + Send + Sync>>,
}

pub(crate) fn encode_feed(items: &[FeedItem]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + 8 * items.len());
    out.push(TAG);
    for item in items {
        out.extend_from_slice(&item.entity.slot.to_bytes());
        put_varint(&mut out, u64::from(item.entity.no));
        out.push(item.kind.0);
        put_varint(&mut out, item.reference);
    }
    out
}

pub(crate) fn decode_feed(bytes: &[u8]) -> Option<Vec<FeedItem>> {
    let (&TAG, mut rest) = bytes.split_first()? else {
        return None;
    };
    let mut items = Vec::new();
    while !rest.is_empty() {
        let slot = Slot::new(u16::from_be_bytes(take(&mut rest)?))?;
        let no = u32::try_from(take_varint(&mut rest)?).ok()?;
        let [kind] = take(&mut rest)?;
        let reference = take_varint(&mut rest)?;
        items.push(FeedItem {
            entity: EntityKey { slot, no },
            kind: FeedKind(kind),
            reference,
        });
    }
    Some(items)
}

pub(crate) fn encode_outbox(row: &OutboxRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + row.target.len() + row.payload.len());
    out.extend_from_slice(&[TAG, row.target_kind as u8, row.op]);
    put_varint(&mut out, row.target.len() as u64);
    out.extend_from_slice(row.target.as_bytes());
    out.extend_from_slice(&row.payload);
    out
}

/// Reads a value of the outbox family.
pub fn decode_outbox(bytes: &[u8]) -> Option<OutboxRow> {
    let mut rest = bytes;
    let [TAG, kind, op] = take(&mut rest)? else {
        return None;
    };
    let len = usize::try_from(take_varint(&mut rest)?).ok()?;
    let target = std::str::from_utf8(take_slice(&mut rest, len)?).ok()?.to_owned();
    Some(OutboxRow {
        target_kind: EntityKind::from_u8(kind)?,
        target,
        op,
        payload: rest.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feed_rows_round_trip_and_are_small() {
        let item = |no, kind, reference| FeedItem {
            entity: EntityKey {
                slot: Slot::new(300).unwrap(),
                no,
            },
            kind,
            reference,
        };
        let items = vec![
            item(1, FeedKind::RoomEvent, 1000),
            item(u32::MAX, FeedKind(200), u64::MAX),
        ];
        assert_eq!(decode_feed(&encode_feed(&items)), Some(items.clone()));
        assert!(
            10 + encode_feed(&items[..1]).len() <= 20,
            "key and value of one event"
        );
        // These bytes are on disks.
        assert_eq!(encode_feed(&items[..1]), [2, 1, 44, 1, 1, 0xE8, 7]);
        assert_eq!(decode_feed(&[]), None);
        assert_eq!(decode_feed(&[2, 1]), None);
    }

    #[test]
    fn outbox_rows_round_trip() {
        let row = OutboxRow {
            target_kind: EntityKind::User,
            target: "@a:x".into(),
            op: 3,
            payload: vec![1, 2],
        };
        let bytes = encode_outbox(&row);
        assert_eq!(bytes, b"\x02\x02\x03\x04@a:x\x01\x02");
        assert_eq!(decode_outbox(&bytes), Some(row));
        for cut in 0..bytes.len() {
            let _ = decode_outbox(&bytes[..cut]);
        }
        assert_eq!(decode_outbox(b"\x02\x02\x03\x7f@a"), None);
    }
}
