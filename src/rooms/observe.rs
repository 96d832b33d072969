//! What the metrics of the process say of rooms: taken when they are asked for, and bounded.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};

use crate::Rooms;

/// So many rooms are known by what resolving their states took. Beyond it the cheapest gives way, and the new one takes
/// over what that one had: so a room that costs much is never missing, and may be shown with a little too much.
const COSTS_MAX: usize = 256;

/// What resolving states took, in the rooms where it took most.
#[derive(Default)]
pub(crate) struct Costs(Mutex<HashMap<OwnedRoomId, Duration>>);

impl Costs {
    pub(crate) fn add(&self, room: &RoomId, took: Duration) {
        let mut costs = self.0.lock();
        if let Some(cost) = costs.get_mut(room) {
            *cost += took;
            return;
        }
        let mut before = Duration::ZERO;
        if costs.len() >= COSTS_MAX {
            let cheapest = costs.iter().min_by_key(|(_, cost)| **cost);
            if let Some((cheapest, cost)) = cheapest.map(|(room, cost)| (room.clone(), *cost)) {
                costs.remove(&cheapest);
                before = cost;
            }
        }
        costs.insert(room.to_owned(), before + took);
    }

    fn most(&self, count: usize) -> Vec<(OwnedRoomId, Duration)> {
        let mut all: Vec<_> = self
            .0
            .lock()
            .iter()
            .map(|(room, cost)| (room.clone(), *cost))
            .collect();
        all.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        all.truncate(count);
        all
    }
}

/// The forward extremities of the rooms in memory.
#[derive(Debug, Default)]
pub struct Extremities {
    /// For each bound how many rooms have at most so many.
    pub buckets: Vec<(usize, usize)>,
    /// How many rooms there are.
    pub rooms: usize,
    /// All their extremities.
    pub sum: usize,
    /// The rooms with most of them, of those that have several.
    pub most: Vec<(OwnedRoomId, usize)>,
}

impl Rooms {
    /// Counts the forward extremities of the rooms in memory, by the given bounds; names at most so many rooms.
    pub fn extremities(&self, bounds: &[usize], named: usize) -> Extremities {
        let mut found = Extremities {
            buckets: bounds.iter().map(|bound| (*bound, 0)).collect(),
            ..Extremities::default()
        };
        for room in &self.loaded {
            let count = room.0.view.read().extremities as usize;
            found.rooms += 1;
            found.sum += count;
            for (_, rooms) in found.buckets.iter_mut().filter(|(bound, _)| count <= *bound) {
                *rooms += 1;
            }
            if count > 1 {
                found.most.push((room.key().clone(), count));
                if found.most.len() >= named.max(1) * 8 {
                    keep_most(&mut found.most, named);
                }
            }
        }
        keep_most(&mut found.most, named);
        found
    }

    /// What resolving states took since the process started, in the rooms where it took most.
    pub fn resolution_costs(&self, named: usize) -> Vec<(OwnedRoomId, Duration)> {
        self.costs.most(named)
    }
}

fn keep_most(most: &mut Vec<(OwnedRoomId, usize)>, named: usize) {
    most.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    most.truncate(named);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_that_costs_much_is_never_missing() {
        let costs = Costs::default();
        let room = |at: usize| OwnedRoomId::try_from(format!("!r{at}:a")).expect("an id");
        costs.add(&room(0), Duration::from_secs(5));
        for at in 1..2_000 {
            costs.add(&room(at), Duration::from_millis(1));
            costs.add(&room(0), Duration::from_millis(1));
        }
        let most = costs.most(3);
        assert_eq!(most.len(), 3);
        assert_eq!(most[0], (room(0), Duration::from_millis(6_999)));
        assert!(costs.0.lock().len() <= COSTS_MAX);
    }
}
