//! Room aliases.

use crate::Slot;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "slot u16 · alias",
    value: "tag 1 · JSON",
    writer: "the alias",
    growth: "a row an alias; removed with it",
    profile: Profile::Point,
};

key! {
    /// `slot u16 · alias`
    pub struct AliasKey<'a> {
        /// The slot of the alias.
        slot: Slot,
        /// The alias, with its `#`.
        alias: Rest<'a>,
    }
}

key_test!(AliasKey: AliasKey { slot: slot(1), alias: "#b:x".into() }, AliasKey { slot: slot(2), alias: "#a:x".into() });
