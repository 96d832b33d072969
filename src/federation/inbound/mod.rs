//! What other servers send (server-server API, "Transactions").
//!
//! A transaction's messages to devices are applied first. Its events are checked for form, then stored in the queues of
//! their rooms; then the server has its answer. A worker for each room has the room judge them, one after the other;
//! rooms take turns, so that one slow room holds up no other. **Invariant:** an event is in its room's queue, durable,
//! before the transaction is answered; it leaves it when the room has judged it. What cannot be checked, for want of a
//! key, is held back beside it, and so is what comes while the room is being joined.

mod arriving;
mod held;
mod outside;
mod queue;
mod rows;
mod status;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dashmap::DashMap;
use hearth_cluster::Cluster;
use hearth_core::limits::ID_MAX_BYTES;
use hearth_core::{MatrixError, SharedClock, Shutdown, tasks};
use hearth_events::Pdu;
use hearth_rooms::{Error, KeyAt, Received, Room, Rooms};
use hearth_users::Users;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::ServerKeys;
use crate::edus::{Edu, Edus};
use crate::outbound::{EDUS_MAX, Outbound, PDUS_MAX};
use arriving::{Arriving, Kept};
use held::Held;
use queue::RoomQueue;
use rows::{Place, Rows};
pub use status::{OriginStatus, RoomStatus};

/// So many rooms judge events at once. Most of that time they wait for other servers.
const ROOMS_AT_ONCE_MAX: usize = 64;
/// So many more do whose turn takes long, for the servers that they ask: these hold up no other.
const SLOW_ROOMS_MAX: usize = 256;
/// So many answers are kept, to give them again to who did not get them, and so many bytes of them.
const ANSWERS_MAX: usize = 10_000;
const ANSWERS_MAX_BYTES: u64 = 32 << 20;
/// Of so many rooms whose queue is empty it is remembered up to where: without that, what is judged and not off the disk
/// yet would be judged once more, which does no harm.
const EMPTIED_MAX: usize = 10_000;
/// Locks of servers that send nothing now are dropped above this number.
const ORIGINS_MAX: usize = 10_000;
/// So long the EDUs of a transaction with events of a room that is being joined wait for the end of the join, as receipts on
/// these events are of no use before. A sender waits for about a minute.
const JOIN_WAIT: Duration = Duration::from_secs(20);

/// Why an event is refused where more cannot wait.
const TOO_MANY: &str = "Too many events wait for this room";

/// How a room judges an event: as rooms do, or a test's stand-in.
#[async_trait]
pub trait Receive: Send + Sync {
    /// The whole receipt procedure.
    async fn receive(&self, room: &Room, origin: &ServerName, pdu: &[u8]) -> Result<Received, Error>;

    /// Whether any of some keys, for want of which events cannot be checked, can be had now.
    async fn has_any_key(&self, wanted: &[KeyAt]) -> bool;
}

/// The receipt procedure of rooms.
pub struct RoomReceive {
    keys: Arc<ServerKeys>,
}

impl RoomReceive {
    /// The receipt procedure, with the keys of servers.
    pub fn new(keys: Arc<ServerKeys>) -> Self {
        Self { keys }
    }
}

#[async_trait]
impl Receive for RoomReceive {
    async fn receive(&self, room: &Room, origin: &ServerName, pdu: &[u8]) -> Result<Received, Error> {
        room.receive(origin, pdu).await
    }

    async fn has_any_key(&self, wanted: &[KeyAt]) -> bool {
        !self.keys.keys(wanted).await.is_empty()
    }
}

/// What the intake is made of.
pub struct InboundParts {
    /// The log.
    pub cluster: Arc<Cluster>,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The local users.
    pub users: Arc<Users>,
    /// How rooms judge events.
    pub receive: Arc<dyn Receive>,
    /// What becomes of what is no event.
    pub edus: Arc<Edus>,
    /// The queues to other servers, woken by servers that are heard of.
    pub outbound: Arc<Outbound>,
    /// The time.
    pub clock: SharedClock,
    /// The signal to stop.
    pub shutdown: Shutdown,
}

/// The intake of other servers' transactions.
pub struct Inbound {
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    rows: Rows,
    receive: Arc<dyn Receive>,
    edus: Arc<Edus>,
    outbound: Arc<Outbound>,
    clock: SharedClock,
    shutdown: Shutdown,
    queues: DashMap<OwnedRoomId, Arc<RoomQueue>>,
    /// Up to where the queues were judged that are empty now.
    emptied: quick_cache::sync::Cache<OwnedRoomId, Place>,
    held: Held,
    arriving: Arriving,
    turns: Semaphore,
    slow_turns: Semaphore,
    answers: quick_cache::sync::Cache<(OwnedServerName, String), Arc<Answer>, AnswerWeight>,
    /// A server sends one transaction at a time; one that comes twice waits for the first.
    origins: DashMap<OwnedServerName, Arc<tokio::sync::Mutex<()>>>,
}

/// The answer to a transaction, and how large it is.
struct Answer {
    body: Value,
    bytes: usize,
}

/// What an answer weighs: its text, and three times that as it lies in memory.
#[derive(Clone)]
struct AnswerWeight;

impl quick_cache::Weighter<(OwnedServerName, String), Arc<Answer>> for AnswerWeight {
    fn weight(&self, (origin, txn_id): &(OwnedServerName, String), answer: &Arc<Answer>) -> u64 {
        (200 + origin.as_str().len() + txn_id.len() + 4 * answer.bytes) as u64
    }
}

#[derive(Deserialize)]
struct Transaction<'a> {
    #[serde(borrow, default)]
    pdus: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    edus: Vec<&'a RawValue>,
}

impl<'a> Transaction<'a> {
    fn read(body: &'a [u8]) -> Result<Self, MatrixError> {
        // An array would be read for the structure, too.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(MatrixError::bad_json("A transaction is a JSON object"));
        }
        let transaction: Self = serde_json::from_slice(body)
            .map_err(|error| MatrixError::bad_json(format!("The transaction cannot be read: {error}")))?;
        if transaction.pdus.len() > PDUS_MAX || transaction.edus.len() > EDUS_MAX {
            let sentence = format!("A transaction has at most {PDUS_MAX} PDUs and {EDUS_MAX} EDUs");
            return Err(MatrixError::bad_json(sentence));
        }
        Ok(transaction)
    }

    /// Its EDUs, but for those that cannot be read.
    fn edus(&self) -> impl Iterator<Item = Edu> {
        let values = self
            .edus
            .iter()
            .map(|edu| serde_json::from_str::<Value>(edu.get()));
        values.flatten().filter_map(Edu::read)
    }
}

/// Reads a transaction as far as no room is needed for it; how many events and EDUs make sense. For those who want to know
/// whether anything that others may send does harm there.
///
/// # Errors
/// What the sender would be told.
pub fn examine(body: &[u8]) -> Result<(usize, usize), MatrixError> {
    let transaction = Transaction::read(body)?;
    let mut pdus = 0;
    for text in transaction.pdus.iter().map(|pdu| pdu.get().as_bytes()) {
        let read = Pdu::parse(unknown_rules(), text);
        if read.is_err() {
            let _ = id_of_malformed(text);
        }
        pdus += usize::from(room_of(text).is_some() && read.is_ok());
    }
    let edus = transaction.edus().count();
    Ok((pdus, edus))
}

/// The events of a transaction for one room.
type OfRoom<'a> = BTreeMap<OwnedRoomId, Vec<(String, &'a [u8])>>;

impl Inbound {
    /// The intake. Nothing runs before [`start`](Self::start).
    pub fn new(parts: InboundParts) -> Arc<Self> {
        let InboundParts {
            cluster,
            rooms,
            users,
            receive,
            edus,
            outbound,
            clock,
            shutdown,
        } = parts;
        Arc::new(Self {
            rows: Rows::new(cluster),
            queues: DashMap::new(),
            emptied: quick_cache::sync::Cache::new(EMPTIED_MAX),
            held: Held::default(),
            arriving: Arriving::default(),
            turns: Semaphore::new(ROOMS_AT_ONCE_MAX),
            slow_turns: Semaphore::new(SLOW_ROOMS_MAX),
            answers: quick_cache::sync::Cache::with_weighter(ANSWERS_MAX, ANSWERS_MAX_BYTES, AnswerWeight),
            origins: DashMap::new(),
            rooms,
            users,
            receive,
            edus,
            outbound,
            clock,
            shutdown,
        })
    }

    /// Goes on with what a former process left. Needs a runtime.
    pub fn start(self: &Arc<Self>) -> Result<(), Error> {
        let mut held = Vec::new();
        for (room_id, key, arrivals) in self.rows.leftovers()? {
            let room = match self.rooms.get(&room_id) {
                Ok(Some(room)) => room,
                Ok(None) => {
                    // It was being joined, and is not here.
                    for arrival in &arrivals {
                        self.rows.remove(key, arrival.place);
                    }
                    continue;
                }
                // The start of the server must not hang on it.
                Err(error) => {
                    tracing::error!(%error, room = %room_id, "the events that wait for a room are left, as it cannot be read");
                    tasks::count_skipped(queue::TASK);
                    continue;
                }
            };
            let (of_room, waiting): (Vec<_>, Vec<_>) = arrivals
                .into_iter()
                .partition(|arrival| rows::is_held(arrival.place));
            held.extend(
                of_room
                    .into_iter()
                    .map(|arrival| (room_id.clone(), arrival.place)),
            );
            if waiting.is_empty() {
                continue;
            }
            let queue = self.queue(room);
            for arrival in waiting {
                queue.found(arrival.origin, arrival.received_ms, arrival.bytes);
            }
            self.run(&queue);
        }
        let inbound = self.clone();
        tasks::spawn("events that waited for keys", async move {
            inbound.release_all(held).await
        });
        let inbound = self.clone();
        tasks::keep_running("events that wait for keys", &self.shutdown, move || {
            inbound.clone().watch_held()
        });
        Ok(())
    }

    /// Takes a transaction in: `PUT /_matrix/federation/v1/send/{txnId}`. `origin` is the server that signed the
    /// request. The answer says for each event what was wrong with it, if anything; it comes when everything is stored.
    pub async fn transaction(
        self: &Arc<Self>,
        origin: &ServerName,
        txn_id: &str,
        body: &[u8],
    ) -> Result<Value, MatrixError> {
        let transaction = Transaction::read(body)?;
        // The server tries again later, and nothing is taken in by half.
        self.rooms
            .log()
            .check_writable()
            .map_err(|error| failed(&Error::Storage(error)))?;
        self.outbound.wake(origin);
        self.held.heard_of(origin);
        let lock = self.lock_of(origin);
        let _one_at_a_time = lock.lock().await;
        let name = (origin.to_owned(), txn_id.to_owned());
        if let Some(answer) = self.answers.get(&name) {
            return Ok(answer.body.clone());
        }
        let (first, later): (Vec<Edu>, Vec<Edu>) = transaction.edus().partition(Edu::comes_first);
        self.edus
            .handle(origin, first)
            .await
            .map_err(|error| failed(&error))?;
        let (pdus, joined) = self
            .take_pdus(origin, &transaction.pdus)
            .await
            .map_err(|error| failed(&error))?;
        if !later.is_empty() {
            let all =
                futures::future::join_all(joined.iter().map(|room_id| self.rooms.joined_or_not(room_id)));
            let _ = tokio::time::timeout(JOIN_WAIT, all).await;
        }
        self.edus
            .handle(origin, later)
            .await
            .map_err(|error| failed(&error))?;
        self.settle_receipts().map_err(|error| failed(&error))?;
        let body = json!({ "pdus": pdus });
        let answer = Answer {
            bytes: body.to_string().len(),
            body: body.clone(),
        };
        self.answers.insert(name, Arc::new(answer));
        Ok(body)
    }

    fn lock_of(&self, origin: &ServerName) -> Arc<tokio::sync::Mutex<()>> {
        if self.origins.len() > ORIGINS_MAX {
            self.origins.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        self.origins.entry(origin.to_owned()).or_default().clone()
    }

    /// Checks the events and stores those that rooms must judge; gives what is answered for each, and the rooms among theirs
    /// that are being joined.
    async fn take_pdus(
        self: &Arc<Self>,
        origin: &ServerName,
        pdus: &[&RawValue],
    ) -> Result<(Map<String, Value>, Vec<OwnedRoomId>), Error> {
        let mut answers = Map::new();
        let mut now = Vec::new();
        let mut joined: BTreeMap<OwnedRoomId, Vec<&[u8]>> = BTreeMap::new();
        for pdu in pdus {
            let text = pdu.get().as_bytes();
            let Some(room_id) = room_of(text) else {
                tracing::debug!(%origin, "an event of another server names no room");
                continue;
            };
            match self.is_coming_in(&room_id)? {
                true => joined.entry(room_id).or_default().push(text),
                false => now.push((room_id, text)),
            }
        }
        for (room_id, texts) in &joined {
            let outcome = match self.keep_for_join(origin, room_id, texts).await? {
                Kept::Yes => json!({}),
                Kept::Refused => json!({ "error": TOO_MANY }),
                Kept::Over => {
                    now.extend(texts.iter().map(|text| (room_id.clone(), *text)));
                    continue;
                }
            };
            // The room's version is not known: the id may be another one.
            let ids = texts.iter().map(|text| id_of_any(text));
            answers.extend(ids.map(|id| (id, outcome.clone())));
        }
        self.take_events(origin, now, &mut answers).await?;
        Ok((answers, joined.into_keys().collect()))
    }

    /// Checks events and stores those that rooms must judge; adds what is answered for each.
    async fn take_events(
        self: &Arc<Self>,
        origin: &ServerName,
        events: Vec<(OwnedRoomId, &[u8])>,
        answers: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        let mut by_room: OfRoom<'_> = BTreeMap::new();
        for (room_id, text) in events {
            let (id, outcome) = self.check(origin, &room_id, text).await?;
            let outcome = match outcome {
                Checked::Queue => {
                    by_room.entry(room_id).or_default().push((id.clone(), text));
                    json!({})
                }
                Checked::Done => json!({}),
                Checked::Refused(why) => json!({ "error": why }),
            };
            answers.insert(id, outcome);
        }
        let now = self.clock.now_ms();
        let mut stored = Vec::new();
        for (room_id, events) in &by_room {
            let Some(room) = self.rooms.get(room_id)? else {
                continue;
            };
            let queue = self.queue(room);
            let bytes = events.iter().map(|(_, text)| text.len()).sum();
            if !queue.admit(origin, now, events.len(), bytes) {
                for (id, _) in events {
                    answers.insert(id.clone(), json!({ "error": TOO_MANY }));
                }
                continue;
            }
            stored.push(async move {
                let texts: Vec<&[u8]> = events.iter().map(|(_, text)| *text).collect();
                self.rows.add(&queue.room, origin, now, &texts).await?;
                self.run(&queue);
                Ok::<_, Error>(())
            });
        }
        futures::future::try_join_all(stored).await?;
        Ok(())
    }

    /// Checks what can be checked at once; gives the event's id.
    async fn check(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        text: &[u8],
    ) -> Result<(String, Checked), Error> {
        let room = self.rooms.get(room_id)?;
        let rules = room.as_ref().map_or(unknown_rules(), Room::rules);
        let pdu = match Pdu::parse(rules, text) {
            Ok(pdu) => pdu,
            Err(error) => return Ok((id_of_malformed(text), Checked::Refused(error.to_string()))),
        };
        let id = pdu.event_id.to_string();
        let Some(room) = room.filter(Room::is_resident) else {
            return self.take_outside(origin, room_id, text).await;
        };
        let outcome = if !room.acl_allows(origin)? {
            Checked::Refused("The room's access control list does not admit this server".to_owned())
        } else {
            let known = room.event_by_id(&pdu.event_id)?;
            match known.is_some_and(|event| !event.header.flags.has(hearth_rooms::Flags::OUTLIER)) {
                true => Checked::Done,
                false => Checked::Queue,
            }
        };
        Ok((id, outcome))
    }

    /// Receipts on events that are not here wait for no event where none is on its way.
    fn settle_receipts(&self) -> Result<(), Error> {
        for room_id in self.edus.rooms_with_late_receipts() {
            if !self.queues.contains_key(&room_id)
                && let Some(room) = self.rooms.get(&room_id)?
            {
                self.edus.room_is_settled(&room);
            }
        }
        Ok(())
    }

    fn queue(&self, room: Room) -> Arc<RoomQueue> {
        let new = || Arc::new(RoomQueue::new(room.clone(), self.emptied.get(room.id())));
        let mut queue = self.queues.entry(room.id().to_owned()).or_insert_with(new);
        // What waited for a room that was purged went with it. Where that is joined anew it is another one.
        if queue.room.key() != room.key() {
            *queue = new();
        }
        queue.clone()
    }
}

/// What is to be done with an event.
pub(crate) enum Checked {
    /// The room must judge it.
    Queue,
    /// Nothing.
    Done,
    /// It is refused, and why.
    Refused(String),
}

fn failed(error: &Error) -> MatrixError {
    tracing::warn!(%error, "a transaction of another server could not be taken in");
    MatrixError::new(
        503,
        hearth_core::error::errcode::UNKNOWN,
        "The transaction cannot be stored now",
    )
}

fn room_of(text: &[u8]) -> Option<OwnedRoomId> {
    #[derive(Deserialize)]
    struct OfRoom<'a> {
        #[serde(borrow)]
        room_id: Cow<'a, str>,
    }
    let event: OfRoom<'_> = serde_json::from_slice(text).ok()?;
    RoomId::parse(&*event.room_id).ok()
}

/// The rules by which events of rooms are read whose version is not known: good for an id to answer with.
fn unknown_rules() -> &'static hearth_events::Rules {
    hearth_events::rules(&ruma::RoomVersionId::V11).expect("version 11 is known")
}

/// A name for an event of a room whose version is not known.
fn id_of_any(text: &[u8]) -> String {
    match Pdu::parse(unknown_rules(), text) {
        Ok(pdu) => pdu.event_id.to_string(),
        Err(_) => id_of_malformed(text),
    }
}

/// A name for an event that cannot be read: its own, if that is one that an event may have, or its hash.
fn id_of_malformed(text: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Named {
        event_id: String,
    }
    let hash = || format!("${}", hearth_events::base64_encode(blake3::hash(text).as_bytes()));
    let named = serde_json::from_slice::<Named>(text).ok();
    let named = named.filter(|named| named.event_id.len() <= ID_MAX_BYTES);
    named.map_or_else(hash, |named| named.event_id)
}
