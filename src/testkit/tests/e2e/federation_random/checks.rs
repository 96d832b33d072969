//! What must hold at the end.

use std::collections::{BTreeMap, BTreeSet};

use hearth_rooms::{Event, Flags, Room};
use ruma::EventId;

use super::reference;
use super::world::World;

/// So many numbers in a row that no event has end a room.
const UNUSED_NUMBERS: u32 = 16;

/// All events that a server has of the room.
pub fn events_of(room: &Room) -> Vec<std::sync::Arc<Event>> {
    let (mut found, mut unused, mut short) = (Vec::new(), 0, 1);
    while unused < UNUSED_NUMBERS {
        match room.event(short).expect("an event is read") {
            Some(event) => {
                found.push(event);
                unused = 0;
            }
            None => unused += 1,
        }
        short += 1;
    }
    found
}

/// Whether an event is part of the room's graph here.
pub fn is_placed(event: &Event) -> bool {
    !event.header.flags.has(Flags::OUTLIER)
}

/// The forward extremities and everything that they follow.
fn followed(rooms: &[(usize, Room)]) -> BTreeSet<String> {
    let tips = rooms
        .iter()
        .flat_map(|(_, room)| room.tips().expect("tips are read"));
    let mut ahead: Vec<_> = tips.map(|event| event.pdu.event_id.clone()).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = ahead.pop() {
        if found.insert(id.to_string()) {
            let mut known = rooms
                .iter()
                .filter_map(|(_, room)| room.event_by_id(&id).expect("it is read"));
            ahead.extend(
                known
                    .next()
                    .into_iter()
                    .flat_map(|event| event.pdu.prev_events().to_vec()),
            );
        }
    }
    found
}

/// An event that another one stands in the place of.
fn lost_of_timeline(room: &Room) -> Option<String> {
    let placed = events_of(room).into_iter();
    let mut placed = placed.filter(|event| event.header.place != hearth_rooms::Place::default());
    let lost = placed.find(|event| {
        let there = room.event_at(event.header.place).expect("the timeline is read");
        there.is_none_or(|there| there.short != event.short)
    });
    lost.map(|event| event.id().to_string())
}

/// Redactions of events that came after them: clients were not shown them, as they did nothing then. What they redact came
/// to clients as they left it, if it was shown at all. Of a redaction that was redacted itself it may not be known any more
/// what it did.
fn late_redactions(room: &Room) -> BTreeSet<String> {
    if room.rules().authorization.special_case_room_redaction {
        // In versions 1 and 2 it is an event like all others.
        return BTreeSet::new();
    }
    let is_late = |redaction: &Event| {
        let Some(target) = redaction.pdu.redacts() else {
            return redaction.pdu.kind() == "m.room.redaction" && redaction.is_redacted();
        };
        let target = room.event_by_id(target).expect("an event is read");
        target.is_some_and(|target| target.header.place.offset != 0 || target.short > redaction.short)
    };
    let events = events_of(room).into_iter();
    let late = events.filter(|event| is_late(event));
    late.map(|event| event.id().to_string()).collect()
}

type State = BTreeMap<(String, String), String>;

/// The current state.
pub fn state_of(room: &Room) -> State {
    let events = room.full_state().expect("the state is read");
    events
        .iter()
        .map(|event| (key_of(event), event.id().to_string()))
        .collect()
}

fn key_of(event: &Event) -> (String, String) {
    let state_key = event.pdu.state_key().unwrap_or_default();
    (event.pdu.kind().to_owned(), state_key.to_owned())
}

impl World {
    /// Checks everything.
    pub async fn check(&mut self) {
        let residents = self.residents();
        self.note(format!("in the room: {residents:?}"));
        let rooms: Vec<(usize, Room)> = residents
            .iter()
            .map(|at| (*at, self.sites[*at].room(&self.room).expect("it is in the room")))
            .collect();
        self.check_agreement(&rooms);
        self.check_delivery(&rooms);
        for (at, room) in &rooms {
            if let Some(lost) = lost_of_timeline(room) {
                self.fail(&format!("hs{}: {lost} is not where its place is", at + 1));
            }
            let fresh: State = room
                .full_state_at(room.view().root)
                .expect("the state is read")
                .iter()
                .map(|event| (key_of(event), event.id().to_string()))
                .collect();
            if fresh != state_of(room) {
                self.fail(&format!("hs{}: the flat state is not that of the root", at + 1));
            }
        }
        let all: Vec<Room> = rooms.iter().map(|(_, room)| room.clone()).collect();
        if let Err(difference) = reference::check(&all) {
            self.fail(&difference);
        }
        self.check_followers(&residents).await;
    }

    /// The same state and the same forward extremities everywhere.
    fn check_agreement(&self, rooms: &[(usize, Room)]) {
        let Some(((first_at, first), others)) = rooms.split_first() else {
            return;
        };
        let tips = |room: &Room| -> BTreeSet<String> {
            let tips = room.tips().expect("tips are read");
            tips.iter().map(|event| event.id().to_string()).collect()
        };
        let (state, expected) = (state_of(first), tips(first));
        for (at, room) in others {
            let other = state_of(room);
            let keys: BTreeSet<_> = state.keys().chain(other.keys()).collect();
            let wrong: Vec<String> = keys
                .into_iter()
                .filter(|key| state.get(key) != other.get(key))
                .map(|key| format!("{key:?}: {:?} and {:?}", state.get(key), other.get(key)))
                .collect();
            if !wrong.is_empty() {
                let names = format!("the states of hs{} and hs{}", first_at + 1, at + 1);
                self.fail(&format!("{names} differ:\n{}", wrong.join("\n")));
            }
            if tips(room) != expected {
                self.fail(&format!(
                    "the extremities of hs{} are {expected:?}, those of hs{} {:?}",
                    first_at + 1,
                    at + 1,
                    tips(room)
                ));
            }
        }
    }

    /// What a server accepted is everywhere. What it said after others had put it out of the room, while it did not know,
    /// need not be: those who got it soft-failed it, and no event of the room follows it.
    fn check_delivery(&self, rooms: &[(usize, Room)]) {
        let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
        for (at, room) in rooms {
            for event in events_of(room) {
                if is_placed(&event) && event.is_visible_kind() {
                    accepted.insert(event.id().to_string(), *at);
                }
            }
        }
        for said in &self.said {
            if rooms.iter().any(|(at, _)| *at == said.site) {
                accepted.insert(said.event.clone(), said.site);
            }
        }
        let followed = followed(rooms);
        let soft_fails = |id: &str| {
            let id = <&EventId>::try_from(id).expect("an event id");
            let mut found = rooms
                .iter()
                .filter_map(|(_, room)| room.event_by_id(id).expect("it is read"));
            found.any(|event| event.header.flags.has(Flags::SOFT_FAILED))
        };
        let mut wrong = Vec::new();
        for (id, from) in &accepted {
            if !followed.contains(id) && soft_fails(id) {
                continue;
            }
            for (at, room) in rooms {
                let id = <&EventId>::try_from(id.as_str()).expect("an event id");
                let event = room.event_by_id(id).expect("it is read");
                let state = match &event {
                    None => "is not",
                    Some(event) if !is_placed(event) => "has no place",
                    Some(event) if event.header.flags.has(Flags::REJECTED) => "is rejected",
                    Some(_) => continue,
                };
                wrong.push(format!("{id} of hs{} {state} at hs{}", from + 1, at + 1));
            }
        }
        if !wrong.is_empty() {
            self.fail(&wrong.join("\n"));
        }
    }

    async fn check_followers(&mut self, residents: &[usize]) {
        for at in residents {
            let untold = self.sites[*at]
                .room(&self.room)
                .map(|room| late_redactions(&room));
            let mut followers = std::mem::take(&mut self.sites[*at].followers);
            let mut found = Vec::new();
            for follower in &mut followers {
                // A page of /sync may not bring everything.
                for _ in 0..5 {
                    follower.pull().await;
                }
                follower.model.untold = untold.clone().unwrap_or_default();
                let device = &follower.client.device_id;
                // Resolution may leave a key without an event; /sync has no word for that.
                let mut differences = follower.differences().await;
                differences.retain(|line| !line.ends_with(", fresh None") || line.contains("heroes"));
                found.extend(
                    differences
                        .into_iter()
                        .map(|line| format!("hs{} {device}: {line}", at + 1)),
                );
            }
            self.sites[*at].followers = followers;
            if !found.is_empty() {
                self.fail(&found.join("\n"));
            }
        }
    }
}
