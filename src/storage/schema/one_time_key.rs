//! One-time keys in the order in which they are handed out.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · device id, 0 · algorithm, 0 · order u64",
    value: "tag 1 · JSON (key id, key); with an empty algorithm the ids of keys that were handed out, in that order",
    writer: "the user, by upload; removed by the claim",
    growth: "a row a key that is not claimed; at most a few hundred a device, and the last 200 that were",
    profile: Profile::Queue,
};

key! {
    /// `user entity · device id, 0 · algorithm, 0 · order u64`
    pub struct OneTimeKeyKey<'a> {
        /// The user.
        user: EntityKey,
        /// The device id.
        device: Text<'a>,
        /// The key's algorithm.
        algorithm: Text<'a>,
        /// Its number in the order of upload.
        order: u64,
    }
}

key_test!(OneTimeKeyKey: OneTimeKeyKey { user: entity(1, 1), device: "A".into(), algorithm: "x".into(), order: 2 }, OneTimeKeyKey { user: entity(1, 1), device: "A".into(), algorithm: "y".into(), order: 1 });
