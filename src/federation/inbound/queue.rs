//! The workers that take events out of rooms' queues: one a room, a bounded number at once, in turns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hearth_core::{metrics as names, tasks};
use hearth_rooms::{Error, KeyAt, Received, Room};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Inbound;
use super::rows::{Place, Waiting};
use super::status::{OriginStatus, RoomStatus};

/// The name of the task.
pub(super) const TASK: &str = "room inbound";

/// So many events of a room are judged before another room has its turn.
const TURN_EVENTS: usize = 16;
/// A turn that takes longer holds up no other room.
const SLOW_AFTER: Duration = Duration::from_secs(10);
/// An event that could not be judged for a passing reason is tried so often; one that could not be checked is held back
/// then.
const ATTEMPTS_MAX: u32 = 4;
/// The pause of a server's events in a room after a first failure; it doubles with each further one. The last attempt
/// must come when a server that did not answer once is asked again (see `reachability`): 14 seconds after the first.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// The longest pause of a server that keeps failing.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 60);
/// The pause of a room after a failure of this server's own.
const FAILED_PAUSE: Duration = Duration::from_secs(60);
/// So many events of one room wait at the most, and so many of one server among them.
const ROOM_MAX_EVENTS: usize = 5_000;
const ROOM_MAX_EVENTS_OF_ORIGIN: usize = 2_000;
/// So many bytes they have together: most events are far from the 64 KiB that one may have.
const ROOM_MAX_BYTES: usize = 64 << 20;
const ROOM_MAX_BYTES_OF_ORIGIN: usize = 32 << 20;

/// The queue of one room, as far as it is kept in memory.
pub(crate) struct RoomQueue {
    pub(crate) room: Room,
    state: Mutex<State>,
    /// Something was added while the worker waits for servers that fail.
    added: Notify,
}

#[derive(Default)]
struct State {
    /// When the events of each server that wait arrived, the oldest first.
    waiting: BTreeMap<OwnedServerName, Arrivals>,
    is_running: bool,
    /// The last event before which all are judged.
    done: Option<Place>,
    /// Events behind that one which were judged before others, whose servers fail.
    judged: BTreeSet<Place>,
    /// Servers whose events failed last, for a passing reason: theirs wait, those of others do not.
    failing: BTreeMap<OwnedServerName, Failing>,
    /// Events that cannot be checked, for want of a key of another server than the one that sent them: each waits by
    /// itself.
    unchecked: BTreeMap<Place, Failing>,
}

/// When events arrived: how many at which time. And how large they are together.
#[derive(Default)]
struct Arrivals {
    times: VecDeque<(u64, usize)>,
    count: usize,
    bytes: usize,
}

impl Arrivals {
    fn add(&mut self, at_ms: u64, count: usize, bytes: usize) {
        self.count += count;
        self.bytes += bytes;
        match self.times.back_mut() {
            Some((last, events)) if *last == at_ms => *events += count,
            _ => self.times.push_back((at_ms, count)),
        }
    }

    /// The oldest, of such a size, is judged.
    fn take(&mut self, bytes: usize) {
        let Some((_, events)) = self.times.front_mut() else {
            return;
        };
        *events -= 1;
        if *events == 0 {
            self.times.pop_front();
        }
        self.count -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// How a server's events in a room, or one event, fail.
#[derive(Clone, Copy)]
struct Failing {
    /// How often in a row.
    times: u32,
    /// When the next one is tried.
    until: Instant,
}

/// What became of one attempt.
enum Attempt {
    Judged,
    /// It may succeed later.
    Failed,
    /// It cannot be checked now, for want of a key.
    Unchecked(KeyAt),
    /// Nothing can be stored now, or in this life of the process: that says nothing about the event.
    NotStored(hearth_storage::Error),
}

/// What a worker does next.
enum Next {
    /// Another room has its turn, then this one again.
    Again,
    /// Only events of failing servers wait; so long, or until something comes.
    Pause(Duration),
    /// Nothing waits.
    Rest,
}

impl State {
    /// All up to a place are judged.
    fn pass(&mut self, place: Place) {
        self.done = Some(place);
        self.judged.retain(|judged| *judged > place);
    }
}

impl RoomQueue {
    /// The queue of a room in which all up to a place is judged.
    pub(crate) fn new(room: Room, done: Option<Place>) -> Self {
        Self {
            room,
            state: Mutex::new(State {
                done,
                ..State::default()
            }),
            added: Notify::new(),
        }
    }

    /// Whether a server may add so many events, of so many bytes; if so they count from now on.
    pub(crate) fn admit(&self, origin: &ServerName, now_ms: u64, count: usize, bytes: usize) -> bool {
        let mut state = self.state.lock();
        let sum = |of: fn(&Arrivals) -> usize| state.waiting.values().map(of).sum::<usize>();
        let all = (sum(|arrivals| arrivals.count), sum(|arrivals| arrivals.bytes));
        let own = state.waiting.get(origin);
        let own = own.map_or((0, 0), |arrivals| (arrivals.count, arrivals.bytes));
        let fits = all.0 + count <= ROOM_MAX_EVENTS
            && all.1 + bytes <= ROOM_MAX_BYTES
            && own.0 + count <= ROOM_MAX_EVENTS_OF_ORIGIN
            && own.1 + bytes <= ROOM_MAX_BYTES_OF_ORIGIN;
        if fits {
            let arrivals = state.waiting.entry(origin.to_owned()).or_default();
            arrivals.add(now_ms, count, bytes);
        }
        fits
    }

    /// Counts an event that was stored before.
    pub(crate) fn found(&self, origin: OwnedServerName, received_ms: u64, bytes: usize) {
        let mut state = self.state.lock();
        state
            .waiting
            .entry(origin)
            .or_default()
            .add(received_ms, 1, bytes);
    }

    fn judged(&self, waiting: &Waiting, is_first: bool) {
        let mut state = self.state.lock();
        state.unchecked.remove(&waiting.place);
        match is_first {
            true => state.pass(waiting.place),
            false => drop(state.judged.insert(waiting.place)),
        }
        if let Some(arrivals) = state.waiting.get_mut(&waiting.origin) {
            arrivals.take(waiting.pdu.len());
            if arrivals.count == 0 {
                state.waiting.remove(&waiting.origin);
            }
        }
    }

    /// How much waits, whose and since when.
    pub(super) fn status(&self) -> RoomStatus {
        let state = self.state.lock();
        let now = Instant::now();
        let origins = state.waiting.iter().map(|(origin, arrivals)| OriginStatus {
            origin: origin.clone(),
            waiting: arrivals.count,
            oldest_ms: arrivals.times.front().map_or(0, |(at_ms, _)| *at_ms),
            failures: state.failing.get(origin).map_or(0, |failing| failing.times),
            paused: state.failing.get(origin).map_or(Duration::ZERO, |failing| {
                failing.until.saturating_duration_since(now)
            }),
        });
        RoomStatus {
            room: self.room.id().to_owned(),
            origins: origins.collect(),
        }
    }

    fn is_judged(&self, place: Place) -> bool {
        self.state.lock().judged.contains(&place)
    }

    /// Until when an event waits, if it does: because its server's events fail, or it does itself.
    fn waits_until(&self, waiting: &Waiting) -> Option<Instant> {
        let state = self.state.lock();
        let now = Instant::now();
        let of_server = state.failing.get(&waiting.origin);
        let itself = state.unchecked.get(&waiting.place);
        let untils = of_server.into_iter().chain(itself).map(|failing| failing.until);
        untils.max().filter(|until| *until > now)
    }

    /// Counts a failure of a server's event. Says whether it was the event's last attempt.
    fn failed(&self, origin: &ServerName) -> bool {
        let mut state = self.state.lock();
        let failing = state
            .failing
            .entry(origin.to_owned())
            .or_insert_with(Failing::new);
        failing.count();
        // Counted over events: a server that fails with each of them waits longer and longer.
        failing.times.is_multiple_of(ATTEMPTS_MAX)
    }

    /// Counts that an event could not be checked. Says whether it was the last attempt.
    fn not_checked(&self, place: Place) -> bool {
        let mut state = self.state.lock();
        let failing = state.unchecked.entry(place).or_insert_with(Failing::new);
        failing.count();
        failing.times >= ATTEMPTS_MAX
    }
}

impl Failing {
    fn new() -> Self {
        Self {
            times: 0,
            until: Instant::now(),
        }
    }

    fn count(&mut self) {
        self.times = self.times.saturating_add(1);
        let doubled = PAUSE_FIRST.saturating_mul(1 << (self.times - 1).min(16));
        self.until = Instant::now() + doubled.min(PAUSE_MAX);
    }
}

impl Inbound {
    /// Has a room's worker see to its queue.
    pub(crate) fn run(self: &Arc<Self>, queue: &Arc<RoomQueue>) {
        queue.added.notify_one();
        let runs = std::mem::replace(&mut queue.state.lock().is_running, true);
        if !runs {
            tasks::spawn(TASK, self.clone().work(queue.clone()));
        }
    }

    async fn work(self: Arc<Self>, queue: Arc<RoomQueue>) {
        loop {
            let pause = match self.next(&queue).await {
                Some(Ok(Next::Again)) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Some(Ok(Next::Rest)) => match self.rest(&queue) {
                    true => return,
                    false => continue,
                },
                Some(Ok(Next::Pause(pause))) => pause,
                Some(Err(hearth_rooms::Error::Storage(hearth_storage::Error::Stopped))) => return,
                Some(Err(error)) => {
                    tracing::error!(%error, room = %queue.room.id(), "the events that wait for a room cannot be judged now");
                    FAILED_PAUSE
                }
                None => FAILED_PAUSE,
            };
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return,
                () = queue.added.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Waits for the room's turn and takes it. None where it panicked: the worker goes on, for as long as it is said to run
    /// nobody else takes the room's events.
    async fn next(&self, queue: &RoomQueue) -> Option<Result<Next, Error>> {
        // It is never closed.
        let turn = self.turns.acquire().await.ok()?;
        let mut taking = std::pin::pin!(tasks::caught(TASK, self.take_turn(queue)));
        let slow = tokio::select! {
            biased;
            next = &mut taking => return next,
            () = tokio::time::sleep(SLOW_AFTER) => self.slow_turns.try_acquire(),
        };
        // Another room has the place, unless too many are as slow.
        let _place = match slow {
            Ok(slow) => {
                drop(turn);
                slow
            }
            Err(_) => turn,
        };
        taking.await
    }

    /// Ends the worker if nothing came meanwhile.
    fn rest(&self, queue: &Arc<RoomQueue>) -> bool {
        let mut state = queue.state.lock();
        // Under the lock: who stores an event and finds the worker running must be right.
        if matches!(self.rows.next(queue.room.key(), state.done), Ok(Some(_))) {
            return false;
        }
        // Events that count and are not stored yet wake it again when they are.
        state.is_running = false;
        if state.waiting.is_empty() {
            let done = state.done;
            drop(state);
            // The rows of what is judged leave storage a little later.
            if let Some(done) = done {
                self.emptied.insert(queue.room.id().to_owned(), done);
            }
            self.queues
                .remove_if(queue.room.id(), |_, found| Arc::ptr_eq(found, queue));
            // Last: a receipt that comes from now on finds no queue that it could wait for.
            self.edus.room_is_settled(&queue.room);
        }
        true
    }

    /// Judges a room's next events: the oldest first, but those of servers that fail after all others.
    async fn take_turn(&self, queue: &RoomQueue) -> Result<Next, Error> {
        let mut at = queue.state.lock().done;
        let mut is_first = true;
        let mut pause_until: Option<Instant> = None;
        let mut judged = 0;
        while judged < TURN_EVENTS {
            if self.shutdown.is_triggered() {
                return Err(Error::Storage(hearth_storage::Error::Stopped));
            }
            let Some(waiting) = self.rows.next(queue.room.key(), at)? else {
                return Ok(match pause_until {
                    Some(until) => Next::Pause(until.saturating_duration_since(Instant::now())),
                    None => Next::Rest,
                });
            };
            at = Some(waiting.place);
            if queue.is_judged(waiting.place) {
                if is_first {
                    queue.state.lock().pass(waiting.place);
                }
                continue;
            }
            let mut until = queue.waits_until(&waiting);
            if until.is_none() {
                judged += 1;
                if !self.judge(queue, &waiting, is_first).await? {
                    until = queue.waits_until(&waiting);
                }
            }
            if let Some(until) = until {
                is_first = false;
                pause_until = Some(pause_until.map_or(until, |found| found.min(until)));
            }
        }
        Ok(Next::Again)
    }

    /// Has the room judge an event. False where it stays and is to be tried again.
    async fn judge(&self, queue: &RoomQueue, waiting: &Waiting, is_first: bool) -> Result<bool, Error> {
        match self.attempt(queue, waiting).await {
            Attempt::NotStored(error) => return Err(Error::Storage(error)),
            Attempt::Judged => drop(queue.state.lock().failing.remove(&waiting.origin)),
            Attempt::Failed => {
                if !queue.failed(&waiting.origin) {
                    return Ok(false);
                }
                tracing::warn!(room = %queue.room.id(), origin = %waiting.origin, "an event cannot be received and is dropped");
            }
            Attempt::Unchecked(key) => {
                if !queue.not_checked(waiting.place) {
                    return Ok(false);
                }
                self.hold(queue, waiting, &key).await?;
            }
        }
        queue.judged(waiting, is_first);
        let lag_ms = self.clock.now_ms().saturating_sub(waiting.received_ms);
        metrics::histogram!(names::FEDERATION_INBOUND_LAG)
            .record(Duration::from_millis(lag_ms).as_secs_f64());
        self.rows.remove(queue.room.key(), waiting.place);
        Ok(true)
    }

    async fn attempt(&self, queue: &RoomQueue, waiting: &Waiting) -> Attempt {
        let receiving = self.receive.receive(&queue.room, &waiting.origin, &waiting.pdu);
        let (room, origin) = (queue.room.id(), &waiting.origin);
        let Some(received) = tasks::caught(TASK, receiving).await else {
            tracing::error!(%room, %origin, "receiving an event of another server panicked");
            return Attempt::Failed;
        };
        match received {
            Ok(received) => {
                if let Received::Rejected(why) = &received {
                    tracing::info!(%room, %origin, why, "an event of another server is rejected");
                }
                Attempt::Judged
            }
            Err(Error::Storage(
                error @ (hearth_storage::Error::Stopped | hearth_storage::Error::DiskFull),
            )) => Attempt::NotStored(error),
            // What the events before it are, its server must say; if it refuses, it may send the event again.
            Err(Error::Remote(error)) if error.is_final() => {
                tracing::info!(%error, %room, %origin, "an event of another server is dropped");
                Attempt::Judged
            }
            Err(Error::MissingKey(key)) => {
                let server = &key.0;
                tracing::info!(%room, %origin, %server, "an event of another server cannot be checked now");
                Attempt::Unchecked(key)
            }
            Err(error @ (Error::Storage(_) | Error::Remote(_))) => {
                tracing::info!(%error, %room, %origin, "an event of another server cannot be received now");
                Attempt::Failed
            }
            Err(error) => {
                tracing::info!(%error, %room, %origin, "an event of another server is dropped");
                Attempt::Judged
            }
        }
    }
}
