//! GET /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription — MSC4306, "Retrieving
//! thread subscription".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};

use super::root;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Says whether the user is subscribed to a thread, and whether that was automatic.
pub async fn get_subscription(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
) -> Result<Json<Value>> {
    let (room, _) = root(&app, &auth, &room_id, &event_id)?;
    let thread = auth.handle.now().thread(room.id(), &event_id)?;
    let thread = thread
        .filter(|thread| thread.subscribed)
        .ok_or_else(|| MatrixError::not_found("You are not subscribed to this thread"))?;
    Ok(Json(json!({ "automatic": thread.automatic })))
}
