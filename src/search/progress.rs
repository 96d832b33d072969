//! How far the index is: stored in it, with what it was made of.

use std::collections::BTreeMap;

use hearth_rooms::Place;
use hearth_storage::{EntityKey, Position, ShardId};
use serde::{Deserialize, Serialize};

/// The form of the index. An index of another form is built anew.
const FORM: u32 = 3;

/// How far the index is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    form: u32,
    /// Up to which position of each shard's feed everything is in it.
    cursors: BTreeMap<u16, Position>,
    /// Where the building from the rooms goes on; none once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    building: Option<Building>,
}

/// A place in all rooms, in the order of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Building {
    /// The room; none before the first.
    room: Option<[u8; 6]>,
    /// What of it is done: up to this place, or all of it.
    anchor: u64,
    offset: i32,
    whole: bool,
}

impl Progress {
    /// Nothing is indexed; the feed is followed from these positions.
    pub(crate) fn of_new_index(cursors: impl Iterator<Item = (ShardId, Position)>) -> Self {
        Self {
            form: FORM,
            cursors: cursors.map(|(shard, at)| (shard.0, at)).collect(),
            building: Some(Building::default()),
        }
    }

    /// Reads what the index has; none if it is of another form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let progress: Self = serde_json::from_str(text).ok()?;
        (progress.form == FORM).then_some(progress)
    }

    /// The stored form.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("numbers become JSON")
    }

    pub(crate) fn cursor(&self, shard: ShardId) -> Position {
        self.cursors.get(&shard.0).copied().unwrap_or(0)
    }

    pub(crate) fn set_cursor(&mut self, shard: ShardId, position: Position) {
        self.cursors.insert(shard.0, position);
    }

    pub(crate) fn cursors(&self) -> impl Iterator<Item = (ShardId, Position)> + '_ {
        self.cursors.iter().map(|(shard, at)| (ShardId(*shard), *at))
    }

    /// How many positions this is ahead of another.
    pub(crate) fn ahead_of(&self, other: &Self) -> u64 {
        self.cursors()
            .map(|(shard, at)| at.saturating_sub(other.cursor(shard)))
            .sum()
    }

    pub(crate) fn building(&self) -> Option<Building> {
        self.building
    }

    pub(crate) fn set_building(&mut self, building: Option<Building>) {
        self.building = building;
    }
}

impl Building {
    /// The room, and up to where it is done; none if the next room is to be begun.
    pub(crate) fn in_room(&self) -> Option<(EntityKey, Place)> {
        let room = self.last_room().filter(|_| !self.whole)?;
        let place = Place {
            anchor: self.anchor,
            offset: self.offset,
        };
        Some((room, place))
    }

    /// The last room that was begun.
    pub(crate) fn last_room(&self) -> Option<EntityKey> {
        self.room.and_then(EntityKey::from_bytes)
    }

    /// A room that is done up to a place.
    pub(crate) fn up_to(room: EntityKey, place: Place) -> Self {
        Self {
            room: Some(room.to_bytes()),
            anchor: place.anchor,
            offset: place.offset,
            whole: false,
        }
    }

    /// A room that is done.
    pub(crate) fn whole(room: EntityKey) -> Self {
        Self {
            room: Some(room.to_bytes()),
            whole: true,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_back_as_it_was_stored() {
        let room = EntityKey::from_bytes([0, 1, 0, 0, 0, 2]).expect("a key");
        let place = Place {
            anchor: 9,
            offset: -2,
        };
        let mut progress = Progress::of_new_index([(ShardId(0), 5), (ShardId(3), 7)].into_iter());
        for building in [
            Some(Building::default()),
            Some(Building::up_to(room, place)),
            Some(Building::whole(room)),
            None,
        ] {
            progress.set_building(building);
            assert_eq!(Progress::parse(&progress.text()), Some(progress.clone()));
        }
        assert_eq!(Building::up_to(room, place).in_room(), Some((room, place)));
        assert_eq!(Building::whole(room).in_room(), None);
        assert_eq!(Building::whole(room).last_room(), Some(room));
        let mut later = progress.clone();
        later.set_cursor(ShardId(3), 10);
        assert_eq!((later.ahead_of(&progress), progress.ahead_of(&later)), (3, 0));
        for other in ["", "{}", r#"{"form":0,"cursors":{}}"#] {
            assert_eq!(Progress::parse(other), None, "{other}");
        }
    }
}
