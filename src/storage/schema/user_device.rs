//! A user's devices.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · device id",
    value: "tag 1 · JSON",
    writer: "the user",
    growth: "a row a device; removed by logout",
    profile: Profile::Point,
};

key! {
    /// `user entity · device id`
    pub struct UserDeviceKey<'a> {
        /// The user.
        user: EntityKey,
        /// The device id.
        device: Rest<'a>,
    }
}

key_test!(UserDeviceKey: UserDeviceKey { user: entity(1, 1), device: "A".into() }, UserDeviceKey { user: entity(1, 1), device: "B".into() });
