//! An annotation (a reaction, mostly) counts once: the same user may not put the same key on the same event by
//! the same event type again (client-server API, "Event annotations and reactions").

use hearth_storage::{Batch, Family};
use ruma::UserId;

use crate::{Error, Room, event::Short, keys, relations::Relation};

/// What stands for one annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Annotation {
    parent: Short,
    hash: [u8; 16],
}

impl Annotation {
    /// The annotation that an event with this relation makes, if it is one.
    pub(crate) fn of(parent: Short, relation: &Relation, sender: &UserId, kind: &str) -> Option<Self> {
        let key = relation
            .key
            .as_deref()
            .filter(|_| relation.rel_type == "m.annotation")?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"annotation");
        hasher.update(&parent.to_be_bytes());
        for part in [sender.as_str(), kind, key] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Some(Self { parent, hash })
    }

    /// Its name among what is not durable yet.
    pub(crate) fn pending_key(self) -> [u8; 16] {
        self.hash
    }

    fn row(self, room: &Room) -> Vec<u8> {
        keys::index(
            room.0.key,
            keys::INDEX_ANNOTATION,
            &[&self.parent.to_be_bytes(), &self.hash],
        )
    }

    /// Whether the room has it.
    pub(crate) fn exists(self, room: &Room) -> Result<bool, Error> {
        Ok(room.reader().get(Family::RoomIndex, &self.row(room))?.is_some())
    }

    /// Notes that an event makes it.
    pub(crate) fn put(self, room: &Room, child: Short, batch: &mut Batch) {
        batch.put(Family::RoomIndex, self.row(room), keys::u32_value(child));
    }

    /// Notes that its event was redacted.
    pub(crate) fn delete(self, room: &Room, batch: &mut Batch) {
        batch.delete(Family::RoomIndex, self.row(room));
    }
}
