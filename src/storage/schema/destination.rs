//! What waits for another server, until it has acknowledged it.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Tail};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "destination entity · kind u8 · by kind: 0 nothing (its name); 1 room id; 2 position u64 (a message to devices); 3 user id (a device list); 4 shard u16 (the last outbox row applied)",
    value: "tag · by kind: server name; JSON of the newest event; JSON of the message; JSON of what was told; position u64 · index u16",
    writer: "the destination, by federation",
    growth: "a row a room for a server that is behind, a row a message to its devices, a row a local user whose devices it was told of",
    profile: Profile::Queue,
};

key! {
    /// `destination entity · kind u8 · key of that kind`
    pub struct DestinationKey<'a> {
        /// The server.
        destination: EntityKey,
        /// What sort of row.
        kind: u8,
        /// The key in the kind.
        key: Tail<'a>,
    }
}

key_test!(DestinationKey:
    DestinationKey { destination: entity(1, 1), kind: 0, key: b""[..].into() },
    DestinationKey { destination: entity(1, 1), kind: 1, key: b"!a:b"[..].into() },
    DestinationKey { destination: entity(1, 1), kind: 2, key: b"\x00"[..].into() },
    DestinationKey { destination: entity(1, 2), kind: 0, key: b""[..].into() },);
