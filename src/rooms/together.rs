//! Sends that are done together.
//!
//! A send runs through far more code than the caches of a processor hold, so that the next one finds little of it there. Sends
//! that are ready at once are therefore gathered: the first of them lets others come, and whoever fills the round, or the
//! first once nobody else is ready, does the work of all. It goes phase by phase, what is under the rooms' locks, then the
//! signatures, then the hand-over to the log, so that each phase has its code at hand. A round is small enough that what its
//! requests brought is still in the caches, too.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hearth_storage::{Position, Record, Ticket};
use parking_lot::Mutex;
use ruma::OwnedEventId;
use tokio::sync::oneshot;

use crate::{
    Error, Room,
    input::{Outcome, Prepared},
    staging::Staged,
};

/// So many sends make a round: in a larger one what the first of them brought has left the caches when the next phase comes to
/// it, in a smaller one the code has to come for fewer.
pub(crate) const ROUND: usize = 16;
/// Threads that send at once have lists of their own, up to so many.
const LISTS: usize = 32;

/// What became of a send, but for whether it is durable.
pub(crate) enum Verdict {
    /// It is with the log.
    Submitted {
        event_id: OwnedEventId,
        /// Whether its effects on others are to be waited for.
        delivers: bool,
    },
    /// The transaction's event exists; it counts once the position is durable.
    Repeat(OwnedEventId, Position),
    /// Something the decision needs is not durable yet: wait for it and try again.
    Wait(Box<Prepared>, Position),
    /// Refused on a head that may be ahead of the disk.
    Refused(Error, Position),
}

/// A verdict, or with what the work on a send panicked.
type Decided = std::thread::Result<Verdict>;

/// When the log says that a record is durable.
type Done = oneshot::Sender<Result<Position, hearth_storage::Error>>;

/// The sends of all rooms that wait for their round.
pub(crate) struct Together {
    lists: [Mutex<List>; LISTS],
}

#[derive(Default)]
struct List {
    round: u64,
    sends: Vec<Waiting>,
}

/// A send that waits for its round.
struct Waiting {
    room: Room,
    prepared: Box<Prepared>,
    txn: Option<[u8; 16]>,
    reply: Reply,
}

/// Where a send hears of itself.
struct Reply {
    decided: Arc<Mutex<Option<Decided>>>,
    done: Done,
}

/// Who began a round: does its work, unless somebody else has, also where the request goes away meanwhile.
struct First<'a> {
    list: &'a Mutex<List>,
    round: u64,
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        let sends = {
            let mut list = self.list.lock();
            if list.round != self.round {
                return;
            }
            list.take()
        };
        work_off(sends);
    }
}

impl List {
    fn take(&mut self) -> Vec<Waiting> {
        self.round += 1;
        let empty = Vec::with_capacity(ROUND);
        std::mem::replace(&mut self.sends, empty)
    }
}

impl Default for Together {
    fn default() -> Self {
        Self {
            lists: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Together {
    /// Decides an event, signs it and hands it to the log, and waits until it is durable there. What is durable is the
    /// position; it is 0 where the verdict is none of an event that was added.
    pub(crate) async fn send(
        &self,
        room: &Room,
        prepared: Box<Prepared>,
        txn: Option<[u8; 16]>,
    ) -> Result<(Verdict, Position), Error> {
        let (done, durable) = oneshot::channel();
        let decided = Arc::new(Mutex::new(None));
        let first = self.push(Waiting {
            room: room.clone(),
            prepared,
            txn,
            reply: Reply {
                decided: decided.clone(),
                done,
            },
        });
        if let Some(first) = first {
            // All requests that are ready come up to here before this one goes on.
            tokio::task::yield_now().await;
            drop(first);
        }
        let durable = durable.await;
        let decided = decided.lock().take();
        match decided.transpose().unwrap_or_else(|panic| resume_unwind(panic)) {
            Some(verdict @ Verdict::Submitted { .. }) => {
                let position = durable.unwrap_or(Err(hearth_storage::Error::Stopped))?;
                Ok((verdict, position))
            }
            Some(verdict) => Ok((verdict, 0)),
            None => Err(hearth_storage::Error::Stopped.into()),
        }
    }

    /// Puts a send into the list of this thread. Whoever fills the round does its work before it returns.
    fn push(&self, send: Waiting) -> Option<First<'_>> {
        let list = &self.lists[own_list()];
        let mut locked = list.lock();
        locked.sends.push(send);
        let count = locked.sends.len();
        if count >= ROUND {
            let sends = locked.take();
            drop(locked);
            work_off(sends);
            return None;
        }
        let round = locked.round;
        drop(locked);
        match count {
            1 => Some(First { list, round }),
            _ => None,
        }
    }
}

/// The number of this thread's list.
fn own_list() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed) % LISTS;
    }
    OWN.with(|own| *own)
}

/// Does the work of a round. A panic is that of the request that it is about.
fn work_off(sends: Vec<Waiting>) {
    let staged: Vec<_> = sends.into_iter().filter_map(Waiting::stage).collect();
    let signed: Vec<_> = staged
        .into_iter()
        .filter_map(|(staged, room, reply)| reply.sign(staged, &room))
        .collect();
    for (ticket, record, done) in signed {
        ticket.submit_to(record, done);
    }
}

impl Waiting {
    fn stage(self) -> Option<(Box<Staged>, Room, Reply)> {
        let Waiting {
            room,
            prepared,
            txn,
            reply,
        } = self;
        let staged = catch_unwind(AssertUnwindSafe(|| {
            room.stage(std::slice::from_ref(&*prepared), txn)
        }));
        let verdict = match staged {
            Ok(Outcome::Staged(staged)) => return Some((staged, room, reply)),
            Ok(Outcome::Repeat(event_id, position)) => Ok(Verdict::Repeat(event_id, position)),
            Ok(Outcome::Wait(position)) => Ok(Verdict::Wait(prepared, position)),
            Ok(Outcome::Refused(error, position)) => Ok(Verdict::Refused(error, position)),
            Err(panic) => Err(panic),
        };
        reply.end(verdict);
        None
    }
}

impl Reply {
    /// Says what became of a send that the log will not hear of.
    fn end(self, decided: Decided) {
        *self.decided.lock() = Some(decided);
    }

    /// Signs what was staged: then the log says the rest.
    fn sign(self, staged: Box<Staged>, room: &Room) -> Option<(Ticket, Record, Done)> {
        let event_id = staged.last_event_id();
        match catch_unwind(AssertUnwindSafe(|| staged.sign(room))) {
            Ok((ticket, record)) => {
                let delivers = !record.outbox.is_empty();
                *self.decided.lock() = Some(Ok(Verdict::Submitted { event_id, delivers }));
                Some((ticket, record, self.done))
            }
            Err(panic) => {
                self.end(Err(panic));
                None
            }
        }
    }
}
