//! Events that cannot be checked, because the keys of another server than the one that sent them cannot be had: they
//! leave the queue of their room, which they would hold up, and wait until the keys are here. An event whose signature
//! was not checked is neither accepted nor rejected (server-server API, "Checks performed on receipt of a PDU").
//!
//! What is held stands in storage beside the room's queue. When the server sends something itself, or its keys can be had
//! after some time, its events go back to the ends of their rooms' queues; at a start all of them do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hearth_rooms::{Error, KeyAt};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Inbound;
use super::queue::RoomQueue;
use super::rows::{Place, Waiting};

/// So many events are held at the most: of all rooms, of one room, and for one server whose keys lack. Whoever makes up
/// events of servers that do not exist fills no more than that.
const HELD_MAX_EVENTS: usize = 20_000;
const HELD_MAX_EVENTS_OF_ROOM: usize = 200;
const HELD_MAX_EVENTS_OF_SERVER: usize = 2_000;
/// An event is held for so long: most outages end within a week, and later its room has gone on without it.
const HELD_MAX_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// So many keys of a server are asked for at once: a server has one or two.
const KEYS_MAX: usize = 8;
/// The pause before a server's keys are asked for; it doubles up to the second figure.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
/// A server that is heard of has its keys asked for at once, but only so often.
const PAUSE_HEARD: Duration = Duration::from_secs(30);

/// What is held back, by the server whose keys lack.
#[derive(Default)]
pub(crate) struct Held {
    events: Mutex<Events>,
    /// Something is due earlier than it was.
    changed: Notify,
}

#[derive(Default)]
struct Events {
    servers: BTreeMap<OwnedServerName, OfServer>,
    /// How many there are, and how many of each room: asked for each event that comes, so nothing is counted then.
    count: usize,
    rooms: HashMap<OwnedRoomId, usize>,
}

impl Events {
    fn went(&mut self, room: &RoomId) {
        self.count -= 1;
        if let Some(of_room) = self.rooms.get_mut(room) {
            *of_room -= 1;
            if *of_room == 0 {
                self.rooms.remove(room);
            }
        }
    }
}

/// What waits for the keys of one server.
struct OfServer {
    /// The keys by their ids, with the time at which each has to be valid.
    keys: BTreeMap<String, u64>,
    /// The events, with the time at which each arrived.
    events: BTreeMap<(OwnedRoomId, Place), u64>,
    pause: Duration,
    /// When the keys were asked for last, or found to lack.
    asked: Instant,
    /// When they are asked for next.
    until: Instant,
}

impl Held {
    /// How many events are held.
    fn count(&self) -> usize {
        self.events.lock().count
    }

    /// Whether one more event of a room fits, which waits for a key of a server.
    fn has_place(&self, room: &RoomId, server: &ServerName) -> bool {
        let events = self.events.lock();
        let of_room = events.rooms.get(room).copied().unwrap_or(0);
        let of_server = events.servers.get(server).map_or(0, |held| held.events.len());
        events.count < HELD_MAX_EVENTS
            && of_room < HELD_MAX_EVENTS_OF_ROOM
            && of_server < HELD_MAX_EVENTS_OF_SERVER
    }

    fn add(&self, room: &RoomId, place: Place, received_ms: u64, (server, key, at_ms): KeyAt) {
        let now = Instant::now();
        let mut guard = self.events.lock();
        let events = &mut *guard;
        let held = events.servers.entry(server).or_insert_with(|| OfServer {
            keys: BTreeMap::new(),
            events: BTreeMap::new(),
            pause: PAUSE_FIRST,
            asked: now,
            until: now + PAUSE_FIRST,
        });
        if held
            .events
            .insert((room.to_owned(), place), received_ms)
            .is_none()
        {
            events.count += 1;
            *events.rooms.entry(room.to_owned()).or_default() += 1;
        }
        if held.keys.len() < KEYS_MAX {
            held.keys.entry(key).or_insert(at_ms);
        }
        drop(guard);
        self.changed.notify_one();
    }

    /// A server was heard of, and may give its keys.
    pub(super) fn heard_of(&self, server: &ServerName) {
        let mut events = self.events.lock();
        let Some(held) = events.servers.get_mut(server) else {
            return;
        };
        held.until = held.until.min(held.asked + PAUSE_HEARD);
        drop(events);
        self.changed.notify_one();
    }

    /// When the next server's keys are to be asked for, and which.
    fn next(&self) -> Option<(Instant, OwnedServerName, Vec<KeyAt>)> {
        let events = self.events.lock();
        let (name, held) = events.servers.iter().min_by_key(|(_, held)| held.until)?;
        let keys = held
            .keys
            .iter()
            .map(|(id, at_ms)| (name.clone(), id.clone(), *at_ms));
        Some((held.until, name.clone(), keys.collect()))
    }

    /// Takes the events that wait for a server's keys.
    fn take(&self, server: &ServerName) -> Vec<(OwnedRoomId, Place)> {
        let mut events = self.events.lock();
        let held = events.servers.remove(server);
        let taken: Vec<_> = held
            .into_iter()
            .flat_map(|held| held.events.into_keys())
            .collect();
        taken.iter().for_each(|(room, _)| events.went(room));
        taken
    }

    /// The keys of a server lack still. Takes what arrived before a time: it has waited for long enough.
    fn put_off(&self, server: &ServerName, before_ms: u64) -> Vec<(OwnedRoomId, Place)> {
        let now = Instant::now();
        let mut events = self.events.lock();
        let Some(held) = events.servers.get_mut(server) else {
            return Vec::new();
        };
        held.pause = (held.pause * 2).min(PAUSE_MAX);
        held.asked = now;
        held.until = now + held.pause;
        let (too_old, kept): (BTreeMap<_, _>, _) = std::mem::take(&mut held.events)
            .into_iter()
            .partition(|(_, received_ms)| *received_ms < before_ms);
        held.events = kept;
        if held.events.is_empty() {
            events.servers.remove(server);
        }
        let too_old: Vec<_> = too_old.into_keys().collect();
        too_old.iter().for_each(|(room, _)| events.went(room));
        too_old
    }
}

impl Inbound {
    /// How many events wait for keys of servers that cannot be had.
    pub fn held_events(&self) -> usize {
        self.held.count()
    }

    /// Holds an event back until the key can be had. What does not fit, or waits for too long, is dropped.
    pub(super) async fn hold(&self, queue: &RoomQueue, waiting: &Waiting, key: &KeyAt) -> Result<(), Error> {
        let room = queue.room.id();
        let age_ms = self.clock.now_ms().saturating_sub(waiting.received_ms);
        if age_ms > HELD_MAX_MS || !self.held.has_place(room, &key.0) {
            tracing::warn!(%room, origin = %waiting.origin, server = %key.0, "an event cannot be checked and is dropped");
            return Ok(());
        }
        let place = self.rows.hold(queue.room.key(), waiting).await?;
        self.held.add(room, place, waiting.received_ms, key.clone());
        tracing::info!(%room, origin = %waiting.origin, server = %key.0, "an event waits for the keys of its server");
        Ok(())
    }

    /// Has rooms judge what a former process held: which keys lack shows again.
    pub(super) async fn release_all(self: &Arc<Self>, held: Vec<(OwnedRoomId, Place)>) {
        for (room_id, place) in held {
            if let Err(error) = self.release(&room_id, place).await {
                tracing::warn!(%error, room = %room_id, "an event that waits for keys cannot be read");
            }
        }
    }

    /// Puts an event that was held at the end of its room's queue.
    async fn release(self: &Arc<Self>, room_id: &RoomId, place: Place) -> Result<(), Error> {
        let Some(room) = self.rooms.get(room_id)? else {
            return Ok(());
        };
        let Some(waiting) = self.rows.at(room.key(), place)? else {
            return Ok(());
        };
        let queue = self.queue(room);
        queue.found(waiting.origin.clone(), waiting.received_ms, waiting.pdu.len());
        self.rows
            .release(queue.room.key(), std::slice::from_ref(&waiting))
            .await?;
        self.run(&queue);
        Ok(())
    }

    /// Asks for the keys that events wait for, again and again.
    pub(super) async fn watch_held(self: Arc<Self>) {
        loop {
            let next = self.held.next();
            let until = next.as_ref().map(|(until, _, _)| *until);
            let sleep = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return,
                () = self.held.changed.notified() => continue,
                () = sleep => {}
            }
            let Some((_, server, keys)) = next else { continue };
            if !self.receive.has_any_key(&keys).await {
                let before_ms = self.clock.now_ms().saturating_sub(HELD_MAX_MS);
                for (room_id, place) in self.held.put_off(&server, before_ms) {
                    tracing::warn!(room = %room_id, %server, "an event that cannot be checked has waited for too long and is dropped");
                    if let Ok(Some(room)) = self.rooms.get(&room_id) {
                        self.rows.remove(room.key(), place);
                    }
                }
                continue;
            }
            for (room_id, place) in self.held.take(&server) {
                if let Err(error) = self.release(&room_id, place).await {
                    // It is in storage, and judged after the next start.
                    tracing::warn!(%error, room = %room_id, "an event that waited for keys cannot be judged now");
                }
            }
        }
    }
}
