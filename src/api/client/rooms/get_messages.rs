//! GET /_matrix/client/v3/rooms/{roomId}/messages — Client-Server API, "Syncing".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::{Event, Place, Rendering};
use hearth_sync::EventFilter;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::tokens;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query, token_unless_empty};

/// The most events of one page.
const LIMIT_MAX: usize = 1000;

#[derive(Deserialize)]
pub struct Options {
    #[serde(default, deserialize_with = "token_unless_empty")]
    from: Option<String>,
    #[serde(default, deserialize_with = "token_unless_empty")]
    to: Option<String>,
    dir: Option<String>,
    limit: Option<u64>,
    filter: Option<String>,
}

/// A page of the room's history, in either direction.
pub async fn get_messages(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let mut reading = super::Reading::begin(&app, &room_id, &auth.user)?;
    let room = reading.room.clone();
    let dir = options
        .dir
        .as_deref()
        .ok_or_else(|| MatrixError::missing_param("dir is missing"))?;
    let backward = tokens::is_backward(Some(dir), true)?;
    let filter = parse_filter(options.filter.as_deref())?;
    let newest = match &reading.left {
        Some(event) => event.header.place,
        None => Place {
            anchor: room.view().last_n,
            offset: 0,
        },
    };
    let mut from = match &options.from {
        Some(token) if backward => tokens::place_backwards(&reading, token, newest)?,
        Some(token) => tokens::place(&reading, token)?,
        None if backward => newest,
        None => Place::START,
    };
    if backward {
        from = from.min(newest);
    }
    let bound = reading
        .left
        .as_ref()
        .filter(|_| !backward)
        .map(|left| left.header.place);
    let to = options
        .to
        .as_deref()
        .map(|token| tokens::place(&reading, token))
        .transpose()?;
    let to = match (to, bound) {
        (Some(to), Some(bound)) => Some(to.min(bound)),
        (to, bound) => to.or(bound),
    };
    let limit = tokens::limit(options.limit.or(filter.limit), 10, LIMIT_MAX);
    let ignored = auth.handle.ignored_users()?;
    let keep = |event: &Event| {
        let is_ignored = event.pdu.state_key().is_none() && ignored.contains(event.pdu.sender());
        filter.has_room(room.id()) && filter.has_event(event) && !is_ignored
    };
    let page = match backward && room.is_resident() {
        true => {
            room.page_with_history(from, to, limit, &mut reading.viewer, &keep)
                .await?
        }
        false => room.page(from, to, backward, limit, &mut reading.viewer, &keep)?,
    };
    let events = page.events;
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    let chunk = room.render_all(&events, &mut reading.viewer, &rendering)?;
    // The token that was given, as it was given.
    let start = options.from.clone().unwrap_or_else(|| tokens::token(from));
    let mut answer = json!({ "chunk": chunk, "start": start });
    // What comes next is told from here, where somebody may come back for it.
    let newest_shown = events.last().filter(|_| !backward && to.is_none());
    if let Some(next) = page
        .next
        .or_else(|| newest_shown.map(|event| event.header.place))
        .or_else(|| end_of_filtered(&options, &filter, backward, &events))
    {
        answer["end"] = json!(tokens::token(next));
    }
    let newest = events.iter().max_by_key(|event| event.header.place);
    if let Some(newest) = newest.filter(|_| filter.lazy_load_members) {
        let root = room.state_after(newest)?;
        let members = super::get_context::members_of(&reading, &events, root)?;
        answer["state"] = json!(room.render_all(&members, &mut reading.viewer, &rendering)?);
    }
    Ok(Json(answer))
}

/// Where a filtered page backwards that reached the beginning without showing it ends. Clients of long
/// standing expect an `end` there; the page that follows is empty and has none.
fn end_of_filtered(
    options: &Options,
    filter: &EventFilter,
    backward: bool,
    events: &[Arc<Event>],
) -> Option<Place> {
    let last = events.last()?;
    let is_first = last.header.place.anchor <= 1;
    let hides =
        options.filter.is_some() && !(filter.has_type("m.room.create") && filter.contains_url != Some(true));
    (backward && options.to.is_none() && !is_first && hides).then_some(Place::START)
}

/// Reads the filter of a page. An empty one is none.
pub(crate) fn parse_filter(filter: Option<&str>) -> Result<EventFilter, MatrixError> {
    match filter.filter(|filter| !filter.is_empty()) {
        None => Ok(EventFilter::default()),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| MatrixError::invalid_param(format!("The filter is wrong: {error}"))),
    }
}
