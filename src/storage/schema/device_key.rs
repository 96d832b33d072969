//! What devices published about themselves: identity keys, and the counts of what they left here.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · kind u8 (1 identity keys, 2 counts of one-time keys and fallback keys, 3 messages waiting) · device id",
    value: "tag 1 · JSON",
    writer: "the user",
    growth: "up to three rows a device; removed with the device",
    profile: Profile::Point,
};

key! {
    /// `user entity · kind u8 (1 identity keys, 2 counts of one-time keys and fallback keys, 3 messages waiting) · device id`
    pub struct DeviceKeyKey<'a> {
        /// The user.
        user: EntityKey,
        /// Which part.
        kind: u8,
        /// The device id.
        device: Rest<'a>,
    }
}

key_test!(DeviceKeyKey: DeviceKeyKey { user: entity(1, 1), kind: 1, device: "B".into() }, DeviceKeyKey { user: entity(1, 1), kind: 2, device: "A".into() });
