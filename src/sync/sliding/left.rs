//! What is new of a room that the user has left, or was thrown out of.

use hearth_rooms::{Event, NodeId, Place, Room};
use hearth_users::RoomEntry;
use serde_json::{Value, value::RawValue};

use super::{
    connection::{RoomSent, Shown},
    order::ListedRoom,
    request::MEMBER,
    room::{Asked, Body, Gone, Read, Reader, Span},
};
use crate::{Error, look::Look};

impl Look<'_> {
    /// Where the last stay in a room that is here ended, before or with the user's own member event, and the state
    /// there; none where the user never was in the room.
    pub(super) fn end_of_stay(
        &self,
        room: &Room,
        entry: &ListedRoom,
        own: &Event,
    ) -> Result<Option<(Place, NodeId)>, Error> {
        let place = own.header.place;
        let left = self.viewer(room)?.left();
        let Some(end) = left.filter(|left| entry.was_joined && *left <= place) else {
            return Ok(None);
        };
        let last = match end == place {
            true => None,
            false => room.event_at(end)?,
        };
        Ok(Some((end, room.state_after(last.as_deref().unwrap_or(own))?)))
    }
}

impl Reader<'_> {
    /// The news of such a room; none where it must be looked at later.
    pub(super) fn left(&self, asked: &Asked<'_>) -> Result<Option<Read>, Error> {
        let entry = asked.entry;
        let mut next = self.next_sent(asked, Shown::Left, 0);
        let told = asked
            .sent
            .filter(|sent| sent.shown == Shown::Left && sent.entry == entry.position);
        if let Some(told) = told {
            (next.seen, next.start) = (told.seen, told.start);
            let same_config = told.config == asked.number && asked.config.timeline_limit <= told.limit;
            if same_config && told.is_dm == next.is_dm {
                return Ok(Some(self.nothing(asked, next)));
            }
        }
        let stored = self.look.request.user.room(&entry.room_id)?;
        let room = self.look.engine.rooms.get(&entry.room_id)?;
        let own = match (&stored, &room) {
            (Some(stored), Some(room)) => room.event_by_id(&stored.event_id)?,
            _ => None,
        };
        let (Some(stored), Some(room), Some(own)) = (&stored, &room, own) else {
            let body = match &stored {
                Some(stored) => self.gone_outside(stored)?,
                None => Body::Stripped {
                    state: Vec::new(),
                    gone: None,
                },
            };
            let news = self
                .news(asked, &next, Some(entry.ts), body)
                .filter(|_| told.is_none());
            return Ok(Some(Read {
                news,
                ..self.nothing(asked, next)
            }));
        };
        if own.header.position > self.look.until(room.shard()) {
            // Rooms wait for messages to the device, and what was said before the user left may need them too.
            return Ok(None);
        }
        let viewer = self.look.viewer(room)?;
        let Some((end, root)) = self.look.end_of_stay(room, entry, &own)? else {
            if told.is_some() {
                return Ok(Some(self.nothing(asked, next)));
            }
            let state = vec![stripped_own(&own)?];
            let gone = Some(Gone::Event(Box::new((room.clone(), viewer, own))));
            let news = self.news(asked, &next, Some(entry.ts), Body::Stripped { state, gone });
            return Ok(Some(Read {
                news,
                ..self.nothing(asked, next)
            }));
        };
        let span = Span {
            seen: self.seen_of_stay(asked.sent, room, end, told.is_some())?,
            until: stored.room_position,
            end,
            root,
        };
        let asked = Asked {
            sent: asked.sent.filter(|_| span.seen.is_some()),
            ..*asked
        };
        let (mut full, members) = self.full(&asked, room, &span, &mut next)?;
        if end != own.header.place && told.is_none() {
            // Banned after leaving: of the room between the two nothing is told.
            full.timeline.events.push(own.clone());
            full.live += 1;
            if asked
                .config
                .required_state
                .wants(MEMBER, own.pdu.state_key().unwrap_or_default())
            {
                full.state.push(own);
            }
        }
        let mut news = self.news(&asked, &next, Some(entry.ts), Body::Full(Box::new(full)));
        if let Some(news) = news.as_mut().filter(|_| told.is_some()) {
            news.bump_stamp = None;
        }
        Ok(Some(Read {
            sent: next,
            news,
            members,
        }))
    }

    /// The end of an invitation or a knock, of a room that this server is not in: all that is known is the entry.
    fn gone_outside(&self, stored: &RoomEntry) -> Result<Body, Error> {
        let event = self.look.left_outside(stored).event;
        let stripped = serde_json::json!({
            "type": event["type"],
            "state_key": event["state_key"],
            "sender": event["sender"],
            "content": event["content"],
        });
        Ok(Body::Stripped {
            state: vec![serde_json::value::to_raw_value(&stripped)?],
            gone: Some(Gone::Entry(serde_json::value::to_raw_value(&event)?)),
        })
    }

    /// What the client has seen of the last stay.
    fn seen_of_stay(
        &self,
        sent: Option<&RoomSent>,
        room: &Room,
        end: Place,
        told: bool,
    ) -> Result<Option<u64>, Error> {
        Ok(match sent.map(|sent| (sent.shown, sent.seen)) {
            Some((Shown::Joined, seen)) if self.look.was_joined_at(room, seen)? => Some(seen),
            // It was told of the whole stay, also where something else ended it once more, as a ban.
            Some((Shown::Left, seen)) if told || room.place_at(seen)? >= end => Some(seen),
            _ => None,
        })
    }
}

/// The user's own member event as stripped state.
fn stripped_own(own: &Event) -> Result<Box<RawValue>, Error> {
    let content: Value = serde_json::from_slice(own.pdu.content())?;
    let stripped = serde_json::json!({
        "type": own.pdu.kind(),
        "state_key": own.pdu.state_key(),
        "sender": own.pdu.sender(),
        "content": content,
    });
    Ok(serde_json::value::to_raw_value(&stripped)?)
}
