//! What a connection has been sent, as it is stored: a record of the connection, and its rooms in parts, so that
//! little is written where little changed.
//!
//! Each part is right by itself: of a room whose part is older than the rest, something is sent again.

use std::{collections::BTreeMap, sync::Arc};

use hearth_rooms::Place;
use hearth_storage::record::{self, put_varint, take_varint};
use hearth_users::{ConnectionPart, User};
use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use super::{
    connection::{Connection, Pending, ROOM_PARTS, RoomSent, Shown},
    request::RequiredState,
};
use crate::{Error, SyncToken};

/// The part of the connection itself, and that of the rooms of the answer that was given last.
const HEAD_PART: u8 = 0;
const PENDING_PART: u8 = ROOM_PARTS + 1;

/// The tag of a part with rooms.
const ROOMS_V1: u8 = 2;

/// Parts are written together up to this size: a batch has a limit.
const BATCH_BYTES: usize = 512 << 10;

/// Parts that are written together.
pub(super) type Batch = Vec<ConnectionPart>;

/// The connection itself.
#[derive(Serialize, Deserialize)]
struct Head {
    number: u64,
    answer: u64,
    token: Option<String>,
    global: Option<u64>,
    #[serde(default)]
    threads: Option<u64>,
    e2ee: bool,
    lists: u64,
    configs: Vec<RequiredState>,
    /// What the last answer held beside its rooms.
    pending: Option<PendingHead>,
}

/// The answer that was given last, without its rooms.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct PendingHead {
    answer: u64,
    global: Option<u64>,
    #[serde(default)]
    threads: Option<u64>,
    e2ee: bool,
    lists: u64,
}

/// The parts that changed since they were taken last, in batches; the connection itself comes last.
pub(super) fn take_parts(connection: &mut Connection) -> Vec<Batch> {
    let unstored = std::mem::take(&mut connection.unstored);
    let mut rooms: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let begin = |number| {
        let mut part = vec![ROOMS_V1];
        put_varint(&mut part, number);
        part
    };
    for part in unstored.iter().filter(|part| **part != HEAD_PART) {
        rooms.insert(*part, begin(connection.number));
    }
    for (number, part) in &mut rooms {
        for (room, sent) in connection.state.rooms.of_part(*number) {
            put_room(part, room, sent);
        }
    }
    // Before the first answer there is nothing to go on from.
    if connection.state.token.is_none() && connection.pending.is_none() {
        return Vec::new();
    }
    rooms.insert(PENDING_PART, pending_part(connection, begin(connection.number)));
    let state = &connection.state;
    let head = Head {
        number: connection.number,
        answer: state.answer,
        token: state.token.as_ref().map(SyncToken::to_string),
        global: state.global,
        threads: state.threads,
        e2ee: state.e2ee,
        lists: state.lists,
        configs: state.configs.values().map(|config| (**config).clone()).collect(),
        pending: connection.pending.as_ref().map(|pending| PendingHead {
            answer: pending.answer,
            global: pending.global,
            threads: pending.threads,
            e2ee: pending.e2ee,
            lists: pending.lists,
        }),
    };
    let mut batches = vec![Batch::new()];
    let mut size = 0;
    let head = (HEAD_PART, record::encode(&head));
    for (part, bytes) in rooms.into_iter().chain([head]) {
        size += bytes.len();
        if size > BATCH_BYTES {
            batches.push(Batch::new());
            size = bytes.len();
        }
        if let Some(batch) = batches.last_mut() {
            batch.push((part, bytes));
        }
    }
    batches
}

/// What the last answer adds. It is written each time, also where there is nothing: one that was dropped must not
/// come back.
fn pending_part(connection: &Connection, mut part: Vec<u8>) -> Vec<u8> {
    let start = part.len();
    let pending = connection.pending.as_ref();
    put_varint(&mut part, pending.map_or(0, |pending| pending.answer));
    for (room, sent) in pending.iter().flat_map(|pending| &pending.rooms) {
        put_room(&mut part, room, sent);
    }
    if part.len() > BATCH_BYTES {
        // It is a first answer, and would be sent again.
        part.truncate(start);
        put_varint(&mut part, 0);
    }
    part
}

/// Reads a stored connection, if it has the number.
pub(super) fn load(
    user: &User,
    device: &str,
    conn_id: &str,
    number: u64,
) -> Result<Option<Connection>, Error> {
    let mut connection = Connection::new(number);
    let mut pending = None;
    let mut has_head = false;
    for (part, bytes) in user.connection_parts(device, conn_id)? {
        if part == HEAD_PART {
            let head: Head = record::decode(&bytes)?;
            if head.number != number {
                return Ok(None);
            }
            has_head = true;
            pending = head.pending;
            take_head(&mut connection, head);
        } else {
            let mut rest = bytes.as_slice();
            // A part of an older connection with this id, or of a newer version, is passed over.
            if read_part(&mut rest, number).is_none() {
                continue;
            }
            if part == PENDING_PART {
                connection.pending = read_pending(&mut rest, &connection, pending);
            } else {
                for (room, sent) in read_rooms(&mut rest) {
                    connection.state.rooms.insert(room, sent);
                }
            }
        }
    }
    connection.restored = true;
    connection.stored_ms = None;
    Ok(has_head.then_some(connection))
}

fn take_head(connection: &mut Connection, head: Head) {
    let state = &mut connection.state;
    state.answer = head.answer;
    state.token = head.token.and_then(|token| SyncToken::parse(&token).ok());
    state.global = head.global;
    state.threads = head.threads;
    state.e2ee = head.e2ee;
    state.lists = head.lists;
    let configs = head.configs.into_iter();
    state.configs = configs
        .map(|config| (config.number(), Arc::new(config)))
        .collect();
}

fn read_part(rest: &mut &[u8], number: u64) -> Option<()> {
    let (tag, tail) = rest.split_first()?;
    *rest = tail;
    (*tag == ROOMS_V1 && take_varint(rest)? == number).then_some(())
}

fn read_pending(rest: &mut &[u8], connection: &Connection, head: Option<PendingHead>) -> Option<Pending> {
    let state = &connection.state;
    let answer = take_varint(rest).filter(|answer| *answer > state.answer)?;
    // The two are written one after the other: where they differ, what is beside the rooms is sent again.
    let head = head.filter(|head| head.answer == answer);
    Some(Pending {
        answer,
        token: state.token.clone().unwrap_or_default(),
        global: head.map_or(state.global, |head| head.global),
        threads: head.map_or(state.threads, |head| head.threads),
        e2ee: head.map_or(state.e2ee, |head| head.e2ee),
        lists: head.map_or(state.lists, |head| head.lists),
        rooms: read_rooms(rest),
        cleared: Vec::new(),
        members: Vec::new(),
    })
}

/// Reads rooms as far as they can be read.
fn read_rooms(rest: &mut &[u8]) -> Vec<(OwnedRoomId, RoomSent)> {
    let mut rooms = Vec::new();
    while let Some(room) = take_room(rest) {
        rooms.push(room);
    }
    rooms
}

fn put_room(out: &mut Vec<u8>, room: &RoomId, sent: &RoomSent) {
    put_varint(out, room.as_str().len() as u64);
    out.extend_from_slice(room.as_str().as_bytes());
    let shown = match sent.shown {
        Shown::Nothing => 0,
        Shown::Joined => 1,
        Shown::Stripped => 2,
        Shown::Left => 3,
    };
    let offset = sent.start.offset;
    for number in [
        shown | u64::from(sent.is_dm) << 2,
        sent.entry,
        sent.began,
        sent.seen,
        sent.start.anchor,
        u64::from(((offset << 1) ^ (offset >> 31)) as u32),
        sent.limit as u64,
        sent.config,
        sent.unread.0,
        sent.unread.1,
        sent.receipts.map_or(0, |at| at.saturating_add(1)),
        sent.data.map_or(0, |at| at.saturating_add(1)),
        sent.typing,
    ] {
        put_varint(out, number);
    }
}

fn take_room(rest: &mut &[u8]) -> Option<(OwnedRoomId, RoomSent)> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    let (id, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    let id = OwnedRoomId::try_from(std::str::from_utf8(id).ok()?).ok()?;
    let mut numbers = [0; 13];
    for number in &mut numbers {
        *number = take_varint(rest)?;
    }
    let [
        shown,
        entry,
        began,
        seen,
        anchor,
        offset,
        limit,
        config,
        notifications,
        highlights,
        receipts,
        data,
        typing,
    ] = numbers;
    let offset = u32::try_from(offset).ok()?;
    let sent = RoomSent {
        shown: match shown & 3 {
            1 => Shown::Joined,
            2 => Shown::Stripped,
            3 => Shown::Left,
            _ => Shown::Nothing,
        },
        entry,
        began,
        seen,
        start: Place {
            anchor,
            offset: (offset >> 1) as i32 ^ -((offset & 1) as i32),
        },
        limit: usize::try_from(limit).ok()?,
        config,
        is_dm: shown & 4 != 0,
        unread: (notifications, highlights),
        receipts: receipts.checked_sub(1),
        data: data.checked_sub(1),
        typing,
    };
    Some((id, sent))
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    fn room() -> RoomSent {
        RoomSent {
            shown: Shown::Left,
            entry: 1,
            began: 2,
            seen: 300,
            start: Place {
                anchor: 5,
                offset: -6,
            },
            limit: 20,
            config: u64::MAX,
            is_dm: true,
            unread: (7, 8),
            receipts: Some(0),
            data: None,
            typing: 9,
        }
    }

    #[test]
    fn rooms_are_stored_in_this_form() {
        let mut bytes = Vec::new();
        put_room(&mut bytes, room_id!("!r:x"), &room());
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            text,
            "0421723a780701 02ac02050b14ffffffffffffffffff01070801 0009".replace(' ', "")
        );
        for cut in 0..bytes.len() {
            assert!(take_room(&mut &bytes[..cut]).is_none());
        }
        let mut rest = bytes.as_slice();
        assert_eq!(take_room(&mut rest), Some((room_id!("!r:x").to_owned(), room())));
        assert!(rest.is_empty());
    }

    #[test]
    fn only_parts_that_changed_are_taken() {
        let mut connection = Connection::new(7);
        assert!(take_parts(&mut connection).is_empty());
        connection.state.token = Some(SyncToken::default());
        connection.note(room_id!("!r:x").to_owned(), room());
        let parts = |batches: Vec<Batch>| -> Vec<u8> {
            batches.into_iter().flatten().map(|(part, _)| part).collect()
        };
        let part = super::super::connection::part_of(room_id!("!r:x"));
        assert_eq!(
            parts(take_parts(&mut connection)),
            [part, PENDING_PART, HEAD_PART]
        );
        assert_eq!(parts(take_parts(&mut connection)), [PENDING_PART, HEAD_PART]);
    }
}
