//! State keys (type and state key) and their short ids in the room.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · type text · state key",
    value: "tag · short id u32",
    writer: "the room, with the first event of that state key",
    growth: "a row for each state key ever used in the room; removed by purge",
    profile: Profile::Point,
};

key! {
    /// `room entity · type text · state key`
    pub struct RoomStateKeyKey<'a> {
        /// The room.
        room: EntityKey,
        /// The event type.
        kind: Text<'a>,
        /// The state key.
        state_key: Rest<'a>,
    }
}

key_test!(RoomStateKeyKey:
    RoomStateKeyKey { room: entity(1, 1), kind: "m.a".into(), state_key: "z".into() },
    RoomStateKeyKey { room: entity(1, 1), kind: "m.aa".into(), state_key: "".into() },);
