//! Small ordered indexes of a room, told apart by a kind byte that `rooms` gives.

use crate::EntityKey;
use crate::family::Profile;
use crate::schema::{FamilyDoc, Tail};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · kind u8 · by kind, where a place is anchor u64 · offset i32 (in \
          order): r parent short u32 · place · child short u32 (relation); n parent short u32 \
          · hash [16] (annotation); t root u32 (thread); o place · root u32 (threads by their \
          newest reply); u root u32 · user (who takes part); s server; l user (local members); a \
          alias; w event id bytes · short u32 (what waits for an event); c cited short u32 · \
          citing short u32 (auth events); g place (a gap before it); c root u32 · place, C place · \
          root u32, N user · 0 · place, O user · 0 · root u32, U place (unread counts); d user, p \
          position u64 (device changes)",
    value: "tag · by kind: r relation type · 0 · event type; t count varint · newest short varint · \
          place; n short u32; s count u32; g JSON of the missing ids; c of a thread its totals; N \
          short u32 · root u32; O place; U class u8 · root u32; d position u64; p user; the others \
          nothing",
    writer: "the room, in the batch of the event",
    growth: "by kind: members, servers, relations, threads, pending redactions; removed by purge",
    profile: Profile::Scan,
};

key! {
    /// `room entity · kind u8 · key of that kind`
    pub struct RoomIndexKey<'a> {
        /// The room.
        room: EntityKey,
        /// Which index.
        kind: u8,
        /// The key in the index.
        key: Tail<'a>,
    }
}

key_test!(RoomIndexKey:
    RoomIndexKey { room: entity(1, 1), kind: b'm', key: b"z"[..].into() },
    RoomIndexKey { room: entity(1, 1), kind: b'r', key: b""[..].into() },
    RoomIndexKey { room: entity(1, 1), kind: b'r', key: b"\x00"[..].into() },);
