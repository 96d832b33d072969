//! Read receipts of a room, and the order in which they came.

use crate::family::Profile;
use crate::key::{KeyReader, KeyWriter};
use crate::schema::{FamilyDoc, Rest, Text};
use crate::{EntityKey, Position};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "room entity · 'r' · user text · type text · thread; room entity · 'p' · position u64 · index u16",
    value: "'r': tag · record; 'p': tag · the key of the receipt that came at that position",
    writer: "the room",
    growth: "two rows for each user, type and thread of the room; overwritten",
    profile: Profile::Scan,
};

/// `room entity · 'r' · user text · type text · thread` or `room entity · 'p' · position u64 · index u16`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomReceiptKey<'a> {
    /// What came in the batch at a position.
    Position(EntityKey, Position, u16),
    /// The newest receipt of a user.
    Receipt {
        /// The room.
        room: EntityKey,
        /// The user id.
        user: Text<'a>,
        /// The receipt type.
        kind: Text<'a>,
        /// The thread's root, `main`, or nothing for an unthreaded receipt.
        thread: Rest<'a>,
    },
}

impl<'a> RoomReceiptKey<'a> {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            RoomReceiptKey::Position(room, position, index) => KeyWriter::of(*room, 11)
                .u8(b'p')
                .u64(*position)
                .u16(*index)
                .done(),
            RoomReceiptKey::Receipt {
                room,
                user,
                kind,
                thread,
            } => KeyWriter::of(*room, 64)
                .u8(b'r')
                .text(&user.0)
                .text(&kind.0)
                .rest(&thread.0)
                .done(),
        }
    }

    /// Reads the stored bytes.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut key = KeyReader::new(bytes);
        let room = key.entity()?;
        match key.u8()? {
            b'p' => {
                let (position, index) = (key.u64()?, key.u16()?);
                key.end()?;
                Some(RoomReceiptKey::Position(room, position, index))
            }
            b'r' => Some(RoomReceiptKey::Receipt {
                room,
                user: Text(key.text()?),
                kind: Text(key.text()?),
                thread: Rest(key.rest()?.into()),
            }),
            _ => None,
        }
    }
}

key_test!(RoomReceiptKey:
    RoomReceiptKey::Position(entity(1, 1), 1, 0),
    RoomReceiptKey::Position(entity(1, 1), 256, 0),
    RoomReceiptKey::Receipt { room: entity(1, 1), user: "@a:x".into(), kind: "m.read".into(), thread: "".into() },
    RoomReceiptKey::Receipt { room: entity(1, 1), user: "@a:x".into(), kind: "m.read".into(), thread: "main".into() },);
