//! One-time keys by their id: an id is not given to two keys at a time, and no key is handed out twice.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · device id, 0 · key id",
    value: "tag 1 · JSON (the key as uploaded; of one that was handed out: which one it was, and the key)",
    writer: "the user, beside `one_time_key`",
    growth: "as `one_time_key`, and the last 200 a device that were handed out",
    profile: Profile::Point,
};

key! {
    /// `user entity · device id, 0 · key id`
    pub struct OneTimeKeyIdKey<'a> {
        /// The user.
        user: EntityKey,
        /// The device id.
        device: Text<'a>,
        /// Algorithm, colon, name.
        key_id: Rest<'a>,
    }
}

key_test!(OneTimeKeyIdKey: OneTimeKeyIdKey { user: entity(1, 1), device: "A".into(), key_id: "x:1".into() }, OneTimeKeyIdKey { user: entity(1, 1), device: "A".into(), key_id: "x:2".into() });
