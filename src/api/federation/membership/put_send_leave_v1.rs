//! PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId} — Server-Server API, "Leaving Rooms (Rejecting Invites)".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::Dance;
use ruma::{OwnedEventId, OwnedRoomId};

use crate::app::App;
use crate::error::Result;
use crate::extract::Path;
use crate::federation::origin::SignedRaw;
use crate::federation::wire::Object;

/// As version 2, in the list of a status and an object that old servers expect.
pub async fn put_send_leave_v1(
    State(app): State<Arc<App>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    SignedRaw(origin, body): SignedRaw,
) -> Result<Response> {
    super::accept(&app, &origin, Dance::Leave, (&room_id, &event_id), &body).await?;
    Ok(Object::new().into_old_response())
}
