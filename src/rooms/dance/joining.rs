//! Which rooms users of this server are joining through other servers now: what the others of such a room send is of use
//! as soon as the join is done.

use std::collections::HashMap;

use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};
use tokio::sync::watch;

use crate::Rooms;

/// The rooms that are being joined. Who waits for a join holds the other end.
#[derive(Default)]
pub(crate) struct Joining(Mutex<HashMap<OwnedRoomId, watch::Sender<()>>>);

/// A join under way, until this is dropped.
pub(super) struct UnderWay<'a> {
    joining: &'a Joining,
    room_id: &'a RoomId,
}

impl Joining {
    /// Notes a join. The caller holds the lock of the room's joins.
    pub(super) fn begin<'a>(&'a self, room_id: &'a RoomId) -> UnderWay<'a> {
        self.0.lock().insert(room_id.to_owned(), watch::Sender::new(()));
        UnderWay {
            joining: self,
            room_id,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.joining.0.lock().remove(self.room_id);
    }
}

impl Rooms {
    /// Whether a user of this server is joining a room through another server now.
    pub fn is_being_joined(&self, room_id: &RoomId) -> bool {
        self.joining.0.lock().contains_key(room_id)
    }

    /// Waits until the join of a room that is under way now, if there is one, has come to its end, whatever it is.
    pub async fn joined_or_not(&self, room_id: &RoomId) {
        let end = self.joining.0.lock().get(room_id).map(watch::Sender::subscribe);
        if let Some(mut end) = end {
            // Nothing is ever sent: the other end goes.
            let _ = end.changed().await;
        }
    }
}
