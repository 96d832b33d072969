//! The rooms of one list, sorted by activity, and which of them a client may not have as they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ruma::OwnedRoomId;

use super::{order::Listed, request::ListFilter};

/// Ranges of places in a list, both ends included, the most recently active room at 0; none is all.
pub(super) type Ranges = Option<Vec<(u64, u64)>>;

/// A list, kept from request to request.
#[derive(Default)]
pub(super) struct ListCache {
    pub(super) filter: ListFilter,
    /// A number for what is shown of its rooms.
    pub(super) config: u64,
    /// The epoch of the order of rooms, and the count of touches up to which this is right.
    pub(super) epoch: u64,
    pub(super) caught_up: u64,
    /// What the filter's spaces have, and the last touches of those spaces.
    pub(super) children: BTreeSet<OwnedRoomId>,
    pub(super) spaces: BTreeMap<OwnedRoomId, u64>,
    /// Activity and number, the latest last.
    order: Vec<(u64, u32)>,
    /// Activity and last touch by number.
    places: HashMap<u32, (u64, u64)>,
    /// Rooms that must be looked at before they may be left out of an answer.
    dirty: BTreeSet<(u64, u32)>,
}

impl ListCache {
    /// Fills an empty list. Every room is to be looked at.
    pub(super) fn fill(&mut self, rooms: &[Listed]) {
        self.order = rooms.iter().map(|room| (room.activity, room.no)).collect();
        self.order.sort_unstable();
        self.dirty = self.order.iter().copied().collect();
        let places = rooms.iter().map(|room| (room.no, (room.activity, room.touched)));
        self.places = places.collect();
    }

    /// A room was touched: takes its new place, or leaves the list.
    pub(super) fn update(&mut self, room: &Listed, has: bool) {
        if let Some((activity, _)) = self.places.remove(&room.no) {
            let key = (activity, room.no);
            if let Ok(at) = self.order.binary_search(&key) {
                self.order.remove(at);
            }
            self.dirty.remove(&key);
        }
        if !has {
            return;
        }
        let key = (room.activity, room.no);
        if let Err(at) = self.order.binary_search(&key) {
            self.order.insert(at, key);
        }
        self.places.insert(room.no, (room.activity, room.touched));
        self.dirty.insert(key);
    }

    /// All rooms are to be looked at: what is shown of them changed.
    pub(super) fn all_dirty(&mut self) {
        self.dirty = self.order.iter().copied().collect();
    }

    /// A room was looked at; it counts unless it was touched since.
    pub(super) fn clear(&mut self, no: u32, touched: u64) {
        if let Some((activity, last)) = self.places.get(&no)
            && *last == touched
        {
            self.dirty.remove(&(*activity, no));
        }
    }

    /// Whether a room of the list is to be looked at.
    pub(super) fn is_dirty(&self, no: u32) -> bool {
        let place = self.places.get(&no);
        place.is_some_and(|(activity, _)| self.dirty.contains(&(*activity, no)))
    }

    /// How many rooms the list has.
    pub(super) fn count(&self) -> usize {
        self.order.len()
    }

    /// The rooms within the ranges that are to be looked at. Costs what is found.
    pub(super) fn dirty_in(&self, ranges: &Ranges) -> Vec<u32> {
        let all = [(0, u64::MAX)];
        let mut found = Vec::new();
        for (first, last) in ranges.as_deref().unwrap_or(&all) {
            let Some((low, high)) = self.keys_of(*first, *last) else {
                continue;
            };
            found.extend(self.dirty.range(low..=high).map(|(_, no)| *no));
        }
        found
    }

    /// Whether a room is in the list, within the ranges.
    pub(super) fn has(&self, no: u32, ranges: &Ranges) -> bool {
        let Some((activity, _)) = self.places.get(&no) else {
            return false;
        };
        let Some(ranges) = ranges else { return true };
        let Ok(at) = self.order.binary_search(&(*activity, no)) else {
            return false;
        };
        let place = (self.order.len() - 1 - at) as u64;
        ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&place))
    }

    /// The least and the greatest key of a range of places.
    fn keys_of(&self, first: u64, last: u64) -> Option<((u64, u32), (u64, u32))> {
        let end = self.order.len().checked_sub(1)?;
        let first = usize::try_from(first).ok().filter(|first| *first <= end)?;
        let last = usize::try_from(last).unwrap_or(end).min(end);
        (first <= last).then(|| (self.order[end - last], self.order[end - first]))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearth_users::Membership;
    use ruma::{room_id, user_id};

    use super::{super::order::ListedRoom, *};

    fn room(no: u32, activity: u64, touched: u64) -> Listed {
        let room = ListedRoom {
            room_id: room_id!("!r:x").to_owned(),
            membership: Membership::Join,
            position: 0,
            began: 0,
            room_began: 0,
            began_anchor: 0,
            was_joined: true,
            forgotten: false,
            sender: user_id!("@a:x").to_owned(),
            ts: 0,
            key: None,
        };
        Listed {
            no,
            room: Arc::new(room),
            activity,
            touched,
            user_last: 0,
        }
    }

    fn list() -> ListCache {
        let mut list = ListCache::default();
        let rooms: Vec<Listed> = (0..10).map(|no| room(no, 100 + u64::from(no), 1)).collect();
        list.fill(&rooms);
        list
    }

    fn sorted(mut found: Vec<u32>) -> Vec<u32> {
        found.sort_unstable();
        found
    }

    #[test]
    fn windows_show_what_is_dirty() {
        let mut list = list();
        for (ranges, expected) in [
            (Some(vec![(0, 1)]), vec![8, 9]),
            (Some(vec![(0, 0), (9, 99)]), vec![0, 9]),
            (Some(vec![(10, 20)]), vec![]),
            (Some(vec![(3, 2)]), vec![]),
            (None, (0..10).collect()),
        ] {
            assert_eq!(sorted(list.dirty_in(&ranges)), expected, "{ranges:?}");
        }
        for no in 0..10 {
            list.clear(no, 1);
        }
        assert!(list.dirty_in(&None).is_empty());
        list.update(&room(3, 200, 2), true);
        let top = Some(vec![(0, 0)]);
        assert_eq!(list.dirty_in(&top), [3]);
        assert!(list.has(3, &top) && !list.has(9, &top));
        list.clear(3, 1);
        assert_eq!(list.dirty_in(&top), [3], "it was touched since");
        list.update(&room(3, 200, 3), false);
        assert_eq!(list.count(), 9);
        assert!(!list.has(3, &None) && list.has(9, &top));
        list.all_dirty();
        assert_eq!(list.dirty_in(&None).len(), 9);
    }
}
