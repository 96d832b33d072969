//! Unread counts of users whose own push rules may come to something else than the defaults: their rules are applied
//! to the events they have not read, and what came out is kept until more events come.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use hearth_events::push::Rules;
use hearth_storage::EntityKey;
use ruma::{OwnedEventId, OwnedUserId};

use crate::{
    Error, Place, Room,
    event::Short,
    unread::{Counts, Marks, UNREAD_EVENTS_MAX, UnreadUser},
};

/// How many bytes of memory what was counted may take.
const CACHE_BYTES: u64 = 16 << 20;

/// How many events are read at once.
const CHUNK_EVENTS: usize = 64;

/// An event that notifies the user.
#[derive(Clone, Copy)]
struct Found {
    n: u64,
    short: Short,
    thread: Option<Short>,
    highlight: bool,
}

/// What was counted for one user in one room.
pub(crate) struct Own {
    rules: Arc<Rules>,
    ignored: Arc<BTreeSet<OwnedUserId>>,
    threads: BTreeSet<OwnedEventId>,
    /// The events after `from` up to `until` were looked at.
    from: u64,
    until: u64,
    found: Vec<Found>,
}

#[derive(Clone)]
pub(crate) struct OwnWeight;

impl quick_cache::Weighter<(EntityKey, OwnedUserId), Arc<Own>> for OwnWeight {
    fn weight(&self, key: &(EntityKey, OwnedUserId), own: &Arc<Own>) -> u64 {
        200 + key.1.as_bytes().len() as u64 + own.found.len() as u64 * size_of::<Found>() as u64
    }
}

pub(crate) type OwnCounts = quick_cache::sync::Cache<(EntityKey, OwnedUserId), Arc<Own>, OwnWeight>;

pub(crate) fn cache() -> OwnCounts {
    OwnCounts::with_weighter((CACHE_BYTES / 1024) as usize, CACHE_BYTES, OwnWeight)
}

impl Room {
    /// The counts of a user by looking at every unread event, the newest [`UNREAD_EVENTS_MAX`] at most.
    pub(crate) fn counted(
        &self,
        user: &UnreadUser<'_>,
        marks: &Marks,
        last: Place,
    ) -> Result<HashMap<Option<Short>, Counts>, Error> {
        let key = (self.0.key, user.id.to_owned());
        let oldest = last.anchor.saturating_sub(UNREAD_EVENTS_MAX as u64);
        // Filled-in history stands before its anchor.
        let base = match marks.base.offset {
            0 => marks.base.anchor,
            _ => marks.base.anchor.saturating_sub(1),
        };
        let from = base.max(oldest);
        let known = self.0.rooms.own_counts.get(&key).filter(|own| {
            Arc::ptr_eq(&own.rules, &user.rules)
                && own.ignored == user.ignored
                && own.threads == user.threads
                && own.from <= from
                && own.until <= last.anchor
        });
        let (mut found, start) = match &known {
            Some(own) => {
                let still = own.found.iter().copied().filter(|found| found.n > from);
                (still.collect::<Vec<_>>(), own.until.max(from))
            }
            None => (Vec::new(), from),
        };
        self.look_at(user, start, last.anchor, &mut found)?;
        let redacted = self.redacted(&found)?;
        let mut counts: HashMap<Option<Short>, Counts> = HashMap::new();
        for event in &found {
            let place = Place {
                anchor: event.n,
                offset: 0,
            };
            if place > marks.of(event.thread) && !redacted.contains(&event.short) {
                counts
                    .entry(event.thread)
                    .or_default()
                    .add(hearth_events::push::Outcome {
                        notify: true,
                        highlight: event.highlight,
                    });
            }
        }
        let own = Own {
            rules: user.rules.clone(),
            ignored: user.ignored.clone(),
            threads: user.threads.clone(),
            from,
            until: last.anchor,
            found,
        };
        self.0.rooms.own_counts.insert(key, Arc::new(own));
        Ok(counts)
    }

    /// Applies the user's rules to the events after number `after` up to `until`.
    fn look_at(
        &self,
        user: &UnreadUser<'_>,
        mut after: u64,
        until: u64,
        found: &mut Vec<Found>,
    ) -> Result<(), Error> {
        let place = |anchor| Place { anchor, offset: 0 };
        while after < until {
            let mut shorts = Vec::with_capacity(CHUNK_EVENTS);
            self.visit_timeline(place(after), place(until), false, &mut |row| {
                after = row.place.anchor;
                if row.place.offset == 0 {
                    shorts.push(row.short);
                } else {
                    after -= 1;
                }
                shorts.len() < CHUNK_EVENTS
            })?;
            if shorts.is_empty() {
                return Ok(());
            }
            for event in self.events(&shorts)? {
                if event.is_redacted()
                    || event.pdu.sender() == user.id
                    || user.ignored.contains(event.pdu.sender())
                {
                    continue;
                }
                let outcome = self.outcome(user, &event)?;
                if outcome.notify {
                    found.push(Found {
                        n: event.header.place.anchor,
                        short: event.short,
                        thread: event.header.thread,
                        highlight: outcome.highlight,
                    });
                }
            }
        }
        Ok(())
    }

    /// Which of the found events are redacted by now.
    fn redacted(&self, found: &[Found]) -> Result<HashSet<Short>, Error> {
        let mut redacted = HashSet::new();
        for chunk in found.chunks(CHUNK_EVENTS) {
            let shorts: Vec<Short> = chunk.iter().map(|found| found.short).collect();
            for event in self.events(&shorts)? {
                if event.is_redacted() {
                    redacted.insert(event.short);
                }
            }
        }
        Ok(redacted)
    }
}
