//! Walks backwards through the graph: missing events and back-fill.

use std::{
    collections::{BinaryHeap, HashSet},
    sync::Arc,
};

use ruma::{OwnedEventId, ServerName};

use super::is_served;
use crate::{Error, Event, Room, event::Short};

/// The most events of one answer to `get_missing_events`; what other servers give.
pub const MISSING_EVENTS_MAX: usize = 20;

/// The most events of one answer to `backfill`; what other servers give.
pub const BACKFILL_EVENTS_MAX: usize = 100;

/// How many events one walk looks at, those that are not given out included.
const LOOKED_AT_MAX: usize = 1_000;

/// How many events a request may name as the ones where the walk begins, or where it ends.
const NAMED_MAX: usize = 200;

/// What `get_missing_events` asks for.
#[derive(Clone, Debug)]
pub struct Missing<'a> {
    /// The events that the asking server has: the walk ends there.
    pub earliest: &'a [OwnedEventId],
    /// The events whose predecessors are wanted.
    pub latest: &'a [OwnedEventId],
    /// The most events to give.
    pub limit: usize,
    /// Events of a lesser depth are of no interest.
    pub min_depth: u64,
}

/// An event that the walk has yet to look at, deepest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ahead {
    depth: u64,
    short: Short,
}

/// A walk over previous events, from the deepest to the least deep.
struct Walk<'a> {
    room: &'a Room,
    seen: HashSet<Short>,
    ahead: BinaryHeap<Ahead>,
    looked_at: usize,
}

impl<'a> Walk<'a> {
    fn new(room: &'a Room) -> Self {
        Self {
            room,
            seen: HashSet::new(),
            ahead: BinaryHeap::new(),
            looked_at: 0,
        }
    }

    /// The events with these ids, as far as they are in the room's graph.
    fn named(&self, ids: &[OwnedEventId]) -> Result<Vec<Arc<Event>>, Error> {
        let mut found = Vec::new();
        for id in ids.iter().take(NAMED_MAX) {
            found.extend(self.room.event_by_id(id)?);
        }
        Ok(found)
    }

    fn push(&mut self, event: &Event) {
        if self.seen.insert(event.short) {
            self.ahead.push(Ahead {
                depth: event.pdu.depth(),
                short: event.short,
            });
        }
    }

    fn push_previous(&mut self, event: &Event) -> Result<(), Error> {
        let known: Vec<Short> = event.header.prev.iter().copied().collect();
        for previous in self.room.events(&known)? {
            self.push(&previous);
        }
        if known.len() < event.pdu.prev_events().len() {
            // Some were not here when it came, and may have been filled in since.
            for previous in self.named(event.pdu.prev_events())? {
                self.push(&previous);
            }
        }
        Ok(())
    }

    /// The next event in the order of the walk.
    fn next(&mut self) -> Result<Option<Arc<Event>>, Error> {
        while let Some(next) = self.ahead.pop() {
            if self.looked_at >= LOOKED_AT_MAX {
                return Ok(None);
            }
            self.looked_at += 1;
            if let Some(event) = self.room.event(next.short)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

impl Room {
    /// The events before `latest` that the asking server lacks, oldest first (`POST /get_missing_events/{roomId}`).
    /// Where there are more than the limit, those nearest to `latest`. What the server may not see is redacted.
    pub fn missing_events(
        &self,
        server: &ServerName,
        wanted: &Missing<'_>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let limit = wanted.limit.min(MISSING_EVENTS_MAX);
        let mut viewer = self.server_viewer(server)?;
        let mut walk = Walk::new(self);
        for event in walk.named(wanted.earliest)? {
            walk.seen.insert(event.short);
        }
        let latest = walk.named(wanted.latest)?;
        for event in &latest {
            walk.seen.insert(event.short);
        }
        for event in latest.iter().filter(|event| is_served(event)) {
            walk.push_previous(event)?;
        }
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(event) = walk.next()?
        {
            if event.pdu.depth() < wanted.min_depth || event.header.flags.has(crate::Flags::OUTLIER) {
                continue;
            }
            if is_served(&event) {
                found.push(viewer.shown(&event)?);
            }
            walk.push_previous(&event)?;
        }
        found.reverse();
        Ok(found)
    }

    /// The given events and those before them, newest first (`GET /backfill/{roomId}`). What the server may not see is
    /// redacted.
    pub fn backfill(
        &self,
        server: &ServerName,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let limit = limit.min(BACKFILL_EVENTS_MAX);
        let mut viewer = self.server_viewer(server)?;
        let mut walk = Walk::new(self);
        for event in walk.named(from)? {
            walk.push(&event);
        }
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(event) = walk.next()?
        {
            if event.header.flags.has(crate::Flags::OUTLIER) {
                continue;
            }
            if is_served(&event) {
                found.push(viewer.shown(&event)?);
            }
            walk.push_previous(&event)?;
        }
        Ok(found)
    }
}
