//! What waits in memory for one server. No I/O: the worker reads, sends and writes.

use std::collections::{BTreeMap, VecDeque};

use hearth_rooms::{Room, Short};
use hearth_storage::{EntityKey, Position};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ephemeral::{Ephemera, EphemeralKey};
use super::rows::Waiting;
use super::tracker::Share;
use super::transport::Failure;
use super::{TO_DEVICE_WAITING_MAX, TO_DEVICE_WAITING_MAX_BYTES};

/// So many events wait in memory for a server that answers: beyond it the room's newest event stands for them.
pub(crate) const QUEUE_MAX_EVENTS: usize = 1_000;
/// So many wait for one that does not answer: there may be thousands of those.
pub(crate) const FAILING_QUEUE_MAX_EVENTS: usize = 100;

/// One server to which things are sent.
pub(crate) struct Destination {
    pub(crate) name: OwnedServerName,
    pub(crate) state: Mutex<State>,
    /// Tells the worker that there is something new.
    pub(crate) news: Notify,
}

#[derive(Default)]
pub(crate) struct State {
    /// Events to be sent, in order.
    pub(crate) queue: VecDeque<QueuedEvent>,
    /// The rooms that have a durable row.
    pub(crate) rooms: BTreeMap<OwnedRoomId, BehindRoom>,
    /// The local users whose changed devices the server must hear of.
    pub(crate) lists: BTreeMap<OwnedUserId, ListWork>,
    /// What lives in memory alone.
    pub(crate) ephemera: Ephemera,
    /// The last message to devices that is stored, and the last that was acknowledged.
    pub(crate) to_device_last: Position,
    pub(crate) to_device_sent: Position,
    /// How many messages to devices wait, and how large they are, roughly.
    pub(crate) to_device_waiting: usize,
    pub(crate) to_device_bytes: usize,
    /// How many events, and how many ephemeral messages, are in the transaction that is on its way.
    pub(crate) in_flight: (usize, usize),
    /// Whether a worker runs.
    pub(crate) is_running: bool,
    /// How often in a row it failed.
    pub(crate) failures: u32,
    /// When the first of these failures was, by the clock.
    pub(crate) failing_since_ms: Option<u64>,
    /// When the last attempt began.
    pub(crate) tried_at: Option<Instant>,
    /// The next attempt.
    pub(crate) retry_at: Option<Instant>,
    /// The server was heard of: no reason to wait.
    pub(crate) is_woken: bool,
    pub(crate) last_error: Option<Failure>,
}

/// An event to be sent.
#[derive(Clone)]
pub(crate) struct QueuedEvent {
    pub(crate) room: OwnedRoomId,
    /// The room's number: a room that was purged and joined anew has other events.
    pub(crate) key: EntityKey,
    pub(crate) short: Short,
    /// The server may get nothing more of the room after it.
    pub(crate) is_last: bool,
    /// Messages to devices up to here were there before it.
    pub(crate) after: Position,
    /// Its share of the feed's position, until it is settled.
    pub(crate) share: Option<Share>,
}

/// A room of which the server may miss something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BehindRoom {
    /// The newest event for it.
    pub(crate) newest: Short,
    /// Whether not all of its events are in the queue: then the newest is sent, and leads to the others.
    pub(crate) is_lossy: bool,
}

/// A device list to be told of.
#[derive(Default)]
pub(crate) struct ListWork {
    pub(crate) shares: Vec<Share>,
    /// Whether a durable row says so.
    pub(crate) is_durable: bool,
    /// Rises with each change, so that one that comes while another is on its way is not forgotten.
    pub(crate) version: u64,
}

impl Destination {
    pub(crate) fn new(name: OwnedServerName, waiting: Waiting) -> Self {
        let mut state = State {
            to_device_last: waiting.last_to_device,
            to_device_waiting: waiting.to_device,
            to_device_bytes: waiting.to_device_bytes,
            ..State::default()
        };
        for (room, row) in waiting.rooms {
            let behind = BehindRoom {
                newest: row.newest,
                is_lossy: true,
            };
            state.rooms.insert(room, behind);
        }
        for user in waiting.lists {
            let work = ListWork {
                is_durable: true,
                ..ListWork::default()
            };
            state.lists.insert(user, work);
        }
        Self {
            name,
            state: Mutex::new(state),
            news: Notify::new(),
        }
    }

    pub(crate) fn push_event(&self, room: &Room, short: Short, is_last: bool, share: Share) {
        let mut state = self.state.lock();
        let after = state.to_device_last;
        state.queue.push_back(QueuedEvent {
            room: room.id().to_owned(),
            key: room.key(),
            short,
            is_last,
            after,
            share: Some(share),
        });
    }

    pub(crate) fn push_list(&self, user: OwnedUserId, share: Share) {
        let mut state = self.state.lock();
        let work = state.lists.entry(user).or_default();
        work.shares.push(share);
        work.version += 1;
    }

    pub(crate) fn push_ephemeral(&self, key: EphemeralKey, content: Value) {
        let mut state = self.state.lock();
        let fails = state.failures > 0;
        state.ephemera.push(key, content, fails);
    }

    /// Puts events that were taken for a transaction back in front of the others.
    pub(crate) fn put_back(&self, events: Vec<QueuedEvent>) {
        let mut state = self.state.lock();
        state.in_flight = (0, 0);
        for event in events.into_iter().rev() {
            state.queue.push_front(event);
        }
    }

    /// Whether no further message to devices, of such a size, may wait.
    pub(crate) fn is_full_of_to_device(&self, size: usize) -> bool {
        let state = self.state.lock();
        state.to_device_waiting >= TO_DEVICE_WAITING_MAX
            || state.to_device_bytes + size > TO_DEVICE_WAITING_MAX_BYTES
    }

    /// A message to devices of such a size was stored.
    pub(crate) fn to_device_stored(&self, position: Position, size: usize) {
        let mut state = self.state.lock();
        state.to_device_last = state.to_device_last.max(position);
        state.to_device_waiting += 1;
        state.to_device_bytes += size;
    }
}

impl State {
    /// Whether nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.rooms.is_empty()
            && self.lists.is_empty()
            && self.ephemera.is_empty()
            && self.to_device_sent >= self.to_device_last
    }

    /// Whether more waits in memory than may.
    pub(crate) fn is_overfull(&self) -> bool {
        let max = if self.failures > 0 {
            FAILING_QUEUE_MAX_EVENTS
        } else {
            QUEUE_MAX_EVENTS
        };
        self.queue.len() > max
    }

    /// Notes that a room has a durable row, with a newest event.
    pub(crate) fn note_row(&mut self, event: &QueuedEvent) {
        let behind = self.rooms.entry(event.room.clone()).or_insert(BehindRoom {
            newest: event.short,
            is_lossy: false,
        });
        behind.newest = behind.newest.max(event.short);
    }

    /// Drops the queue; the rows of its rooms stand for it.
    pub(crate) fn drop_queue(&mut self) {
        let (queue, rooms) = (&mut self.queue, &mut self.rooms);
        queue.retain(|event| {
            let row = rooms.get_mut(&event.room).filter(|_| event.share.is_none());
            match row {
                Some(row) => {
                    row.is_lossy = true;
                    false
                }
                // It came after the rows were written.
                None => true,
            }
        });
    }
}
