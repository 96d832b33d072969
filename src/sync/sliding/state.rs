//! The state of a room that a connection wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearth_rooms::{Event, NodeId, Room};
use ruma::OwnedUserId;

use super::{
    connection::SentMembers,
    request::{MEMBER, RequiredState},
    room::{Asked, Reader},
};
use crate::{Error, look::Look, view::Timeline};

/// What differs between two states of a room.
pub(super) struct Changes {
    /// Whether there is no older state: all is new.
    all: bool,
    /// Events that came in place of others, or of nothing.
    now: Vec<Arc<Event>>,
    /// Events in whose place there is nothing.
    gone: Vec<Arc<Event>>,
}

/// State to be sent.
pub(super) struct WantedState {
    pub(super) events: Vec<Arc<Event>>,
    pub(super) deleted: Vec<(String, String)>,
    pub(super) members: SentMembers,
}

type StateMap = BTreeMap<(String, String), Arc<Event>>;

impl Changes {
    pub(super) fn between(
        look: &Look<'_>,
        room: &Room,
        old: Option<NodeId>,
        new: NodeId,
    ) -> Result<Self, Error> {
        let Some(old) = old else {
            return Ok(Self {
                all: true,
                now: Vec::new(),
                gone: Vec::new(),
            });
        };
        let (mut now, mut gone) = (Vec::new(), Vec::new());
        for (before, after) in room.state_changes(old, new)? {
            match (before, after) {
                (_, Some(after)) => now.push(after),
                (Some(before), None) => gone.push(before),
                (None, None) => {}
            }
        }
        look.weigh(now.len())?;
        Ok(Self {
            all: false,
            now: room.events(&now)?,
            gone: room.events(&gone)?,
        })
    }

    /// Whether state of a type may have changed.
    pub(super) fn has(&self, kind: &str) -> bool {
        let mut changed = self.now.iter().chain(&self.gone);
        self.all || changed.any(|event| event.pdu.kind() == kind)
    }
}

impl Reader<'_> {
    /// The state that is wanted and that the client does not have: what changed, what is wanted now and was
    /// not before, and members as they are needed.
    pub(super) fn wanted_state(
        &self,
        asked: &Asked<'_>,
        room: &Room,
        changes: &Changes,
        root: NodeId,
        timeline: &Timeline,
    ) -> Result<WantedState, Error> {
        let wanted = &asked.config.required_state;
        // Members who came in when the state was filled in did not change.
        let filled_in = asked.sent.is_some_and(|sent| room.full_since() > sent.seen);
        let anew = changes.all || timeline.limited || filled_in;
        // Between two answers without a gap all changes of members are told, so that clients may keep them.
        let all_members = wanted.is_lazy() && !anew;
        let mut found = StateMap::new();
        for event in &changes.now {
            let (kind, key) = (event.pdu.kind(), event.pdu.state_key().unwrap_or_default());
            if wanted.wants(kind, key) || (all_members && kind == MEMBER) {
                found.insert((kind.to_owned(), key.to_owned()), event.clone());
            }
        }
        let expanded = asked.sent.is_some_and(|sent| sent.config != asked.number);
        if changes.all || expanded {
            let before = asked.before.filter(|_| !changes.all);
            let is_new = |kind: &str, key: &str| {
                wanted.wants(kind, key) && !before.is_some_and(|before| before.wants(kind, key))
            };
            collect(self.look, room, root, wanted, &is_new, &mut found)?;
        }
        let mut members = Vec::new();
        if wanted.is_lazy() {
            self.needed_members(room, root, timeline, anew, &mut found)?;
            for event in found.values().filter(|event| event.pdu.kind() == MEMBER) {
                let user = event
                    .pdu
                    .state_key()
                    .and_then(|id| OwnedUserId::try_from(id).ok());
                members.extend(user.map(|user| (user, event.short)));
            }
        }
        let deleted = changes.gone.iter().filter_map(|event| {
            let (kind, key) = (event.pdu.kind(), event.pdu.state_key()?);
            let is_wanted = wanted.wants(kind, key) || (all_members && kind == MEMBER);
            is_wanted.then(|| (kind.to_owned(), key.to_owned()))
        });
        Ok(WantedState {
            deleted: deleted.collect(),
            events: found.into_values().collect(),
            members: SentMembers {
                room: room.id().to_owned(),
                anew,
                members,
            },
        })
    }

    /// Adds the members whom the timeline shows and the client may not know.
    fn needed_members(
        &self,
        room: &Room,
        root: NodeId,
        timeline: &Timeline,
        anew: bool,
        found: &mut StateMap,
    ) -> Result<(), Error> {
        let mut needed: BTreeSet<OwnedUserId> = BTreeSet::new();
        for event in &timeline.events {
            needed.insert(event.pdu.sender().to_owned());
            let target = event.pdu.state_key().filter(|_| event.pdu.kind() == MEMBER);
            needed.extend(target.and_then(|id| OwnedUserId::try_from(id).ok()));
        }
        for user in needed {
            let key = (MEMBER.to_owned(), user.to_string());
            if found.contains_key(&key) {
                continue;
            }
            let Some(member) = room.state_at(root, MEMBER, user.as_str())? else {
                continue;
            };
            if anew || !self.known.knows(room.id(), &user, member.short) {
                found.insert(key, member);
            }
        }
        Ok(())
    }
}

/// Collects the state that is wanted out of a whole state. Only types that are asked for are read.
fn collect(
    look: &Look<'_>,
    room: &Room,
    root: NodeId,
    wanted: &RequiredState,
    is_new: &dyn Fn(&str, &str) -> bool,
    found: &mut StateMap,
) -> Result<(), Error> {
    let is_current = room.view().root == root;
    let mut candidates: Vec<Arc<Event>> = Vec::new();
    for (pattern, without_members) in wanted.patterns() {
        let shorts = match (&pattern.kind, &pattern.state_key) {
            (Some(kind), Some(key)) => {
                candidates.extend(room.state_at(root, kind, key)?);
                continue;
            }
            (Some(kind), None) if without_members && kind == MEMBER => continue,
            (Some(kind), None) => room.state_shorts_of_type(kind)?,
            (None, _) if without_members => room.state_shorts_without_members()?,
            (None, _) => room.state_shorts()?,
        };
        look.weigh(shorts.len())?;
        candidates.extend(room.events(&shorts)?);
    }
    for event in candidates {
        let (kind, key) = (event.pdu.kind(), event.pdu.state_key().unwrap_or_default());
        if !is_new(kind, key) {
            continue;
        }
        // Candidates are of the current state: another one has others in their places.
        let at_root = match is_current {
            true => Some(event.clone()),
            false => room.state_at(root, kind, key)?,
        };
        if let Some(event) = at_root {
            found.insert((event.pdu.kind().to_owned(), key.to_owned()), event);
        }
    }
    Ok(())
}
