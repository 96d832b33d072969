//! Events that are not here: the gaps of the timeline that they leave, and who waits for them.

use hearth_storage::{Family, Op, prefix_end};

use super::{Staging, Stop};
use crate::{
    event::{Place, Short, encode_event_id},
    keys,
};

impl Staging<'_> {
    /// Events are missing before a place.
    pub(crate) fn open_gap(&mut self, place: Place, missing: &[ruma::OwnedEventId]) {
        if missing.is_empty() {
            return;
        }
        self.room.0.gaps.come();
        let row = keys::index(self.room.0.key, keys::INDEX_GAP, &[&keys::place_bytes(place)]);
        let ids: Vec<&str> = missing.iter().map(|id| id.as_str()).collect();
        self.rows
            .put(Family::RoomIndex, row, hearth_storage::record::encode(&ids));
    }

    /// The gap before a place is closed.
    pub(crate) fn close_gap(&mut self, place: Place) {
        let row = keys::index(self.room.0.key, keys::INDEX_GAP, &[&keys::place_bytes(place)]);
        self.rows.delete(Family::RoomIndex, row);
    }

    pub(super) fn wait_for(&mut self, id: &ruma::EventId, child: Short) {
        self.room.0.awaited.come();
        let row = keys::index(
            self.room.0.key,
            keys::INDEX_WAITING,
            &[&encode_event_id(id), &child.to_be_bytes()],
        );
        self.rows.put(Family::RoomIndex, row, keys::tagged(&[]));
    }

    pub(super) fn waiting_for(&self, id: &ruma::EventId) -> Result<Vec<Short>, Stop> {
        let all = keys::index(self.room.0.key, keys::INDEX_WAITING, &[]);
        let mut shorts = Vec::new();
        if !self.room.0.awaited.be(|| self.room.has_rows(&all))? {
            return Ok(shorts);
        }
        let start = keys::index(self.room.0.key, keys::INDEX_WAITING, &[&encode_event_id(id)]);
        // Also those of this operation: history is placed from the newest event on.
        for op in self.rows.ops() {
            if let Op::Put(Family::RoomIndex, key, _) = op
                && let Some(short) = key.strip_prefix(&*start)
            {
                shorts.extend(keys::read_u32(short, "waiting event").ok());
            }
        }
        self.room.reader().scan(
            Family::RoomIndex,
            &start,
            &prefix_end(&start),
            false,
            &mut |key, _| {
                shorts.extend(keys::read_u32(&key[start.len()..], "waiting event").ok());
                true
            },
        )?;
        Ok(shorts)
    }

    /// Whether an accepted event follows this one, which was missing when that came.
    pub(super) fn is_followed(&self, id: &ruma::EventId) -> Result<bool, Stop> {
        for child in self.waiting_for(id)? {
            let child = self.room.event(child)?;
            if child.is_some_and(|child| child.pdu.prev_events().iter().any(|prev| prev == id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
