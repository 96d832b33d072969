//! What a list of rooms shows of a room besides its state: how much is new, who names it, and when something lifted it.

use hearth_rooms::{Place, Room};
use ruma::OwnedUserId;
use serde_json::Value;

use super::{
    request::MEMBER,
    room::{Reader, Span},
};
use crate::{Error, view::Timeline};

/// The types of events that lift a room in a list of rooms.
const BUMPING_TYPES: [&str; 7] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "m.beacon_info",
];

/// In how many of the newest events one that lifts the room is looked for.
const BUMP_LOOK_MAX_EVENTS: usize = 64;

/// A member who names a room.
pub struct Hero {
    /// The member.
    pub user_id: OwnedUserId,
    /// The display name.
    pub displayname: Option<String>,
    /// The avatar.
    pub avatar_url: Option<String>,
}

impl Reader<'_> {
    /// How many of the last events came after the answer before.
    pub(super) fn live(&self, room: &Room, timeline: &Timeline) -> usize {
        // No room was shown before where they all waited for messages to the device.
        let Some(since) = self.since.filter(|since| !since.shards.is_empty()) else {
            return 0;
        };
        let seen = since.shard(room.shard());
        let newer = timeline.events.iter().rev();
        newer.take_while(|event| event.header.position > seen).count()
    }

    /// The members who name the room, the longest there first.
    pub(super) fn heroes(&self, room: &Room) -> Result<Vec<Hero>, Error> {
        let mut heroes = Vec::new();
        for (user_id, _) in room.heroes(self.look.request.user.id())? {
            let member = room.state(MEMBER, user_id.as_str())?;
            let content: Value = member
                .and_then(|member| serde_json::from_slice(member.pdu.content()).ok())
                .unwrap_or_default();
            let text = |name: &str| content[name].as_str().map(str::to_owned);
            heroes.push(Hero {
                displayname: text("displayname"),
                avatar_url: text("avatar_url"),
                user_id,
            });
        }
        Ok(heroes)
    }

    /// When the last event came that lifts the room: its time, which is what rooms of different shards have in
    /// common. Nothing where the client knows it: no event of the span lifts the room.
    pub(super) fn bump_stamp(&self, room: &Room, span: &Span) -> Result<Option<u64>, Error> {
        let seen = match span.seen {
            Some(seen) => room.place_at(seen)?.min(span.end),
            None => Place::START,
        };
        let mut shorts = Vec::new();
        room.visit_timeline(seen, span.end, true, &mut |row| {
            shorts.push(row.short);
            shorts.len() < BUMP_LOOK_MAX_EVENTS
        })?;
        let is_whole = shorts.len() < BUMP_LOOK_MAX_EVENTS;
        let now = self.look.request.user.users().now_ms();
        let mut oldest = None;
        for short in shorts {
            let Some(event) = room.event(short)? else {
                continue;
            };
            oldest = Some(event.pdu.origin_server_ts().min(now));
            if BUMPING_TYPES.contains(&event.pdu.kind()) {
                return Ok(oldest);
            }
        }
        // A room in which nothing of that kind is found in a long stretch is as old as the stretch.
        Ok(oldest.filter(|_| span.seen.is_none() || !is_whole))
    }
}
