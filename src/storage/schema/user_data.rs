//! Account data, global and of rooms.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · room id or nothing, text · type",
    value: "tag · position u64 · JSON",
    writer: "the user",
    growth: "a row for each type and room; overwritten in place",
    profile: Profile::Scan,
};

key! {
    /// `user entity · room text · type`
    pub struct UserDataKey<'a> {
        /// The user.
        user: EntityKey,
        /// The room id, or nothing for global account data.
        room: Text<'a>,
        /// The type.
        kind: Rest<'a>,
    }
}

key_test!(UserDataKey: UserDataKey { user: entity(1, 1), room: "".into(), kind: "m.z".into() }, UserDataKey { user: entity(1, 1), room: "!r:x".into(), kind: "m.a".into() });
