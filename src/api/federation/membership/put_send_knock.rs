//! PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId} — Server-Server API, "Knocking upon a room".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::Dance;
use ruma::{OwnedEventId, OwnedRoomId};

use crate::app::App;
use crate::error::Result;
use crate::extract::Path;
use crate::federation::origin::SignedRaw;
use crate::federation::wire::Object;

/// A user of the asking server knocks; the server gets the events that show what room it is.
pub async fn put_send_knock(
    State(app): State<Arc<App>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    SignedRaw(origin, body): SignedRaw,
) -> Result<Object> {
    let (room, _) = super::accept(&app, &origin, Dance::Knock, (&room_id, &event_id), &body).await?;
    Ok(Object::new().events("knock_room_state", &room.preview_state()?))
}
