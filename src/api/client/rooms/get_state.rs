//! GET /_matrix/client/v3/rooms/{roomId}/state — Client-Server API, "Getting events for a room".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::Rendering;
use ruma::OwnedRoomId;
use serde_json::value::RawValue;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// The room's state, as of when the user left where the user has left.
pub async fn get_state(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Vec<Box<RawValue>>>> {
    let mut reading = super::Reading::begin(&app, &room_id, &auth.user)?;
    let events = reading.full_state()?;
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    Ok(Json(reading.room.render_all(
        &events,
        &mut reading.viewer,
        &rendering,
    )?))
}
