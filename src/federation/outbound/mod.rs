//! What is sent to other servers (server-server API, "Transactions").
//!
//! A reader for each shard walks the feed. An event of a local user goes into the queue of each server in its room.
//! A position of the feed is done when every server has acknowledged it or has a durable row that says that it misses
//! something of the room; so nothing is lost over a crash, and a server that is away holds one row for each room.
//!
//! A server's worker sends one transaction at a time. After a failure it waits longer and longer; a server that is
//! heard of is tried at once. One that missed more than fits into memory gets the newest event of each room, and finds
//! the others from there. **Invariant:** an event is never sent before the messages to devices that were stored before it.

mod compose;
mod destination;
mod device_lists;
mod ephemeral;
mod meeting;
mod reader;
mod rows;
mod sources;
mod status;
pub(crate) mod targets;
mod to_device;
mod tracker;
mod transport;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use hearth_cluster::Cluster;
use hearth_core::{SharedClock, SharedRandom, Shutdown, tasks};
use hearth_rooms::{Error, Rooms};
use hearth_storage::{Feed, ShardId, Start};
use hearth_users::Users;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Notify;

use destination::Destination;
use rows::Rows;
pub use status::DestinationStatus;
use tracker::Tracker;
pub use transport::{Failure, Transport};

/// The most events and other messages of one transaction, set by the specification.
pub const PDUS_MAX: usize = 50;
/// See [`PDUS_MAX`].
pub const EDUS_MAX: usize = 100;
/// A server has this long to take a transaction: it may have to fetch what it misses first.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer: an entry for each of fifty events.
const RESPONSE_MAX_BYTES: usize = 1 << 20;
/// The pause after the first failure; it doubles with each further one.
const RETRY_FIRST_MS: u64 = 1_000;
/// The longest pause.
const RETRY_MAX_MS: u64 = 60 * 60 * 1_000;
/// After so many failures (about two hours) a server that shares no room is forgotten.
const GIVE_UP_FAILURES: u32 = 13;
/// A transaction that is refused as malformed so often is dropped: it would hold up everything behind it.
const REFUSALS_MAX: u32 = 3;
/// So many messages to devices wait for one server; further ones are dropped, as its users' devices are long gone.
const TO_DEVICE_WAITING_MAX: usize = 50_000;
/// And so many bytes, or one user could fill the disk with large ones for a server that does not exist.
const TO_DEVICE_WAITING_MAX_BYTES: usize = 256 << 20;
/// Servers that have had nothing waiting are dropped from memory above this number.
const IDLE_DESTINATIONS_MAX: usize = 10_000;

/// What the queues are made of.
pub struct OutboundParts {
    /// Delivery between entities, and the log.
    pub cluster: Arc<Cluster>,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The local users.
    pub users: Arc<Users>,
    /// How other servers are asked.
    pub transport: Arc<dyn Transport>,
    /// The time.
    pub clock: SharedClock,
    /// Randomness, for jitter and names.
    pub random: SharedRandom,
    /// The signal to stop.
    pub shutdown: Shutdown,
}

/// The queues to all other servers.
pub struct Outbound {
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    rows: Rows,
    feed: Feed,
    transport: Arc<dyn Transport>,
    clock: SharedClock,
    random: SharedRandom,
    shutdown: Shutdown,
    destinations: DashMap<OwnedServerName, Arc<Destination>>,
    /// Above so many of them those that are idle are dropped.
    sweep_above: AtomicUsize,
    /// Wakes the reader of each shard.
    published: Arc<BTreeMap<ShardId, Notify>>,
    /// Names transactions of this start of the process.
    txn_prefix: String,
    txn_next: AtomicU64,
    sources: sources::Sources,
    /// What else must see what happens in rooms, in the feed's order.
    watchers: parking_lot::RwLock<Vec<Arc<dyn Watcher>>>,
}

/// Sees each event of the feed before its position is done. It may see an event again after a crash.
#[async_trait::async_trait]
pub(crate) trait Watcher: Send + Sync {
    /// An event was added to a room's timeline.
    async fn event(&self, room: &hearth_rooms::Room, event: &hearth_rooms::Event) -> Result<(), Error>;

    /// Any member's membership may have changed without an event in the timeline.
    async fn members(&self, room: &hearth_rooms::Room) -> Result<(), Error>;
}

impl Outbound {
    /// The queues. Call it before outbox delivery starts; nothing is sent before [`start`](Self::start).
    pub fn new(parts: OutboundParts) -> Arc<Self> {
        let OutboundParts {
            cluster,
            rooms,
            users,
            transport,
            clock,
            random,
            shutdown,
        } = parts;
        let log = cluster.log().clone();
        let shards = log.shards().iter();
        let published: Arc<BTreeMap<ShardId, Notify>> =
            Arc::new(shards.map(|shard| (shard.id, Notify::new())).collect());
        let readers = published.clone();
        log.on_publish(Box::new(move |published| {
            if let Some(reader) = readers.get(&published.shard) {
                reader.notify_one();
            }
        }));
        let name = hearth_core::random::alphanumeric(&*random, 6);
        let outbound = Arc::new(Self {
            feed: Feed::new(&log),
            rows: Rows::new(cluster.clone()),
            txn_prefix: format!("{}{name}", clock.now_ms()),
            txn_next: AtomicU64::new(1),
            destinations: DashMap::new(),
            sweep_above: AtomicUsize::new(IDLE_DESTINATIONS_MAX),
            sources: sources::Sources::default(),
            watchers: parking_lot::RwLock::default(),
            rooms,
            users,
            transport,
            clock,
            random,
            shutdown,
            published,
        });
        to_device::register(&outbound, &cluster);
        sources::register(&outbound);
        outbound
    }

    /// Starts: what waited before this process first, then what happens. Needs a runtime.
    pub fn start(self: &Arc<Self>) -> Result<(), Error> {
        self.feed.register(tracker::DUTY, Start::Now)?;
        for server in self.rows.servers()? {
            let waiting = self.rows.waiting(&server)?;
            if !waiting.is_empty() {
                let destination = Arc::new(Destination::new(server.clone(), waiting));
                let destination = self.destinations.entry(server).or_insert(destination).clone();
                self.run(&destination);
            }
        }
        for shard in self.rooms.log().shards() {
            let (outbound, tracker) = (self.clone(), Tracker::new(self.feed.clone(), shard.id));
            let shard = shard.id;
            tasks::keep_running(reader::FEED_TASK, &self.shutdown, move || {
                outbound.clone().read_shard(shard, tracker.clone())
            });
        }
        let outbound = self.clone();
        tasks::keep_running("federation ephemera", &self.shutdown, move || {
            outbound.clone().send_ephemera()
        });
        Ok(())
    }

    /// A server was heard of: if something waits for it, it is tried at once.
    pub fn wake(&self, server: &ServerName) {
        let Some(destination) = self.destinations.get(server).map(|found| found.clone()) else {
            return;
        };
        let mut state = destination.state.lock();
        if state.failures > 0 {
            state.is_woken = true;
            drop(state);
            destination.news.notify_one();
        }
    }

    /// Adds someone who sees each event.
    pub(crate) fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.watchers.write().push(watcher);
    }

    pub(crate) fn server_name(&self) -> &ServerName {
        self.rooms.server_name()
    }

    fn next_txn_id(&self) -> String {
        let number = self.txn_next.fetch_add(1, Ordering::Relaxed);
        format!("{}.{number}", self.txn_prefix)
    }

    /// A server's queue, read from its rows where it is not in memory.
    pub(crate) fn destination(&self, server: &ServerName) -> Result<Arc<Destination>, Error> {
        if let Some(found) = self.destinations.get(server) {
            return Ok(found.clone());
        }
        if self.destinations.len() > self.sweep_above.load(Ordering::Relaxed) {
            self.destinations.retain(|_, destination| {
                let state = destination.state.lock();
                Arc::strong_count(destination) > 1 || state.is_running || !state.is_idle()
            });
            // Where most are at work, they are not all looked at again for the next one.
            let above = (self.destinations.len() * 2).max(IDLE_DESTINATIONS_MAX);
            self.sweep_above.store(above, Ordering::Relaxed);
        }
        let waiting = self.rows.waiting(server)?;
        let new = || Arc::new(Destination::new(server.to_owned(), waiting));
        Ok(self
            .destinations
            .entry(server.to_owned())
            .or_insert_with(new)
            .clone())
    }

    /// Has a server's worker see to what was added.
    pub(crate) fn run(self: &Arc<Self>, destination: &Arc<Destination>) {
        let starts = !std::mem::replace(&mut destination.state.lock().is_running, true);
        if starts {
            tasks::spawn(worker::TASK, self.clone().work(destination.clone()));
        } else {
            destination.news.notify_one();
        }
    }
}
