//! What resolving the forks of a room costs, here and with Ruma, by the size of the room and of the conflict.
//!
//! Ruma is given the whole state sets and their auth chains ready-made; what it costs to have them is not counted. This crate is given the
//! keys that differ, and is asked about the rest. It prints the table of docs/benchmarks.md; both results are compared.

use std::collections::HashMap;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_events::{
    AuthInput, Conflict, EventNo, KeyNo, Pdu, ResolveEvent, ResolveSource, Rules, SourceError, auth_types,
    resolve, rules,
};
use ruma::events::{StateEventType, TimelineEventType};
use ruma::state_res::utils::event_id_set::EventIdSet;
use ruma::state_res::{Event, StateMap};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, UInt, UserId,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Each resolution is measured for about so long.
const MEASURED: Duration = Duration::from_millis(400);
/// One in so many joins is followed by new power levels, as rooms collect them over the years.
const JOINS_PER_POWER_LEVELS: usize = 500;

type Key = (String, String);
type State = HashMap<Key, EventNo>;

struct Stored {
    pdu: Pdu,
    auth: Vec<EventNo>,
}

impl ResolveEvent for Stored {
    fn pdu(&self) -> &Pdu {
        &self.pdu
    }
    fn auth(&self) -> &[EventNo] {
        &self.auth
    }
    fn rejected(&self) -> bool {
        false
    }
}

/// A room whose history forked after everybody had joined.
struct Room {
    rules: &'static Rules,
    events: Vec<Arc<Stored>>,
    citers: Vec<Vec<EventNo>>,
    key_nos: HashMap<Key, KeyNo>,
    keys: Vec<KeyNo>,
    base: Vec<Option<EventNo>>,
    state: State,
    forks: Vec<State>,
}

impl Room {
    fn new(members: usize, forks: usize, changes: usize) -> Room {
        let mut room = Room {
            rules: rules(&RoomVersionId::V11).expect("a known version"),
            events: Vec::new(),
            citers: Vec::new(),
            key_nos: HashMap::new(),
            keys: Vec::new(),
            base: Vec::new(),
            state: State::new(),
            forks: Vec::new(),
        };
        let mut state = State::new();
        let admin = "@admin:one";
        let levels = |n: usize| json!({"users": {admin: 100, "@user1:one": 50}, "events": {"n": n % 100}});
        room.say(
            &mut state,
            admin,
            "m.room.create",
            "",
            json!({"room_version": "11"}),
        );
        room.say(
            &mut state,
            admin,
            "m.room.member",
            admin,
            json!({"membership": "join"}),
        );
        room.say(&mut state, admin, "m.room.power_levels", "", levels(0));
        room.say(
            &mut state,
            admin,
            "m.room.join_rules",
            "",
            json!({"join_rule": "public"}),
        );
        for member in 0..members {
            let user = format!("@user{member}:one");
            room.say(
                &mut state,
                &user,
                "m.room.member",
                &user,
                json!({"membership": "join"}),
            );
            if member % JOINS_PER_POWER_LEVELS == JOINS_PER_POWER_LEVELS - 1 {
                room.say(&mut state, admin, "m.room.power_levels", "", levels(member));
            }
        }
        for fork in 0..forks {
            let mut state = state.clone();
            for change in 0..changes {
                let user = format!("@user{}:one", 2 + change);
                let name = json!({"membership": "join", "displayname": format!("{fork}")});
                match change % 10 {
                    0 => room.say(
                        &mut state,
                        admin,
                        "m.room.topic",
                        "",
                        json!({"topic": format!("{fork}")}),
                    ),
                    9 if fork % 2 == 0 => {
                        room.say(
                            &mut state,
                            admin,
                            "m.room.member",
                            &user,
                            json!({"membership": "ban"}),
                        );
                    }
                    _ => room.say(&mut state, &user, "m.room.member", &user, name),
                }
            }
            room.forks.push(state);
        }
        room.base = vec![None; room.key_nos.len()];
        for (key, no) in &state {
            room.base[room.key_nos[key] as usize] = Some(*no);
        }
        room.state = state;
        room
    }

    fn say(&mut self, state: &mut State, sender: &str, kind: &str, state_key: &str, content: Value) {
        let text = content.to_string();
        let sender_id = <&UserId>::try_from(sender).expect("a valid id");
        let cited = auth_types(self.rules, sender_id, kind, Some(state_key), text.as_bytes());
        let auth: Vec<EventNo> = cited.iter().filter_map(|key| state.get(key).copied()).collect();
        let no = self.events.len() as EventNo;
        let id = |no: EventNo| self.events[no as usize].pdu.event_id.to_string();
        let event = json!({
            "type": kind, "state_key": state_key, "sender": sender, "content": content, "room_id": "!room:one",
            "hashes": {"sha256": "x"}, "signatures": {}, "origin_server_ts": 1000 + no, "depth": no + 1,
            "prev_events": no.checked_sub(1).map(id).into_iter().collect::<Vec<_>>(),
            "auth_events": auth.iter().map(|no| id(*no)).collect::<Vec<_>>(),
        });
        let pdu = Pdu::parse(self.rules, event.to_string().as_bytes()).expect("a valid event");
        for cited in &auth {
            self.citers[*cited as usize].push(no);
        }
        let key = (kind.to_owned(), state_key.to_owned());
        let next = self.key_nos.len() as KeyNo;
        self.keys.push(*self.key_nos.entry(key.clone()).or_insert(next));
        self.events.push(Arc::new(Stored { pdu, auth }));
        self.citers.push(Vec::new());
        state.insert(key, no);
    }

    /// What the room crate finds by comparing trees.
    fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts: Vec<Conflict> = Vec::new();
        for (key, no) in &self.key_nos {
            let values: Vec<_> = self.forks.iter().map(|fork| fork.get(key).copied()).collect();
            if values.iter().any(|value| *value != values[0]) {
                conflicts.push(Conflict {
                    key: *no,
                    values: values.into(),
                });
            }
        }
        conflicts
    }
}

impl ResolveSource for Room {
    fn event(&self, no: EventNo) -> Result<Arc<dyn ResolveEvent>, SourceError> {
        Ok(self.events[no as usize].clone())
    }
    fn create(&self) -> Result<EventNo, SourceError> {
        Ok(0)
    }
    fn unconflicted(&self, kind: &str, state_key: &str) -> Result<Option<EventNo>, SourceError> {
        Ok(self.state.get(&(kind.to_owned(), state_key.to_owned())).copied())
    }
    fn is_unconflicted(&self, no: EventNo) -> Result<bool, SourceError> {
        Ok(self.base[self.keys[no as usize] as usize] == Some(no))
    }
    fn cited_by(
        &self,
        no: EventNo,
        visit: &mut dyn FnMut(EventNo) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        let _ = self.citers[no as usize]
            .iter()
            .rev()
            .try_for_each(|citer| visit(*citer));
        Ok(())
    }
    fn numbers_ascend(&self) -> bool {
        true
    }
}

/// An event in the form that Ruma asks.
struct Theirs {
    pdu: Pdu,
    room_id: Option<OwnedRoomId>,
    kind: TimelineEventType,
    content: Box<RawValue>,
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
        MilliSecondsSinceUnixEpoch(UInt::try_from(self.pdu.origin_server_ts()).expect("a small number"))
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
        None
    }
    fn rejected(&self) -> bool {
        false
    }
}

/// The state sets as Ruma takes them.
struct ForRuma {
    events: HashMap<OwnedEventId, Arc<Theirs>>,
    maps: Vec<StateMap<OwnedEventId>>,
    chains: Vec<EventIdSet<OwnedEventId>>,
}

impl ForRuma {
    fn new(room: &Room) -> ForRuma {
        let id = |no: &EventNo| room.events[*no as usize].pdu.event_id.clone();
        let theirs = |stored: &Arc<Stored>| {
            let pdu = stored.pdu.clone();
            let theirs = Theirs {
                room_id: AuthInput::of_pdu(room.rules, &pdu).room_id.map(ToOwned::to_owned),
                kind: pdu.kind().into(),
                content: serde_json::from_slice(pdu.content()).expect("stored events are JSON"),
                pdu,
            };
            (theirs.pdu.event_id.clone(), Arc::new(theirs))
        };
        let map = |fork: &State| {
            let entries = fork.iter();
            entries
                .map(|((kind, key), no)| ((StateEventType::from(kind.as_str()), key.clone()), id(no)))
                .collect()
        };
        let chain = |fork: &State| {
            let mut seen = vec![false; room.events.len()];
            let mut stack: Vec<EventNo> = fork.values().copied().collect();
            while let Some(no) = stack.pop() {
                for cited in &room.events[no as usize].auth {
                    if !std::mem::replace(&mut seen[*cited as usize], true) {
                        stack.push(*cited);
                    }
                }
            }
            let nos = 0..room.events.len() as EventNo;
            nos.filter(|no| seen[*no as usize]).map(|no| id(&no)).collect()
        };
        ForRuma {
            events: room.events.iter().map(theirs).collect(),
            maps: room.forks.iter().map(map).collect(),
            chains: room.forks.iter().map(chain).collect(),
        }
    }

    fn resolve(&self, rules: &Rules, chains: Vec<EventIdSet<OwnedEventId>>) -> StateMap<OwnedEventId> {
        let version = rules
            .state_res
            .v2_rules()
            .expect("a room of the second algorithm");
        let fetch = |id: &EventId| self.events.get(id).cloned();
        ruma::state_res::resolve(&rules.authorization, version, &self.maps, chains, fetch, |_| None)
            .expect("a result")
    }
}

/// Checks that both come to the same.
fn compare(room: &Room, ours: &[(KeyNo, Option<EventNo>)], theirs: &StateMap<OwnedEventId>) {
    let names: HashMap<KeyNo, &Key> = room.key_nos.iter().map(|(key, no)| (*no, key)).collect();
    for (no, value) in ours {
        let key = names[no];
        let value = value.map(|no| &room.events[no as usize].pdu.event_id);
        assert_eq!(
            theirs.get(&(key.0.as_str().into(), key.1.clone())),
            value,
            "{key:?}"
        );
    }
}

/// Milliseconds of the middle one of several runs, at least three and for a while.
fn median_ms(mut run: impl FnMut() -> Duration) -> f64 {
    let (mut times, mut spent) = (Vec::new(), Duration::ZERO);
    while times.len() < 3 || (spent < MEASURED && times.len() < 1_000) {
        let took = run();
        spent += took;
        times.push(took);
    }
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn timed<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    let made = black_box(run());
    let took = start.elapsed();
    // What it costs to let go of the result is the caller's affair.
    drop(made);
    took
}

/// Members, forks, and changes in each fork.
pub const CASES: &[(usize, usize, usize)] = &[
    (1_000, 2, 1),
    (1_000, 2, 100),
    (1_000, 5, 10),
    (1_000, 20, 1),
    (1_000, 20, 10),
    (1_000, 20, 100),
    (10_000, 2, 1),
    (10_000, 2, 100),
    (10_000, 5, 10),
    (10_000, 20, 1),
    (10_000, 20, 10),
    (10_000, 20, 100),
    (100_000, 2, 1),
    (100_000, 2, 100),
    (100_000, 5, 10),
    (100_000, 20, 1),
    (100_000, 20, 10),
    (100_000, 20, 100),
];

/// What one resolution costs.
pub struct Cost {
    /// On how many keys the forks differ.
    pub keys: usize,
    /// Milliseconds here.
    pub own_ms: f64,
    /// Milliseconds with Ruma.
    pub ruma_ms: f64,
}

/// Measures a room of so many members with so many forks and changes in each.
pub fn cost(members: usize, forks: usize, changes: usize) -> Cost {
    let room = Room::new(members, forks, changes);
    let conflicts = room.conflicts();
    let ours = resolve(room.rules, forks, &conflicts, &room).expect("a result");
    let own_ms =
        median_ms(|| timed(|| resolve(room.rules, forks, black_box(&conflicts), &room).expect("a result")));
    let theirs = ForRuma::new(&room);
    compare(
        &room,
        &ours.keys,
        &theirs.resolve(room.rules, theirs.chains.clone()),
    );
    let ruma_ms = median_ms(|| {
        let chains = theirs.chains.clone();
        timed(|| theirs.resolve(room.rules, chains))
    });
    Cost {
        keys: conflicts.len(),
        own_ms,
        ruma_ms,
    }
}

fn main() {
    println!("| members | forks | changes in each | keys in conflict | hearth | Ruma | times |");
    println!("|---|---|---|---|---|---|---|");
    for (members, forks, changes) in CASES.iter().copied() {
        let Cost {
            keys,
            own_ms,
            ruma_ms,
        } = cost(members, forks, changes);
        println!(
            "| {members} | {forks} | {changes} | {keys} | {own_ms:.3} ms | {ruma_ms:.2} ms | {:.0} |",
            ruma_ms / own_ms
        );
    }
}
