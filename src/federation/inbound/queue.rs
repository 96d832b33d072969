//! The workers that take events out of rooms' queues: one a room, a bounded number at once, in turns.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use hearth_core::tasks;
use hearth_rooms::{Error, Received, Room};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

use super::Inbound;
use super::rows::{Place, Waiting};

/// So many events of a room are judged before another room has its turn.
const TURN_EVENTS: usize = 16;
/// An event that could not be judged for a passing reason is tried so often.
const ATTEMPTS_MAX: u32 = 4;
/// The pause of a room after a first failure; it doubles with each further one. The last attempt must come when a server
/// that did not answer once is asked again (see `reachability`): 14 seconds after the first.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// The longest pause of a room that keeps failing.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 60);
/// So many events of one room wait at the most, and so many of one server among them.
const ROOM_MAX_EVENTS: usize = 5_000;
const ROOM_MAX_EVENTS_OF_ORIGIN: usize = 2_000;

/// The queue of one room, as far as it is kept in memory.
pub(crate) struct RoomQueue {
    pub(crate) room: Room,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many events of each server wait.
    waiting: BTreeMap<OwnedServerName, usize>,
    is_running: bool,
    /// The last event that was judged.
    done: Option<Place>,
    /// How often in a row the room failed.
    failures: u32,
}

/// What became of one attempt.
enum Attempt {
    Judged,
    /// It may succeed later.
    Failed,
    /// Nothing can be stored in this life of the process.
    Stopped,
}

impl RoomQueue {
    pub(crate) fn new(room: Room) -> Self {
        Self {
            room,
            state: Mutex::default(),
        }
    }

    /// Whether a server may add so many events; if so they count from now on.
    pub(crate) fn admit(&self, origin: &ServerName, count: usize) -> bool {
        let mut state = self.state.lock();
        let all: usize = state.waiting.values().sum();
        let own = state.waiting.get(origin).copied().unwrap_or(0);
        let fits = all + count <= ROOM_MAX_EVENTS && own + count <= ROOM_MAX_EVENTS_OF_ORIGIN;
        if fits {
            *state.waiting.entry(origin.to_owned()).or_default() += count;
        }
        fits
    }

    /// Counts events that were there before the process.
    pub(crate) fn found(&self, origin: OwnedServerName) {
        *self.state.lock().waiting.entry(origin).or_default() += 1;
    }

    fn judged(&self, waiting: &Waiting) {
        let mut state = self.state.lock();
        state.done = Some(waiting.place);
        if let Some(count) = state.waiting.get_mut(&waiting.origin) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.waiting.remove(&waiting.origin);
            }
        }
    }
}

impl Inbound {
    /// Has a room's worker see to its queue.
    pub(crate) fn run(self: &Arc<Self>, queue: &Arc<RoomQueue>) {
        let runs = std::mem::replace(&mut queue.state.lock().is_running, true);
        if !runs {
            tasks::spawn("room inbound", self.clone().work(queue.clone()));
        }
    }

    async fn work(self: Arc<Self>, queue: Arc<RoomQueue>) {
        loop {
            let Ok(turn) = self.turns.clone().acquire_owned().await else {
                return;
            };
            let pause = match self.take_turn(&queue).await {
                Ok(Some(pause)) => pause,
                Ok(None) => {
                    drop(turn);
                    if self.rest(&queue) {
                        return;
                    }
                    continue;
                }
                Err(hearth_rooms::Error::Storage(hearth_storage::Error::Stopped)) => return,
                Err(error) => {
                    tracing::error!(%error, room = %queue.room.id(), "the events that wait for a room cannot be read");
                    PAUSE_MAX / 10
                }
            };
            drop(turn);
            if pause.is_zero() {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Ends the worker if nothing came meanwhile.
    fn rest(&self, queue: &Arc<RoomQueue>) -> bool {
        self.edus.room_is_settled(&queue.room);
        let mut state = queue.state.lock();
        // Under the lock: who stores an event and finds the worker running must be right.
        if matches!(self.rows.next(queue.room.key(), state.done), Ok(Some(_))) {
            return false;
        }
        // Events that count and are not stored yet wake it again when they are.
        state.is_running = false;
        if state.waiting.is_empty() {
            drop(state);
            self.queues
                .remove_if(queue.room.id(), |_, found| Arc::ptr_eq(found, queue));
        }
        true
    }

    /// Judges a room's next events. Gives the pause before its next turn, `None` where its queue is empty.
    async fn take_turn(&self, queue: &RoomQueue) -> Result<Option<Duration>, Error> {
        for _ in 0..TURN_EVENTS {
            if self.shutdown.is_triggered() {
                return Err(Error::Storage(hearth_storage::Error::Stopped));
            }
            let after = queue.state.lock().done;
            let Some(waiting) = self.rows.next(queue.room.key(), after)? else {
                return Ok(None);
            };
            if let Some(pause) = self.judge(queue, &waiting).await? {
                return Ok(Some(pause));
            }
        }
        Ok(Some(Duration::ZERO))
    }

    /// Has the room judge an event, or gives the pause after which it is to be tried again.
    async fn judge(&self, queue: &RoomQueue, waiting: &Waiting) -> Result<Option<Duration>, Error> {
        let attempt = self.attempt(queue, waiting).await;
        let mut state = queue.state.lock();
        let pause = match attempt {
            Attempt::Judged => {
                state.failures = 0;
                None
            }
            Attempt::Stopped => return Err(Error::Storage(hearth_storage::Error::Stopped)),
            Attempt::Failed => {
                state.failures = state.failures.saturating_add(1);
                let doubled = PAUSE_FIRST.saturating_mul(1 << (state.failures - 1).min(16));
                Some(doubled.min(PAUSE_MAX))
            }
        };
        // The last attempts are counted over events: a room that fails with each of them rests longer and longer.
        let is_last = state.failures.is_multiple_of(ATTEMPTS_MAX);
        drop(state);
        if pause.is_none() || is_last {
            if pause.is_some() {
                tracing::warn!(room = %queue.room.id(), origin = %waiting.origin, "an event cannot be received and is dropped");
            }
            queue.judged(waiting);
            self.rows.remove(queue.room.key(), waiting.place);
        }
        Ok(pause)
    }

    async fn attempt(&self, queue: &RoomQueue, waiting: &Waiting) -> Attempt {
        let receiving = self.receive.receive(&queue.room, &waiting.origin, &waiting.pdu);
        let (room, origin) = (queue.room.id(), &waiting.origin);
        match AssertUnwindSafe(receiving).catch_unwind().await {
            Ok(Ok(received)) => {
                if let Received::Rejected(why) = &received {
                    tracing::info!(%room, %origin, why, "an event of another server is rejected");
                }
                Attempt::Judged
            }
            Ok(Err(Error::Storage(hearth_storage::Error::Stopped))) => Attempt::Stopped,
            Ok(Err(error @ (Error::Storage(_) | Error::Remote(_)))) => {
                tracing::info!(%error, %room, %origin, "an event of another server cannot be received now");
                Attempt::Failed
            }
            Ok(Err(error)) => {
                tracing::info!(%error, %room, %origin, "an event of another server is dropped");
                Attempt::Judged
            }
            Err(_) => {
                tracing::error!(%room, %origin, "receiving an event of another server panicked");
                Attempt::Failed
            }
        }
    }
}
