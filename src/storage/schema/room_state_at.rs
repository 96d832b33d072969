//! The root of the room's current state from a position on.

use crate::family::Profile;
use crate::schema::FamilyDoc;
use crate::{EntityKey, Position};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · position u64",
    value: "tag · root hash [16] · n u64",
    writer: "the room, whenever its current state changes",
    growth: "a row a state change; removed by purge",
    profile: Profile::Scan,
};

key! {
    /// `room entity · position u64`
    pub struct RoomStateAtKey {
        /// The room.
        room: EntityKey,
        /// The position from which the root is current.
        position: Position,
    }
}

key_test!(RoomStateAtKey: RoomStateAtKey { room: entity(1, 1), position: 1 }, RoomStateAtKey { room: entity(1, 1), position: 256 });
