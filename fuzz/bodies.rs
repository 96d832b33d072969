//! What the fuzz targets do with bytes. `src/testkit/tests/fuzz_bodies.rs` runs the same over mutated samples, so that
//! they neither rot nor need a nightly compiler. Nothing here may panic, whatever the bytes; what is read once must read the
//! same again.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use hearth_events::{
    Conflict, EventNo, KeyNo, KeyPair, Pdu, ResolveEvent, ResolveSource, Rules, SourceError, auth_types,
    notification, push, redact, resolve, rules, verify_content_hash, verify_event_signatures,
};
use hearth_federation::XMatrix;
use hearth_federation::resolver::{HostPort, read_well_known};
use ruma::RoomVersionId;
use serde_json::{Value, json};

/// One version of each way in which events are formed.
const VERSIONS: [&str; 7] = ["1", "3", "6", "8", "10", "11", "12"];

fn rules_of(version: &str) -> &'static Rules {
    let version = RoomVersionId::try_from(version).expect("a room version");
    rules(&version).expect("a known version")
}

/// An event of another server, in rooms of all versions.
pub fn pdu(data: &[u8]) {
    let key = KeyPair::from_seed([1; 32], "1").expect("a key");
    for version in VERSIONS {
        let rules = rules_of(version);
        let Ok(pdu) = Pdu::parse(rules, data) else {
            continue;
        };
        let again = Pdu::parse(rules, &pdu.json).expect("what was read once is read again");
        assert_eq!(
            (&again.event_id, &again.json),
            (&pdu.event_id, &pdu.json),
            "{version}"
        );
        let _ = verify_content_hash(&pdu);
        let _ = verify_event_signatures(rules, &pdu, &|_, _| Some(key.public_key()));
        let _ = auth_types(rules, pdu.sender(), pdu.kind(), pdu.state_key(), pdu.content());
        let _ = notification::class(pdu.kind(), pdu.state_key(), pdu.content(), true);
        let _ = push::PushEvent::new(&pdu.json);
        let redacted = redact(rules, &pdu).expect("what was read can be redacted");
        let twice = redact(rules, &redacted).expect("what was redacted can be redacted");
        assert_eq!(twice.json, redacted.json, "{version}");
    }
}

/// A transaction of another server, up to where rooms are asked.
pub fn transaction(data: &[u8]) {
    if let Ok((pdus, edus)) = hearth_federation::inbound::examine(data) {
        assert!(pdus <= 50 && edus <= 100);
    }
}

/// The header that says which server asks.
pub fn x_matrix(data: &[u8]) {
    if let Some(read) = XMatrix::parse(data) {
        let again = XMatrix::parse(read.to_string().as_bytes());
        assert_eq!(again.as_ref(), Some(&read));
    }
}

/// Names of servers, and documents that delegate to others.
pub fn names(data: &[u8]) {
    if let Ok(name) = std::str::from_utf8(data) {
        let _ = HostPort::parse(name);
        let _ = ruma::ServerName::parse(name);
    }
    let _ = read_well_known(data);
}

/// State resolution over a graph that the bytes describe: also with circles, and with nonsense for content.
pub fn resolution(data: &[u8]) {
    let bytes = &mut Bytes(data);
    for version in [VERSIONS[bytes.pick(VERSIONS.len())], "11", "12"] {
        let graph = Graph::read(&mut Bytes(bytes.0), rules_of(version));
        let conflicts = graph.conflicts();
        let resolved = resolve(graph.rules, graph.sets.len(), &conflicts, &graph);
        let asked = graph.asked.get();
        assert!(
            asked <= QUESTIONS_MAX,
            "{asked} questions about {} events",
            graph.events.len()
        );
        if let Ok(resolved) = resolved {
            assert_eq!(resolved.keys.len(), conflicts.len(), "{version}");
            // Whatever the graph, nothing comes into the state that is not an event of that key.
            for (key, value) in resolved.keys {
                assert!(value.is_none_or(|no| graph.keys[no as usize] == key), "{version}");
            }
        }
    }
}

/// The most events of a graph.
const EVENTS_MAX: usize = 48;
/// So many questions about the events of such a graph are asked at the most.
const QUESTIONS_MAX: u64 = 2_000_000;

const KINDS: [&str; 6] = [
    "m.room.create",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.member",
    "m.room.third_party_invite",
    "m.room.topic",
];
const STATE_KEYS: [&str; 4] = ["", "@a:s", "@b:s", "x"];

/// Choices out of bytes; 0 where there are none left.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn pick(&mut self, below: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % below.max(1)
    }

    fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words[self.pick(words.len())]
    }
}

struct Node {
    pdu: Pdu,
    auth: Vec<EventNo>,
    rejected: bool,
}

impl ResolveEvent for Node {
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

struct Graph {
    rules: &'static Rules,
    events: Vec<Arc<Node>>,
    keys: Vec<KeyNo>,
    sets: Vec<BTreeMap<KeyNo, EventNo>>,
    ascending: bool,
    asked: Cell<u64>,
}

impl Graph {
    fn read(bytes: &mut Bytes<'_>, rules: &'static Rules) -> Graph {
        let ascending = bytes.pick(2) == 0;
        let count = 1 + bytes.pick(EVENTS_MAX);
        let (mut events, mut keys) = (Vec::new(), Vec::new());
        for no in 0..count {
            let of = if ascending { no } else { count };
            let cited = if of == 0 { 0 } else { bytes.pick(6) };
            let auth = (0..cited).map(|_| bytes.pick(of) as EventNo).collect();
            let (kind, key) = (bytes.pick(KINDS.len()), bytes.pick(STATE_KEYS.len()));
            keys.push((kind * STATE_KEYS.len() + key) as KeyNo);
            events.push(Arc::new(Node {
                pdu: event(bytes, rules, no, KINDS[kind], STATE_KEYS[key]),
                auth,
                rejected: bytes.pick(8) == 1,
            }));
        }
        let mut sets = vec![BTreeMap::new(); 2 + bytes.pick(6)];
        for (no, key) in keys.iter().enumerate() {
            let place = bytes.pick(sets.len() + 3);
            let chosen = match sets.get(place) {
                Some(_) => place..place + 1,
                None => 0..sets.len(),
            };
            for set in &mut sets[chosen] {
                set.insert(*key, no as EventNo);
            }
        }
        Graph {
            rules,
            events,
            keys,
            sets,
            ascending,
            asked: Cell::new(0),
        }
    }

    fn conflicts(&self) -> Vec<Conflict> {
        let keys: BTreeSet<KeyNo> = self.sets.iter().flat_map(|set| set.keys().copied()).collect();
        let conflicts = keys.into_iter().map(|key| Conflict {
            key,
            values: self.sets.iter().map(|set| set.get(&key).copied()).collect(),
        });
        conflicts
            .filter(|conflict| conflict.values.iter().any(|value| *value != conflict.values[0]))
            .collect()
    }

    fn ask(&self) {
        self.asked.set(self.asked.get() + 1);
    }
}

fn event(bytes: &mut Bytes<'_>, rules: &Rules, no: usize, kind: &str, state_key: &str) -> Pdu {
    let content = match (bytes.pick(6), kind) {
        (0, _) => json!({}),
        (1, _) => json!({"membership": 5, "users": [], "join_rule": {}, "creator": "nobody", "ban": "x"}),
        (_, "m.room.create") => json!({"creator": "@a:s"}),
        (_, "m.room.power_levels") => json!({"users": {"@a:s": bytes.pick(101), "@b:s": 50}}),
        (_, "m.room.join_rules") => json!({"join_rule": bytes.one_of(&["public", "invite", "knock"])}),
        (_, "m.room.member") => {
            json!({"membership": bytes.one_of(&["join", "leave", "ban", "invite", "knock"])})
        }
        _ => json!({"n": no}),
    };
    let sender = bytes.one_of(&["@a:s", "@b:s", "@c:t"]);
    let mut event: Value = json!({
        "type": kind, "state_key": state_key, "sender": sender, "content": content, "room_id": "!r:s",
        "hashes": {"sha256": "x"}, "signatures": {}, "origin_server_ts": bytes.pick(3), "depth": bytes.pick(3),
        "prev_events": [], "auth_events": [],
    });
    if kind == "m.room.create" && rules.room_id_is_create_hash() {
        event.as_object_mut().expect("an object").remove("room_id");
    }
    let id = format!("${no}").as_str().try_into().expect("an event id");
    let text = hearth_events::canonical::to_bytes(&event, false).expect("canonical JSON");
    Pdu::from_stored(rules, id, text.into()).expect("an event")
}

impl ResolveSource for Graph {
    fn event(&self, no: EventNo) -> Result<Arc<dyn ResolveEvent>, SourceError> {
        self.ask();
        let event = self.events.get(no as usize).ok_or("there is no such event")?;
        Ok(event.clone())
    }
    fn create(&self) -> Result<EventNo, SourceError> {
        Ok(0)
    }
    fn unconflicted(&self, kind: &str, state_key: &str) -> Result<Option<EventNo>, SourceError> {
        self.ask();
        let mut values = self.sets[0].values();
        Ok(values
            .find(|no| {
                let pdu = &self.events[**no as usize].pdu;
                pdu.kind() == kind && pdu.state_key() == Some(state_key)
            })
            .copied())
    }
    fn is_unconflicted(&self, no: EventNo) -> Result<bool, SourceError> {
        self.ask();
        Ok(self.sets[0].get(&self.keys[no as usize]) == Some(&no))
    }
    fn cited_by(
        &self,
        no: EventNo,
        visit: &mut dyn FnMut(EventNo) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        for (citing, event) in self.events.iter().enumerate().rev() {
            if event.auth.contains(&no) {
                self.ask();
                if visit(citing as EventNo).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
    fn numbers_ascend(&self) -> bool {
        self.ascending
    }
}
