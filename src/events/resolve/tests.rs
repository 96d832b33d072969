//! The walks against their definitions, on graphs of every shape: also such as no room has, with circles and nonsense for content.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::difference::{auth_difference, conflicted_subgraph};
use super::*;
use crate::oracle::{Choices, config};

/// Events with the numbers from zero, some of which have the same key, and state sets over them.
struct Shape {
    rules: &'static Rules,
    events: Vec<Arc<Made>>,
    sets: Vec<BTreeMap<KeyNo, EventNo>>,
    keys: Vec<KeyNo>,
    ascending: bool,
    base: usize,
}

struct Made {
    pdu: Pdu,
    auth: Vec<EventNo>,
    rejected: bool,
}

impl ResolveEvent for Made {
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

const KINDS: [&str; 6] = [
    "m.room.create",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.member",
    "m.room.third_party_invite",
    "m.room.topic",
];

impl Shape {
    fn random(c: &mut Choices<'_>, rules: &'static Rules) -> Shape {
        let ascending = c.once_in(2);
        let count = 1 + c.pick(40);
        let mut events = Vec::new();
        let mut keys = Vec::new();
        for no in 0..count {
            let of = if ascending { no } else { count };
            let cited = if of == 0 { 0 } else { c.pick(5) };
            let auth = (0..cited).map(|_| c.pick(of) as EventNo).collect();
            let (kind, key) = (c.pick(KINDS.len()), c.pick(3));
            keys.push((kind * 3 + key) as KeyNo);
            events.push(Arc::new(Made {
                pdu: event(c, rules, no, KINDS[kind], ["", "@a:s", "x"][key]),
                auth,
                rejected: c.once_in(8),
            }));
        }
        let count_of_sets = 2 + [0, 0, 1, 3, 70][c.pick(5)];
        let mut shared = BTreeMap::new();
        for (no, key) in keys.iter().enumerate() {
            if c.once_in(3) {
                shared.insert(*key, no as EventNo);
            }
        }
        let mut sets = vec![shared; count_of_sets];
        for _ in 0..1 + c.pick(8) {
            let set = c.pick(count_of_sets);
            let no = c.pick(count);
            if c.once_in(4) {
                sets[set].remove(&keys[no]);
            } else {
                sets[set].insert(keys[no], no as EventNo);
            }
        }
        Shape {
            rules,
            events,
            sets,
            keys,
            ascending,
            base: c.pick(count_of_sets),
        }
    }

    fn conflicts(&self) -> Vec<Conflict> {
        let keys: BTreeSet<KeyNo> = self.sets.iter().flat_map(|set| set.keys().copied()).collect();
        let values = |key: &KeyNo| self.sets.iter().map(|set| set.get(key).copied()).collect();
        let conflicts = keys.iter().map(|key| Conflict {
            key: *key,
            values: values(key),
        });
        conflicts
            .filter(|conflict| conflict.values.iter().any(|value| *value != conflict.values[0]))
            .collect()
    }

    /// What these cite, and so on.
    fn chain(&self, of: impl IntoIterator<Item = EventNo>) -> BTreeSet<EventNo> {
        let mut chain = BTreeSet::new();
        let mut stack: Vec<EventNo> = of.into_iter().collect();
        while let Some(no) = stack.pop() {
            for cited in &self.events[no as usize].auth {
                if chain.insert(*cited) {
                    stack.push(*cited);
                }
            }
        }
        chain
    }
}

/// An event whose content is as it should be or not.
fn event(c: &mut Choices<'_>, rules: &Rules, no: usize, kind: &str, state_key: &str) -> Pdu {
    let content = match (c.pick(6), kind) {
        (0, _) => json!({}),
        (1, _) => json!({"membership": 5, "users": [], "join_rule": {}, "creator": "nobody", "ban": "x"}),
        (_, "m.room.create") => json!({"creator": "@a:s"}),
        (_, "m.room.power_levels") => json!({"users": {"@a:s": c.pick(101), "@b:s": 50}}),
        (_, "m.room.join_rules") => json!({"join_rule": "public"}),
        (_, "m.room.member") => json!({"membership": c.from(&["join", "leave", "ban", "invite"])}),
        _ => json!({"n": no}),
    };
    let mut event = json!({
        "type": kind, "state_key": state_key, "sender": c.from(&["@a:s", "@b:s"]), "content": content, "room_id": "!r:s",
        "hashes": {"sha256": "x"}, "signatures": {}, "origin_server_ts": c.pick(3), "depth": c.pick(3),
        "prev_events": [], "auth_events": [],
    });
    if kind == "m.room.create" && rules.room_id_is_create_hash() {
        event.as_object_mut().unwrap().remove("room_id");
    }
    written(rules, no, &event)
}

fn written(rules: &Rules, no: usize, event: &Value) -> Pdu {
    let id = format!("${no}").as_str().try_into().unwrap();
    let json = crate::canonical::to_bytes(event, false).unwrap();
    Pdu::from_stored(rules, id, json.into()).unwrap()
}

impl ResolveSource for Shape {
    fn event(&self, no: EventNo) -> Result<Arc<dyn ResolveEvent>, SourceError> {
        let event = self.events.get(no as usize).ok_or("there is no such event")?;
        Ok(event.clone())
    }
    fn create(&self) -> Result<EventNo, SourceError> {
        Ok(0)
    }
    fn unconflicted(&self, kind: &str, state_key: &str) -> Result<Option<EventNo>, SourceError> {
        let values = self.sets[self.base].values();
        let mut found = values.filter(|no| {
            let pdu = &self.events[**no as usize].pdu;
            pdu.kind() == kind && pdu.state_key() == Some(state_key)
        });
        Ok(found.next().copied())
    }
    fn is_unconflicted(&self, no: EventNo) -> Result<bool, SourceError> {
        Ok(self.sets[self.base].get(&self.keys[no as usize]) == Some(&no))
    }
    fn cited_by(
        &self,
        no: EventNo,
        visit: &mut dyn FnMut(EventNo) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        for (citer, event) in self.events.iter().enumerate() {
            if event.auth.contains(&no) && visit(citer as EventNo).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn numbers_ascend(&self) -> bool {
        self.ascending
    }
    fn newest(&self) -> EventNo {
        let entries = self.sets.iter().flat_map(|set| set.values());
        entries.max().copied().unwrap_or(0)
    }
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn walks_find_what_their_definitions_say(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let shape = Shape::random(&mut Choices(&bytes), &Rules::all()[9]);
        let mut graph = Graph::new(shape.rules, &shape);
        let conflicts = Conflicts::read(shape.sets.len(), &shape.conflicts(), &mut graph).unwrap();
        let chains: Vec<BTreeSet<EventNo>> =
            shape.sets.iter().map(|set| shape.chain(set.values().copied())).collect();
        let all = chains.iter().flatten().copied();
        let expected: BTreeSet<EventNo> = all.filter(|no| !chains.iter().all(|chain| chain.contains(no))).collect();
        prop_assert_eq!(auth_difference(&mut graph, &conflicts).unwrap(), expected);

        let conflicted: BTreeSet<EventNo> = conflicts.values.keys().copied().collect();
        let mut expected = shape.chain(conflicted.iter().copied());
        expected.extend(&conflicted);
        expected.retain(|no| !shape.chain([*no]).is_disjoint(&conflicted));
        let mut found = conflicted_subgraph(&mut graph, &conflicts).unwrap();
        found.retain(|no| !conflicted.contains(no));
        expected.retain(|no| !conflicted.contains(no));
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn resolution_always_ends(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for version in [0, 1, 9, 11] {
            let shape = Shape::random(&mut Choices(&bytes), &Rules::all()[version]);
            let conflicts = shape.conflicts();
            let resolved = resolve(shape.rules, shape.sets.len(), &conflicts, &shape).unwrap();
            prop_assert_eq!(resolved.keys.len(), conflicts.len());
            for (conflict, (key, value)) in conflicts.iter().zip(resolved.keys) {
                prop_assert_eq!(conflict.key, key);
                prop_assert!(value.is_none_or(|value| shape.keys[value as usize] == key));
            }
        }
    }
}

/// A create event, and topics 1 to 3 of which each cites the one before.
fn topics() -> Shape {
    let rules = &Rules::all()[9];
    let mut c = Choices(&[]);
    let events = (0..4).map(|no| {
        let kind = if no == 0 { "m.room.create" } else { "m.room.topic" };
        Arc::new(Made {
            pdu: event(&mut c, rules, no, kind, ""),
            auth: (no as EventNo).checked_sub(1).into_iter().collect(),
            rejected: false,
        })
    });
    Shape {
        rules,
        events: events.collect(),
        sets: vec![BTreeMap::from([(0, 0), (1, 1)]), BTreeMap::from([(0, 0), (1, 2)])],
        keys: vec![0, 1, 1, 1],
        ascending: true,
        base: 0,
    }
}

fn conflict(key: KeyNo, values: &[Option<EventNo>]) -> Conflict {
    Conflict {
        key,
        values: values.into(),
    }
}

#[test]
fn what_the_caller_got_wrong_is_an_error() {
    let shape = topics();
    let check = |conflict: Conflict, expected: &str| {
        let error = resolve(shape.rules, 2, &[conflict], &shape).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let no_conflict = "the key 1 has no conflict between the sets";
    check(conflict(1, &[Some(1), Some(1)]), no_conflict);
    check(conflict(1, &[None, None]), no_conflict);
    check(conflict(1, &[Some(1)]), no_conflict);
    check(conflict(1, &[Some(1), Some(2), None]), no_conflict);
    let mixed = "the values of the key 1 are not of one type and state key";
    check(conflict(1, &[Some(0), Some(1)]), mixed);
    let unknown = "an event of the room cannot be read: there is no such event";
    check(conflict(1, &[Some(1), Some(9)]), unknown);
    assert_eq!(resolve(shape.rules, 2, &[], &shape).unwrap(), Resolved::default());
}

#[test]
fn numbers_that_do_not_ascend_are_noticed() {
    let mut shape = topics();
    let circle = Made {
        pdu: shape.events[1].pdu.clone(),
        auth: vec![3],
        rejected: false,
    };
    shape.events[1] = Arc::new(circle);
    let conflicts = shape.conflicts();
    let error = resolve(shape.rules, 2, &conflicts, &shape).unwrap_err();
    assert!(matches!(error, ResolveError::Disorder(1)));
    shape.ascending = false;
    resolve(shape.rules, 2, &conflicts, &shape).unwrap();
}

#[test]
fn nothing_goes_on_without_end() {
    let shape = topics();
    let mut graph = Graph::new(shape.rules, &shape);
    for _ in 0..STEPS_MAX {
        graph.step().unwrap();
    }
    assert!(matches!(graph.node(0), Err(ResolveError::TooMuch)));
}
