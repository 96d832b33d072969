//! What clients that sync by sliding windows have been sent, connection by connection.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "user entity · device id text · connection id text · part u8 (0 the connection, 1 to 64 rooms by slot, 65 those of the last answer, 254 when it was stored)",
    value: "tag · the connection, JSON; or tag · number of the connection varint · rooms, each with what was sent of it; or tag · the time, u64 ms",
    writer: "the user",
    growth: "at most 67 rows a connection and 16 connections a device; overwritten in place, removed with the device",
    profile: Profile::Scan,
};

key! {
    /// `user entity · device text · connection text · part u8`
    pub struct SyncConnectionKey<'a> {
        /// The user.
        user: EntityKey,
        /// The device; empty where none asks.
        device: Text<'a>,
        /// The connection's id; it may be empty.
        connection: Text<'a>,
        /// Which part.
        part: u8,
    }
}

key_test!(SyncConnectionKey: SyncConnectionKey { user: entity(1, 1), device: "A".into(), connection: "".into(), part: 0 }, SyncConnectionKey { user: entity(1, 1), device: "A".into(), connection: "".into(), part: 9 }, SyncConnectionKey { user: entity(1, 1), device: "A".into(), connection: "main".into(), part: 0 }, SyncConnectionKey { user: entity(1, 1), device: "B".into(), connection: "".into(), part: 0 });
