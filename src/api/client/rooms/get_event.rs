//! GET /_matrix/client/v3/rooms/{roomId}/event/{eventId} — Client-Server API, "Getting events for a
//! room".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::{Membership, Rendering, Room};
use ruma::{EventId, OwnedEventId, OwnedRoomId};
use serde_json::value::RawValue;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// One event, if the user may see it.
pub async fn get_event(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
) -> Result<Json<Box<RawValue>>> {
    show(&app, &auth, app.rooms.get(&room_id)?, &event_id)
}

/// An event of a room, as far as there is one that the user may see.
pub(crate) fn show(
    app: &App,
    auth: &Auth,
    room: Option<Room>,
    event_id: &EventId,
) -> Result<Json<Box<RawValue>>> {
    let not_found = || MatrixError::not_found("There is no such event, or you may not see it");
    let room = room.ok_or_else(not_found)?;
    let mut viewer = room.viewer(&auth.user)?.ignoring(auth.handle.ignored_users()?);
    if viewer.membership() != Membership::Join && app.is_forgotten(&auth.user, room.id())? {
        return Err(not_found().into());
    }
    let event = room.shown_event(event_id)?.ok_or_else(not_found)?;
    if !viewer.may_see(&event)? {
        return Err(not_found().into());
    }
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    Ok(Json(room.render(&event, &mut viewer, &rendering)?))
}
