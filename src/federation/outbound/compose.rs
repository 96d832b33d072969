//! What goes into the next transaction to a server.

use hearth_rooms::{Error, Event, Short};
use hearth_storage::Position;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, ServerName};
use serde_json::{Value, json};

use super::destination::{Destination, QueuedEvent};
use super::rows::ListRow;
use super::worker::pass_over;
use super::{EDUS_MAX, Outbound, PDUS_MAX, device_lists, targets};

/// A transaction: it is sent as it is until the server acknowledges it or is given up.
pub(crate) struct Transaction {
    pub(crate) id: String,
    pub(crate) body: Value,
    /// Whether nothing is in it: what was to be told is known there, or gone.
    pub(crate) is_hollow: bool,
    /// The events that it takes from the queue.
    pub(crate) events: Vec<QueuedEvent>,
    /// The rooms that it catches up on, with the newest event that was known.
    pub(crate) caught_up: Vec<(OwnedRoomId, Short)>,
    /// How many ephemeral messages it has.
    pub(crate) ephemera: usize,
    /// The positions of its messages to devices, and how large they are.
    pub(crate) to_device: Vec<Position>,
    pub(crate) to_device_bytes: usize,
    /// The device lists that it tells of, with what the server will know then.
    pub(crate) lists: Vec<ListPart>,
}

/// What a transaction tells of one device list.
pub(crate) struct ListPart {
    pub(crate) user: OwnedUserId,
    /// The version of the work that this does.
    pub(crate) version: u64,
    pub(crate) row: ListRow,
    /// Whether that is all there is to tell.
    pub(crate) is_all: bool,
}

impl Outbound {
    /// Puts the next transaction together; `None` where nothing is to be sent.
    pub(crate) fn compose(&self, destination: &Destination) -> Result<Option<Transaction>, Error> {
        let server = &*destination.name;
        let mut edus = Vec::new();
        let (to_device, to_device_bytes, known_to_device) = self.compose_to_device(destination, &mut edus)?;
        let lists = self.compose_lists(destination, &mut edus)?;
        let durable_edus = edus.len();
        let (queued, lossy) = {
            let mut state = destination.state.lock();
            edus.extend(state.ephemera.take(EDUS_MAX.saturating_sub(durable_edus)));
            let sendable = state.queue.iter().take(PDUS_MAX);
            let sendable = sendable
                .take_while(|event| event.after <= known_to_device)
                .count();
            let queued: Vec<QueuedEvent> = state.queue.iter().take(sendable).cloned().collect();
            let lossy = state.rooms.iter().filter(|(_, room)| room.is_lossy);
            let lossy = lossy.map(|(room, behind)| (room.clone(), behind.newest));
            let lossy: Vec<_> = lossy.take(PDUS_MAX.saturating_sub(queued.len())).collect();
            (queued, lossy)
        };
        let mut pdus = Vec::new();
        for event in &queued {
            // One that is gone meanwhile, as its room may be, is done; and one that cannot be read holds up no other.
            let pdu = self.pdu(event);
            pdus.extend(pass_over(Some(pdu), "a server is not sent an event")?.flatten());
        }
        let mut caught_up = Vec::new();
        // Where messages to devices wait, they come first.
        if to_device.len() < EDUS_MAX {
            for (room, newest) in lossy {
                let events = self.catch_up(server, &room, newest);
                let events =
                    pass_over(Some(events), "a server does not catch up on a room")?.unwrap_or_default();
                if !pdus.is_empty() && pdus.len() + events.len() > PDUS_MAX {
                    break;
                }
                pdus.extend(events);
                caught_up.push((room, newest));
            }
        }
        // From here on nothing fails: what is taken out is in the transaction.
        destination.state.lock().queue.drain(..queued.len());
        let is_empty = pdus.is_empty() && edus.is_empty();
        if is_empty && queued.is_empty() && caught_up.is_empty() && lists.is_empty() {
            return Ok(None);
        }
        let ephemera = edus.len() - durable_edus;
        let body = json!({
            "origin": self.server_name(),
            "origin_server_ts": self.clock.now_ms(),
            "pdus": pdus,
            "edus": edus,
        });
        Ok(Some(Transaction {
            id: self.next_txn_id(),
            body,
            is_hollow: is_empty,
            events: queued,
            caught_up,
            ephemera,
            to_device,
            to_device_bytes,
            lists,
        }))
    }

    /// Takes messages to devices, and says how large they are, and up to which position all are in this transaction or were
    /// acknowledged.
    fn compose_to_device(
        &self,
        destination: &Destination,
        edus: &mut Vec<Value>,
    ) -> Result<(Vec<Position>, usize, Position), Error> {
        let (sent, last) = {
            let state = destination.state.lock();
            (state.to_device_sent, state.to_device_last)
        };
        if sent >= last {
            return Ok((Vec::new(), 0, Position::MAX));
        }
        let found = self.rows.to_device(&destination.name, sent, EDUS_MAX)?;
        if found.is_empty() {
            // What was counted is not there any more. What has come since this was looked at is.
            let mut state = destination.state.lock();
            state.to_device_sent = state.to_device_sent.max(last);
        }
        let positions: Vec<Position> = found.iter().map(|(position, ..)| *position).collect();
        let bytes = found.iter().map(|(_, size, _)| *size).sum();
        let known = match positions.last() {
            Some(last) if positions.len() == EDUS_MAX => *last,
            // Nothing is stored behind it.
            _ => Position::MAX,
        };
        let contents = found.into_iter().map(|(.., content)| content);
        edus.extend(contents.map(|content| json!({ "edu_type": "m.direct_to_device", "content": content })));
        Ok((positions, bytes, known))
    }

    fn compose_lists(
        &self,
        destination: &Destination,
        edus: &mut Vec<Value>,
    ) -> Result<Vec<ListPart>, Error> {
        let wanted: Vec<(OwnedUserId, u64)> = {
            let state = destination.state.lock();
            let lists = state.lists.iter().take(EDUS_MAX);
            lists.map(|(user, work)| (user.clone(), work.version)).collect()
        };
        let mut parts = Vec::new();
        for (user, version) in wanted {
            let left = EDUS_MAX.saturating_sub(edus.len());
            // A list may begin with the keys and a device.
            if left < 2 {
                break;
            }
            let before = self.rows.list(&destination.name, &user)?;
            let told = device_lists::edus(&self.users, &user, before.sent, left);
            let told = pass_over(Some(told), "a server is not told of a user's devices")?;
            let (new, sent, is_all) = told.unwrap_or((Vec::new(), before.sent, true));
            edus.extend(new);
            parts.push(ListPart {
                user,
                version,
                row: ListRow {
                    sent,
                    pending: !is_all,
                },
                is_all,
            });
        }
        Ok(parts)
    }

    /// An event as it is sent; `None` where it is gone, or not to be shown.
    fn pdu(&self, queued: &QueuedEvent) -> Result<Option<Value>, Error> {
        let Some(room) = self
            .rooms
            .get(&queued.room)?
            .filter(|room| room.key() == queued.key)
        else {
            return Ok(None);
        };
        Ok(room.event(queued.short)?.and_then(|event| as_json(&event)))
    }

    /// The events that let a server find what it misses of a room: the newest of all, or, where it is no longer in the
    /// room, the last one for it.
    fn catch_up(&self, server: &ServerName, room: &RoomId, newest: Short) -> Result<Vec<Value>, Error> {
        let Some(found) = self.rooms.get(room)? else {
            return Ok(Vec::new());
        };
        let last = || -> Result<Vec<Value>, Error> {
            let Some(event) = found.event(newest)? else {
                return Ok(Vec::new());
            };
            // Where the room was purged and joined anew since, it is another event.
            let is_theirs = targets::removed_member(&event).is_some_and(|user| user.server_name() == server);
            let event = match is_theirs {
                true => event,
                false => found.server_viewer(server)?.shown(&event)?,
            };
            Ok(as_json(&event).into_iter().collect())
        };
        if !found.has_server(server.as_str()) {
            return last();
        }
        let mut tips = found.tips()?;
        // The deepest lead furthest.
        tips.sort_by_key(|tip| std::cmp::Reverse(tip.pdu.depth()));
        tips.truncate(CATCH_UP_MAX_EVENTS);
        let events: Vec<Value> = tips.iter().filter_map(|tip| as_json(tip)).collect();
        if events.is_empty() {
            return last();
        }
        Ok(events)
    }
}

/// So many of a room's newest events are sent to a server that comes back.
const CATCH_UP_MAX_EVENTS: usize = 5;

fn as_json(event: &Event) -> Option<Value> {
    serde_json::from_slice(&event.pdu.json).ok()
}
