//! Events that other servers sent for a room, until the room has received them.

use crate::family::Profile;
use crate::schema::FamilyDoc;
use crate::{EntityKey, Position};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · position u64 · index u16",
    value: "tag 2 · received ms u64 · origin length varint · origin · PDU as it came",
    writer: "the room, by federation, before the transaction is answered; removed when the room has judged it",
    growth: "a row an event that waits; nearly empty, and bounded for each room and origin; what is held back has the top bit of its position set",
    profile: Profile::Queue,
};

key! {
    /// `room entity · position u64 · index u16`
    pub struct RoomInboundKey {
        /// The room.
        room: EntityKey,
        /// The batch in which it came.
        position: Position,
        /// Its number in the batch.
        index: u16,
    }
}

key_test!(RoomInboundKey:
    RoomInboundKey { room: entity(1, 1), position: 1, index: 7 },
    RoomInboundKey { room: entity(1, 1), position: 2, index: 0 },);
