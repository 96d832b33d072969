//! The parts of a room's record, each under a number that `rooms` gives it.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::FamilyDoc;

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · field u8: 0 record, 1 head, 2 position of the last receipt or device \
          change, 3 listed in the directory, 4 partial state, 5 since when the state is whole, 6 \
          keys that the state lacks",
    value: "tag · by field: 0, 4, 6 JSON; 1 the head, coded by hand; 2, 5 position u64; 3 nothing",
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
