//! Routing an operation to its entity's shard, and outbox delivery.
//!
//! An effect on another entity is an outbox row of the batch that causes it. [`Cluster`] takes the
//! rows of each published batch to the handlers of their operations, in order for each target, and
//! forgets a row when it is applied. Targets do not wait for each other. After a crash the rows that
//! are left are delivered again, so a handler must find a row that it knows already harmless.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use hearth_storage::{
    Batch, EntityKind, Error, Family, Log, OutboxRow, Position, Published, Record, ShardId, Slot,
    log::decode_outbox, schema::outbox::OutboxKey,
};
use parking_lot::{Mutex, RwLock};
use tokio::{runtime::Handle, sync::Notify};

/// The first pause before a failed delivery is tried again; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest pause between two tries of a delivery.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Where an outbox row stands: shard, position, index. It names the row for good.
pub type Source = (ShardId, Position, u16);

/// Applies outbox rows of one operation to their target entities.
#[async_trait]
pub trait OutboxHandler: Send + Sync {
    /// Applies a row; must do nothing the second time. A failure is tried again, later rows of the
    /// same target wait for it.
    async fn apply(&self, target: &str, payload: &[u8], source: Source) -> Result<(), Error>;
}

type Target = (EntityKind, String);

/// Delivers outbox rows and commits operations to the shard of their entity.
pub struct Cluster {
    log: Arc<Log>,
    handlers: RwLock<HashMap<u8, Arc<dyn OutboxHandler>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where deliveries run; none before [`Cluster::start`].
    runtime: Option<Handle>,
    /// Rows that wait for their target; a target with an entry has a task that empties it.
    queues: HashMap<Target, VecDeque<Arc<Row>>>,
    /// Batches of which rows are left.
    batches: HashMap<(ShardId, Position), Pending>,
}

struct Pending {
    left: usize,
    done: Arc<Notify>,
}

struct Row {
    source: Source,
    row: OutboxRow,
}

impl Cluster {
    /// Listens to what the log publishes; delivers nothing before [`start`](Self::start).
    pub fn new(log: Arc<Log>) -> Arc<Self> {
        let cluster = Arc::new(Self {
            log: log.clone(),
            handlers: RwLock::new(HashMap::new()),
            state: Mutex::new(State::default()),
        });
        let weak = Arc::downgrade(&cluster);
        log.on_publish(Box::new(move |published| {
            if let Some(cluster) = weak.upgrade()
                && !published.outbox.is_empty()
            {
                cluster.published(published);
            }
        }));
        cluster
    }

    /// The log that operations are committed to.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Names the handler of an operation.
    pub fn register(&self, op: u8, handler: Arc<dyn OutboxHandler>) {
        let before = self.handlers.write().insert(op, handler);
        assert!(before.is_none(), "outbox operation {op} has two handlers");
    }

    /// Begins to deliver: first what a crash left, then what is published. Call it within the
    /// runtime, when all handlers are registered.
    pub fn start(self: &Arc<Self>) -> Result<(), Error> {
        self.state.lock().runtime = Some(Handle::current());
        let mut left = Vec::new();
        self.log.engine().scan(Family::Outbox, &[], &[0xff; 16], false, &mut |key, value| {
            if let (Some(key), Some(row)) = (OutboxKey::decode(key), decode_outbox(value)) {
                left.push(Row { source: (key.shard, key.position, key.index), row });
            }
            true
        })?;
        for row in left {
            self.enqueue(row);
        }
        Ok(())
    }

    fn published(self: &Arc<Self>, published: &Published) {
        if self.state.lock().runtime.is_none() {
            // The rows stand in storage, where `start` finds them.
            return;
        }
        for (index, row) in published.outbox.iter().enumerate() {
            let index = u16::try_from(index).expect("the log refuses batches of so many rows");
            self.enqueue(Row { source: (published.shard, published.position, index), row: row.clone() });
        }
    }

    fn enqueue(self: &Arc<Self>, row: Row) {
        let target = (row.row.target_kind, row.row.target.clone());
        let mut state = self.state.lock();
        let batch = state.batches.entry((row.source.0, row.source.1));
        batch.or_insert_with(|| Pending { left: 0, done: Arc::new(Notify::new()) }).left += 1;
        match state.queues.entry(target.clone()) {
            std::collections::hash_map::Entry::Occupied(mut queue) => {
                queue.get_mut().push_back(Arc::new(row));
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(VecDeque::from([Arc::new(row)]));
                let runtime = state.runtime.clone().expect("enqueue comes after start");
                let cluster = self.clone();
                let _within = runtime.enter();
                hearth_core::tasks::spawn("outbox delivery", async move { cluster.empty(target).await });
            }
        }
    }

    /// Delivers a target's rows until none is left.
    async fn empty(self: Arc<Self>, target: Target) {
        loop {
            let row = {
                let mut state = self.state.lock();
                match state.queues.get(&target).and_then(|queue| queue.front().cloned()) {
                    Some(row) => row,
                    None => {
                        state.queues.remove(&target);
                        return;
                    }
                }
            };
            if !self.deliver(&row).await {
                return;
            }
            self.applied(&target, &row);
        }
    }

    /// Applies a row, however often it takes. False when the log has stopped.
    async fn deliver(&self, row: &Row) -> bool {
        let handler = self.handlers.read().get(&row.row.op).cloned();
        let Some(handler) = handler else {
            // A newer version wrote it; this one must not lose it, and cannot apply it.
            tracing::error!(op = row.row.op, "an outbox row has no handler");
            return false;
        };
        let mut pause = RETRY_FIRST;
        loop {
            match handler.apply(&row.row.target, &row.row.payload, row.source).await {
                Ok(()) => return true,
                Err(Error::Stopped) => return false,
                Err(error) => {
                    tracing::warn!(%error, op = row.row.op, "an outbox row could not be applied yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    fn applied(&self, target: &Target, row: &Row) {
        let (shard, position, index) = row.source;
        let mut forget = Batch::new();
        forget.delete(Family::Outbox, OutboxKey { shard, position, index }.encode());
        self.log.defer(forget);
        let mut state = self.state.lock();
        if let Some(queue) = state.queues.get_mut(target) {
            queue.pop_front();
        }
        if let Some(batch) = state.batches.get_mut(&(shard, position)) {
            batch.left -= 1;
            if batch.left == 0 {
                batch.done.notify_waiters();
                state.batches.remove(&(shard, position));
            }
        }
    }

    /// Returns when all rows of a batch are applied. Call it after the batch's commit.
    pub async fn delivered(&self, shard: ShardId, position: Position) {
        loop {
            let done = {
                let state = self.state.lock();
                match state.batches.get(&(shard, position)) {
                    Some(batch) => batch.done.clone().notified_owned(),
                    None => return,
                }
            };
            let mut done = std::pin::pin!(done);
            done.as_mut().enable();
            if !self.state.lock().batches.contains_key(&(shard, position)) {
                return;
            }
            done.await;
        }
    }

    /// Commits one operation to the shard of a slot, and waits for its effects on others. `build`
    /// gets the operation's position.
    pub async fn commit(
        &self,
        slot: Slot,
        build: impl FnOnce(Position) -> Record,
    ) -> Result<Position, Error> {
        let shard = self.log.shard_of(slot);
        let (commit, delivers) = {
            let ticket = self.log.reserve(shard);
            let record = build(ticket.position());
            let delivers = !record.outbox.is_empty();
            (ticket.submit(record), delivers)
        };
        let position = commit.await?;
        if delivers {
            self.delivered(shard, position).await;
        }
        Ok(position)
    }
}
