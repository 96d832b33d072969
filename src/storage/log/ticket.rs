//! Tickets: positions that are given before their records exist.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::{Inner, RECORD_MAX_BYTES, Record};
use crate::{Error, Position, ShardId};

/// The right, and the duty, to fill a position of a shard.
#[must_use = "positions behind a ticket wait for it"]
pub struct Ticket {
    inner: Arc<Inner>,
    index: usize,
    position: Position,
    submitted: bool,
    decided: bool,
}

/// The wait for a submitted record to be durable. The commit goes on if this is dropped.
#[must_use = "the record is not durable before this is ready"]
pub struct Commit {
    position: Position,
    done: Option<oneshot::Receiver<Result<Position, Error>>>,
}

/// The positions of a shard that are given and not written.
pub(super) struct Queue {
    /// The position of the first entry, or the next to be given.
    front: Position,
    entries: VecDeque<Entry>,
    stopped: bool,
}

pub(super) enum Entry {
    /// Reserved.
    Open,
    /// Given up.
    Void,
    /// Ready to be written.
    Filled(Box<Filled>),
}

pub(super) struct Filled {
    pub(super) record: Record,
    pub(super) done: oneshot::Sender<Result<Position, Error>>,
}

impl Entry {
    pub(super) fn fail(self, error: &Error) {
        if let Entry::Filled(filled) = self {
            let _ = filled.done.send(Err(error.clone()));
        }
    }
}

impl Queue {
    pub(super) fn new(head: Position) -> Queue {
        Queue {
            front: head + 1,
            entries: VecDeque::new(),
            stopped: false,
        }
    }

    fn reserve(&mut self) -> Position {
        self.entries.push_back(Entry::Open);
        self.front + self.entries.len() as u64 - 1
    }

    /// Settles a position; says whether it is the first one. Gives the entry back if the log has stopped.
    fn settle(&mut self, position: Position, entry: Entry) -> Result<bool, Entry> {
        if self.stopped {
            return Err(entry);
        }
        let at = (position - self.front) as usize;
        self.entries[at] = entry;
        Ok(at == 0)
    }

    /// The first entry, if it is settled, and its position.
    pub(super) fn pop(&mut self) -> Option<(Position, Entry)> {
        if matches!(self.entries.front()?, Entry::Open) {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.front += 1;
        Some((self.front - 1, entry))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes everything out; later tickets are refused.
    pub(super) fn stop(&mut self) -> VecDeque<Entry> {
        self.stopped = true;
        std::mem::take(&mut self.entries)
    }
}

impl Ticket {
    pub(super) fn reserve(inner: &Arc<Inner>, index: usize) -> Ticket {
        let position = inner.shards[index].queue.lock().reserve();
        Ticket {
            inner: Arc::clone(inner),
            index,
            position,
            submitted: false,
            decided: false,
        }
    }

    /// Says that memory has moved on by what the record will have: from now on the ticket must be submitted. To give
    /// it up, as a panic does, stops the log like a failed write, because memory would stay ahead of the disk for good.
    pub fn decide(&mut self) {
        self.decided = true;
    }

    /// The position.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.inner.shards[self.index].id
    }

    /// Fills the position. The record is written as soon as everything before it in the shard is settled,
    /// whether or not the returned future is awaited.
    pub fn submit(mut self, record: Record) -> Commit {
        self.submitted = true;
        let bytes = record.batch.bytes();
        if bytes > RECORD_MAX_BYTES {
            tracing::warn!(
                bytes,
                "a record is larger than it should be; larger work is staged"
            );
        }
        let (sender, receiver) = oneshot::channel();
        self.settle(Entry::Filled(Box::new(Filled { record, done: sender })));
        Commit {
            position: self.position,
            done: Some(receiver),
        }
    }

    fn settle(&self, entry: Entry) {
        let shard = &self.inner.shards[self.index];
        let settled = shard.queue.lock().settle(self.position, entry);
        match settled {
            Ok(true) => {
                shard.ready.store(true, Ordering::Release);
                self.inner.signal();
            }
            Ok(false) => {}
            Err(entry) => entry.fail(&Error::Stopped),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.submitted {
            if self.decided && !self.inner.stopped.load(Ordering::Acquire) {
                self.inner.fail(&Error::Engine(
                    "an operation that was decided could not be written".to_owned(),
                ));
            }
            self.settle(Entry::Void);
        }
    }
}

impl Commit {
    /// The position that is being committed.
    pub fn position(&self) -> Position {
        self.position
    }
}

impl Future for Commit {
    type Output = Result<Position, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(done) = &mut self.done else {
            return Poll::Ready(Err(Error::Stopped));
        };
        let result = std::task::ready!(Pin::new(done).poll(context));
        self.done = None;
        Poll::Ready(result.unwrap_or(Err(Error::Stopped)))
    }
}
