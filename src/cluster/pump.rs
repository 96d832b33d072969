//! The delivery of one source shard's outbox: in order for each target, all targets at once.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use hearth_storage::schema::outbox::OutboxKey;
use hearth_storage::{Batch, EntityKind, Error, Family, Log, OutboxRow, Position, ShardId};
use tokio::sync::{mpsc, watch};

use crate::ledger::Ledger;
use crate::{Handlers, OutboxHandler};

/// The pause after a first failed delivery; it doubles with each further one.
const RETRY_FIRST_MS: u64 = 20;
/// The longest pause.
const RETRY_MAX_MS: u64 = 10_000;
/// How many rows of a crash are read at a time.
const PAGE_ROWS: usize = 1024;
/// Leftovers are read on only while fewer targets than this have rows in hand.
const TARGETS_MAX: usize = 256;

/// A row on its way.
pub(crate) struct Row {
    position: Position,
    index: u16,
    row: OutboxRow,
}

impl Row {
    pub(crate) fn new(position: Position, index: u16, row: OutboxRow) -> Row {
        Row { position, index, row }
    }
}

type Target = (EntityKind, String);

/// What there is to deliver when the pump begins.
pub(crate) struct Leftovers {
    /// The first rows from before this process.
    page: Vec<Row>,
    /// Up to where there may be more of them.
    end: Position,
    /// What was published since.
    queued: Vec<Row>,
    queue: mpsc::UnboundedReceiver<Vec<Row>>,
}

/// Delivers the rows of one shard.
pub(crate) struct Pump {
    log: Arc<Log>,
    shard: ShardId,
    handlers: Arc<Handlers>,
    ledger: Arc<Ledger>,
    /// The targets with a delivery in hand, and what waits behind it.
    targets: BTreeMap<Target, VecDeque<Row>>,
    running: FuturesUnordered<BoxFuture<'static, (Row, bool)>>,
}

impl Pump {
    pub(crate) fn new(log: Arc<Log>, shard: ShardId, handlers: Arc<Handlers>, ledger: Arc<Ledger>) -> Pump {
        Pump {
            log,
            shard,
            handlers,
            ledger,
            targets: BTreeMap::new(),
            running: FuturesUnordered::new(),
        }
    }

    /// Where the pump begins: what is on disk from before this process, up to what the queue holds.
    pub(crate) fn leftovers(&self, mut queue: mpsc::UnboundedReceiver<Vec<Row>>) -> Result<Leftovers, Error> {
        let mut queued = Vec::new();
        while let Ok(rows) = queue.try_recv() {
            queued.extend(rows);
        }
        // Whatever is queued later has a higher position than all that is on disk now.
        let end = queued
            .first()
            .map_or(self.log.published(self.shard), |row| row.position - 1);
        let page = self.read_page(None, end)?;
        page.iter().for_each(|row| self.ledger.expect(row.position, 1));
        Ok(Leftovers {
            page,
            end,
            queued,
            queue,
        })
    }

    pub(crate) async fn run(mut self, leftovers: Leftovers, mut stop: watch::Receiver<bool>) {
        let Leftovers {
            page,
            end,
            queued,
            mut queue,
        } = leftovers;
        if !self.deliver_leftovers(page, end, &mut stop).await {
            return;
        }
        queued.into_iter().for_each(|row| self.enqueue(row));
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                Some((row, applied)) = self.running.next(), if !self.running.is_empty() => self.finish(row, applied),
                rows = queue.recv() => match rows {
                    Some(rows) => rows.into_iter().for_each(|row| self.enqueue(row)),
                    None => return,
                },
            }
        }
    }

    /// Delivers what is on disk up to `end`, a page at a time. Says whether to go on.
    async fn deliver_leftovers(
        &mut self,
        mut page: Vec<Row>,
        end: Position,
        stop: &mut watch::Receiver<bool>,
    ) -> bool {
        while let Some(last) = page.last() {
            let after = (last.position, last.index);
            page.into_iter().for_each(|row| self.enqueue(row));
            while self.targets.len() >= TARGETS_MAX {
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return false,
                    Some((row, applied)) = self.running.next() => self.finish(row, applied),
                }
            }
            page = match self.read_page(Some(after), end) {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, shard = self.shard.0, "the outbox cannot be read; what it holds is late");
                    return true;
                }
            };
            page.iter().for_each(|row| self.ledger.expect(row.position, 1));
        }
        true
    }

    fn read_page(&self, after: Option<(Position, u16)>, end: Position) -> Result<Vec<Row>, Error> {
        let key = |position, index| {
            OutboxKey {
                shard: self.shard,
                position,
                index,
            }
            .encode()
        };
        let start = match after {
            None => key(0, 0),
            Some((position, u16::MAX)) => key(position + 1, 0),
            Some((position, index)) => key(position, index + 1),
        };
        let mut rows = Vec::new();
        let mut unreadable = 0_u64;
        self.log.engine().scan(
            Family::Outbox,
            &start,
            &key(end + 1, 0),
            false,
            &mut |key, value| {
                match (OutboxKey::decode(key), hearth_storage::log::decode_outbox(value)) {
                    (Some(key), Some(row)) => rows.push(Row::new(key.position, key.index, row)),
                    _ => unreadable += 1,
                }
                rows.len() < PAGE_ROWS
            },
        )?;
        if unreadable > 0 {
            tracing::error!(
                unreadable,
                shard = self.shard.0,
                "outbox rows are not readable and are left where they are"
            );
        }
        Ok(rows)
    }

    /// Starts the delivery of a row, or puts it behind an earlier one to the same target.
    fn enqueue(&mut self, row: Row) {
        let target = (row.row.target_kind, row.row.target.clone());
        match self.targets.get_mut(&target) {
            Some(waiting) => waiting.push_back(row),
            None => {
                self.targets.insert(target, VecDeque::new());
                self.deliver(row);
            }
        }
    }

    fn deliver(&mut self, row: Row) {
        let handler = self.handlers.read().get(&row.row.op).cloned();
        let shard = self.shard;
        self.running.push(Box::pin(async move {
            let Some(handler) = handler else {
                tracing::error!(
                    op = row.row.op,
                    "no handler is registered for an outbox row; it is left where it is"
                );
                return (row, false);
            };
            apply(&*handler, shard, &row).await;
            (row, true)
        }));
    }

    /// A row is applied: removes it and goes on with the next one of its target.
    fn finish(&mut self, row: Row, applied: bool) {
        if applied {
            let mut batch = Batch::new();
            let key = OutboxKey {
                shard: self.shard,
                position: row.position,
                index: row.index,
            };
            batch.delete(Family::Outbox, key.encode());
            // With the next commit: if a crash comes first, the row is applied once more.
            self.log.defer(batch);
        }
        self.ledger.applied(row.position);
        let target = (row.row.target_kind, row.row.target);
        match self.targets.get_mut(&target).and_then(VecDeque::pop_front) {
            Some(next) => self.deliver(next),
            None => {
                self.targets.remove(&target);
            }
        }
    }
}

/// Applies a row, again and again until it succeeds: what another entity was promised must reach it.
async fn apply(handler: &dyn OutboxHandler, shard: ShardId, row: &Row) {
    let source = (shard, row.position, row.index);
    let mut pause_ms = RETRY_FIRST_MS;
    loop {
        let attempt =
            AssertUnwindSafe(handler.apply(&row.row.target, &row.row.payload, source)).catch_unwind();
        match attempt.await {
            Ok(Ok(())) => return,
            // The log is closed: nothing can be applied in this life of the shard.
            Ok(Err(Error::Stopped)) => std::future::pending().await,
            Ok(Err(error)) => {
                tracing::warn!(%error, op = row.row.op, pause_ms, "an effect was not applied; it is tried again")
            }
            Err(_) => tracing::error!(
                op = row.row.op,
                pause_ms,
                "a handler panicked; the effect is tried again"
            ),
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(RETRY_MAX_MS);
    }
}
