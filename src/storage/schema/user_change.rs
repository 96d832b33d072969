//! What changed for a user, by position, so that an increment reads only that.

use crate::family::Profile;
use crate::schema::FamilyDoc;
use crate::{EntityKey, Position};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · position u64 · index u16",
    value: "tag · kind u8 · reference",
    writer: "the user, in the batch of the change",
    growth: "a row for each thing of a user that ever changed, at its last change",
    profile: Profile::Queue,
};

key! {
    /// `user entity · position u64 · index u16`
    pub struct UserChangeKey {
        /// The user.
        user: EntityKey,
        /// The batch in which it changed.
        position: Position,
        /// Its number in the batch.
        index: u16,
    }
}

key_test!(UserChangeKey: UserChangeKey { user: entity(1, 1), position: 1, index: 7 }, UserChangeKey { user: entity(1, 1), position: 2, index: 0 });
