//! Media records; the bytes are files beside the store.

use crate::Slot;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "slot u16 · server name, `/`, media id; or `+`, hash, `/`, item (what uses a file); or `?`, user, `/`, media id (announced, not uploaded)",
    value: "tag 1 · JSON",
    writer: "the media item; the file; the user's announced items",
    growth: "a row an item and a row a use of a file, removed with it; at most 100 announced a user",
    profile: Profile::Point,
};

key! {
    /// `slot u16 · name`
    pub struct MediaKey<'a> {
        /// The slot of the name.
        slot: Slot,
        /// `server/media id`, `+hash/item` or `?user/media id`.
        name: Rest<'a>,
    }
}

key_test!(MediaKey: MediaKey { slot: slot(1), name: "x/b".into() }, MediaKey { slot: slot(2), name: "x/a".into() });
