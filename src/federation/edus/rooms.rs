//! Typing and receipts of remote users.

use std::collections::VecDeque;
use std::sync::Arc;

use dashmap::DashMap;
use hearth_core::tasks;
use hearth_rooms::{Error, Membership, ReceiptKind, Room};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
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
    event_id: OwnedEventId,
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
        let ids = ids
            .into_iter()
            .flatten()
            .filter_map(|id| EventId::parse(id.as_str()?).ok());
        for event_id in ids.take(1) {
            let late = LateReceipt {
                user: user.to_owned(),
                thread: thread.map(str::to_owned),
                event_id,
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

    /// Applies the receipts on events that have come meanwhile, and forgets the others.
    pub(super) fn apply_late_receipts(self: &Arc<Self>, room: &Room) {
        let Some((_, late)) = self.late_receipts.remove(room.id()) else {
            return;
        };
        let room = room.clone();
        tasks::spawn("late receipts", async move {
            for receipt in late {
                match apply(&room, &receipt).await {
                    Ok(()) | Err(Error::NotFound(_) | Error::InvalidParam(_)) => {}
                    Err(error) => {
                        tracing::warn!(%error, room = %room.id(), "a receipt of a remote user is not stored");
                    }
                }
            }
        });
    }
}

async fn apply(room: &Room, receipt: &LateReceipt) -> Result<(), Error> {
    let thread = receipt.thread.as_deref();
    room.set_receipt_of(
        &receipt.user,
        ReceiptKind::Public,
        thread,
        &receipt.event_id,
        receipt.ts,
    )
    .await
}
