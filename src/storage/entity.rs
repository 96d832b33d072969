//! Entity names and numbers. A number is allocated per (slot, kind) and never given twice on disk.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::log::Opened;
use crate::schema::entity::EntityRowKey;
use crate::{Batch, EntityKey, EntityKind, Error, Family, Reader, Slot, slot_of};

/// The tag of a row of the entity family.
const TAG: u8 = 2;

/// The entity with this name, if it exists.
pub fn entity(reader: &dyn Reader, kind: EntityKind, name: &str) -> Result<Option<EntityKey>, Error> {
    let slot = slot_of(name);
    let no = read_number(reader, &EntityRowKey::Name(slot, kind, name))?;
    Ok(no.map(|no| EntityKey { slot, no }))
}

/// The name of a room or user, given its key. Other kinds keep no way back.
pub fn name_of(reader: &dyn Reader, kind: EntityKind, entity: EntityKey) -> Result<Option<String>, Error> {
    let Some(value) = reader.get(Family::Entity, &EntityRowKey::Number(kind, entity).encode())? else {
        return Ok(None);
    };
    match value.split_first() {
        Some((&TAG, name)) => match std::str::from_utf8(name) {
            Ok(name) => Ok(Some(name.to_owned())),
            Err(_) => Err(Error::Corrupt("entity name")),
        },
        _ => Err(Error::Corrupt("entity name")),
    }
}

/// Removes an entity's name and its way back: the name may be taken anew, and then gets another number.
pub fn remove_entity(kind: EntityKind, name: &str, entity: EntityKey, batch: &mut Batch) {
    batch.delete(
        Family::Entity,
        EntityRowKey::Name(entity.slot, kind, name).encode(),
    );
    batch.delete(Family::Entity, EntityRowKey::Number(kind, entity).encode());
}

fn read_number(reader: &dyn Reader, key: &EntityRowKey<'_>) -> Result<Option<u32>, Error> {
    let Some(value) = reader.get(Family::Entity, &key.encode())? else {
        return Ok(None);
    };
    match value[..] {
        [TAG, a, b, c, d] => Ok(Some(u32::from_be_bytes([a, b, c, d]))),
        _ => Err(Error::Corrupt("entity number")),
    }
}

fn number_value(no: u32) -> Vec<u8> {
    let [a, b, c, d] = no.to_be_bytes();
    vec![TAG, a, b, c, d]
}

/// Gives out entity numbers, and keeps a name from being taken twice while the batch that takes it
/// is on its way to the disk.
#[derive(Default)]
pub(crate) struct Allocator(Mutex<State>);

#[derive(Default)]
struct State {
    next: HashMap<(Slot, EntityKind), u32>,
    reserved: HashSet<(EntityKind, String)>,
}

/// Holds a name until the batch that creates the entity is written or given up.
pub(crate) struct Reservation {
    allocator: Arc<Allocator>,
    kind: EntityKind,
    name: String,
    /// Which opening of the name's shard the number is of.
    opened: Opened,
}

impl Allocator {
    /// Takes a name: adds the entity's rows to the batch and reserves the name as long as the batch lives.
    pub(crate) fn allocate(
        self: &Arc<Self>,
        reader: &dyn Reader,
        kind: EntityKind,
        name: &str,
        opened: Opened,
        batch: &mut Batch,
    ) -> Result<EntityKey, Error> {
        if !self.0.lock().reserved.insert((kind, name.to_owned())) {
            return Err(Error::Exists);
        }
        // The name is reserved before the store is read: a batch that took it releases its own
        // reservation only when it can be read.
        let reservation = Reservation {
            allocator: Arc::clone(self),
            kind,
            name: name.to_owned(),
            opened,
        };
        if entity(reader, kind, name)?.is_some() {
            return Err(Error::Exists);
        }
        let slot = slot_of(name);
        let key = EntityKey {
            slot,
            no: self.next_number(reader, slot, kind)?,
        };
        batch.put(
            Family::Entity,
            EntityRowKey::Name(slot, kind, name).encode(),
            number_value(key.no),
        );
        if matches!(kind, EntityKind::Room | EntityKind::User) {
            let mut value = Vec::with_capacity(1 + name.len());
            value.push(TAG);
            value.extend_from_slice(name.as_bytes());
            batch.put(Family::Entity, EntityRowKey::Number(kind, key).encode(), value);
        }
        batch.reservations.push(Arc::new(reservation));
        Ok(key)
    }

    /// Forgets which numbers of some slots are free: another log may have given some since they were read.
    pub(crate) fn forget(&self, first: Slot, last: Slot) {
        let mut state = self.0.lock();
        state.next.retain(|(slot, _), _| *slot < first || *slot > last);
    }

    fn next_number(&self, reader: &dyn Reader, slot: Slot, kind: EntityKind) -> Result<u32, Error> {
        let mut state = self.0.lock();
        let next = match state.next.entry((slot, kind)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let stored = read_number(reader, &EntityRowKey::Counter(slot, kind))?;
                entry.insert(stored.unwrap_or(1))
            }
        };
        let no = *next;
        *next = no.checked_add(1).ok_or(Error::Corrupt("entity counter"))?;
        Ok(no)
    }
}

impl Reservation {
    /// Whether the number was given in this opening of the shard.
    pub(crate) fn is_of(&self, opened: Opened) -> bool {
        self.opened == opened
    }

    /// The row that keeps the number from being given again. The log adds it at the last moment, with
    /// the newest value, because batches may commit in another order than they took their numbers.
    pub(crate) fn put_counter(&self, batch: &mut Batch) {
        let slot = slot_of(&self.name);
        let next = self.allocator.0.lock().next.get(&(slot, self.kind)).copied();
        let next = next.expect("the counter was loaded when the number was given");
        let key = EntityRowKey::Counter(slot, self.kind).encode();
        batch.put(Family::Entity, key, number_value(next));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.allocator
            .0
            .lock()
            .reserved
            .remove(&(self.kind, std::mem::take(&mut self.name)));
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({:?} {})", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, MemoryEngine};

    fn commit(engine: &MemoryEngine, mut batch: Batch) {
        for reservation in batch.reservations.clone() {
            reservation.put_counter(&mut batch);
        }
        engine.write(&batch, true).unwrap();
    }

    #[test]
    fn a_name_is_given_once() {
        let engine = MemoryEngine::new();
        let allocator = Arc::new(Allocator::default());
        let mut first = Batch::new();
        let key = allocator
            .allocate(&engine, EntityKind::Room, "!a:x", 1, &mut first)
            .unwrap();
        assert_eq!(
            entity(&engine, EntityKind::Room, "!a:x"),
            Ok(None),
            "not written yet"
        );
        let mut second = Batch::new();
        let again = |batch: &mut Batch| allocator.allocate(&engine, EntityKind::Room, "!a:x", 1, batch);
        assert_eq!(again(&mut second), Err(Error::Exists), "reserved");
        drop(first);
        let mut third = Batch::new();
        let other = again(&mut third).unwrap();
        assert_ne!(other, key, "a number given up is not used again by this process");
        commit(&engine, third);
        assert_eq!(again(&mut second), Err(Error::Exists), "stored");
        assert_eq!(entity(&engine, EntityKind::Room, "!a:x"), Ok(Some(other)));
        assert_eq!(
            entity(&engine, EntityKind::User, "!a:x"),
            Ok(None),
            "kinds are apart"
        );
        assert_eq!(
            name_of(&engine, EntityKind::Room, other),
            Ok(Some("!a:x".to_owned()))
        );
    }

    #[test]
    fn numbers_survive_batches_that_commit_in_another_order() {
        let engine = MemoryEngine::new();
        let allocator = Arc::new(Allocator::default());
        // Two names that share a slot.
        let first = "!0:x".to_owned();
        let second = (1..)
            .map(|n| format!("!{n}:x"))
            .find(|name| slot_of(name) == slot_of(&first))
            .unwrap();
        let (mut one, mut two) = (Batch::new(), Batch::new());
        allocator
            .allocate(&engine, EntityKind::Room, &first, 1, &mut one)
            .unwrap();
        let last = allocator
            .allocate(&engine, EntityKind::Room, &second, 1, &mut two)
            .unwrap();
        commit(&engine, two);
        commit(&engine, one);
        let third = (1..)
            .map(|n| format!("!{n}:y"))
            .find(|name| slot_of(name) == slot_of(&first))
            .unwrap();
        let restarted = Arc::new(Allocator::default());
        let key = restarted
            .allocate(&engine, EntityKind::Room, &third, 1, &mut Batch::new())
            .unwrap();
        assert!(key.no > last.no);
    }
}
