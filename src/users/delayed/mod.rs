//! Delayed events (MSC4140): what a user has asked to be sent later, and what became of it.
//!
//! The events stand in their user's entity, so that they survive a restart. An index in memory says when each is due
//! and whose it is: an id alone is enough to manage a delayed event. What sends them is not of this crate
//! ([`DelayedSender`]).

mod index;
mod timer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use hearth_core::error::MatrixError;
use hearth_core::random::alphanumeric;
use hearth_core::{SharedClock, SharedRandom};
use hearth_storage::{EntityKey, Family, Log, record, slot_of};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::{Notify, Semaphore};

use crate::error::{Error, Result};
use crate::keys;
use crate::user::User;
use crate::write::Lanes;
use index::Index;

/// Characters of an id: 190 bits, for whoever knows an id may manage the event.
const ID_CHARS: usize = 32;

/// How many locks there are for the ids that are being worked on; two ids share one only by chance.
const LOCKS: usize = 64;

/// How many are sent at once, and how many of one user: one that waits for another server holds up no other, and many of one
/// user those of nobody else.
pub(crate) const SENT_AT_ONCE_MAX: usize = 64;
pub(crate) const SENT_AT_ONCE_OF_USER_MAX: usize = 8;

/// How long it is known what became of a delayed event: as the MSC recommends.
const DONE_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How many of those are kept for each user. NOTSPEC: the MSC recommends 1000, but each may hold a whole event.
const DONE_KEPT_PER_USER_MAX: usize = 200;

/// An event that waits to be sent, or that did wait.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DelayedEvent {
    /// Its id, a secret of whom it was told.
    pub delay_id: String,
    /// Who sends it.
    pub user_id: OwnedUserId,
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event's type.
    pub kind: String,
    /// The state key, where it is a state event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_key: Option<String>,
    /// The content as it was sent here.
    pub content: Box<RawValue>,
    /// How long it waits, in milliseconds.
    pub delay_ms: u64,
    /// When the wait began, in milliseconds since 1970.
    pub scheduled_at: u64,
    /// The time that an application service claims for the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<u64>,
    /// The transaction that scheduled it, hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    txn: Option<String>,
    /// What became of it; none while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Done>,
}

/// What became of a delayed event. One that was neither sent nor refused was cancelled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// When, in milliseconds since 1970.
    pub ts: u64,
    /// The event that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<OwnedEventId>,
    /// The error for which it was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Map<String, Value>>,
}

impl DelayedEvent {
    /// When it is to be sent.
    pub fn due(&self) -> u64 {
        self.scheduled_at.saturating_add(self.delay_ms)
    }
}

/// An event to be sent later.
#[derive(Debug)]
pub struct NewDelayedEvent {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event's type.
    pub kind: String,
    /// The state key, where it is a state event.
    pub state_key: Option<String>,
    /// The content, a JSON object.
    pub content: Box<RawValue>,
    /// How long it waits, in milliseconds.
    pub delay_ms: u64,
    /// The time that an application service claims for the event.
    pub timestamp_ms: Option<u64>,
    /// Names the request, so that the same one schedules nothing more.
    pub txn: Option<String>,
}

/// What a request to delay an event came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delay {
    /// It waits, under this id.
    Scheduled(String),
    /// The user has as many as may wait; the next is due in so many milliseconds.
    TooMany(u64),
}

/// What managing a delayed event came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Managed {
    /// It is as asked, now or already.
    Done,
    /// There is no such delayed event.
    Unknown,
    /// Something else became of it before.
    Conflict,
    /// The event could not be sent; it still waits.
    Refused(Box<MatrixError>),
}

/// Sends a delayed event that is due, with all checks that an event sent now has.
#[async_trait]
pub trait DelayedSender: Send + Sync {
    /// Sends it. The same delayed event sent again gives the same event.
    async fn send(&self, event: &DelayedEvent) -> std::result::Result<OwnedEventId, Box<MatrixError>>;
}

/// The delayed events of all users.
pub struct DelayedEvents {
    log: Arc<Log>,
    lanes: Arc<Lanes>,
    clock: SharedClock,
    random: SharedRandom,
    index: Mutex<Index>,
    sender: OnceLock<Arc<dyn DelayedSender>>,
    /// One thing at a time happens to a delayed event.
    locks: [tokio::sync::Mutex<()>; LOCKS],
    /// Something is due at another time than before.
    news: Notify,
    places: Arc<Semaphore>,
    /// How many of each user are being sent.
    sending: Mutex<HashMap<EntityKey, usize>>,
}

impl DelayedEvents {
    pub(crate) fn new(log: Arc<Log>, lanes: Arc<Lanes>, clock: SharedClock, random: SharedRandom) -> Self {
        Self {
            log,
            lanes,
            clock,
            random,
            index: Mutex::default(),
            sender: OnceLock::new(),
            locks: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            news: Notify::new(),
            places: Arc::new(Semaphore::new(SENT_AT_ONCE_MAX)),
            sending: Mutex::default(),
        }
    }

    /// The delayed event with an id, whoever it belongs to.
    pub fn get(&self, id: &str) -> Result<Option<DelayedEvent>> {
        let Some(user) = self.index.lock().user_of(id) else {
            return Ok(None);
        };
        let row = self
            .log
            .engine()
            .get(Family::DelayedEvent, &keys::delayed_event(user, id))?;
        Ok(row.map(|bytes| record::decode(&bytes)).transpose()?)
    }

    /// Sees to it that the event is never sent.
    pub async fn cancel(&self, id: &str) -> Result<Managed> {
        let _one = self.lock(id).lock().await;
        let Some(event) = self.get(id)? else {
            return Ok(Managed::Unknown);
        };
        match &event.done {
            Some(done) if done.event_id.is_some() => Ok(Managed::Conflict),
            Some(_) => Ok(Managed::Done),
            None => {
                self.finish(event, None, None).await?;
                Ok(Managed::Done)
            }
        }
    }

    /// Lets the whole wait begin again.
    pub async fn restart(&self, id: &str) -> Result<Managed> {
        let _one = self.lock(id).lock().await;
        let Some(mut event) = self.get(id)? else {
            return Ok(Managed::Unknown);
        };
        if event.done.is_some() {
            return Ok(Managed::Conflict);
        }
        event.scheduled_at = self.clock.now_ms();
        self.store(&event).await?;
        self.news.notify_one();
        Ok(Managed::Done)
    }

    /// Sends the event now. Where that is refused, it goes on waiting.
    pub async fn send(&self, id: &str) -> Result<Managed> {
        let _one = self.lock(id).lock().await;
        let Some(event) = self.get(id)? else {
            return Ok(Managed::Unknown);
        };
        match &event.done {
            Some(done) if done.event_id.is_some() => return Ok(Managed::Done),
            Some(_) => return Ok(Managed::Conflict),
            None => {}
        }
        match self.sender()?.send(&event).await {
            Ok(sent) => {
                self.finish(event, Some(sent), None).await?;
                Ok(Managed::Done)
            }
            Err(error) => Ok(Managed::Refused(error)),
        }
    }

    fn sender(&self) -> Result<&Arc<dyn DelayedSender>> {
        let missing = || Error::Internal("delayed events have no sender".to_owned());
        self.sender.get().ok_or_else(missing)
    }

    fn lock(&self, id: &str) -> &tokio::sync::Mutex<()> {
        &self.locks[usize::from(slot_of(id).get()) % LOCKS]
    }

    /// Writes down what became of an event, and forgets what is no longer to be known.
    async fn finish(
        &self,
        mut event: DelayedEvent,
        event_id: Option<OwnedEventId>,
        error: Option<Map<String, Value>>,
    ) -> Result<()> {
        event.done = Some(Done {
            ts: self.clock.now_ms(),
            event_id,
            error,
        });
        self.store(&event).await
    }

    async fn store(&self, event: &DelayedEvent) -> Result<()> {
        let id = event.delay_id.as_str();
        let Some(user) = self.index.lock().user_of(id) else {
            return Ok(());
        };
        let now = self.clock.now_ms();
        self.lanes
            .write(user.slot, |tx| {
                let row = keys::delayed_event(user, id);
                tx.put(Family::DelayedEvent, row, record::encode(event));
                let mut index = self.index.lock();
                index.put(user, event);
                for old in index.prune(user, now.saturating_sub(DONE_KEPT_MS), DONE_KEPT_PER_USER_MAX) {
                    tx.delete(Family::DelayedEvent, keys::delayed_event(user, &old));
                }
                Ok(())
            })
            .await
    }
}

/// Clients choose transaction ids of any length; these have one.
fn name_of_txn(txn: &str) -> String {
    blake3::hash(txn.as_bytes()).to_hex().to_string()
}

impl User {
    /// Schedules an event, unless as many as `most` wait already.
    pub async fn delay_event(&self, new: NewDelayedEvent, most: usize) -> Result<Delay> {
        let delayed = &self.users.delayed;
        let now = self.users.clock.now_ms();
        let txn = new.txn.as_deref().map(name_of_txn);
        let outcome = delayed
            .lanes
            .write(self.key.slot, |tx| {
                let mut index = delayed.index.lock();
                if let Some(known) = txn.as_deref().and_then(|txn| index.of_txn(self.key, txn)) {
                    return Ok(Delay::Scheduled(known));
                }
                let (count, next) = index.waiting(self.key);
                if count >= most {
                    return Ok(Delay::TooMany(next.unwrap_or(now).saturating_sub(now).max(1)));
                }
                let event = DelayedEvent {
                    delay_id: alphanumeric(delayed.random.as_ref(), ID_CHARS),
                    user_id: self.id.clone(),
                    room_id: new.room_id,
                    kind: new.kind,
                    state_key: new.state_key,
                    content: new.content,
                    delay_ms: new.delay_ms,
                    scheduled_at: now,
                    timestamp_ms: new.timestamp_ms,
                    txn,
                    done: None,
                };
                index.put(self.key, &event);
                let row = keys::delayed_event(self.key, &event.delay_id);
                tx.put(Family::DelayedEvent, row, record::encode(&event));
                Ok(Delay::Scheduled(event.delay_id))
            })
            .await?;
        delayed.news.notify_one();
        Ok(outcome)
    }

    /// The id that a transaction of this user got.
    pub async fn delayed_of_txn(&self, txn: &str) -> Result<Option<String>> {
        let delayed = &self.users.delayed;
        let txn = name_of_txn(txn);
        // An operation that changes nothing waits until what it has read is durable.
        let look = delayed
            .lanes
            .write(self.key.slot, |_| Ok(delayed.index.lock().of_txn(self.key, &txn)));
        look.await
    }

    /// One of this user's delayed events.
    pub fn delayed_event(&self, id: &str) -> Result<Option<DelayedEvent>> {
        Ok(self
            .users
            .delayed
            .get(id)?
            .filter(|event| event.user_id == self.id))
    }

    /// This user's events that wait, the next one first.
    pub fn delayed_events(&self) -> Result<Vec<DelayedEvent>> {
        let delayed = &self.users.delayed;
        let ids = delayed.index.lock().waiting_ids(self.key);
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(delayed.get(&id)?.filter(|event| event.done.is_none()));
        }
        Ok(found)
    }
}
