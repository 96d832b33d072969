//! GET /_matrix/client/v3/directory/room/{roomAlias} — Client-Server API, "Room aliases".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::OwnedRoomAliasId;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path};

/// The room that an alias points to.
pub async fn get_alias(
    State(app): State<Arc<App>>,
    Path(alias): Path<OwnedRoomAliasId>,
) -> Result<Json<Value>> {
    let found = app.rooms.alias(&alias)?;
    let found = found.ok_or_else(|| MatrixError::not_found("There is no such alias"))?;
    Ok(Json(
        json!({ "room_id": found.room_id, "servers": [app.server_name] }),
    ))
}
