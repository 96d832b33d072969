//! GET /_matrix/client/v3/directory/room/{roomAlias} — Client-Server API, "Room aliases".

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedRoomAliasId;
use serde_json::{Value, json};

use crate::app::App;
use crate::client::rooms::elsewhere::resolve_alias;
use crate::error::Result;
use crate::extract::{Anybody, Json, Path};

/// The room that an alias points to. Anybody may ask, within a limit: other servers are asked for their aliases.
pub async fn get_alias(
    State(app): State<Arc<App>>,
    _: Anybody,
    Path(alias): Path<OwnedRoomAliasId>,
) -> Result<Json<Value>> {
    let (room_id, servers) = resolve_alias(&app, &alias).await?;
    Ok(Json(json!({ "room_id": room_id, "servers": servers })))
}
