//! Entity names and the numbers that stand for them in keys.

use crate::family::Profile;
use crate::key::{KeyReader, KeyWriter};
use crate::schema::FamilyDoc;
use crate::{EntityKey, EntityKind, Slot};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "slot u16 · kind u8 · name; slot u16 · kind u8 for the counter; slot u16 · kind+128 u8 · number u32 for the way back",
    value: "tag 2 · number u32; the way back: tag 2 · name",
    writer: "the log, in the batch that creates the entity",
    growth: "one or two rows an entity, removed with it; the counter stays, so that a number is not used twice",
    profile: Profile::Point,
};

/// `slot u16 · kind u8 · name`, `slot u16 · kind u8` or `slot u16 · kind+128 u8 · number u32`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityRowKey<'a> {
    /// The next free number of (slot, kind).
    Counter(Slot, EntityKind),
    /// From a name to its number.
    Name(Slot, EntityKind, &'a str),
    /// From a number to its name; rooms and users have it.
    Number(EntityKind, EntityKey),
}

impl<'a> EntityRowKey<'a> {
    const BACK: u8 = 0x80;

    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            EntityRowKey::Counter(slot, kind) => KeyWriter::of_slot(*slot, 1).u8(*kind as u8).done(),
            EntityRowKey::Name(slot, kind, name) => KeyWriter::of_slot(*slot, 1 + name.len())
                .u8(*kind as u8)
                .rest(name)
                .done(),
            EntityRowKey::Number(kind, entity) => KeyWriter::of_slot(entity.slot, 5)
                .u8(*kind as u8 | Self::BACK)
                .u32(entity.no)
                .done(),
        }
    }

    /// Reads the stored bytes.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut key = KeyReader::new(bytes);
        let (slot, kind) = (key.slot()?, key.u8()?);
        let entity_kind = EntityKind::from_u8(kind & !Self::BACK)?;
        if kind & Self::BACK != 0 {
            let no = key.u32()?;
            key.end()?;
            return Some(EntityRowKey::Number(entity_kind, EntityKey { slot, no }));
        }
        match key.rest()? {
            "" => Some(EntityRowKey::Counter(slot, entity_kind)),
            name => Some(EntityRowKey::Name(slot, entity_kind, name)),
        }
    }
}

key_test!(EntityRowKey:
    EntityRowKey::Counter(slot(1), EntityKind::Room),
    EntityRowKey::Name(slot(1), EntityKind::Room, "!a"),
    EntityRowKey::Name(slot(1), EntityKind::Room, "!b"),
    EntityRowKey::Counter(slot(1), EntityKind::User),
    EntityRowKey::Number(EntityKind::Room, entity(1, 1)),
    EntityRowKey::Number(EntityKind::Room, entity(1, 256)),
    EntityRowKey::Counter(slot(2), EntityKind::Room),);
