//! What users have sent who asked to be erased with their account (client-server API, "Account deactivation"): who was
//! in the room at the time goes on seeing it, everybody else gets it redacted.

use std::{borrow::Cow, collections::HashSet};

use hearth_storage::{Published, Reader};
use hearth_users::{Change, UserNote};
use parking_lot::RwLock;
use ruma::{OwnedUserId, UserId};

use crate::{Error, Event, Membership, Room, Viewer};

/// The users who asked for it. They are few, and commonly none.
pub(crate) struct Erased(RwLock<HashSet<OwnedUserId>>);

impl Erased {
    /// Those whom the storage knows.
    pub(crate) fn read(reader: &dyn Reader) -> Self {
        let found = hearth_users::erased_users(reader).unwrap_or_else(|error| {
            tracing::error!(%error, "who asked to be erased cannot be read; what they sent is shown until the next start");
            Vec::new()
        });
        Self(RwLock::new(found.into_iter().collect()))
    }

    /// Something was published: perhaps that a user asks for it.
    pub(crate) fn published(&self, published: &Published, reader: &dyn Reader) {
        let note = published.note.as_ref();
        let Some(note) = note.and_then(|note| note.downcast_ref::<UserNote>()) else {
            return;
        };
        if note.changes.contains(&Change::Account)
            && hearth_users::is_erased(reader, &note.user_id).unwrap_or_default()
        {
            self.0.write().insert(note.user_id.clone());
        }
    }

    fn contains(&self, user: &UserId) -> bool {
        let erased = self.0.read();
        !erased.is_empty() && erased.contains(user)
    }
}

impl Room {
    /// Whether the sender of an event asked to be erased.
    pub(crate) fn is_erased(&self, event: &Event) -> bool {
        self.0.rooms.erased.contains(event.pdu.sender())
    }

    /// An event as the viewer is shown it.
    pub(crate) fn shown_to<'a>(
        &self,
        event: &'a Event,
        viewer: Option<&mut Viewer>,
    ) -> Result<Cow<'a, Event>, Error> {
        let Some(viewer) = viewer.filter(|_| self.is_erased(event)) else {
            return Ok(Cow::Borrowed(event));
        };
        match viewer.membership_before(event)? {
            Membership::Join => Ok(Cow::Borrowed(event)),
            _ => Ok(Cow::Owned(self.without_content(event)?)),
        }
    }
}
