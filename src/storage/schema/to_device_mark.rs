//! What was sent to devices and received from where: so that nothing counts twice.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Tail};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · kind u8 (1 sent by device, then device id, 0, transaction hash; 2 received, then source shard u16; 3 pruned, then device id) · mark",
    value: "tag · time of sending or pruning u64, or position u64 and index u16 of the last row received",
    writer: "the user",
    growth: "a row a transaction of the last day or so, removed with the device; a row a device; a row a shard that sent",
    profile: Profile::Point,
};

key! {
    /// `user entity · kind u8 (1 sent by device, then device id, 0, transaction hash; 2 received, then source shard u16; 3 pruned, then device id) · mark`
    pub struct ToDeviceMarkKey<'a> {
        /// The user.
        user: EntityKey,
        /// Which kind of mark.
        kind: u8,
        /// What it is of.
        mark: Tail<'a>,
    }
}

key_test!(ToDeviceMarkKey: ToDeviceMarkKey { user: entity(1, 1), kind: 1, mark: b"A\0x".as_slice().into() }, ToDeviceMarkKey { user: entity(1, 1), kind: 2, mark: [0, 1].as_slice().into() });
