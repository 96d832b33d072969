//! Nodes of the persistent state maps. A node is named by the hash of its subtree.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::FamilyDoc;

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · hash [16]",
    value: "tag · node",
    writer: "the room, in the batch of the state event",
    growth: "O(log n) nodes a state change; swept from live roots by purge",
    profile: Profile::Point,
};

key! {
    /// `room entity · hash [16]`
    pub struct RoomStateNodeKey {
        /// The room.
        room: EntityKey,
        /// The hash of the subtree's content.
        hash: [u8; 16],
    }
}

key_test!(RoomStateNodeKey: RoomStateNodeKey { room: entity(1, 1), hash: [0; 16] }, RoomStateNodeKey { room: entity(1, 1), hash: [9; 16] });
