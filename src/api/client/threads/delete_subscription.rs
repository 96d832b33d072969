//! DELETE /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription — MSC4306,
//! "Unsubscribing from a thread".

use std::sync::Arc;

use axum::extract::State;
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};

use super::root;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Ends the user's subscription to a thread, if there is one.
pub async fn delete_subscription(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
) -> Result<Json<Value>> {
    let (room, _) = root(&app, &auth, &room_id, &event_id)?;
    let seen = room.view().last_n;
    auth.handle.unsubscribe_thread(room.id(), &event_id, seen).await?;
    Ok(Json(json!({})))
}
