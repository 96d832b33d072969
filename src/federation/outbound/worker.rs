//! The one who sends to a server: one transaction at a time, until it is acknowledged.
//!
//! When a send fails, everything that waits in memory gets its durable row, so that the feed goes on without the
//! server; the worker tries again with growing pauses, or at once when the server is heard of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::{metrics as names, tasks};
use hearth_rooms::Error;
use http::Method;
use ruma::OwnedUserId;
use serde_json::Value;
use tokio::time::Instant;

use super::compose::Transaction;
use super::destination::{Destination, QueuedEvent};
use super::rows::{ListRow, RoomRow};
use super::transport::Failure;
use super::{
    GIVE_UP_FAILURES, Outbound, REFUSALS_MAX, RESPONSE_MAX_BYTES, RETRY_FIRST_MS, RETRY_MAX_MS,
    TRANSACTION_TIMEOUT,
};
use crate::client::{Asker, FedRequest};

/// So many users of whom something waits are asked for the servers of their rooms, once after each failure.
const SENDERS_ASKED_MAX: usize = 100;

/// The name of the task.
pub(super) const TASK: &str = "federation sender";

/// The pause after a failure of this server's own.
const FAILED_PAUSE: Duration = Duration::from_secs(60);

impl Outbound {
    /// Runs until nothing waits for the server. What fails here, or panics, is tried again: as long as this is at work nobody
    /// else is, and the shares of what it has in hand hold up the feed.
    pub(crate) async fn work(self: Arc<Self>, destination: Arc<Destination>) {
        let mut in_hand = None;
        loop {
            if self.shutdown.is_triggered() {
                return;
            }
            match tasks::caught(TASK, self.step(&destination, &mut in_hand)).await {
                Some(Ok(true)) => continue,
                Some(Ok(false)) => return,
                Some(Err(Error::Storage(hearth_storage::Error::Stopped))) => return,
                Some(Err(error)) => {
                    tracing::error!(%error, server = %destination.name, "what waits for a server cannot be read or stored");
                }
                None => {}
            }
            destination.put_back(in_hand.take().map_or_else(Vec::new, |taken| taken.events));
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return,
                () = tokio::time::sleep(FAILED_PAUSE) => {}
            }
        }
    }

    /// Sends one transaction, which is `in_hand` until it is acknowledged or given up; says whether to go on.
    async fn step(
        &self,
        destination: &Arc<Destination>,
        in_hand: &mut Option<Transaction>,
    ) -> Result<bool, Error> {
        if destination.state.lock().is_overfull() {
            self.persist(destination, None).await?;
            destination.state.lock().drop_queue();
        }
        let Some(transaction) = self.compose(destination)? else {
            return Ok(!self.rest(destination));
        };
        if transaction.is_hollow {
            self.settle(destination, transaction).await?;
            return Ok(true);
        }
        destination.state.lock().in_flight = (transaction.events.len(), transaction.ephemera);
        let delivered = self.deliver(destination, in_hand.insert(transaction)).await?;
        destination.state.lock().in_flight = (0, 0);
        match in_hand.take().filter(|_| delivered) {
            Some(transaction) => self.acknowledged(destination, transaction).await?,
            // It was given up; the rows say what is left.
            None => return Ok(!self.shutdown.is_triggered()),
        }
        Ok(true)
    }

    /// Ends the worker if nothing came meanwhile.
    pub(super) fn rest(&self, destination: &Destination) -> bool {
        let mut state = destination.state.lock();
        let rests = state.is_idle();
        state.is_running = !rests;
        rests
    }

    /// Tries until the server takes the transaction, with pauses. False: given up, or the process stops.
    async fn deliver(&self, destination: &Destination, transaction: &mut Transaction) -> Result<bool, Error> {
        let mut refusals = 0;
        loop {
            destination.state.lock().tried_at = Some(Instant::now());
            let failure = match self.attempt(destination, transaction).await? {
                None => return Ok(false),
                Some(Ok(())) => return Ok(true),
                Some(Err(failure)) => failure,
            };
            if matches!(failure.status, Some(400 | 413)) {
                refusals += 1;
                if refusals >= REFUSALS_MAX {
                    tracing::warn!(server = %destination.name, %failure, "a server refuses a transaction; it is dropped");
                    return Ok(true);
                }
            }
            self.failed(destination, &failure);
            self.persist(destination, Some(transaction)).await?;
            if self.is_over(destination)? {
                self.forget(destination).await?;
                return Ok(false);
            }
            if !self.pause(destination, transaction).await? {
                return Ok(false);
            }
        }
    }

    /// One attempt. Meanwhile what comes is kept within its bounds. `None` where the process stops.
    async fn attempt(
        &self,
        destination: &Destination,
        transaction: &mut Transaction,
    ) -> Result<Option<Result<(), Failure>>, Error> {
        let request = FedRequest {
            destination: destination.name.clone(),
            method: Method::PUT,
            path_and_query: format!("/_matrix/federation/v1/send/{}", transaction.id),
            body: Some(transaction.body.clone()),
            timeout: TRANSACTION_TIMEOUT,
            max_response_bytes: RESPONSE_MAX_BYTES,
            asker: Asker::Nobody,
        };
        let mut sending = self.transport.request(request);
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return Ok(None),
                answer = &mut sending => {
                    let outcome = if answer.is_ok() { "acknowledged" } else { "failed" };
                    metrics::counter!(names::FEDERATION_TRANSACTIONS_SENT, "outcome" => outcome).increment(1);
                    return Ok(Some(answer.map(|body| log_refused(destination, &body))));
                }
                () = destination.news.notified() => {
                    if destination.state.lock().is_overfull() {
                        self.persist(destination, Some(transaction)).await?;
                        destination.state.lock().drop_queue();
                    }
                }
            }
        }
    }

    /// Counts a failure and sets the next attempt.
    fn failed(&self, destination: &Destination, failure: &Failure) {
        let mut state = destination.state.lock();
        state.failures = state.failures.saturating_add(1);
        let doubled = RETRY_FIRST_MS.saturating_mul(1 << (state.failures - 1).min(20));
        // A fifth more or less, so that servers that went away together do not come back together.
        let base = doubled.min(RETRY_MAX_MS);
        let jitter = hearth_core::random::u64(&*self.random) % (base / 5 * 2 + 1);
        let pause = base - base / 5 + jitter;
        let pause = pause.max(failure.retry_after_ms.unwrap_or(0).min(RETRY_MAX_MS));
        state.retry_at = Some(Instant::now() + Duration::from_millis(pause));
        state.ephemera.forget_typing();
        tracing::debug!(server = %destination.name, failures = state.failures, pause, %failure, "a server does not take a transaction");
        state.last_error = Some(failure.clone());
        let now_ms = self.clock.now_ms();
        state.failing_since_ms.get_or_insert(now_ms);
    }

    /// Waits for the next attempt; meanwhile what comes gets its durable row. False where the process stops.
    async fn pause(&self, destination: &Destination, transaction: &mut Transaction) -> Result<bool, Error> {
        loop {
            let until = {
                let mut state = destination.state.lock();
                let until = state.retry_at.unwrap_or_else(Instant::now);
                match std::mem::take(&mut state.is_woken) {
                    // Not more often than after the first failure: the server may send and yet not listen.
                    true => {
                        let soonest = state.tried_at.unwrap_or(until) + Duration::from_millis(RETRY_FIRST_MS);
                        let until = until.min(soonest);
                        state.retry_at = Some(until);
                        until
                    }
                    false => until,
                }
            };
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return Ok(false),
                () = tokio::time::sleep_until(until) => return Ok(true),
                () = destination.news.notified() => {
                    self.persist(destination, Some(transaction)).await?;
                    let mut state = destination.state.lock();
                    if state.is_overfull() {
                        state.drop_queue();
                    }
                }
            }
        }
    }

    /// Writes the durable rows of everything that waits in memory, and settles its shares of the feed.
    async fn persist(
        &self,
        destination: &Destination,
        mut transaction: Option<&mut Transaction>,
    ) -> Result<(), Error> {
        let mut rooms = Vec::new();
        let mut lists = Vec::new();
        let (queued, listed) = {
            let state = destination.state.lock();
            let in_flight = transaction.iter().flat_map(|transaction| &transaction.events);
            for event in in_flight.chain(&state.queue) {
                if event.share.is_some() && (event.is_last || !state.rooms.contains_key(&event.room)) {
                    rooms.push((event.room.clone(), event.short));
                }
            }
            let mut listed = Vec::new();
            for (user, work) in &state.lists {
                if !work.is_durable {
                    lists.push(user.clone());
                }
                listed.push((user.clone(), work.shares.len()));
            }
            (state.queue.len(), listed)
        };
        let mut rows = Vec::new();
        for user in lists {
            let before = self.rows.list(&destination.name, &user)?;
            let row = ListRow {
                pending: true,
                ..before
            };
            rows.push((user, row));
        }
        if !rooms.is_empty() || !rows.is_empty() {
            self.rows
                .write(&destination.name, |changes| {
                    for (room, newest) in &rooms {
                        changes.put_room(room, RoomRow { newest: *newest });
                    }
                    for (user, row) in &rows {
                        changes.put_list(user, *row);
                    }
                })
                .await?;
        }
        let mut shares = Vec::new();
        {
            let mut state = destination.state.lock();
            let state = &mut *state;
            let mut note = |event: &mut QueuedEvent, rooms: &mut Vec<QueuedEvent>| {
                shares.extend(event.share.take());
                rooms.push(event.clone());
            };
            let mut noted = Vec::new();
            let in_flight = transaction
                .iter_mut()
                .flat_map(|transaction| &mut transaction.events);
            in_flight.for_each(|event| note(event, &mut noted));
            state
                .queue
                .iter_mut()
                .take(queued)
                .for_each(|event| note(event, &mut noted));
            noted.iter().for_each(|event| state.note_row(event));
            for (user, count) in listed {
                if let Some(work) = state.lists.get_mut(&user) {
                    work.is_durable = true;
                    shares.extend(work.shares.drain(..count.min(work.shares.len())));
                }
            }
        }
        shares.into_iter().for_each(super::tracker::Share::settle);
        Ok(())
    }

    /// The server has a transaction.
    async fn acknowledged(&self, destination: &Destination, transaction: Transaction) -> Result<(), Error> {
        {
            let mut state = destination.state.lock();
            state.failures = 0;
            state.retry_at = None;
            state.last_error = None;
            state.failing_since_ms = None;
        }
        self.settle(destination, transaction).await
    }

    /// Removes the rows that a transaction makes needless.
    async fn settle(&self, destination: &Destination, transaction: Transaction) -> Result<(), Error> {
        let mut rooms = Vec::new();
        let mut lists = Vec::new();
        let mut shares = Vec::new();
        {
            let mut state = destination.state.lock();
            let is_newest = |row: Option<&super::destination::BehindRoom>, short, lossy: bool| {
                row.is_some_and(|row| row.newest == short && row.is_lossy == lossy)
            };
            for event in transaction.events {
                if is_newest(state.rooms.get(&event.room), event.short, false) {
                    state.rooms.remove(&event.room);
                    rooms.push(event.room);
                }
                shares.extend(event.share);
            }
            for (room, newest) in transaction.caught_up {
                if is_newest(state.rooms.get(&room), newest, true) {
                    state.rooms.remove(&room);
                    rooms.push(room);
                }
            }
            for part in transaction.lists {
                if let Some(work) = state.lists.get_mut(&part.user)
                    && work.version == part.version
                    && part.is_all
                {
                    shares.append(&mut work.shares);
                    state.lists.remove(&part.user);
                    lists.push((part.user, part.row));
                } else {
                    // There is more of it.
                    let pending = ListRow {
                        pending: true,
                        ..part.row
                    };
                    lists.push((part.user, pending));
                }
            }
            if let Some(last) = transaction.to_device.last() {
                state.to_device_sent = state.to_device_sent.max(*last);
                let count = transaction.to_device.len();
                state.to_device_waiting = state.to_device_waiting.saturating_sub(count);
                state.to_device_bytes = state.to_device_bytes.saturating_sub(transaction.to_device_bytes);
            }
        }
        let mut written = Ok(());
        if !(rooms.is_empty() && lists.is_empty() && transaction.to_device.is_empty()) {
            let write = self.rows.write(&destination.name, |changes| {
                rooms.iter().for_each(|room| changes.delete_room(room));
                lists.iter().for_each(|(user, row)| changes.put_list(user, *row));
                let sent = transaction.to_device.iter();
                sent.for_each(|position| changes.delete_to_device(*position));
            });
            written = write.await.map(drop);
        }
        // Also where the rows stay: the server has it, and is sent it once more after the next start.
        shares.into_iter().for_each(super::tracker::Share::settle);
        written
    }

    /// Whether it makes no sense to go on: the server has been away for long and shares no room with this one, or with
    /// those users of whom something waits.
    fn is_over(&self, destination: &Destination) -> Result<bool, Error> {
        let (rooms, mut users) = {
            let state = destination.state.lock();
            if state.failures < GIVE_UP_FAILURES {
                return Ok(false);
            }
            let rooms: Vec<_> = state.rooms.keys().cloned().collect();
            let users: BTreeSet<OwnedUserId> = state.lists.keys().cloned().collect();
            (rooms, users)
        };
        for room in rooms {
            let room = self.rooms.get(&room);
            let room = pass_over(Some(room), "whether a server is in a room is not known")?.flatten();
            if room.is_some_and(|room| room.has_server(destination.name.as_str())) {
                return Ok(false);
            }
        }
        for (.., message) in self.rows.to_device(&destination.name, 0, SENDERS_ASKED_MAX)? {
            let sender = message.get("sender").and_then(Value::as_str);
            users.extend(sender.and_then(|sender| OwnedUserId::try_from(sender).ok()));
        }
        for user in users.iter().take(SENDERS_ASKED_MAX) {
            if self.servers_sharing(user)?.contains(&destination.name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Drops everything that waits for a server.
    async fn forget(&self, destination: &Destination) -> Result<(), Error> {
        tracing::info!(server = %destination.name, "a server that shares no room was not reached for long; nothing is sent to it any more");
        self.rows
            .write(&destination.name, |changes| changes.clear())
            .await?;
        let mut state = destination.state.lock();
        state.rooms.clear();
        state.lists.clear();
        state.to_device_sent = state.to_device_last;
        state.to_device_waiting = 0;
        state.to_device_bytes = 0;
        let _ = state.ephemera.take(usize::MAX);
        state.drop_queue();
        state.rooms.clear();
        Ok(())
    }
}

/// Passes over what cannot be read of one event, room or user. A failure that may pass stays one.
pub(super) fn pass_over<T>(
    outcome: Option<Result<T, Error>>,
    comes_of_it: &'static str,
) -> Result<Option<T>, Error> {
    tasks::pass_over(TASK, outcome, Error::is_of_storage, comes_of_it)
}

/// Logs which events a server did not take. They are not sent again: it has judged them.
fn log_refused(destination: &Destination, body: &[u8]) {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let pdus = answer.get("pdus").and_then(Value::as_object);
    for (event, outcome) in pdus.into_iter().flatten() {
        if let Some(error) = outcome.get("error") {
            tracing::debug!(server = %destination.name, event, %error, "a server refuses an event");
        }
    }
}
