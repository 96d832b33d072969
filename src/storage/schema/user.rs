//! The parts of a user's record, each under a number that `users` gives it.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · field u8 · by field: 1 account, 2 profile, 3 filter (its id), 4 login \
          tokens, 5 last change of a thing (the change), 6 presence, 7 device list, 8 dehydrated \
          device, 9 long token (its name), 10 OpenID tokens, 20 cross-signing keys, 21 signatures \
          (owner · 0 · key), 22 key backups, 23 key backup (20 digits), 30 pusher (app id · 0 · \
          pushkey)",
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
