//! Access and refresh tokens, stored hashed. A token names its user's slot in clear.

use crate::Slot;
use crate::family::Profile;
use crate::schema::FamilyDoc;

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "slot u16 · hash [32]",
    value: "tag · user number, device id, kind, expiry",
    writer: "the user",
    growth: "a row a valid token; removed by logout and refresh",
    profile: Profile::Point,
};

key! {
    /// `slot u16 · hash [32]`
    pub struct UserTokenKey {
        /// The slot of the token's user.
        slot: Slot,
        /// The hash of the token's secret.
        hash: [u8; 32],
    }
}

key_test!(UserTokenKey: UserTokenKey { slot: slot(1), hash: [1; 32] }, UserTokenKey { slot: slot(2), hash: [0; 32] });
