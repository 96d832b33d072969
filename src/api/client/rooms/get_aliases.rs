//! GET /_matrix/client/v3/rooms/{roomId}/aliases — Client-Server API, "Room aliases".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// This server's aliases of the room.
pub async fn get_aliases(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Value>> {
    let reading = super::Reading::begin(&app, &room_id, &auth.user)?;
    if reading.left.is_some() {
        super::joined_room(&app, &room_id, &auth.user)?;
    }
    Ok(Json(json!({ "aliases": reading.room.aliases()? })))
}
