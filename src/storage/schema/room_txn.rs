//! Client transaction ids, so that a repeated request gets the first answer.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::FamilyDoc;

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · hash [16] of user, device, path and transaction id",
    value: "tag 2 · short id u32 · when it was made, in minutes since 1970, u32; in earlier versions tag 1 · short id u32",
    writer: "the room, in the batch of the event",
    growth: "a row a client send; removed after 30 days",
    profile: Profile::Point,
};

key! {
    /// `room entity · hash [16]`
    pub struct RoomTxnKey {
        /// The room.
        room: EntityKey,
        /// Hash of user, device, endpoint, event type and transaction id.
        hash: [u8; 16],
    }
}

key_test!(RoomTxnKey: RoomTxnKey { room: entity(1, 1), hash: [1; 16] }, RoomTxnKey { room: entity(1, 2), hash: [0; 16] });
