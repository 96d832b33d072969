//! The delivery of one source shard's outbox: in order for each target, all targets at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use hearth_core::{Shutdown, tasks};
use hearth_storage::schema::outbox::OutboxKey;
use hearth_storage::{Batch, EntityKind, Error, Family, Log, OutboxRow, Position, ShardId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::ledger::Ledger;
use crate::{Handlers, OutboxHandler};

/// The pause after a first failed delivery; it doubles with each further one.
const RETRY_FIRST_MS: u64 = 20;
/// The longest pause.
const RETRY_MAX_MS: u64 = 10_000;
/// After so many panics of its handler, or so many times that it says that it cannot apply it, a row is left where it is: for
/// about half a minute it was tried again.
const TRIES_MAX: u32 = 12;
/// The name of the task.
pub(crate) const TASK: &str = "outbox delivery";
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
    /// The first rows that were there before.
    page: Vec<Row>,
    /// Up to where there may be more of them.
    end: Position,
    /// What was published since.
    queued: Vec<Row>,
}

/// What is published from now on.
pub(crate) type Queue = mpsc::UnboundedReceiver<Vec<Row>>;

/// The delivery of one shard's outbox, which begins anew after a panic.
pub(crate) struct Delivery {
    outbox: Outbox,
    queue: tokio::sync::Mutex<Queue>,
    /// What there was at the start.
    first: Mutex<Option<Leftovers>>,
    stop: Shutdown,
}

impl Delivery {
    /// A delivery that begins with what a former process left.
    pub(crate) fn new(outbox: Outbox, mut queue: Queue, stop: Shutdown) -> Result<Self, Error> {
        Ok(Self {
            first: Mutex::new(Some(outbox.leftovers(&mut queue)?)),
            queue: tokio::sync::Mutex::new(queue),
            outbox,
            stop,
        })
    }

    /// Delivers until the cluster stops.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut queue = self.queue.lock().await;
        let first = self.first.lock().take();
        let leftovers = match first {
            Some(first) => first,
            None => match self.read_again(&mut queue).await {
                Some(found) => found,
                None => return,
            },
        };
        let pump = Pump {
            outbox: self.outbox.clone(),
            targets: BTreeMap::new(),
            running: FuturesUnordered::new(),
        };
        pump.run(leftovers, &mut queue, &self.stop).await;
    }

    /// What is to be delivered after a panic: all that is on the disk, for it is not known what was in hand. Who waits is let
    /// go. None where the cluster stops.
    async fn read_again(&self, queue: &mut Queue) -> Option<Leftovers> {
        loop {
            self.outbox.ledger.forget();
            match self.outbox.leftovers(queue) {
                Ok(found) => return Some(found),
                Err(error) => {
                    tracing::error!(%error, shard = self.outbox.shard.0, "the outbox cannot be read; it is tried again");
                }
            }
            tokio::select! {
                biased;
                () = self.stop.wait() => return None,
                () = tokio::time::sleep(Duration::from_millis(RETRY_MAX_MS)) => {}
            }
        }
    }
}

/// The outbox of one shard, and who applies its rows.
#[derive(Clone)]
pub(crate) struct Outbox {
    pub(crate) log: Arc<Log>,
    pub(crate) shard: ShardId,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) ledger: Arc<Ledger>,
}

impl Outbox {
    /// Where the pump begins: what is on disk from before this process, up to what the queue holds.
    fn leftovers(&self, queue: &mut Queue) -> Result<Leftovers, Error> {
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
        Ok(Leftovers { page, end, queued })
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
}

/// Delivers the rows of one shard.
struct Pump {
    outbox: Outbox,
    /// The targets with a delivery in hand, and what waits behind it.
    targets: BTreeMap<Target, VecDeque<Row>>,
    running: FuturesUnordered<BoxFuture<'static, (Row, bool)>>,
}

impl Pump {
    async fn run(mut self, leftovers: Leftovers, queue: &mut Queue, stop: &Shutdown) {
        let Leftovers { page, end, queued } = leftovers;
        if !self.deliver_leftovers(page, end, stop).await {
            return;
        }
        queued.into_iter().for_each(|row| self.enqueue(row));
        loop {
            tokio::select! {
                biased;
                () = stop.wait() => return,
                Some((row, applied)) = self.running.next(), if !self.running.is_empty() => self.finish(row, applied),
                rows = queue.recv() => match rows {
                    Some(rows) => rows.into_iter().for_each(|row| self.enqueue(row)),
                    None => return,
                },
            }
        }
    }

    /// Delivers what is on disk up to `end`, a page at a time. Says whether to go on.
    async fn deliver_leftovers(&mut self, mut page: Vec<Row>, end: Position, stop: &Shutdown) -> bool {
        while let Some(last) = page.last() {
            let after = (last.position, last.index);
            page.into_iter().for_each(|row| self.enqueue(row));
            while self.targets.len() >= TARGETS_MAX {
                tokio::select! {
                    biased;
                    () = stop.wait() => return false,
                    Some((row, applied)) = self.running.next() => self.finish(row, applied),
                }
            }
            page = match self.outbox.read_page(Some(after), end) {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, shard = self.outbox.shard.0, "the outbox cannot be read; what it holds is late");
                    return true;
                }
            };
            page.iter()
                .for_each(|row| self.outbox.ledger.expect(row.position, 1));
        }
        true
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
        let handler = self.outbox.handlers.read().get(&row.row.op).cloned();
        let shard = self.outbox.shard;
        self.running.push(Box::pin(async move {
            let Some(handler) = handler else {
                tracing::error!(
                    op = row.row.op,
                    "no handler is registered for an outbox row; it is left where it is"
                );
                return (row, false);
            };
            let applied = apply(&*handler, shard, &row).await;
            (row, applied)
        }));
    }

    /// A row is applied: removes it and goes on with the next one of its target.
    fn finish(&mut self, row: Row, applied: bool) {
        if applied {
            let mut batch = Batch::new();
            let key = OutboxKey {
                shard: self.outbox.shard,
                position: row.position,
                index: row.index,
            };
            batch.delete(Family::Outbox, key.encode());
            // With the next commit: if a crash comes first, the row is applied once more.
            self.outbox.log.defer(batch);
        }
        self.outbox.ledger.applied(row.position);
        let target = (row.row.target_kind, row.row.target);
        match self.targets.get_mut(&target).and_then(VecDeque::pop_front) {
            Some(next) => self.deliver(next),
            None => {
                self.targets.remove(&target);
            }
        }
    }
}

/// Applies a row, again and again until it succeeds: what another entity was promised must reach it. Says whether it did. A
/// row that cannot be read, or whose target cannot, never will, and neither will one whose handler panics each time, or finds
/// each time that it cannot be applied though the storage works: it is left where it is until the next start, with one line
/// in the log, so that it holds up neither those behind it nor who waits for its batch.
async fn apply(handler: &dyn OutboxHandler, shard: ShardId, row: &Row) -> bool {
    let source = (shard, row.position, row.index);
    let op = row.row.op;
    let mut pause_ms = RETRY_FIRST_MS;
    let mut tries = 0;
    loop {
        match tasks::caught(TASK, handler.apply(&row.row.target, &row.row.payload, source)).await {
            Some(Ok(())) => return true,
            // The log is closed: nothing can be applied in this life of the shard.
            Some(Err(Error::Stopped)) => std::future::pending().await,
            Some(Err(error)) if !error.may_pass() => {
                tracing::error!(%error, op, target = row.row.target, "an effect cannot be applied and is left where it is");
                tasks::count_skipped(TASK);
                return false;
            }
            // Not for a reason of the storage: that may pass, as a file that cannot be written now, and it may not.
            Some(Err(Error::Apply(reason))) => {
                tries += 1;
                if tries >= TRIES_MAX {
                    tracing::error!(
                        reason,
                        op,
                        target = row.row.target,
                        "an effect cannot be applied and is left where it is"
                    );
                    tasks::count_skipped(TASK);
                    return false;
                }
                tracing::debug!(
                    reason,
                    op,
                    pause_ms,
                    "an effect was not applied; it is tried again"
                )
            }
            Some(Err(error)) => {
                tracing::warn!(%error, op, pause_ms, "an effect was not applied; it is tried again")
            }
            None => {
                tries += 1;
                if tries >= TRIES_MAX {
                    tracing::error!(
                        op,
                        target = row.row.target,
                        "a handler panics again and again; the effect is left where it is"
                    );
                    tasks::count_skipped(TASK);
                    return false;
                }
                tracing::error!(op, pause_ms, "a handler panicked; the effect is tried again")
            }
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(RETRY_MAX_MS);
    }
}
