//! GET /_matrix/federation/v1/make_leave/{roomId}/{userId} — Server-Server API, "Leaving Rooms (Rejecting Invites)".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::Dance;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::Value;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path};
use crate::federation::origin::Origin;

/// A template of the user's leave.
pub async fn get_make_leave(
    State(app): State<Arc<App>>,
    Path((room_id, user)): Path<(OwnedRoomId, OwnedUserId)>,
    Origin(origin): Origin,
) -> Result<Json<Value>> {
    super::make(&app, &origin, Dance::Leave, (&room_id, &user), &[])
        .await
        .map(Json)
}
