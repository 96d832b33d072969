//! The keys and small values of this crate's column families, by the key structs of the schema.

use hearth_storage::{EntityKey, Position, prefix_end};
use ruma::EventId;

use crate::{
    Error,
    codec::{Cursor, put_varint},
    event::{Place, Short, encode_event_id},
    head::{Membership, StateEntry, Totals},
    state_tree::NodeId,
};

/// What the parts of a room's own record are called (family `room`).
pub(crate) const ROOM_RECORD: u8 = 0;
pub(crate) const ROOM_HEAD: u8 = 1;
pub(crate) const ROOM_RECEIPTS: u8 = 2;
pub(crate) const ROOM_LISTED: u8 = 3;
pub(crate) const ROOM_PARTIAL: u8 = 4;
pub(crate) const ROOM_WHOLE: u8 = 5;
pub(crate) const ROOM_LACKING: u8 = 6;

/// Kinds of rows in family `room_index`.
pub(crate) const INDEX_RELATION: u8 = b'r';
pub(crate) const INDEX_THREAD: u8 = b't';
pub(crate) const INDEX_THREAD_ORDER: u8 = b'o';
pub(crate) const INDEX_THREAD_USER: u8 = b'u';
pub(crate) const INDEX_SERVER: u8 = b's';
pub(crate) const INDEX_LOCAL_MEMBER: u8 = b'l';
pub(crate) const INDEX_ALIAS: u8 = b'a';
/// Which events wait for one that is not here: redactions of it, relations to it, and what follows it.
pub(crate) const INDEX_WAITING: u8 = b'w';
/// Which state events name one as their auth event. Shares its code with [`INDEX_THREAD_COUNT`], see [`cited`].
pub(crate) const INDEX_CITED: u8 = b'c';
/// Which events are missing right before a place of the timeline.
pub(crate) const INDEX_GAP: u8 = b'g';
pub(crate) const INDEX_ANNOTATION: u8 = b'n';
/// What counts for unread counts: running totals of threads, threads by their last counted event, users named by an
/// event, the last own event of a user in a thread, counted events that were redacted.
pub(crate) const INDEX_THREAD_COUNT: u8 = b'c';
pub(crate) const INDEX_THREAD_COUNTED: u8 = b'C';
pub(crate) const INDEX_NAMED: u8 = b'N';
pub(crate) const INDEX_OWN: u8 = b'O';
pub(crate) const INDEX_UNCOUNTED: u8 = b'U';
/// Where the last change of a member's devices stands, and the changes by position.
pub(crate) const INDEX_DEVICES: u8 = b'd';
pub(crate) const INDEX_DEVICES_BY_POSITION: u8 = b'p';

fn with(key: EntityKey, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(6 + parts.iter().map(|part| part.len()).sum::<usize>());
    out.extend_from_slice(&key.to_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

pub(crate) fn entity_range(key: EntityKey) -> (Vec<u8>, Vec<u8>) {
    range(key.to_bytes().to_vec())
}

pub(crate) fn range(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let end = prefix_end(&prefix);
    (prefix, end)
}

pub(crate) fn room(key: EntityKey, field: u8) -> Vec<u8> {
    with(key, &[&[field]])
}

pub(crate) fn event(key: EntityKey, short: Short) -> Vec<u8> {
    with(key, &[&short.to_be_bytes()])
}

pub(crate) fn event_id(key: EntityKey, id: &EventId) -> Vec<u8> {
    with(key, &[&encode_event_id(id)])
}

/// The order-preserving form of a place.
pub(crate) fn place_bytes(place: Place) -> [u8; 12] {
    let mut out = [0; 12];
    out[..8].copy_from_slice(&place.anchor.to_be_bytes());
    let offset = (i64::from(place.offset) + 0x8000_0000) as u32;
    out[8..].copy_from_slice(&offset.to_be_bytes());
    out
}

pub(crate) fn read_place(bytes: &[u8]) -> Option<Place> {
    let anchor = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    let offset = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
    Some(Place {
        anchor,
        offset: (i64::from(offset) - 0x8000_0000) as i32,
    })
}

pub(crate) fn timeline(key: EntityKey, place: Place) -> Vec<u8> {
    with(key, &[&place_bytes(place)])
}

/// Short id, position, the totals of the whole room; then as varints those of its threads, and the joined members.
pub(crate) fn timeline_value(short: Short, position: Position, totals: Totals) -> Vec<u8> {
    let mut out = Vec::with_capacity(28);
    out.push(VALUE_V1);
    out.extend_from_slice(&short.to_be_bytes());
    out.extend_from_slice(&position.to_be_bytes());
    out.extend_from_slice(&totals.notify.to_be_bytes());
    out.extend_from_slice(&totals.highlight.to_be_bytes());
    for value in [totals.thread_notify, totals.thread_highlight, totals.joined] {
        put_varint(&mut out, u64::from(value));
    }
    out
}

/// The totals in a timeline row. Rows of older versions say nothing of threads and members.
pub(crate) fn read_totals(bytes: &[u8]) -> Result<Totals, Error> {
    let rest = bytes.get(13..).ok_or(Error::Damaged("timeline row"))?;
    let mut cursor = Cursor::new(rest, "timeline row");
    let mut number = || -> Result<u32, Error> {
        let bytes = cursor.take(4)?;
        read_u32(bytes, "timeline row")
    };
    let (notify, highlight) = (number()?, number()?);
    let mut totals = Totals {
        notify,
        highlight,
        ..Totals::default()
    };
    if cursor.offset() < rest.len() {
        totals.thread_notify = cursor.u32()?;
        totals.thread_highlight = cursor.u32()?;
        totals.joined = cursor.u32()?;
    }
    Ok(totals)
}

pub(crate) fn read_timeline_value(bytes: &[u8]) -> Option<(Short, Position)> {
    let bytes = untagged(bytes)?;
    let short = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let position = u64::from_be_bytes(bytes.get(4..12)?.try_into().ok()?);
    Some((short, position))
}

pub(crate) fn state(key: EntityKey, kind: &str, state_key: &str) -> Vec<u8> {
    with(key, &[&escaped(kind), &[0], state_key.as_bytes()])
}

pub(crate) fn state_type_range(key: EntityKey, kind: &str) -> (Vec<u8>, Vec<u8>) {
    range(with(key, &[&escaped(kind), &[0]]))
}

/// A type with NUL and 0x01 written as two bytes, as everywhere in keys: a type that has a NUL must
/// not read as another type with another state key.
fn escaped(kind: &str) -> std::borrow::Cow<'_, [u8]> {
    if !kind.bytes().any(|byte| byte <= 1) {
        return kind.as_bytes().into();
    }
    let mut out = Vec::with_capacity(kind.len() + 4);
    for byte in kind.bytes() {
        match byte {
            0 | 1 => out.extend_from_slice(&[1, byte + 1]),
            byte => out.push(byte),
        }
    }
    out.into()
}

pub(crate) fn state_value(entry: StateEntry) -> Vec<u8> {
    let mut out = u32_value(entry.short);
    out.push(entry.membership as u8);
    out
}

pub(crate) fn read_state_entry(bytes: &[u8]) -> Result<StateEntry, Error> {
    let short = read_u32_value(bytes, "state entry")?;
    let membership = bytes.get(5).copied().ok_or(Error::Damaged("state entry"))?;
    Ok(StateEntry {
        short,
        membership: Membership::from_byte(membership),
    })
}

pub(crate) fn state_at(key: EntityKey, position: Position) -> Vec<u8> {
    with(key, &[&position.to_be_bytes()])
}

pub(crate) fn root_value(root: NodeId) -> Vec<u8> {
    [&[VALUE_V1], root.0.as_slice()].concat()
}

pub(crate) fn read_root(bytes: &[u8]) -> Result<NodeId, Error> {
    let bytes = untagged(bytes).unwrap_or_default();
    let id = bytes
        .get(..16)
        .and_then(|id| id.try_into().ok())
        .ok_or(Error::Damaged("state root"))?;
    Ok(NodeId(id))
}

pub(crate) fn txn(key: EntityKey, hash: &[u8; 16]) -> Vec<u8> {
    with(key, &[hash])
}

/// The tag of a transaction that says when it was made; those before it do not.
const TXN_V2: u8 = 2;

/// Short id of the transaction's event, and when it was made, in minutes since 1970.
pub(crate) fn txn_value(short: Short, now_ms: u64) -> Vec<u8> {
    let minutes = u32::try_from(now_ms / 60_000).unwrap_or(u32::MAX);
    [[TXN_V2].as_slice(), &short.to_be_bytes(), &minutes.to_be_bytes()].concat()
}

/// The event of a transaction, and when it was made, in milliseconds since 1970, where that is noted.
pub(crate) fn read_txn(bytes: &[u8]) -> Result<(Short, Option<u64>), Error> {
    const WHAT: &str = "transaction";
    match bytes.split_first() {
        Some((&TXN_V2, rest)) => {
            let minutes = read_u32(rest.get(4..).unwrap_or_default(), WHAT)?;
            Ok((read_u32(rest, WHAT)?, Some(u64::from(minutes) * 60_000)))
        }
        _ => Ok((read_u32_value(bytes, WHAT)?, None)),
    }
}

pub(crate) fn index(key: EntityKey, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(7 + parts.iter().map(|part| part.len()).sum::<usize>());
    out.extend_from_slice(&key.to_bytes());
    out.push(kind);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// The row that says that a state event cites another.
///
/// The rows of running totals of threads have the same code and begin with a short id too, because the two were once
/// given the same one. What follows tells them apart: here it is the citing event, which is 1 or more, and there the
/// place of an event, whose upper half of 4 bytes is 0, as a room has fewer than 2^32 events.
pub(crate) fn cited(key: EntityKey, cited: Short, citing: Short) -> Vec<u8> {
    index(key, INDEX_CITED, &[&cited.to_be_bytes(), &citing.to_be_bytes()])
}

/// The range of all rows of [`cited`] for a cited event, and how many bytes stand before the citing one.
pub(crate) fn all_citing(key: EntityKey, of: Short) -> (Vec<u8>, Vec<u8>, usize) {
    let start = cited(key, of, 1);
    let skip = start.len() - 4;
    let end = prefix_end(&start[..skip]);
    (start, end, skip)
}

pub(crate) fn relation(key: EntityKey, parent: Short, place: Place, child: Short) -> Vec<u8> {
    index(
        key,
        INDEX_RELATION,
        &[&parent.to_be_bytes(), &place_bytes(place), &child.to_be_bytes()],
    )
}

pub(crate) fn receipt(key: EntityKey, user: &str, kind: &str, thread: &str) -> Vec<u8> {
    with(
        key,
        &[
            b"r",
            user.as_bytes(),
            &[0],
            kind.as_bytes(),
            &[0],
            thread.as_bytes(),
        ],
    )
}

/// The prefix of all receipts of a user.
pub(crate) fn receipts_of(key: EntityKey, user: &str) -> Vec<u8> {
    with(key, &[b"r", user.as_bytes(), &[0]])
}

pub(crate) fn receipt_prefix(key: EntityKey) -> Vec<u8> {
    with(key, &[b"r"])
}

/// The key of the receipt whose user, kind and thread are `tail`.
pub(crate) fn receipt_of(key: EntityKey, tail: &[u8]) -> Vec<u8> {
    with(key, &[b"r", tail])
}

pub(crate) fn receipt_position(key: EntityKey, position: Position) -> Vec<u8> {
    with(key, &[b"p", &position.to_be_bytes()])
}

/// The tag of the first encoding of this crate's small values.
const VALUE_V1: u8 = 1;

/// A value without its tag, if it has the one known here.
pub(crate) fn untagged(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(&[VALUE_V1])
}

/// A value with its tag.
pub(crate) fn tagged(bytes: &[u8]) -> Vec<u8> {
    [&[VALUE_V1], bytes].concat()
}

pub(crate) fn u32_value(number: u32) -> Vec<u8> {
    tagged(&number.to_be_bytes())
}

pub(crate) fn read_u32_value(bytes: &[u8], what: &'static str) -> Result<u32, Error> {
    read_u32(untagged(bytes).ok_or(Error::Damaged(what))?, what)
}

pub(crate) fn read_u32(bytes: &[u8], what: &'static str) -> Result<u32, Error> {
    let bytes = bytes
        .get(..4)
        .and_then(|four| four.try_into().ok())
        .ok_or(Error::Damaged(what))?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_in_a_type_makes_no_other_key() {
        let key = EntityKey::from_bytes([0, 1, 0, 0, 0, 1]).unwrap();
        assert_ne!(state(key, "a\0b", "c"), state(key, "a", "b\0c"));
        assert_ne!(state(key, "a\u{1}", ""), state(key, "a\0", ""));
    }

    #[test]
    fn transactions_round_trip() {
        let now = 1_700_000_000_000;
        let bytes = txn_value(7, now);
        assert_eq!(read_txn(&bytes).unwrap(), (7, Some(now / 60_000 * 60_000)));
        assert_eq!(
            read_txn(&u32_value(7)).unwrap(),
            (7, None),
            "of an earlier version"
        );
        for cut in 0..bytes.len() {
            assert!(read_txn(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn filled_in_history_sorts_before_its_anchor() {
        let places = [(1, -2), (1, -1), (1, 0), (2, i32::MIN), (2, -1), (2, 0), (3, 0)];
        let keys: Vec<_> = places
            .iter()
            .map(|&(anchor, offset)| place_bytes(Place { anchor, offset }))
            .collect();
        assert!(keys.is_sorted());
        for (key, (anchor, offset)) in keys.iter().zip(places) {
            assert_eq!(read_place(key), Some(Place { anchor, offset }));
        }
    }
}
