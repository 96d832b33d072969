//! What other servers published about their signing keys.

use crate::Slot;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Rest};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "slot u16 · server name",
    value: "tag 1 · JSON: the server's key documents that are of use, newest first, with the time at which each was fetched",
    writer: "whoever checks a signature of that server, through `ServerKeys`",
    growth: "a row a remote server whose keys were needed, of at most five documents; never removed, because old events are checked with them",
    profile: Profile::Point,
};

key! {
    /// `slot u16 · server name`
    pub struct ServerKeyKey<'a> {
        /// The slot of the server's name.
        slot: Slot,
        /// The server's name.
        server: Rest<'a>,
    }
}

key_test!(ServerKeyKey: ServerKeyKey { slot: slot(1), server: "b.example".into() }, ServerKeyKey { slot: slot(2), server: "a.example:1".into() });
