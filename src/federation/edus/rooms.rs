//! Typing and receipts of remote users.

use std::collections::VecDeque;
use std::sync::Arc;

use dashmap::DashMap;
use hearth_core::{limits, tasks};
use hearth_rooms::{Error, Membership, ReceiptKind, Room};
use ruma::{EventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Map, Value};

use super::{Edus, Outcome, Refused, user_of};

/// So long a remote user is shown as typing where nothing more is heard: servers repeat it before.
const TYPING_MS: u64 = 30_000;
/// So many receipts of one transaction are looked at.
const RECEIPTS_MAX: usize = 1_000;
/// So many receipts wait for the events of a room, and so many rooms have such.
const LATE_MAX: usize = 100;
const LATE_ROOMS_MAX: usize = 1_000;

/// A receipt on an event that is not there yet: it may wait in the room's queue.
#[derive(Clone)]
pub(super) struct LateReceipt {
    user: OwnedUserId,
    thread: Option<String>,
    event_id: String,
    ts: u64,
}

pub(super) type LateReceipts = DashMap<OwnedRoomId, VecDeque<LateReceipt>>;

/// Whether a remote user is in a room; while most members are not known, whoever may be.
fn may_be_in(room: &Room, user: &UserId) -> Result<bool, Error> {
    Ok(match room.membership(user)? {
        Membership::Join => true,
        Membership::None => room.is_partial() && room.may_have_server(user.server_name()),
        _ => false,
    })
}

impl Edus {
    /// A room of this server in which a remote user is, and whose access list admits the server.
    fn room_of(&self, origin: &ServerName, room_id: &RoomId) -> Result<Room, Refused> {
        let room = self.rooms.get(room_id)?.filter(Room::is_resident);
        let room = room.ok_or(Refused::Because("the room is not known here"))?;
        if room.acl_allows(origin)? {
            Ok(room)
        } else {
            Err(Refused::Because("the room does not admit the server"))
        }
    }

    pub(super) fn typing(&self, origin: &ServerName, content: &Value) -> Outcome {
        let user = user_of(origin, &content["user_id"])?;
        let room_id = content["room_id"].as_str().and_then(|id| RoomId::parse(id).ok());
        let room_id = room_id.ok_or(Refused::Because("it names no room"))?;
        let room = self.room_of(origin, &room_id)?;
        if !may_be_in(&room, user)? {
            return Err(Refused::Because("the user is not in the room"));
        }
        let typing = content["typing"].as_bool().unwrap_or(false);
        room.set_typing(user, typing.then_some(TYPING_MS));
        Ok(())
    }

    pub(super) async fn receipts(&self, origin: &ServerName, content: &Value) -> Outcome {
        let rooms = content.as_object().ok_or(Refused::Because("it is no object"))?;
        let mut left = RECEIPTS_MAX;
        for (room_id, by_kind) in rooms {
            let Ok(room_id) = RoomId::parse(room_id) else {
                continue;
            };
            let Ok(room) = self.room_of(origin, &room_id) else {
                continue;
            };
            // Private receipts are for nobody else, so other servers have none to tell.
            let public = by_kind.get(ReceiptKind::Public.word()).and_then(Value::as_object);
            for (user, receipt) in public.unwrap_or(&Map::new()) {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                let Ok(user) = <&UserId>::try_from(user.as_str()) else {
                    continue;
                };
                if user.server_name() == origin && may_be_in(&room, user)? {
                    self.receipt(&room, user, receipt).await?;
                }
            }
        }
        Ok(())
    }

    async fn receipt(&self, room: &Room, user: &UserId, receipt: &Value) -> Result<(), Error> {
        let data = &receipt["data"];
        let thread = data["thread_id"].as_str();
        let ts = data["ts"].as_u64().unwrap_or_else(|| self.clock.now_ms());
        let ids = receipt["event_ids"].as_array();
        let ids = ids.into_iter().flatten().filter_map(Value::as_str);
        let fits = |id: &&str| !id.is_empty() && id.len() <= limits::ID_MAX_BYTES;
        for event_id in ids.filter(fits).take(1) {
            let late = LateReceipt {
                user: user.to_owned(),
                thread: thread.map(str::to_owned),
                event_id: event_id.to_owned(),
                ts,
            };
            match apply(room, &late).await {
                Err(Error::NotFound(_)) => self.keep(room.id(), late),
                // For a thread that the event is not in, as this server knows it.
                Err(Error::InvalidParam(_)) => {}
                applied => applied?,
            }
        }
        Ok(())
    }

    fn keep(&self, room: &RoomId, receipt: LateReceipt) {
        if self.late_receipts.len() >= LATE_ROOMS_MAX && !self.late_receipts.contains_key(room) {
            return;
        }
        let mut late = self.late_receipts.entry(room.to_owned()).or_default();
        if late.len() >= LATE_MAX {
            late.pop_front();
        }
        late.push_back(receipt);
    }

    /// The rooms in which receipts wait for their events.
    pub(crate) fn rooms_with_late_receipts(&self) -> Vec<OwnedRoomId> {
        self.late_receipts
            .iter()
            .map(|entry| entry.key().clone())
            .collect()
    }

    /// Applies the receipts that waited for their events. Of those that have not come with the events that waited, it is
    /// kept what their servers say.
    pub(super) fn apply_late_receipts(self: &Arc<Self>, room: &Room) {
        let Some((_, late)) = self.late_receipts.remove(room.id()) else {
            return;
        };
        let room = room.clone();
        tasks::spawn("late receipts", async move {
            for receipt in late {
                let applied = match apply(&room, &receipt).await {
                    Err(Error::NotFound(_)) => apply_unknown(&room, &receipt).await,
                    applied => applied,
                };
                match applied {
                    Ok(()) | Err(Error::InvalidParam(_)) => {}
                    Err(error) => {
                        tracing::warn!(%error, room = %room.id(), "a receipt of a remote user is not stored");
                    }
                }
            }
        });
    }
}

/// Whether there is the thread that a receipt names: of others nothing is kept, which would have no bound.
fn is_in_thread(room: &Room, receipt: &LateReceipt) -> Result<bool, Error> {
    let thread = receipt.thread.as_deref();
    thread.map_or(Ok(true), |thread| room.may_be_thread(thread, &receipt.event_id))
}

/// Keeps a receipt on an event that did not come.
async fn apply_unknown(room: &Room, receipt: &LateReceipt) -> Result<(), Error> {
    let LateReceipt {
        user,
        thread,
        event_id,
        ts,
    } = receipt;
    match is_in_thread(room, receipt)? {
        true => {
            room.set_receipt_on_unknown(user, thread.as_deref(), event_id, *ts)
                .await
        }
        false => Ok(()),
    }
}

async fn apply(room: &Room, receipt: &LateReceipt) -> Result<(), Error> {
    let LateReceipt {
        user,
        thread,
        event_id,
        ts,
    } = receipt;
    let unknown = || Error::NotFound("not known here".to_owned());
    let event_id = EventId::parse(&**event_id).map_err(|_| unknown())?;
    if !is_in_thread(room, receipt)? {
        return Err(unknown());
    }
    room.set_receipt_of(user, ReceiptKind::Public, thread.as_deref(), &event_id, *ts)
        .await
}
