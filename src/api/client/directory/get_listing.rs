//! GET /_matrix/client/v3/directory/list/room/{roomId} — Client-Server API, "Published room directory".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Anybody, Json, Path};

/// Whether the room is in the public directory.
pub async fn get_listing(
    State(app): State<Arc<App>>,
    _: Anybody,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Value>> {
    let room = crate::client::rooms::room(&app, &room_id)?;
    let visibility = if app.rooms.is_listed(&room)? {
        "public"
    } else {
        "private"
    };
    Ok(Json(json!({ "visibility": visibility })))
}
