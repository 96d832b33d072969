//! GET /_matrix/federation/v1/make_knock/{roomId}/{userId} — Server-Server API, "Knocking upon a room".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::Dance;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::Value;

use super::Versions;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path, Query};
use crate::federation::origin::Origin;

/// A template of the user's knock.
pub async fn get_make_knock(
    State(app): State<Arc<App>>,
    Path((room_id, user)): Path<(OwnedRoomId, OwnedUserId)>,
    Query(versions): Query<Versions>,
    Origin(origin): Origin,
) -> Result<Json<Value>> {
    super::make(&app, &origin, Dance::Knock, (&room_id, &user), &versions.known())
        .await
        .map(Json)
}
