//! The shard log: every change of stored data passes through it.
//!
//! A writer reserves a [`Ticket`], which has the next position of the shard, builds its [`Record`] with
//! that position, and submits it. One thread gathers everything that is ready, in order of positions
//! and of all shards together, into one synced engine write (group commit), publishes it, and wakes
//! the committers.
//!
//! **Invariant:** positions are published in order; a published position is on disk and readable.
//!
//! Lock order: a shard's queue, then nothing; a shard's waiters, then nothing; the writer calls the
//! engine and the callbacks with no lock but its own.

mod moving;
mod rows;
mod shards;
mod tail;
mod ticket;
mod writer;

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod moving_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::entity::Allocator;
use crate::feed::Cursors;
use crate::{Batch, Engine, EntityKey, EntityKind, Error, Position, ShardId, Slot, slot_of};

pub use rows::decode_outbox;
pub use rows::{FeedItem, FeedKind, OutboxRow, Published, Record};
pub(crate) use rows::{decode_feed, encode_feed, encode_outbox};
pub use shards::ShardInfo;
pub(crate) use shards::put_head;
use tail::Tail;
pub(crate) use ticket::Opened;
use ticket::Queue;
pub use ticket::{Commit, Ticket};
use writer::Writer;

/// How large a record should be at most. Larger work is staged where nothing reads and made visible by
/// one small record, so that one operation holds up no other.
pub const RECORD_MAX_BYTES: usize = 1 << 20;
/// Below this much free disk, operations that add data are refused. It leaves room to purge, to
/// compact, and to finish what has begun.
pub const DISK_RESERVE_BYTES: u64 = 256 << 20;
/// How long a look at the free disk space is believed.
const DISK_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// More deferred changes than this are written without waiting for a commit that takes them along.
const DEFERRED_MAX_OPS: usize = 4096;
/// So often at most deferred changes are taken along: under load the followers of a feed move their cursors with
/// every group, and only where they stand at last matters.
const DEFERRED_INTERVAL: Duration = Duration::from_millis(50);

/// How the log writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterMode {
    /// A thread of its own: the one for servers.
    Thread,
    /// In the call that submits: for simulations, where every run must take the same course.
    Inline,
}

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Into how many shards a new data directory is divided.
    pub shards_if_new: u16,
    /// The free disk space that is left alone.
    pub disk_reserve_bytes: u64,
    /// Who does the writing.
    pub mode: WriterMode,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            shards_if_new: 16,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            mode: WriterMode::Thread,
        }
    }
}

type PublishCallback = Box<dyn Fn(&Published) + Send + Sync>;
/// What the writer calls for each durable batch.
#[derive(Default)]
struct Callbacks {
    before: Vec<PublishCallback>,
    after: Vec<PublishCallback>,
}

type FatalCallback = Box<dyn Fn(&Error) + Send + Sync>;

/// The log of all shards of this process.
pub struct Log {
    inner: Arc<Inner>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

pub(crate) struct Inner {
    engine: Arc<dyn Engine>,
    options: LogOptions,
    infos: Vec<ShardInfo>,
    shards: Vec<Shard>,
    allocator: Arc<Allocator>,
    pub(crate) cursors: Cursors,
    callbacks: RwLock<Callbacks>,
    on_fatal: Mutex<Vec<FatalCallback>>,
    /// Changes that any later group commit may take along.
    deferred: Mutex<Batch>,
    /// Set when the writer has something to do, so that it is woken once.
    signaled: AtomicBool,
    writer_thread: std::sync::OnceLock<std::thread::Thread>,
    inline_writer: Mutex<Writer>,
    closing: AtomicBool,
    stopped: AtomicBool,
    /// The runtime in which the log was opened, where there is one: its threads make the records.
    runtime: Option<Handle>,
    disk: Mutex<Option<(Instant, bool)>>,
}

/// One who waits for a position to be settled.
type Waiter = (Position, oneshot::Sender<Result<(), Error>>);

struct Shard {
    id: ShardId,
    queue: Mutex<Queue>,
    /// Whether the queue's first entry is settled.
    ready: AtomicBool,
    published: AtomicU64,
    /// The newest items of the feed.
    tail: Tail,
    /// Everything up to here is durable or void.
    settled: AtomicU64,
    waiters: Mutex<Vec<Waiter>>,
    /// Whether another log may write the shard now.
    dropped: AtomicBool,
}

impl Log {
    /// Opens the log of a data directory with the usual settings.
    pub fn open(engine: Arc<dyn Engine>, shards_if_new: u16) -> Result<Arc<Log>, Error> {
        Log::open_with(
            engine,
            LogOptions {
                shards_if_new,
                ..LogOptions::default()
            },
        )
    }

    /// Opens the log of a data directory: makes the shard map of a new one, refuses one of another
    /// schema version, and goes on above every position that was used.
    pub fn open_with(engine: Arc<dyn Engine>, options: LogOptions) -> Result<Arc<Log>, Error> {
        let infos = shards::open_map(&*engine, options.shards_if_new)?;
        let mut shards = Vec::with_capacity(infos.len());
        for info in &infos {
            let head = shards::head(&*engine, info.id)?;
            shards.push(Shard {
                id: info.id,
                queue: Mutex::new(Queue::new(head)),
                ready: AtomicBool::new(false),
                published: AtomicU64::new(head),
                tail: Tail::new(head),
                settled: AtomicU64::new(head),
                waiters: Mutex::default(),
                dropped: AtomicBool::new(false),
            });
        }
        let inner = Arc::new(Inner {
            cursors: Cursors::load(&*engine)?,
            engine,
            infos,
            shards,
            allocator: Arc::default(),
            callbacks: RwLock::default(),
            on_fatal: Mutex::default(),
            deferred: Mutex::default(),
            signaled: AtomicBool::new(false),
            writer_thread: std::sync::OnceLock::new(),
            inline_writer: Mutex::default(),
            closing: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            disk: Mutex::new(None),
            runtime: Handle::try_current().ok(),
            options,
        });
        let mut thread = None;
        if inner.options.mode == WriterMode::Thread {
            let writer = Arc::clone(&inner);
            let spawned = std::thread::Builder::new()
                .name("log-writer".to_owned())
                .spawn(move || writer::run(&writer));
            let handle = spawned.map_err(|error| Error::Engine(format!("no thread for the log: {error}")))?;
            let _ = inner.writer_thread.set(handle.thread().clone());
            thread = Some(handle);
        }
        Ok(Arc::new(Log {
            inner,
            thread: Mutex::new(thread),
        }))
    }

    /// The engine, for reading.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.inner.engine
    }

    /// The shard that owns a slot.
    pub fn shard_of(&self, slot: Slot) -> ShardId {
        let after = self.inner.infos.partition_point(|info| info.first <= slot);
        self.inner.infos[after - 1].id
    }

    /// All shards, ordered by their slots.
    pub fn shards(&self) -> &[ShardInfo] {
        &self.inner.infos
    }

    /// Reserves the next position of a shard. The ticket must be submitted or dropped soon: positions
    /// behind it wait. A dropped ticket is a void that later positions skip.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn reserve(&self, shard: ShardId) -> Ticket {
        Ticket::reserve(&self.inner, self.inner.index(shard))
    }

    /// Whether operations that add data may start: not when the log has stopped, nor when the free disk
    /// space is below the reserve. Called once, before an operation takes its ticket; what comes after
    /// is not refused, so that memory never runs ahead of a disk that will not follow.
    pub fn check_writable(&self) -> Result<(), Error> {
        if self.inner.stopped.load(Ordering::Acquire) || self.inner.closing.load(Ordering::Acquire) {
            return Err(Error::Stopped);
        }
        let mut disk = self.inner.disk.lock();
        let full = match *disk {
            Some((checked, full)) if checked.elapsed() < DISK_CHECK_INTERVAL => full,
            _ => {
                let free = self.inner.engine.free_bytes();
                let full = free.is_some_and(|free| free < self.inner.options.disk_reserve_bytes);
                *disk = Some((Instant::now(), full));
                full
            }
        };
        if full { Err(Error::DiskFull) } else { Ok(()) }
    }

    /// The published position of a shard: everything up to it is durable and readable.
    pub fn published(&self, shard: ShardId) -> Position {
        self.inner.shard(shard).published.load(Ordering::Acquire)
    }

    /// The published positions of all shards.
    pub fn published_all(&self) -> Vec<(ShardId, Position)> {
        let shards = self.inner.shards.iter();
        shards
            .map(|shard| (shard.id, shard.published.load(Ordering::Acquire)))
            .collect()
    }

    /// Adds a function that the writer calls for each batch, in order within each shard, when it is
    /// durable and not yet published: for what a reader at the published position relies on, such as the
    /// head of a room in memory. It must be quick and must not wait.
    pub fn before_publish(&self, callback: PublishCallback) {
        self.inner.callbacks.write().before.push(callback);
    }

    /// Adds a function that the writer calls for each batch, in order within each shard, when it is
    /// published and before its committer is woken: for those who wait for news. It must be quick and must
    /// not wait.
    pub fn on_publish(&self, callback: PublishCallback) {
        self.inner.callbacks.write().after.push(callback);
    }

    /// Adds a function that is called once if a write fails. The server exits there: what is in memory
    /// is ahead of the disk for good.
    pub fn on_fatal(&self, callback: FatalCallback) {
        self.inner.on_fatal.lock().push(callback);
    }

    /// Waits until everything up to a reserved position is durable or void.
    pub async fn wait_durable(&self, shard: ShardId, position: Position) -> Result<(), Error> {
        let shard = self.inner.shard(shard);
        if shard.settled.load(Ordering::Acquire) >= position {
            return Ok(());
        }
        let receiver = {
            let mut waiters = shard.waiters.lock();
            // Looked at again under the lock: the writer moves the mark first and then takes the waiters.
            if shard.settled.load(Ordering::Acquire) >= position {
                return Ok(());
            }
            if self.inner.stopped.load(Ordering::Acquire) {
                return Err(Error::Stopped);
            }
            if shard.dropped.load(Ordering::Acquire) {
                return Err(Error::NotOpen);
            }
            let (sender, receiver) = oneshot::channel();
            waiters.push((position, sender));
            receiver
        };
        receiver.await.unwrap_or(Err(Error::Stopped))
    }

    /// Gives a new entity its number and adds its rows to the batch, which must be of the entity's own
    /// shard. The name stays reserved while the batch lives; [`Error::Exists`] says that it is taken.
    pub fn allocate(&self, kind: EntityKind, name: &str, batch: &mut Batch) -> Result<EntityKey, Error> {
        let shard = self.inner.shard(self.shard_of(slot_of(name)));
        let opened = shard.queue.lock().opened();
        let allocator = &self.inner.allocator;
        allocator.allocate(&*self.inner.engine, kind, name, opened?, batch)
    }

    /// Adds changes that need no durability of their own, such as the removal of applied outbox rows: one of
    /// the next group commits takes them along, and a crash before it loses them.
    pub fn defer(&self, batch: Batch) {
        self.inner.defer(batch);
    }

    /// Finishes what was submitted, waits a little for reserved tickets, and stops the writer. Later
    /// commits fail with [`Error::Stopped`]. The same engine can be opened again.
    pub fn close(&self) {
        self.inner.closing.store(true, Ordering::Release);
        let thread = self.thread.lock().take();
        match thread {
            // A callback may hold the last handle of the log; the thread cannot wait for itself.
            Some(thread) if thread.thread().id() == std::thread::current().id() => {}
            Some(thread) => {
                self.inner.signal();
                let _ = thread.join();
            }
            None => writer::run_inline(&self.inner),
        }
        self.inner.stop(&Error::Stopped);
        self.inner.write_deferred(true);
        // Callbacks may hold what holds the log. In a callback they cannot be taken away, and need not.
        if let Some(mut callbacks) = self.inner.callbacks.try_write() {
            *callbacks = Callbacks::default();
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// The shards that are open here.
    pub(crate) fn shard_ids(&self) -> impl Iterator<Item = ShardId> + '_ {
        let open = self.shards.iter().filter(|shard| !shard.is_dropped());
        open.map(|shard| shard.id)
    }

    pub(crate) fn published(&self, shard: ShardId) -> Position {
        self.shard(shard).published.load(Ordering::Acquire)
    }

    pub(crate) fn tail(&self, shard: ShardId) -> &Tail {
        &self.shard(shard).tail
    }

    fn index(&self, shard: ShardId) -> usize {
        let found = self.shards.iter().position(|candidate| candidate.id == shard);
        found.expect("the shard is one of this log")
    }

    fn shard(&self, shard: ShardId) -> &Shard {
        &self.shards[self.index(shard)]
    }

    pub(crate) fn defer(self: &Arc<Self>, batch: Batch) {
        let full = {
            let mut deferred = self.deferred.lock();
            deferred.append(batch);
            deferred.len() >= DEFERRED_MAX_OPS
        };
        if full {
            self.signal();
        }
    }

    fn write_deferred(&self, sync: bool) {
        let mut batch = std::mem::take(&mut *self.deferred.lock());
        self.cursors.take_unwritten(&mut batch);
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.engine.write(&batch, sync) {
            tracing::warn!(%error, "deferred changes were not written; their work is done again after a restart");
        }
    }

    /// Whether a thread of the runtime has something to do.
    fn is_busy(&self) -> bool {
        let Some(runtime) = &self.runtime else {
            return false;
        };
        let metrics = runtime.metrics();
        (0..metrics.num_workers()).any(|worker| metrics.worker_park_unpark_count(worker) % 2 == 0)
    }

    /// Tells the writer that there is work, or does it where there is no thread.
    fn signal(self: &Arc<Self>) {
        match self.options.mode {
            WriterMode::Inline => writer::run_inline(self),
            WriterMode::Thread => {
                if !self.signaled.swap(true, Ordering::AcqRel)
                    && let Some(thread) = self.writer_thread.get()
                {
                    thread.unpark();
                }
            }
        }
    }

    /// Refuses everything that is not written yet and everything later.
    fn stop(&self, error: &Error) {
        self.stopped.store(true, Ordering::Release);
        for shard in &self.shards {
            let entries = shard.queue.lock().stop();
            for entry in entries {
                entry.fail(error);
            }
            for (_, waiter) in std::mem::take(&mut *shard.waiters.lock()) {
                let _ = waiter.send(Err(error.clone()));
            }
        }
    }

    /// A write failed: memory is ahead of the disk, so nothing may go on.
    fn fail(&self, error: &Error) {
        tracing::error!(%error, "the log cannot write; the process must stop");
        self.stop(&Error::Stopped);
        let callbacks = std::mem::take(&mut *self.on_fatal.lock());
        for callback in callbacks {
            callback(error);
        }
    }
}
