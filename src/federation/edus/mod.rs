//! What other servers tell besides events (server-server API, "EDUs"): typing, receipts, presence, messages to
//! devices, device lists and keys. Each is taken only from the server of the user whom it is about.

mod rooms;

use std::sync::Arc;

use hearth_core::SharedClock;
use hearth_rooms::{Error, Room, Rooms};
use hearth_users::Users;
use ruma::{ServerName, UserId};
use serde_json::Value;

use rooms::LateReceipts;

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
    late_receipts: LateReceipts,
}

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
        let EdusParts { rooms, users, clock } = parts;
        Arc::new(Self {
            late_receipts: LateReceipts::default(),
            rooms,
            users,
            clock,
        })
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
            _ => Err(Refused::Because("its type is not known")),
        }
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
