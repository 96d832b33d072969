//! PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId} — Server-Server API, "Leaving Rooms (Rejecting Invites)".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::Dance;
use ruma::{OwnedEventId, OwnedRoomId};

use crate::app::App;
use crate::error::Result;
use crate::extract::Path;
use crate::federation::origin::SignedRaw;
use crate::federation::wire::Object;

/// A user of the asking server leaves, refuses an invitation, or takes a knock back.
pub async fn put_send_leave(
    State(app): State<Arc<App>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    SignedRaw(origin, body): SignedRaw,
) -> Result<Object> {
    super::accept(&app, &origin, Dance::Leave, (&room_id, &event_id), &body).await?;
    Ok(Object::new())
}
