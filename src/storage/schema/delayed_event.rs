//! Events that users have asked to be sent later.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · delay id",
    value: "tag 1 · JSON (room, type, content, when, and what became of it)",
    writer: "the user, by scheduling and managing; the timer of delayed events",
    growth: "up to `experimental.delayed_events_per_user` rows that wait; those that are done stay for 7 days, at most 200 a user",
    profile: Profile::Queue,
};

key! {
    /// `user entity · delay id`
    pub struct DelayedEventKey<'a> {
        /// The user.
        user: EntityKey,
        /// The delayed event's id.
        id: Rest<'a>,
    }
}

key_test!(DelayedEventKey: DelayedEventKey { user: entity(1, 1), id: "A".into() }, DelayedEventKey { user: entity(1, 2), id: "".into() });
