//! The events that a user was notified of (client-server API, "Listing Notifications"), found again by the rules.

use std::sync::Arc;

use hearth_events::push::{Outcome, PushEvent};
use ruma::OwnedEventId;
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

/// Which of them are looked for.
#[derive(Clone, Debug, Default)]
pub struct NotifiedWanted {
    /// Those before a time, or of it with a lower id.
    pub before: Option<(u64, OwnedEventId)>,
    /// Only those that highlight.
    pub highlights: bool,
    /// So many.
    pub limit: usize,
}

impl Room {
    /// The events of the user's stay that notify, the newest of the room first. `budget` is how many events may be looked
    /// at, and what is left of it.
    pub fn notified(
        &self,
        user: &UnreadUser<'_>,
        wanted: &NotifiedWanted,
        budget: &mut usize,
    ) -> Result<Vec<Notified>, Error> {
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
        while *budget > 0 && found.len() < wanted.limit {
            let mut shorts = Vec::new();
            let most = (*budget).min(CHUNK_EVENTS);
            self.visit_timeline(begin, until, true, &mut |row| {
                until = row.place.before();
                shorts.push(row.short);
                shorts.len() < most
            })?;
            if shorts.is_empty() {
                break;
            }
            *budget -= shorts.len();
            for event in self.events(&shorts)? {
                if event.is_redacted()
                    || event.header.place.offset != 0
                    || user.ignored.contains(event.pdu.sender())
                {
                    continue;
                }
                let later = |(ts, id): &(u64, OwnedEventId)| {
                    (event.pdu.origin_server_ts(), event.id()) >= (*ts, &**id)
                };
                if wanted.before.as_ref().is_some_and(later) {
                    continue;
                }
                let Some(parsed) = PushEvent::new(&event.pdu.json) else {
                    continue;
                };
                let around = EventRoom::new(self, user.id, &event, &user.threads);
                let actions = user.rules.actions(user.id, &parsed, &around).to_vec();
                let outcome = Outcome::of(&actions);
                if outcome.notify && (outcome.highlight || !wanted.highlights) && found.len() < wanted.limit {
                    let read = event.header.place <= marks.of(event.header.thread);
                    found.push(Notified { event, actions, read });
                }
            }
        }
        Ok(found)
    }
}
