//! Registration tokens.

use crate::Slot;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "slot u16 · token",
    value: "tag 1 · JSON",
    writer: "the registration token",
    growth: "a row a token; removed by an admin",
    profile: Profile::Point,
};

key! {
    /// `slot u16 · token`
    pub struct TokenMiscKey<'a> {
        /// The slot of the token.
        slot: Slot,
        /// The token.
        token: Rest<'a>,
    }
}

key_test!(TokenMiscKey: TokenMiscKey { slot: slot(1), token: "b".into() }, TokenMiscKey { slot: slot(2), token: "a".into() });
