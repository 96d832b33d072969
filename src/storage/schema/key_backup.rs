//! Room keys that a user's clients have backed up, encrypted by them.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · set u64 · room id text · session id",
    value: "tag · flags u8 (1 = verified) · first message index varint · forwarded count varint · session data, JSON",
    writer: "the user",
    growth: "a row for each megolm session of a backup; a backup's set goes by one range deletion with it",
    profile: Profile::Scan,
};

key! {
    /// `user entity · set u64 · room text · session`
    pub struct KeyBackupKey<'a> {
        /// The user.
        user: EntityKey,
        /// The set of keys: the backup version's record names it. A number is never used again.
        set: u64,
        /// The room id.
        room: Text<'a>,
        /// The session id.
        session: Rest<'a>,
    }
}

key_test!(KeyBackupKey: KeyBackupKey { user: entity(1, 1), set: 1, room: "!a:x".into(), session: "b".into() }, KeyBackupKey { user: entity(1, 1), set: 1, room: "!b:x".into(), session: "a".into() }, KeyBackupKey { user: entity(1, 1), set: 2, room: "!a:x".into(), session: "".into() });
