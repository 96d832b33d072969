//! GET /_matrix/federation/v1/event_auth/{roomId}/{eventId} — Server-Server API, "Retrieving event
//! authorisation information".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use ruma::{OwnedEventId, OwnedRoomId};

use crate::app::App;
use crate::error::Result;
use crate::extract::Path;
use crate::federation::large;
use crate::federation::origin::Origin;
use crate::federation::rooms::shared_room;
use crate::federation::wire::Object;

/// The auth chain of an event.
pub async fn get_event_auth(
    State(app): State<Arc<App>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Origin(origin): Origin,
) -> Result<Response> {
    let room = shared_room(&app, &origin, &room_id)?;
    let place = app.large_answers.place(origin.as_str()).await;
    let chain = room.apart(move |room| room.serve_event_auth(&event_id)).await?;
    let answer = Object::new().events("auth_chain", &chain);
    Ok(large::respond(answer.into_bytes(), place))
}
