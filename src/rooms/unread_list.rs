//! The events that a user was notified of (client-server API, "Listing Notifications"), found again by the rules.

use std::sync::Arc;

use hearth_events::push::{Outcome, PushEvent};
use ruma::push::Action;

use crate::{Error, Event, EventRoom, Place, Room, UnreadUser};

/// How many events are read at once.
const CHUNK_EVENTS: usize = 64;

/// An event that a user was notified of.
pub struct Notified {
    /// The event.
    pub event: Arc<Event>,
    /// What the user's rules say of it.
    pub actions: Vec<Action>,
    /// Whether the user has read it.
    pub read: bool,
}

impl Room {
    /// The events of the user's stay that notify, newest first, as far as the newest `looked_at` events of the room
    /// have any.
    pub fn notified(&self, user: &UnreadUser<'_>, mut looked_at: usize) -> Result<Vec<Notified>, Error> {
        let begin = Place {
            anchor: user.joined,
            offset: 0,
        };
        let marks = self.marks(user)?;
        let mut until = Place {
            anchor: self.view().last_n,
            offset: 0,
        };
        let mut found = Vec::new();
        while looked_at > 0 {
            let mut shorts = Vec::new();
            let most = looked_at.min(CHUNK_EVENTS);
            self.visit_timeline(begin, until, true, &mut |row| {
                until = row.place.before();
                shorts.push(row.short);
                shorts.len() < most
            })?;
            if shorts.is_empty() {
                break;
            }
            looked_at -= shorts.len();
            for event in self.events(&shorts)? {
                if event.is_redacted()
                    || event.header.place.offset != 0
                    || user.ignored.contains(event.pdu.sender())
                {
                    continue;
                }
                let Some(parsed) = PushEvent::new(&event.pdu.json) else {
                    continue;
                };
                let around = EventRoom::new(self, user.id, &event, &user.threads);
                let actions = user.rules.actions(user.id, &parsed, &around).to_vec();
                if Outcome::of(&actions).notify {
                    let read = event.header.place <= marks.of(event.header.thread);
                    found.push(Notified { event, actions, read });
                }
            }
        }
        Ok(found)
    }
}
