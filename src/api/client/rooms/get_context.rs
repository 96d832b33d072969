//! GET /_matrix/client/v3/rooms/{roomId}/context/{eventId} — Client-Server API, "Event context".

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_core::error::MatrixError;
use hearth_rooms::{Event, NodeId, Rendering};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::json;

use super::{Reading, tokens};
use crate::app::App;
use crate::client::large;
use crate::error::Result;
use crate::extract::{Auth, Path, Query};

/// The most events around the one asked for.
const LIMIT_MAX: usize = 100;

#[derive(Deserialize)]
pub struct Options {
    limit: Option<u64>,
    filter: Option<String>,
}

/// An event with what was said before and after it.
pub async fn get_context(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Query(options): Query<Options>,
) -> Result<Response> {
    let mut reading = Reading::begin(&app, &room_id, &auth.user)?;
    let room = reading.room.clone();
    let filter = super::get_messages::parse_filter(options.filter.as_deref())?;
    let event = room.shown_event(&event_id)?;
    let event = match event {
        Some(event) if reading.viewer.may_see(&event)? => event,
        _ => return Err(MatrixError::not_found("There is no such event, or you may not see it").into()),
    };
    let limit = options
        .limit
        .map_or(10, |limit| usize::try_from(limit).unwrap_or(LIMIT_MAX))
        .min(LIMIT_MAX);
    let ignored = reading.viewer.ignored();
    let keep = |event: &Event| {
        let is_ignored = event.pdu.state_key().is_none() && ignored.contains(event.pdu.sender());
        filter.has_room(room.id()) && filter.has_event(event) && !is_ignored
    };
    let place = event.header.place;
    let (before, after) = (limit / 2, limit - limit / 2);
    let viewer = &mut reading.viewer;
    let earlier = room.page(place.before(), None, true, before, viewer, &keep)?;
    let later = room.page(place, None, false, after, viewer, &keep)?;
    let start = earlier
        .events
        .last()
        .map_or(place, |event| event.header.place)
        .before();
    let end = later.events.last().map_or(place, |event| event.header.place);
    let root = match later.events.last() {
        Some(last) => room.state_after(last)?,
        None => room.state_after(&event)?,
    };
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    let wants_members = !filter.lazy_load_members && filter.has_type("m.room.member");
    let place = match wants_members {
        true => large::place_for_rooms(&app, &auth, [&room].into_iter()).await,
        false => None,
    };
    let mut state = if filter.lazy_load_members {
        let mut shown = earlier.events.clone();
        shown.push(event.clone());
        shown.extend(later.events.iter().cloned());
        let mut state = room.state_without_members_at(root)?;
        state.extend(members_of(&reading, &shown, root)?);
        state
    } else if wants_members {
        room.full_state_at(root)?
    } else {
        room.state_without_members_at(root)?
    };
    state.retain(|event| filter.has_room(room.id()) && filter.has_event(event));
    let viewer = &mut reading.viewer;
    let answer = json!({
        "start": tokens::token(start),
        "end": tokens::token(end),
        "event": room.render(&event, viewer, &rendering)?,
        "events_before": room.render_all(&earlier.events, viewer, &rendering)?,
        "events_after": room.render_all(&later.events, viewer, &rendering)?,
        "state": room.render_all(&state, viewer, &rendering)?,
    });
    Ok(large::respond(answer.to_string().into_bytes(), place))
}

/// The member events of those who sent the given events, as they were in a state: whoever has left since had a name then.
pub(crate) fn members_of(reading: &Reading, events: &[Arc<Event>], root: NodeId) -> Result<Vec<Arc<Event>>> {
    let senders: BTreeSet<_> = events.iter().map(|event| event.pdu.sender().to_owned()).collect();
    let mut out = Vec::new();
    for sender in senders {
        let member = match reading.room.state_at(root, "m.room.member", sender.as_str())? {
            Some(member) => Some(member),
            // A state that is not whole yet may lack the member.
            None => reading.state("m.room.member", sender.as_str())?,
        };
        out.extend(member);
    }
    Ok(out)
}
