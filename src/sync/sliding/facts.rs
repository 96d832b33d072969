//! What a list of rooms shows of a room besides its state: how much is new, who names it, and when something lifted it.

use std::sync::Arc;

use hearth_rooms::{Event, NodeId, Place, Room};
use hearth_users::Membership;
use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use super::{
    order::ListedRoom,
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

/// Heroes, and how many members are joined and invited.
type People = (Option<Vec<Hero>>, Option<(u32, u32)>);

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

    /// The members who name the room, the longest there first, and how many are joined and invited, each where it is
    /// wanted. Who has left sees the members as they were then.
    pub(super) fn people(
        &self,
        entry: &ListedRoom,
        room: &Room,
        root: NodeId,
        (heroes, counts): (bool, bool),
    ) -> Result<People, Error> {
        if !heroes && !counts {
            return Ok((None, None));
        }
        let user = self.look.request.user.id();
        if entry.membership != Membership::Join {
            let (members, numbers) = room.people_at(user, root)?;
            let member = |id: &UserId| room.state_at(root, MEMBER, id.as_str());
            let shown = heroes.then(|| shown(members, member)).transpose()?;
            return Ok((shown, counts.then_some(numbers)));
        }
        let shown = match heroes {
            true => Some(shown(room.heroes(user)?, |id| room.state(MEMBER, id.as_str()))?),
            false => None,
        };
        let view = room.view();
        Ok((shown, counts.then_some((view.joined, view.invited))))
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

/// Members with the names and pictures that their member events have.
fn shown(
    members: Vec<(OwnedUserId, hearth_rooms::Membership)>,
    member: impl Fn(&UserId) -> Result<Option<Arc<Event>>, hearth_rooms::Error>,
) -> Result<Vec<Hero>, Error> {
    let mut heroes = Vec::with_capacity(members.len());
    for (user_id, _) in members {
        let content: Value = member(&user_id)?
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
