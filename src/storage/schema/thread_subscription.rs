//! Which threads a user has subscribed to.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · room id, 0 · thread root",
    value: "tag 1 · JSON (subscribed or not, automatic, position of the change, up to where the room was seen when it ended)",
    writer: "the user",
    growth: "a row a thread that the user ever subscribed to, at most 10,000",
    profile: Profile::Scan,
};

key! {
    /// `user entity · room id, 0 · thread root`
    pub struct ThreadSubscriptionKey<'a> {
        /// The user.
        user: EntityKey,
        /// The room.
        room: Text<'a>,
        /// The event at which the thread begins.
        root: Rest<'a>,
    }
}

key_test!(ThreadSubscriptionKey:
    ThreadSubscriptionKey { user: entity(1, 1), room: "!a".into(), root: "$b".into() },
    ThreadSubscriptionKey { user: entity(1, 1), room: "!a:x".into(), root: "$a".into() },);
