//! The state before an event, as `/state` and `/state_ids` give it.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId, ServerName};

use super::is_served;
use crate::{
    Error, Event, Room, StateIds,
    event::{Flags, Short},
    state_tree,
};

/// How many events are read from storage at once.
const CHUNK_EVENTS: usize = 256;

/// The state before an event and its auth chain.
#[derive(Debug)]
pub struct ServedState {
    /// The state events.
    pub state: Vec<Arc<Event>>,
    /// Their auth chains.
    pub auth_chain: Vec<Arc<Event>>,
}

impl Room {
    /// The state before an event, for another server (`GET /state/{roomId}`).
    pub fn serve_state(&self, at: &EventId) -> Result<ServedState, Error> {
        let shorts = self.shorts_before(at)?;
        let mut state = Vec::with_capacity(shorts.len());
        for chunk in shorts.chunks(CHUNK_EVENTS) {
            state.extend(self.events(chunk)?);
        }
        let auth_chain = self.auth_chain(&shorts)?;
        Ok(ServedState { state, auth_chain })
    }

    /// As [`Room::serve_state`], the ids alone (`GET /state_ids/{roomId}`).
    pub fn serve_state_ids(&self, at: &EventId) -> Result<StateIds, Error> {
        let ids = |events: &[Arc<Event>]| -> Vec<OwnedEventId> {
            events.iter().map(|event| event.id().to_owned()).collect()
        };
        let shorts = self.shorts_before(at)?;
        let mut state = Vec::with_capacity(shorts.len());
        for chunk in shorts.chunks(CHUNK_EVENTS) {
            state.extend(ids(&self.events(chunk)?));
        }
        let auth_chain = ids(&self.auth_chain(&shorts)?);
        Ok(StateIds { state, auth_chain })
    }

    fn shorts_before(&self, at: &EventId) -> Result<Vec<Short>, Error> {
        let root = self.served_event(at)?.header.state_before;
        let mut shorts = Vec::new();
        state_tree::iter(&self.nodes(), root, &mut |_, short| shorts.push(short))?;
        Ok(shorts)
    }

    /// The auth chain of an event, for another server (`GET /event_auth/{roomId}/{eventId}`).
    pub fn serve_event_auth(&self, id: &EventId) -> Result<Vec<Arc<Event>>, Error> {
        self.auth_chain(&[self.known_event(id)?.short])
    }

    /// An event that other servers may know of: one that is served, or a state event whose place in the graph is not known
    /// here: it is part of some state, which the server would be given whole.
    fn known_event(&self, id: &EventId) -> Result<Arc<Event>, Error> {
        let event = self.event_by_id(id)?.filter(|event| {
            let outside = event.header.flags.has(Flags::OUTLIER) && event.pdu.state_key().is_some();
            is_served(event) || (outside && !event.header.flags.has(Flags::REJECTED))
        });
        event.ok_or_else(|| Error::NotFound(format!("event {id} is not known here")))
    }

    /// One event, redacted where the asking server may not see it (`GET /event/{eventId}`).
    pub fn serve_event(&self, server: &ServerName, id: &EventId) -> Result<Arc<Event>, Error> {
        let event = self.known_event(id)?;
        match is_served(&event) {
            true => self.server_viewer(server)?.shown(&event),
            false => Ok(event),
        }
    }
}
