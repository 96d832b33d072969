//! Messages to devices that were not fetched yet.

use crate::family::Profile;
use crate::schema::{FamilyDoc, Text};
use crate::{EntityKey, Position};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · device id, 0 · position u64 · index u16",
    value: "tag · time u64 ms · event JSON",
    writer: "the user, by delivery from the sender",
    growth: "a row a message; removed when a sync brings back the token that carried it; capped for each device in number and time",
    profile: Profile::Queue,
};

key! {
    /// `user entity · device id, 0 · position u64 · index u16`
    pub struct ToDeviceKey<'a> {
        /// The user.
        user: EntityKey,
        /// The device id.
        device: Text<'a>,
        /// The batch that brought it.
        position: Position,
        /// Its number in the batch.
        index: u16,
    }
}

key_test!(ToDeviceKey: ToDeviceKey { user: entity(1, 1), device: "A".into(), position: 1, index: 7 }, ToDeviceKey { user: entity(1, 1), device: "A".into(), position: 2, index: 0 });
