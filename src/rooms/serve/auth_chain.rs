//! Auth chains: the events that authorize others, and those that authorize them.

use std::{collections::HashSet, sync::Arc};

use crate::{
    Error, Event, Room,
    event::{Flags, Short},
};

/// How many events are read from storage at once.
const CHUNK_EVENTS: usize = 256;

impl Room {
    /// The auth chain of some events: all that authorize them, and recursively those. The events themselves are in it
    /// only where they authorize another one. Ends by itself: nothing authorizes what it rests on, and each event is
    /// looked at once.
    ///
    /// Where the room's id names the create event, no event lists it; it is part of every chain all the same.
    pub fn auth_chain(&self, of: &[Short]) -> Result<Vec<Arc<Event>>, Error> {
        let mut seen = HashSet::new();
        let mut chain = Vec::new();
        let mut next: Vec<Short> = Vec::new();
        for chunk in of.chunks(CHUNK_EVENTS) {
            for event in self.events(chunk)? {
                push_new(&event, &mut seen, &mut next);
            }
        }
        if let Some(create) = self.implied_create(of)? {
            seen.insert(create.short);
            chain.push(create);
        }
        while !next.is_empty() {
            let found = std::mem::take(&mut next);
            for chunk in found.chunks(CHUNK_EVENTS) {
                for event in self.events(chunk)? {
                    push_new(&event, &mut seen, &mut next);
                    chain.push(event);
                }
            }
        }
        // Rejected events authorize nothing; who names one is rejected too and is not asked for.
        chain.retain(|event| !event.header.flags.has(Flags::REJECTED));
        // Oldest first, so that a receiver finds before each event what authorizes it.
        chain.sort_by_key(|event| (event.pdu.depth(), event.short));
        Ok(chain)
    }

    /// The create event where events do not name it, unless it is all that was asked about.
    fn implied_create(&self, of: &[Short]) -> Result<Option<Arc<Event>>, Error> {
        if !self.rules().room_id_is_create_hash() {
            return Ok(None);
        }
        let create = self.event_by_id(&self.create_info().event_id)?;
        Ok(create.filter(|create| of.iter().any(|short| *short != create.short)))
    }
}

fn push_new(event: &Event, seen: &mut HashSet<Short>, next: &mut Vec<Short>) {
    next.extend(
        event
            .header
            .auth
            .iter()
            .copied()
            .filter(|auth| seen.insert(*auth)),
    );
}
