//! The news of one room.

use std::{collections::BTreeMap, sync::Arc};

use hearth_rooms::{Event, NodeId, Place, Room, Viewer};
use hearth_storage::Position;
use hearth_users::RoomEntry;
use ruma::{OwnedUserId, UserId};

use crate::{
    Error,
    index::JoinedEntry,
    lazy::SentMember,
    look::Look,
    view::{DataEvent, JoinedRoom, LeftRoom, Summary, Timeline, Unread},
};

/// How many events of a room are looked at to fill its timeline: one answer has many rooms, and in each of them a filter
/// may leave most events out. What is older comes by pages.
const LOOKED_AT_MAX: usize = 500;

/// The stretch of a room's history that is news.
pub(crate) struct Stretch {
    /// The gap after what the client has seen, if it knows the room, and the gap where the news end.
    after: Option<Place>,
    until: Place,
    /// The states at both ends; the first is empty where the client is told anew.
    pub(crate) old_root: NodeId,
    pub(crate) new_root: NodeId,
}

impl Look<'_> {
    /// The news of a joined room, if there are any.
    pub(crate) fn joined_room(
        &self,
        entry: &JoinedEntry,
        data: Vec<DataEvent>,
        members: &mut Vec<SentMember>,
    ) -> Result<Option<JoinedRoom>, Error> {
        let until = self.until(entry.shard);
        if entry.room_began > until || entry.began > self.user_position {
            // Joined after the positions were taken: the next sync tells of it.
            return Ok(None);
        }
        let Some(room) = self.engine.rooms.get(&entry.room_id)? else {
            return Ok(None);
        };
        let lazy = self.request.filter.room.is_lazy();
        if room.is_partial() && !lazy {
            // Without its members it cannot be shown to who wants them all; it comes when it is whole.
            return Ok(None);
        }
        let whole_since = self
            .since
            .is_some_and(|since| !lazy && room.full_since() > since.shard(entry.shard));
        let known = self.knows_joined(entry) && !whole_since;
        let initial = !known || self.request.full_state;
        let seen = self.since.filter(|_| known).map(|since| since.shard(entry.shard));
        let (receipts, read) = self.receipts(&room, seen, until)?;
        let mut news = JoinedRoom {
            initial,
            timeline: Timeline {
                events: Vec::new(),
                limited: false,
                start: Place::START,
            },
            state: Vec::new(),
            typing: self.typing(&room, known),
            receipts,
            read,
            account_data: self.room_data(&room, known, data)?,
            summary: None,
            unread: Unread::default(),
            unread_threads: BTreeMap::new(),
            viewer: self.viewer(&room)?,
            room: room.clone(),
        };
        if initial || room.view().timeline_position > seen.unwrap_or(0) {
            let stretch = self.stretch(&room, seen, until)?;
            news.timeline = self.timeline(&room, &mut news.viewer, &stretch)?;
            if seen.is_none() {
                self.cut_at_hidden_state(&room, &stretch, &mut news.timeline)?;
                // A client that had other rooms before must not take the timeline for all there is.
                news.timeline.limited |= self.since.is_some();
            }
            self.weigh(news.timeline.events.len())?;
            let all_members = self.request.filter.room.wants_all_members();
            let state = self.state(&room, &stretch, &news.timeline.events, all_members)?;
            if initial || renamed(&room, &stretch, seen.unwrap_or(0))? {
                news.summary = Some(self.summary(&room)?);
            }
            news.state = self.wanted_state(&room, &stretch, &news, state, members)?;
        }
        if news.is_empty() {
            return Ok(None);
        }
        let unread = self.unread(&room, (entry.began_anchor, entry.room_began))?;
        if self.request.filter.room.timeline.unread_thread_notifications {
            news.unread = unread.main.into();
            let threads = unread
                .threads
                .into_iter()
                .map(|(root, counts)| (root, counts.into()));
            news.unread_threads = threads.collect();
        } else {
            news.unread = unread.total.into();
        }
        Ok(Some(news))
    }

    /// The news of a room that the user has left, or was removed from, since the token.
    pub(crate) fn left_room(
        &self,
        entry: &RoomEntry,
        data: Vec<DataEvent>,
    ) -> Result<Option<LeftRoom>, Error> {
        let Some(room) = self.engine.rooms.get(&entry.room_id)? else {
            return Ok(None);
        };
        let end = Place {
            anchor: entry.anchor,
            offset: 0,
        };
        let Some(own) = room.event_by_id(&entry.event_id)? else {
            return Ok(None);
        };
        let mut left = LeftRoom {
            timeline: Timeline {
                events: vec![own.clone()],
                limited: false,
                start: end.before(),
            },
            state: Vec::new(),
            account_data: data,
            viewer: self.viewer(&room)?,
            room: room.clone(),
        };
        // An unban comes after the end of the stay, and so does the end of a later invitation. Who has not heard of
        // the end of the stay is told of the room up to there first.
        let stay = match left.viewer.left() {
            Some(place) => room.event_at(place)?,
            None => None,
        };
        if let Some(last) = stay
            && (last.header.place == end || !self.knows_end_of_stay(&room, last.header.place)?)
        {
            self.tell_stay(&mut left, &last, &own)?;
        }
        // The user's own leaving is told of whatever the history visibility says, unless the filter
        // leaves it out.
        let filter = &self.request.filter.room.timeline;
        left.timeline
            .events
            .retain(|event| filter.has_room(room.id()) && filter.has_event(event));
        Ok(Some(left))
    }

    /// Whether the client heard of an event that ended a stay of the user before the one that it is told of now. A token
    /// without the room's shard is of a time at which the user was in none of its rooms.
    fn knows_end_of_stay(&self, room: &Room, place: Place) -> Result<bool, Error> {
        let Some(since) = self.since.filter(|_| !self.request.full_state) else {
            return Ok(false);
        };
        let seen = since.shard(room.shard());
        Ok(seen == 0 || room.place_at(seen)? >= place)
    }

    /// Tells of a room up to the event that ended the user's stay, and of the newest membership after it.
    fn tell_stay(&self, left: &mut LeftRoom, last: &Arc<Event>, own: &Arc<Event>) -> Result<(), Error> {
        let room = left.room.clone();
        let seen = self
            .since
            .map(|since| since.shard(room.shard()))
            .filter(|seen| *seen > 0);
        let seen = match seen {
            Some(seen) if self.was_joined_at(&room, seen)? => Some(seen),
            _ => None,
        };
        let stretch = Stretch {
            after: seen.map(|seen| room.place_at(seen)).transpose()?,
            until: last.header.place,
            old_root: seen.map_or(Ok(NodeId::EMPTY), |seen| room.state_root_at(seen))?,
            new_root: room.state_after(last)?,
        };
        left.timeline = self.timeline(&room, &mut left.viewer, &stretch)?;
        self.weigh(left.timeline.events.len())?;
        let later = last.short != own.short;
        if later {
            left.timeline
                .keep_newest(self.request.filter.room.timeline_limit().saturating_sub(1));
        }
        // What others changed between the end of the stay and the newest membership is not for the user to see.
        left.state = self.state(&room, &stretch, &left.timeline.events, true)?;
        if later {
            if self.request.is_state_after() {
                left.state.retain(|event| event.short != last.short);
                left.state.push(own.clone());
            }
            left.timeline.events.push(own.clone());
        }
        let filter = &self.request.filter.room.state;
        left.state
            .retain(|event| filter.has_room(room.id()) && filter.has_event(event));
        Ok(())
    }

    pub(crate) fn was_joined_at(&self, room: &Room, position: Position) -> Result<bool, Error> {
        is_joined_at(room, self.request.user.id(), position)
    }

    fn stretch(&self, room: &Room, seen: Option<Position>, until: Position) -> Result<Stretch, Error> {
        let whole = seen.is_none() || self.request.full_state;
        Ok(Stretch {
            after: seen.map(|seen| room.place_at(seen)).transpose()?,
            until: room.place_at(until)?,
            old_root: if whole {
                NodeId::EMPTY
            } else {
                room.state_root_at(seen.unwrap_or(0))?
            },
            new_root: room.state_root_at(until)?,
        })
    }

    /// The newest events of the stretch that the user may see and wants to see.
    fn timeline(&self, room: &Room, viewer: &mut Viewer, stretch: &Stretch) -> Result<Timeline, Error> {
        let filter = &self.request.filter.room;
        if !filter.timeline.has_room(room.id()) {
            return Ok(Timeline::empty_at(stretch.until));
        }
        let keep = |event: &Event| filter.timeline.has_event(event) && !self.is_ignored(event);
        newest(
            room,
            viewer,
            stretch.after,
            stretch.until,
            filter.timeline_limit(),
            &keep,
        )
    }

    /// Counts and names.
    fn summary(&self, room: &Room) -> Result<Summary, Error> {
        let named = room.state_text("m.room.name", "name")?.is_some() || room.canonical_alias()?.is_some();
        let heroes = match named {
            true => None,
            false => {
                let heroes = room.heroes(self.request.user.id())?;
                Some(heroes.into_iter().map(|(user, _)| user).collect())
            }
        };
        let view = room.view();
        Ok(Summary {
            heroes,
            joined: view.joined,
            invited: view.invited,
        })
    }

    /// Who types, if that changed since the token.
    fn typing(&self, room: &Room, known: bool) -> Option<Vec<OwnedUserId>> {
        let filter = &self.request.filter.room.ephemeral;
        if !filter.has_room(room.id()) || !filter.has_type("m.typing") {
            return None;
        }
        let changed = {
            let state = self.index.state.lock();
            state
                .room(room.id())
                .is_some_and(|entry| entry.typed_after(self.typing_since()))
        };
        let (mut users, changes) = if changed || !known {
            room.typing()
        } else {
            return None;
        };
        users.retain(|user| !self.ignored.contains(user));
        // Where nobody types, that is news only to who was told otherwise.
        // Who left and came back between two syncs may have been told.
        let told = self.since.is_some() && if known { changed } else { changes > 0 };
        Some(users).filter(|users| told || !users.is_empty())
    }

    /// The receipts set since the token, as far as the filter shows them, and whether own ones are among them.
    fn receipts(
        &self,
        room: &Room,
        seen: Option<Position>,
        until: Position,
    ) -> Result<(Vec<hearth_rooms::Receipt>, bool), Error> {
        let filter = &self.request.filter.room.ephemeral;
        let shown = filter.has_room(room.id()) && filter.has_type("m.receipt");
        let user = self.request.user.id();
        let mut receipts = match seen {
            Some(seen) if room.receipts_position() <= seen => Vec::new(),
            Some(seen) => room.receipts_between(user, seen, until)?,
            None if shown => room.receipts(user)?,
            None => Vec::new(),
        };
        let read = receipts.iter().any(|receipt| receipt.user == user);
        receipts.retain(|receipt| shown && !self.ignored.contains(&receipt.user));
        Ok((receipts, read))
    }

    fn room_data(&self, room: &Room, known: bool, changed: Vec<DataEvent>) -> Result<Vec<DataEvent>, Error> {
        let filter = &self.request.filter.room.account_data;
        if !filter.has_room(room.id()) {
            return Ok(Vec::new());
        }
        // A first sync has read those of all rooms at once.
        let mut data = match known || self.since.is_none() {
            true => changed,
            false => crate::account_data::all_of_room(&self.request.user, room.id())?,
        };
        data.retain(|event| filter.has_type(&event.kind));
        Ok(data)
    }
}

/// Whether a user was joined to a room as of a position.
pub(crate) fn is_joined_at(room: &Room, user: &UserId, position: Position) -> Result<bool, Error> {
    #[derive(serde::Deserialize)]
    struct Content {
        membership: String,
    }
    let root = room.state_root_at(position)?;
    let own = room.state_at(root, "m.room.member", user.as_str())?;
    let content: Option<Content> = own.and_then(|own| serde_json::from_slice(own.pdu.content()).ok());
    Ok(content.is_some_and(|content| content.membership == "join"))
}

/// The newest events between two gaps, or up to one, that the viewer may see and `keep` keeps.
pub(crate) fn newest(
    room: &Room,
    viewer: &mut Viewer,
    after: Option<Place>,
    until: Place,
    limit: usize,
    keep: &dyn Fn(&Event) -> bool,
) -> Result<Timeline, Error> {
    if after == Some(until) {
        return Ok(Timeline::empty_at(until));
    }
    // A gap that history is missing in ends the timeline: what is older comes by pages.
    let gap = room.gap_before(until, after)?.map(Place::before);
    let after = gap.or(after);
    // One more than is sent, to know whether there is more.
    let bounds = (limit + 1, LOOKED_AT_MAX);
    let page = room.page_within(until, after, true, bounds, viewer, keep)?;
    let mut events = page.events;
    let too_many = events.len() > limit;
    events.truncate(limit);
    let start = match (events.last(), page.next) {
        (_, Some(next)) if !too_many => next,
        (Some(first), _) => first.header.place.before(),
        (None, _) => after.filter(|_| !too_many).unwrap_or(until),
    };
    events.reverse();
    Ok(Timeline {
        events,
        limited: too_many || page.next.is_some() || gap.is_some(),
        start,
    })
}

/// Whether a room's members, or what it is called, may have changed in a stretch of which the client has seen everything up
/// to a position. What the timeline shows does not decide it: filters and gaps leave events out, state resolution lets
/// state go with no event that says so, and a redaction leaves the state as it was.
fn renamed(room: &Room, stretch: &Stretch, seen: Position) -> Result<bool, Error> {
    for (before, after) in room.state_changes(stretch.old_root, stretch.new_root)? {
        let Some(short) = after.or(before) else { continue };
        if room.event(short)?.is_some_and(|event| names_room(&event)) {
            return Ok(true);
        }
    }
    for kind in ["m.room.name", "m.room.canonical_alias"] {
        if is_cut(room, stretch.new_root, kind, seen)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a state event has to do with what a room without a name is called.
fn names_room(event: &Event) -> bool {
    matches!(
        event.pdu.kind(),
        "m.room.member" | "m.room.name" | "m.room.canonical_alias"
    )
}

/// Whether the state event of a type, with an empty key, was redacted after a position: what it said is gone, and nothing
/// came in its place.
pub(crate) fn is_cut(room: &Room, root: NodeId, kind: &str, since: Position) -> Result<bool, Error> {
    let event = room.state_at(root, kind, "")?;
    let Some(by) = event.and_then(|event| event.header.redacted_by) else {
        return Ok(false);
    };
    Ok(room.event(by)?.is_some_and(|by| by.header.position > since))
}
