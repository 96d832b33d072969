//! GET /_matrix/client/v3/rooms/{roomId}/event/{eventId} — Client-Server API, "Getting events for a
//! room".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::Rendering;
use ruma::{OwnedEventId, OwnedRoomId};
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
    let not_found = || MatrixError::not_found("There is no such event, or you may not see it");
    let room = app.rooms.get(&room_id)?.ok_or_else(not_found)?;
    let mut viewer = room.viewer(&auth.user)?.ignoring(auth.handle.ignored_users()?);
    let event = room.shown_event(&event_id)?.ok_or_else(not_found)?;
    if !viewer.may_see(&event)? {
        return Err(not_found().into());
    }
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    Ok(Json(room.render(&event, &mut viewer, &rendering)?))
}
