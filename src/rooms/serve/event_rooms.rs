//! Which room an event is in: the look-up by event id alone (`GET /event/{eventId}`).
//!
//! A duty follows the feeds and writes a view; nothing on the path of a send waits for it. It works when enough has
//! gathered, and a look-up brings it up to date first.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use hearth_core::{Shutdown, tasks};
use hearth_storage::{
    Batch, EntityKey, EntityKind, Family, Feed, FeedItem, FeedKind, Log, Position, ShardId, Start, name_of,
};
use parking_lot::Mutex;
use ruma::{EventId, OwnedRoomId};
use tokio::sync::Notify;

use crate::{Error, Event, Room, Rooms, event::Short, keys};

/// The duty's name.
const DUTY: &str = "event_room";

/// The duty's name as a task.
const TASK: &str = "rooms of events";

/// The view's name.
const VIEW: &[u8] = b"event_room\0";

/// How many bytes of an event id's hash stand for it. Two events that share them are told apart by the room; the older
/// one is then not found by its id alone, once in billions of events.
const HASH_BYTES: usize = 8;

/// After this many batches the duty works: few enough for a look-up to do the rest.
const BATCHES_BETWEEN: usize = 1_024;

/// How many batches of a feed are read at once, and become one write.
const CHUNK_BATCHES: usize = 512;

/// How many chunks a look-up works off before it looks at what is there.
const LOOK_UP_CHUNKS_MAX: usize = 16;

/// The state of the duty.
pub(crate) struct EventRooms {
    feed: Mutex<Feed>,
    waiting: AtomicUsize,
    ring: Notify,
}

impl EventRooms {
    pub(crate) fn new(log: &Log) -> Self {
        Self {
            feed: Mutex::new(Feed::new(log)),
            waiting: AtomicUsize::new(0),
            ring: Notify::new(),
        }
    }

    /// Notes that a batch was published.
    pub(crate) fn published(&self) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) + 1 >= BATCHES_BETWEEN {
            self.ring.notify_one();
        }
    }
}

impl Rooms {
    /// Starts the tasks that run beside the requests.
    pub fn start(self: &Arc<Self>, shutdown: &Shutdown) -> Result<(), Error> {
        let duty = self.event_rooms.clone();
        duty.feed.lock().register(DUTY, Start::Oldest)?;
        self.start_forgetting(shutdown);
        self.start_directory(shutdown);
        // Whoever drops the rooms ends the task.
        let (rooms, shutdown) = (Arc::downgrade(self), shutdown.clone());
        let ends = shutdown.clone();
        tasks::keep_running(TASK, &ends, move || {
            run(rooms.clone(), duty.clone(), shutdown.clone())
        });
        Ok(())
    }

    /// The room that an event is in, if it is one of this server's rooms.
    pub fn room_of_event(self: &Arc<Self>, id: &EventId) -> Result<Option<Room>, Error> {
        self.follow_feeds(LOOK_UP_CHUNKS_MAX)?;
        let Some(value) = self.reader().get(Family::View, &key_of(id))? else {
            return Ok(None);
        };
        let entity = keys::untagged(&value)
            .and_then(|bytes| bytes.try_into().ok())
            .and_then(EntityKey::from_bytes)
            .ok_or(Error::Damaged("room of an event"))?;
        match self.room_of_entity(entity)? {
            Some(room) => Ok(room.short_of(id)?.map(|_| room)),
            None => Ok(None),
        }
    }

    /// Writes down what the feeds have that the view lacks, at the most so many chunks. Says whether there is more.
    fn follow_feeds(self: &Arc<Self>, chunks_max: usize) -> Result<bool, Error> {
        let feed = self.event_rooms.feed.lock();
        self.event_rooms.waiting.store(0, Ordering::Relaxed);
        let mut chunks = 0;
        for (shard, published) in self.log.published_all() {
            while feed.cursor(DUTY, shard) < published {
                if chunks == chunks_max {
                    return Ok(true);
                }
                self.follow(&feed, shard, published)?;
                chunks += 1;
            }
        }
        Ok(false)
    }

    fn follow(self: &Arc<Self>, feed: &Feed, shard: ShardId, published: Position) -> Result<(), Error> {
        let batches = feed.read(shard, feed.cursor(DUTY, shard), CHUNK_BATCHES)?;
        let done = match batches.last() {
            Some((position, _)) if batches.len() == CHUNK_BATCHES => *position,
            _ => published,
        };
        let mut batch = Batch::new();
        for item in batches.into_iter().flat_map(|(_, items)| items) {
            let Some(shorts) = shorts_of(&item) else { continue };
            for short in shorts {
                // Read without the room, which may be on the way of being joined. Where it is gone, so is the event.
                let key = match self.remembered_event(item.entity, short) {
                    Some(event) => Some(key_of(event.id())),
                    None => {
                        let row = keys::event(item.entity, short);
                        let record = self.reader().get(Family::RoomEvent, &row)?;
                        match record.map(|record| Event::id_of_record(&record)).transpose() {
                            Ok(id) => id.map(|id| key_of(&id)),
                            Err(error) => {
                                tracing::error!(%error, "an event cannot be found by its id alone");
                                tasks::count_skipped(TASK);
                                None
                            }
                        }
                    }
                };
                if let Some(key) = key {
                    batch.put(Family::View, key, keys::tagged(&item.entity.to_bytes()));
                }
            }
        }
        feed.set_cursor_in(DUTY, shard, done, &mut batch);
        // The cursor is of the same write: what a crash takes away is done again.
        self.log.engine().write(&batch, false)?;
        Ok(())
    }

    fn room_of_entity(self: &Arc<Self>, entity: EntityKey) -> Result<Option<Room>, Error> {
        let name = name_of(self.reader(), EntityKind::Room, entity)?;
        match name.map(OwnedRoomId::try_from) {
            Some(Ok(id)) => self.get(&id),
            _ => Ok(None),
        }
    }
}

/// The events that a feed item is about.
fn shorts_of(item: &FeedItem) -> Option<RangeInclusive<Short>> {
    let low = |number: u64| Short::try_from(number & u64::from(Short::MAX)).unwrap_or_default();
    match item.kind {
        FeedKind::RoomEvent | FeedKind::RoomHistory => Some(low(item.reference)..=low(item.reference)),
        FeedKind::RoomOutside => Some(low(item.reference >> 32)..=low(item.reference)),
        _ => None,
    }
}

/// Brings the view up to date now and then. What one event's record does to it keeps it from no other.
async fn run(rooms: Weak<Rooms>, duty: Arc<EventRooms>, shutdown: Shutdown) {
    loop {
        while let Some(rooms) = rooms.upgrade() {
            match rooms.follow_feeds(1) {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, "the rooms of events cannot be written down");
                    break;
                }
            }
        }
        tokio::select! {
            biased;
            () = shutdown.wait() => return,
            () = duty.ring.notified() => {}
        }
        if rooms.strong_count() == 0 {
            return;
        }
    }
}

fn key_of(id: &EventId) -> Vec<u8> {
    let hash = blake3::hash(id.as_bytes());
    [VIEW, &hash.as_bytes()[..HASH_BYTES]].concat()
}
