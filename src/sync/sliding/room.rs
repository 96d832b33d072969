//! What is new in one room for a connection.

use std::{collections::BTreeSet, sync::Arc};

use hearth_rooms::{Event, NodeId, Place, Room, Viewer};
use hearth_storage::Position;
use hearth_users::Membership;
use ruma::OwnedRoomId;
use serde_json::{Value, value::RawValue};

use super::{
    connection::{KnownMembers, RoomSent, SentMembers, Shown},
    facts::Hero,
    order::ListedRoom,
    request::{MEMBER, RequiredState, RoomConfig},
    state::Changes,
};
use crate::{
    Error, SyncToken,
    look::Look,
    room::{is_cut, newest},
    view::{Timeline, Unread},
};

/// The news of a room.
pub struct RoomNews {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The user's membership.
    pub membership: Membership,
    /// The lists that show the room.
    pub lists: Vec<Arc<str>>,
    /// Whether the client is told of the room for the first time, or again in full.
    pub initial: bool,
    /// When something last happened that lifts the room, if that changed.
    pub bump_stamp: Option<u64>,
    /// Whether the room is a direct chat, and whether that changed.
    pub is_dm: bool,
    /// Whether the client was told otherwise.
    pub dm_changed: bool,
    /// The rest.
    pub body: Body,
}

/// What depends on how the user sees the room.
pub enum Body {
    /// From inside: the user is in the room, or was.
    Full(Box<FullRoom>),
    /// From outside.
    Stripped {
        /// What is shown of the room.
        state: Vec<Box<RawValue>>,
        /// The user's own member event, where an invitation or a knock came to nothing.
        gone: Option<Gone>,
    },
}

/// The member event that ended an invitation or a knock.
pub enum Gone {
    /// As the room has it.
    Event(Box<(Room, Viewer, Arc<Event>)>),
    /// As the user's room list has it: this server is not in the room.
    Entry(Box<RawValue>),
}

/// A room from inside.
pub struct FullRoom {
    /// The room.
    pub room: Room,
    /// The user's view of it.
    pub viewer: Viewer,
    /// The name, where it changed; none where there is none any more.
    pub name: Option<Option<String>>,
    /// The avatar, likewise.
    pub avatar: Option<Option<String>>,
    /// The members who name the room, where nothing else does and they may have changed.
    pub heroes: Option<Vec<Hero>>,
    /// Joined and invited members, where they changed.
    pub counts: Option<(u32, u32)>,
    /// State that changed.
    pub state: Vec<Arc<Event>>,
    /// Type and key of state that is gone.
    pub deleted: Vec<(String, String)>,
    /// Events.
    pub timeline: Timeline,
    /// Whether the timeline holds events from before what was sent last.
    pub expanded: bool,
    /// How many of the last events happened since the last answer.
    pub live: usize,
    /// What is unread, if the client is told of it: each time, because clients take its absence for nothing unread.
    pub unread: Option<Unread>,
    /// Whether that changed.
    pub unread_changed: bool,
}

/// What was read of a room.
pub(super) struct Read {
    /// What will have been sent of it.
    pub(super) sent: RoomSent,
    /// What is to be sent, if anything.
    pub(super) news: Option<RoomNews>,
    pub(super) members: SentMembers,
}

/// Reads rooms for one request.
pub(super) struct Reader<'a> {
    pub(super) look: &'a Look<'a>,
    /// How far the answer before went.
    pub(super) since: Option<&'a SyncToken>,
    pub(super) direct: &'a BTreeSet<OwnedRoomId>,
    pub(super) known: &'a KnownMembers,
    pub(super) with_unread: bool,
}

/// What is asked of a room, and what was sent of it.
pub(super) struct Asked<'a> {
    pub(super) entry: &'a ListedRoom,
    pub(super) sent: Option<&'a RoomSent>,
    pub(super) config: &'a RoomConfig,
    /// The number of the required state, and the required state that was in force before.
    pub(super) number: u64,
    pub(super) before: Option<&'a RequiredState>,
}

/// The stretch of history that is told of.
pub(super) struct Span {
    /// The position that was seen, if the client goes on from there.
    pub(super) seen: Option<Position>,
    /// The position up to which is read; the gap and the state there.
    pub(super) until: Position,
    pub(super) end: Place,
    pub(super) root: NodeId,
}

impl Reader<'_> {
    /// The news of a room; none where it must be looked at later.
    pub(super) fn read(&self, asked: &Asked<'_>) -> Result<Option<Read>, Error> {
        if asked.entry.position > self.look.user_position {
            return Ok(None);
        }
        match asked.entry.membership {
            Membership::Join => self.joined(asked),
            Membership::Invite | Membership::Knock => self.outside(asked).map(Some),
            Membership::Leave | Membership::Ban => self.left(asked),
        }
    }

    fn joined(&self, asked: &Asked<'_>) -> Result<Option<Read>, Error> {
        let entry = asked.entry;
        let Some(room) = self.look.engine.rooms.get(&entry.room_id)? else {
            return Ok(None);
        };
        let until = self.look.until(room.shard());
        // Without its members a room cannot be shown to who wants them all; it comes when it is whole.
        let is_lacking = room.is_partial() && asked.config.required_state.wants_all_members();
        if entry.room_began > until || is_lacking {
            return Ok(None);
        }
        let sent = asked
            .sent
            .filter(|sent| sent.shown == Shown::Joined && sent.began == entry.began);
        // What is beyond this look is not counted before it is shown.
        let is_ahead = room.view().timeline_position > until;
        let unread = match (self.with_unread, sent) {
            (false, _) => Unread::default(),
            (true, Some(sent)) if is_ahead => Unread {
                notifications: sent.unread.0,
                highlights: sent.unread.1,
            },
            (true, _) => {
                let unread = self.look.unread(&room, (entry.began_anchor, entry.room_began))?;
                Unread::from(unread.total)
            }
        };
        let mut next = self.next_sent(asked, Shown::Joined, until);
        next.unread = (unread.notifications, unread.highlights);
        if let Some(sent) = sent {
            next.start = sent.start;
            let same_config = sent.config == asked.number && asked.config.timeline_limit <= sent.limit;
            if room.view().timeline_position <= sent.seen
                && same_config
                && sent.unread == next.unread
                && sent.is_dm == next.is_dm
            {
                return Ok(Some(self.nothing(asked, next)));
            }
        } else {
            // What was told of receipts belongs to another stay.
            (next.receipts, next.data) = (None, None);
        }
        let span = Span {
            seen: sent.map(|sent| sent.seen),
            until,
            end: room.place_at(until)?,
            root: room.state_root_at(until)?,
        };
        let asked = Asked { sent, ..*asked };
        let (mut full, members) = self.full(&asked, &room, &span, &mut next)?;
        full.unread = self.with_unread.then_some(unread);
        full.unread_changed = sent.is_some_and(|sent| sent.unread != next.unread);
        let bump_stamp = match sent.is_none() || !full.timeline.events.is_empty() {
            true => self.bump_stamp(&room, &span)?,
            false => None,
        };
        let news = self.news(&asked, &next, bump_stamp, Body::Full(Box::new(full)));
        Ok(Some(Read {
            sent: next,
            news,
            members,
        }))
    }

    /// A room as somebody sees it who is invited or knocks.
    fn outside(&self, asked: &Asked<'_>) -> Result<Read, Error> {
        let entry = asked.entry;
        let mut next = self.next_sent(asked, Shown::Stripped, 0);
        (next.receipts, next.data) = (None, None);
        let same = |sent: &&RoomSent| sent.shown == Shown::Stripped && sent.entry == entry.position;
        if asked.sent.filter(same).is_some() {
            return Ok(self.nothing(asked, next));
        }
        let Some(stored) = self.look.request.user.room(&entry.room_id)? else {
            return Ok(self.nothing(asked, next));
        };
        let state = self.look.stripped(&stored)?.state;
        let body = Body::Stripped { state, gone: None };
        let news = self.news(&Asked { sent: None, ..*asked }, &next, Some(entry.ts), body);
        Ok(Read {
            news,
            ..self.nothing(asked, next)
        })
    }

    /// The part that is the same for rooms that the user is in and those that the user was in.
    pub(super) fn full(
        &self,
        asked: &Asked<'_>,
        room: &Room,
        span: &Span,
        next: &mut RoomSent,
    ) -> Result<(FullRoom, SentMembers), Error> {
        let mut viewer = self.look.viewer(room)?;
        let (timeline, expanded) = self.timeline(asked, room, &mut viewer, span)?;
        if span.seen.is_none() || expanded || timeline.limited {
            next.start = timeline.start;
        }
        next.seen = next.seen.max(span.until);
        let old = match span.seen {
            Some(seen) => Some(room.state_root_at(seen)?),
            None => None,
        };
        self.look.weigh(timeline.events.len())?;
        let changes = Changes::between(self.look, room, old, span.root)?;
        let wanted = self.wanted_state(asked, room, &changes, span.root, &timeline)?;
        let redacts = |event: &Arc<Event>| event.pdu.kind() == "m.room.redaction";
        let cut_since = span
            .seen
            .filter(|_| timeline.limited || timeline.events.iter().any(redacts));
        let is_cut = |kind: &str| cut_since.map_or(Ok(false), |since| is_cut(room, span.root, kind, since));
        let has = |kind: &str| Ok::<_, Error>(changes.has(kind) || is_cut(kind)?);
        let named = has("m.room.name")?;
        let peopled = changes.has(MEMBER);
        let name = text_at(room, span.root, "m.room.name", "name")?;
        let avatar = match has("m.room.avatar")? {
            true => Some(text_at(room, span.root, "m.room.avatar", "url")?),
            false => None,
        };
        let wants_heroes = name.is_none() && (named || peopled || cut_since.is_some());
        let (heroes, counts) = self.people(asked.entry, room, span.root, (wants_heroes, peopled))?;
        let full = FullRoom {
            name: named.then_some(name),
            avatar,
            heroes,
            counts,
            state: wanted.events,
            deleted: wanted.deleted,
            live: self.live(room, &timeline),
            timeline,
            expanded,
            unread: None,
            unread_changed: false,
            viewer,
            room: room.clone(),
        };
        Ok((full, wanted.members))
    }

    /// The newest events; with older ones where more are wanted now than were sent.
    fn timeline(
        &self,
        asked: &Asked<'_>,
        room: &Room,
        viewer: &mut Viewer,
        span: &Span,
    ) -> Result<(Timeline, bool), Error> {
        let limit = asked.config.timeline_limit;
        let keep = |event: &Event| !self.look.is_ignored(event);
        if let Some(sent) = asked.sent.filter(|sent| limit > sent.limit) {
            let whole = newest(room, viewer, None, span.end, limit, &keep)?;
            if whole.start < sent.start {
                return Ok((whole, true));
            }
        }
        let after = match span.seen {
            Some(seen) => Some(room.place_at(seen)?.min(span.end)),
            None => None,
        };
        Ok((newest(room, viewer, after, span.end, limit, &keep)?, false))
    }

    /// What will have been sent, as far as it is the same in all cases.
    pub(super) fn next_sent(&self, asked: &Asked<'_>, shown: Shown, seen: Position) -> RoomSent {
        let before = asked.sent.cloned().unwrap_or_default();
        RoomSent {
            shown,
            entry: asked.entry.position,
            began: asked.entry.began,
            seen,
            limit: asked.config.timeline_limit,
            config: asked.number,
            is_dm: self.direct.contains(&asked.entry.room_id),
            unread: (0, 0),
            ..before
        }
    }

    pub(super) fn nothing(&self, asked: &Asked<'_>, sent: RoomSent) -> Read {
        Read {
            sent,
            news: None,
            members: SentMembers {
                room: asked.entry.room_id.clone(),
                anew: false,
                members: Vec::new(),
            },
        }
    }

    /// The news, if they are any.
    pub(super) fn news(
        &self,
        asked: &Asked<'_>,
        next: &RoomSent,
        bump_stamp: Option<u64>,
        body: Body,
    ) -> Option<RoomNews> {
        let initial = asked.sent.is_none();
        let dm_changed = asked.sent.map_or(next.is_dm, |sent| sent.is_dm != next.is_dm);
        let is_news = match &body {
            Body::Stripped { .. } => true,
            Body::Full(full) => {
                let same = asked.sent.is_some_and(|sent| sent.shown == next.shown);
                !same || dm_changed || !full.is_empty()
            }
        };
        is_news.then(|| RoomNews {
            room_id: asked.entry.room_id.clone(),
            membership: asked.entry.membership,
            lists: Vec::new(),
            initial,
            bump_stamp,
            is_dm: next.is_dm,
            dm_changed,
            body,
        })
    }
}

impl FullRoom {
    fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.avatar.is_none()
            && self.heroes.is_none()
            && self.counts.is_none()
            && self.state.is_empty()
            && self.deleted.is_empty()
            && self.timeline.events.is_empty()
            && !self.timeline.limited
            && !self.expanded
            && !self.unread_changed
    }
}

/// A text of a state event with an empty key, in a state.
fn text_at(room: &Room, root: NodeId, kind: &str, field: &str) -> Result<Option<String>, Error> {
    let event = room.state_at(root, kind, "")?;
    let content: Option<Value> = event.and_then(|event| serde_json::from_slice(event.pdu.content()).ok());
    let text = content.as_ref().and_then(|content| content[field].as_str());
    Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
}
