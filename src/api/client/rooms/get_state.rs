//! GET /_matrix/client/v3/rooms/{roomId}/state — Client-Server API, "Getting events for a room".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::Rendering;
use ruma::OwnedRoomId;

use super::parts;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Path};

/// The room's state, as of when the user left where the user has left.
pub async fn get_state(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Response> {
    let mut reading = super::Reading::begin(&app, &room_id, &auth.user)?;
    let room = reading.room.clone();
    let shorts = reading.state_shorts()?;
    let device = auth.device;
    parts::answer(room.clone(), shorts, ("[", "]"), move |event| {
        let rendering = Rendering {
            device: device.as_ref().map(|device| device.as_str()),
            ..Rendering::default()
        };
        let shown = room.render(event, &mut reading.viewer, &rendering)?;
        Ok(Some(Box::<str>::from(shown).into()))
    })
}
