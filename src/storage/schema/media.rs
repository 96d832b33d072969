//! Media records; the bytes are files beside the store.

use crate::Slot;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "slot u16 · server name, `/`, media id",
    value: "tag 1 · JSON",
    writer: "the media item",
    growth: "a row an item; removed with it",
    profile: Profile::Point,
};

key! {
    /// `slot u16 · server/media id`
    pub struct MediaKey<'a> {
        /// The slot of the name.
        slot: Slot,
        /// `server/media id`.
        name: Rest<'a>,
    }
}

key_test!(MediaKey: MediaKey { slot: slot(1), name: "x/b".into() }, MediaKey { slot: slot(2), name: "x/a".into() });
