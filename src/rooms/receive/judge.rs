//! Whether the rules allow an event of another server: by the events that it names, and by a state (server-server API,
//! "Authorization rules").

use std::sync::Arc;

use hearth_events::{AuthEvent, AuthInput, AuthState, Pdu};

use crate::{
    Error, Event, Flags, Room,
    state_tree::{self, NewNodes, NodeId, Overlay},
};

impl Room {
    /// Authorization by the events that the event itself names. The outer error is one of storage.
    pub(crate) fn judge_by_auth_events(&self, pdu: &Pdu) -> Result<Result<(), String>, Error> {
        self.judge_by_auth_events_as(pdu, &|event| event.header.flags.has(Flags::REJECTED))
    }

    /// As [`Room::judge_by_auth_events`], where it may not be stored yet which events are rejected.
    pub(crate) fn judge_by_auth_events_as(
        &self,
        pdu: &Pdu,
        is_rejected: &dyn Fn(&Event) -> bool,
    ) -> Result<Result<(), String>, Error> {
        let mut events = Vec::with_capacity(pdu.auth_events().len() + 1);
        for id in pdu.auth_events() {
            let event = self.event_by_id(id)?;
            events.push(event.ok_or_else(|| Error::BadEvent(format!("the auth event {id} is missing")))?);
        }
        let listed: Vec<AuthEvent<'_>> = events
            .iter()
            .map(|event| AuthEvent {
                event_id: event.id(),
                room_id: event.pdu.room_id(),
                kind: event.pdu.kind(),
                state_key: event.pdu.state_key(),
                rejected: is_rejected(event),
            })
            .collect();
        let input = AuthInput::of_pdu(self.rules(), pdu);
        if let Err(denied) = hearth_events::check_auth_events(self.rules(), &input, self.id(), &listed) {
            return Ok(Err(denied.0));
        }
        if let Some(create) = self.rules().create_event_of_room(self.id())
            && pdu.event_id != create
        {
            match self.event_by_id(&create)? {
                Some(event) if !is_rejected(&event) => events.push(event),
                _ => return Ok(Err("The room's create event is not accepted.".to_owned())),
            }
        }
        let state = AuthState::from_events(self.rules(), events.iter().map(|event| &event.pdu));
        Ok(self.decide(&input, state))
    }

    /// Authorization by the state before the event, as far as it is known. While most members are not, those that the
    /// state lacks are taken from the event's own auth events, and where these say otherwise than the state, which may
    /// hold what is wrong, it is what the two resolve to (MSC3902, "Processing incoming events"). The event is judged
    /// again when the state is whole.
    pub(crate) async fn judge_by_known_state(
        &self,
        pdu: &Pdu,
        root: NodeId,
        nodes: &mut NewNodes,
    ) -> Result<Result<(), String>, Error> {
        if !self.is_partial() {
            return self.judge_by_state(pdu, root, nodes);
        }
        let mut lacking = Vec::new();
        let mut otherwise = Vec::new();
        for id in pdu.auth_events() {
            let Some(event) = self.event_by_id(id)? else {
                continue;
            };
            let Some(key) =
                self.state_key_short(event.pdu.kind(), event.pdu.state_key().unwrap_or_default())?
            else {
                continue;
            };
            let store = self.nodes();
            let store = Overlay {
                base: &store,
                new: nodes,
            };
            match state_tree::get(&store, root, key)? {
                Some(short) if short == event.short => {}
                Some(_) => otherwise.push((key, Some(event.short))),
                None if event.pdu.kind() == "m.room.member" => lacking.push(event),
                None => {}
            }
        }
        let mut known = root;
        if !otherwise.is_empty() {
            let mut made = NewNodes::default();
            let claimed = {
                let store = self.nodes();
                let store = Overlay {
                    base: &store,
                    new: nodes,
                };
                state_tree::apply(&store, root, &otherwise, &mut made)?
            };
            nodes.absorb(made);
            known = self.state_of_roots(vec![root, claimed], nodes).await?;
        }
        self.judge_by_state_with(pdu, known, nodes, &lacking)
    }

    /// Authorization by the state before the event.
    pub(crate) fn judge_by_state(
        &self,
        pdu: &Pdu,
        root: NodeId,
        nodes: &NewNodes,
    ) -> Result<Result<(), String>, Error> {
        self.judge_by_state_with(pdu, root, nodes, &[])
    }

    /// Authorization by a state, with member events for those members that are not in it.
    fn judge_by_state_with(
        &self,
        pdu: &Pdu,
        root: NodeId,
        nodes: &NewNodes,
        members: &[Arc<Event>],
    ) -> Result<Result<(), String>, Error> {
        let input = AuthInput::of_pdu(self.rules(), pdu);
        let mut types = hearth_events::auth_types(
            self.rules(),
            pdu.sender(),
            pdu.kind(),
            pdu.state_key(),
            pdu.content(),
        );
        types.push(("m.room.create".to_owned(), String::new()));
        let store = self.nodes();
        let store = Overlay {
            base: &store,
            new: nodes,
        };
        let mut events = Vec::with_capacity(types.len());
        for (kind, state_key) in types {
            let found = match self.state_key_short(&kind, &state_key)? {
                Some(key) => state_tree::get(&store, root, key)?,
                None => None,
            };
            match found {
                Some(short) => events.extend(self.event(short)?),
                None => {
                    let is_it = |event: &&Arc<Event>| {
                        event.pdu.kind() == kind && event.pdu.state_key() == Some(&*state_key)
                    };
                    events.extend(members.iter().find(is_it).cloned());
                }
            }
        }
        let state = AuthState::from_events(self.rules(), events.iter().map(|event| &event.pdu));
        Ok(self.decide(&input, state))
    }

    fn decide(
        &self,
        input: &AuthInput<'_>,
        state: Result<AuthState, hearth_events::Error>,
    ) -> Result<(), String> {
        let state = state.map_err(|error| error.to_string())?;
        hearth_events::authorize(self.rules(), input, &state).map_err(|denied| denied.0)
    }
}
