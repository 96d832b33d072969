//! What is kept in memory of a user who syncs: the last position of each joined room, so that an
//! idle sync costs the same for ten rooms and for five thousand.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Instant,
};

use hearth_rooms::Room;
use hearth_storage::{EntityKey, Position, ShardId};
use hearth_users::{RoomEntry, User};
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedRoomId, RoomId};
use tokio::sync::Notify;

use crate::{lazy::LazyMembers, presence_notes::PresenceNotes, sliding::RoomOrder, token_base::TokenBases};

/// The index of one user.
///
/// Lock order: `refresh`, then the notifier's map of watched rooms, then `state`; of two states, the one at the lower
/// address first.
pub(crate) struct UserIndex {
    pub(crate) user: User,
    /// Tells this index from others: a count of typing is worth nothing with another.
    pub(crate) start: u64,
    pub(crate) notify: Notify,
    /// Held while room entries are read and rooms are watched or not.
    pub(crate) refresh: Mutex<()>,
    pub(crate) state: Mutex<IndexState>,
    /// Syncs that use it now.
    pub(crate) active: AtomicUsize,
    pub(crate) used_at_ms: AtomicU64,
}

/// A joined room.
#[derive(Clone, Debug)]
pub(crate) struct JoinedEntry {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) key: EntityKey,
    pub(crate) shard: ShardId,
    /// Where the membership began, in the user's shard and in the room's.
    pub(crate) began: Position,
    pub(crate) room_began: Position,
    /// The event with which it began; 0 where that was not noted.
    pub(crate) began_anchor: u64,
    /// The room's last position.
    last: Position,
    /// The index's count at the last change of who types; 0 where there was none.
    typing: u64,
}

impl JoinedEntry {
    /// The last position that was noted of the room.
    pub(crate) fn last(&self) -> Position {
        self.last
    }

    /// Whether who types changed after a count.
    pub(crate) fn typed_after(&self, seen: u64) -> bool {
        self.typing > seen
    }
}

/// When the user's own data changed last, so that a sync need not look for changes where only others did something.
#[derive(Debug, Default)]
pub(crate) struct OwnChanges {
    /// What was published of the user's shard when the index began.
    begun: Option<Position>,
    /// Changes that were not noted here are not after this position.
    settled: Option<Position>,
    /// The last change that was noted.
    last: Position,
}

impl OwnChanges {
    /// The index is known to those who note changes, and so much of the user's shard is published. What is published
    /// next may have been noted before that, with nobody to note it; whatever comes after is noted here.
    pub(crate) fn settle(&mut self, published: Position) {
        match self.begun {
            None => self.begun = Some(published),
            Some(begun) if self.settled.is_none() && published > begun => self.settled = Some(published),
            Some(_) => {}
        }
    }

    /// A change is about to be published.
    pub(crate) fn note(&mut self, position: Position) {
        self.last = self.last.max(position);
    }

    /// Whether something may have changed after a position.
    pub(crate) fn may_be_after(&self, position: Position) -> bool {
        self.settled
            .is_none_or(|settled| position < settled.max(self.last))
    }
}

/// The part of an index that changes.
#[derive(Default)]
pub(crate) struct IndexState {
    pub(crate) built: bool,
    /// Set when the index was given up: who holds it gets another.
    pub(crate) closed: bool,
    /// Rooms whose entry in the room list changed since it was read.
    pub(crate) stale: BTreeSet<OwnedRoomId>,
    pub(crate) own: OwnChanges,
    rooms: HashMap<EntityKey, JoinedEntry>,
    keys: HashMap<OwnedRoomId, EntityKey>,
    /// Positions within a shard belong to one room each: a batch is of one entity.
    shards: BTreeMap<ShardId, BTreeMap<Position, EntityKey>>,
    /// Where memberships began, in the user's shard.
    began: BTreeSet<(Position, EntityKey)>,
    typing: BTreeMap<u64, EntityKey>,
    typing_count: u64,
    /// When the first thing began that no sync has told of yet.
    pub(crate) first_news: Option<Instant>,
    /// Devices that have encrypted something, and whose connection for keys has not been answered since.
    pub(crate) encrypted: BTreeSet<OwnedDeviceId>,
    /// What each device was sent of members.
    pub(crate) lazy: LazyMembers,
    /// Whose presence changed, of those who share a room with the user.
    pub(crate) presence: PresenceNotes,
    /// What the tokens of each device build on, where they are too long to be given out whole.
    pub(crate) bases: TokenBases,
    /// The rooms in the order of their activity, once a client asked for sliding windows.
    pub(crate) sliding: Option<Box<RoomOrder>>,
}

impl UserIndex {
    pub(crate) fn new(user: User, start: u64, now_ms: u64) -> Self {
        Self {
            user,
            start,
            notify: Notify::new(),
            refresh: Mutex::new(()),
            state: Mutex::default(),
            active: AtomicUsize::new(0),
            used_at_ms: AtomicU64::new(now_ms),
        }
    }

    /// A room's last position moved; `active` says whether the room itself did, and when; `began` when the operation
    /// did that moved it.
    pub(crate) fn touch(
        &self,
        key: EntityKey,
        position: Position,
        active: Option<u64>,
        began: Option<Instant>,
    ) {
        let mut state = self.state.lock();
        if state.has(key) {
            state.move_to(key, position);
            let began = began.unwrap_or_else(Instant::now);
            state.first_news.get_or_insert(began);
            if let Some(order) = &mut state.sliding {
                order.touch(key, active);
            }
        }
    }

    /// Who types in a room changed.
    pub(crate) fn touch_typing(&self, key: EntityKey) {
        let mut state = self.state.lock();
        state.move_typing(key);
        if let Some(order) = &mut state.sliding {
            order.touch(key, None);
        }
    }

    pub(crate) fn idle_since_ms(&self) -> Option<u64> {
        (self.active.load(Ordering::Acquire) == 0).then(|| self.used_at_ms.load(Ordering::Acquire))
    }
}

impl IndexState {
    /// Adds a joined room, or takes over what changed of its entry. Samples the room's last position
    /// under the index's lock: a change that comes later finds the room here.
    pub(crate) fn add(&mut self, room: &Room, entry: &RoomEntry) {
        let key = room.key();
        let known = self.rooms.contains_key(&key);
        let joined = self.rooms.entry(key).or_insert_with(|| JoinedEntry {
            room_id: entry.room_id.clone(),
            key,
            shard: room.shard(),
            began: 0,
            room_began: 0,
            began_anchor: 0,
            last: 0,
            typing: 0,
        });
        self.began.remove(&(joined.began, key));
        self.began.insert((entry.began, key));
        joined.began = entry.began;
        joined.room_began = entry.room_began;
        joined.began_anchor = entry.began_anchor;
        self.keys.insert(entry.room_id.clone(), key);
        self.move_to(key, room.changed_position().max(entry.room_position));
        if !known && room.typing().1 > 0 {
            self.move_typing(key);
        }
    }

    /// Takes a room out; gives its key if it was there.
    pub(crate) fn remove(&mut self, room_id: &RoomId) -> Option<EntityKey> {
        let key = self.keys.remove(room_id)?;
        if let Some(entry) = self.rooms.remove(&key) {
            if let Some(order) = self.shards.get_mut(&entry.shard) {
                remove_from(order, entry.last, key);
                if order.is_empty() {
                    self.shards.remove(&entry.shard);
                }
            }
            self.typing.remove(&entry.typing);
            self.began.remove(&(entry.began, key));
        }
        Some(key)
    }

    fn move_to(&mut self, key: EntityKey, position: Position) {
        let Some(entry) = self.rooms.get_mut(&key) else {
            return;
        };
        let order = self.shards.entry(entry.shard).or_default();
        if position < entry.last {
            return;
        }
        remove_from(order, entry.last, key);
        order.insert(position, key);
        entry.last = position;
    }

    fn move_typing(&mut self, key: EntityKey) {
        let Some(entry) = self.rooms.get_mut(&key) else {
            return;
        };
        self.typing_count += 1;
        self.typing.remove(&entry.typing);
        self.typing.insert(self.typing_count, key);
        entry.typing = self.typing_count;
    }

    /// How often who types changed.
    pub(crate) fn typing_count(&self) -> u64 {
        self.typing_count
    }

    /// The shards that hold joined rooms.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.shards.keys().copied()
    }

    /// All joined rooms.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = &JoinedEntry> {
        self.rooms.values()
    }

    /// A joined room.
    pub(crate) fn room(&self, room_id: &RoomId) -> Option<&JoinedEntry> {
        self.rooms.get(self.keys.get(room_id)?)
    }

    /// Whether a room is among the joined ones.
    pub(crate) fn has(&self, key: EntityKey) -> bool {
        self.rooms.contains_key(&key)
    }

    /// Whether both are joined to some room.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        let (fewer, more) = match self.rooms.len() <= other.rooms.len() {
            true => (self, other),
            false => (other, self),
        };
        fewer.rooms.keys().any(|key| more.rooms.contains_key(key))
    }

    /// The keys of all joined rooms.
    pub(crate) fn room_keys(&self) -> Vec<EntityKey> {
        self.rooms.keys().copied().collect()
    }

    /// The rooms whose last position is after what was seen of their shard.
    pub(crate) fn changed_rooms(&self, seen: impl Fn(ShardId) -> Position) -> Vec<JoinedEntry> {
        let mut found = Vec::new();
        for (shard, order) in &self.shards {
            let after = seen(*shard).saturating_add(1);
            found.extend(
                order
                    .range(after..)
                    .filter_map(|(_, key)| self.rooms.get(key).cloned()),
            );
        }
        found
    }

    /// The rooms in which the membership began after a position of the user's shard.
    pub(crate) fn begun_after(&self, seen: Position) -> Vec<JoinedEntry> {
        let newest = self.began.iter().rev().take_while(|(began, _)| *began > seen);
        newest
            .filter_map(|(_, key)| self.rooms.get(key).cloned())
            .collect()
    }

    /// The rooms in which who types changed after a count.
    pub(crate) fn changed_typing(&self, seen: u64) -> Vec<JoinedEntry> {
        self.typing
            .range(seen.saturating_add(1)..)
            .filter_map(|(_, key)| self.rooms.get(key).cloned())
            .collect()
    }
}

fn remove_from(order: &mut BTreeMap<Position, EntityKey>, at: Position, key: EntityKey) {
    if order.get(&at) == Some(&key) {
        order.remove(&at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_changes_that_nobody_noted_are_looked_for() {
        let mut own = OwnChanges::default();
        own.settle(5);
        assert!(own.may_be_after(5), "6 may have been on its way");
        own.settle(5);
        assert!(own.may_be_after(9));
        own.settle(8);
        assert!(own.may_be_after(7), "6 to 8 may have been noted before");
        assert!(!own.may_be_after(8));
        own.note(12);
        own.note(11);
        assert!(own.may_be_after(11));
        assert!(!own.may_be_after(12));
    }
}
