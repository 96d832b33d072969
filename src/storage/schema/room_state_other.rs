//! The room's current state as in `room_state`, of rooms whose head says that it stands here: a state that is exchanged
//! as a whole is laid out in the family that nobody reads, and becomes the one that is read with a small batch.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · type text · state key",
    value: "as in room_state",
    writer: "the room, while its state is exchanged and after it",
    growth: "a row for each state key; removed when the state is exchanged again, and by purge",
    profile: Profile::Scan,
};

key! {
    /// `room entity · type text · state key`
    pub struct RoomStateOtherKey<'a> {
        /// The room.
        room: EntityKey,
        /// The event type.
        kind: Text<'a>,
        /// The state key.
        state_key: Rest<'a>,
    }
}

key_test!(RoomStateOtherKey:
    RoomStateOtherKey { room: entity(1, 1), kind: "m.room.member".into(), state_key: "@a:x".into() },
    RoomStateOtherKey { room: entity(1, 1), kind: "m.room.name".into(), state_key: "".into() },);
