//! The state that `/sync` shows of a room beside its timeline.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use hearth_rooms::{Event, NodeId, Room};
use ruma::{OwnedUserId, UserId};

use crate::{
    Error,
    lazy::SentMember,
    look::Look,
    room::Stretch,
    view::{JoinedRoom, Timeline},
};

impl Look<'_> {
    /// The state that changed over the stretch and that the timeline does not show: as it was at the
    /// start of the timeline, and where it changed later without showing (because a filter or the
    /// history visibility hides it) as it is at the end. For `state_after`, all that changed.
    ///
    /// Without `all_members`, where the client is told anew, those who did not change are not read: a room may have a
    /// hundred thousand of them. Who is needed is [added](Self::wanted_state).
    pub(crate) fn state(
        &self,
        room: &Room,
        stretch: &Stretch,
        timeline: &[Arc<Event>],
        all_members: bool,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let start_root = timeline
            .first()
            .map_or(stretch.new_root, |event| event.header.state_before);
        let few_members = stretch.old_root == NodeId::EMPTY && !all_members;
        let differing = |root: NodeId| match few_members {
            true => room.state_shorts_without_members_at(root),
            false => room.state_diff(stretch.old_root, root),
        };
        let at_end = differing(stretch.new_root)?;
        self.weigh(at_end.len())?;
        if self.request.is_state_after() || timeline.is_empty() || start_root == stretch.new_root {
            return Ok(room.events(&at_end)?);
        }
        let mut wanted = differing(start_root)?;
        wanted.extend(at_end);
        if few_members {
            wanted.extend(room.state_diff(start_root, stretch.new_root)?);
        }
        let shown: HashSet<_> = timeline.iter().map(|event| event.short).collect();
        wanted.retain(|short| !shown.contains(short));
        let mut state: BTreeMap<(String, String), Arc<Event>> = BTreeMap::new();
        for event in room.events(&wanted)? {
            let key = (
                event.pdu.kind().to_owned(),
                event.pdu.state_key().unwrap_or_default().to_owned(),
            );
            state.insert(key, event);
        }
        Ok(state.into_values().collect())
    }

    /// Lets the timeline begin after the last state event that was replaced while the user could not
    /// see it happen (between two stays): shown after the state, it would seem to be the newer one.
    pub(crate) fn cut_at_hidden_state(
        &self,
        room: &Room,
        stretch: &Stretch,
        timeline: &mut Timeline,
    ) -> Result<(), Error> {
        if self.request.is_state_after() {
            return Ok(());
        }
        let is_state = |event: &&Arc<Event>| event.pdu.state_key().is_some();
        let Some(first) = timeline.events.iter().find(is_state) else {
            return Ok(());
        };
        let changed = room.state_diff(first.header.state_before, stretch.new_root)?;
        let shown: HashSet<_> = timeline.events.iter().map(|event| event.short).collect();
        let hidden: Vec<_> = changed
            .into_iter()
            .filter(|short| !shown.contains(short))
            .collect();
        if hidden.is_empty() {
            return Ok(());
        }
        let hidden = room.events(&hidden)?;
        let is_replaced = |event: &Arc<Event>| {
            event.pdu.state_key().is_some()
                && hidden.iter().any(|newer| {
                    newer.pdu.kind() == event.pdu.kind()
                        && newer.pdu.state_key() == event.pdu.state_key()
                        && newer.header.place > event.header.place
                        && self.request.filter.room.timeline.has_event(newer)
                })
        };
        if let Some(last) = timeline.events.iter().rposition(is_replaced) {
            timeline.start = timeline.events[last].header.place;
            timeline.limited = true;
            timeline.events.drain(..=last);
        }
        Ok(())
    }

    /// What the filter leaves of the state, with members as they are needed.
    pub(crate) fn wanted_state(
        &self,
        room: &Room,
        stretch: &Stretch,
        news: &JoinedRoom,
        mut state: Vec<Arc<Event>>,
        members: &mut Vec<SentMember>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let filter = &self.request.filter.room;
        if !filter.state.has_room(room.id()) {
            return Ok(Vec::new());
        }
        if filter.is_lazy() {
            self.load_members(room, stretch, news, &mut state, members)?;
        }
        state.retain(|event| filter.state.has_event(event));
        Ok(state)
    }

    /// Leaves of the members those who are needed: senders in the timeline, heroes and the user where
    /// the room is told of anew, and whoever changed; adds senders whom the client may not know.
    fn load_members(
        &self,
        room: &Room,
        stretch: &Stretch,
        news: &JoinedRoom,
        state: &mut Vec<Arc<Event>>,
        members: &mut Vec<SentMember>,
    ) -> Result<(), Error> {
        let own = self.request.user.id();
        let events = &news.timeline.events;
        let mut needed: BTreeSet<OwnedUserId> =
            events.iter().map(|event| event.pdu.sender().to_owned()).collect();
        if let Some(heroes) = news.summary.as_ref().and_then(|summary| summary.heroes.as_ref()) {
            needed.extend(heroes.iter().cloned());
        }
        let is_member = |event: &Event| event.pdu.kind() == "m.room.member";
        if news.initial {
            needed.insert(own.to_owned());
            let wanted = |event: &Event| event.pdu.state_key().is_some_and(|id| contains(&needed, id));
            state.retain(|event| !is_member(event) || wanted(event));
        }
        let sent: HashMap<&str, u32> = state
            .iter()
            .filter(|event| is_member(event))
            .filter_map(|event| Some((event.pdu.state_key()?, event.short)))
            .collect();
        let root = match events.first().filter(|_| !self.request.is_state_after()) {
            Some(first) => first.header.state_before,
            None => stretch.new_root,
        };
        let mut added = Vec::new();
        for user in &needed {
            if sent.contains_key(user.as_str()) {
                continue;
            }
            let event = match room.state_at(root, "m.room.member", user.as_str())? {
                Some(event) => Some(event),
                // While most members are not known, an event's sender is known by what authorizes the event.
                None if room.is_partial() => member_by_auth(room, events, user)?,
                None => None,
            };
            let Some(event) = event else { continue };
            let known = !news.initial && self.knows_member(room, user, event.short);
            // Beside the state after it, the timeline tells of no state.
            let shown =
                !self.request.is_state_after() && events.iter().any(|shown| shown.short == event.short);
            if !known && !shown {
                added.push(event);
            }
        }
        state.extend(added);
        for event in state.iter().chain(events).filter(|event| is_member(event)) {
            let user = event
                .pdu
                .state_key()
                .and_then(|id| OwnedUserId::try_from(id).ok());
            members.extend(user.map(|user| (room.key(), user, event.short)));
        }
        Ok(())
    }

    fn knows_member(&self, room: &Room, user: &UserId, short: u32) -> bool {
        if self.request.filter.room.is_redundant() {
            return false;
        }
        let Some(device) = &self.request.device else {
            return false;
        };
        let member = (room.key(), user.to_owned(), short);
        self.index.state.lock().lazy.knows(device.as_str(), &member)
    }
}

fn contains(users: &BTreeSet<OwnedUserId>, id: &str) -> bool {
    <&UserId>::try_from(id).is_ok_and(|id| users.contains(id))
}

/// The member event of a user among the auth events of an event that the user sent.
fn member_by_auth(room: &Room, events: &[Arc<Event>], user: &UserId) -> Result<Option<Arc<Event>>, Error> {
    let Some(sent) = events.iter().rev().find(|event| event.pdu.sender() == user) else {
        return Ok(None);
    };
    let cited = room.events(&sent.header.auth)?;
    Ok(cited
        .into_iter()
        .find(|event| event.pdu.kind() == "m.room.member" && event.pdu.state_key() == Some(user.as_str())))
}
