//! What was said around a result, and who said it.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_rooms::{Event, Rendering};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::client::rooms::{Reading, tokens};
use crate::error::Result;
use crate::extract::or_default;

/// The most events on each side of a result: a page of results has many.
const SIDE_MAX: usize = 20;
/// So much may surround the results of a page: those that follow come alone.
pub(super) const ALL_SIDES_MAX_BYTES: usize = 8 << 20;
/// As the specification has it.
const SIDE_DEFAULT: usize = 5;

/// What of its surroundings is wanted with each result.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct EventContext {
    before_limit: Option<usize>,
    after_limit: Option<usize>,
    #[serde(default, deserialize_with = "or_default")]
    include_profile: bool,
}

impl EventContext {
    /// The surroundings of an event, as far as the user may see them. What they take goes off `left_bytes`.
    pub(super) fn of(
        &self,
        reading: &mut Reading,
        event: &Arc<Event>,
        rendering: &Rendering<'_>,
        keep: &dyn Fn(&Event) -> bool,
        left_bytes: &mut usize,
    ) -> Result<Value> {
        let side_max = if *left_bytes == 0 { 0 } else { SIDE_MAX };
        let side = |limit: Option<usize>| limit.unwrap_or(SIDE_DEFAULT).min(side_max);
        let room = reading.room.clone();
        let place = event.header.place;
        let viewer = &mut reading.viewer;
        let earlier = room.page(place.before(), None, true, side(self.before_limit), viewer, keep)?;
        let later = room.page(place, None, false, side(self.after_limit), viewer, keep)?;
        for shown in earlier.events.iter().chain(&later.events) {
            *left_bytes = left_bytes.saturating_sub(shown.pdu.json.len());
        }
        let first = earlier.events.last().map_or(place, |event| event.header.place);
        let last = later.events.last().map_or(place, |event| event.header.place);
        let mut context = json!({
            "start": tokens::token(first.before()),
            "end": tokens::token(last),
            "events_before": room.render_all(&earlier.events, viewer, rendering)?,
            "events_after": room.render_all(&later.events, viewer, rendering)?,
        });
        if self.include_profile {
            let shown = earlier.events.iter().chain(&later.events).chain([event]);
            let senders = shown.map(|event| event.pdu.sender().to_owned()).collect();
            context["profile_info"] = Value::Object(profiles(reading, event, &senders)?);
        }
        Ok(context)
    }
}

/// The names and pictures that users had in the room at the time of an event.
fn profiles(
    reading: &Reading,
    event: &Event,
    users: &BTreeSet<ruma::OwnedUserId>,
) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for user in users {
        let then = reading
            .room
            .state_at(event.header.state_before, "m.room.member", user.as_str())?;
        let member = match then {
            Some(member) => Some(member),
            // Who came after the event may have said something after it.
            None => reading.state("m.room.member", user.as_str())?,
        };
        let Some(member) = member else { continue };
        let content: Value = serde_json::from_slice(member.pdu.content()).unwrap_or_default();
        let mut profile = Map::new();
        for field in ["displayname", "avatar_url"] {
            if let Some(value) = content.get(field).filter(|value| value.is_string()) {
                profile.insert(field.to_owned(), value.clone());
            }
        }
        out.insert(user.to_string(), Value::Object(profile));
    }
    Ok(out)
}
