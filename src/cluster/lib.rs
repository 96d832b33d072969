//! Routing an operation to its entity's shard, and outbox delivery.
//!
//! An operation changes one entity. What it means for another one is an outbox row in the same batch;
//! the pump hands the row to the handler of its operation, which changes the other entity in a batch
//! of that one's own. **Invariant:** a row is removed only after its handler's change is durable, so a
//! row may be applied again after a crash: handlers are idempotent.

mod ledger;
mod pump;
mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use hearth_core::{Shutdown, tasks};
use hearth_storage::{Error, Log, Position, Record, ShardId, Slot};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use ledger::Ledger;
use pump::{Delivery, Outbox, Queue, Row};
pub use sweep::Fate;

/// Where an outbox row stands: shard, position, index. It names the row for good.
pub type Source = (ShardId, Position, u16);

/// Applies the outbox rows of one operation to their targets.
#[async_trait]
pub trait OutboxHandler: Send + Sync {
    /// Applies a row. It may come again with the same source, after a crash or an error, and must then have
    /// no further effect. An error is tried again with a growing pause; later rows of the same target wait. One that will not
    /// pass is not tried again before the next start, and [`Error::Apply`] only for half a minute.
    async fn apply(&self, target: &str, payload: &[u8], source: Source) -> Result<(), Error>;
}

pub(crate) type Handlers = RwLock<BTreeMap<u8, Arc<dyn OutboxHandler>>>;
type Queues = Vec<(ShardId, Queue)>;

/// Delivers effects between entities, whichever shards they are of.
pub struct Cluster {
    log: Arc<Log>,
    handlers: Arc<Handlers>,
    ledgers: BTreeMap<ShardId, Arc<Ledger>>,
    /// What is published, for the pumps; taken by the start.
    queues: Mutex<Option<Queues>>,
    stop: Shutdown,
}

impl Cluster {
    /// A cluster of this process alone. From here on it notes what is published; nothing is delivered
    /// before [`start`](Self::start).
    pub fn new(log: Arc<Log>) -> Arc<Cluster> {
        let mut senders = BTreeMap::new();
        let mut queues = Vec::new();
        let mut ledgers = BTreeMap::new();
        for shard in log.shards() {
            let (sender, receiver) = mpsc::unbounded_channel();
            senders.insert(shard.id, sender);
            queues.push((shard.id, receiver));
            ledgers.insert(shard.id, Arc::new(Ledger::default()));
        }
        let noted = ledgers.clone();
        // Before the batch is published, so that `delivered` finds its rows whenever it is asked.
        log.before_publish(Box::new(move |published| {
            if published.outbox.is_empty() {
                return;
            }
            let rows = published.outbox.iter().zip(0..=u16::MAX);
            let rows: Vec<Row> = rows
                .map(|(row, index)| Row::new(published.position, index, row.clone()))
                .collect();
            if let (Some(ledger), Some(queue)) = (noted.get(&published.shard), senders.get(&published.shard))
            {
                ledger.expect(published.position, rows.len());
                let _ = queue.send(rows);
            }
        }));
        Arc::new(Cluster {
            log,
            handlers: Arc::default(),
            ledgers,
            queues: Mutex::new(Some(queues)),
            stop: Shutdown::new(),
        })
    }

    /// The log that operations are committed to.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Names the handler of an operation. All are named before [`start`](Self::start).
    ///
    /// # Panics
    /// If the operation has a handler already.
    pub fn register(&self, op: u8, handler: Arc<dyn OutboxHandler>) {
        let before = self.handlers.write().insert(op, handler);
        assert!(before.is_none(), "outbox operation {op} has two handlers");
    }

    /// Starts delivery: first what a crash left, then what is published. Call it within the runtime, when
    /// all handlers are registered. A second call does nothing.
    pub fn start(&self) -> Result<(), Error> {
        let Some(queues) = self.queues.lock().take() else {
            return Ok(());
        };
        for (shard, queue) in queues {
            let outbox = Outbox {
                log: Arc::clone(&self.log),
                shard,
                handlers: Arc::clone(&self.handlers),
                ledger: Arc::clone(&self.ledgers[&shard]),
            };
            let delivery = Arc::new(Delivery::new(outbox, queue, self.stop.clone())?);
            tasks::keep_running(pump::TASK, &self.stop, move || Arc::clone(&delivery).run());
        }
        Ok(())
    }

    /// Stops delivery. What is left is delivered after the next start; those who wait for it are let go.
    pub fn stop(&self) {
        self.stop.trigger();
        for ledger in self.ledgers.values() {
            ledger.stop();
        }
    }

    /// Returns when all effects of a committed batch are applied and durable, or when delivery has stopped:
    /// then they are applied after the next start.
    pub async fn delivered(&self, shard: ShardId, position: Position) {
        if let Some(ledger) = self.ledgers.get(&shard) {
            ledger.wait(position).await;
        }
    }

    /// Changes one entity and waits until the change and its effects on others are durable. `build` gets the
    /// position; it runs while later positions of the shard wait for it. Whether new data may be written is
    /// asked by the caller ([`Log::check_writable`]), because a removal goes on when the disk is full.
    pub async fn commit(
        &self,
        slot: Slot,
        build: impl FnOnce(Position) -> Record,
    ) -> Result<Position, Error> {
        let shard = self.log.shard_of(slot);
        let (commit, effects) = {
            let ticket = self.log.reserve(shard);
            let record = build(ticket.position());
            let effects = !record.outbox.is_empty();
            (ticket.submit(record), effects)
        };
        let position = commit.await?;
        if effects {
            self.delivered(shard, position).await;
        }
        Ok(position)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
