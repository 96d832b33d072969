//! The room by Ruma's rules: the graph that all servers have together, judged and resolved event by event, must say of
//! each event and of the current state what the servers say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use hearth_events::{Pdu, Rules};
use hearth_rooms::{Flags, Room};
use ruma::events::{StateEventType, TimelineEventType};
use ruma::state_res::utils::event_id_set::EventIdSet;
use ruma::state_res::{
    Event, StateMap, check_state_dependent_auth_rules, check_state_independent_auth_rules,
};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, UInt, UserId};
use serde_json::value::RawValue;

use super::checks::{events_of, is_placed};
use super::reference_v1;

/// An event in the form that Ruma asks.
pub struct Theirs {
    pub pdu: Pdu,
    room_id: Option<OwnedRoomId>,
    kind: TimelineEventType,
    content: Box<RawValue>,
    redacts: Option<OwnedEventId>,
    rejected: bool,
}

type States = HashMap<OwnedEventId, StateMap<OwnedEventId>>;

/// The graph as far as it is judged.
struct Graph {
    rules: &'static Rules,
    events: HashMap<OwnedEventId, Arc<Theirs>>,
    after: States,
}

/// Compares the rooms of several servers, which agree with each other, with the reference.
pub fn check(rooms: &[Room]) -> Result<(), String> {
    let Some(first) = rooms.first() else {
        return Ok(());
    };
    let mut pdus: BTreeMap<(u64, OwnedEventId), Pdu> = BTreeMap::new();
    for room in rooms {
        for event in events_of(room) {
            // One that a server has not redacted says more.
            let key = (event.pdu.depth(), event.pdu.event_id.clone());
            if is_placed(&event) && (!event.is_redacted() || !pdus.contains_key(&key)) {
                pdus.insert(key, event.pdu.clone());
            }
        }
    }
    let mut graph = Graph {
        rules: first.rules(),
        events: HashMap::new(),
        after: HashMap::new(),
    };
    // Honest servers give an event a greater depth than those before it.
    for pdu in pdus.into_values() {
        let id = pdu.event_id.clone();
        let verdict = graph.add(pdu)?;
        for room in rooms {
            let event = room.event_by_id(&id).map_err(|error| error.to_string())?;
            let Some(event) = event.filter(|event| is_placed(event)) else {
                continue;
            };
            if event.header.flags.has(Flags::REJECTED) != verdict.is_err() {
                return Err(format!(
                    "{id} ({} {:?} by {}): the reference says {verdict:?}, a server the contrary",
                    event.pdu.kind(),
                    event.pdu.state_key(),
                    event.pdu.sender()
                ));
            }
        }
    }
    let tips = first.tips().map_err(|error| error.to_string())?;
    let tips: Vec<OwnedEventId> = tips.iter().map(|event| event.pdu.event_id.clone()).collect();
    let expected = graph.resolved(&tips)?;
    let expected: BTreeMap<(String, String), String> = expected
        .into_iter()
        .map(|((kind, key), id)| ((kind.to_string(), key), id.to_string()))
        .collect();
    let found = super::checks::state_of(first);
    match expected == found {
        true => Ok(()),
        false => Err(format!(
            "the reference resolves to {expected:#?}, the servers to {found:#?}"
        )),
    }
}

impl Graph {
    /// Judges an event whose previous events are there. The inner error says why it is rejected.
    fn add(&mut self, pdu: Pdu) -> Result<Result<(), String>, String> {
        let id = pdu.event_id.clone();
        let before = self.resolved(pdu.prev_events())?;
        let is_create = pdu.kind() == "m.room.create";
        let nameless = is_create && self.rules.room_id_is_create_hash();
        let mut event = Theirs {
            room_id: (!nameless).then(|| pdu.room_id().to_owned()),
            kind: pdu.kind().into(),
            content: serde_json::from_slice(pdu.content()).map_err(|error| error.to_string())?,
            redacts: pdu.redacts().map(ToOwned::to_owned),
            rejected: false,
            pdu,
        };
        let verdict = self.judge(&event, &before);
        event.rejected = verdict.is_err();
        let mut after = before;
        if let (Some(state_key), Ok(())) = (event.pdu.state_key(), &verdict) {
            after.insert((event.pdu.kind().into(), state_key.to_owned()), id.clone());
        }
        self.after.insert(id.clone(), after);
        self.events.insert(id, Arc::new(event));
        Ok(verdict)
    }

    fn judge(&self, event: &Theirs, before: &StateMap<OwnedEventId>) -> Result<(), String> {
        let rules = &self.rules.authorization;
        let fetch = |id: &EventId| self.events.get(id).cloned();
        check_state_independent_auth_rules(rules, event, fetch)?;
        let mut by_key: HashMap<(StateEventType, String), Arc<Theirs>> = HashMap::new();
        let create = self
            .events
            .values()
            .find(|event| event.pdu.kind() == "m.room.create");
        let named = event.pdu.auth_events().iter().filter_map(|id| fetch(id));
        for cited in named.chain(create.cloned()) {
            let state_key = cited.pdu.state_key().unwrap_or_default().to_owned();
            by_key.insert((cited.pdu.kind().into(), state_key), cited);
        }
        let of_auth = |kind: &StateEventType, key: &str| by_key.get(&(kind.clone(), key.to_owned())).cloned();
        check_state_dependent_auth_rules(rules, event, of_auth)?;
        let of_state = |kind: &StateEventType, key: &str| {
            let id = before.get(&(kind.clone(), key.to_owned()))?;
            fetch(id)
        };
        check_state_dependent_auth_rules(rules, event, of_state)
    }

    /// The state after several events.
    fn resolved(&self, of: &[OwnedEventId]) -> Result<StateMap<OwnedEventId>, String> {
        let mut states: Vec<StateMap<OwnedEventId>> = Vec::new();
        for id in of {
            let state = self.after.get(id).ok_or_else(|| format!("no server has {id}"))?;
            if !states.contains(state) {
                states.push(state.clone());
            }
        }
        match states.len() {
            0 => return Ok(StateMap::new()),
            1 => return Ok(states.remove(0)),
            _ => {}
        }
        let Some(version) = self.rules.state_res.v2_rules() else {
            // Ruma knows the other one alone.
            return reference_v1::resolve(&self.rules.authorization, &states, &self.events);
        };
        let chains: Vec<EventIdSet<OwnedEventId>> = states
            .iter()
            .map(|state| state.values().flat_map(|id| self.chain(id)).collect())
            .collect();
        ruma::state_res::resolve(
            &self.rules.authorization,
            version,
            &states,
            chains,
            |id| self.events.get(id).cloned(),
            |conflicted| Some(self.between(conflicted.values().flatten())),
        )
        .map_err(|error| error.to_string())
    }

    /// Everything that an event cites, and so on.
    fn chain(&self, of: &EventId) -> HashSet<OwnedEventId> {
        let mut chain = HashSet::new();
        let mut stack = vec![of.to_owned()];
        while let Some(id) = stack.pop() {
            let Some(event) = self.events.get(&id) else {
                continue;
            };
            for cited in event.pdu.auth_events() {
                if chain.insert(cited.clone()) {
                    stack.push(cited.clone());
                }
            }
        }
        chain
    }

    /// The events on paths between these.
    fn between<'a>(&self, values: impl Iterator<Item = &'a OwnedEventId>) -> EventIdSet<OwnedEventId> {
        let values: HashSet<OwnedEventId> = values.cloned().collect();
        let mut below: HashSet<OwnedEventId> = values.iter().flat_map(|id| self.chain(id)).collect();
        below.extend(values.iter().cloned());
        below.retain(|id| !self.chain(id).is_disjoint(&values));
        below.into_iter().collect()
    }
}

impl Event for Theirs {
    type Id = OwnedEventId;
    fn event_id(&self) -> &OwnedEventId {
        &self.pdu.event_id
    }
    fn room_id(&self) -> Option<&RoomId> {
        self.room_id.as_deref()
    }
    fn sender(&self) -> &UserId {
        self.pdu.sender()
    }
    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::try_from(self.pdu.origin_server_ts()).expect("a time"))
    }
    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }
    fn content(&self) -> &RawValue {
        &self.content
    }
    fn state_key(&self) -> Option<&str> {
        self.pdu.state_key()
    }
    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.prev_events().iter())
    }
    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.auth_events().iter())
    }
    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }
    fn rejected(&self) -> bool {
        self.rejected
    }
}
