//! What other servers tell besides events (server-server API, "EDUs"): typing, receipts, presence, messages to
//! devices, device lists and keys. Each is taken only from the server of the user whom it is about.

mod keys;
mod lists;
mod members;
mod presence;
mod rooms;
mod server_rows;
mod to_device;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use dashmap::DashMap;
use hearth_cluster::Cluster;
use hearth_core::SharedClock;
use hearth_rooms::{Error, Room, Rooms};
use hearth_users::Users;
use ruma::{OwnedRoomId, OwnedUserId, ServerName, UserId};
use serde_json::Value;

use crate::outbound::{Outbound, Transport};
pub use keys::{RemoteClaim, RemoteKeys, WantedDevices, WantedKeys};
use rooms::LateReceipts;
use server_rows::ServerRows;

/// One message of a transaction that is no event.
#[derive(Clone, Debug)]
pub struct Edu {
    kind: String,
    content: Value,
}

impl Edu {
    /// Reads one; nothing where it has no type.
    pub(crate) fn read(mut edu: Value) -> Option<Self> {
        Some(Self {
            kind: edu.get("edu_type")?.as_str()?.to_owned(),
            content: edu.get_mut("content")?.take(),
        })
    }

    /// Whether it must be applied before the events of its transaction.
    pub(crate) fn comes_first(&self) -> bool {
        self.kind == "m.direct_to_device"
    }
}

/// What the handling of EDUs is made of.
pub struct EdusParts {
    /// The log.
    pub cluster: Arc<Cluster>,
    /// How other servers are asked.
    pub transport: Arc<dyn Transport>,
    /// The reader of the feed, which tells who comes into sight.
    pub outbound: Arc<Outbound>,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The local users.
    pub users: Arc<Users>,
    /// The time.
    pub clock: SharedClock,
}

/// Applies EDUs.
pub struct Edus {
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    clock: SharedClock,
    transport: Arc<dyn Transport>,
    rows: ServerRows,
    late_receipts: LateReceipts,
    strangers: presence::Strangers,
    /// Users who went out of rooms, each with the room, until what is kept of them is brought up to date.
    gone: DashMap<OwnedUserId, OwnedRoomId>,
    /// How many messages to devices came.
    to_device_count: AtomicU32,
    /// Held while something of a user's device list is fetched or changed.
    turns: Vec<tokio::sync::Mutex<()>>,
}

/// So many device lists are changed at once: two users seldom share a turn.
const TURNS: usize = 256;

/// What one EDU asks for may be refused, which is logged; that it cannot be stored stops the transaction.
enum Refused {
    /// Why it is left out.
    Because(&'static str),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

type Outcome = Result<(), Refused>;

impl Edus {
    /// The handling of EDUs.
    pub fn new(parts: EdusParts) -> Arc<Self> {
        let EdusParts {
            cluster,
            transport,
            outbound,
            rooms,
            users,
            clock,
        } = parts;
        let edus = Arc::new(Self {
            rows: ServerRows::new(cluster),
            late_receipts: LateReceipts::default(),
            strangers: presence::Strangers::default(),
            gone: DashMap::new(),
            to_device_count: AtomicU32::new(0),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::new(())).collect(),
            transport,
            rooms,
            users,
            clock,
        });
        outbound.watch(edus.clone());
        let weak = Arc::downgrade(&edus);
        edus.rooms.before_change(Box::new(move |changed| {
            if let Some(edus) = weak.upgrade() {
                edus.note_gone(changed);
            }
        }));
        edus
    }

    /// Applies the EDUs of one server, in order. Those that make no sense are left out.
    pub(crate) async fn handle(&self, origin: &ServerName, edus: Vec<Edu>) -> Result<(), Error> {
        for edu in edus {
            match self.apply(origin, &edu).await {
                Ok(()) => {}
                Err(Refused::Because(why)) => {
                    tracing::debug!(%origin, kind = edu.kind, why, "what another server tells is left out");
                }
                Err(Refused::Failed(Error::Storage(error))) => return Err(Error::Storage(error)),
                Err(Refused::Failed(error)) => {
                    tracing::debug!(%origin, kind = edu.kind, %error, "what another server tells is left out");
                }
            }
        }
        Ok(())
    }

    async fn apply(&self, origin: &ServerName, edu: &Edu) -> Outcome {
        let content = &edu.content;
        match &*edu.kind {
            "m.typing" => self.typing(origin, content),
            "m.receipt" => self.receipts(origin, content).await,
            "m.presence" => self.presence(origin, content),
            "m.direct_to_device" => self.to_device(origin, content).await,
            "m.device_list_update" => self.device_list_update(origin, content).await,
            // The second is what servers called it before it was specified.
            "m.signing_key_update" | "org.matrix.signing_key_update" => {
                self.signing_key_update(origin, content).await
            }
            _ => Err(Refused::Because("its type is not known")),
        }
    }

    async fn turn_of(&self, user: &UserId) -> tokio::sync::MutexGuard<'_, ()> {
        let at = hearth_storage::slot_of(user.as_str()).get();
        self.turns[usize::from(at) % TURNS].lock().await
    }

    /// A room has judged all events that waited: what came before them may apply now.
    pub(crate) fn room_is_settled(self: &Arc<Self>, room: &Room) {
        self.apply_late_receipts(room);
    }
}

/// A user whom a server may speak of: its own.
fn user_of<'a>(origin: &ServerName, user: &'a Value) -> Result<&'a UserId, Refused> {
    let user = user.as_str().and_then(|user| <&UserId>::try_from(user).ok());
    let user = user.ok_or(Refused::Because("it names no user"))?;
    if user.server_name() == origin {
        Ok(user)
    } else {
        Err(Refused::Because("it is about a user of another server"))
    }
}
