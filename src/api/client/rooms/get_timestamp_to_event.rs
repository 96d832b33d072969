//! GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event — Client-Server API, "Getting events for
//! a room".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

#[derive(Deserialize)]
pub struct Options {
    ts: u64,
    dir: String,
}

/// The event nearest to a time.
pub async fn get_timestamp_to_event(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let mut reading = super::Reading::begin(&app, &room_id, &auth.user)?;
    let backward = super::tokens::is_backward(Some(&options.dir), true)?;
    let room = reading.room.clone();
    let event = room
        .event_near_with_history(options.ts, backward, &mut reading.viewer)
        .await?;
    let event = event.ok_or_else(|| MatrixError::not_found("There is no event in that direction"))?;
    Ok(Json(
        json!({ "event_id": event.id(), "origin_server_ts": event.pdu.origin_server_ts() }),
    ))
}
