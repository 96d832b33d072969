//! Events, stored once: a metadata header and the canonical JSON bytes.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::FamilyDoc;

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · short id u32",
    value: "tag · header · JSON bytes",
    writer: "the room, in the batch of the event",
    growth: "a row an event, the bulk of the disk; removed by purge and retention",
    profile: Profile::Events,
};

key! {
    /// `room entity · short id u32`
    pub struct RoomEventKey {
        /// The room.
        room: EntityKey,
        /// The event's short id in its room.
        short: u32,
    }
}

key_test!(RoomEventKey: RoomEventKey { room: entity(1, 1), short: 1 }, RoomEventKey { room: entity(1, 1), short: 256 }, RoomEventKey { room: entity(2, 0), short: 0 });
