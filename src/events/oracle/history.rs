//! A room's events in memory, with state sets over them: resolved by this crate, by Ruma, and by room version 1's text taken literally.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use ruma::events::{StateEventType, TimelineEventType};
use ruma::state_res::utils::event_id_set::EventIdSet;
use ruma::state_res::{Event, StateMap};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt, UserId};
use serde_json::value::RawValue;
use sha1::{Digest as _, Sha1};

use crate::*;

/// A type and a state key.
type Key = (String, String);
/// A state set.
pub(crate) type State = BTreeMap<Key, EventNo>;

/// The events of a room. The number of an event is its index plus one; what it cites came before.
pub(crate) struct History {
    pub rules: &'static Rules,
    pub events: Vec<Arc<Stored>>,
    by_id: HashMap<OwnedEventId, EventNo>,
    theirs: HashMap<OwnedEventId, Arc<Theirs>>,
    citers: Vec<Vec<EventNo>>,
}

/// An event.
pub(crate) struct Stored {
    pub pdu: Pdu,
    pub auth: Vec<EventNo>,
    pub rejected: bool,
}

impl ResolveEvent for Stored {
    fn pdu(&self) -> &Pdu {
        &self.pdu
    }
    fn auth(&self) -> &[EventNo] {
        &self.auth
    }
    fn rejected(&self) -> bool {
        self.rejected
    }
}

impl History {
    pub fn new(rules: &'static Rules) -> History {
        History {
            rules,
            events: Vec::new(),
            by_id: HashMap::new(),
            theirs: HashMap::new(),
            citers: Vec::new(),
        }
    }

    /// Adds an event, unless it is there. The first one is the create event.
    pub fn add(&mut self, pdu: Pdu, rejected: bool) -> EventNo {
        if let Some(no) = self.by_id.get(&pdu.event_id) {
            return *no;
        }
        let no = EventNo::try_from(self.events.len() + 1).unwrap();
        let auth: Vec<EventNo> = pdu.auth_events().iter().map(|id| self.by_id[id]).collect();
        for cited in &auth {
            self.citers[*cited as usize - 1].push(no);
        }
        self.by_id.insert(pdu.event_id.clone(), no);
        self.theirs.insert(
            pdu.event_id.clone(),
            Arc::new(Theirs::of(self.rules, &pdu, rejected)),
        );
        self.events.push(Arc::new(Stored { pdu, auth, rejected }));
        self.citers.push(Vec::new());
        no
    }

    pub fn get(&self, no: EventNo) -> &Stored {
        &self.events[no as usize - 1]
    }

    pub fn no(&self, id: &EventId) -> EventNo {
        self.by_id[id]
    }

    pub fn key(&self, no: EventNo) -> (String, String) {
        let pdu = &self.get(no).pdu;
        (pdu.kind().to_owned(), pdu.state_key().unwrap().to_owned())
    }

    /// Everything that an event cites, and so on.
    pub fn chain(&self, no: EventNo) -> BTreeSet<EventNo> {
        let mut chain = BTreeSet::new();
        let mut stack = self.get(no).auth.clone();
        while let Some(no) = stack.pop() {
            if chain.insert(no) {
                stack.extend(&self.get(no).auth);
            }
        }
        chain
    }

    /// The sets resolved by this crate.
    pub fn ours(&self, sets: &[State], numbers: &Numbers) -> State {
        let keys: BTreeSet<&(String, String)> = sets.iter().flat_map(|set| set.keys()).collect();
        let mut named: Vec<(&(String, String), Conflict)> = Vec::new();
        let mut state = State::new();
        for (index, key) in keys.into_iter().enumerate() {
            let values: Vec<Option<EventNo>> = sets.iter().map(|set| set.get(key).copied()).collect();
            if let Some(value) = values[0].filter(|_| values.iter().all(|value| *value == values[0])) {
                state.insert(key.clone(), value);
                continue;
            }
            let values = values
                .into_iter()
                .map(|no| no.map(|no| numbers.outside(no)))
                .collect();
            let conflict = Conflict {
                key: KeyNo::try_from(index).unwrap(),
                values,
            };
            named.push((key, conflict));
        }
        let conflicts: Vec<Conflict> = named.iter().map(|(_, conflict)| conflict.clone()).collect();
        let source = Source {
            history: self,
            base: &sets[numbers.base % sets.len()],
            newest: sets
                .iter()
                .flat_map(|set| set.values())
                .max()
                .copied()
                .unwrap_or(0),
            numbers,
        };
        let resolved = resolve(self.rules, sets.len(), &conflicts, &source).unwrap();
        assert_eq!(resolved.keys.len(), named.len());
        for ((key, conflict), (no, value)) in named.iter().zip(resolved.keys) {
            assert_eq!(conflict.key, no);
            if let Some(value) = value {
                state.insert((*key).clone(), numbers.inside(value));
            }
        }
        for value in resolved.more {
            let value = numbers.inside(value);
            assert!(state.insert(self.key(value), value).is_none());
        }
        state
    }

    /// The sets resolved by Ruma; none for room version 1, and where it gives up.
    pub fn theirs(&self, sets: &[State]) -> Option<State> {
        let version = self.rules.state_res.v2_rules()?;
        let id = |no: &EventNo| self.get(*no).pdu.event_id.clone();
        let maps: Vec<StateMap<OwnedEventId>> = sets
            .iter()
            .map(|set| {
                let entries = set.iter();
                entries
                    .map(|((kind, key), no)| ((StateEventType::from(kind.as_str()), key.clone()), id(no)))
                    .collect()
            })
            .collect();
        let chains: Vec<EventIdSet<OwnedEventId>> = sets
            .iter()
            .map(|set| {
                set.values()
                    .flat_map(|no| self.chain(*no))
                    .map(|no| id(&no))
                    .collect()
            })
            .collect();
        let resolved = ruma::state_res::resolve(
            &self.rules.authorization,
            version,
            &maps,
            chains,
            |id| self.theirs.get(id).cloned(),
            |conflicted| {
                let values: BTreeSet<EventNo> = conflicted.values().flatten().map(|id| self.no(id)).collect();
                Some(self.between(&values).iter().map(id).collect())
            },
        );
        let resolved = resolved.ok()?.into_iter();
        Some(
            resolved
                .map(|((kind, key), id)| ((kind.to_string(), key), self.no(&id)))
                .collect(),
        )
    }

    /// The events on paths between these.
    fn between(&self, values: &BTreeSet<EventNo>) -> BTreeSet<EventNo> {
        let mut below: BTreeSet<EventNo> = values.iter().flat_map(|no| self.chain(*no)).collect();
        below.extend(values);
        below.retain(|no| !self.chain(*no).is_disjoint(values));
        below
    }

    /// The sets resolved by the text of room version 1, with whole states. Where the text says nothing (several member events of different
    /// users; no event that is allowed), what servers do.
    pub fn by_the_text_of_version_1(&self, sets: &[State]) -> State {
        let mut values: BTreeMap<(String, String), BTreeSet<EventNo>> = BTreeMap::new();
        for (key, no) in sets.iter().flatten() {
            values.entry(key.clone()).or_default().insert(*no);
        }
        let conflicting = values.iter().filter(|(_, nos)| nos.len() > 1);
        let mut conflicting: BTreeMap<_, _> = conflicting.map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut r: State = values
            .into_iter()
            .filter(|(_, nos)| nos.len() == 1)
            .map(|(key, nos)| (key, *nos.first().unwrap()))
            .collect();
        let by_depth = |no: &EventNo| {
            let pdu = &self.get(*no).pdu;
            let hash: [u8; 20] = Sha1::digest(pdu.event_id.as_bytes()).into();
            (pdu.depth(), Reverse(hash))
        };
        let passes: [fn(&Key) -> bool; 4] = [
            |(kind, key)| kind == "m.room.power_levels" && key.is_empty(),
            |(kind, _)| kind == "m.room.join_rules",
            |(kind, _)| kind == "m.room.member",
            |_| true,
        ];
        for (index, pass) in passes.into_iter().enumerate() {
            let before = r.clone();
            let keys: Vec<_> = conflicting.keys().filter(|key| pass(key)).cloned().collect();
            for key in keys {
                let mut list: Vec<EventNo> = conflicting.remove(&key).unwrap().into_iter().collect();
                list.sort_by_key(by_depth);
                let mut chosen = list[0];
                let mut state = before.clone();
                if index == 3 {
                    let allowed = list.iter().rev().find(|no| self.allows(&state, **no));
                    chosen = *allowed.unwrap_or(&chosen);
                } else {
                    state.insert(key.clone(), chosen);
                    for no in &list[1..] {
                        if !self.allows(&state, *no) {
                            break;
                        }
                        state.insert(key.clone(), *no);
                        chosen = *no;
                    }
                }
                r.insert(key, chosen);
            }
        }
        r
    }

    /// Whether the authorization rules allow an event in a state.
    pub fn allows(&self, state: &State, no: EventNo) -> bool {
        self.allows_pdu(state, &self.get(no).pdu)
    }

    pub fn allows_pdu(&self, state: &State, pdu: &Pdu) -> bool {
        let mut nos: BTreeSet<EventNo> = state.values().copied().collect();
        if self.rules.room_id_is_create_hash() && !self.events.is_empty() {
            nos.insert(1);
        }
        let usable = nos.iter().map(|no| self.get(*no)).filter(|event| !event.rejected);
        let mut view = AuthState::new();
        for event in usable {
            let _ = view.add(self.rules, &event.pdu);
        }
        authorize(self.rules, &AuthInput::of_pdu(self.rules, pdu), &view).is_ok()
    }
}

/// Other numbers for the same events, and how a source answers.
pub(crate) struct Numbers {
    /// The number outside for each event; empty if it is the same.
    outside: Vec<EventNo>,
    /// The state set from which questions about the unconflicted state are answered.
    pub base: usize,
    pub newest_first: bool,
}

impl Numbers {
    pub fn same() -> Numbers {
        Numbers {
            outside: Vec::new(),
            base: 0,
            newest_first: true,
        }
    }

    pub fn shuffled(history: &History, mut pick: impl FnMut(usize) -> usize) -> Numbers {
        let mut left: Vec<EventNo> = (0..history.events.len() as EventNo).map(|no| no * 3).collect();
        let mut outside = Vec::new();
        while !left.is_empty() {
            outside.push(left.swap_remove(pick(left.len())));
        }
        Numbers {
            outside,
            base: pick(7),
            newest_first: pick(2) == 0,
        }
    }

    fn outside(&self, no: EventNo) -> EventNo {
        self.outside.get(no as usize - 1).copied().unwrap_or(no)
    }

    fn inside(&self, no: EventNo) -> EventNo {
        let place = self.outside.iter().position(|other| *other == no);
        place.map_or(no, |place| place as EventNo + 1)
    }
}

struct Source<'a> {
    history: &'a History,
    base: &'a State,
    newest: EventNo,
    numbers: &'a Numbers,
}

impl ResolveSource for Source<'_> {
    fn event(&self, no: EventNo) -> Result<Arc<dyn ResolveEvent>, SourceError> {
        let inside = self.numbers.inside(no);
        let index = (inside as usize)
            .checked_sub(1)
            .ok_or("no event has the number 0")?;
        let event = self.history.events.get(index).ok_or("there is no such event")?;
        if self.numbers.outside.is_empty() {
            return Ok(event.clone());
        }
        Ok(Arc::new(Stored {
            pdu: event.pdu.clone(),
            auth: event.auth.iter().map(|no| self.numbers.outside(*no)).collect(),
            rejected: event.rejected,
        }))
    }

    fn create(&self) -> Result<EventNo, SourceError> {
        assert!(self.history.rules.room_id_is_create_hash());
        Ok(self.numbers.outside(1))
    }

    fn unconflicted(&self, kind: &str, state_key: &str) -> Result<Option<EventNo>, SourceError> {
        let value = self.base.get(&(kind.to_owned(), state_key.to_owned()));
        Ok(value.map(|no| self.numbers.outside(*no)))
    }

    fn is_unconflicted(&self, no: EventNo) -> Result<bool, SourceError> {
        let no = self.numbers.inside(no);
        Ok(self.base.get(&self.history.key(no)) == Some(&no))
    }

    fn cited_by(
        &self,
        no: EventNo,
        visit: &mut dyn FnMut(EventNo) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        let mut citers = self.history.citers[self.numbers.inside(no) as usize - 1].clone();
        if self.numbers.newest_first {
            citers.reverse();
        }
        for citer in citers {
            if visit(self.numbers.outside(citer)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn numbers_ascend(&self) -> bool {
        self.numbers.outside.is_empty()
    }

    fn newest(&self) -> EventNo {
        self.newest
    }
}

/// An event in the form that Ruma asks.
struct Theirs {
    pdu: Pdu,
    room_id: Option<ruma::OwnedRoomId>,
    kind: TimelineEventType,
    content: Box<RawValue>,
    redacts: Option<OwnedEventId>,
    rejected: bool,
}

impl Theirs {
    fn of(rules: &Rules, pdu: &Pdu, rejected: bool) -> Theirs {
        Theirs {
            room_id: AuthInput::of_pdu(rules, pdu).room_id.map(ToOwned::to_owned),
            kind: pdu.kind().into(),
            content: serde_json::from_slice(pdu.content()).unwrap(),
            redacts: pdu.redacts().map(ToOwned::to_owned),
            pdu: pdu.clone(),
            rejected,
        }
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
        MilliSecondsSinceUnixEpoch(UInt::try_from(self.pdu.origin_server_ts()).unwrap())
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
