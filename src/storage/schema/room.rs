//! The parts of a room's record, each under a number that `rooms` gives it.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::FamilyDoc;

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · field u8",
    value: "by field: tag, then content",
    writer: "the room",
    growth: "a few rows a room; removed by a purge",
    profile: Profile::Point,
};

key! {
    /// `room entity · field u8`
    pub struct RoomKey {
        /// The room.
        room: EntityKey,
        /// Which part of the record.
        field: u8,
    }
}

key_test!(RoomKey: RoomKey { room: entity(1, 1), field: 0 }, RoomKey { room: entity(1, 1), field: 2 }, RoomKey { room: entity(1, 2), field: 1 });
