//! Slots, shards, entities and positions: how everything stored is addressed.

use xxhash_rust::xxh3::xxh3_64;

/// How many slots there are. Part of the stored format; it never changes.
pub const SLOT_COUNT: u16 = 1 << 14;

/// A slot: the fixed hash of an entity's name, `XXH3-64(name) & 0x3FFF`.
///
/// It is the first two bytes of nearly every key. A shard owns a contiguous range of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number, if there is one.
    pub fn new(number: u16) -> Option<Slot> {
        (number < SLOT_COUNT).then_some(Slot(number))
    }

    /// The slot's number, below [`SLOT_COUNT`].
    pub fn get(self) -> u16 {
        self.0
    }

    /// The two bytes with which keys of this slot start.
    pub fn to_bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

/// The slot of an entity, given its full id: `!room:x`, `@user:x`, `#alias:x`, `server/media`.
pub fn slot_of(name: &str) -> Slot {
    Slot((xxh3_64(name.as_bytes()) & u64::from(SLOT_COUNT - 1)) as u16)
}

/// The kinds of entity. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntityKind {
    /// A room, by its id.
    Room = 1,
    /// A local user, by the full id.
    User = 2,
    /// A room alias, with its `#`.
    Alias = 3,
    /// A media item, `server/id`.
    Media = 4,
    /// A remote server to which we send.
    Destination = 5,
    /// An application service, by its registration id.
    AppService = 6,
    /// A registration token.
    RegistrationToken = 7,
    /// An event id, which leads to its room.
    EventId = 8,
    /// A remote server from which we receive: its keys and transaction ids.
    Server = 9,
}

impl EntityKind {
    /// Every kind, by its number.
    pub const ALL: [EntityKind; 9] = [
        EntityKind::Room,
        EntityKind::User,
        EntityKind::Alias,
        EntityKind::Media,
        EntityKind::Destination,
        EntityKind::AppService,
        EntityKind::RegistrationToken,
        EntityKind::EventId,
        EntityKind::Server,
    ];

    /// The kind with this stored number.
    pub fn from_u8(number: u8) -> Option<EntityKind> {
        EntityKind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// An entity's address: its slot and its number there. Written big-endian in 6 bytes, it is the
/// prefix of all the entity's keys; a number is never given twice in its slot and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey {
    /// The slot of the entity's name.
    pub slot: Slot,
    /// The number within (slot, kind), from 1.
    pub no: u32,
}

impl EntityKey {
    /// How many bytes the stored form takes.
    pub const LEN: usize = 6;

    /// The stored form: slot, then number, both big-endian.
    pub fn to_bytes(self) -> [u8; 6] {
        let (slot, no) = (self.slot.to_bytes(), self.no.to_be_bytes());
        [slot[0], slot[1], no[0], no[1], no[2], no[3]]
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: [u8; 6]) -> Option<EntityKey> {
        let [a, b, c, d, e, f] = bytes;
        let slot = Slot::new(u16::from_be_bytes([a, b]))?;
        Some(EntityKey {
            slot,
            no: u32::from_be_bytes([c, d, e, f]),
        })
    }
}

/// A position in a shard's log, from 1; 0 is "before everything".
pub type Position = u64;

/// A shard's id. Ids are never used twice in a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_the_documented_hash() {
        // These values are stored in every key: a change of the hash would lose all data.
        for (name, slot) in [
            ("", 0x14C2),
            ("!room:example.org", 636),
            ("@alice:example.org", 6739),
        ] {
            assert_eq!(slot_of(name).get(), slot, "{name}");
        }
    }

    #[test]
    fn entity_keys_round_trip_in_order() {
        let key = |slot, no| EntityKey {
            slot: Slot::new(slot).unwrap(),
            no,
        };
        let keys = [
            key(0, 1),
            key(0, 256),
            key(0, u32::MAX),
            key(1, 0),
            key(0x3FFF, 7),
        ];
        for pair in keys.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
        }
        for key in keys {
            assert_eq!(EntityKey::from_bytes(key.to_bytes()), Some(key));
        }
        assert_eq!(EntityKey::from_bytes([0xFF; 6]), None, "no such slot");
    }
}
