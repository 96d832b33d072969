//! A user's rooms.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · room id",
    value: "tag · membership record",
    writer: "the user, by delivery from the room",
    growth: "a row for each room the user was ever in; removed by forget",
    profile: Profile::Scan,
};

key! {
    /// `user entity · room id`
    pub struct UserRoomKey<'a> {
        /// The user.
        user: EntityKey,
        /// The room id.
        room: Rest<'a>,
    }
}

key_test!(UserRoomKey: UserRoomKey { user: entity(1, 1), room: "!a:x".into() }, UserRoomKey { user: entity(1, 1), room: "!b".into() });
