//! Events of rooms that users of this server are joining through other servers now. The servers of such a room send from
//! the moment at which one of them let the user in, and the join takes its time here: without the state nobody can judge
//! them. They stand in storage beside the room's queue for as long as the join takes. When the room is here they go to the
//! end of its queue; where the join comes to nothing they go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hearth_core::tasks;
use hearth_rooms::{Error, Room};
use hearth_storage::EntityKey;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};

use super::Inbound;
use super::rows::{Place, Waiting};

/// So many events wait for one join at the most, and so many of one server among them: as many as for a room that is here.
const WAITING_MAX_EVENTS: usize = 5_000;
const WAITING_MAX_EVENTS_OF_ORIGIN: usize = 2_000;
/// So many bytes they have together: most events are far from the 64 KiB that one may have.
const WAITING_MAX_BYTES: usize = 32 << 20;
/// So many go into the room's queue with one write.
const RELEASED_AT_ONCE: usize = 100;

/// What waits for joins that are under way, by room.
#[derive(Default)]
pub(super) struct Arriving(Mutex<HashMap<OwnedRoomId, Arc<tokio::sync::Mutex<OfRoom>>>>);

/// What waits for the join of one room.
#[derive(Default)]
struct OfRoom {
    places: Vec<Place>,
    bytes: usize,
    origins: BTreeMap<OwnedServerName, usize>,
    /// The join has come to its end.
    is_over: bool,
}

/// What became of events that came during a join.
pub(super) enum Kept {
    /// They wait for its end.
    Yes,
    /// Too many wait.
    Refused,
    /// It has come to its end meanwhile.
    Over,
}

impl OfRoom {
    /// Whether a server may add so much; if so it counts from now on.
    fn admit(&mut self, origin: &ServerName, events: usize, bytes: usize) -> bool {
        let own = self.origins.get(origin).copied().unwrap_or(0);
        let fits = self.places.len() + events <= WAITING_MAX_EVENTS
            && own + events <= WAITING_MAX_EVENTS_OF_ORIGIN
            && self.bytes + bytes <= WAITING_MAX_BYTES;
        if fits {
            self.bytes += bytes;
            self.origins.insert(origin.to_owned(), own + events);
        }
        fits
    }
}

impl Inbound {
    /// Whether this server is about to be in a room, and is not yet.
    pub(super) fn is_coming_in(&self, room_id: &RoomId) -> Result<bool, Error> {
        let is_in = || Ok::<_, Error>(self.rooms.get(room_id)?.is_some_and(|room| room.is_resident()));
        Ok(self.rooms.is_being_joined(room_id) && !is_in()?)
    }

    /// Keeps events of a room that is being joined until the end of the join.
    pub(super) async fn keep_for_join(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        texts: &[&[u8]],
    ) -> Result<Kept, Error> {
        let of_room = self.of_joined(room_id);
        let mut waiting = of_room.lock().await;
        if waiting.is_over {
            return Ok(Kept::Over);
        }
        if !waiting.admit(origin, texts.len(), texts.iter().map(|text| text.len()).sum()) {
            return Ok(Kept::Refused);
        }
        let key = self.rooms.room_number(room_id).await?;
        let now_ms = self.clock.now_ms();
        let places = self.rows.keep(key, origin, now_ms, texts).await?;
        waiting.places.extend(places);
        Ok(Kept::Yes)
    }

    /// What waits for a join. Where nothing did, the end of the join is waited for from now on.
    fn of_joined(self: &Arc<Self>, room_id: &RoomId) -> Arc<tokio::sync::Mutex<OfRoom>> {
        let mut arriving = self.arriving.0.lock();
        if let Some(found) = arriving.get(room_id) {
            return found.clone();
        }
        let new: Arc<tokio::sync::Mutex<OfRoom>> = Arc::default();
        arriving.insert(room_id.to_owned(), new.clone());
        let (inbound, room_id, of_room) = (self.clone(), room_id.to_owned(), new.clone());
        // Also after a panic: what is kept here waits for nobody else.
        tasks::keep_running("events of a room that is joined", &self.shutdown, move || {
            inbound.clone().until_joined(room_id.clone(), of_room.clone())
        });
        new
    }

    async fn until_joined(self: Arc<Self>, room_id: OwnedRoomId, of_room: Arc<tokio::sync::Mutex<OfRoom>>) {
        // One join that fails may be followed by another.
        let over = loop {
            match self.is_coming_in(&room_id) {
                Ok(true) => {}
                over => break over.map(drop),
            }
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return,
                () = self.rooms.joined_or_not(&room_id) => {}
            }
        };
        let mut waiting = of_room.lock().await;
        waiting.is_over = true;
        self.arriving.0.lock().remove(&room_id);
        let released = match over {
            Ok(()) => self.release_arrived(&room_id, &waiting.places).await,
            // Whether the room is here is not known: nothing may go.
            Err(error) => Err(error),
        };
        if let Err(error) = released {
            // They are in storage, and judged after the next start.
            tracing::warn!(%error, room = %room_id, "events that came during a join cannot be judged now");
        }
    }

    /// Has the room judge what came during its join. Of a room that is not here it may end an invitation or a knock.
    async fn release_arrived(self: &Arc<Self>, room_id: &RoomId, places: &[Place]) -> Result<(), Error> {
        let key = self.rooms.room_number(room_id).await?;
        let room = self.rooms.get(room_id)?.filter(Room::is_resident);
        for some in places.chunks(RELEASED_AT_ONCE) {
            let mut arrived = Vec::new();
            for place in some {
                arrived.extend(self.rows.at(key, *place)?);
            }
            match &room {
                Some(room) => self.release_into(room, arrived).await?,
                None => self.give_up(room_id, key, arrived).await?,
            }
        }
        Ok(())
    }

    async fn release_into(self: &Arc<Self>, room: &Room, arrived: Vec<Waiting>) -> Result<(), Error> {
        let mut admitted = Vec::with_capacity(arrived.len());
        for waiting in arrived {
            match room.acl_allows(&waiting.origin)? {
                true => admitted.push(waiting),
                false => self.rows.remove(room.key(), waiting.place),
            }
        }
        let queue = self.queue(room.clone());
        for waiting in &admitted {
            queue.found(waiting.origin.clone(), waiting.received_ms, waiting.pdu.len());
        }
        self.rows.release(room.key(), &admitted).await?;
        self.run(&queue);
        Ok(())
    }

    async fn give_up(&self, room_id: &RoomId, key: EntityKey, arrived: Vec<Waiting>) -> Result<(), Error> {
        for waiting in arrived {
            self.take_outside(&waiting.origin, room_id, &waiting.pdu).await?;
            self.rows.remove(key, waiting.place);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn what_waits_for_a_join_is_bounded() {
        let (one, other) = (server_name!("a.example"), server_name!("b.example"));
        let mut waiting = OfRoom::default();
        let mut add = |origin: &ServerName, events: usize, bytes: usize| {
            let fits = waiting.admit(origin, events, bytes);
            let places = if fits { events } else { 0 };
            waiting.places.extend(std::iter::repeat_n((1, 0), places));
            fits
        };
        assert!(add(one, WAITING_MAX_EVENTS_OF_ORIGIN, 1));
        assert!(!add(one, 1, 1), "of one server");
        assert!(add(other, 1, 1));
        assert!(!add(other, 1, WAITING_MAX_BYTES), "bytes");
        assert!(add(server_name!("c.example"), WAITING_MAX_EVENTS_OF_ORIGIN, 1));
        assert!(!add(other, 1_000, 1), "of all");
        assert!(add(other, 999, 1));
    }
}
