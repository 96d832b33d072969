//! GET /_matrix/client/v3/events/{eventId} — Client-Server API, "Syncing" (deprecated).

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedEventId;
use serde_json::value::RawValue;

use crate::app::App;
use crate::client::rooms::get_event::show;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// One event, whatever room it is in, if the user may see it.
pub async fn get_events_event(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(event_id): Path<OwnedEventId>,
) -> Result<Json<Box<RawValue>>> {
    show(&app, &auth, app.rooms.room_of_event(&event_id)?, &event_id)
}
