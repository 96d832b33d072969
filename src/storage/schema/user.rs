//! The parts of a user's record, each under a number that `users` gives it.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · field u8 · by field",
    value: "by field: tag, then content",
    writer: "the user",
    growth: "a few rows a user; kept when the account is deactivated, so that the name is not given again",
    profile: Profile::Point,
};

key! {
    /// `user entity · field u8 · key of that field`
    pub struct UserKey<'a> {
        /// The user.
        user: EntityKey,
        /// Which part of the record.
        field: u8,
        /// A key within the part: a profile field's name, a filter's number, or nothing.
        key: Rest<'a>,
    }
}

key_test!(UserKey: UserKey { user: entity(1, 1), field: 1, key: "".into() }, UserKey { user: entity(1, 1), field: 2, key: "a".into() }, UserKey { user: entity(1, 1), field: 2, key: "b".into() });
