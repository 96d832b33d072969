//! How much is unread for a user over all rooms: the number on an application's icon.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_events::push::Rules;
use hearth_storage::{EntityKey, Position};
use hearth_users::{Membership, RoomEntry, User};
use parking_lot::Mutex;

use crate::duty::pass_over;
use crate::{Error, Push};

/// For how many users counts are kept.
const CACHED_USERS_MAX: usize = 2_000;

/// What was counted for a user, by room: it holds while neither the room nor the rules change.
#[derive(Default)]
struct Counted {
    rules: Option<Arc<Rules>>,
    rooms: HashMap<EntityKey, InRoom>,
}

/// What is unread in a room, and by what the count goes.
#[derive(Clone, Copy)]
struct InRoom {
    changed: Position,
    began: Position,
    count: u64,
}

/// What was counted for users.
pub(crate) struct Badges(quick_cache::sync::Cache<EntityKey, Arc<Mutex<Counted>>>);

impl Default for Badges {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(CACHED_USERS_MAX))
    }
}

impl Badges {
    /// What was counted for a user holds no more, though no room has changed: the user ignores others than before, or follows
    /// other threads.
    pub(crate) fn forget(&self, user: &User) {
        self.0.remove(&user.key());
    }
}

impl Push {
    /// The notifications that a user has not read, in all rooms.
    pub(crate) fn badge(&self, user: &User) -> Result<u64, Error> {
        let counted = match self.badges.0.get(&user.key()) {
            Some(counted) => counted,
            None => {
                let counted = Arc::new(Mutex::default());
                self.badges.0.insert(user.key(), Arc::clone(&counted));
                counted
            }
        };
        let rules = user.rules()?;
        let mut counted = counted.lock();
        if counted
            .rules
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &rules))
        {
            counted.rooms.clear();
            counted.rules = Some(rules);
        }
        let mut rooms = HashMap::new();
        let mut total = 0;
        for entry in user.rooms(&[Membership::Join])? {
            // What is unread in a room that cannot be read is not known: the others count.
            let found = self.count_in(user, &entry, &counted);
            let found = pass_over(Some(found), "what is unread in a room does not count")?;
            if let Some((room, unread)) = found.flatten() {
                total += unread.count;
                rooms.insert(room, unread);
            }
        }
        counted.rooms = rooms;
        Ok(total)
    }

    /// What is unread for a user in a room that is here.
    fn count_in(
        &self,
        user: &User,
        entry: &RoomEntry,
        counted: &Counted,
    ) -> Result<Option<(EntityKey, InRoom)>, Error> {
        let Some(room) = self.parts.rooms.get(&entry.room_id)? else {
            return Ok(None);
        };
        // Taken before the count: what comes in between makes it be counted again.
        let (changed, began) = (room.changed_position(), entry.room_began);
        let known = counted.rooms.get(&room.key());
        if let Some(known) = known.filter(|known| (known.changed, known.began) == (changed, began)) {
            return Ok(Some((room.key(), *known)));
        }
        let unread = room.unread_of(user)?;
        let count = unread.map_or(0, |unread| unread.total.notifications);
        let unread = InRoom {
            changed,
            began,
            count,
        };
        Ok(Some((room.key(), unread)))
    }
}
