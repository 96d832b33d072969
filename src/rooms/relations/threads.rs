//! Threads: what is kept of each, how many events it has and which is the newest (client-server API, "Threading").

use std::collections::HashMap;

use hearth_storage::{Batch, EntityKey, Family};
use ruma::{OwnedUserId, UserId};

use super::RelationRow;
use crate::{
    Error, Room,
    codec::{Cursor, put_varint},
    event::{Place, Short},
    keys,
};

/// The tag of a thread row's first encoding.
const THREAD_V1: u8 = 1;

/// What is kept of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The thread's root.
    pub root: Short,
    /// How many events it has beside the root.
    pub count: u32,
    /// The newest of them.
    pub latest: Short,
    /// Where that one stands.
    pub place: Place,
}

impl Thread {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.push(THREAD_V1);
        put_varint(&mut out, u64::from(self.count));
        put_varint(&mut out, u64::from(self.latest));
        out.extend_from_slice(&keys::place_bytes(self.place));
        out
    }

    fn decode(root: Short, bytes: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, "thread");
        if cursor.u8()? != THREAD_V1 {
            return Err(cursor.damaged());
        }
        let count = cursor.u32()?;
        let latest = cursor.u32()?;
        let place = keys::read_place(cursor.take(12)?).ok_or(Error::Damaged("thread"))?;
        Ok(Self {
            root,
            count,
            latest,
            place,
        })
    }
}

/// The thread rows that one operation changes.
#[derive(Default)]
pub(crate) struct ThreadRows {
    /// Before and after, by root.
    changed: HashMap<Short, (Option<Thread>, Option<Thread>)>,
    users: Vec<(Short, OwnedUserId)>,
}

impl ThreadRows {
    /// A thread that has events, as it is with what has changed so far. `threads` are ahead of storage.
    fn now(
        &self,
        room: &Room,
        threads: &HashMap<Short, Thread>,
        root: Short,
    ) -> Result<Option<Thread>, Error> {
        let changed = self.changed.get(&root).and_then(|(_, after)| *after);
        let thread = match changed.or_else(|| threads.get(&root).copied()) {
            Some(thread) => Some(thread),
            None => room.thread(root)?,
        };
        Ok(thread.filter(|thread| thread.count > 0))
    }

    /// The threads as they are with the changes.
    pub(crate) fn after(&self) -> impl Iterator<Item = (Short, Thread)> {
        let after = self.changed.iter();
        after.filter_map(|(root, (_, after))| after.map(|thread| (*root, thread)))
    }

    pub(crate) fn reply(
        &mut self,
        room: &Room,
        threads: &HashMap<Short, Thread>,
        root: Short,
        short: Short,
        place: Place,
        sender: &UserId,
    ) -> Result<(), Error> {
        let before = self.now(room, threads, root)?;
        let count = before.map_or(0, |thread| thread.count) + 1;
        // History that is filled in is older than what the thread has.
        let after = match before {
            Some(before) if before.place > place => Thread { count, ..before },
            _ => Thread {
                root,
                count,
                latest: short,
                place,
            },
        };
        self.changed.entry(root).or_insert((before, None)).1 = Some(after);
        self.users.push((root, sender.to_owned()));
        Ok(())
    }

    pub(crate) fn unlink(
        &mut self,
        room: &Room,
        threads: &HashMap<Short, Thread>,
        root: Short,
        place: Place,
        short: Short,
    ) -> Result<(), Error> {
        let Some(before) = self.now(room, threads, root)? else {
            return Ok(());
        };
        let mut after = Thread {
            count: before.count - 1,
            ..before
        };
        if before.latest == short
            && after.count > 0
            && let Some(row) = room.latest_thread_event(root, place)?
        {
            after.latest = row.child;
            after.place = row.place;
        }
        self.changed.entry(root).or_insert((Some(before), None)).1 = Some(after);
        Ok(())
    }

    pub(crate) fn write(&self, key: EntityKey, batch: &mut Batch) {
        for (root, (before, after)) in &self.changed {
            let row = keys::index(key, keys::INDEX_THREAD, &[&root.to_be_bytes()]);
            if let Some(before) = before {
                batch.delete(Family::RoomIndex, order_key(key, before.place, *root));
            }
            match after.filter(|thread| thread.count > 0) {
                Some(after) => {
                    batch.put(Family::RoomIndex, row, after.encode());
                    batch.put(
                        Family::RoomIndex,
                        order_key(key, after.place, *root),
                        keys::tagged(&[]),
                    );
                }
                None => batch.delete(Family::RoomIndex, row),
            }
        }
        for (root, user) in &self.users {
            let row = keys::index(
                key,
                keys::INDEX_THREAD_USER,
                &[&root.to_be_bytes(), user.as_bytes()],
            );
            batch.put(Family::RoomIndex, row, keys::tagged(&[]));
        }
    }
}

fn order_key(key: EntityKey, place: Place, root: Short) -> Vec<u8> {
    keys::index(
        key,
        keys::INDEX_THREAD_ORDER,
        &[&keys::place_bytes(place), &root.to_be_bytes()],
    )
}

impl Room {
    /// The thread below a root.
    pub fn thread(&self, root: Short) -> Result<Option<Thread>, Error> {
        let row = keys::index(self.0.key, keys::INDEX_THREAD, &[&root.to_be_bytes()]);
        let value = self.reader().get(Family::RoomIndex, &row)?;
        value.map(|bytes| Thread::decode(root, &bytes)).transpose()
    }

    /// Whether a user has sent an event to a thread.
    pub fn takes_part(&self, root: Short, user: &UserId) -> Result<bool, Error> {
        let row = keys::index(
            self.0.key,
            keys::INDEX_THREAD_USER,
            &[&root.to_be_bytes(), user.as_bytes()],
        );
        Ok(self.reader().get(Family::RoomIndex, &row)?.is_some())
    }

    /// Threads by the place of their newest event, newest first, from before `before`.
    pub fn threads(&self, before: Option<Place>, limit: usize) -> Result<Vec<Thread>, Error> {
        let (start, end) = keys::range(keys::index(self.0.key, keys::INDEX_THREAD_ORDER, &[]));
        let skip = start.len();
        let end = match before {
            Some(place) => keys::index(self.0.key, keys::INDEX_THREAD_ORDER, &[&keys::place_bytes(place)]),
            None => end,
        };
        let mut roots = Vec::new();
        self.reader()
            .scan(Family::RoomIndex, &start, &end, true, &mut |key, _| {
                roots.extend(keys::read_u32(&key[skip + 12..], "thread order").ok());
                roots.len() < limit
            })?;
        let mut out = Vec::with_capacity(roots.len());
        for root in roots {
            out.extend(self.thread(root)?);
        }
        Ok(out)
    }

    fn latest_thread_event(&self, root: Short, before: Place) -> Result<Option<RelationRow>, Error> {
        let mut found = None;
        self.visit_relations(root, Some(before), true, &mut |row| {
            if row.rel_type == "m.thread" {
                found = Some(row);
            }
            found.is_none()
        })?;
        Ok(found)
    }
}
