//! GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey} — Client-Server API, "Getting
//! events for a room".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::Rendering;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::{Auth, Json, Path, Query};

#[derive(Deserialize)]
pub struct Options {
    format: Option<String>,
}

/// The content of a state event with an empty state key.
pub async fn get_state_event_empty(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind)): Path<(OwnedRoomId, String)>,
    Query(options): Query<Options>,
) -> Result<Json<Box<RawValue>>> {
    find(&app, &auth, &room_id, &kind, "", &options)
}

/// The content of a state event; the whole event with `format=event`.
pub async fn get_state_event(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, kind, state_key)): Path<(OwnedRoomId, String, String)>,
    Query(options): Query<Options>,
) -> Result<Json<Box<RawValue>>> {
    find(&app, &auth, &room_id, &kind, &state_key, &options)
}

fn find(
    app: &App,
    auth: &Auth,
    room_id: &OwnedRoomId,
    kind: &str,
    state_key: &str,
    options: &Options,
) -> Result<Json<Box<RawValue>>> {
    let mut reading = super::Reading::begin(app, room_id, &auth.user)?;
    let event = reading.state(kind, state_key)?;
    let event = event.ok_or_else(|| MatrixError::not_found("The room has no such state event"))?;
    if options.format.as_deref() == Some("event") {
        let rendering = Rendering {
            device: auth.device.as_ref().map(|device| device.as_str()),
            ..Rendering::default()
        };
        return Ok(Json(reading.room.render(
            &event,
            &mut reading.viewer,
            &rendering,
        )?));
    }
    serde_json::from_slice(event.pdu.content())
        .map(Json)
        .map_err(|error| ApiError::internal(&error))
}
