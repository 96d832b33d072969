//! Small ordered indexes of a room, told apart by a kind byte that `rooms` gives.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Tail};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · kind u8 · by kind",
    value: "by kind",
    writer: "the room, in the batch of the event",
    growth: "by kind: members, servers, relations, threads, pending redactions; removed by purge",
    profile: Profile::Scan,
};

key! {
    /// `room entity · kind u8 · key of that kind`
    pub struct RoomIndexKey<'a> {
        /// The room.
        room: EntityKey,
        /// Which index.
        kind: u8,
        /// The key in the index.
        key: Tail<'a>,
    }
}

key_test!(RoomIndexKey:
    RoomIndexKey { room: entity(1, 1), kind: b'm', key: b"z"[..].into() },
    RoomIndexKey { room: entity(1, 1), kind: b'r', key: b""[..].into() },
    RoomIndexKey { room: entity(1, 1), kind: b'r', key: b"\x00"[..].into() },);
