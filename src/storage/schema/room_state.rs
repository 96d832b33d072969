//! The room's current state, flat and in order of (type, state key).

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · type text · state key",
    value: "tag · event short id u32 · membership u8 (0 none, 1 join, 2 invite, 3 leave, 4 ban, 5 knock)",
    writer: "the room, in the batch of the state event",
    growth: "a row for each state key; removed by purge",
    profile: Profile::Scan,
};

key! {
    /// `room entity · type text · state key`
    pub struct RoomStateKey<'a> {
        /// The room.
        room: EntityKey,
        /// The event type.
        kind: Text<'a>,
        /// The state key.
        state_key: Rest<'a>,
    }
}

key_test!(RoomStateKey:
    RoomStateKey { room: entity(1, 1), kind: "m.room.member".into(), state_key: "@a:x".into() },
    RoomStateKey { room: entity(1, 1), kind: "m.room.member".into(), state_key: "@b:x".into() },
    RoomStateKey { room: entity(1, 1), kind: "m.room.name".into(), state_key: "".into() },);
