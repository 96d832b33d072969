//! GET /_matrix/federation/v1/timestamp_to_event/{roomId} — Server-Server API, "Retrieving events".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path, Query};
use crate::federation::origin::Origin;
use crate::federation::rooms::shared_room;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    ts: u64,
    dir: Direction,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum Direction {
    #[serde(rename = "f")]
    Forward,
    #[serde(rename = "b")]
    Backward,
}

/// The event nearest to a time, of those that the asking server may see.
pub async fn get_timestamp_to_event(
    State(app): State<Arc<App>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
    Origin(origin): Origin,
) -> Result<Json<Value>> {
    let room = shared_room(&app, &origin, &room_id)?;
    let mut viewer = room.server_viewer(&origin)?;
    let event = room.event_near(options.ts, options.dir == Direction::Backward, &mut viewer)?;
    let event = event.ok_or_else(|| MatrixError::not_found("There is no event in that direction"))?;
    Ok(Json(
        json!({ "event_id": event.id(), "origin_server_ts": event.pdu.origin_server_ts() }),
    ))
}
