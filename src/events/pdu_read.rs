//! Finding and checking what is read from an event.

use std::borrow::Cow;

use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, UserId};

use crate::json::{Member, elements, members, string};
use crate::limits::{AUTH_EVENTS_MAX, FIELD_MAX_BYTES, PREV_EVENTS_MAX};
use crate::pdu::{Fields, check_size};
use crate::{Error, Layout, Rules, Span, state_key};

/// The members of an event that are read.
#[derive(Default)]
pub(crate) struct Parts<'a> {
    auth_events: Option<&'a [u8]>,
    content: Option<Member<'a>>,
    depth: Option<&'a [u8]>,
    pub event_id: Option<&'a [u8]>,
    origin_server_ts: Option<Member<'a>>,
    prev_events: Option<&'a [u8]>,
    redacts: Option<Member<'a>>,
    room_id: Option<&'a [u8]>,
    sender: Option<Member<'a>>,
    state_key: Option<Member<'a>>,
    kind: Option<Member<'a>>,
}

impl<'a> Parts<'a> {
    pub fn find(json: &'a [u8]) -> Parts<'a> {
        let mut parts = Parts::default();
        for member in members(json) {
            match member.key {
                b"auth_events" => parts.auth_events = Some(member.value),
                b"content" => parts.content = Some(member),
                b"depth" => parts.depth = Some(member.value),
                b"event_id" => parts.event_id = Some(member.value),
                b"origin_server_ts" => parts.origin_server_ts = Some(member),
                b"prev_events" => parts.prev_events = Some(member.value),
                b"redacts" => parts.redacts = Some(member),
                b"room_id" => parts.room_id = Some(member.value),
                b"sender" => parts.sender = Some(member),
                b"state_key" => parts.state_key = Some(member),
                b"type" => parts.kind = Some(member),
                _ => {}
            }
        }
        parts
    }

    pub fn layout(&self, rules: &Rules, json: &[u8]) -> Layout {
        let span = |member: Option<Member<'_>>| {
            member.map_or(Span::default(), |member| {
                Span::new(member.start, member.value.len())
            })
        };
        let kind = span(self.kind);
        let redacts = if kind.of(json) != Some(b"\"m.room.redaction\"") {
            Span::default()
        } else if rules.redaction.content_field_redacts {
            self.content.map_or(Span::default(), |content| {
                let inner = members(content.value).find(|member| member.key == b"redacts");
                inner.map_or(Span::default(), |inner| {
                    Span::new(content.start + inner.start, inner.value.len())
                })
            })
        } else {
            span(self.redacts)
        };
        Layout {
            content: span(self.content),
            origin_server_ts: span(self.origin_server_ts),
            redacts,
            sender: span(self.sender),
            state_key: span(self.state_key),
            kind,
        }
    }

    pub fn fields(
        &self,
        rules: &Rules,
        json: &[u8],
        layout: &Layout,
        kind: Box<str>,
        event_id: &EventId,
    ) -> Result<Fields, Error> {
        if !self
            .content
            .is_some_and(|content| content.value.starts_with(b"{"))
        {
            return Err(Error::Format("`content` is not an object".to_owned()));
        }
        let sender = required_text(rules, json, layout.sender, "sender")?;
        let sender = UserId::parse(&*sender)
            .map_err(|error| Error::Format(format!("`sender` is not a user id ({error})")))?;
        let state_key = match layout.state_key.of(json) {
            Some(value) => Some(text_within(rules, value, "state_key", state_key::longest(rules))?.into()),
            None => None,
        };
        // A wrong `redacts` redacts nothing; the event stands as any other.
        let redacts = layout
            .redacts
            .of(json)
            .and_then(string)
            .and_then(|id| EventId::parse(&*id).ok());
        let origin_server_ts = layout.origin_server_ts.of(json);
        let depth = unsigned_number(self.depth, "depth")?;
        if depth > rules.depth_max() {
            return Err(Error::Format(format!(
                "`depth` is more than {}",
                rules.depth_max()
            )));
        }
        Ok(Fields {
            room_id: self.room_id(rules, &kind, event_id)?,
            sender,
            state_key,
            redacts,
            origin_server_ts: unsigned_number(origin_server_ts, "origin_server_ts")?,
            depth,
            prev_events: references(rules, self.prev_events, "prev_events", PREV_EVENTS_MAX)?,
            auth_events: references(rules, self.auth_events, "auth_events", AUTH_EVENTS_MAX)?,
            kind,
        })
    }

    fn room_id(&self, rules: &Rules, kind: &str, event_id: &EventId) -> Result<OwnedRoomId, Error> {
        if kind == "m.room.create" && rules.room_id_is_create_hash() {
            // Authorization says so too, but nobody should get as far as to look the room up.
            if self.room_id.is_some() {
                return Err(Error::Format(
                    "a create event has no `room_id` in this room version".to_owned(),
                ));
            }
            return rules.room_id_of_create(event_id);
        }
        let value = self
            .room_id
            .ok_or_else(|| Error::Format("`room_id` is missing".to_owned()))?;
        RoomId::parse(&*text(rules, value, "room_id")?)
            .map_err(|error| Error::Format(format!("`room_id` is not a room id ({error})")))
    }
}

/// A string field within its size.
fn text<'a>(rules: &Rules, value: &'a [u8], name: &'static str) -> Result<Cow<'a, str>, Error> {
    text_within(rules, value, name, FIELD_MAX_BYTES)
}

fn text_within<'a>(
    rules: &Rules,
    value: &'a [u8],
    name: &'static str,
    max: usize,
) -> Result<Cow<'a, str>, Error> {
    let text = string(value).ok_or_else(|| Error::Format(format!("`{name}` is not a string")))?;
    let is_longer = text.len() > max;
    if is_longer && !(rules.counts_characters() && text.chars().count() <= max) {
        check_size(name, text.len(), max)?;
    }
    Ok(text)
}

pub(crate) fn required_text<'a>(
    rules: &Rules,
    json: &'a [u8],
    span: Span,
    name: &'static str,
) -> Result<Cow<'a, str>, Error> {
    text(
        rules,
        span.of(json)
            .ok_or_else(|| Error::Format(format!("`{name}` is missing")))?,
        name,
    )
}

pub(crate) fn explicit_id(rules: &Rules, value: Option<&[u8]>) -> Result<OwnedEventId, Error> {
    let value = value.ok_or_else(|| Error::Format("`event_id` is missing".to_owned()))?;
    let event_id = EventId::parse(&*text(rules, value, "event_id")?)
        .map_err(|error| Error::Format(format!("`event_id` is not an event id ({error})")))?;
    if event_id.server_name().is_none() {
        return Err(Error::Format("`event_id` names no server".to_owned()));
    }
    Ok(event_id)
}

fn unsigned_number(value: Option<&[u8]>, name: &'static str) -> Result<u64, Error> {
    let value = value.ok_or_else(|| Error::Format(format!("`{name}` is missing")))?;
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::Format(format!("`{name}` is not a non-negative integer")))
}

fn references(
    rules: &Rules,
    value: Option<&[u8]>,
    name: &'static str,
    max: usize,
) -> Result<Vec<OwnedEventId>, Error> {
    let value = value
        .filter(|value| value.starts_with(b"["))
        .ok_or_else(|| Error::Format(format!("`{name}` is not an array")))?;
    let mut found = Vec::new();
    for element in elements(value) {
        if found.len() == max {
            return Err(Error::Format(format!("`{name}` has more than {max} entries")));
        }
        let id = if rules.paired_references() {
            elements(element).next()
        } else {
            Some(element)
        };
        let id = id.and_then(string).and_then(|id| EventId::parse(&*id).ok());
        found.push(id.ok_or_else(|| {
            Error::Format(format!(
                "`{name}` has an entry that is not a reference to an event"
            ))
        })?);
    }
    Ok(found)
}
