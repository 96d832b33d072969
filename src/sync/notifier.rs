//! Who must be told of what: rooms and the indexes of the users who watch them.
//!
//! A change is noted in the indexes before its position is published, and waiting syncs are woken
//! after: so a sync that samples positions finds in its index whatever they include, and one that is
//! woken finds it published.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::DashMap;
use hearth_core::clock::SharedClock;
use hearth_rooms::{Changed, Rooms};
use hearth_storage::{EntityKey, Position};
use hearth_users::{Change, Membership, RoomEntry, User, UserNote, Users};
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedUserId, UserId};

use crate::{
    Error,
    index::{JoinedEntry, UserIndex},
    sliding::{Listed, RoomOrder},
};

/// An index that nobody used for so long is dropped; the next sync builds it again.
const INDEX_IDLE_MS: u64 = 5 * 60 * 1000;

/// The indexes of the users who sync.
pub(crate) struct Notifier {
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    clock: SharedClock,
    indexes: DashMap<OwnedUserId, Arc<UserIndex>>,
    watchers: DashMap<EntityKey, Vec<Arc<UserIndex>>>,
    /// Indexes that were touched by batches that are about to be published.
    touched: Mutex<Vec<Arc<UserIndex>>>,
    /// Indexes that were told of changes of presence that the counter does not include yet, by the changes' counters.
    told: Mutex<HashMap<u64, Vec<Arc<UserIndex>>>>,
    next_start: AtomicU64,
}

/// An index in use; it is not dropped meanwhile.
pub(crate) struct IndexGuard {
    index: Arc<UserIndex>,
    clock: SharedClock,
}

impl std::ops::Deref for IndexGuard {
    type Target = UserIndex;

    fn deref(&self) -> &UserIndex {
        &self.index
    }
}

impl Drop for IndexGuard {
    fn drop(&mut self) {
        self.index
            .used_at_ms
            .store(self.clock.now_ms(), Ordering::Release);
        self.index.active.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Notifier {
    pub(crate) fn new(rooms: Arc<Rooms>, users: Arc<Users>, clock: SharedClock, start: u64) -> Arc<Self> {
        let notifier = Arc::new(Self {
            rooms: rooms.clone(),
            users: users.clone(),
            clock,
            indexes: DashMap::new(),
            watchers: DashMap::new(),
            touched: Mutex::default(),
            told: Mutex::default(),
            next_start: AtomicU64::new(start),
        });
        let weak = Arc::downgrade(&notifier);
        rooms.before_change(Box::new(move |changed| {
            upgraded(&weak, |notifier| notifier.room_changed(changed))
        }));
        let weak = Arc::downgrade(&notifier);
        rooms.on_change(Box::new(move |changed| {
            if changed.change.typing {
                upgraded(&weak, |notifier| notifier.typing_changed(changed.room.key()));
            }
        }));
        let weak = Arc::downgrade(&notifier);
        rooms.log().before_publish(Box::new(move |published| {
            let note = published
                .note
                .as_ref()
                .and_then(|note| note.downcast_ref::<UserNote>());
            if let Some(note) = note {
                upgraded(&weak, |notifier| notifier.user_changed(note, published.position));
            }
        }));
        let weak = Arc::downgrade(&notifier);
        rooms
            .log()
            .on_publish(Box::new(move |_| upgraded(&weak, Notifier::wake)));
        let weak = Arc::downgrade(&notifier);
        users.presence().on_change(Box::new(move |user, counter| {
            upgraded(&weak, |notifier| notifier.presence_changed(user, counter.value));
        }));
        let weak = Arc::downgrade(&notifier);
        users.presence().after_change(Box::new(move |_, counter| {
            upgraded(&weak, |notifier| notifier.wake_for_presence(counter.value));
        }));
        notifier
    }

    /// A batch changed a room: called before it is published.
    fn room_changed(&self, changed: &Changed<'_>) {
        let Some(watchers) = self.watchers.get(&changed.room.key()) else {
            return;
        };
        let active = changed.change.timeline.then(|| self.clock.now_ms());
        for index in watchers.iter() {
            index.touch(changed.room.key(), changed.position, active, changed.change.began);
        }
        self.touched.lock().extend(watchers.iter().cloned());
    }

    /// Who types in a room changed: that is in memory only, and readable at once.
    fn typing_changed(&self, room: EntityKey) {
        let Some(watchers) = self.watchers.get(&room) else {
            return;
        };
        for index in watchers.iter() {
            index.touch_typing(room);
            index.notify.notify_waiters();
        }
    }

    /// A user's own data changed: called before its batch is published.
    fn user_changed(&self, note: &UserNote, position: Position) {
        let Some(index) = self.indexes.get(&note.user_id).map(|index| index.clone()) else {
            return;
        };
        {
            let mut state = index.state.lock();
            state.own.note(position);
            for change in &note.changes {
                if let Change::Room(room_id) = change {
                    state.stale.insert(room_id.clone());
                }
                if let Some(order) = &mut state.sliding {
                    order.user_changed(change, position);
                }
            }
        }
        self.touched.lock().push(index);
    }

    /// Wakes whoever waits for what was touched: it is published now.
    fn wake(&self) {
        let touched = std::mem::take(&mut *self.touched.lock());
        for index in touched {
            index.notify.notify_waiters();
        }
    }

    /// Tells those who share a room with a user whose presence changed, and the user: each index once.
    fn presence_changed(&self, user: &UserId, counter: u64) {
        let keys = match self.room_keys_of(user) {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(%error, "a change of presence could not be told");
                return;
            }
        };
        let mut told: Vec<Arc<UserIndex>> = Vec::new();
        let mut seen: HashSet<*const UserIndex> = HashSet::new();
        told.extend(self.indexes.get(user).map(|index| index.clone()));
        seen.extend(told.iter().map(Arc::as_ptr));
        for key in keys {
            let Some(watchers) = self.watchers.get(&key) else {
                continue;
            };
            let new = watchers.iter().filter(|index| seen.insert(Arc::as_ptr(index)));
            told.extend(new.cloned());
        }
        for index in &told {
            index.state.lock().presence.note(user, counter);
        }
        self.told.lock().insert(counter, told);
    }

    /// Wakes whoever was told of a change of presence, now that the counter includes it.
    fn wake_for_presence(&self, counter: u64) {
        let told = self.told.lock().remove(&counter);
        for index in told.into_iter().flatten() {
            index.notify.notify_waiters();
        }
    }

    /// The rooms a user is joined to: from the index where there is one.
    fn room_keys_of(&self, user: &UserId) -> Result<Vec<EntityKey>, Error> {
        if let Some(index) = self.indexes.get(user).map(|index| index.clone()) {
            let state = index.state.lock();
            if state.built {
                return Ok(state.room_keys());
            }
        }
        let mut keys = Vec::new();
        if !self.rooms.is_local(user) {
            for room in self.rooms.rooms_of_remote(user)? {
                keys.extend(self.rooms.get(&room)?.map(|room| room.key()));
            }
            return Ok(keys);
        }
        let Some(user) = self.users.get(user)? else {
            return Ok(keys);
        };
        for entry in user.rooms(&[Membership::Join])? {
            keys.extend(self.rooms.get(&entry.room_id)?.map(|room| room.key()));
        }
        Ok(keys)
    }

    /// Whether another user is joined to one of the rooms of an index. Costs the rooms of whoever has fewer of them.
    pub(crate) fn share_a_room(&self, index: &UserIndex, other: &UserId) -> Result<bool, Error> {
        if index.user.id() == other {
            return Ok(true);
        }
        if let Some(theirs) = self.indexes.get(other).map(|theirs| theirs.clone()) {
            // The lower address first, as everybody does who holds two of them.
            let (mine, theirs) = match std::ptr::from_ref(index) < Arc::as_ptr(&theirs) {
                true => {
                    let mine = index.state.lock();
                    (mine, theirs.state.lock())
                }
                false => {
                    let theirs = theirs.state.lock();
                    (index.state.lock(), theirs)
                }
            };
            if theirs.built {
                return Ok(mine.shares(&theirs));
            }
        }
        let keys = self.room_keys_of(other)?;
        let state = index.state.lock();
        Ok(keys.into_iter().any(|key| state.has(key)))
    }

    /// The index of a user, built if need be.
    pub(crate) fn index(&self, user: &User) -> IndexGuard {
        loop {
            let index = self
                .indexes
                .entry(user.id().to_owned())
                .or_insert_with(|| {
                    let start = self.next_start.fetch_add(1, Ordering::AcqRel);
                    Arc::new(UserIndex::new(user.clone(), start, self.clock.now_ms()))
                })
                .clone();
            index.active.fetch_add(1, Ordering::AcqRel);
            let guard = IndexGuard {
                index,
                clock: self.clock.clone(),
            };
            let mut state = guard.index.state.lock();
            // After the index is in the map: what is noted from now on is noted in it.
            state.own.settle(user.position());
            let closed = state.closed;
            drop(state);
            if !closed {
                return guard;
            }
        }
    }

    /// A device has sent something encrypted.
    pub(crate) fn has_encrypted(&self, user: &UserId, device: &DeviceId) {
        let Some(index) = self.indexes.get(user).map(|index| index.clone()) else {
            return;
        };
        index.state.lock().encrypted.insert(device.to_owned());
        index.notify.notify_waiters();
    }

    /// Brings the joined rooms of an index up to date. Gives the greatest position in the user's shard
    /// of what was read: it may not be published yet.
    pub(crate) fn refresh(&self, guard: &IndexGuard) -> Result<Position, Error> {
        let index = &guard.index;
        {
            let state = index.state.lock();
            if state.built && state.stale.is_empty() {
                return Ok(0);
            }
        }
        let _refresh = index.refresh.lock();
        let (built, stale) = {
            let mut state = index.state.lock();
            (state.built, std::mem::take(&mut state.stale))
        };
        let read = if built {
            self.read_stale(index, &stale)
        } else {
            self.build(index)
        };
        if read.is_err() {
            // What was not read stays to be read.
            index.state.lock().stale.extend(stale);
        }
        read
    }

    /// Reads the whole room list, once.
    fn build(&self, index: &Arc<UserIndex>) -> Result<Position, Error> {
        let entries = index.user.rooms(&[Membership::Join])?;
        let mut last = 0;
        let mut rooms = Vec::with_capacity(entries.len());
        for entry in entries {
            last = last.max(entry.position);
            rooms.extend(self.rooms.get(&entry.room_id)?.map(|room| (room, entry)));
        }
        for (room, _) in &rooms {
            self.watch(room.key(), index);
        }
        // What changes after this is noted in the index, which is watched now.
        let floor = self.users.presence().last_change().value;
        let mut state = index.state.lock();
        state.presence.begin(floor);
        for (room, entry) in &rooms {
            state.add(room, entry);
        }
        state.built = true;
        Ok(last)
    }

    /// Brings the rooms in the order of their activity up to date, as [`Self::refresh`] does the joined ones.
    pub(crate) fn refresh_order(&self, guard: &IndexGuard) -> Result<Position, Error> {
        let read = self.refresh(guard)?;
        let index = &guard.index;
        if index.state.lock().sliding.is_some() {
            return Ok(read);
        }
        let _refresh = index.refresh.lock();
        if index.state.lock().sliding.is_some() {
            return Ok(read);
        }
        let entries = index.user.now().rooms_with_forgotten()?;
        let last = entries.iter().map(|entry| entry.position).max().unwrap_or(0);
        let now = self.clock.now_ms();
        let mut found = Vec::with_capacity(entries.len());
        for entry in &entries {
            let room = self.rooms.get(&entry.room_id)?;
            found.push(Listed::of(entry, room.as_ref(), now)?);
        }
        // Of two rooms that were active within one millisecond, the one whose position is later comes later.
        found.sort_by_key(|(listed, read_at)| (listed.activity, *read_at));
        let direct = crate::sliding::direct_rooms(&index.user)?;
        let mut state = index.state.lock();
        let mut order = RoomOrder::new(direct);
        for (listed, read_at) in found {
            // What came in between would be missed.
            let moved = state
                .room(&listed.room.room_id)
                .is_some_and(|joined| joined.last() > read_at);
            order.put(listed, moved.then_some(now));
        }
        state.sliding = Some(Box::new(order));
        Ok(read.max(last))
    }

    /// Takes a changed entry of the room list over into the order of rooms, where there is one.
    fn order_anew(&self, index: &UserIndex, entry: &RoomEntry) -> Result<(), Error> {
        if index.state.lock().sliding.is_none() {
            return Ok(());
        }
        let now = self.clock.now_ms();
        let room = self.rooms.get(&entry.room_id)?;
        let (listed, _) = Listed::of(entry, room.as_ref(), now)?;
        if let Some(order) = &mut index.state.lock().sliding {
            order.replace(listed, now);
        }
        Ok(())
    }

    /// Reads the entries of some rooms again.
    fn read_stale(
        &self,
        index: &Arc<UserIndex>,
        stale: &std::collections::BTreeSet<ruma::OwnedRoomId>,
    ) -> Result<Position, Error> {
        let mut last = 0;
        for room_id in stale {
            let entry = index.user.room(room_id)?;
            last = last.max(entry.as_ref().map_or(0, |entry| entry.position));
            if let Some(entry) = &entry {
                self.order_anew(index, entry)?;
            }
            match entry {
                Some(entry) if entry.membership == Membership::Join => self.add(index, &entry)?,
                _ => {
                    let removed = index.state.lock().remove(room_id);
                    if let Some(key) = removed {
                        self.unwatch(key, index);
                    }
                }
            }
        }
        Ok(last)
    }

    fn add(&self, index: &Arc<UserIndex>, entry: &RoomEntry) -> Result<(), Error> {
        let Some(room) = self.rooms.get(&entry.room_id)? else {
            return Ok(());
        };
        self.watch(room.key(), index);
        index.state.lock().add(&room, entry);
        Ok(())
    }

    fn watch(&self, key: EntityKey, index: &Arc<UserIndex>) {
        let mut watchers = self.watchers.entry(key).or_default();
        if !watchers.iter().any(|one| Arc::ptr_eq(one, index)) {
            watchers.push(index.clone());
        }
    }

    fn unwatch(&self, key: EntityKey, index: &Arc<UserIndex>) {
        if let Some(mut watchers) = self.watchers.get_mut(&key) {
            watchers.retain(|one| !Arc::ptr_eq(one, index));
        }
        self.watchers.remove_if(&key, |_, watchers| watchers.is_empty());
    }

    /// Drops the indexes that nobody has used for a while.
    pub(crate) fn drop_idle(&self) {
        let now = self.clock.now_ms();
        let is_old = |index: &UserIndex| {
            index
                .idle_since_ms()
                .is_some_and(|since| now >= since + INDEX_IDLE_MS)
        };
        let old: Vec<_> = self
            .indexes
            .iter()
            .filter(|index| is_old(index))
            .map(|index| index.clone())
            .collect();
        for index in old {
            let keys: Vec<EntityKey> = {
                let mut state = index.state.lock();
                if !is_old(&index) {
                    continue;
                }
                state.closed = true;
                state.rooms().map(|room: &JoinedEntry| room.key).collect()
            };
            self.indexes
                .remove_if(index.user.id(), |_, one| Arc::ptr_eq(one, &index));
            keys.into_iter().for_each(|key| self.unwatch(key, &index));
        }
    }

    /// How many indexes there are, and how many rooms are watched: for tests.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.indexes.len(), self.watchers.len())
    }
}

fn upgraded(weak: &Weak<Notifier>, act: impl FnOnce(&Notifier)) {
    if let Some(notifier) = weak.upgrade() {
        act(&notifier);
    }
}
