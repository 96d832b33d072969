//! The order of a room's events as clients page through them.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::FamilyDoc;

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · anchor u64 · offset i32 (order-preserving)",
    value: "tag · short id u32 · position u64 · notifying events so far u32 · highlighting events so far u32",
    writer: "the room, in the batch of the event",
    growth: "a row a visible event; removed by purge and retention",
    profile: Profile::Scan,
};

key! {
    /// `room entity · anchor u64 · offset i32`
    ///
    /// New events are (n, 0); events filled in before event n are (n, -1), (n, -2), …
    pub struct RoomTimelineKey {
        /// The room.
        room: EntityKey,
        /// The dense number of the event, or of the event before which it was filled in.
        anchor: u64,
        /// 0, or how far before the anchor.
        offset: i32,
    }
}

key_test!(RoomTimelineKey:
    RoomTimelineKey { room: entity(1, 1), anchor: 1, offset: 0 },
    RoomTimelineKey { room: entity(1, 1), anchor: 2, offset: -2 },
    RoomTimelineKey { room: entity(1, 1), anchor: 2, offset: -1 },
    RoomTimelineKey { room: entity(1, 1), anchor: 2, offset: 0 },
    RoomTimelineKey { room: entity(1, 1), anchor: 3, offset: 0 },);
