//! From an event id to the event's short id in the room.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Tail};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · event id bytes",
    value: "tag · short id u32",
    writer: "the room, in the batch of the event or of the first reference to it",
    growth: "a row an event; removed by purge",
    profile: Profile::Point,
};

key! {
    /// `room entity · event id`
    pub struct RoomEventIdKey<'a> {
        /// The room.
        room: EntityKey,
        /// The event id; `rooms` may store the 32 bytes of a hash instead of its text.
        event_id: Tail<'a>,
    }
}

key_test!(RoomEventIdKey: RoomEventIdKey { room: entity(1, 1), event_id: b"$a"[..].into() }, RoomEventIdKey { room: entity(1, 1), event_id: b"$b\xff"[..].into() });
