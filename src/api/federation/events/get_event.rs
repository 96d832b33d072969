//! GET /_matrix/federation/v1/event/{eventId} — Server-Server API, "Retrieving events".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedEventId;
use serde_json::json;

use crate::app::App;
use crate::error::Result;
use crate::extract::Path;
use crate::federation::origin::Origin;
use crate::federation::rooms::shared_room;
use crate::federation::wire::Object;

/// One event, redacted where the asking server may not see it.
pub async fn get_event(
    State(app): State<Arc<App>>,
    Path(event_id): Path<OwnedEventId>,
    Origin(origin): Origin,
) -> Result<Object> {
    let unknown = || MatrixError::not_found(format!("The event {event_id} is not known here"));
    let found = app.rooms.room_of_event(&event_id)?.ok_or_else(unknown)?;
    let room = shared_room(&app, &origin, found.id())?;
    let event = room.serve_event(&origin, &event_id)?;
    Ok(Object::new()
        .value("origin", json!(app.server_name))
        .value("origin_server_ts", app.clock.now_ms())
        .events("pdus", &[event]))
}
