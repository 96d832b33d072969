//! What is known of the users of one remote server: device lists and keys, and which messages to devices came.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Tail};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "server entity · kind u8 · by kind: 1 user id (the list); 2 user id, 0, device id; 3 position u64 (a message id that came); 4 hash [16] of a message id",
    value: "tag · by kind: JSON of the list's state and the cross-signing keys; JSON of a device; hash [16]; position u64",
    writer: "the server's entity, by federation",
    growth: "the devices of users who share a room and were asked for, until they do not any more; of message ids the newest few thousand of each server",
    profile: Profile::Point,
};

key! {
    /// `server entity · kind u8 · key of that kind`
    pub struct RemoteUserKey<'a> {
        /// The server.
        server: EntityKey,
        /// What sort of row.
        kind: u8,
        /// The key in the kind.
        key: Tail<'a>,
    }
}

key_test!(RemoteUserKey:
    RemoteUserKey { server: entity(1, 1), kind: 1, key: b"@a:b"[..].into() },
    RemoteUserKey { server: entity(1, 1), kind: 2, key: b"@a:b\0D"[..].into() },
    RemoteUserKey { server: entity(1, 2), kind: 1, key: b""[..].into() },);
