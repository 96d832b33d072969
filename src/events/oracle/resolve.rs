//! State resolution against Ruma's, against room version 1's text, and against the published vectors.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::forks::Forks;
use super::history::{History, Numbers, State};
use super::{Choices, config};
use crate::*;

proptest! {
    #![proptest_config(config(4))]

    #[test]
    fn resolution_agrees(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        for version in ["1", "2", "3", "6", "10", "12"] {
            let rules = rules(&version.try_into().unwrap()).unwrap();
            let mut c = Choices(&bytes);
            let steps = bytes.len().saturating_sub(80);
            let mut steps = Choices(&c.0[..steps]);
            let room = Forks::random(&mut steps, rules);
            c.0 = &bytes[bytes.len().saturating_sub(80)..];
            for _ in 0..3 {
                check_sets(&mut c, &room)?;
            }
        }
    }
}

fn check_sets(c: &mut Choices<'_>, room: &Forks) -> Result<(), TestCaseError> {
    let history = &room.history;
    let mut sets = room.random_sets(c);
    let ours = history.ours(&sets, &Numbers::same());
    let theirs = match history.rules.state_res.v2_rules() {
        Some(_) => history.theirs(&sets).unwrap(),
        None => history.by_the_text_of_version_1(&sets),
    };
    let dump = || describe(room, &sets);
    prop_assert_eq!(&ours, &theirs, "version {}\n{}", history.rules.version, dump());
    // Neither the order of the sets nor the numbers of the events matter.
    let numbers = Numbers::shuffled(history, |of| c.pick(of));
    prop_assert_eq!(&ours, &history.ours(&sets, &numbers));
    let by = c.pick(sets.len());
    sets.rotate_left(by);
    prop_assert_eq!(&ours, &history.ours(&sets, &Numbers::same()));
    Ok(())
}

fn describe(room: &Forks, sets: &[State]) -> String {
    let mut text = String::new();
    for (index, event) in room.history.events.iter().enumerate() {
        text += &format!(
            "{}: {} {:?} by {} {} auth {:?} rejected {}\n",
            index + 1,
            event.pdu.kind(),
            event.pdu.state_key(),
            event.pdu.sender(),
            String::from_utf8_lossy(event.pdu.content()),
            event.auth,
            event.rejected
        );
    }
    format!("{text}{sets:#?}")
}

#[test]
fn random_rooms_have_conflicts() {
    // So that nobody changes the simulator to one that tests nothing.
    let rules = rules(&"11".try_into().unwrap()).unwrap();
    let (mut conflicts, mut rejected, mut replaced) = (0, 0, 0);
    for seed in 0..200_u32 {
        let bytes: Vec<u8> = (0..600_u32)
            .map(|n| {
                (seed
                    .wrapping_mul(2_654_435_761)
                    .wrapping_add(n.wrapping_mul(2_246_822_519))
                    >> 13) as u8
            })
            .collect();
        let room = Forks::random(&mut Choices(&bytes), rules);
        rejected += room.history.events.iter().filter(|event| event.rejected).count();
        let sets = room.random_sets(&mut Choices(&bytes[300..]));
        let ours = room.history.ours(&sets, &Numbers::same());
        conflicts += usize::from(sets.iter().any(|set| *set != sets[0]));
        replaced += usize::from(sets.iter().all(|set| *set != ours));
    }
    assert!(
        conflicts > 100 && rejected > 100 && replaced > 20,
        "{conflicts} {rejected} {replaced}"
    );
}

#[test]
fn published_vectors() {
    let check = |name: &str, text: &str| {
        let vector: Value = serde_json::from_str(text).unwrap();
        let rules = rules(&vector["version"].as_str().unwrap().try_into().unwrap()).unwrap();
        let mut history = History::new(rules);
        for event in vector["events"].as_array().unwrap() {
            history.add(vector_event(rules, event), false);
        }
        let state_of = |ids: &Value| -> State {
            let nos = ids.as_array().unwrap().iter();
            nos.map(|id| history.no(id.as_str().unwrap().try_into().unwrap()))
                .map(|no| (history.key(no), no))
                .collect()
        };
        let expected = state_of(&vector["expected"]);
        let mut sets: Vec<State> = vector["states"]
            .as_array()
            .unwrap()
            .iter()
            .map(state_of)
            .collect();
        if sets.is_empty() {
            assert_eq!(along_prev_events(&history), expected, "{name}");
            let nos = 1..=history.events.len() as EventNo;
            sets = nos.map(|no| State::from([(history.key(no), no)])).collect();
        }
        assert_eq!(history.ours(&sets, &Numbers::same()), expected, "{name}");
    };
    macro_rules! check_files {
        ($($name:literal),* $(,)?) => { $(check($name, include_str!(concat!("vectors/", $name, ".json")));)* };
    }
    check_files!(
        "ban_vs_power_levels",
        "concurrent_joins",
        "join_rules_vs_join",
        "minimal_private_chat",
        "minimal_public_chat",
        "msc4297_problem_a_state_res_v2_0",
        "msc4297_problem_a_state_res_v2_1",
        "msc4297_problem_b_state_res_v2_0",
        "msc4297_problem_b_state_res_v2_1",
        "origin_server_ts_tiebreak",
        "power_levels_admin_vs_mod",
        "topic_vs_ban",
        "topic_vs_power_levels",
    );
}

fn vector_event(rules: &Rules, event: &Value) -> Pdu {
    let mut event = event.clone();
    event["depth"] = json!(1);
    let id = event["event_id"].as_str().unwrap().try_into().unwrap();
    let json = canonical::to_bytes(&event, true).unwrap();
    Pdu::from_stored(rules, id, json.into()).unwrap()
}

/// The state that results when each event is resolved into the state of those it follows.
fn along_prev_events(history: &History) -> State {
    let numbers = Numbers::same();
    let mut after: Vec<State> = Vec::new();
    let mut followed = Vec::new();
    for (index, event) in history.events.iter().enumerate() {
        let prev: Vec<usize> = event
            .pdu
            .prev_events()
            .iter()
            .map(|id| history.no(id) as usize - 1)
            .collect();
        let sets: Vec<State> = prev.iter().map(|at| after[*at].clone()).collect();
        followed.extend(prev);
        let before = match &sets[..] {
            [] => State::new(),
            sets => history.ours(sets, &numbers),
        };
        let no = index as EventNo + 1;
        let mut proposed = before.clone();
        proposed.insert(history.key(no), no);
        after.push(history.ours(&[before, proposed], &numbers));
    }
    let ends = (0..after.len()).filter(|at| !followed.contains(at));
    let sets: Vec<State> = ends.map(|at| after[at].clone()).collect();
    history.ours(&sets, &numbers)
}
