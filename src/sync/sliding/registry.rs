//! The connections that are in memory. One that nobody used for a while is stored and let go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use hearth_users::User;
use parking_lot::{Mutex, MutexGuard};
use ruma::OwnedUserId;
use tokio::sync::watch;

use super::{connection::Connection, request::Request, stored};
use crate::{Error, SlidingPos, SyncEngine};

/// Connections of one device in memory; the one that was used longest ago gives way.
const CONNECTIONS_PER_DEVICE_MAX: usize = 16;

/// A connection that nobody used for so long is let go of.
const IDLE_MS: u64 = 10 * 60 * 1000;

/// A connection in use is stored with each answer, but so often at most. What was sent since is sent again after a crash.
const STORE_INTERVAL_MS: u64 = 1_000;

/// A user and a device.
type DeviceKey = (OwnedUserId, String);

/// All connections, by user and device.
///
/// Lock order: one connection, then the state of an index. The map is held with neither.
#[derive(Default)]
pub(crate) struct Connections {
    devices: DashMap<DeviceKey, Vec<Arc<Slot>>>,
}

/// The place of a connection.
struct Slot {
    user: User,
    device: String,
    conn_id: String,
    connection: Mutex<Connection>,
    /// Held while it is stored.
    storing: tokio::sync::Mutex<()>,
    /// Which request it belongs to: there is one at a time.
    turn: watch::Sender<u64>,
    used_ms: AtomicU64,
}

/// A request's turn on a connection: until another one comes.
pub(super) struct Turn {
    slot: Arc<Slot>,
    number: u64,
}

impl Turn {
    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.slot.connection.lock()
    }

    /// Whether no other request came.
    pub(super) fn is_current(&self) -> bool {
        *self.slot.turn.borrow() == self.number
    }

    /// Waits until another request comes.
    pub(super) async fn replaced(&self) {
        let mut turn = self.slot.turn.subscribe();
        // The sender lives in the slot, which this holds.
        drop(turn.wait_for(|number| *number != self.number).await);
    }
}

impl Connections {
    /// The connection of a request, gone on from the request's position.
    pub(super) fn begin(&self, engine: &SyncEngine, request: &Request) -> Result<Turn, Error> {
        let device = request.device.as_ref().map_or("", |device| device.as_str());
        let pos = match &request.pos {
            Some(text) => Some(SlidingPos::read(&request.user, text)?.ok_or(Error::UnknownPos)?),
            None => None,
        };
        let key = (request.user.id().to_owned(), device.to_owned());
        let now = request.user.users().now_ms();
        let found = self.find(&key, &request.conn_id, now);
        let slot = match found {
            Some(slot) => {
                slot.go_on(engine, pos.as_ref())?;
                slot
            }
            None => {
                let connection = begun(engine, request, device, pos.as_ref())?;
                let slot = Slot::new(request, device, connection, now);
                match self.insert(key, slot) {
                    Ok(slot) => slot,
                    Err(other) => {
                        other.go_on(engine, pos.as_ref())?;
                        other
                    }
                }
            }
        };
        let mut number = 0;
        slot.turn.send_modify(|turn| {
            *turn += 1;
            number = *turn;
        });
        Ok(Turn { slot, number })
    }

    /// The place of a connection, which is used now. No connection is locked while the map is: another request may
    /// hold it for as long as an answer takes.
    fn find(&self, key: &DeviceKey, conn_id: &str, now: u64) -> Option<Arc<Slot>> {
        let slots = self.devices.get(key)?;
        let slot = slots.iter().find(|slot| slot.conn_id == conn_id)?;
        slot.used_ms.store(now, Ordering::Release);
        Some(slot.clone())
    }

    /// Adds the place of a connection; gives the one that another request made meanwhile.
    fn insert(&self, key: DeviceKey, slot: Arc<Slot>) -> Result<Arc<Slot>, Arc<Slot>> {
        let gone = {
            let mut slots = self.devices.entry(key).or_default();
            if let Some(other) = slots.iter().find(|other| other.conn_id == slot.conn_id) {
                return Err(other.clone());
            }
            let gone = make_room(&mut slots);
            slots.push(slot.clone());
            gone
        };
        if let Some(gone) = gone {
            hearth_core::tasks::spawn("sync connection", async move { gone.store().await });
        }
        Ok(slot)
    }

    /// Stores an answer that has something of rooms, and what came back before. One that does more than go on with rooms
    /// that the client has is stored before it is given. What goes on may come once more after a crash, and fits behind
    /// what is there; so it is stored beside, at once or, where others went just before, a little later with what comes
    /// until then.
    pub(super) async fn store_answer(&self, turn: &Turn) {
        let slot = turn.slot.clone();
        let (reframes, after_ms) = {
            let mut connection = slot.connection.lock();
            let has_rooms = connection
                .pending
                .as_ref()
                .is_some_and(|pending| !pending.rooms.is_empty());
            if !has_rooms && connection.unstored.is_empty() {
                return;
            }
            let reframes = connection.reframes();
            if !reframes && std::mem::replace(&mut connection.store_planned, true) {
                return;
            }
            let next = connection.stored_ms.map_or(0, |at| at + STORE_INTERVAL_MS);
            (reframes, next.saturating_sub(slot.user.users().now_ms()))
        };
        if reframes {
            slot.store().await;
            return;
        }
        hearth_core::tasks::spawn("sync connection", async move {
            if after_ms > 0 {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
            }
            slot.store().await;
        });
    }

    /// Stores everything: the server stops.
    pub(crate) async fn store_all(&self) {
        for slot in self.slots() {
            slot.store().await;
        }
    }

    /// Lets go of connections that nobody uses.
    pub(crate) async fn sweep(&self) {
        let is_idle = |slot: &Slot| {
            let used = slot.used_ms.load(Ordering::Acquire);
            slot.user.users().now_ms() >= used + IDLE_MS
        };
        for slot in self.slots().into_iter().filter(|slot| is_idle(slot)) {
            slot.store().await;
            let key = (slot.user.id().to_owned(), slot.device.clone());
            if let Some(mut slots) = self.devices.get_mut(&key)
                && is_idle(&slot)
            {
                slots.retain(|one| !Arc::ptr_eq(one, &slot));
            }
        }
        self.devices.retain(|_, slots| !slots.is_empty());
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        let all = self.devices.iter();
        all.flat_map(|slots| slots.value().clone()).collect()
    }
}

impl Slot {
    fn new(request: &Request, device: &str, connection: Connection, now: u64) -> Arc<Self> {
        Arc::new(Self {
            user: request.user.clone(),
            device: device.to_owned(),
            conn_id: request.conn_id.clone(),
            connection: Mutex::new(connection),
            storing: tokio::sync::Mutex::default(),
            turn: watch::Sender::new(0),
            used_ms: AtomicU64::new(now),
        })
    }

    /// Goes on from a position, or begins anew.
    fn go_on(&self, engine: &SyncEngine, pos: Option<&SlidingPos>) -> Result<(), Error> {
        let mut connection = self.connection.lock();
        match pos {
            None => *connection = Connection::new(engine.connection_number()),
            Some(pos) if connection.number == pos.connection && connection.go_on(pos) => {}
            Some(_) => return Err(Error::UnknownPos),
        }
        Ok(())
    }

    async fn store(&self) {
        // One after the other, so that what is older never comes last.
        let _storing = self.storing.lock().await;
        let parts = {
            let mut connection = self.connection.lock();
            connection.store_planned = false;
            connection.stored_ms = Some(self.user.users().now_ms());
            stored::take_parts(&mut connection)
        };
        self.put(parts).await;
    }

    async fn put(&self, parts: Vec<stored::Batch>) {
        for parts in parts {
            let put = self.user.put_connection_parts(&self.device, &self.conn_id, parts);
            // Whoever comes back to a connection that could not be stored begins anew.
            if let Err(error) = put.await {
                tracing::debug!(%error, "a connection of sliding sync could not be stored");
                return;
            }
        }
    }
}

impl SyncEngine {
    /// A number for a connection, that no other one has had. 48 bits keep positions short.
    fn connection_number(&self) -> u64 {
        hearth_core::random::u64(self.random.as_ref()) >> 16
    }

    /// Stores what must survive a restart. To be called before the log is closed.
    pub async fn close(&self) {
        self.connections.store_all().await;
    }
}

/// The connection that a request begins: a new one, or one that was stored.
fn begun(
    engine: &SyncEngine,
    request: &Request,
    device: &str,
    pos: Option<&SlidingPos>,
) -> Result<Connection, Error> {
    let Some(pos) = pos else {
        return Ok(Connection::new(engine.connection_number()));
    };
    let found = stored::load(&request.user, device, &request.conn_id, pos.connection)?;
    let mut connection = found.ok_or(Error::UnknownPos)?;
    match connection.go_on(pos) {
        true => Ok(connection),
        false => Err(Error::UnknownPos),
    }
}

/// Takes out the connection that was used longest ago where there are too many; it is to be stored.
fn make_room(slots: &mut Vec<Arc<Slot>>) -> Option<Arc<Slot>> {
    if slots.len() < CONNECTIONS_PER_DEVICE_MAX {
        return None;
    }
    let used = |at: &usize| slots[*at].used_ms.load(Ordering::Acquire);
    let oldest = (0..slots.len()).min_by_key(used)?;
    Some(slots.remove(oldest))
}
