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
    /// Which opening of the shard it is of.
    opened: Opened,
    submitted: bool,
    decided: bool,
}

/// The wait for a submitted record to be durable. The commit goes on if this is dropped.
#[must_use = "the record is not durable before this is ready"]
pub struct Commit {
    position: Position,
    done: Option<oneshot::Receiver<Result<Position, Error>>>,
}

/// How often a shard was opened. Tickets of an earlier time are worth nothing, nor are those of a shard that is not
/// open, which have 0.
pub(crate) type Opened = u64;

/// The positions of a shard that are given and not written.
pub(super) struct Queue {
    /// The position of the first entry, or the next to be given.
    front: Position,
    entries: VecDeque<Entry>,
    state: State,
    opened: Opened,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// What is reserved is still written, and no more is reserved.
    Draining,
    /// The shard may be written by another log.
    Dropped,
    /// The whole log has stopped.
    Stopped,
}

/// An entry that is not taken, and why.
struct Refused(Entry, Error);

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
            state: State::Open,
            opened: 1,
        }
    }

    fn reserve(&mut self) -> (Position, Opened) {
        let position = self.front + self.entries.len() as u64;
        if self.state != State::Open {
            return (position, 0);
        }
        self.entries.push_back(Entry::Open);
        (position, self.opened)
    }

    /// Settles a position; says whether it is the first one. Gives the entry back if the shard is not that of the ticket
    /// any more.
    fn settle(&mut self, position: Position, opened: Opened, entry: Entry) -> Result<bool, Refused> {
        match self.state {
            State::Stopped => return Err(Refused(entry, Error::Stopped)),
            _ if opened != self.opened => return Err(Refused(entry, Error::NotOpen)),
            _ => {}
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
        self.state = State::Stopped;
        std::mem::take(&mut self.entries)
    }

    /// Which opening of the shard this is, where it is open.
    pub(super) fn opened(&self) -> Result<Opened, Error> {
        match self.state {
            State::Open => Ok(self.opened),
            State::Draining | State::Dropped => Err(Error::NotOpen),
            State::Stopped => Err(Error::Stopped),
        }
    }

    /// Reserves no more. Gives the last position that was given.
    pub(super) fn drain(&mut self) -> Result<Position, Error> {
        match self.state {
            State::Open | State::Draining => self.state = State::Draining,
            State::Dropped => return Err(Error::NotOpen),
            State::Stopped => return Err(Error::Stopped),
        }
        Ok(self.front + self.entries.len() as u64 - 1)
    }

    /// Everything that was reserved is settled: from now on another log may write the shard.
    pub(super) fn set_dropped(&mut self) -> Result<(), Error> {
        if self.state != State::Draining {
            return Err(Error::Stopped);
        }
        assert!(self.entries.is_empty(), "a drained shard has nothing to write");
        self.state = State::Dropped;
        // Tickets that were given meanwhile are of no opening, and those of this one were all used.
        self.opened += 1;
        Ok(())
    }

    /// Begins anew after the last position on disk.
    pub(super) fn open(&mut self, head: Position) -> Result<(), Error> {
        if self.state != State::Dropped {
            return Err(Error::Stopped);
        }
        self.front = head + 1;
        self.state = State::Open;
        Ok(())
    }
}

impl Ticket {
    pub(super) fn reserve(inner: &Arc<Inner>, index: usize) -> Ticket {
        let (position, opened) = inner.shards[index].queue.lock().reserve();
        Ticket {
            inner: Arc::clone(inner),
            index,
            position,
            opened,
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
    pub fn submit(self, record: Record) -> Commit {
        let (sender, receiver) = oneshot::channel();
        let position = self.position;
        self.submit_to(record, sender);
        Commit {
            position,
            done: Some(receiver),
        }
    }

    /// As [`Ticket::submit`], with who is told when the record is durable.
    pub fn submit_to(mut self, record: Record, done: oneshot::Sender<Result<Position, Error>>) {
        self.submitted = true;
        let bytes = record.batch.bytes();
        if bytes > RECORD_MAX_BYTES {
            tracing::warn!(
                bytes,
                "a record is larger than it should be; larger work is staged"
            );
        }
        // A number that was given before the shard was last dropped may have been given by another log since.
        let stale = record
            .batch
            .reservations
            .iter()
            .any(|one| !one.is_of(self.opened));
        let filled = Entry::Filled(Box::new(Filled { record, done }));
        match stale {
            true => {
                filled.fail(&Error::NotOpen);
                self.settle(Entry::Void);
            }
            false => self.settle(filled),
        }
    }

    fn settle(&self, entry: Entry) {
        let shard = &self.inner.shards[self.index];
        let settled = shard.queue.lock().settle(self.position, self.opened, entry);
        match settled {
            Ok(true) => {
                shard.ready.store(true, Ordering::Release);
                self.inner.signal();
            }
            Ok(false) => {}
            Err(Refused(entry, error)) => entry.fail(&error),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.submitted {
            // Where the shard was dropped, memory was to be forgotten anyway.
            if self.decided && self.opened != 0 && !self.inner.stopped.load(Ordering::Acquire) {
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
