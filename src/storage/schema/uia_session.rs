//! Sessions of user-interactive authentication, found by the hash of their id and sealed with a key made from it: they
//! hold passwords that a client has sent and that are not hashed yet.

use crate::Slot;
use crate::family::Profile;
use crate::schema::FamilyDoc;

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "slot u16 · hash [32]",
    value: "tag · end u64 · nonce [12] · sealed JSON",
    writer: "the session",
    growth: "a row a session that was answered and not finished; removed when it is, or half an hour later",
    profile: Profile::Point,
};

key! {
    /// `slot u16 · hash [32]`
    pub struct UiaSessionKey {
        /// The slot of the hash.
        slot: Slot,
        /// The hash of the session's id.
        hash: [u8; 32],
    }
}

key_test!(UiaSessionKey: UiaSessionKey { slot: slot(1), hash: [1; 32] }, UiaSessionKey { slot: slot(2), hash: [0; 32] });
