//! The durable queue of each room: events as they came, until the room has judged them.

use std::sync::Arc;

use hearth_cluster::Cluster;
use hearth_rooms::{Error, Room};
use hearth_storage::record::{put_varint, take, take_slice, take_varint};
use hearth_storage::schema::room_inbound::RoomInboundKey;
use hearth_storage::{Batch, EntityKey, EntityKind, Family, Position, Record, name_of};
use ruma::{OwnedRoomId, OwnedServerName, ServerName};

/// The tag of a row.
const TAG: u8 = 2;

/// Where a row stands in its room's queue.
pub(crate) type Place = (Position, u16);

/// Set in the position of an event that is held back, for want of a key or because its room is still being joined: these
/// stand behind all that wait for their turn.
const HELD: Position = 1 << 63;

/// Whether it is the place of an event that is held back.
pub(crate) fn is_held(place: Place) -> bool {
    place.0 & HELD != 0
}

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) place: Place,
    pub(crate) origin: OwnedServerName,
    /// When it arrived.
    pub(crate) received_ms: u64,
    pub(crate) pdu: Vec<u8>,
}

/// Of which server an event is that waits, when it arrived, and how large it is.
pub(crate) struct Arrival {
    pub(crate) place: Place,
    pub(crate) origin: OwnedServerName,
    pub(crate) received_ms: u64,
    pub(crate) bytes: usize,
}

pub(crate) struct Rows(Arc<Cluster>);

impl Rows {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self(cluster)
    }

    fn reader(&self) -> &dyn hearth_storage::Engine {
        &**self.0.log().engine()
    }

    /// Puts events of one server at the end of a room's queue.
    pub(crate) async fn add(
        &self,
        room: &Room,
        origin: &ServerName,
        received_ms: u64,
        pdus: &[&[u8]],
    ) -> Result<(), Error> {
        self.put(room.key(), 0, origin, received_ms, pdus).await.map(drop)
    }

    /// Holds back events of one server that came before the room; gives their places.
    pub(crate) async fn keep(
        &self,
        room: EntityKey,
        origin: &ServerName,
        received_ms: u64,
        pdus: &[&[u8]],
    ) -> Result<Vec<Place>, Error> {
        let position = self.put(room, HELD, origin, received_ms, pdus).await?;
        let places = pdus.iter().zip(0..=u16::MAX);
        Ok(places.map(|(_, index)| (position | HELD, index)).collect())
    }

    async fn put(
        &self,
        room: EntityKey,
        mark: Position,
        origin: &ServerName,
        received_ms: u64,
        pdus: &[&[u8]],
    ) -> Result<Position, Error> {
        let build = |position| {
            let mut batch = Batch::new();
            for (pdu, index) in pdus.iter().zip(0..=u16::MAX) {
                let key = RoomInboundKey {
                    room,
                    position: position | mark,
                    index,
                };
                batch.put(
                    Family::RoomInbound,
                    key.encode(),
                    encode(origin, received_ms, pdu),
                );
            }
            Record::of(batch)
        };
        Ok(self.0.commit(room.slot, build).await?)
    }

    /// The first event behind a place that is not held back. What cannot be read is passed over.
    pub(crate) fn next(&self, room: EntityKey, after: Option<Place>) -> Result<Option<Waiting>, Error> {
        let start = match after {
            None => room.to_bytes().to_vec(),
            Some((position, index)) => {
                let (position, index) = match index.checked_add(1) {
                    Some(index) => (position, index),
                    None => (position + 1, 0),
                };
                RoomInboundKey {
                    room,
                    position,
                    index,
                }
                .encode()
            }
        };
        let mut found = None;
        let end = RoomInboundKey {
            room,
            position: HELD,
            index: 0,
        }
        .encode();
        self.reader()
            .scan(Family::RoomInbound, &start, &end, false, &mut |row, value| {
                let key = RoomInboundKey::decode(row);
                found = key.and_then(|key| decode((key.position, key.index), value));
                found.is_none()
            })?;
        Ok(found)
    }

    /// The event at a place.
    pub(crate) fn at(&self, room: EntityKey, place: Place) -> Result<Option<Waiting>, Error> {
        let (position, index) = place;
        let key = RoomInboundKey {
            room,
            position,
            index,
        };
        let value = self.reader().get(Family::RoomInbound, &key.encode())?;
        Ok(value.and_then(|value| decode(place, &value)))
    }

    /// Holds an event back; gives its place from now on.
    pub(crate) async fn hold(&self, room: EntityKey, waiting: &Waiting) -> Result<Place, Error> {
        let (position, index) = waiting.place;
        let held = position | HELD;
        let key = |position| {
            RoomInboundKey {
                room,
                position,
                index,
            }
            .encode()
        };
        let mut batch = Batch::new();
        batch.delete(Family::RoomInbound, key(position));
        let value = encode(&waiting.origin, waiting.received_ms, &waiting.pdu);
        batch.put(Family::RoomInbound, key(held), value);
        self.0.commit(room.slot, |_| Record::of(batch)).await?;
        Ok((held, index))
    }

    /// Puts events that were held back at the end of their room's queue.
    pub(crate) async fn release(&self, room: EntityKey, held: &[Waiting]) -> Result<(), Error> {
        let key = |(position, index)| {
            RoomInboundKey {
                room,
                position,
                index,
            }
            .encode()
        };
        let build = |position| {
            let mut batch = Batch::new();
            for (waiting, index) in held.iter().zip(0..=u16::MAX) {
                let value = encode(&waiting.origin, waiting.received_ms, &waiting.pdu);
                batch.delete(Family::RoomInbound, key(waiting.place));
                batch.put(Family::RoomInbound, key((position, index)), value);
            }
            Record::of(batch)
        };
        self.0.commit(room.slot, build).await?;
        Ok(())
    }

    /// An event is judged: its row goes with the next write. A crash before it has the room judge it once more.
    pub(crate) fn remove(&self, room: EntityKey, (position, index): Place) {
        let mut batch = Batch::new();
        let key = RoomInboundKey {
            room,
            position,
            index,
        };
        batch.delete(Family::RoomInbound, key.encode());
        self.0.log().defer(batch);
    }

    /// The rooms whose queue is not empty, with what waits there or is held back.
    pub(crate) fn leftovers(&self) -> Result<Vec<(OwnedRoomId, EntityKey, Vec<Arrival>)>, Error> {
        let mut rooms: Vec<(EntityKey, Vec<Arrival>)> = Vec::new();
        self.reader()
            .scan(Family::RoomInbound, &[], &[0xFF], false, &mut |row, value| {
                let waiting = RoomInboundKey::decode(row)
                    .and_then(|key| Some((key.room, decode((key.position, key.index), value)?)));
                if let Some((room, waiting)) = waiting {
                    let arrival = Arrival {
                        place: waiting.place,
                        origin: waiting.origin,
                        received_ms: waiting.received_ms,
                        bytes: waiting.pdu.len(),
                    };
                    match rooms.last_mut().filter(|(last, _)| *last == room) {
                        Some((_, arrivals)) => arrivals.push(arrival),
                        None => rooms.push((room, vec![arrival])),
                    }
                }
                true
            })?;
        let mut found = Vec::new();
        for (room, arrivals) in rooms {
            let name = name_of(self.reader(), EntityKind::Room, room)?;
            let name = name.and_then(|name| OwnedRoomId::try_from(name).ok());
            found.extend(name.map(|name| (name, room, arrivals)));
        }
        Ok(found)
    }
}

fn encode(origin: &ServerName, received_ms: u64, pdu: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(pdu.len() + origin.as_str().len() + 16);
    value.push(TAG);
    value.extend_from_slice(&received_ms.to_be_bytes());
    put_varint(&mut value, origin.as_str().len() as u64);
    value.extend_from_slice(origin.as_bytes());
    value.extend_from_slice(pdu);
    value
}

fn decode(place: Place, value: &[u8]) -> Option<Waiting> {
    let (&TAG, mut rest) = value.split_first()? else {
        return None;
    };
    let received_ms: [u8; 8] = take(&mut rest)?;
    let length = usize::try_from(take_varint(&mut rest)?).ok()?;
    let origin = std::str::from_utf8(take_slice(&mut rest, length)?).ok()?;
    Some(Waiting {
        place,
        origin: OwnedServerName::try_from(origin).ok()?,
        received_ms: u64::from_be_bytes(received_ms),
        pdu: rest.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn rows_round_trip() {
        let value = encode(server_name!("b.example"), 5, b"{}");
        let expected = Waiting {
            place: (3, 1),
            origin: server_name!("b.example").to_owned(),
            received_ms: 5,
            pdu: b"{}".to_vec(),
        };
        assert_eq!(decode((3, 1), &value), Some(expected));
        for cut in 0..value.len() - 2 {
            assert_eq!(decode((3, 1), &value[..cut]), None);
        }
    }
}
