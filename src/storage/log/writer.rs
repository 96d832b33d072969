//! The writer: gathers what is ready, writes it in one synced batch, publishes it, wakes committers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hearth_core::metrics as names;
use tokio::sync::oneshot;

use super::ticket::{Entry, Filled};
use super::{
    DEFERRED_INTERVAL, DEFERRED_MAX_OPS, Inner, Published, WriterMode, encode_feed, encode_outbox, put_head,
};
use crate::batch::Segment;
use crate::schema::feed::FeedKey;
use crate::schema::outbox::OutboxKey;
use crate::{Batch, Error, Family, Position, feed};

/// A group takes no further record once it holds this many changes, so that the first in it is not kept
/// waiting by the last.
const GROUP_MAX_OPS: usize = 50_000;
/// Under load so much time at least lies between the beginnings of two writes. A write costs as much as several sends,
/// whatever it holds, so it is to hold more than the few that came in while the one before it was on its way to the disk.
const GROUP_INTERVAL: Duration = Duration::from_micros(500);
/// And so much while the runtime's threads are busy, at most. A write then takes the processors
/// from those who work on what the next one is to hold; without it they come to more in the same time.
const GROUP_INTERVAL_BUSY: Duration = Duration::from_millis(3);
/// So many records in one group are load: fewer come from a few who would all only wait longer.
const GROUP_OF_LOAD: usize = 4;
/// How long a shutdown waits for tickets that are reserved and not filled.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// How often it looks.
const CLOSE_POLL: Duration = Duration::from_millis(5);
/// After this many positions of a shard its feed is trimmed.
const TRIM_INTERVAL_POSITIONS: Position = 16_384;

/// What the writer keeps between groups: its buffers, which are used again.
#[derive(Default)]
pub(super) struct Writer {
    batch: Batch,
    group: Vec<Member>,
    /// The shards from whose queues something was taken.
    touched: Vec<Touched>,
    /// The group as the callbacks see it.
    published: Vec<Published>,
    /// How many records the last group had, and when it was begun.
    last_group: usize,
    began: Option<Instant>,
    /// When deferred changes were last taken along.
    took_deferred: Option<Instant>,
    /// Committers of the group, woken when all of it is published.
    done: Vec<(Position, oneshot::Sender<Result<Position, Error>>)>,
}

/// What was taken from the queue of a shard.
struct Touched {
    index: usize,
    /// The last position, which may be void.
    last: Position,
    /// The last position that has a record: up to it the shard is published.
    last_filled: Option<Position>,
}

/// A record in the group.
struct Member {
    index: usize,
    position: Position,
    filled: Box<Filled>,
}

/// The writer thread.
pub(super) fn run(inner: &Arc<Inner>) {
    let mut writer = Writer::default();
    let mut closing_since = None;
    loop {
        // A swap, not a store: it also takes over what the signaling thread wrote before.
        inner.signaled.swap(false, Ordering::AcqRel);
        if inner.has_work() {
            writer.pace(inner);
        }
        if step_safely(&mut writer, inner) {
            continue;
        }
        if inner.stopped.load(Ordering::Acquire) {
            return;
        }
        if inner.closing.load(Ordering::Acquire) {
            let since = *closing_since.get_or_insert_with(Instant::now);
            let idle = inner.shards.iter().all(|shard| shard.queue.lock().is_empty());
            if idle || since.elapsed() > CLOSE_GRACE {
                return;
            }
            std::thread::park_timeout(CLOSE_POLL);
        } else if !inner.signaled.load(Ordering::Acquire) {
            std::thread::park();
        }
    }
}

/// Does all that is ready in the calling thread. If another call is at it, here or below on the stack,
/// that one does it.
pub(super) fn run_inline(inner: &Arc<Inner>) {
    while inner.has_work() {
        let Some(mut writer) = inner.inline_writer.try_lock() else {
            return;
        };
        while step_safely(&mut writer, inner) {}
    }
}

/// One group commit; a panic of a callback stops the log like a failed write.
fn step_safely(writer: &mut Writer, inner: &Inner) -> bool {
    let step = std::panic::catch_unwind(AssertUnwindSafe(|| writer.step(inner)));
    step.unwrap_or_else(|_| {
        inner.fail(&Error::Engine("the log writer panicked".to_owned()));
        false
    })
}

impl Inner {
    fn has_work(&self) -> bool {
        !self.stopped.load(Ordering::Acquire)
            && (self
                .shards
                .iter()
                .any(|shard| shard.ready.load(Ordering::Acquire))
                || self.deferred.lock().len() >= DEFERRED_MAX_OPS)
    }

    /// Moves the mark up to which a shard is settled, and wakes those who wait for it.
    fn settle(&self, index: usize, position: Position) {
        let shard = &self.shards[index];
        shard.settled.fetch_max(position, Ordering::AcqRel);
        let mut waiters = shard.waiters.lock();
        if waiters.is_empty() {
            return;
        }
        let mut woken = Vec::new();
        waiters.retain_mut(|(wanted, sender)| {
            if *wanted > position {
                return true;
            }
            woken.push(std::mem::replace(sender, oneshot::channel().0));
            false
        });
        drop(waiters);
        for sender in woken {
            let _ = sender.send(Ok(()));
        }
    }
}

impl Writer {
    /// Waits for more records where many came last time: for a moment, and longer while some are still being made.
    fn pace(&self, inner: &Inner) {
        let Some(began) = self.began.filter(|_| self.last_group >= GROUP_OF_LOAD) else {
            return;
        };
        loop {
            let elapsed = began.elapsed();
            if elapsed >= GROUP_INTERVAL_BUSY || (elapsed >= GROUP_INTERVAL && !inner.is_busy()) {
                return;
            }
            std::thread::sleep(GROUP_INTERVAL.min(GROUP_INTERVAL_BUSY - elapsed));
        }
    }

    /// Writes one group. Says whether there was anything.
    fn step(&mut self, inner: &Inner) -> bool {
        if inner.stopped.load(Ordering::Acquire) {
            return false;
        }
        self.gather(inner);
        if self.group.is_empty() {
            // Only voids, or nothing: no disk is needed.
            for touched in self.touched.drain(..) {
                inner.settle(touched.index, touched.last);
            }
            if inner.deferred.lock().len() >= DEFERRED_MAX_OPS {
                inner.write_deferred(false);
            }
            return false;
        }
        self.encode(inner);
        let started = Instant::now();
        (self.last_group, self.began) = (self.group.len(), Some(started));
        let written = inner.engine.write(&self.batch, true);
        metrics::histogram!(names::LOG_WRITE).record(started.elapsed().as_secs_f64());
        metrics::histogram!(names::LOG_GROUP_SIZE).record(self.group.len() as f64);
        match written {
            Ok(()) => self.publish(inner),
            Err(error) => {
                inner.fail(&error);
                for member in self.group.drain(..) {
                    let _ = member.filled.done.send(Err(Error::Stopped));
                }
            }
        }
        self.touched.clear();
        self.batch.clear();
        true
    }

    /// Takes the settled entries from the front of every queue.
    fn gather(&mut self, inner: &Inner) {
        let mut ops = 0;
        for (index, shard) in inner.shards.iter().enumerate() {
            if !shard.ready.load(Ordering::Acquire) {
                continue;
            }
            // Cleared before the queue is read: an entry that comes later sets it again.
            shard.ready.store(false, Ordering::Release);
            let mut queue = shard.queue.lock();
            let (mut last, mut last_filled) = (None, None);
            while ops < GROUP_MAX_OPS {
                let Some((position, entry)) = queue.pop() else {
                    break;
                };
                last = Some(position);
                if let Entry::Filled(filled) = entry {
                    last_filled = Some(position);
                    ops += filled.record.batch.len();
                    self.group.push(Member {
                        index,
                        position,
                        filled,
                    });
                }
            }
            if ops >= GROUP_MAX_OPS {
                shard.ready.store(true, Ordering::Release);
            }
            if let Some(last) = last {
                self.touched.push(Touched {
                    index,
                    last,
                    last_filled,
                });
            }
        }
    }

    /// Puts the group's rows, feed, outbox and heads into one batch.
    fn encode(&mut self, inner: &Inner) {
        self.take_deferred(inner);
        for at in 0..self.group.len() {
            let member = &mut self.group[at];
            let (shard, position) = (inner.shards[member.index].id, member.position);
            let record = &mut member.filled.record;
            let start = self.batch.len();
            for reservation in &record.batch.reservations {
                reservation.put_counter(&mut self.batch);
            }
            self.batch.append(std::mem::take(&mut record.batch));
            if !record.feed.is_empty() {
                self.batch.put(
                    Family::Feed,
                    FeedKey { shard, position }.encode(),
                    encode_feed(&record.feed),
                );
            }
            for (row, index) in record.outbox.iter().zip(0..=u16::MAX) {
                let key = OutboxKey {
                    shard,
                    position,
                    index,
                }
                .encode();
                self.batch.put(Family::Outbox, key, encode_outbox(row));
            }
            let end = self.batch.len();
            self.batch.segments.push(Segment {
                shard,
                position,
                start,
                end,
            });
            let index = self.group[at].index;
            if self.group.get(at + 1).is_none_or(|next| next.index != index) {
                put_head(shard, position, &mut self.batch);
                trim(inner, index, position, &mut self.batch);
            }
        }
    }

    /// Takes deferred changes along, if it is time. Simulations take them always, so that every run is the same.
    fn take_deferred(&mut self, inner: &Inner) {
        let mut deferred = inner.deferred.lock();
        let waits = inner.options.mode == WriterMode::Thread
            && deferred.len() < DEFERRED_MAX_OPS
            && self
                .took_deferred
                .is_some_and(|last| last.elapsed() < DEFERRED_INTERVAL);
        if waits {
            return;
        }
        self.batch.append(std::mem::take(&mut *deferred));
        drop(deferred);
        inner.cursors.take_unwritten(&mut self.batch);
        self.took_deferred = Some(Instant::now());
    }

    /// The group is durable: makes it visible and wakes its committers.
    fn publish(&mut self, inner: &Inner) {
        for member in self.group.drain(..) {
            let Filled { record, done } = *member.filled;
            // Before the position is published: who reads up to it finds them.
            if !record.feed.is_empty() {
                inner.shards[member.index]
                    .tail
                    .push(member.position, &record.feed);
            }
            self.done.push((member.position, done));
            self.published.push(Published {
                shard: inner.shards[member.index].id,
                position: member.position,
                feed: record.feed,
                outbox: record.outbox,
                note: record.note,
            });
        }
        let callbacks = inner.callbacks.read();
        for published in &self.published {
            callbacks.before.iter().for_each(|callback| callback(published));
        }
        for touched in &self.touched {
            // Not up to a void at the end: the disk does not know of it, so after a restart its position is given
            // again, and who was told that it is published would believe to have seen what stands there.
            if let Some(position) = touched.last_filled {
                inner.shards[touched.index]
                    .published
                    .fetch_max(position, Ordering::AcqRel);
            }
        }
        for published in &self.published {
            callbacks.after.iter().for_each(|callback| callback(published));
        }
        drop(callbacks);
        self.published.clear();
        // Names are released only now, when the entity can be read.
        self.batch.reservations.clear();
        for touched in self.touched.drain(..) {
            inner.settle(touched.index, touched.last);
        }
        for (position, done) in self.done.drain(..) {
            let _ = done.send(Ok(position));
        }
    }
}

/// Removes what every duty has read from a shard's feed, now and then.
fn trim(inner: &Inner, index: usize, position: Position, batch: &mut Batch) {
    let shard = &inner.shards[index];
    let before = shard.published.load(Ordering::Acquire);
    if before / TRIM_INTERVAL_POSITIONS == position / TRIM_INTERVAL_POSITIONS {
        return;
    }
    match feed::trimmable(inner.engine(), shard.id, before) {
        Ok(Some(read)) => feed::trim_in(shard.id, read, batch),
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "a feed is not trimmed"),
    }
}
