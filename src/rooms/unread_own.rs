//! Unread counts of users whose own push rules may come to something else than the defaults: their rules are applied
//! to the events they have not read, and what came out is kept until more events come. Where very many are unread, one
//! count looks at the newest, and each that follows at some more.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use hearth_events::push::{Outcome, Rules};
use hearth_storage::EntityKey;
use ruma::{OwnedEventId, OwnedUserId};

use crate::{
    Error, Place, Room,
    event::Short,
    unread::{Counted, Counts, Marks, UnreadUser},
};

/// How many events a count looks at. A test comes there sooner.
const EVENTS_MAX: u64 = if cfg!(test) { 20 } else { 10_000 };

/// How many unread events before those that are known a count looks at: it is on somebody's way.
const EARLIER_EVENTS_MAX: u64 = if cfg!(test) { 5 } else { 1_000 };

/// How many events that notify are kept for a user in a room. What is before them is not counted.
const FOUND_MAX: usize = 10_000;

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
    /// Whether it notifies by the default rules, too: then a row says so when it is redacted.
    by_default: bool,
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
    /// The counts of a user by looking at every unread event. Each call looks at [`EVENTS_MAX`] at most, the newest first.
    pub(crate) fn counted(
        &self,
        user: &UnreadUser<'_>,
        marks: &Marks,
        last: Place,
    ) -> Result<Counted, Error> {
        let key = (self.0.key, user.id.to_owned());
        // Filled-in history stands before its anchor.
        let base = match marks.base.offset {
            0 => marks.base.anchor,
            _ => marks.base.anchor.saturating_sub(1),
        };
        let known = self.0.rooms.own_counts.get(&key).filter(|own| {
            Arc::ptr_eq(&own.rules, &user.rules)
                && own.ignored == user.ignored
                && own.threads == user.threads
                && (base..=last.anchor).contains(&own.until)
                && last.anchor - own.until <= EVENTS_MAX
        });
        let (mut found, known_from, known_until, earlier) = match &known {
            Some(own) => {
                let still = own.found.iter().copied().filter(|found| found.n > base);
                (still.collect(), own.from.max(base), own.until, EARLIER_EVENTS_MAX)
            }
            None => (Vec::new(), last.anchor, last.anchor, EVENTS_MAX),
        };
        self.look_at(user, known_until, last.anchor, &mut found)?;
        let from = match found.len() < FOUND_MAX {
            true => known_from.saturating_sub(earlier).max(base),
            false => known_from,
        };
        self.look_at(user, from, known_from, &mut found)?;
        let counted = self.count_found(&found, marks, last)?;
        let own = Own {
            rules: user.rules.clone(),
            ignored: user.ignored.clone(),
            threads: user.threads.clone(),
            from,
            until: last.anchor,
            found,
        };
        self.0.rooms.own_counts.insert(key, Arc::new(own));
        Ok(counted)
    }

    fn count_found(&self, found: &[Found], marks: &Marks, last: Place) -> Result<Counted, Error> {
        let redacted = self.redacted(found, marks.base, last)?;
        let mut counted = Counted::default();
        for event in found {
            let place = Place {
                anchor: event.n,
                offset: 0,
            };
            if place <= marks.of(event.thread) || redacted.contains(&event.n) {
                continue;
            }
            let counts: &mut Counts = match event.thread {
                None => &mut counted.main,
                Some(root) => counted.threads.entry(root).or_default(),
            };
            counts.add(Outcome {
                notify: true,
                highlight: event.highlight,
            });
        }
        Ok(counted)
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
                        by_default: event.header.class.notify,
                    });
                }
            }
        }
        Ok(())
    }

    /// The numbers of those of the found events that are redacted by now.
    fn redacted(&self, found: &[Found], after: Place, until: Place) -> Result<HashSet<u64>, Error> {
        let mut redacted = HashSet::new();
        self.visit_uncounted(after, until, &mut |place, _, _| {
            if place.offset == 0 {
                redacted.insert(place.anchor);
            }
        })?;
        // Few others notify anybody.
        let others: Vec<Short> = found
            .iter()
            .filter(|found| !found.by_default)
            .map(|found| found.short)
            .collect();
        for chunk in others.chunks(CHUNK_EVENTS) {
            for event in self.events(chunk)? {
                if event.is_redacted() {
                    redacted.insert(event.header.place.anchor);
                }
            }
        }
        Ok(redacted)
    }
}
