//! What the conditions of push rules ask of the room at the time of an event.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_events::push::Surroundings;
use hearth_events::{PowerLevels, PowerView};
use ruma::{OwnedEventId, UserId};
use serde::Deserialize;

use crate::{Event, Room};

/// The room as it was at an event, for the conditions of a user's push rules.
pub struct EventRoom<'a> {
    room: &'a Room,
    user: &'a UserId,
    event: &'a Event,
    threads: &'a BTreeSet<OwnedEventId>,
}

impl<'a> EventRoom<'a> {
    /// The room at this event, for this user, who is subscribed to these threads of it.
    pub fn new(
        room: &'a Room,
        user: &'a UserId,
        event: &'a Event,
        threads: &'a BTreeSet<OwnedEventId>,
    ) -> Self {
        Self {
            room,
            user,
            event,
            threads,
        }
    }

    fn state(&self, kind: &str, state_key: &str) -> Option<Arc<Event>> {
        let found = self
            .room
            .state_at(self.event.header.state_before, kind, state_key);
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "the state at an event could not be read for push rules");
            None
        })
    }
}

impl Surroundings for EventRoom<'_> {
    fn room_id(&self) -> &str {
        self.room.id().as_str()
    }

    fn members(&self) -> u64 {
        let totals = self.room.totals_at(self.event.header.place).unwrap_or_default();
        match totals.joined {
            0 => u64::from(self.room.view().joined),
            joined => u64::from(joined),
        }
    }

    fn display_name(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Content {
            displayname: Option<String>,
        }
        let member = self.state("m.room.member", self.user.as_str())?;
        serde_json::from_slice::<Content>(member.pdu.content())
            .ok()?
            .displayname
    }

    fn thread_subscribed(&self) -> Option<bool> {
        let root = self.room.event(self.event.header.thread?);
        let root = root.unwrap_or_else(|error| {
            tracing::warn!(%error, "the root of a thread could not be read for push rules");
            None
        });
        Some(root.is_some_and(|root| self.threads.contains(root.id())))
    }

    fn sender_may_notify(&self, key: &str) -> bool {
        let levels = self.state("m.room.power_levels", "");
        let levels = levels.and_then(|event| PowerLevels::parse(self.room.rules(), event.pdu.content()).ok());
        let create = self.room.create_info();
        let view = PowerView::new(&create, levels.as_ref());
        view.user(self.event.pdu.sender()).reaches(view.notification(key))
    }
}
