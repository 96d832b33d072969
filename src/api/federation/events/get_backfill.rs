//! GET /_matrix/federation/v1/backfill/{roomId} — Server-Server API, "Backfilling and retrieving missing events".

use std::sync::Arc;

use axum::extract::State;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Path, Query};
use crate::federation::origin::Origin;
use crate::federation::rooms::shared_room;
use crate::federation::wire::Object;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    #[serde(default)]
    v: Vec<OwnedEventId>,
    limit: u64,
}

/// Events and those before them, newest first.
pub async fn get_backfill(
    State(app): State<Arc<App>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
    Origin(origin): Origin,
) -> Result<Object> {
    let room = shared_room(&app, &origin, &room_id)?;
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    let events = room
        .apart(move |room| room.backfill(&origin, &options.v, limit))
        .await?;
    Ok(Object::new()
        .value("origin", json!(app.server_name))
        .value("origin_server_ts", app.clock.now_ms())
        .events("pdus", &events))
}
